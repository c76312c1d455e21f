//! Which errors are retried, for how long, and the error at the end.

use std::time::Duration;

use tokio::time::Instant;

use super::super::retry::RetryLimits;
use super::server::{Answer, Azure, Kind, LOGIN, QUICK, VAULT, open, status, with_client};
use super::{Reason, get, get_at_once};

/// A request timeout that is short, but long enough for a handshake on a busy machine.
const SHORT: RetryLimits = RetryLimits { request_timeout: Duration::from_millis(200), ..QUICK };

#[tokio::test]
async fn a_fault_of_the_service_is_retried() {
    for kind in [Kind::Challenge, Kind::Token, Kind::Get] {
        for code in [408, 429, 500, 502, 503, 504] {
            let azure = Azure::start(move |request, number| {
                (request.kind == kind && number <= 2).then(|| status(code, "{}")).flatten()
            })
            .await;
            get(&azure.vault(), "db").await.unwrap();
            assert_eq!(azure.count(kind), 3, "{kind:?} {code}");
        }
    }
}

#[tokio::test]
async fn a_lasting_fault_ends_after_six_tries() {
    for (kind, reason) in [
        (Kind::Challenge, Reason::VaultUnavailable),
        (Kind::Token, Reason::IdentityUnavailable),
        (Kind::Get, Reason::VaultUnavailable),
    ] {
        let azure = Azure::start(move |request, _| (request.kind == kind).then(|| status(503, "{}")).flatten()).await;
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert_eq!(error.reason(), reason);
        let text = error.to_string();
        assert!(text.starts_with("gave up after 6 tries in ") && text.contains("HTTP 503"), "{text}");
        assert_eq!(azure.count(kind), 6);
    }
}

/// Sixteen callers that wait for one token make six tries in all, not each.
#[tokio::test]
async fn a_lasting_fault_of_entra_id_reaches_all_callers() {
    let azure = Azure::start(|request, _| (request.kind == Kind::Token).then(|| status(500, "{}")).flatten()).await;
    let results = get_at_once(&azure.vault(), 16).await;
    assert!(results.iter().all(|result| matches!(result, Err(error) if error.reason() == Reason::IdentityUnavailable)));
    assert_eq!(azure.counts(), [1, 6, 0]);
}

#[tokio::test]
async fn a_cut_connection_is_retried() {
    for kind in [Kind::Challenge, Kind::Token, Kind::Get] {
        let azure =
            Azure::start(move |request, number| (request.kind == kind && number == 1).then_some(Answer::Cut)).await;
        let result = get(&azure.vault(), "db").await;
        // A challenge needs no body, but a broken connection is retried.
        assert!(result.is_ok(), "{kind:?}: {result:?}");
    }
    let azure = Azure::start(|request, _| (request.kind == Kind::Get).then_some(Answer::Cut)).await;
    let error = get(&azure.vault(), "db").await.unwrap_err();
    assert_eq!((error.reason(), azure.count(Kind::Get)), (Reason::NetworkUnreachable, 6));
    assert!(error.to_string().contains("broke before the answer was complete"), "{error}");
}

#[tokio::test]
async fn a_request_without_answer_is_retried_after_its_timeout() {
    for kind in [Kind::Challenge, Kind::Token, Kind::Get] {
        let azure =
            Azure::start(move |request, number| (request.kind == kind && number == 1).then_some(Answer::Hang)).await;
        let started = Instant::now();
        get(&open(&azure.vaults(SHORT), "myvault", Duration::from_secs(30)), "db").await.unwrap();
        assert!(started.elapsed() >= SHORT.request_timeout, "{kind:?}");
        assert!(azure.count(kind) >= 2, "{kind:?}");
    }
}

#[tokio::test]
async fn a_host_that_never_answers_is_named() {
    let azure = Azure::start(|request, _| (request.kind == Kind::Get).then_some(Answer::Hang)).await;
    let limits = RetryLimits { max_tries: 3, ..SHORT };
    let error = get(&open(&azure.vaults(limits), "myvault", Duration::from_secs(30)), "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout);
    let text = error.to_string();
    assert!(text.contains("3 tries") && text.contains(&format!("no answer from {VAULT} within 0.2 s")), "{text}");
}

/// The SDK sleeps as long as the server asks, past every limit.
#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_started() {
    for (kind, host) in [(Kind::Challenge, VAULT), (Kind::Token, LOGIN), (Kind::Get, VAULT)] {
        let azure = Azure::start(move |request, _| {
            (request.kind == kind).then(|| Answer::Status(429, "retry-after: 300\r\n", "{}".into()))
        })
        .await;
        let started = Instant::now();
        let error = get(&azure.vault(), "db").await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(20), "it waited");
        assert_eq!((error.reason(), azure.count(kind)), (Reason::Throttled, 1));
        let text = error.to_string();
        assert!(text.contains(host) && text.contains("HTTP 429") && text.contains("300 s"), "{text}");
    }
}

#[tokio::test]
async fn a_wait_within_the_deadline_is_kept() {
    for headers in
        ["retry-after: 1\r\n", "x-ms-retry-after-ms: 1000\r\nretry-after: 300\r\n", "retry-after-ms: 1000\r\n"]
    {
        let azure = Azure::start(move |request, number| {
            (request.kind == Kind::Get && number == 1).then(|| Answer::Status(503, headers, "{}".into()))
        })
        .await;
        let started = Instant::now();
        get(&azure.vault(), "db").await.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(1), "{headers}");
    }
}

#[tokio::test]
async fn the_deadline_ends_everything_and_the_last_cause_is_named() {
    let azure = Azure::start(|request, number| match request.kind {
        Kind::Get if number == 1 => status(503, "{}"),
        Kind::Get => Some(Answer::Hang),
        Kind::Token | Kind::Challenge => None,
    })
    .await;
    let started = Instant::now();
    let error = get(&open(&azure.vaults(QUICK), "myvault", Duration::from_secs(2)), "db").await.unwrap_err();
    assert!((1900..8000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert_eq!(error.reason(), Reason::VaultUnavailable);
    let text = error.to_string();
    assert!(text.starts_with("timed out after ") && text.contains("2 tries") && text.contains("HTTP 503"), "{text}");
}

#[tokio::test]
async fn a_deadline_in_the_first_try_is_a_timeout() {
    let azure = Azure::start(|_, _| Some(Answer::Hang)).await;
    let vault = open(&azure.vaults(QUICK), "myvault", Duration::from_millis(300));
    let error = get(&vault, "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout);
    assert!(error.to_string().contains(&format!("no answer from {VAULT}")), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_not_retried() {
    let azure = Azure::well().await;
    let unsigned = with_client(
        // The other server's authority has the same name and another key.
        Azure::well().await.client().resolve(VAULT, azure.address()),
        QUICK,
    );
    let error = get(&open(&unsigned, "myvault", Duration::from_secs(30)), "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::TlsUntrusted, "{error}");
    assert!(error.to_string().contains(VAULT), "{error}");
    let unnamed = open(&azure.vaults(QUICK), "unnamed", Duration::from_secs(30));
    let error = get(&unnamed, "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::TlsUntrusted, "{error}");
    assert!(error.to_string().contains("wrong name"), "{error}");
}

#[tokio::test]
async fn a_refused_connection_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let azure = Azure::well().await;
    let vaults = with_client(azure.client().resolve(VAULT, closed), QUICK);
    let error = get(&open(&vaults, "myvault", Duration::from_secs(30)), "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::NetworkUnreachable);
    assert!(error.to_string().contains("connection refused") && error.to_string().contains("6 tries"), "{error}");
}

/// DNS says "unknown" or does not answer, depending on the machine; both errors name DNS.
#[tokio::test]
async fn the_error_of_a_name_without_an_address_names_dns() {
    let azure = Azure::well().await;
    let limits = RetryLimits { max_tries: 1, ..QUICK };
    let error = get(&open(&azure.vaults(limits), "no-such-vault-0", Duration::from_secs(30)), "db").await.unwrap_err();
    assert!(matches!(error.reason(), Reason::VaultNotFound | Reason::NetworkUnreachable), "{error:?}");
    assert!(error.to_string().contains("DNS; check keyvaultName"), "{error}");
}
