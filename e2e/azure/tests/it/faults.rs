//! Fault injection, over HTTP/1.1 and HTTP/2.

use std::time::{Duration, Instant};

use azure_emulator::{Action, Fault, Kind};
use reqwest::blocking::Client;
use serde_json::Value;

use crate::harness::{
    self, CLIENT, Fixture, HOST, LOGIN, Reply, SCOPE, SECRET, TENANT, VAULT, client, eventually, form,
};

fn seeded() -> (Fixture, String) {
    let fixture = Fixture::new();
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    let token = fixture.token();
    (fixture, token)
}

/// The client of the fixture, which negotiates HTTP/2, and one for HTTP/1.1.
fn http2_and_http1(fixture: &Fixture) -> [Client; 2] {
    [fixture.http.clone(), client(&fixture.emulator).http1_only().build().unwrap()]
}

fn read(http: &Client, token: &str) -> reqwest::Result<Reply> {
    harness::reply(http.get(format!("{HOST}/secrets/thing?api-version=7.6")).bearer_auth(token))
}

#[test]
fn the_clients_use_both_protocols() {
    let (fixture, _) = seeded();
    let versions = http2_and_http1(&fixture).map(|http| http.get(HOST).send().unwrap().version());
    assert_eq!(versions, [reqwest::Version::HTTP_2, reqwest::Version::HTTP_11]);
}

#[test]
fn a_rule_hits_the_requests_that_it_names_as_often_as_it_says() {
    let (fixture, token) = seeded();
    fixture.azure.set_secret(VAULT, "other", "the-value");
    let rule = Fault::new(Action::status(500)).host(VAULT).kind(Kind::Get).object("THING").skip(1).times(2);
    fixture.azure.add_fault(rule);
    assert_eq!(fixture.get("/secrets/other", &token).status, 200);
    assert_eq!(fixture.get("/secrets/thing/versions", &token).status, 200);
    let statuses: Vec<u16> = (0..4).map(|_| fixture.get("/secrets/thing", &token).status).collect();
    assert_eq!(statuses, [200, 500, 500, 200]);
}

#[test]
fn rules_are_cleared_by_service() {
    let (fixture, token) = seeded();
    fixture.azure.add_fault(Fault::new(Action::status(500)).host(VAULT));
    fixture.azure.add_fault(Fault::new(Action::status(503)));
    assert_eq!(fixture.get("/secrets/thing", &token).status, 500);
    fixture.azure.clear_faults("FIRST-vault");
    assert_eq!(fixture.get("/secrets/thing", &token).status, 503);
    fixture.azure.clear_all_faults();
    assert_eq!(fixture.get("/secrets/thing", &token).status, 200);
}

#[test]
fn throttling_looks_like_key_vaults() {
    let (fixture, token) = seeded();
    fixture.azure.add_fault(Fault::new(Action::status_retry_after(429, 7)).host(VAULT).kind(Kind::Get));
    let reply = fixture.get("/secrets/thing", &token);
    assert_eq!((reply.status, reply.header("retry-after")), (429, "7"));
    let (code, _, message) = reply.vault_error();
    assert_eq!(code, "Throttled");
    assert!(message.ends_with("VaultRequestTypeLimitReached"), "{message}");
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
}

#[test]
fn an_injected_401_has_the_challenge() {
    let (fixture, token) = seeded();
    fixture.azure.add_fault(Fault::new(Action::status(401)).host(VAULT));
    let reply = fixture.get("/secrets/thing", &token);
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").contains(TENANT));
}

#[test]
fn injected_errors_of_entra_id_have_its_form() {
    let fixture = Fixture::new();
    for (status, code) in [(429, 90_055), (503, 90_033), (500, 90_033)] {
        let action = Action::Status { status, retry_after: Some("nonsense".to_owned()) };
        fixture.azure.add_fault(Fault::new(action).host(TENANT).kind(Kind::Token).times(1));
        let reply = fixture.token_request(LOGIN, TENANT, &form(CLIENT, SECRET, SCOPE));
        assert_eq!((reply.status, reply.header("retry-after")), (status, "nonsense"));
        assert_eq!(reply.json()["error"], "temporarily_unavailable");
        assert_eq!(reply.json()["error_codes"][0], code);
    }
    fixture.token();
}

#[test]
fn a_challenge_and_the_request_after_it_are_separate_kinds() {
    let (fixture, token) = seeded();
    fixture.azure.add_fault(Fault::new(Action::status(503)).host(VAULT).kind(Kind::Challenge));
    let url = format!("{HOST}/secrets/thing?api-version=7.6");
    assert_eq!(fixture.send(fixture.http.get(url)).status, 503);
    assert_eq!(fixture.get("/secrets/thing", &token).status, 200);
}

#[test]
fn latencies_add_up() {
    let (fixture, token) = seeded();
    let delay = Duration::from_millis(60);
    fixture.azure.set_base_latency(delay);
    fixture.azure.add_fault(Fault::new(Action::latency(delay)).host(VAULT));
    fixture.azure.add_fault(Fault::new(Action::latency(delay)).host(VAULT));
    let start = Instant::now();
    assert_eq!(fixture.get("/secrets/thing", &token).status, 200);
    assert!(start.elapsed() >= 3 * delay, "{:?}", start.elapsed());
}

#[test]
fn a_hung_request_ends_when_its_client_disconnects() {
    let (fixture, token) = seeded();
    fixture.azure.add_fault(Fault::new(Action::Hang).host(VAULT).kind(Kind::Get));
    for http in [client(&fixture.emulator), client(&fixture.emulator).http1_only()] {
        let client = http.timeout(Duration::from_secs(1)).build().unwrap();
        // The first request opens the connection, so that the timeout of the second starts after
        // that.
        harness::reply(client.get(HOST)).unwrap();
        fixture.azure.reset_counters(VAULT);
        assert!(read(&client, &token).unwrap_err().is_timeout());
        assert_eq!(fixture.azure.max_in_flight(VAULT), 1);
        eventually("nothing is in flight", || {
            fixture.azure.reset_counters(VAULT);
            fixture.azure.max_in_flight(VAULT) == 0
        });
    }
    let hung = fixture.azure.journal().into_iter().filter(|entry| entry.kind == Kind::Get);
    assert!(hung.map(|entry| entry.status).all(|status| status.is_none()));
}

#[test]
fn a_cut_connection_has_no_response() {
    let (fixture, token) = seeded();
    fixture.azure.add_fault(Fault::new(Action::Cut).host(VAULT));
    for http in http2_and_http1(&fixture) {
        let error = read(&http, &token).unwrap_err();
        assert!(!error.is_timeout(), "{error:?}");
    }
    fixture.azure.clear_faults(VAULT);
    assert_eq!(read(&fixture.http, &token).unwrap().status, 200);
}

#[test]
fn a_truncated_response_ends_in_its_body() {
    let (fixture, token) = seeded();
    fixture.azure.add_fault(Fault::new(Action::Truncate).host(VAULT));
    for http in http2_and_http1(&fixture) {
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
    let (fixture, token) = seeded();
    let action = Action::ContentType { content_type: "text/html".to_owned() };
    fixture.azure.add_fault(Fault::new(action).host(VAULT));
    let reply = fixture.get("/secrets/thing", &token);
    assert_eq!(reply.header("content-type"), "text/html");
    assert_eq!(reply.json()["value"], "the-value");
}

#[test]
fn a_huge_body_is_as_huge_as_asked() {
    let (fixture, token) = seeded();
    for bytes in [5, 1_000_003] {
        fixture.azure.add_fault(Fault::new(Action::HugeBody { bytes }).host(VAULT).times(2));
        for http in http2_and_http1(&fixture) {
            let reply = read(&http, &token).unwrap();
            assert_eq!(reply.text.len() as u64, bytes);
            assert!(reply.text.starts_with(r#"{"val"#));
        }
    }
}

#[test]
fn a_gzip_bomb_decompresses_to_the_given_length() {
    let (fixture, token) = seeded();
    let bytes = 1_000_003;
    fixture.azure.add_fault(Fault::new(Action::GzipBomb { bytes }).host(VAULT).times(2));
    for http in http2_and_http1(&fixture) {
        let reply = read(&http, &token).unwrap();
        // The client decompresses it.
        assert_eq!(reply.text.len() as u64, bytes);
        assert!(reply.text.starts_with(r#"{"value":"aaa"#));
    }
}

#[test]
fn a_huge_head_has_the_given_length() {
    let (fixture, token) = seeded();
    // Most HTTP/2 clients refuse more.
    fixture.azure.add_fault(Fault::new(Action::HugeHead { bytes: 8 << 10 }).host(VAULT).times(1));
    assert_eq!(fixture.get("/secrets/thing", &token).header("x-filler").len(), 8 << 10);
}

#[test]
fn a_list_page_can_name_another_host() {
    let (fixture, token) = seeded();
    let url = "https://evil.example/secrets?steal=1".to_owned();
    fixture.azure.add_fault(Fault::new(Action::NextLink { url: url.clone() }).host(VAULT));
    assert_eq!(fixture.get("/secrets", &token).json()["nextLink"], url);
    assert_eq!(fixture.get("/secrets/thing/versions", &token).json()["nextLink"], url);
    assert_eq!(fixture.get("/secrets/thing", &token).json().get("nextLink"), None::<&Value>);
}

#[test]
fn redirects_and_raw_bodies_are_sent_unchanged() {
    let (fixture, token) = seeded();
    let url = "https://evil.example/x".to_owned();
    fixture.azure.add_fault(Fault::new(Action::Redirect { status: 307, url: url.clone() }).host(VAULT).times(1));
    let reply = fixture.get("/secrets/thing", &token);
    assert_eq!((reply.status, reply.header("location")), (307, url.as_str()));
    let (content_type, body) = ("text/plain".to_owned(), "canary-body".to_owned());
    fixture.azure.add_fault(Fault::new(Action::Body { status: 418, content_type, body }).host(VAULT));
    let reply = fixture.get("/secrets/thing", &token);
    assert_eq!((reply.status, reply.text.as_str()), (418, "canary-body"));
}

#[test]
#[should_panic(expected = "from 200 to 599")]
fn a_status_that_http_does_not_have_panics() {
    Fixture::new().azure.add_fault(Fault::new(Action::status(42)));
}
