use std::collections::BTreeMap;

use crate::model::{ExposeSecret as _, SecretString};
use crate::provider::{TokenError, WORKLOAD_AUDIENCE, service_account};

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

fn context(tokens: Option<&str>) -> BTreeMap<String, String> {
    let mut context = BTreeMap::from([
        ("csi.storage.k8s.io/pod.namespace".to_owned(), "shop".to_owned()),
        ("csi.storage.k8s.io/serviceAccount.name".to_owned(), "web".to_owned()),
    ]);
    if let Some(tokens) = tokens {
        context.insert(TOKENS.to_owned(), tokens.to_owned());
    }
    context
}

fn token(context: &BTreeMap<String, String>, secret: Option<&str>) -> Result<String, TokenError> {
    let secrets = secret.map(|text| (TOKENS.to_owned(), SecretString::from(text))).into_iter().collect();
    service_account(context, &secrets, WORKLOAD_AUDIENCE).map(|account| account.token.expose_secret().to_owned())
}

fn tokens(audience: &str, token: &str) -> String {
    format!(r#"{{"{audience}": {{"token": "{token}", "expirationTimestamp": "2026-11-22T03:00:00Z"}}}}"#)
}

/// The rows of spec/azure-provider.md §11.4 on tokens, and where they come from (spec/driver.md §2.9).
#[test]
fn the_token_of_the_audience_is_found() {
    let ours = tokens(WORKLOAD_AUDIENCE, "a");
    assert_eq!(token(&context(Some(&ours)), None).unwrap(), "a");
    assert_eq!(token(&context(None), Some(&ours)).unwrap(), "a");
    let theirs = tokens(WORKLOAD_AUDIENCE, "forged");
    assert_eq!(token(&context(Some(&theirs)), Some(&ours)).unwrap(), "a", "the secrets count first");
    let bare = format!(r#"{{"{WORKLOAD_AUDIENCE}": {{"token": "a"}}}}"#);
    assert_eq!(token(&context(Some(&bare)), None).unwrap(), "a", "the time may be missing");
}

#[test]
fn what_is_missing_is_told() {
    for (text, expected) in [
        (None, TokenError::NoTokens(WORKLOAD_AUDIENCE)),
        (Some(""), TokenError::NoTokens(WORKLOAD_AUDIENCE)),
        (Some("not json"), TokenError::Unreadable),
        (Some(r#"{"a": {"token": 5}}"#), TokenError::Unreadable),
        (Some("{}"), TokenError::NoAudience(WORKLOAD_AUDIENCE)),
        (Some(&*tokens("other", "a")), TokenError::NoAudience(WORKLOAD_AUDIENCE)),
        (Some(&*tokens(WORKLOAD_AUDIENCE, "")), TokenError::NoAudience(WORKLOAD_AUDIENCE)),
    ] {
        assert_eq!(token(&context(text), None).unwrap_err(), expected, "{text:?}");
    }
    let nameless = BTreeMap::from([(TOKENS.to_owned(), tokens(WORKLOAD_AUDIENCE, "a"))]);
    assert_eq!(token(&nameless, None).unwrap_err(), TokenError::NoPodInfo);
}
