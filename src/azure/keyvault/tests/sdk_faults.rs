//! Each fault of the Azure SDK that this module confines
//! (docs/reference/azure-provider.md#azure-sdk), and attempts of hostile responses.

use std::sync::Arc;
use std::time::Duration;

use azure_core::http::{HttpClient as _, Method, Request};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};

use super::super::error::Error;
use super::super::http::{Http, find};
use super::super::identity::Credential;
use super::super::object_type::ObjectType;
use super::super::rate_limit::Rate;
use super::super::tokens::Token;
use super::super::transport::{EntraTransport, TokenEndpoint, VaultTransport};
use super::super::vault_queue::VaultQueues;
use super::server::{
    Answer, Azure, CLIENT_ID, CLIENT_SECRET, Kind, LOGIN, QUICK, VAULT, VERSION, open, open_as, status,
};
use super::{Reason, get, get_at_once};
use crate::model::ExposeSecret as _;
use crate::server::metrics::{Exposition, FetchMetrics};

fn vault_transport(azure: &Azure) -> VaultTransport {
    VaultTransport {
        http: Http::new(azure.client(), QUICK.request_timeout).unwrap(),
        host: VAULT.into(),
        object_type: ObjectType::Secret,
        token: Arc::new(Token { bearer: "Bearer token-of-the-vault".into(), until: tokio::time::Instant::now() }),
        client_id: None,
        queue: VaultQueues::new(Rate { per_second: 0, burst: 0 }, FetchMetrics::register(&mut Exposition::new()))
            .queue(VAULT),
        deadline: tokio::time::Instant::now() + Duration::from_secs(60),
    }
}

/// The SDK alone would send the token to `/keys/k1/`. Names are checked before, too.
#[tokio::test]
async fn a_name_that_leaves_the_path_is_not_sent() {
    let azure = Azure::well().await;
    let mut options = SecretClientOptions::default();
    options.client_options.transport = Some(azure_core::http::Transport::new(Arc::new(vault_transport(&azure))));
    let credential = azure_identity::ClientSecretCredential::new("t", "c".into(), "s".into(), None).unwrap();
    let client = SecretClient::new(&format!("https://{VAULT}"), credential, Some(options)).unwrap();
    for name in ["../keys/k1", "a/../../keys/k1", "a?b", "a#b", "a/b/c", "a%2fb"] {
        let error = client.get_secret(name, None).await.unwrap_err();
        let cause = find::<Error>(&error).map(Error::to_string).unwrap_or_default();
        assert!(cause.contains("was not sent"), "{name}: {cause}");
    }
    assert!(azure.seen().is_empty(), "{:?}", azure.seen());
    client.get_secret("a", None).await.unwrap();
    assert_eq!(azure.seen()[0].bearer.as_deref(), Some("token-of-the-vault"));
}

/// The SDK reads numbers only.
#[tokio::test]
async fn the_lifetime_of_a_token_may_be_a_text() {
    for (lifetime, is_read) in
        [("\"3599\"", true), ("3599", true), ("\"\"", false), ("\"soon\"", false), ("\"-1\"", false)]
    {
        let body = format!(r#"{{"expires_in":{lifetime},"ext_expires_in":{lifetime},"access_token":"token"}}"#);
        let azure = Azure::start(move |request, _| (request.kind == Kind::Token).then(|| status(200, &body)).flatten());
        let azure = azure.await;
        let vaults = azure.vaults(QUICK);
        let results =
            [open(&vaults, "myvault", Duration::from_secs(60)), open(&vaults, "other", Duration::from_secs(60))]
                .map(|vault| async move { get(&vault, "db").await });
        let [first, second] = results;
        assert_eq!((first.await.is_ok(), second.await.is_ok()), (is_read, is_read), "{lifetime}");
        assert_eq!(azure.count(Kind::Token), if is_read { 1 } else { 2 }, "{lifetime}");
    }
}

/// The SDK follows `nextLink` to any host, and sends the token there.
#[tokio::test]
async fn a_token_is_sent_to_its_vault_only() {
    let azure = Azure::well().await;
    let transport = vault_transport(&azure);
    let path = format!("/secrets/a/{VERSION}");
    for start in [
        "https://other.vault.azure.net",
        "https://login.microsoftonline.com",
        "https://myvault.vault.azure.net:8443",
        "http://myvault.vault.azure.net",
        "http://myvault.vault.azure.net:443",
        "https://user@myvault.vault.azure.net",
        "https://myvault.vault.azure.net.evil.example",
    ] {
        let request = Request::new(format!("{start}{path}").parse().unwrap(), Method::Get);
        let error = transport.execute_request(&request).await.unwrap_err();
        assert!(error.to_string().contains("was not sent"), "{start}: {error}");
    }
    let delete = Request::new(format!("https://{VAULT}{path}").parse().unwrap(), Method::Delete);
    assert!(transport.execute_request(&delete).await.unwrap_err().to_string().contains("was not sent"));
    assert!(azure.seen().is_empty(), "{:?}", azure.seen());
    let request = Request::new(format!("https://{VAULT}{path}").parse().unwrap(), Method::Get);
    transport.execute_request(&request).await.unwrap();
    assert!(!format!("{transport:?}").contains("token"));
}

#[tokio::test]
async fn a_client_secret_is_sent_to_its_token_endpoint_only() {
    let azure = Azure::well().await;
    let transport = EntraTransport {
        http: Http::new(azure.client(), QUICK.request_timeout).unwrap(),
        authority: LOGIN.into(),
        path: "/t/oauth2/v2.0/token".into(),
        token_endpoint: TokenEndpoint::EntraId,
        client_id: None,
    };
    for url in [format!("https://{VAULT}/t/oauth2/v2.0/token"), format!("https://{LOGIN}/t/../u/oauth2/v2.0/token")] {
        let request = Request::new(url.parse().unwrap(), Method::Post);
        let error = transport.execute_request(&request).await.unwrap_err();
        assert!(error.to_string().contains("was not sent"), "{url}: {error}");
    }
    assert!(azure.seen().is_empty(), "{:?}", azure.seen());
}

#[tokio::test]
async fn a_challenge_for_another_resource_gets_no_token() {
    let foreign = "www-authenticate: Bearer authorization=\"https://login.microsoftonline.com/t\", resource=\"https://graph.microsoft.com\"\r\n";
    let azure = Azure::start(move |request, _| {
        (request.kind == Kind::Challenge).then(|| Answer::Status(401, foreign, "{}".into()))
    })
    .await;
    let error = get(&azure.vault(), "db").await.unwrap_err();
    assert!(error.to_string().contains("asks for a token of graph.microsoft.com, and got none"), "{error}");
    assert_eq!(azure.counts(), [1, 0, 0]);
}

#[tokio::test]
async fn a_vault_that_does_not_challenge_gets_no_token() {
    for answer in [status(200, "{}"), status(401, "{}"), status(302, "{}")] {
        let answer = std::sync::Mutex::new(answer);
        let azure = Azure::start(move |_, _| answer.lock().unwrap().take()).await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert_eq!(error.reason(), Reason::VaultUnavailable, "{error}");
        assert_eq!(azure.counts(), [1, 0, 0]);
    }
}

/// The SDK resends a revoked token until five minutes before it expires.
#[tokio::test]
async fn a_revoked_token_is_replaced_once_for_all_callers() {
    let azure = Azure::start(|request, _| {
        (request.bearer.as_deref() == Some("token-1"))
            .then(|| status(401, r#"{"error":{"code":"Unauthorized"}}"#))
            .flatten()
    })
    .await;
    let vault = azure.vault();
    let results = get_at_once(&vault, 16).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(azure.counts(), [2, 2, 32], "the challenge is requested again, too");
    get(&vault, "db").await.unwrap();
    assert_eq!(azure.counts(), [2, 2, 33]);
}

#[tokio::test]
async fn a_second_refused_token_is_an_error() {
    let azure = Azure::start(|request, _| (request.kind == Kind::Get).then(|| status(401, "{}")).flatten()).await;
    let vault = azure.vault();
    for result in get_at_once(&vault, 16).await {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::Unauthorized);
        assert!(error.to_string().contains("does not accept the token"), "{error}");
    }
    assert_eq!(get(&vault, "db").await.unwrap_err().reason(), Reason::Unauthorized);
    assert_eq!(azure.counts(), [2, 2, 33]);
}

#[tokio::test]
async fn a_huge_answer_is_not_read_to_its_end() {
    for (kind, bytes) in [(Kind::Get, 2 << 20), (Kind::Token, 128 << 10)] {
        let azure = Azure::start(move |request, _| (request.kind == kind).then_some(Answer::Endless(bytes))).await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert_eq!(error.reason(), Reason::TooLarge, "{error}");
        assert_eq!(azure.count(kind), 1);
    }
}

#[tokio::test]
async fn a_huge_refusal_is_classified_by_its_status() {
    let body = format!(r#"{{"error":{{"code":"SecretNotFound","message":"{}"}}}}"#, "x".repeat(70 << 10));
    let azure = Azure::start(move |request, _| (request.kind == Kind::Get).then(|| status(403, &body)).flatten()).await;
    let error = get(&azure.vault(), "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Forbidden, "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_json_is_not_key_vaults() {
    // The body is valid: only the content type distinguishes the page of a captive portal from a
    // vault's response.
    let azure = Azure::start(|request, _| {
        let body = super::server::secret(&request.host, "db", "x");
        (request.kind == Kind::Get).then_some(Answer::Status(200, "content-type: text/html\r\n", body))
    })
    .await;
    let error = get(&azure.vault(), "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::VaultUnavailable);
    assert!(error.to_string().contains("did not answer as Key Vault does: the answer is not JSON"), "{error}");
}

#[tokio::test]
async fn an_answer_of_another_format_is_not_quoted() {
    for body in [
        r#"{"value":["QUOTED"]}"#.to_owned(),
        r#"{"value":"QUOTED"}"#.to_owned(),
        "QUOTED".to_owned(),
        super::server::secret(VAULT, "another", "QUOTED"),
        super::server::secret(VAULT, "db", "QUOTED").replace(VERSION, ""),
        super::server::secret(VAULT, "db", "QUOTED").replace("\"QUOTED\"", "null"),
    ] {
        let sent = body.clone();
        let azure =
            Azure::start(move |request, _| (request.kind == Kind::Get).then(|| status(200, &sent)).flatten()).await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert_eq!(error.reason(), Reason::VaultUnavailable, "{body}: {error}");
        assert!(!format!("{error} {error:?}").contains("QUOTED"), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for kind in [Kind::Challenge, Kind::Token, Kind::Get] {
        let to = "location: https://other.vault.azure.net/secrets/db/\r\n";
        let azure =
            Azure::start(move |request, _| (request.kind == kind).then(|| Answer::Status(307, to, "{}".into()))).await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert!(error.to_string().contains("HTTP 307"), "{error}");
        assert!(azure.seen().iter().all(|request| request.host != super::server::OTHER), "{:?}", azure.seen());
    }
}

/// With the two keys of the Kubernetes Secret swapped, the client id is the secret.
#[tokio::test]
async fn a_swapped_client_secret_is_not_shown() {
    let azure = Azure::start(|request, _| match request.kind {
        Kind::Get => status(403, r#"{"error":{"code":"Forbidden"}}"#),
        Kind::Token | Kind::Challenge => None,
    })
    .await;
    let swapped = || Credential::ClientSecret { client_id: CLIENT_SECRET.into(), client_secret: CLIENT_ID.into() };
    let error =
        get(&open_as(&azure.vaults(QUICK), "myvault", swapped(), Duration::from_secs(60)), "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Forbidden);
    let shown = format!("{error} {error:?} {:?}", swapped());
    assert!(!shown.contains(CLIENT_SECRET) && !shown.contains(CLIENT_ID), "{shown}");
}

#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// At trace level, with the logs of the SDK and the HTTP client.
#[tokio::test]
async fn logs_hold_no_secret_and_no_token() {
    let azure = Azure::well().await;
    let vaults = azure.vaults(QUICK);
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // With a single subscriber, a callsite that a test without one reaches first stays disabled for
    // all (tracing-core).
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    get(&open(&vaults, "other", Duration::from_secs(60)), "db").await.unwrap();
    tracing::callsite::rebuild_interest_cache();
    let secret = get(&open(&vaults, "myvault", Duration::from_secs(60)), "db").await.unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("exchange operation=\"challenge\"") && text.contains("exchange operation=\"secrets\""),
        "{text}"
    );
    assert!(!text.contains(CLIENT_SECRET) && !text.contains("token-1") && !text.contains("token-2"), "{text}");
    assert!(!text.contains(secret.value.expose_secret()), "{text}");
}
