//! Key Vault: who gets in, and how the others are turned away.

use azure_emulator::{Access, Permission};
use reqwest::Method;
use serde_json::json;

use crate::harness::{CLIENT, HOST, SCOPE, SECRET, Scene, TENANT, VAULT, form};

const OTHER_TENANT: &str = "44444444-aaaa-4bbb-8ccc-000000000004";

fn challenge() -> String {
    format!(r#"Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="https://vault.azure.net""#)
}

/// The reply must be a 401 whose header begins with the challenge; returns the rest of it.
fn turned_away(scene: &Scene, token: &str, message: &str) -> String {
    let reply = scene.get("/secrets/anything", token);
    assert_eq!(reply.status, 401, "{reply:?}");
    let (code, _, text) = reply.vault_error();
    assert_eq!(code, "Unauthorized");
    assert!(text.starts_with(message), "{text}");
    let header = reply.header("www-authenticate").to_owned();
    let rest = header.strip_prefix(&challenge());
    rest.unwrap_or_else(|| panic!("no challenge: {header}")).to_owned()
}

#[test]
fn without_a_token_comes_the_challenge() {
    let scene = Scene::new();
    let reply = scene.send(scene.http.get(format!("{HOST}/secrets/anything?api-version=7.6")));
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("www-authenticate"), challenge());
    let (code, _, message) = reply.vault_error();
    assert_eq!(code, "Unauthorized");
    assert_eq!(message, "AKV10000: Request is missing a Bearer or PoP token.");
}

#[test]
fn a_token_nobody_issued_is_turned_away() {
    let scene = Scene::new();
    let rest = turned_away(&scene, "no.such.token", "AKV10046: ");
    assert_eq!(rest, "");
}

#[test]
fn an_expired_token_is_turned_away() {
    let scene = Scene::new();
    let token = scene.token();
    assert_eq!(scene.get("/secrets/anything", &token).status, 404);
    assert_eq!(scene.azure.expire_tokens(CLIENT), 1);
    let rest = turned_away(&scene, &token, "AKV10040: ");
    assert!(rest.starts_with(r#", error="invalid_token""#), "{rest}");
    assert_eq!(scene.get("/secrets/anything", &scene.token()).status, 404);
}

#[test]
fn a_revoked_token_is_turned_away_and_a_new_one_is_not() {
    let scene = Scene::new();
    let token = scene.token();
    assert_eq!(scene.azure.revoke_tokens(CLIENT), 1);
    let rest = turned_away(&scene, &token, "AKV10045: ");
    assert!(rest.starts_with(r#", error="invalid_token""#), "{rest}");
    assert_eq!(scene.get("/secrets/anything", &scene.token()).status, 404);
}

#[test]
fn a_token_for_another_service_is_turned_away() {
    let scene = Scene::new();
    let token = scene.token_for("https://management.azure.com/.default");
    let rest = turned_away(&scene, &token, "AKV10022: Invalid audience. Expected https://vault.azure.net, found: ");
    assert!(rest.starts_with(r#", error="invalid_token""#), "{rest}");
}

#[test]
fn a_token_of_another_tenant_is_turned_away() {
    let scene = Scene::new();
    scene.azure.add_tenant(OTHER_TENANT);
    scene.azure.add_client(OTHER_TENANT, CLIENT, SECRET);
    let reply = scene.token_request(crate::harness::LOGIN, OTHER_TENANT, &form(CLIENT, SECRET, SCOPE));
    let token = reply.json()["access_token"].as_str().unwrap().to_owned();
    turned_away(&scene, &token, "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/");
}

#[test]
fn a_resource_with_a_slash_too_many_still_counts() {
    let scene = Scene::new();
    let token = scene.token_for("https://vault.azure.net//.default");
    assert_eq!(scene.get("/secrets/anything", &token).status, 404);
}

#[test]
fn the_api_version_must_be_one_of_the_known() {
    let scene = Scene::new();
    let token = scene.token();
    for version in ["7.4", "7.5", "7.6", "2025-07-01"] {
        let reply = scene.get(&format!("/secrets/anything?api-version={version}"), &token);
        assert_eq!(reply.status, 404, "{version}");
    }
    for query in ["?x=1", "?api-version=", "?api-version=1.0"] {
        let reply = scene.get(&format!("/secrets/anything{query}"), &token);
        assert_eq!((reply.status, reply.vault_error().0.as_str()), (400, "BadParameter"), "{query}");
    }
}

#[test]
fn each_operation_needs_its_permission() {
    let scene = Scene::new();
    scene.azure.set_secret(VAULT, "thing", "value");
    let token = scene.token();
    let cases = [
        (Permission::Get, Method::GET, "/secrets/thing"),
        (Permission::List, Method::GET, "/secrets"),
        (Permission::List, Method::GET, "/secrets/thing/versions"),
        (Permission::Set, Method::PUT, "/secrets/thing"),
        (Permission::Set, Method::PATCH, "/secrets/thing"),
        (Permission::Delete, Method::DELETE, "/secrets/thing"),
        (Permission::Get, Method::GET, "/deletedsecrets/thing"),
        (Permission::List, Method::GET, "/deletedsecrets"),
        (Permission::Recover, Method::POST, "/deletedsecrets/thing/recover"),
        (Permission::Delete, Method::DELETE, "/secrets/thing"),
        (Permission::Purge, Method::DELETE, "/deletedsecrets/thing"),
    ];
    for (permission, method, path) in cases {
        let body = || Some(json!({ "value": "new" }));
        scene.azure.revoke_grant(VAULT, CLIENT, &[permission]);
        let reply = scene.vault(method.clone(), path, &token, body());
        assert_eq!(reply.status, 403, "{permission:?} {path}");
        scene.azure.grant(VAULT, CLIENT, &[permission]);
        let reply = scene.vault(method, path, &token, body());
        assert!((200..300).contains(&reply.status), "{permission:?} {path}: {reply:?}");
    }
}

#[test]
fn refusals_speak_the_language_of_the_vaults_access_model() {
    let scene = Scene::new();
    scene.azure.revoke_grant(VAULT, CLIENT, &Permission::ALL);
    let token = scene.token();
    let (code, inner, message) = scene.get("/secrets/thing", &token).vault_error();
    assert_eq!((code.as_str(), inner.as_str()), ("Forbidden", "ForbiddenByPolicy"));
    assert!(message.contains(&format!("'appid={CLIENT};oid=")), "{message}");
    assert!(message.contains("does not have secrets get permission on key vault 'first-vault;location="), "{message}");
    scene.azure.set_access(VAULT, Access::Rbac);
    let (code, inner, message) = scene.get("/secrets/thing", &token).vault_error();
    assert_eq!((code.as_str(), inner.as_str()), ("Forbidden", "ForbiddenByRbac"));
    assert!(message.contains("Microsoft.KeyVault/vaults/secrets/getSecret/action"), "{message}");
    assert!(message.contains("/vaults/first-vault/secrets/thing'"), "{message}");
}

#[test]
fn an_unknown_vault_does_not_answer_like_a_vault() {
    let scene = Scene::new();
    let reply = scene.send(scene.http.get("https://second-vault.vault.azure.net/secrets/a?api-version=7.6"));
    assert_eq!(reply.status, 404);
    assert!(reply.header("content-type").starts_with("text/html"));
    assert!(serde_json::from_str::<serde_json::Value>(&reply.text).is_err());
}

#[test]
fn each_cloud_has_its_own_authority_and_resource() {
    let scene = Scene::with_names(&["login.stack.test", "*.vault.stack.test"]);
    let cases = [
        ("gov-vault", "vault.usgovcloudapi.net", "login.microsoftonline.us"),
        ("stack-vault", "vault.stack.test", "login.stack.test"),
    ];
    let public_token = scene.token();
    for (vault, suffix, login) in cases {
        scene.azure.add_vault(vault, suffix, TENANT);
        scene.azure.grant(vault, CLIENT, &[Permission::Get]);
        let url = format!("https://{vault}.{suffix}/secrets/a?api-version=7.6");
        let reply = scene.send(scene.http.get(&url));
        let expected = format!(r#"Bearer authorization="https://{login}/{TENANT}", resource="https://{suffix}""#);
        assert_eq!(reply.header("www-authenticate"), expected);
        let reply = scene.send(scene.http.get(&url).bearer_auth(&public_token));
        assert!(reply.vault_error().2.starts_with("AKV10022: "), "{reply:?}");
        let scope = format!("https://{suffix}/.default");
        let reply = scene.token_request(&format!("https://{login}"), TENANT, &form(CLIENT, SECRET, &scope));
        let token = reply.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(scene.send(scene.http.get(&url).bearer_auth(token)).status, 404);
    }
}
