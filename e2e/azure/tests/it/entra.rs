//! Entra ID: metadata documents, tokens and errors.

use std::time::Duration;

use crate::harness::{CLIENT, Fixture, LOGIN, SCOPE, SECRET, TENANT, form};

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
        (TENANT, password, 400, 70003, "unsupported_grant_type"),
        (TENANT, without("grant_type"), 400, 900_144, "invalid_request"),
        (TENANT, without("client_id"), 400, 900_144, "invalid_request"),
        (TENANT, without("scope"), 400, 900_144, "invalid_request"),
        (TENANT, without("client_secret"), 401, 7_000_216, "invalid_client"),
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
