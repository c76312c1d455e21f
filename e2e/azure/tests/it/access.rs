//! Key Vault: authentication, authorization, and their errors.

use azure_emulator::{Access, Permission};
use reqwest::Method;
use serde_json::json;

use crate::harness::{CLIENT, Fixture, HOST, SCOPE, SECRET, TENANT, VAULT, form};

const OTHER_TENANT: &str = "44444444-aaaa-4bbb-8ccc-000000000004";

fn challenge() -> String {
    format!(r#"Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="https://vault.azure.net""#)
}

/// Asserts a 401 whose header begins with the challenge, and returns the rest of the header.
fn assert_unauthorized(fixture: &Fixture, token: &str, message: &str) -> String {
    let reply = fixture.get("/secrets/anything", token);
    assert_eq!(reply.status, 401, "{reply:?}");
    let (code, _, text) = reply.vault_error();
    assert_eq!(code, "Unauthorized");
    assert!(text.starts_with(message), "{text}");
    let header = reply.header("www-authenticate").to_owned();
    let rest = header.strip_prefix(&challenge());
    rest.unwrap_or_else(|| panic!("no challenge: {header}")).to_owned()
}

#[test]
fn a_request_without_a_token_gets_the_challenge() {
    let fixture = Fixture::new();
    let reply = fixture.send(fixture.http.get(format!("{HOST}/secrets/anything?api-version=7.6")));
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("www-authenticate"), challenge());
    let (code, _, message) = reply.vault_error();
    assert_eq!(code, "Unauthorized");
    assert_eq!(message, "AKV10000: Request is missing a Bearer or PoP token.");
}

#[test]
fn a_token_that_was_not_issued_is_refused() {
    let fixture = Fixture::new();
    let rest = assert_unauthorized(&fixture, "no.such.token", "AKV10046: ");
    assert_eq!(rest, "");
}

#[test]
fn an_expired_token_is_refused() {
    let fixture = Fixture::new();
    let token = fixture.token();
    assert_eq!(fixture.get("/secrets/anything", &token).status, 404);
    assert_eq!(fixture.azure.expire_tokens(CLIENT), 1);
    let rest = assert_unauthorized(&fixture, &token, "AKV10040: ");
    assert!(rest.starts_with(r#", error="invalid_token""#), "{rest}");
    assert_eq!(fixture.get("/secrets/anything", &fixture.token()).status, 404);
}

#[test]
fn a_revoked_token_is_refused_and_a_new_one_is_not() {
    let fixture = Fixture::new();
    let token = fixture.token();
    assert_eq!(fixture.azure.revoke_tokens(CLIENT), 1);
    let rest = assert_unauthorized(&fixture, &token, "AKV10045: ");
    assert!(rest.starts_with(r#", error="invalid_token""#), "{rest}");
    assert_eq!(fixture.get("/secrets/anything", &fixture.token()).status, 404);
}

#[test]
fn a_token_for_another_service_is_refused() {
    let fixture = Fixture::new();
    let token = fixture.token_for("https://management.azure.com/.default");
    let rest =
        assert_unauthorized(&fixture, &token, "AKV10022: Invalid audience. Expected https://vault.azure.net, found: ");
    assert!(rest.starts_with(r#", error="invalid_token""#), "{rest}");
}

#[test]
fn a_token_of_another_tenant_is_refused() {
    let fixture = Fixture::new();
    fixture.azure.add_tenant(OTHER_TENANT);
    fixture.azure.add_client(OTHER_TENANT, CLIENT, SECRET);
    let reply = fixture.token_request(crate::harness::LOGIN, OTHER_TENANT, &form(CLIENT, SECRET, SCOPE));
    let token = reply.json()["access_token"].as_str().unwrap().to_owned();
    assert_unauthorized(&fixture, &token, "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/");
}

#[test]
fn a_resource_may_have_a_trailing_slash() {
    let fixture = Fixture::new();
    let token = fixture.token_for("https://vault.azure.net//.default");
    assert_eq!(fixture.get("/secrets/anything", &token).status, 404);
}

#[test]
fn an_unknown_api_version_is_refused() {
    let fixture = Fixture::new();
    let token = fixture.token();
    for version in ["7.4", "7.5", "7.6", "2025-07-01"] {
        let reply = fixture.get(&format!("/secrets/anything?api-version={version}"), &token);
        assert_eq!(reply.status, 404, "{version}");
    }
    for query in ["?x=1", "?api-version=", "?api-version=1.0"] {
        let reply = fixture.get(&format!("/secrets/anything{query}"), &token);
        assert_eq!((reply.status, reply.vault_error().0.as_str()), (400, "BadParameter"), "{query}");
    }
}

#[test]
fn each_operation_needs_its_permission() {
    let fixture = Fixture::new();
    fixture.azure.set_secret(VAULT, "thing", "value");
    let token = fixture.token();
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
        fixture.azure.revoke_grant(VAULT, CLIENT, &[permission]);
        let reply = fixture.vault(method.clone(), path, &token, body());
        assert_eq!(reply.status, 403, "{permission:?} {path}");
        fixture.azure.grant(VAULT, CLIENT, &[permission]);
        let reply = fixture.vault(method, path, &token, body());
        assert!((200..300).contains(&reply.status), "{permission:?} {path}: {reply:?}");
    }
}

#[test]
fn refusals_name_the_permission_model_of_the_vault() {
    let fixture = Fixture::new();
    fixture.azure.revoke_grant(VAULT, CLIENT, &Permission::ALL);
    let token = fixture.token();
    let (code, inner, message) = fixture.get("/secrets/thing", &token).vault_error();
    assert_eq!((code.as_str(), inner.as_str()), ("Forbidden", "ForbiddenByPolicy"));
    assert!(message.contains(&format!("'appid={CLIENT};oid=")), "{message}");
    assert!(message.contains("does not have secrets get permission on key vault 'first-vault;location="), "{message}");
    fixture.azure.set_access(VAULT, Access::Rbac);
    let (code, inner, message) = fixture.get("/secrets/thing", &token).vault_error();
    assert_eq!((code.as_str(), inner.as_str()), ("Forbidden", "ForbiddenByRbac"));
    assert!(message.contains("Microsoft.KeyVault/vaults/secrets/getSecret/action"), "{message}");
    assert!(message.contains("/vaults/first-vault/secrets/thing'"), "{message}");
}

#[test]
fn an_unknown_vault_does_not_respond_like_a_vault() {
    let fixture = Fixture::new();
    let reply = fixture.send(fixture.http.get("https://second-vault.vault.azure.net/secrets/a?api-version=7.6"));
    assert_eq!(reply.status, 404);
    assert!(reply.header("content-type").starts_with("text/html"));
    assert!(serde_json::from_str::<serde_json::Value>(&reply.text).is_err());
}

#[test]
fn each_cloud_has_its_own_authority_and_resource() {
    let fixture = Fixture::with_names(&["login.stack.test", "*.vault.stack.test"]);
    let cases = [
        ("gov-vault", "vault.usgovcloudapi.net", "login.microsoftonline.us"),
        ("stack-vault", "vault.stack.test", "login.stack.test"),
    ];
    let public_token = fixture.token();
    for (vault, suffix, login) in cases {
        fixture.azure.add_vault(vault, suffix, TENANT);
        fixture.azure.grant(vault, CLIENT, &[Permission::Get]);
        let url = format!("https://{vault}.{suffix}/secrets/a?api-version=7.6");
        let reply = fixture.send(fixture.http.get(&url));
        let expected = format!(r#"Bearer authorization="https://{login}/{TENANT}", resource="https://{suffix}""#);
        assert_eq!(reply.header("www-authenticate"), expected);
        let reply = fixture.send(fixture.http.get(&url).bearer_auth(&public_token));
        assert!(reply.vault_error().2.starts_with("AKV10022: "), "{reply:?}");
        let scope = format!("https://{suffix}/.default");
        let reply = fixture.token_request(&format!("https://{login}"), TENANT, &form(CLIENT, SECRET, &scope));
        let token = reply.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(fixture.send(fixture.http.get(&url).bearer_auth(token)).status, 404);
    }
}
