//! Which token counts, and which does not, without Entra ID.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use proptest::prelude::*;

use crate::azure::keyvault::TokenFault;
use crate::azure::provider::{
    BINDING_AUDIENCE, CallerFault, OtherPod, TokenError, WORKLOAD_AUDIENCE, fault_of, service_account,
};
use crate::formats::jwt::Malformed;
use crate::model::{self, Caller, ExposeSecret as _, PodRef, TOKENS};

fn caller(attributes: Option<&str>, secrets: Option<&str>) -> Caller {
    let attributes: Vec<_> = attributes.map(|text| (TOKENS, text)).into_iter().collect();
    let secrets: Vec<_> = secrets.map(|text| (TOKENS, text)).into_iter().collect();
    model::tests::caller(&attributes, &secrets)
}

fn token(attributes: Option<&str>, secret: Option<&str>) -> Result<String, TokenError> {
    let account = service_account(&caller(attributes, secret), WORKLOAD_AUDIENCE)?;
    Ok(account.token().expose_secret().to_owned())
}

/// An unsigned token of a service account.
pub(super) fn jwt(namespace: &str, name: &str) -> String {
    let claims = format!(r#"{{"sub":"system:serviceaccount:{namespace}:{name}","exp":4000000000}}"#);
    format!("{}.{}.c2ln", BASE64.encode(r#"{"alg":"RS256"}"#), BASE64.encode(claims))
}

fn tokens(audience: &str, token: &str) -> String {
    format!(r#"{{"{audience}": {{"token": "{token}", "expirationTimestamp": "2026-11-22T03:00:00Z"}}}}"#)
}

/// The rows of docs/reference/azure-provider.md#rendering-tests on tokens, and where they come from
/// (docs/reference/csi-driver.md#service-account-tokens).
#[test]
fn the_token_of_the_audience_is_found() {
    let own = jwt("shop", "web");
    let ours = tokens(WORKLOAD_AUDIENCE, &own);
    assert_eq!(token(Some(&ours), None).unwrap(), own);
    assert_eq!(token(None, Some(&ours)).unwrap(), own);
    let theirs = tokens(WORKLOAD_AUDIENCE, "forged");
    assert_eq!(token(Some(&theirs), Some(&ours)).unwrap(), own, "the secrets count first");
    let forged = TokenError::NotOwn { audience: WORKLOAD_AUDIENCE, fault: TokenFault::Malformed(Malformed::Parts) };
    assert_eq!(token(Some(&ours), Some(&theirs)).unwrap_err(), forged, "and alone");
    let bare = format!(r#"{{"{WORKLOAD_AUDIENCE}": {{"token": "{own}"}}}}"#);
    assert_eq!(token(Some(&bare), None).unwrap(), own, "the time may be missing");
}

#[test]
fn a_token_that_is_not_the_pods_is_refused_with_the_cure() {
    for (text, words) in [
        ("garbage".to_owned(), "is not a well-formed JWT"),
        (jwt("shop", "other"), "another service account"),
        (jwt("other", "web"), "another service account"),
    ] {
        let error = token(Some(&tokens(WORKLOAD_AUDIENCE, &text)), None).unwrap_err().to_string();
        for word in [words, WORKLOAD_AUDIENCE, "volumeAttributes", "podInfoOnMount", "tokenRequests"] {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
        assert!(!error.contains(&text), "{error}");
    }
    let long = format!(r#"{{"x":{{"token":"{}"}}}}"#, "a".repeat(1 << 20));
    assert_eq!(token(Some(&long), None).unwrap_err(), TokenError::Unreadable);
}

#[test]
fn a_callers_fault_is_found_for_every_identity() {
    const TARGET: &str = "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/v/mount";
    let of = |uid: Option<&str>, audience: &str, token: &str, target: &str| {
        let mut caller = caller(Some(&tokens(audience, token)), None);
        caller.pod.uid = uid.unwrap_or_default().to_owned();
        fault_of(&caller, target)
    };
    let own = jwt("shop", "web");
    assert_eq!(of(Some("u-1"), WORKLOAD_AUDIENCE, &own, TARGET), None);
    assert_eq!(of(Some("u-1"), "other", "garbage", TARGET), None, "no token of ours");
    for audience in [WORKLOAD_AUDIENCE, BINDING_AUDIENCE] {
        let fault = of(Some("u-1"), audience, "garbage", TARGET);
        assert!(matches!(fault, Some(CallerFault::Token(TokenError::NotOwn { .. }))), "{fault:?}");
    }
    for uid in [None, Some(""), Some("u-2"), Some("u-1 "), Some("U-1")] {
        assert_eq!(of(uid, WORKLOAD_AUDIENCE, &own, TARGET), Some(CallerFault::OtherPod(OtherPod)), "{uid:?}");
        assert_eq!(of(uid, WORKLOAD_AUDIENCE, &own, "/csi/targets/1/mount"), None, "a target that names no pod");
    }
    assert_eq!(fault_of(&caller(None, None), "/a/b"), None);
}

#[test]
fn the_pod_of_a_path_is_that_of_its_last_part() {
    for (path, uid) in [
        ("/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v/mount", Some("1")),
        ("/pods/1/volumes/x", Some("1")),
        ("/pods/1/volumes/", Some("1")),
        // A kubelet in a pod, whose root lies in a volume of that pod.
        ("/k/pods/1/volumes/kubernetes.io~empty-dir/root/pods/2/volumes/kubernetes.io~csi/v/mount", Some("2")),
        ("/k/pods/pods/volumes/x", Some("pods")),
        ("/pods/1/volumes", None),
        ("/pods/1/volume-subpaths/x", None),
        ("/pods/1/2/volumes/x", None),
        ("/x-pods/1/volumes/x", None),
        ("", None),
    ] {
        assert_eq!(PodRef::uid_in(path), uid, "{path}");
    }
}

proptest! {
    /// Whatever stands where the tokens should: what is taken names the pod's own service account.
    #[test]
    fn nothing_but_the_pods_own_token_is_taken(
        namespace in "[a-z:.]{1,6}", name in "[a-z:.]{1,6}", subject in "[a-z:.]{1,14}", text in "[ -~]{0,40}", form in 0u8..4,
    ) {
        let sent = match form {
            0 => jwt(&namespace, &name),
            1 => jwt(&subject, &name),
            2 => format!("{}.{}.c2ln", BASE64.encode("{}"), BASE64.encode(format!(r#"{{"sub":"{subject}"}}"#))),
            _ => text,
        };
        let tokens = serde_json::json!({ WORKLOAD_AUDIENCE: {"token": sent} }).to_string();
        let mut caller = caller(Some(&tokens), None);
        // No account and no namespace has any other name.
        let (Ok(own_namespace), Ok(own_name)) = (namespace.parse(), name.parse()) else { return Ok(()) };
        (caller.pod.namespace, caller.service_account) = (own_namespace, Some(own_name));
        let own = sent == jwt(&namespace, &name);
        prop_assert_eq!(service_account(&caller, WORKLOAD_AUDIENCE).is_ok(), own);
    }
}

#[test]
fn missing_tokens_are_reported() {
    for (text, expected) in [
        (None, TokenError::NoTokens(WORKLOAD_AUDIENCE)),
        (Some(""), TokenError::NoTokens(WORKLOAD_AUDIENCE)),
        (Some("not json"), TokenError::Unreadable),
        (Some(r#"{"a": {"token": 5}}"#), TokenError::Unreadable),
        (Some("{}"), TokenError::NoAudience(WORKLOAD_AUDIENCE)),
        (Some(&*tokens("other", "a")), TokenError::NoAudience(WORKLOAD_AUDIENCE)),
        (Some(&*tokens(WORKLOAD_AUDIENCE, "")), TokenError::NoAudience(WORKLOAD_AUDIENCE)),
    ] {
        assert_eq!(token(text, None).unwrap_err(), expected, "{text:?}");
    }
    let mut nameless = caller(Some(&tokens(WORKLOAD_AUDIENCE, "a")), None);
    nameless.service_account = None;
    assert_eq!(service_account(&nameless, WORKLOAD_AUDIENCE).unwrap_err(), TokenError::NoPodInfo);
}
