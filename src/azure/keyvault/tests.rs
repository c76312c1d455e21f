//! Tests of the module against a small Azure over real HTTPS, and of its pure parts.

mod ca_bundle;
mod challenges;
mod cloud_files;
mod fetch_permits;
mod identities;
mod imds;
mod objects;
mod pure;
mod retries;
mod sdk_faults;
mod server;
mod sharing;
mod single_flight;
mod token_proxy;
mod troubleshooting;
mod vault_queue;

use std::sync::Arc;
use std::time::Duration;

use self::server::{Azure, CLIENT_ID, CLIENT_SECRET, Kind, QUICK, VERSION, open, status};
use super::{Error, ObjectName, ObjectVersionId, Vault, VaultSecret};
use crate::model::{ExposeSecret as _, Reason};

async fn get(vault: &Vault, name: &str) -> Result<Arc<VaultSecret>, Error> {
    vault.secret(&ObjectName::new(name).unwrap(), None).await
}

async fn get_at_once(vault: &Vault, count: usize) -> Vec<Result<Arc<VaultSecret>, Error>> {
    let names: Vec<String> = (0..count).map(|i| format!("name-{i}")).collect();
    futures::future::join_all(names.iter().map(|name| get(vault, name))).await
}

#[tokio::test]
async fn a_secret_comes_with_its_concrete_version() {
    let azure = Azure::well().await;
    let vault = azure.vault();
    let secret = get(&vault, "db").await.unwrap();
    assert_eq!((secret.value.expose_secret(), secret.version.as_str()), ("value of db", VERSION));
    assert!(!secret.certificate_backed && secret.content_type.is_none());
    let version = ObjectVersionId::new(VERSION).unwrap();
    vault.secret(&ObjectName::new("db").unwrap(), Some(&version)).await.unwrap();
    let targets: Vec<String> = azure.seen().into_iter().map(|request| request.target).collect();
    assert_eq!(
        targets,
        [
            "/secrets/db/?api-version=7.4".to_owned(),
            "/tenant-1/oauth2/v2.0/token".to_owned(),
            "/secrets/db/?api-version=7.4".to_owned(),
            format!("/secrets/db/{VERSION}?api-version=7.4"),
        ]
    );
    assert!(azure.seen()[1].body.contains("scope=https%3A%2F%2Fvault.azure.net%2F.default"), "{:?}", azure.seen()[1]);
    assert!(azure.seen().iter().all(|request| request.head.contains("user-agent: keyvault-csi/test\r\n")));
}

#[tokio::test]
async fn a_secret_with_a_kid_is_certificate_backed() {
    let azure = Azure::start(|request, _| {
        let body = server::secret(&request.host, "tls", "pem");
        let body = body.replace(
            "{\"value\"",
            "{\"kid\":\"https://x/keys/tls/1\",\"contentType\":\"application/x-pkcs12\",\"value\"",
        );
        (request.kind == Kind::Get).then(|| status(200, &body)).flatten()
    })
    .await;
    let secret = get(&azure.vault(), "tls").await.unwrap();
    assert!(secret.certificate_backed);
    assert_eq!(secret.content_type.as_deref(), Some("application/x-pkcs12"));
    assert!(!format!("{secret:?}").contains("pem"));
}

#[tokio::test]
async fn sixteen_gets_at_once_cost_one_challenge_and_one_token() {
    let azure = Azure::well().await;
    let results = get_at_once(&azure.vault(), 16).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(azure.counts(), [1, 1, 16]);
}

#[tokio::test]
async fn the_challenge_is_learned_once_per_process() {
    let azure = Azure::well().await;
    let vaults = azure.vaults(QUICK);
    let opened: Vec<Vault> = (0..8).map(|_| open(&vaults, "myvault", Duration::from_secs(60))).collect();
    let results = futures::future::join_all(opened.iter().map(|vault| get(vault, "db"))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(azure.counts(), [1, 1, 8], "vaults opened at once");
    get(&open(&vaults, "myvault", Duration::from_secs(60)), "db").await.unwrap();
    assert_eq!(azure.counts(), [1, 1, 9], "a vault opened later");
    get(&open(&vaults, "other", Duration::from_secs(60)), "db").await.unwrap();
    assert_eq!(azure.counts(), [2, 1, 10], "another vault");
}

/// The refusals of docs/reference/azure-provider.md#vault-errors; each is final and is requested
/// once.
#[tokio::test]
async fn a_refusal_of_the_vault_names_the_fix() {
    for (code, body, reason, words) in [
        (404, r#"{"error":{"code":"SecretNotFound","message":"QUOTED"}}"#, Reason::ObjectNotFound, "SecretNotFound"),
        (404, "QUOTED", Reason::VaultUnavailable, "proxy"),
        (
            403,
            r#"{"error":{"code":"Forbidden","message":"QUOTED","innererror":{"code":"SecretDisabled"}}}"#,
            Reason::ObjectDisabled,
            "enable it",
        ),
        (
            403,
            r#"{"error":{"code":"Forbidden","message":"QUOTED","innererror":{"code":"ForbiddenByRbac"}}}"#,
            Reason::Forbidden,
            "Key Vault Secrets User",
        ),
        (
            403,
            r#"{"error":{"code":"Forbidden","message":"QUOTED","innererror":{"code":"ForbiddenByPolicy"}}}"#,
            Reason::Forbidden,
            CLIENT_ID,
        ),
        (
            403,
            r#"{"error":{"code":"Forbidden","message":"QUOTED","innererror":{"code":"ForbiddenByConnection"}}}"#,
            Reason::Forbidden,
            "network rules",
        ),
        (403, r#"{"error":{"code":"Not a code: QUOTED"}}"#, Reason::Forbidden, "no code"),
        (400, r#"{"error":{"code":"BadParameter","message":"QUOTED"}}"#, Reason::VaultUnavailable, "BadParameter"),
    ] {
        let azure =
            Azure::start(move |request, _| (request.kind == Kind::Get).then(|| status(code, body)).flatten()).await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert_eq!(error.reason(), reason, "{body}");
        let text = error.to_string();
        assert!(
            text.contains(words) && text.contains(server::VAULT) && text.contains(&format!("HTTP {code}")),
            "{text}"
        );
        assert!(!text.contains("QUOTED") && !text.contains("db"), "{text}");
        assert_eq!(azure.count(Kind::Get), 1, "{body}");
    }
}

/// The SDK hides this cause two levels down. Callers that wait for the token get it from one
/// request.
#[tokio::test]
async fn the_cause_of_a_refused_token_is_in_the_error() {
    for (code, body, reason, words) in [
        (
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000215: QUOTED","error_codes":[7000215]}"#,
            Reason::CredentialsRejected,
            "AADSTS7000215",
        ),
        (
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000222: QUOTED"}"#,
            Reason::CredentialsRejected,
            "expired",
        ),
        (
            400,
            r#"{"error_description":"QUOTED","error_codes":[700016]}"#,
            Reason::CredentialsRejected,
            "no application",
        ),
        (400, r#"{"error_codes":[90002]}"#, Reason::TenantNotFound, "no such tenant"),
        (400, r#"{"error_codes":[123456]}"#, Reason::CredentialsRejected, "AADSTS123456"),
        (404, "QUOTED", Reason::IdentityUnavailable, "HTTP 404"),
        (200, r#"{"unexpected":"QUOTED"}"#, Reason::IdentityUnavailable, "holds no token"),
        (200, r#"{"access_token":{"QUOTED":1}}"#, Reason::IdentityUnavailable, "another format"),
    ] {
        let azure =
            Azure::start(move |request, _| (request.kind == Kind::Token).then(|| status(code, body)).flatten()).await;
        let results = get_at_once(&azure.vault(), 16).await;
        for error in results.into_iter().map(Result::unwrap_err) {
            let (text, debug) = (error.to_string(), format!("{error:?}"));
            assert_eq!(error.reason(), reason, "{text}");
            assert!(text.contains(words) && text.contains(server::LOGIN), "{text}");
            assert!(!text.contains("QUOTED") && !debug.contains("QUOTED") && !debug.contains(CLIENT_SECRET), "{debug}");
        }
        assert_eq!(azure.counts(), [1, 1, 0], "{body}");
    }
}
