//! Faults on demand, over HTTP/1.1 and HTTP/2.

use std::time::{Duration, Instant};

use azure_emulator::{Action, Fault, Kind};
use reqwest::blocking::Client;
use serde_json::Value;

use crate::harness::{self, CLIENT, HOST, LOGIN, Reply, SCOPE, SECRET, Scene, TENANT, VAULT, client, eventually, form};

fn seeded() -> (Scene, String) {
    let scene = Scene::new();
    scene.azure.set_secret(VAULT, "thing", "the-value");
    let token = scene.token();
    (scene, token)
}

/// The scene's client, which negotiates HTTP/2, and one that does not.
fn both(scene: &Scene) -> [Client; 2] {
    [scene.http.clone(), client(&scene.emulator).http1_only().build().unwrap()]
}

fn read(http: &Client, token: &str) -> reqwest::Result<Reply> {
    harness::reply(http.get(format!("{HOST}/secrets/thing?api-version=7.6")).bearer_auth(token))
}

#[test]
fn the_client_speaks_both_protocols() {
    let (scene, _) = seeded();
    let versions = both(&scene).map(|http| http.get(HOST).send().unwrap().version());
    assert_eq!(versions, [reqwest::Version::HTTP_2, reqwest::Version::HTTP_11]);
}

#[test]
fn a_rule_hits_what_it_names_and_as_often_as_it_says() {
    let (scene, token) = seeded();
    scene.azure.set_secret(VAULT, "other", "the-value");
    let rule = Fault::new(Action::status(500)).host(VAULT).kind(Kind::Get).object("THING").skip(1).times(2);
    scene.azure.add_fault(rule);
    assert_eq!(scene.get("/secrets/other", &token).status, 200);
    assert_eq!(scene.get("/secrets/thing/versions", &token).status, 200);
    let statuses: Vec<u16> = (0..4).map(|_| scene.get("/secrets/thing", &token).status).collect();
    assert_eq!(statuses, [200, 500, 500, 200]);
}

#[test]
fn rules_are_cleared_by_place() {
    let (scene, token) = seeded();
    scene.azure.add_fault(Fault::new(Action::status(500)).host(VAULT));
    scene.azure.add_fault(Fault::new(Action::status(503)));
    assert_eq!(scene.get("/secrets/thing", &token).status, 500);
    scene.azure.clear_faults("FIRST-vault");
    assert_eq!(scene.get("/secrets/thing", &token).status, 503);
    scene.azure.clear_all_faults();
    assert_eq!(scene.get("/secrets/thing", &token).status, 200);
}

#[test]
fn throttling_looks_like_key_vaults() {
    let (scene, token) = seeded();
    scene.azure.add_fault(Fault::new(Action::status_retry_after(429, 7)).host(VAULT).kind(Kind::Get));
    let reply = scene.get("/secrets/thing", &token);
    assert_eq!((reply.status, reply.header("retry-after")), (429, "7"));
    let (code, _, message) = reply.vault_error();
    assert_eq!(code, "Throttled");
    assert!(message.ends_with("VaultRequestTypeLimitReached"), "{message}");
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
}

#[test]
fn a_forced_401_still_carries_the_challenge() {
    let (scene, token) = seeded();
    scene.azure.add_fault(Fault::new(Action::status(401)).host(VAULT));
    let reply = scene.get("/secrets/thing", &token);
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").contains(TENANT));
}

#[test]
fn entra_fails_in_its_own_words() {
    let scene = Scene::new();
    for (status, code) in [(429, 90_055), (503, 90_033), (500, 90_033)] {
        let action = Action::Status { status, retry_after: Some("nonsense".to_owned()) };
        scene.azure.add_fault(Fault::new(action).host(TENANT).kind(Kind::Token).times(1));
        let reply = scene.token_request(LOGIN, TENANT, &form(CLIENT, SECRET, SCOPE));
        assert_eq!((reply.status, reply.header("retry-after")), (status, "nonsense"));
        assert_eq!(reply.json()["error"], "temporarily_unavailable");
        assert_eq!(reply.json()["error_codes"][0], code);
    }
    scene.token();
}

#[test]
fn a_challenge_and_the_request_after_it_are_hit_apart() {
    let (scene, token) = seeded();
    scene.azure.add_fault(Fault::new(Action::status(503)).host(VAULT).kind(Kind::Challenge));
    let url = format!("{HOST}/secrets/thing?api-version=7.6");
    assert_eq!(scene.send(scene.http.get(url)).status, 503);
    assert_eq!(scene.get("/secrets/thing", &token).status, 200);
}

#[test]
fn latencies_add_up() {
    let (scene, token) = seeded();
    let delay = Duration::from_millis(60);
    scene.azure.set_base_latency(delay);
    scene.azure.add_fault(Fault::new(Action::latency(delay)).host(VAULT));
    scene.azure.add_fault(Fault::new(Action::latency(delay)).host(VAULT));
    let start = Instant::now();
    assert_eq!(scene.get("/secrets/thing", &token).status, 200);
    assert!(start.elapsed() >= 3 * delay, "{:?}", start.elapsed());
}

#[test]
fn a_hung_request_ends_when_its_client_gives_up() {
    let (scene, token) = seeded();
    scene.azure.add_fault(Fault::new(Action::Hang).host(VAULT).kind(Kind::Get));
    for http in [client(&scene.emulator), client(&scene.emulator).http1_only()] {
        let impatient = http.timeout(Duration::from_secs(1)).build().unwrap();
        // The first request opens the connection, so that the second has its second for itself.
        harness::reply(impatient.get(HOST)).unwrap();
        scene.azure.reset_counters(VAULT);
        assert!(read(&impatient, &token).unwrap_err().is_timeout());
        assert_eq!(scene.azure.max_in_flight(VAULT), 1);
        eventually("nothing is in flight", || {
            scene.azure.reset_counters(VAULT);
            scene.azure.max_in_flight(VAULT) == 0
        });
    }
    let hung = scene.azure.journal().into_iter().filter(|entry| entry.kind == Kind::Get);
    assert!(hung.map(|entry| entry.status).all(|status| status.is_none()));
}

#[test]
fn a_cut_connection_gives_no_answer() {
    let (scene, token) = seeded();
    scene.azure.add_fault(Fault::new(Action::Cut).host(VAULT));
    for http in both(&scene) {
        let error = read(&http, &token).unwrap_err();
        assert!(!error.is_timeout(), "{error:?}");
    }
    scene.azure.clear_faults(VAULT);
    assert_eq!(read(&scene.http, &token).unwrap().status, 200);
}

#[test]
fn a_truncated_answer_begins_well_and_breaks_off() {
    let (scene, token) = seeded();
    scene.azure.add_fault(Fault::new(Action::Truncate).host(VAULT));
    for http in both(&scene) {
        let url = format!("{HOST}/secrets/thing?api-version=7.6");
        let response = http.get(url).bearer_auth(&token).send().unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.content_length().unwrap() > 100);
        let error = response.text().unwrap_err();
        assert!(!error.is_timeout(), "{error:?}");
    }
}

#[test]
fn the_content_type_can_be_wrong() {
    let (scene, token) = seeded();
    let action = Action::ContentType { content_type: "text/html".to_owned() };
    scene.azure.add_fault(Fault::new(action).host(VAULT));
    let reply = scene.get("/secrets/thing", &token);
    assert_eq!(reply.header("content-type"), "text/html");
    assert_eq!(reply.json()["value"], "the-value");
}

#[test]
fn a_huge_body_is_as_huge_as_asked() {
    let (scene, token) = seeded();
    for bytes in [5, 1_000_003] {
        scene.azure.add_fault(Fault::new(Action::HugeBody { bytes }).host(VAULT).times(2));
        for http in both(&scene) {
            let reply = read(&http, &token).unwrap();
            assert_eq!(reply.text.len() as u64, bytes);
            assert!(reply.text.starts_with(r#"{"val"#));
        }
    }
}

#[test]
fn a_gzip_bomb_unpacks_to_as_much_as_asked() {
    let (scene, token) = seeded();
    let bytes = 1_000_003;
    scene.azure.add_fault(Fault::new(Action::GzipBomb { bytes }).host(VAULT).times(2));
    for http in both(&scene) {
        let reply = read(&http, &token).unwrap();
        // The client unpacks it, if it says that it can.
        assert_eq!(reply.text.len() as u64, bytes);
        assert!(reply.text.starts_with(r#"{"value":"aaa"#));
    }
}

#[test]
fn a_huge_head_is_as_huge_as_asked() {
    let (scene, token) = seeded();
    // What HTTP/2 clients take; more is refused by most.
    scene.azure.add_fault(Fault::new(Action::HugeHead { bytes: 8 << 10 }).host(VAULT).times(1));
    assert_eq!(scene.get("/secrets/thing", &token).header("x-filler").len(), 8 << 10);
}

#[test]
fn a_list_page_can_point_to_a_stranger() {
    let (scene, token) = seeded();
    let url = "https://evil.example/secrets?steal=1".to_owned();
    scene.azure.add_fault(Fault::new(Action::NextLink { url: url.clone() }).host(VAULT));
    assert_eq!(scene.get("/secrets", &token).json()["nextLink"], url);
    assert_eq!(scene.get("/secrets/thing/versions", &token).json()["nextLink"], url);
    assert_eq!(scene.get("/secrets/thing", &token).json().get("nextLink"), None::<&Value>);
}

#[test]
fn redirects_and_raw_bodies_come_as_they_are() {
    let (scene, token) = seeded();
    let url = "https://evil.example/x".to_owned();
    scene.azure.add_fault(Fault::new(Action::Redirect { status: 307, url: url.clone() }).host(VAULT).times(1));
    let reply = scene.get("/secrets/thing", &token);
    assert_eq!((reply.status, reply.header("location")), (307, url.as_str()));
    let (content_type, body) = ("text/plain".to_owned(), "canary-body".to_owned());
    scene.azure.add_fault(Fault::new(Action::Body { status: 418, content_type, body }).host(VAULT));
    let reply = scene.get("/secrets/thing", &token);
    assert_eq!((reply.status, reply.text.as_str()), (418, "canary-body"));
}

#[test]
#[should_panic(expected = "from 200 to 599")]
fn a_status_that_http_does_not_have_is_a_mistake_in_the_test() {
    Scene::new().azure.add_fault(Fault::new(Action::status(42)));
}
