//! Counters, journal, requests in flight, and the sockets.

use azure_emulator::{Action, Emulator, Fault, Kind, Options};
use serde_json::json;

use crate::harness::{self, CLIENT, Fixture, HOST, LOGIN, SCOPE, SECRET, TENANT, VAULT, eventually, form};

#[test]
fn requests_are_counted_by_kind_and_service() {
    let fixture = Fixture::new();
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    fixture.azure.add_vault("second-vault", "vault.azure.net", TENANT);
    let url = format!("{HOST}/secrets/thing?api-version=7.6");
    fixture.send(fixture.http.get(&url));
    let token = fixture.token();
    fixture.get("/secrets/thing", &token);
    fixture.get("/secrets/missing", &token);
    fixture.get("/secrets/thing/versions", &token);
    fixture.get("/secrets", &token);
    let put = fixture.vault(reqwest::Method::PUT, "/secrets/thing", &token, Some(json!({ "value": "x" })));
    assert_eq!(put.status, 200);
    let counters = fixture.azure.counters(VAULT);
    let kinds = [(Kind::Challenge, 1), (Kind::Get, 2), (Kind::ListVersions, 1), (Kind::List, 1), (Kind::Set, 1)];
    for (kind, count) in kinds {
        assert_eq!(counters.get(kind), count, "{kind:?}");
    }
    assert_eq!(counters.total(), 6);
    assert_eq!(fixture.azure.counters(TENANT).get(Kind::Token), 1);
    assert_eq!(fixture.azure.counters("second-vault").total(), 0);
    fixture.azure.reset_counters(VAULT);
    assert_eq!(fixture.azure.counters(VAULT).total(), 0);
    assert_eq!(fixture.azure.counters(TENANT).total(), 1);
}

#[test]
fn the_journal_has_caller_and_path_and_no_secret() {
    let fixture = Fixture::new();
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    fixture.token_request(LOGIN, TENANT, &form(CLIENT, "wrong", SCOPE));
    let token = fixture.token();
    fixture.send(fixture.http.get(format!("{HOST}/secrets/thing?api-version=7.6")));
    fixture.get("/secrets/thing/", &token);
    fixture.get("/secrets/thing", "a.foreign.token");
    let journal = fixture.azure.journal();
    let entries: Vec<_> = journal
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
    assert_eq!(entries, expected);
    assert_eq!(journal[3].host, "first-vault.vault.azure.net");
    assert_eq!(journal[3].token_sha256.as_ref().unwrap().len(), 16);
    assert_ne!(journal[3].token_sha256, journal[4].token_sha256);
    let text = serde_json::to_string(&journal).unwrap();
    for secret in ["the-value", SECRET, token.as_str(), "a.foreign.token"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    fixture.azure.reset_journal();
    assert!(fixture.azure.journal().is_empty());
    fixture.get("/secrets/thing", &token);
    assert_eq!(fixture.azure.journal()[0].sequence, 5);
}

#[test]
fn requests_in_flight_are_counted() {
    let fixture = Fixture::new();
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    let token = fixture.token();
    for _ in 0..3 {
        fixture.get("/secrets/thing", &token);
    }
    assert_eq!(fixture.azure.max_in_flight(VAULT), 1);
    fixture.azure.add_fault(Fault::new(Action::Hang).host(VAULT));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let request = fixture.http.get(format!("{HOST}/secrets/thing?api-version=7.6")).bearer_auth(&token);
            std::thread::spawn(move || harness::reply(request))
        })
        .collect();
    eventually("all four have arrived", || fixture.azure.counters(VAULT).get(Kind::Get) == 7);
    assert_eq!(fixture.azure.max_in_flight(VAULT), 4);
    drop(fixture);
    for caller in callers {
        assert!(caller.join().unwrap().is_err(), "stopping the emulator ends every request");
    }
}

#[test]
fn a_dropped_emulator_closes_its_port() {
    // A separate address, so that no other test can bind the port in between.
    let listen = "127.0.0.77:0".parse().unwrap();
    let emulator = Emulator::start(Options { listen, ..Options::loopback() }).unwrap();
    let address = emulator.address();
    drop(emulator);
    // A child process that another test is starting may briefly have a copy of the socket.
    eventually("the port is free", || std::net::TcpListener::bind(address).is_ok());
    let again = Emulator::start(Options { listen: address, ..Options::loopback() }).unwrap();
    assert_eq!(again.address(), address);
}

#[test]
fn an_error_names_the_port_that_is_in_use() {
    let emulator = Emulator::start(Options::loopback()).unwrap();
    let listen = emulator.address();
    let error = Emulator::start(Options { listen, ..Options::loopback() }).unwrap_err().to_string();
    assert!(error.contains(&listen.to_string()), "{error}");
}

#[test]
fn the_admin_api_listens_on_loopback_only() {
    let admin = Some("0.0.0.0:0".parse().unwrap());
    let error = Emulator::start(Options { admin, ..Options::loopback() }).unwrap_err().to_string();
    assert!(error.contains("loopback"), "{error}");
}

#[test]
fn long_texts_of_a_client_are_truncated_in_the_journal() {
    let fixture = Fixture::new();
    let long = "é".repeat(5000);
    fixture.token_request(LOGIN, TENANT, &form(&long, SECRET, SCOPE));
    fixture.send(fixture.http.get(format!("{LOGIN}/{}", "a".repeat(5000))));
    let journal = fixture.azure.journal();
    assert_eq!(journal[0].client_id.as_ref().unwrap().chars().count(), 256);
    assert_eq!((journal[1].path.len(), journal[1].service.len()), (512, 512));
}
