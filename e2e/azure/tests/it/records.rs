//! Counters, journal and the gauge of requests in flight.

use azure_emulator::{Action, Emulator, Fault, Kind, Options};
use serde_json::json;

use crate::harness::{self, CLIENT, HOST, LOGIN, SCOPE, SECRET, Scene, TENANT, VAULT, eventually, form};

#[test]
fn requests_are_counted_by_kind_and_place() {
    let scene = Scene::new();
    scene.azure.set_secret(VAULT, "thing", "the-value");
    scene.azure.add_vault("second-vault", "vault.azure.net", TENANT);
    let url = format!("{HOST}/secrets/thing?api-version=7.6");
    scene.send(scene.http.get(&url));
    let token = scene.token();
    scene.get("/secrets/thing", &token);
    scene.get("/secrets/missing", &token);
    scene.get("/secrets/thing/versions", &token);
    scene.get("/secrets", &token);
    let put = scene.vault(reqwest::Method::PUT, "/secrets/thing", &token, Some(json!({ "value": "x" })));
    assert_eq!(put.status, 200);
    let counters = scene.azure.counters(VAULT);
    let kinds = [(Kind::Challenge, 1), (Kind::Get, 2), (Kind::ListVersions, 1), (Kind::List, 1), (Kind::Set, 1)];
    for (kind, count) in kinds {
        assert_eq!(counters.get(kind), count, "{kind:?}");
    }
    assert_eq!(counters.total(), 6);
    assert_eq!(scene.azure.counters(TENANT).get(Kind::Token), 1);
    assert_eq!(scene.azure.counters("second-vault").total(), 0);
    scene.azure.reset_counters(VAULT);
    assert_eq!(scene.azure.counters(VAULT).total(), 0);
    assert_eq!(scene.azure.counters(TENANT).total(), 1);
}

#[test]
fn the_journal_tells_who_asked_what_and_no_secret() {
    let scene = Scene::new();
    scene.azure.set_secret(VAULT, "thing", "the-value");
    scene.token_request(LOGIN, TENANT, &form(CLIENT, "wrong", SCOPE));
    let token = scene.token();
    scene.send(scene.http.get(format!("{HOST}/secrets/thing?api-version=7.6")));
    scene.get("/secrets/thing/", &token);
    scene.get("/secrets/thing", "a.foreign.token");
    let journal = scene.azure.journal();
    let told: Vec<_> = journal
        .iter()
        .map(|entry| (entry.kind, entry.status, entry.client_id.as_deref(), entry.authorized, entry.path.as_str()))
        .collect();
    let token_path = format!("/{TENANT}/oauth2/v2.0/token");
    let expected = [
        (Kind::Token, Some(401), Some(CLIENT), false, token_path.as_str()),
        (Kind::Token, Some(200), Some(CLIENT), false, token_path.as_str()),
        (Kind::Challenge, Some(401), None, false, "/secrets/thing"),
        (Kind::Get, Some(200), Some(CLIENT), true, "/secrets/thing/"),
        (Kind::Get, Some(401), None, true, "/secrets/thing"),
    ];
    assert_eq!(told, expected);
    assert_eq!(journal[3].host, "first-vault.vault.azure.net");
    assert_eq!(journal[3].token_sha256.as_ref().unwrap().len(), 16);
    assert_ne!(journal[3].token_sha256, journal[4].token_sha256);
    let text = serde_json::to_string(&journal).unwrap();
    for secret in ["the-value", SECRET, token.as_str(), "a.foreign.token"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    scene.azure.reset_journal();
    assert!(scene.azure.journal().is_empty());
    scene.get("/secrets/thing", &token);
    assert_eq!(scene.azure.journal()[0].sequence, 5);
}

#[test]
fn requests_in_flight_are_gauged() {
    let scene = Scene::new();
    scene.azure.set_secret(VAULT, "thing", "the-value");
    let token = scene.token();
    for _ in 0..3 {
        scene.get("/secrets/thing", &token);
    }
    assert_eq!(scene.azure.max_in_flight(VAULT), 1);
    scene.azure.add_fault(Fault::new(Action::Hang).host(VAULT));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let request = scene.http.get(format!("{HOST}/secrets/thing?api-version=7.6")).bearer_auth(&token);
            std::thread::spawn(move || harness::reply(request))
        })
        .collect();
    eventually("all four have arrived", || scene.azure.counters(VAULT).get(Kind::Get) == 7);
    assert_eq!(scene.azure.max_in_flight(VAULT), 4);
    drop(scene);
    for caller in callers {
        assert!(caller.join().unwrap().is_err(), "stopping the emulator ends every request");
    }
}

#[test]
fn a_dropped_emulator_lets_go_of_its_port() {
    // An address of its own, so that no other test can take the port in between.
    let listen = "127.0.0.77:0".parse().unwrap();
    let emulator = Emulator::start(Options { listen, ..Options::loopback() }).unwrap();
    let address = emulator.address();
    drop(emulator);
    // A process that another test is just starting may hold a copy of the socket for a moment.
    eventually("the port is free", || std::net::TcpListener::bind(address).is_ok());
    let again = Emulator::start(Options { listen: address, ..Options::loopback() }).unwrap();
    assert_eq!(again.address(), address);
}

#[test]
fn a_taken_port_is_named_in_the_error() {
    let emulator = Emulator::start(Options::loopback()).unwrap();
    let listen = emulator.address();
    let error = Emulator::start(Options { listen, ..Options::loopback() }).unwrap_err().to_string();
    assert!(error.contains(&listen.to_string()), "{error}");
}

#[test]
fn the_admin_api_stays_on_loopback() {
    let admin = Some("0.0.0.0:0".parse().unwrap());
    let error = Emulator::start(Options { admin, ..Options::loopback() }).unwrap_err().to_string();
    assert!(error.contains("loopback"), "{error}");
}

#[test]
fn what_a_client_makes_up_cannot_fill_the_journal() {
    let scene = Scene::new();
    let long = "é".repeat(5000);
    scene.token_request(LOGIN, TENANT, &form(&long, SECRET, SCOPE));
    scene.send(scene.http.get(format!("{LOGIN}/{}", "a".repeat(5000))));
    let journal = scene.azure.journal();
    assert_eq!(journal[0].client_id.as_ref().unwrap().chars().count(), 256);
    assert_eq!((journal[1].path.len(), journal[1].place.len()), (512, 512));
}
