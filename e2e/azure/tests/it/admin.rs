//! The admin API: set-up and records over HTTP.

use reqwest::Method;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::harness::{Fixture, HOST, Reply, reply};
use crate::material::Material;

const TENANT: &str = "contoso.example";
const CLIENT: &str = "an-app";

struct Admin {
    base: String,
    http: Client,
}

impl Admin {
    fn new(fixture: &Fixture) -> Admin {
        let base = format!("http://{}", fixture.emulator.admin_address().unwrap());
        Admin { base, http: Client::builder().no_proxy().build().unwrap() }
    }

    fn call(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        reply(request.body(body)).unwrap()
    }

    /// Asserts success, and returns the JSON or null.
    fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let reply = self.call(method, path, body);
        assert!((200..300).contains(&reply.status), "{path}: {reply:?}");
        serde_json::from_str(&reply.text).unwrap_or(Value::Null)
    }

    fn set_up(&self) {
        let put = |path: &str, body| self.ok(Method::PUT, path, Some(body));
        put(&format!("/tenants/{TENANT}"), json!({}));
        put(&format!("/tenants/{TENANT}/clients/{CLIENT}"), json!({ "secret": "pass" }));
        put("/vaults/first-vault", json!({ "tenant": TENANT, "page_size": 2 }));
        put(&format!("/vaults/first-vault/grants/{CLIENT}"), json!({ "permissions": ["get", "list"] }));
    }
}

fn token(fixture: &Fixture) -> Reply {
    let login = crate::harness::LOGIN;
    fixture.token_request(login, TENANT, &crate::harness::form(CLIENT, "pass", crate::harness::SCOPE))
}

fn token_text(fixture: &Fixture) -> String {
    token(fixture).json()["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn tenants_and_vaults_can_be_set_up_changed_and_read_back() {
    let fixture = Fixture::new();
    let admin = Admin::new(&fixture);
    assert_eq!(admin.ok(Method::GET, "/health", None), json!({ "status": "ok" }));
    assert_eq!(admin.call(Method::GET, "/ca.pem", None).text, fixture.emulator.ca_pem());
    admin.set_up();
    let secret = "/vaults/first-vault/secrets/thing";
    let body = json!({ "value": "one", "version": "0".repeat(32), "attributes": { "content_type": "text/plain" } });
    assert_eq!(admin.ok(Method::PUT, secret, Some(body))["version"], "0".repeat(32));
    let second = admin.ok(Method::PUT, secret, Some(json!({ "value": "two" })))["version"].clone();
    let second = second.as_str().unwrap();
    let token = token_text(&fixture);
    assert_eq!(fixture.get("/secrets/thing", &token).json()["value"], "two");
    assert_eq!(admin.ok(Method::GET, "/vaults/first-vault/secrets", None), json!(["thing"]));
    admin.ok(Method::PATCH, &format!("{secret}/{second}"), Some(json!({ "enabled": false })));
    assert_eq!(fixture.get("/secrets/thing", &token).status, 403);
    let versions = admin.ok(Method::GET, &format!("{secret}/versions"), None);
    let enabled: Vec<_> = versions.as_array().unwrap().iter().map(|version| &version["enabled"]).collect();
    assert_eq!(enabled.len(), 2);
    assert!(enabled.contains(&&json!(true)) && enabled.contains(&&json!(false)));
    admin.ok(Method::DELETE, secret, None);
    assert_eq!(fixture.get("/secrets/thing", &token).status, 404);
    admin.ok(Method::DELETE, "/vaults/first-vault/deletedsecrets/thing", None);
    assert_eq!(admin.call(Method::DELETE, "/vaults/first-vault/deletedsecrets/thing", None).status, 409);
    admin.ok(Method::DELETE, &format!("/vaults/first-vault/grants/{CLIENT}"), None);
    assert_eq!(fixture.get("/secrets/thing", &token).status, 403);
}

#[test]
fn faults_counters_and_journal_can_be_read_and_reset() {
    let fixture = Fixture::new();
    let admin = Admin::new(&fixture);
    admin.set_up();
    let token = token_text(&fixture);
    let fault = json!({
        "host": "first-vault", "kind": "get", "times": 1,
        "action": { "type": "status", "status": 429, "retry_after": "3" },
    });
    admin.ok(Method::POST, "/faults", Some(fault));
    assert_eq!(admin.ok(Method::GET, "/faults", None).as_array().unwrap().len(), 1);
    assert_eq!(fixture.get("/secrets/thing", &token).header("retry-after"), "3");
    assert_eq!(fixture.get("/secrets/thing", &token).status, 404);
    let counters = admin.ok(Method::GET, "/counters/first-vault", None);
    assert_eq!(counters, json!({ "counters": { "get": 2 }, "max_in_flight": 1 }));
    assert_eq!(admin.ok(Method::GET, "/counters", None)[TENANT], json!({ "token": 1 }));
    let journal = admin.ok(Method::GET, "/journal", None);
    let statuses: Vec<_> = journal.as_array().unwrap().iter().map(|entry| entry["status"].clone()).collect();
    assert_eq!(statuses, [200, 429, 404]);
    for path in ["/faults/first-vault", "/faults", "/counters/first-vault", "/counters", "/journal"] {
        admin.ok(Method::DELETE, path, None);
    }
    assert_eq!(admin.ok(Method::GET, "/faults", None), json!([]));
    assert_eq!(admin.ok(Method::GET, "/counters", None), json!({}));
    assert_eq!(admin.ok(Method::GET, "/journal", None), json!([]));
}

#[test]
fn tokens_and_secrets_can_be_revoked_and_expired() {
    let fixture = Fixture::new();
    let admin = Admin::new(&fixture);
    admin.set_up();
    let good = token_text(&fixture);
    let revoked = admin.ok(Method::POST, &format!("/tokens/{CLIENT}/revoke"), None);
    assert_eq!(revoked, json!({ "tokens": 1 }));
    assert_eq!(fixture.get("/secrets/thing", &good).status, 401);
    let good = token_text(&fixture);
    admin.ok(Method::POST, &format!("/tokens/{CLIENT}/expire"), None);
    assert_eq!(fixture.get("/secrets/thing", &good).status, 401);
    admin.ok(Method::POST, &format!("/tenants/{TENANT}/clients/{CLIENT}/expire"), None);
    assert_eq!(token(&fixture).json()["error_codes"][0], 7_000_222);
}

#[test]
fn the_latency_of_all_responses_can_be_set() {
    let fixture = Fixture::new();
    let admin = Admin::new(&fixture);
    admin.ok(Method::PUT, "/latency", Some(json!({ "milliseconds": 120 })));
    let start = std::time::Instant::now();
    fixture.send(fixture.http.get(HOST));
    assert!(start.elapsed().as_millis() >= 120);
}

#[test]
fn errors_name_the_mistake() {
    let fixture = Fixture::new();
    let admin = Admin::new(&fixture);
    let long = "x".repeat(26_000);
    let cases = [
        (Method::PUT, "/vaults/new-vault", json!({ "tenant": "unknown" }), 404, "add it first"),
        (Method::PUT, "/vaults/new-vault", json!({ "tennant": "x" }), 400, "tennant"),
        (Method::PUT, "/vaults/x", json!({ "tenant": crate::harness::TENANT }), 400, "3 to 24"),
        (
            Method::PUT,
            "/vaults/new-vault",
            json!({ "tenant": crate::harness::TENANT, "suffix": "vault.moon" }),
            400,
            "--dns-name '*.vault.moon'",
        ),
        (Method::PUT, "/vaults/nowhere/secrets/a", json!({ "value": "x" }), 404, "no vault \"nowhere\""),
        (Method::PUT, "/vaults/first-vault/secrets/a_b", json!({ "value": "x" }), 400, "letters, digits and hyphens"),
        (Method::PUT, "/vaults/first-vault/secrets/a", json!({ "value": long }), 400, "25600"),
        (Method::PUT, "/vaults/first-vault/secrets/a", json!({ "value": "x", "version": "1" }), 400, "32 lower-case"),
        (Method::DELETE, "/vaults/first-vault/secrets/a", json!({}), 404, "set it first"),
        (Method::PUT, "/tenants/unknown/clients/x", json!({ "secret": "x" }), 404, "no tenant"),
        (Method::POST, "/faults", json!({ "action": { "type": "status", "status": 99 } }), 400, "from 200 to 599"),
        (Method::POST, "/faults", json!({ "action": { "type": "explode" } }), 400, "explode"),
        (Method::POST, "/seed", json!({ "tenant": [] }), 400, "tenant"),
    ];
    for (method, path, body, status, text) in cases {
        let reply = admin.call(method, path, Some(body));
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn keys_certificates_and_identities_can_be_set_up() {
    let fixture = Fixture::new();
    let admin = Admin::new(&fixture);
    admin.set_up();
    let material = Material::rsa();
    let key = json!({ "jwk": { "kty": "EC", "crv": "P-256", "x": "AQ", "y": "Ag" }, "version": "0".repeat(32) });
    assert_eq!(admin.ok(Method::PUT, "/vaults/first-vault/keys/key", Some(key))["version"], "0".repeat(32));
    let certificate = Some(json!({ "value": material.pem() }));
    let version = admin.ok(Method::PUT, "/vaults/first-vault/certificates/cert", certificate)["version"].clone();
    assert_eq!(admin.ok(Method::GET, "/vaults/first-vault/keys", None), json!(["cert", "key"]));
    assert_eq!(admin.ok(Method::GET, "/vaults/first-vault/certificates/cert/versions", None)[0]["version"], version);
    let path = format!("/vaults/first-vault/certificates/cert/{}", version.as_str().unwrap());
    admin.ok(Method::PATCH, &path, Some(json!({ "enabled": false })));
    let token = token_text(&fixture);
    assert_eq!(fixture.get("/certificates/cert", &token).json()["attributes"]["enabled"], false);
    assert_eq!(fixture.get("/secrets/cert", &token).status, 403);
    admin.ok(Method::DELETE, "/vaults/first-vault/certificates/cert", None);
    assert_eq!(fixture.get("/keys/cert", &token).status, 404);
    let grant = json!({ "permissions": [], "on": ["keys"] });
    admin.ok(Method::PUT, &format!("/vaults/first-vault/grants/{CLIENT}"), Some(grant));
    assert_eq!(fixture.get("/keys/key", &token).status, 403);
    assert_eq!(fixture.get("/secrets/nothing", &token).status, 404, "permissions on secrets do not change");
    assert_eq!(admin.call(Method::GET, "/vaults/first-vault/nonsense", None).status, 400);

    let issuer = json!({ "url": "https://oidc.example" });
    assert_eq!(admin.ok(Method::PUT, "/issuers", Some(issuer))["kid"].as_str().unwrap().len(), 32);
    let client = format!("/tenants/{TENANT}/clients/federated-app");
    admin.ok(Method::PUT, &client, Some(json!({})));
    let federation = json!({ "issuer": "https://oidc.example", "subject": "me" });
    admin.ok(Method::POST, &format!("{client}/federated"), Some(federation));
    let token_request = json!({ "issuer": "https://oidc.example", "subject": "me", "claims": { "extra": 1 } });
    let assertion = admin.ok(Method::POST, "/issuers/token", Some(token_request))["token"].clone();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "federated-app"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str().unwrap()),
        ("scope", crate::harness::SCOPE),
    ];
    let login = crate::harness::LOGIN;
    assert_eq!(fixture.token_request(login, TENANT, &form).status, 200);
    admin.ok(Method::DELETE, &format!("{client}/federated"), None);
    assert_eq!(fixture.token_request(login, TENANT, &form).json()["error_codes"][0], 70_025);
    let pem = json!({ "pem": material.text("cert.pem") });
    admin.ok(Method::POST, &format!("{client}/certificates"), Some(pem));
    admin.ok(Method::DELETE, &format!("{client}/certificates"), None);
    admin.ok(Method::PUT, "/managed-identities/machine", Some(json!({ "tenant": TENANT, "system": true })));
    admin.ok(Method::DELETE, "/managed-identities/machine", None);
    let unknown = json!({ "issuer": "https://unknown.example", "subject": "me" });
    assert_eq!(admin.call(Method::POST, "/issuers/token", Some(unknown)).status, 404);
    let pem = json!({ "pem": "no certificate" });
    assert_eq!(admin.call(Method::POST, &format!("{client}/certificates"), Some(pem)).status, 400);
}
