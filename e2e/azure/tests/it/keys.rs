//! Key Vault: keys and certificates.

use azure_emulator::{Action, CertificateMaterial, Fault, Jwk, Kind, ObjectAttributes, ObjectKind, Permission};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{CLIENT, Fixture, HOST, Reply, VAULT};
use crate::material::{Material, openssl};

fn error(reply: &Reply) -> (u16, String) {
    (reply.status, reply.vault_error().0)
}

fn bytes(document: &Value, field: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(document[field].as_str().unwrap()).unwrap()
}

#[test]
fn keys_have_the_numbers_that_openssl_shows() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let rsa = Material::rsa();
    let version = fixture.azure.set_key(VAULT, "rsa", Jwk::of_spki(&rsa.spki()).unwrap().with_kty("RSA-HSM"));
    let reply = fixture.get("/keys/rsa", &token);
    let document = reply.json();
    let key = &document["key"];
    assert_eq!((&key["kty"], &key["kid"]), (&json!("RSA-HSM"), &json!(format!("{HOST}/keys/rsa/{version}"))));
    assert_eq!(hex::encode(bytes(key, "n")), rsa.modulus());
    assert_eq!(key["e"], "AQAB");
    assert_eq!(document["attributes"]["enabled"], true);
    assert!(key["key_ops"].as_array().unwrap().contains(&json!("sign")));
    assert_eq!(fixture.get(&format!("/keys/RSA/{version}"), &token).json(), document);
    for (curve, name, size) in
        [("P-256", "P-256", 32), ("P-384", "P-384", 48), ("P-521", "P-521", 66), ("secp256k1", "P-256K", 32)]
    {
        let spki = Material::ec(curve).spki();
        fixture.azure.set_key(VAULT, "ec", Jwk::of_spki(&spki).unwrap());
        let key = fixture.get("/keys/ec/", &token).json()["key"].clone();
        assert_eq!((&key["kty"], &key["crv"]), (&json!("EC"), &json!(name)));
        assert_eq!([bytes(&key, "x"), bytes(&key, "y")].concat(), spki[spki.len() - 2 * size..]);
    }
    fixture.azure.set_key(VAULT, "oct", Jwk::oct());
    let key = fixture.get("/keys/oct", &token).json()["key"].clone();
    assert_eq!((&key["kty"], &key["n"], &key["x"]), (&json!("oct-HSM"), &Value::Null, &Value::Null));
    assert_eq!(fixture.azure.counters(VAULT).get(Kind::KeyGet), 7);
    assert_eq!(fixture.azure.counters(VAULT).get(Kind::Get), 0);
}

#[test]
fn keys_have_versions_in_pages_and_a_disabled_one_can_be_read() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let at = |created| ObjectAttributes { created: Some(created), ..ObjectAttributes::default() };
    let ids: Vec<String> = ["a", "b", "c"].map(|digit| digit.repeat(32)).to_vec();
    for id in &ids {
        fixture.azure.set_key_version(VAULT, "key", id, Jwk::oct(), at(1000));
    }
    assert_eq!(
        fixture.get("/keys/key", &token).json()["key"]["kid"],
        format!("{HOST}/keys/key/{}", ids[2]),
        "created in the same second, set last"
    );
    fixture.azure.set_object_enabled(VAULT, ObjectKind::Key, "key", &ids[2], false);
    let disabled = fixture.get("/keys/key", &token);
    assert_eq!((disabled.status, &disabled.json()["attributes"]["enabled"]), (200, &json!(false)));
    fixture.azure.set_page_size(VAULT, 2);
    let first = fixture.get("/keys/key/versions", &token).json();
    let next = first["nextLink"].as_str().unwrap();
    let second = fixture.send(fixture.http.get(next).bearer_auth(&token)).json();
    let items = [first["value"].as_array().unwrap().as_slice(), second["value"].as_array().unwrap()].concat();
    let kids: Vec<_> = items.iter().map(|item| item["kid"].clone()).collect();
    assert_eq!(kids, ids.iter().map(|id| json!(format!("{HOST}/keys/key/{id}"))).collect::<Vec<_>>());
    assert!(items.iter().all(|item| item["attributes"]["created"] == 1000 && item["key"] == Value::Null));
    assert_eq!(fixture.get("/keys", &token).json()["value"][0]["kid"], format!("{HOST}/keys/key"));
    assert_eq!(error(&fixture.get("/keys/nothing", &token)), (404, "KeyNotFound".to_owned()));
    assert_eq!(error(&fixture.get("/keys/under_score", &token)), (400, "BadParameter".to_owned()));
    let create = fixture.vault(Method::POST, "/keys/key/create", &token, Some(json!({ "kty": "RSA" })));
    assert_eq!(error(&create), (501, "NotImplemented".to_owned()));
    fixture.azure.add_fault(Fault::new(Action::status(404)).kind(Kind::KeyGet).times(1));
    assert_eq!(error(&fixture.get("/keys/key", &token)), (404, "KeyNotFound".to_owned()));
    fixture.azure.delete_object(VAULT, ObjectKind::Key, "key");
    assert_eq!(fixture.get("/keys/key", &token).status, 404);
}

#[test]
fn a_key_can_be_imported_and_a_broken_one_cannot() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let put = |key: Value| fixture.vault(Method::PUT, "/keys/key", &token, Some(json!({ "key": key })));
    let reply = put(json!({ "kty": "EC", "crv": "P-256", "x": "AQ", "y": "Ag", "d": "c2VjcmV0" }));
    assert_eq!((reply.status, &reply.json()["key"]["x"]), (200, &json!("AQ")));
    assert!(!reply.text.contains("c2VjcmV0"), "the private half does not leave the vault");
    for key in [
        json!({ "kty": "RSA", "n": "AQ" }),
        json!({ "kty": "EC", "crv": "P-100", "x": "AQ", "y": "AQ" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "A+", "y": "AQ" }),
        json!({ "kty": "DSA" }),
        Value::Null,
    ] {
        assert_eq!(error(&put(key)), (400, "BadParameter".to_owned()));
    }
}

#[test]
fn a_certificate_is_three_objects_of_one_version() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let material = Material::rsa();
    let pem = material.pem();
    let version = fixture.azure.set_certificate(VAULT, "cert", &CertificateMaterial::from_pem(&pem).unwrap());
    let id = |collection: &str| format!("{HOST}/{collection}/cert/{version}");
    let certificate = fixture.get("/certificates/cert", &token).json();
    assert_eq!(certificate["cer"], STANDARD.encode(material.der()));
    assert_eq!(certificate["x5t"], material.thumbprint("-sha1"));
    assert_eq!((&certificate["id"], &certificate["kid"]), (&json!(id("certificates")), &json!(id("keys"))));
    assert_eq!(
        (&certificate["sid"], &certificate["contentType"]),
        (&json!(id("secrets")), &json!("application/x-pem-file"))
    );
    assert_eq!(certificate["policy"]["secret_props"]["contentType"], "application/x-pem-file");
    assert_eq!(certificate["policy"]["key_props"]["kty"], "RSA");
    let secret = fixture.get("/secrets/cert", &token).json();
    assert_eq!((&secret["value"], &secret["kid"]), (&json!(pem), &json!(id("keys"))));
    assert_eq!((&secret["managed"], &secret["contentType"]), (&json!(true), &json!("application/x-pem-file")));
    let key = fixture.get(&format!("/keys/cert/{version}"), &token).json();
    assert_eq!(hex::encode(bytes(&key["key"], "n")), material.modulus());
    assert_eq!(key["managed"], true);
    let listed = fixture.get("/certificates/cert/versions", &token).json()["value"][0].clone();
    assert_eq!((&listed["id"], &listed["cer"]), (&json!(id("certificates")), &Value::Null));
    assert_eq!(fixture.get("/certificates", &token).json()["value"][0]["id"], format!("{HOST}/certificates/cert"));
    let body = json!({ "attributes": { "enabled": false } });
    let path = format!("/certificates/cert/{version}");
    assert_eq!(fixture.vault(Method::PATCH, &path, &token, Some(body)).status, 200);
    let disabled = fixture.get(&path, &token).json();
    assert_eq!((&disabled["attributes"]["enabled"], &disabled["cer"]), (&json!(false), &certificate["cer"]));
    assert_eq!(error(&fixture.get("/secrets/cert", &token)), (403, "Forbidden".to_owned()));
    fixture.azure.delete_object(VAULT, ObjectKind::Certificate, "cert");
    for path in ["/certificates/cert", "/secrets/cert", "/keys/cert"] {
        assert_eq!(fixture.get(path, &token).status, 404, "{path}");
    }
    fixture.azure.purge_object(VAULT, ObjectKind::Certificate, "cert");
    fixture.azure.set_certificate(VAULT, "cert", &CertificateMaterial::from_pem(&pem).unwrap());
}

#[test]
fn certificates_need_not_be_valid() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let odd = CertificateMaterial {
        der_leaf: b"test".to_vec(),
        secret_value: "x".to_owned(),
        secret_content_type: String::new(),
        key: Jwk::default(),
    };
    let (old, new) = ("f".repeat(32), "0".repeat(32));
    let at = |created| ObjectAttributes { created: Some(created), ..ObjectAttributes::default() };
    fixture.azure.set_certificate_version(VAULT, "odd", &new, &odd, at(2000));
    fixture.azure.set_certificate_version(VAULT, "odd", &old, &odd, at(1000));
    assert_eq!(fixture.get("/certificates/odd", &token).json()["cer"], "dGVzdA==");
    assert_eq!(fixture.get("/secrets/odd", &token).json()["contentType"], Value::Null);
    assert_eq!(fixture.get("/keys/odd", &token).json()["key"], json!({ "kid": format!("{HOST}/keys/odd/{new}") }));
    fixture.azure.set_pending_certificate(VAULT, "pending");
    let pending = fixture.get("/certificates/pending", &token).json();
    assert_eq!((&pending["cer"], &pending["attributes"]["enabled"]), (&Value::Null, &json!(false)));
    let omitted = ObjectAttributes { omit_attributes: true, ..ObjectAttributes::default() };
    fixture.azure.set_secret_version(VAULT, "bare", &old, "the-value", omitted);
    fixture.azure.set_secret(VAULT, "bare", "the-value");
    let versions = fixture.get("/secrets/bare/versions", &token).json()["value"].as_array().unwrap().clone();
    assert_eq!(versions.iter().filter(|version| version["attributes"] == Value::Null).count(), 1);
    let full = versions.iter().find(|version| version["attributes"] != Value::Null).unwrap();
    assert!(["created", "updated", "enabled"].iter().all(|field| full["attributes"][field] != Value::Null));
}

#[test]
fn an_import_stores_the_same_value_as_key_vault() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let material = Material::ec("P-384");
    let import = |body: Value| fixture.vault(Method::POST, "/certificates/cert/import", &token, Some(body));
    let modern = ["-certpbe", "AES-256-CBC", "-keypbe", "AES-256-CBC", "-macalg", "SHA256"];
    let legacy = ["-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "SHA1"];
    for options in [modern, legacy] {
        let pfx = STANDARD.encode(material.pfx("", &options));
        let reply = import(json!({ "value": pfx }));
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json()["cer"], STANDARD.encode(material.der()));
        let secret = fixture.get("/secrets/cert", &token).json();
        assert_eq!((&secret["value"], &secret["contentType"]), (&json!(pfx), &json!("application/x-pkcs12")));
    }
    let locked = STANDARD.encode(material.pfx("pass", &modern));
    assert_eq!(import(json!({ "value": locked, "pwd": "pass" })).status, 200);
    let value = fixture.get("/secrets/cert", &token).json()["value"].as_str().unwrap().to_owned();
    std::fs::write(material.path("out.pfx"), STANDARD.decode(value).unwrap()).unwrap();
    let folder = material.path("");
    let out = openssl(&folder, &["pkcs12", "-in", "out.pfx", "-passin", "pass:", "-nodes"]);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("PRIVATE KEY-----") && text.contains("BEGIN CERTIFICATE"), "it has no password");
    assert_eq!(import(json!({ "value": material.pem() })).status, 200);
    assert_eq!(fixture.get("/secrets/cert", &token).json()["contentType"], "application/x-pem-file");
    for body in [
        json!({ "value": locked, "pwd": "wrong" }),
        json!({ "value": locked }),
        json!({ "value": material.text("cert.pem") }),
        json!({ "value": "!" }),
        json!({}),
    ] {
        assert_eq!(error(&import(body)), (400, "BadParameter".to_owned()));
    }
}

#[test]
fn permissions_are_granted_by_kind() {
    let fixture = Fixture::new();
    let token = fixture.token();
    fixture.azure.set_secret(VAULT, "thing", "the-value");
    fixture.azure.set_key(VAULT, "thing", Jwk::oct());
    fixture.azure.revoke_grant(VAULT, CLIENT, &Permission::ALL);
    fixture.azure.grant_on(VAULT, CLIENT, ObjectKind::Key, &[Permission::Get, Permission::List]);
    assert_eq!(fixture.get("/keys/thing", &token).status, 200);
    let cases = [
        ("/secrets/thing", "secrets get"),
        ("/certificates/thing", "certificates get"),
        ("/certificates/thing/versions", "certificates list"),
    ];
    for (path, text) in cases {
        let reply = fixture.get(path, &token);
        assert_eq!(reply.status, 403, "{path}");
        assert!(reply.vault_error().2.contains(&format!("does not have {text} permission")), "{reply:?}");
    }
    fixture.azure.revoke_grant_on(VAULT, CLIENT, ObjectKind::Key, &[Permission::Get]);
    assert_eq!(fixture.get("/keys/thing", &token).status, 403);
    assert_eq!(fixture.get("/keys/thing/versions", &token).status, 200);
}
