//! Key Vault: secrets, their versions, deletion and recovery.

use azure_emulator::ObjectAttributes;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fixture, HOST, Reply, VAULT};

/// Follows `nextLink` from the first path, and returns the ids of all items and the number of
/// pages.
fn walk(fixture: &Fixture, first: &str, token: &str) -> (Vec<String>, usize) {
    let mut ids = Vec::new();
    let mut pages = 0;
    let mut next = Some(format!("{HOST}{first}"));
    while let Some(url) = next {
        let reply = fixture.send(fixture.http.get(&url).bearer_auth(token));
        assert_eq!(reply.status, 200, "{url}: {reply:?}");
        assert!(!reply.text.contains("the-value"), "a list must not show values");
        let document = reply.json();
        let items = document["value"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        next = document["nextLink"].as_str().map(str::to_owned);
        pages += 1;
    }
    (ids, pages)
}

fn expect_error(reply: &Reply, status: u16, code: &str, message: &str) {
    let (found, _, text) = reply.vault_error();
    assert_eq!((reply.status, found.as_str()), (status, code), "{text}");
    assert!(text.contains(message), "{text}");
}

#[test]
fn a_secret_can_be_read_by_name_and_by_version() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let body = json!({
        "value": "the-value", "contentType": "text/plain", "tags": { "team": "blue" },
        "attributes": { "nbf": 1_700_000_000, "exp": 1_700_000_001 },
    });
    let set = fixture.vault(Method::PUT, "/secrets/My-Secret", &token, Some(body));
    assert_eq!(set.status, 200, "{set:?}");
    let id = set.json()["id"].as_str().unwrap().to_owned();
    let version = id.rsplit('/').next().unwrap();
    assert_eq!(id, format!("{HOST}/secrets/My-Secret/{version}"));
    assert_eq!(version.len(), 32);
    let paths =
        ["/secrets/My-Secret".to_owned(), "/secrets/my-secret/".to_owned(), format!("/secrets/MY-SECRET/{version}")];
    for path in paths {
        let reply = fixture.get(&path, &token);
        assert_eq!(reply.status, 200, "{path}: Key Vault returns secrets after their expiry");
        assert_eq!(reply.json(), set.json());
    }
    let document = set.json();
    assert_eq!(document["value"], "the-value");
    assert_eq!(document["contentType"], "text/plain");
    assert_eq!(document["tags"], json!({ "team": "blue" }));
    let attributes = &document["attributes"];
    assert_eq!(attributes["enabled"], true);
    assert_eq!(attributes["nbf"], 1_700_000_000);
    assert_eq!(attributes["exp"], 1_700_000_001);
    assert_eq!(attributes["created"], attributes["updated"]);
    assert_eq!(attributes["recoveryLevel"], "Recoverable+Purgeable");
    assert_eq!(attributes["recoverableDays"], 90);
}

#[test]
fn responses_have_the_headers_of_the_service() {
    let fixture = Fixture::new();
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    let reply = fixture.get("/secrets/thing", &fixture.token());
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(reply.header("x-ms-request-id").len(), 36);
    assert!(!reply.header("x-ms-keyvault-service-version").is_empty());
}

#[test]
fn the_newest_version_is_the_one_created_last() {
    let fixture = Fixture::new();
    let at = |created| ObjectAttributes { created: Some(created), ..ObjectAttributes::default() };
    let (old, new) = ("f".repeat(32), "0".repeat(32));
    fixture.azure.set_secret_version(VAULT, "thing", &new, "newer", at(2000));
    fixture.azure.set_secret_version(VAULT, "thing", &old, "older", at(1000));
    let token = fixture.token();
    assert_eq!(fixture.get("/secrets/thing", &token).json()["value"], "newer");
    assert_eq!(fixture.get(&format!("/secrets/thing/{old}"), &token).json()["value"], "older");
    let latest = fixture.azure.set_secret(VAULT, "thing", "newest");
    assert_eq!(fixture.get("/secrets/thing", &token).json()["id"], format!("{HOST}/secrets/thing/{latest}"));
}

#[test]
fn invalid_names_and_versions_are_refused() {
    let fixture = Fixture::new();
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    let token = fixture.token();
    let get = |path: &str| fixture.get(path, &token);
    expect_error(&get("/secrets/under_score"), 400, "BadParameter", "invalid name: under_score");
    expect_error(&get("/secrets/a%2Fb"), 400, "BadParameter", "invalid name: a/b");
    let long = "a".repeat(128);
    expect_error(&get(&format!("/secrets/{long}")), 400, "BadParameter", "Method GET does not allow operation");
    assert_eq!(get(&format!("/secrets/{}", &long[..127])).status, 404);
    expect_error(&get("/secrets/thing/1"), 400, "BadParameter", "Method GET does not allow operation '1'");
    let upper = "A".repeat(32);
    expect_error(&get(&format!("/secrets/thing/{upper}")), 400, "BadParameter", "does not allow operation");
    let unknown = "a".repeat(32);
    let label = format!("thing/{unknown} was not found");
    expect_error(&get(&format!("/secrets/thing/{unknown}")), 404, "SecretNotFound", &label);
    expect_error(&get("/secrets/nothing"), 404, "SecretNotFound", "(name/id) nothing was not found");
    expect_error(&get("/nowhere"), 404, "NotFound", "not found");
    let post = fixture.vault(Method::POST, "/secrets/thing/backup", &token, None);
    expect_error(&post, 400, "BadParameter", "Method POST does not allow operation 'backup'");
}

#[test]
fn a_disabled_version_cannot_be_read_even_as_the_newest() {
    let fixture = Fixture::new();
    let first = fixture.azure.set_secret(VAULT, "thing", "one");
    let second = fixture.azure.set_secret(VAULT, "thing", "two");
    fixture.azure.disable_secret(VAULT, "thing", &second);
    let token = fixture.token();
    for path in ["/secrets/thing".to_owned(), format!("/secrets/thing/{second}")] {
        let reply = fixture.get(&path, &token);
        expect_error(&reply, 403, "Forbidden", "Operation get is not allowed on a disabled secret.");
        assert_eq!(reply.vault_error().1, "SecretDisabled");
    }
    assert_eq!(fixture.get(&format!("/secrets/thing/{first}"), &token).json()["value"], "one");
    fixture.azure.enable_secret(VAULT, "thing", &second);
    assert_eq!(fixture.get("/secrets/thing", &token).json()["value"], "two");
}

#[test]
fn the_pages_of_a_list_have_all_items() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let mut names: Vec<String> = (0..60).map(|number| format!("thing-{number}")).collect();
    for name in &names {
        fixture.azure.set_secret(VAULT, name, "the-value");
    }
    names.sort();
    let expected: Vec<String> = names.iter().map(|name| format!("{HOST}/secrets/{name}")).collect();
    assert_eq!(walk(&fixture, "/secrets?api-version=7.6", &token), (expected.clone(), 3));
    assert_eq!(walk(&fixture, "/secrets?api-version=7.6&maxresults=20", &token), (expected.clone(), 3));
    fixture.azure.set_page_size(VAULT, 7);
    assert_eq!(walk(&fixture, "/secrets/?api-version=7.6", &token), (expected, 9));
    let first = fixture.get("/secrets", &token).json();
    let next = first["nextLink"].as_str().unwrap();
    assert!(next.starts_with(&format!("{HOST}:443/secrets?api-version=7.6&$skiptoken=")), "{next}");
}

#[test]
fn a_next_link_keeps_the_port_that_the_client_used() {
    let fixture = Fixture::new();
    let token = fixture.token();
    fixture.azure.set_secret(VAULT, "one", "the-value");
    fixture.azure.set_secret(VAULT, "two", "the-value");
    let host = format!("{HOST}:{}", fixture.emulator.address().port());
    let url = format!("{host}/secrets?api-version=7.6&maxresults=1");
    let reply = fixture.send(fixture.http.get(url).bearer_auth(token));
    let next = reply.json()["nextLink"].as_str().unwrap().to_owned();
    assert!(next.starts_with(&format!("{host}/secrets?api-version=7.6&maxresults=1&$skiptoken=")), "{next}");
    assert_eq!(reply.json()["value"][0]["id"], format!("{HOST}/secrets/one"));
}

#[test]
fn the_pages_of_versions_have_no_values() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let mut versions: Vec<String> = (0..5).map(|_| fixture.azure.set_secret(VAULT, "thing", "the-value")).collect();
    versions.sort();
    fixture.azure.set_page_size(VAULT, 2);
    let (ids, pages) = walk(&fixture, "/secrets/thing/versions?api-version=7.6", &token);
    let expected: Vec<String> = versions.iter().map(|version| format!("{HOST}/secrets/thing/{version}")).collect();
    assert_eq!((ids, pages), (expected, 3));
    let (ids, pages) = walk(&fixture, "/secrets/nothing/versions?api-version=7.6", &token);
    assert_eq!((ids, pages), (Vec::new(), 1), "Key Vault has an empty list for an unknown object");
}

#[test]
fn a_page_request_out_of_range_is_refused() {
    let fixture = Fixture::new();
    let token = fixture.token();
    for query in ["maxresults=0", "maxresults=26", "maxresults=x", "$skiptoken=%21"] {
        let reply = fixture.get(&format!("/secrets?api-version=7.6&{query}"), &token);
        assert_eq!((reply.status, reply.vault_error().0.as_str()), (400, "BadParameter"), "{query}");
    }
}

#[test]
fn an_update_changes_attributes_only() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let version = fixture.azure.set_secret(VAULT, "thing", "the-value");
    let before = fixture.get("/secrets/thing", &token).json();
    let body = json!({ "contentType": "new", "tags": { "a": "b" }, "attributes": { "exp": 2_000_000_000 } });
    let reply = fixture.vault(Method::PATCH, &format!("/secrets/thing/{version}"), &token, Some(body));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["value"], Value::Null);
    let after = fixture.get("/secrets/thing", &token).json();
    assert_eq!(after["contentType"], "new");
    assert_eq!(after["tags"], json!({ "a": "b" }));
    assert_eq!(after["attributes"]["exp"], 2_000_000_000);
    for field in ["/value", "/id", "/attributes/created", "/attributes/enabled"] {
        assert_eq!(after.pointer(field), before.pointer(field), "{field}");
    }
    let missing = format!("/secrets/thing/{}", "0".repeat(32));
    let reply = fixture.vault(Method::PATCH, &missing, &token, Some(json!({})));
    assert_eq!(reply.status, 404);
}

#[test]
fn a_deleted_secret_can_be_recovered_or_purged() {
    let fixture = Fixture::new();
    let token = fixture.token();
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    let call = |method, path| fixture.vault(method, path, &token, None);
    let deleted = call(Method::DELETE, "/secrets/thing");
    assert_eq!(deleted.status, 200);
    assert_eq!(deleted.json()["recoveryId"], format!("{HOST}/deletedsecrets/thing"));
    assert!(!deleted.text.contains("the-value"));
    assert!(deleted.json()["scheduledPurgeDate"].as_i64() > deleted.json()["deletedDate"].as_i64());
    expect_error(&call(Method::GET, "/secrets/thing"), 404, "SecretNotFound", "recently deleted");
    assert_eq!(call(Method::GET, "/deletedsecrets/thing").json(), deleted.json());
    let (ids, _) = walk(&fixture, "/deletedsecrets?api-version=7.6", &token);
    assert_eq!(ids, [format!("{HOST}/secrets/thing")]);
    let set = fixture.vault(Method::PUT, "/secrets/thing", &token, Some(json!({ "value": "new" })));
    expect_error(&set, 409, "Conflict", "deleted but recoverable state");
    assert_eq!(call(Method::POST, "/deletedsecrets/thing/recover").status, 200);
    assert_eq!(call(Method::GET, "/secrets/thing").json()["value"], "the-value");
    fixture.azure.delete_secret(VAULT, "thing");
    assert_eq!(call(Method::DELETE, "/deletedsecrets/thing").status, 204);
    expect_error(&call(Method::GET, "/deletedsecrets/thing"), 404, "SecretNotFound", "Deleted Secret not found");
    let set = fixture.vault(Method::PUT, "/secrets/thing", &token, Some(json!({ "value": "new" })));
    assert_eq!(set.status, 200);
}

#[test]
fn the_error_of_an_invalid_body_does_not_quote_it() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let put = |body| fixture.vault(Method::PUT, "/secrets/thing", &token, Some(body));
    assert_eq!(put(json!({ "value": "v".repeat(25 * 1024) })).status, 200);
    let tags: serde_json::Map<String, Value> = (0..16).map(|number| (format!("t{number}"), json!("x"))).collect();
    let bodies = [
        json!({ "value": "v".repeat(25 * 1024 + 1) }),
        json!({ "contentType": "no value" }),
        json!({ "value": { "a": "vvv" } }),
        json!({ "value": "vvv", "tags": tags }),
    ];
    for body in bodies {
        let reply = put(body);
        assert_eq!((reply.status, reply.vault_error().0.as_str()), (400, "BadParameter"), "{reply:?}");
        assert!(!reply.text.contains("vvv"));
    }
    let reply = put(json!({ "value": "v".repeat(2 << 20) }));
    assert_eq!(reply.status, 413);
}
