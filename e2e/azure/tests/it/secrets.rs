//! Key Vault: secrets, their versions and their lives.

use azure_emulator::SecretAttributes;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{HOST, Reply, Scene, VAULT};

/// Follows `nextLink` from a first path; returns the ids of all items and the number of pages.
fn walk(scene: &Scene, first: &str, token: &str) -> (Vec<String>, usize) {
    let mut ids = Vec::new();
    let mut pages = 0;
    let mut next = Some(format!("{HOST}{first}"));
    while let Some(url) = next {
        let reply = scene.send(scene.http.get(&url).bearer_auth(token));
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
fn what_is_set_can_be_read_in_every_way() {
    let scene = Scene::new();
    let token = scene.token();
    let body = json!({
        "value": "the-value", "contentType": "text/plain", "tags": { "team": "blue" },
        "attributes": { "nbf": 1_700_000_000, "exp": 1_700_000_001 },
    });
    let set = scene.vault(Method::PUT, "/secrets/My-Secret", &token, Some(body));
    assert_eq!(set.status, 200, "{set:?}");
    let id = set.json()["id"].as_str().unwrap().to_owned();
    let version = id.rsplit('/').next().unwrap();
    assert_eq!(id, format!("{HOST}/secrets/My-Secret/{version}"));
    assert_eq!(version.len(), 32);
    let paths =
        ["/secrets/My-Secret".to_owned(), "/secrets/my-secret/".to_owned(), format!("/secrets/MY-SECRET/{version}")];
    for path in paths {
        let reply = scene.get(&path, &token);
        assert_eq!(reply.status, 200, "{path}: past expiry, Key Vault still gives secrets out");
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
fn answers_carry_the_services_headers() {
    let scene = Scene::new();
    scene.azure.set_secret(VAULT, "thing", "the-value");
    let reply = scene.get("/secrets/thing", &scene.token());
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(reply.header("x-ms-request-id").len(), 36);
    assert!(!reply.header("x-ms-keyvault-service-version").is_empty());
}

#[test]
fn the_newest_version_is_the_one_created_last() {
    let scene = Scene::new();
    let at = |created| SecretAttributes { created: Some(created), ..SecretAttributes::default() };
    let (old, new) = ("f".repeat(32), "0".repeat(32));
    scene.azure.set_secret_version(VAULT, "thing", &new, "newer", at(2000));
    scene.azure.set_secret_version(VAULT, "thing", &old, "older", at(1000));
    let token = scene.token();
    assert_eq!(scene.get("/secrets/thing", &token).json()["value"], "newer");
    assert_eq!(scene.get(&format!("/secrets/thing/{old}"), &token).json()["value"], "older");
    let latest = scene.azure.set_secret(VAULT, "thing", "newest");
    assert_eq!(scene.get("/secrets/thing", &token).json()["id"], format!("{HOST}/secrets/thing/{latest}"));
}

#[test]
fn names_and_versions_that_cannot_be_are_refused() {
    let scene = Scene::new();
    scene.azure.set_secret(VAULT, "thing", "the-value");
    let token = scene.token();
    let get = |path: &str| scene.get(path, &token);
    expect_error(&get("/secrets/under_score"), 400, "BadParameter", "invalid name: under_score");
    expect_error(&get("/secrets/a%2Fb"), 400, "BadParameter", "invalid name: a/b");
    let long = "a".repeat(128);
    expect_error(&get(&format!("/secrets/{long}")), 400, "BadParameter", "Method GET does not allow operation");
    assert_eq!(get(&format!("/secrets/{}", &long[..127])).status, 404);
    expect_error(&get("/secrets/thing/1"), 400, "BadParameter", "Method GET does not allow operation '1'");
    let upper = "A".repeat(32);
    expect_error(&get(&format!("/secrets/thing/{upper}")), 400, "BadParameter", "does not allow operation");
    let nobody = "a".repeat(32);
    let label = format!("thing/{nobody} was not found");
    expect_error(&get(&format!("/secrets/thing/{nobody}")), 404, "SecretNotFound", &label);
    expect_error(&get("/secrets/nothing"), 404, "SecretNotFound", "(name/id) nothing was not found");
    expect_error(&get("/nowhere"), 404, "NotFound", "not found");
    let post = scene.vault(Method::POST, "/secrets/thing/backup", &token, None);
    expect_error(&post, 400, "BadParameter", "Method POST does not allow operation 'backup'");
}

#[test]
fn a_disabled_version_cannot_be_read_even_as_the_newest() {
    let scene = Scene::new();
    let first = scene.azure.set_secret(VAULT, "thing", "one");
    let second = scene.azure.set_secret(VAULT, "thing", "two");
    scene.azure.disable_secret(VAULT, "thing", &second);
    let token = scene.token();
    for path in ["/secrets/thing".to_owned(), format!("/secrets/thing/{second}")] {
        let reply = scene.get(&path, &token);
        expect_error(&reply, 403, "Forbidden", "Operation get is not allowed on a disabled secret.");
        assert_eq!(reply.vault_error().1, "SecretDisabled");
    }
    assert_eq!(scene.get(&format!("/secrets/thing/{first}"), &token).json()["value"], "one");
    scene.azure.enable_secret(VAULT, "thing", &second);
    assert_eq!(scene.get("/secrets/thing", &token).json()["value"], "two");
}

#[test]
fn lists_come_in_pages_that_lose_nothing() {
    let scene = Scene::new();
    let token = scene.token();
    let mut names: Vec<String> = (0..60).map(|number| format!("thing-{number}")).collect();
    for name in &names {
        scene.azure.set_secret(VAULT, name, "the-value");
    }
    names.sort();
    let expected: Vec<String> = names.iter().map(|name| format!("{HOST}/secrets/{name}")).collect();
    assert_eq!(walk(&scene, "/secrets?api-version=7.6", &token), (expected.clone(), 3));
    assert_eq!(walk(&scene, "/secrets?api-version=7.6&maxresults=20", &token), (expected.clone(), 3));
    scene.azure.set_page_size(VAULT, 7);
    assert_eq!(walk(&scene, "/secrets/?api-version=7.6", &token), (expected, 9));
    let first = scene.get("/secrets", &token).json();
    let next = first["nextLink"].as_str().unwrap();
    assert!(next.starts_with(&format!("{HOST}:443/secrets?api-version=7.6&$skiptoken=")), "{next}");
}

#[test]
fn a_next_link_keeps_the_port_that_the_client_used() {
    let scene = Scene::new();
    let token = scene.token();
    scene.azure.set_secret(VAULT, "one", "the-value");
    scene.azure.set_secret(VAULT, "two", "the-value");
    let host = format!("{HOST}:{}", scene.emulator.address().port());
    let url = format!("{host}/secrets?api-version=7.6&maxresults=1");
    let reply = scene.send(scene.http.get(url).bearer_auth(token));
    let next = reply.json()["nextLink"].as_str().unwrap().to_owned();
    assert!(next.starts_with(&format!("{host}/secrets?api-version=7.6&maxresults=1&$skiptoken=")), "{next}");
    assert_eq!(reply.json()["value"][0]["id"], format!("{HOST}/secrets/one"));
}

#[test]
fn versions_come_in_pages_without_values() {
    let scene = Scene::new();
    let token = scene.token();
    let mut versions: Vec<String> = (0..5).map(|_| scene.azure.set_secret(VAULT, "thing", "the-value")).collect();
    versions.sort();
    scene.azure.set_page_size(VAULT, 2);
    let (ids, pages) = walk(&scene, "/secrets/thing/versions?api-version=7.6", &token);
    let expected: Vec<String> = versions.iter().map(|version| format!("{HOST}/secrets/thing/{version}")).collect();
    assert_eq!((ids, pages), (expected, 3));
    let (ids, pages) = walk(&scene, "/secrets/nothing/versions?api-version=7.6", &token);
    assert_eq!((ids, pages), (Vec::new(), 1), "Key Vault has an empty list for what it does not know");
}

#[test]
fn a_page_request_out_of_range_is_refused() {
    let scene = Scene::new();
    let token = scene.token();
    for query in ["maxresults=0", "maxresults=26", "maxresults=x", "$skiptoken=%21"] {
        let reply = scene.get(&format!("/secrets?api-version=7.6&{query}"), &token);
        assert_eq!((reply.status, reply.vault_error().0.as_str()), (400, "BadParameter"), "{query}");
    }
}

#[test]
fn an_update_changes_attributes_and_nothing_else() {
    let scene = Scene::new();
    let token = scene.token();
    let version = scene.azure.set_secret(VAULT, "thing", "the-value");
    let before = scene.get("/secrets/thing", &token).json();
    let body = json!({ "contentType": "new", "tags": { "a": "b" }, "attributes": { "exp": 2_000_000_000 } });
    let reply = scene.vault(Method::PATCH, &format!("/secrets/thing/{version}"), &token, Some(body));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["value"], Value::Null);
    let after = scene.get("/secrets/thing", &token).json();
    assert_eq!(after["contentType"], "new");
    assert_eq!(after["tags"], json!({ "a": "b" }));
    assert_eq!(after["attributes"]["exp"], 2_000_000_000);
    for field in ["/value", "/id", "/attributes/created", "/attributes/enabled"] {
        assert_eq!(after.pointer(field), before.pointer(field), "{field}");
    }
    let missing = format!("/secrets/thing/{}", "0".repeat(32));
    let reply = scene.vault(Method::PATCH, &missing, &token, Some(json!({})));
    assert_eq!(reply.status, 404);
}

#[test]
fn a_deleted_secret_can_come_back_or_go_for_good() {
    let scene = Scene::new();
    let token = scene.token();
    scene.azure.set_secret(VAULT, "thing", "the-value");
    let call = |method, path| scene.vault(method, path, &token, None);
    let deleted = call(Method::DELETE, "/secrets/thing");
    assert_eq!(deleted.status, 200);
    assert_eq!(deleted.json()["recoveryId"], format!("{HOST}/deletedsecrets/thing"));
    assert!(!deleted.text.contains("the-value"));
    assert!(deleted.json()["scheduledPurgeDate"].as_i64() > deleted.json()["deletedDate"].as_i64());
    expect_error(&call(Method::GET, "/secrets/thing"), 404, "SecretNotFound", "recently deleted");
    assert_eq!(call(Method::GET, "/deletedsecrets/thing").json(), deleted.json());
    let (ids, _) = walk(&scene, "/deletedsecrets?api-version=7.6", &token);
    assert_eq!(ids, [format!("{HOST}/secrets/thing")]);
    let set = scene.vault(Method::PUT, "/secrets/thing", &token, Some(json!({ "value": "new" })));
    expect_error(&set, 409, "Conflict", "deleted but recoverable state");
    assert_eq!(call(Method::POST, "/deletedsecrets/thing/recover").status, 200);
    assert_eq!(call(Method::GET, "/secrets/thing").json()["value"], "the-value");
    scene.azure.delete_secret(VAULT, "thing");
    assert_eq!(call(Method::DELETE, "/deletedsecrets/thing").status, 204);
    expect_error(&call(Method::GET, "/deletedsecrets/thing"), 404, "SecretNotFound", "Deleted Secret not found");
    let set = scene.vault(Method::PUT, "/secrets/thing", &token, Some(json!({ "value": "new" })));
    assert_eq!(set.status, 200);
}

#[test]
fn what_cannot_be_stored_is_refused_without_being_repeated() {
    let scene = Scene::new();
    let token = scene.token();
    let put = |body| scene.vault(Method::PUT, "/secrets/thing", &token, Some(body));
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
