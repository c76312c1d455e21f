//! Entra ID: metadata documents, tokens and errors.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::harness::{CLIENT, Fixture, LOGIN, SCOPE, SECRET, TENANT, form};

const RESOURCE: &str = "https://vault.azure.net";
const TWO_RESOURCES: &str = "https://vault.azure.net/.default https://management.azure.com/.default";

/// A type of assertion that other servers know.
fn assertion_of_saml() -> Vec<(&'static str, &'static str)> {
    let kind = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
    vec![("client_assertion_type", kind), ("client_assertion", "a.b.c")]
}

/// The audience in a token.
fn audience(token: &Value) -> String {
    let claims = token.as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["aud"].as_str().unwrap().to_owned()
}

#[test]
fn every_valid_request_gets_a_new_token() {
    let fixture = Fixture::new();
    let reply = fixture.token_request(LOGIN, TENANT, &form(CLIENT, SECRET, SCOPE));
    assert_eq!(reply.status, 200);
    let document = reply.json();
    assert_eq!(document["token_type"], "Bearer");
    assert_eq!(document["expires_in"], 3599);
    assert_eq!(document["ext_expires_in"], 3599);
    let first = document["access_token"].as_str().unwrap().to_owned();
    assert_eq!(first.split('.').count(), 3);
    let second = fixture.token();
    assert_ne!(first, second);
    assert_eq!(fixture.azure.issued_tokens(), [first, second]);
}

#[test]
fn every_wrong_token_request_gets_its_own_error() {
    let fixture = Fixture::new();
    let other = "99999999-aaaa-4bbb-8ccc-000000000009";
    let good = form(CLIENT, SECRET, SCOPE);
    let without = |name: &str| good.into_iter().filter(|(key, _)| *key != name).collect::<Vec<_>>();
    let password = [vec![("grant_type", "password")], without("grant_type")].concat();
    let cases = [
        (other, good.to_vec(), 400, 90002, "invalid_request"),
        ("no-such.example", good.to_vec(), 400, 90002, "invalid_request"),
        ("no-tenant", good.to_vec(), 400, 900_023, "invalid_request"),
        ("common", good.to_vec(), 400, 50059, "invalid_request"),
        (TENANT, password, 400, 70003, "unsupported_grant_type"),
        (TENANT, without("grant_type"), 400, 900_144, "invalid_request"),
        (TENANT, without("client_id"), 400, 900_144, "invalid_request"),
        (TENANT, without("scope"), 400, 900_144, "invalid_request"),
        (TENANT, form(CLIENT, SECRET, "").to_vec(), 400, 900_144, "invalid_request"),
        (TENANT, [good.to_vec(), vec![("resource", RESOURCE)]].concat(), 400, 901_002, "invalid_request"),
        (TENANT, without("client_secret"), 401, 7_000_216, "invalid_client"),
        (TENANT, [without("client_secret"), assertion_of_saml()].concat(), 400, 90011, "invalid_request"),
        (
            TENANT,
            [without("client_secret"), vec![("client_assertion", "a.b.c")]].concat(),
            400,
            900_144,
            "invalid_request",
        ),
        (TENANT, form(CLIENT, SECRET, TWO_RESOURCES).to_vec(), 400, 70011, "invalid_scope"),
        (TENANT, form(CLIENT, SECRET, "https://vault.azure.net").to_vec(), 400, 1_002_012, "invalid_scope"),
        (TENANT, form(other, SECRET, SCOPE).to_vec(), 400, 700_016, "unauthorized_client"),
        (TENANT, form(CLIENT, "wrong", SCOPE).to_vec(), 401, 7_000_215, "invalid_client"),
        (
            TENANT,
            form(CLIENT, SECRET, "https://vault.usgovcloudapi.net/.default").to_vec(),
            400,
            500_011,
            "invalid_resource",
        ),
    ];
    for (tenant, form, status, code, error) in cases {
        let reply = fixture.token_request(LOGIN, tenant, &form);
        let document = reply.json();
        assert_eq!(reply.status, status, "{document}");
        assert_eq!(document["error"], error);
        assert_eq!(document["error_codes"][0], code);
        let description = document["error_description"].as_str().unwrap();
        assert!(description.starts_with(&format!("AADSTS{code}: ")), "{description}");
        for field in ["trace_id", "correlation_id", "timestamp"] {
            assert!(description.contains(document[field].as_str().unwrap()), "{field} in {description}");
        }
        assert_eq!(document["error_uri"], format!("{LOGIN}/error?code={code}"));
        assert!(!reply.text.contains(SECRET));
    }
    assert!(fixture.azure.issued_tokens().is_empty());
}

#[test]
fn the_scope_names_the_audience_and_openid_scopes_do_not_count() {
    let fixture = Fixture::new();
    fixture.azure.set_secret(crate::harness::VAULT, "thing", "the-value");
    let cases = [
        (SCOPE, RESOURCE, 200),
        ("https://vault.azure.net/.default openid offline_access profile", RESOURCE, 200),
        ("openid profile offline_access https://vault.azure.net/.default", RESOURCE, 200),
        ("https://vault.azure.net//.default", "https://vault.azure.net/", 200),
        ("https://management.azure.com//.default openid", "https://management.azure.com/", 401),
        (".default", "https://graph.microsoft.com", 401),
    ];
    for (scope, resource, status) in cases {
        let document = fixture.token_request(LOGIN, TENANT, &form(CLIENT, SECRET, scope)).json();
        assert_eq!(audience(&document["access_token"]), resource, "{scope}");
        let token = document["access_token"].as_str().unwrap();
        assert_eq!(fixture.get("/secrets/thing", token).status, status, "{scope}");
    }
}

#[test]
fn the_endpoint_of_version_one_takes_a_resource() {
    let fixture = Fixture::new();
    let request = |form: &[(&str, &str)]| {
        fixture.send(fixture.http.post(format!("{LOGIN}/{TENANT}/oauth2/token")).form(form)).json()
    };
    let without = [("grant_type", "client_credentials"), ("client_id", CLIENT), ("client_secret", SECRET)];
    assert_eq!(request(&without)["error_codes"][0], 900_144);
    let document = request(&[without.to_vec(), vec![("resource", RESOURCE)]].concat());
    assert_eq!((&document["expires_in"], &document["resource"]), (&"3599".into(), &RESOURCE.into()));
    let number = |field: &str| document[field].as_str().unwrap().parse::<i64>().unwrap();
    assert_eq!(number("expires_on") - number("not_before"), 3599);
    assert_eq!(audience(&document["access_token"]), RESOURCE);
}

#[test]
fn the_secret_may_come_by_basic_authentication_and_the_method_is_post() {
    let fixture = Fixture::new();
    let url = format!("{LOGIN}/{TENANT}/oauth2/v2.0/token");
    let form = [("grant_type", "client_credentials"), ("scope", SCOPE)];
    let request = |secret: &str| {
        let header = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{secret}")));
        fixture.send(fixture.http.post(&url).header("authorization", header).form(&form))
    };
    // The hyphens of the secret are encoded as a form encodes them.
    assert_eq!(request(&SECRET.replace('-', "%2D")).status, 200);
    assert_eq!(request("wrong").json()["error_codes"][0], 7_000_215);
    let reply = fixture.send(fixture.http.get(&url));
    assert_eq!((reply.status, &reply.json()["error_codes"][0]), (400, &900_561.into()));
}

#[test]
fn a_secret_can_expire_and_be_replaced() {
    let fixture = Fixture::new();
    fixture.azure.expire_client_secret(TENANT, CLIENT);
    let reply = fixture.token_request(LOGIN, TENANT, &form(CLIENT, SECRET, SCOPE));
    assert_eq!((reply.status, &reply.json()["error_codes"][0]), (401, &7_000_222.into()));
    fixture.azure.add_client(TENANT, CLIENT, "a-newer-secret");
    let reply = fixture.token_request(LOGIN, TENANT, &form(CLIENT, "a-newer-secret", SCOPE));
    assert_eq!(reply.status, 200);
    let reply = fixture.token_request(LOGIN, TENANT, &form(CLIENT, SECRET, SCOPE));
    assert_eq!(reply.json()["error_codes"][0], 7_000_215);
}

#[test]
fn the_lifetime_of_a_client_overrides_that_of_its_tenant() {
    let fixture = Fixture::new();
    let lifetime = || fixture.token_request(LOGIN, TENANT, &form(CLIENT, SECRET, SCOPE)).json()["expires_in"].clone();
    fixture.azure.set_token_lifetime(TENANT, None, Duration::from_secs(600));
    assert_eq!(lifetime(), 600);
    fixture.azure.set_token_lifetime(TENANT, Some(CLIENT), Duration::from_secs(60));
    assert_eq!(lifetime(), 60);
}

#[test]
fn the_openid_configuration_names_the_token_endpoint() {
    let fixture = Fixture::new();
    let path = "v2.0/.well-known/openid-configuration";
    let reply = fixture.send(fixture.http.get(format!("{LOGIN}/{TENANT}/{path}")));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["token_endpoint"], format!("{LOGIN}/{TENANT}/oauth2/v2.0/token"));
    let reply = fixture.send(fixture.http.get(format!("{LOGIN}/unknown.example/{path}")));
    assert_eq!((reply.status, &reply.json()["error"]), (400, &"invalid_tenant".into()));
}

#[test]
fn instance_discovery_knows_the_public_clouds_only() {
    let fixture = Fixture::with_names(&["login.stack.test", "*.vault.stack.test"]);
    let discover = |host: &str| {
        let endpoint = format!("https://{host}/{TENANT}/oauth2/v2.0/authorize");
        let query = [("api-version", "1.1"), ("authorization_endpoint", endpoint.as_str())];
        fixture.send(fixture.http.get(format!("{LOGIN}/common/discovery/instance")).query(&query))
    };
    let reply = discover("login.microsoftonline.us");
    assert_eq!(reply.status, 200);
    let expected = format!("https://login.microsoftonline.us/{TENANT}/v2.0/.well-known/openid-configuration");
    assert_eq!(reply.json()["tenant_discovery_endpoint"], expected);
    assert_eq!(reply.json()["metadata"].as_array().unwrap().len(), 4);
    let reply = discover("login.stack.test");
    assert_eq!((reply.status, &reply.json()["error"]), (400, &"invalid_instance".into()));
}

#[test]
fn the_request_id_of_the_client_is_returned() {
    let fixture = Fixture::new();
    let id = "33333333-aaaa-4bbb-8ccc-000000000003";
    let url = format!("{LOGIN}/{TENANT}/oauth2/v2.0/token");
    let request = fixture.http.post(url).header("client-request-id", id);
    let reply = fixture.send(request.form(&form(CLIENT, "wrong", SCOPE)));
    assert_eq!(reply.header("client-request-id"), id);
    assert_eq!(reply.json()["correlation_id"], id);
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
}
