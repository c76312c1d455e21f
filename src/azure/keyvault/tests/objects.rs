//! Keys, certificates and lists of versions.

use super::super::{Error, ObjectName, ObjectType, VersionInfo};
use super::server::{Answer, Azure, Kind, OTHER, VAULT, VERSION, status};
use crate::model::Reason;

fn name() -> ObjectName {
    ObjectName::new("db").unwrap()
}

/// Answers each request with a token with `body`.
async fn says(body: &str) -> Azure {
    let body = body.to_owned();
    Azure::start(move |request, _| (request.kind == Kind::Get).then(|| status(200, &body)).flatten()).await
}

#[tokio::test]
async fn a_key_and_a_certificate_come_with_their_versions_for_one_token() {
    let azure = Azure::start(|request, _| {
        let body = match (request.kind, request.target.split('/').nth(1)) {
            (Kind::Get, Some("keys")) => {
                format!(r#"{{"key":{{"kid":"https://{VAULT}/keys/DB/{VERSION}","kty":"RSA","n":"AQ-_","e":"AQAB"}}}}"#)
            }
            (Kind::Get, Some("certificates")) => {
                format!(r#"{{"id":"https://{VAULT}/certificates/db/{VERSION}","cer":"dGVzdA=="}}"#)
            }
            _ => return None,
        };
        status(200, &body)
    })
    .await;
    let vault = azure.vault();
    let key = vault.key(&name(), None).await.unwrap();
    assert_eq!((key.kty.as_str(), key.version.as_str(), key.crv.clone()), ("RSA", VERSION, None));
    assert_eq!((key.n.clone(), key.e.clone(), key.x.clone()), (Some(vec![1, 15, 191]), Some(vec![1, 0, 1]), None));
    let certificate = vault.certificate(&name(), None).await.unwrap();
    assert_eq!((certificate.der.as_slice(), certificate.version.as_str()), (&b"test"[..], VERSION));
    vault.secret(&name(), None).await.unwrap();
    assert_eq!(azure.counts(), [3, 1, 3], "a challenge per type, a token for all");
}

#[tokio::test]
async fn an_answer_without_a_required_field_is_an_error() {
    for body in [
        "{}".to_owned(),
        "[]".to_owned(),
        format!(r#"{{"key":{{"kid":"https://{VAULT}/keys/db/{VERSION}"}}}}"#),
        r#"{"key":{"kty":"RSA"}}"#.to_owned(),
        format!(r#"{{"key":{{"kid":"https://{VAULT}/keys/other/{VERSION}","kty":"RSA"}}}}"#),
        format!(r#"{{"key":{{"kid":"https://{VAULT}/keys/db/{VERSION}","kty":"RSA","n":"!QUOTED"}}}}"#),
        format!(r#"{{"id":"https://{VAULT}/certificates/db/{VERSION}"}}"#),
        r#"{"cer":"dGVzdA=="}"#.to_owned(),
        format!(r#"{{"id":"https://{VAULT}/certificates/db/","cer":"dGVzdA=="}}"#),
        format!(r#"{{"value":[{{"kid":"https://{VAULT}/keys/db/{VERSION}"}}]}}"#),
    ] {
        let azure = says(&body).await;
        let vault = azure.vault();
        let errors = [
            vault.key(&name(), None).await.unwrap_err(),
            vault.certificate(&name(), None).await.unwrap_err(),
            vault.versions(ObjectType::Secret, &name()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.reason(), Reason::VaultUnavailable, "{body}: {error}");
            assert!(!error.to_string().contains("QUOTED"), "{error}");
        }
    }
}

#[tokio::test]
async fn versions_are_read_from_all_pages() {
    let azure = Azure::start(|request, number| {
        let id = format!("https://{VAULT}/secrets/db/v{number}");
        let next = (number < 3).then(|| format!("https://{VAULT}:443/secrets/db/versions?page={}", number + 1));
        let attributes = if number == 2 { "" } else { r#","attributes":{"enabled":false,"created":7}"# };
        let next = next.map(|next| format!("\"{next}\"")).unwrap_or("null".into());
        let body = format!(r#"{{"value":[{{"id":"{id}"{attributes}}}],"nextLink":{next}}}"#);
        (request.kind == Kind::Get).then(|| status(200, &body)).flatten()
    })
    .await;
    let versions = azure.vault().versions(ObjectType::Secret, &name()).await.unwrap();
    let with_attributes = |version: &str| VersionInfo {
        version: version.into(),
        enabled: Some(false),
        created: Some(7),
        has_attributes: true,
    };
    let without = VersionInfo { version: "v2".into(), enabled: None, created: None, has_attributes: false };
    assert_eq!(*versions, [with_attributes("v1"), without, with_attributes("v3")]);
    assert_eq!(azure.seen().last().unwrap().target, "/secrets/db/versions?page=3");
    assert_eq!(azure.counts(), [1, 1, 3]);
}

#[tokio::test]
async fn a_list_that_goes_on_elsewhere_is_not_followed() {
    for link in [
        format!("https://{OTHER}/secrets/db/versions?x"),
        format!("http://{VAULT}/secrets/db/versions?x"),
        format!("https://{VAULT}:8443/secrets/db/versions?x"),
        format!("https://{VAULT}/secrets/other/versions?x"),
        format!("https://{VAULT}/keys/db/versions?x"),
        "//other.vault.azure.net/secrets/db/versions".to_owned(),
        format!("https://user@{VAULT}/secrets/db/versions?x"),
    ] {
        let azure = says(&format!(r#"{{"value":[],"nextLink":"{link}"}}"#)).await;
        let error = azure.vault().versions(ObjectType::Secret, &name()).await.unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { .. }), "{link}: {error}");
        assert_eq!(azure.counts(), [1, 1, 1], "{link}");
    }
}

#[tokio::test]
async fn a_list_without_an_end_ends() {
    let azure = says(r#"{"value":[],"nextLink":"/secrets/db/versions?again"}"#).await;
    let error = azure.vault().versions(ObjectType::Secret, &name()).await.unwrap_err();
    assert!(matches!(error, Error::TooManyVersions { .. }), "{error}");
    assert_eq!(azure.count(Kind::Get), 100);
}

#[tokio::test]
async fn the_error_of_a_forbidden_key_names_the_role_for_keys() {
    let azure = Azure::start(|request, _| {
        let body = r#"{"error":{"code":"Forbidden","innererror":{"code":"ForbiddenByRbac"}}}"#;
        (request.kind == Kind::Get).then(|| Answer::Status(403, "", body.to_owned()))
    })
    .await;
    let error = azure.vault().key(&name(), None).await.unwrap_err();
    assert!(error.to_string().contains("Key Vault Crypto User"), "{error}");
}
