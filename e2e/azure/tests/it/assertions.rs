//! Entra ID: tokens of trusted issuers, signed assertions, AD FS.

use std::time::Duration;

use azure_emulator::{Kind, Permission};
use serde_json::{Value, json};

use crate::harness::{CLIENT, Fixture, LOGIN, Reply, SCOPE, SECRET, TENANT, form};
use crate::material::Material;

const ISSUER: &str = "https://oidc.example/cluster/";
const SUBJECT: &str = "system:serviceaccount:shop:web";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const APP: &str = "44444444-aaaa-4bbb-8ccc-000000000004";
const HOUR: Duration = Duration::from_secs(3600);
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn assertion_form<'a>(client: &'a str, assertion: &'a str, scope: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion),
        ("scope", scope),
    ]
}

fn request_token(fixture: &Fixture, client: &str, assertion: &str) -> Reply {
    fixture.token_request(LOGIN, TENANT, &assertion_form(client, assertion, SCOPE))
}

fn code(reply: &Reply) -> (u16, Value) {
    (reply.status, reply.json()["error_codes"][0].clone())
}

#[test]
fn a_service_account_token_authenticates_an_application() {
    let fixture = Fixture::new();
    let issuer = fixture.azure.add_issuer(ISSUER);
    fixture.azure.add_federated_credential(TENANT, APP, ISSUER, SUBJECT, AUDIENCE);
    fixture.azure.grant(crate::harness::VAULT, APP, &[Permission::Get]);
    fixture.azure.set_secret(crate::harness::VAULT, "thing", "the-value");
    let reply = request_token(&fixture, APP, &issuer.token(SUBJECT, AUDIENCE, HOUR, Value::Null));
    assert_eq!(reply.status, 200, "{reply:?}");
    let token = reply.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(fixture.get("/secrets/thing", &token).json()["value"], "the-value");
    // Adding the issuer again does not change its key.
    let again = fixture.azure.add_issuer(ISSUER).token(SUBJECT, AUDIENCE, HOUR, Value::Null);
    assert_eq!(request_token(&fixture, APP, &again).status, 200);
    fixture.azure.remove_federated_credentials(TENANT, APP);
    assert_eq!(code(&request_token(&fixture, APP, &again)), (401, json!(70_025)));
}

#[test]
fn every_wrong_service_account_token_gets_its_own_error() {
    let fixture = Fixture::new();
    let issuer = fixture.azure.add_issuer(ISSUER);
    let other = fixture.azure.add_issuer("https://other.example/");
    fixture.azure.add_federated_credential(TENANT, APP, ISSUER, SUBJECT, AUDIENCE);
    fixture.azure.add_federated_credential(TENANT, APP, "https://unknown.example/", SUBJECT, AUDIENCE);
    let token = |subject: &str, audience: &str, extra| issuer.token(subject, audience, HOUR, extra);
    let good = token(SUBJECT, AUDIENCE, Value::Null);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{flipped}{}", &signature[1..]);
    let foreign = other.token(SUBJECT, AUDIENCE, HOUR, json!({ "iss": ISSUER }));
    let cases = [
        (other.token(SUBJECT, AUDIENCE, HOUR, Value::Null), 401, 700_211),
        (token(SUBJECT, "api://Other", Value::Null), 401, 700_212),
        (token("system:serviceaccount:shop:Web", AUDIENCE, Value::Null), 401, 700_213),
        (issuer.token(SUBJECT, AUDIENCE, Duration::ZERO, Value::Null), 401, 700_024),
        (token(SUBJECT, AUDIENCE, json!({ "nbf": 32_503_680_000_i64 })), 401, 700_024),
        (token(SUBJECT, AUDIENCE, json!({ "iss": "https://unknown.example/" })), 400, 50_166),
        (forged, 401, 50_013),
        (foreign, 401, 5_000_811),
        ("not.a.token".to_owned(), 400, 50_027),
        (token(SUBJECT, AUDIENCE, json!({ "sub": 1 })), 400, 50_027),
    ];
    for (assertion, status, number) in cases {
        let reply = request_token(&fixture, APP, &assertion);
        assert_eq!(code(&reply), (status, json!(number)), "{reply:?}");
        let text = reply.json()["error_description"].as_str().unwrap().to_owned();
        assert!(text.starts_with(&format!("AADSTS{number}: ")) && !text.contains(&assertion), "{text}");
    }
    let begins = |seconds: i64| token(SUBJECT, AUDIENCE, json!({ "nbf": now() + seconds }));
    assert_eq!(code(&request_token(&fixture, APP, &begins(360))), (401, json!(700_024)));
    assert!(request_token(&fixture, APP, &token_of_unknown_subject(&fixture)).text.contains("subject 'unknown'"));
    assert_eq!(code(&request_token(&fixture, CLIENT, &good)), (401, json!(70_025)), "it has no federated credential");
    let mut form = assertion_form(APP, &good, SCOPE);
    form[2].1 = "urn:other";
    assert_eq!(code(&fixture.token_request(LOGIN, TENANT, &form)), (400, json!(90_011)));
    form.remove(2);
    assert_eq!(code(&fixture.token_request(LOGIN, TENANT, &form)), (400, json!(900_144)));
    assert!(fixture.azure.issued_tokens().is_empty());
    assert_eq!(request_token(&fixture, APP, &begins(240)).status, 200, "clocks may differ by five minutes");
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn token_of_unknown_subject(fixture: &Fixture) -> String {
    fixture.azure.add_issuer(ISSUER).token("unknown", AUDIENCE, HOUR, Value::Null)
}

#[test]
fn the_signature_of_a_certificate_is_verified() {
    let fixture = Fixture::new();
    let (own, other) = (Material::rsa(), Material::rsa());
    fixture.azure.add_client_certificate(TENANT, APP, &own.der());
    let endpoint = format!("{LOGIN}/{TENANT}/oauth2/v2.0/token");
    let (sha1, sha256) = (own.thumbprint("-sha1"), own.thumbprint("-sha256"));
    let claims = |change: Value| {
        let mut claims = json!({
            "aud": endpoint, "iss": APP, "sub": APP, "jti": "1", "nbf": 1_700_000_000, "exp": 32_503_680_000_i64,
        });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        claims
    };
    let fine = claims(json!({}));
    for header in [
        json!({ "alg": "RS256", "typ": "JWT", "x5t": sha1 }),
        json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": sha256, "x5c": ["tolerated"] }),
    ] {
        let reply = request_token(&fixture, APP, &own.sign(&header, &fine));
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let header = json!({ "alg": "PS256", "x5t#S256": sha256 });
    let other_header = json!({ "alg": "PS256", "x5t#S256": other.thumbprint("-sha256") });
    let cases = [
        (other.sign(&header, &fine), 401, 700_027),
        (other.sign(&other_header, &fine), 401, 700_027),
        (own.sign(&json!({ "alg": "PS256" }), &fine), 400, 50_027),
        (own.sign(&json!({ "alg": "none", "x5t": sha1 }), &fine), 401, 700_027),
        (own.sign(&header, &claims(json!({ "aud": format!("{LOGIN}/other/oauth2/v2.0/token") }))), 401, 700_023),
        (own.sign(&header, &claims(json!({ "sub": CLIENT }))), 401, 700_021),
        (own.sign(&header, &claims(json!({ "exp": 1_700_000_001 }))), 401, 700_024),
        (own.sign(&header, &claims(json!({ "jti": null }))), 400, 50_027),
        (own.sign(&header, &claims(json!({ "iss": CLIENT }))), 401, 70_025),
    ];
    for (assertion, status, number) in cases {
        let reply = request_token(&fixture, APP, &assertion);
        assert_eq!(code(&reply), (status, json!(number)), "{reply:?}");
    }
    let secret = fixture.token_request(LOGIN, TENANT, &form(APP, "guess", SCOPE));
    assert_eq!(code(&secret), (401, json!(7_000_215)), "it has no secret");
    fixture.azure.remove_client_certificates(TENANT, APP);
    assert_eq!(code(&request_token(&fixture, APP, &own.sign(&header, &fine))), (401, json!(700_027)));
}

#[test]
fn ad_fs_responds_on_a_custom_cloud_only() {
    let fixture = Fixture::with_names(&["login.stack.test", "*.vault.stack.test"]);
    let scope = "https://vault.stack.test/.default";
    fixture.azure.add_tenant("adfs");
    fixture.azure.add_client("adfs", CLIENT, SECRET);
    fixture.azure.add_vault("stack-vault", "vault.stack.test", "adfs");
    fixture.azure.grant("stack-vault", CLIENT, &[Permission::Get]);
    fixture.azure.set_secret("stack-vault", "thing", "the-value");
    let send = |url: &str, form: &[(&str, &str)]| fixture.send(fixture.http.post(url).form(form));
    let stack = "https://login.stack.test/adfs";
    let good = form(CLIENT, SECRET, scope);
    let reply = send(&format!("{stack}/oauth2/token"), &good);
    assert_eq!(reply.status, 200, "{reply:?}");
    let token = reply.json()["access_token"].as_str().unwrap().to_owned();
    let url = "https://stack-vault.vault.stack.test/secrets/thing?api-version=7.4";
    assert_eq!(fixture.send(fixture.http.get(url).bearer_auth(token)).json()["value"], "the-value");
    let challenge = fixture.send(fixture.http.get(url));
    assert!(challenge.header("www-authenticate").contains(r#"authorization="https://login.stack.test/adfs""#));
    let mut old = good.to_vec();
    old[3] = ("resource", "https://vault.stack.test");
    assert_eq!(send(&format!("{stack}/oauth2/token"), &old).status, 200);
    assert_eq!(fixture.azure.counters("adfs").get(Kind::Token), 2);
    assert_eq!(
        send(&format!("{stack}/oauth2/v2.0/token"), &good).status,
        404,
        "AD FS does not have the path of Entra ID"
    );
    assert_eq!(send(&format!("{LOGIN}/adfs/oauth2/token"), &good).status, 404, "the public cloud has no AD FS");
    let reply = send(&format!("{stack}/oauth2/token"), &form(CLIENT, "wrong", scope));
    assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_client")));
    assert!(reply.text.contains("MSIS9622: ") && !reply.text.contains("AADSTS"), "{reply:?}");
    let configuration = fixture.send(fixture.http.get(format!("{stack}/.well-known/openid-configuration")));
    assert_eq!(configuration.json()["token_endpoint"], format!("{stack}/oauth2/token"));
}
