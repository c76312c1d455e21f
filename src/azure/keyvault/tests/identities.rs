//! Which credentials share a token, and how each kind of identity requests one.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest as _, Sha256};

use super::super::tokens::usable_for;
use super::super::{
    CertificateFacts, Cloud, Credential, Identity, KeyFault, LoginCertificate, Options, ServiceAccountToken, TenantId,
    TokenFault, Vault, Vaults,
};
use super::server::{Azure, CLIENT_ID, Kind, QUICK, VERSION, open_as, options, status, with_options};
use super::{Reason, get};

pub(super) fn secret(text: &str) -> Credential {
    Credential::ClientSecret { client_id: CLIENT_ID.into(), client_secret: text.into() }
}

/// The token of a service account of the namespace `ns`, unsigned.
pub(super) fn jwt(account: &str, expiry: i64) -> String {
    jwt_of("ns", account, &format!(r#","exp":{expiry}"#))
}

/// The same of any namespace, with further claims.
pub(super) fn jwt_of(namespace: &str, account: &str, more: &str) -> String {
    let claims = format!(r#"{{"sub":"system:serviceaccount:{namespace}:{account}"{more}}}"#);
    format!("e30.{}.sig", BASE64.encode(claims))
}

pub(super) fn account(namespace: &str, name: &str, token: String) -> ServiceAccountToken {
    ServiceAccountToken::new(namespace, name, AUDIENCE, token.into()).unwrap()
}

pub(super) fn workload(name: &str, token: String) -> Credential {
    Credential::WorkloadIdentity { client_id: CLIENT_ID.into(), account: account("ns", name, token) }
}

fn binding(name: &str, token: String) -> Credential {
    Credential::IdentityBinding { client_id: CLIENT_ID.into(), account: account("ns", name, token) }
}

/// An application with a certificate, of which only the facts are cached.
pub(super) fn known(client_id: &str, certificate: &[u8], key: &[u8]) -> Credential {
    let (thumbprint, key) = (Sha256::digest(certificate).into(), Sha256::digest(key).into());
    let facts = CertificateFacts { thumbprint, key, not_after: None };
    let certificate = LoginCertificate::known(facts, |_| Err(KeyFault::Unfit("there is no key")));
    Credential::ClientCertificate { client_id: client_id.into(), namespace: "ns".into(), certificate }
}

fn vault(vaults: &Vaults, credential: Credential) -> Vault {
    open_as(vaults, "myvault", credential, Duration::from_secs(60))
}

fn identity(credential: &Credential) -> Identity {
    identity_in(credential, "t")
}

pub(super) fn identity_in(credential: &Credential, tenant: &str) -> Identity {
    credential.identity(&TenantId::new(tenant).unwrap(), &Cloud::named("AzurePublicCloud").unwrap())
}

pub(super) const LATE: i64 = 4_000_000_000;

const AUDIENCE: &str = "api://AzureADTokenExchange";

#[test]
fn an_identity_has_all_parts_that_distinguish_credentials() {
    let certificate = |certificate: &[u8], key: &[u8]| known(CLIENT_ID, certificate, key);
    let all = [
        secret("a"),
        secret("b"),
        workload("a", jwt("a", LATE)),
        workload("b", jwt("b", LATE)),
        binding("a", jwt("a", LATE)),
        certificate(b"a", b"k"),
        certificate(b"b", b"k"),
        certificate(b"a", b"l"),
        certificate(b"ak", b""),
        Credential::ManagedIdentity { client_id: None },
        Credential::ManagedIdentity { client_id: Some(CLIENT_ID.into()) },
    ]
    .map(|credential| identity(&credential));
    for (at, one) in all.iter().enumerate() {
        assert!(all[at + 1..].iter().all(|other| other != one), "{at}");
    }
    assert_eq!(identity(&workload("a", jwt("a", LATE))), identity(&workload("a", jwt("a", LATE + 1))));
    let cloud = Cloud::named("AzureChinaCloud").unwrap();
    assert_ne!(identity(&secret("a")), secret("a").identity(&TenantId::new("t").unwrap(), &cloud));
    assert_ne!(
        identity(&secret("a")),
        secret("a").identity(&TenantId::new("u").unwrap(), &Cloud::named("AzurePublicCloud").unwrap())
    );
}

#[test]
fn a_token_is_used_until_shortly_before_it_expires() {
    for (life, used) in [(3600, 3300), (600, 540), (0, 0), (86_400, 86_100)] {
        assert_eq!(usable_for(Duration::from_secs(life)), Duration::from_secs(used));
    }
}

#[tokio::test]
async fn a_hundred_vaults_of_one_identity_cost_one_token() {
    let azure = Azure::well().await;
    let vaults = azure.vaults(QUICK);
    let opened: Vec<Vault> = (0..100).map(|_| vault(&vaults, secret("a"))).collect();
    let results = futures::future::join_all(opened.iter().map(|vault| get(vault, "db"))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(azure.counts(), [1, 1, 100]);
}

#[tokio::test]
async fn two_identities_never_share_a_token() {
    let azure = Azure::well().await;
    let vaults = azure.vaults(QUICK);
    for (number, credential) in
        [secret("a"), secret("b"), workload("a", jwt("a", LATE)), workload("b", jwt("b", LATE))].into_iter().enumerate()
    {
        get(&vault(&vaults, credential), "db").await.unwrap();
        let bearer = azure.seen().last().unwrap().bearer.clone();
        assert_eq!(bearer.as_deref(), Some(format!("token-{}", number + 1).as_str()));
    }
    assert_eq!(azure.counts(), [1, 4, 4]);
}

#[tokio::test]
async fn a_failure_is_not_cached() {
    let azure = Azure::start(|request, number| {
        (request.kind == Kind::Token && number == 1).then(|| status(401, r#"{"error_codes":[7000215]}"#)).flatten()
    })
    .await;
    let vaults = azure.vaults(QUICK);
    assert_eq!(get(&vault(&vaults, secret("a")), "db").await.unwrap_err().reason(), Reason::CredentialsRejected);
    get(&vault(&vaults, secret("a")), "db").await.unwrap();
}

/// A pod with a stale token waits for the request of another, and the other way round.
#[tokio::test]
async fn a_stale_token_of_one_pod_does_not_fail_the_others() {
    let azure = Azure::start(|request, _| {
        let stale = request.kind == Kind::Token && request.body.contains("stale");
        stale.then(|| status(401, r#"{"error_codes":[700024]}"#)).flatten()
    })
    .await;
    let vaults = azure.vaults(QUICK);
    let stale = vault(&vaults, workload("a", format!("{}-stale", jwt("a", LATE))));
    let good = vault(&vaults, workload("a", jwt("a", LATE)));
    let error = get(&stale, "db").await.unwrap_err();
    assert!(error.to_string().contains("AADSTS700024") && error.to_string().contains("node's clock"), "{error}");
    // Whichever leads: the valid one succeeds, and the stale one may, with the valid one's token.
    let (_, good) = tokio::join!(get(&stale, "db"), get(&good, "db"));
    good.unwrap();
}

#[tokio::test]
async fn the_service_account_token_that_expires_last_is_sent() {
    let azure = Azure::well().await;
    let vaults = azure.vaults(QUICK);
    let (fresh, older) = (jwt("a", LATE + 1), jwt("a", LATE));
    let _opened = vault(&vaults, workload("a", fresh.clone()));
    get(&vault(&vaults, workload("a", older)), "db").await.unwrap();
    assert!(azure.seen().iter().any(|request| request.body.contains(&format!("client_assertion={fresh}"))));
    assert_eq!(azure.count(Kind::Token), 1);
}

/// Entra ID decides, since the node's clock may be wrong; here it accepts each token.
#[tokio::test]
async fn a_token_that_looks_expired_shares_nothing_and_is_sent_itself() {
    let azure = Azure::well().await;
    let vaults = with_options(azure.client(), QUICK, Options { freshness: Duration::from_secs(60), ..options() });
    get(&vault(&vaults, workload("a", jwt("a", LATE))), "db").await.unwrap();
    assert_eq!(azure.counts(), [1, 1, 1]);
    let tokens = [
        ("expired", jwt("a", 1)),
        ("expired long ago", jwt("a", i64::MIN)),
        ("without expiration", jwt_of("ns", "a", "")),
        ("of another audience", jwt_of("ns", "a", &format!(r#","exp":{LATE},"aud":["other"]"#))),
    ];
    for (what, token) in tokens {
        for _ in 0..2 {
            let before = azure.counts();
            let opened = vault(&vaults, workload("a", token.clone()));
            let (one, two) = tokio::join!(get(&opened, "db"), get(&opened, "other"));
            one.and(two).unwrap();
            assert_eq!(azure.counts(), [1, before[1] + 1, before[2] + 2], "{what}");
        }
        let sent = azure.seen().iter().filter(|request| request.body.contains(&token)).count();
        assert_eq!(sent, 2, "{what}: it is sent itself, and no other token in its place");
    }
    // No other session gets its objects, or sends such a token in place of its own.
    let before = azure.counts();
    get(&vault(&vaults, workload("a", jwt("a", LATE))), "db").await.unwrap();
    get(&vault(&vaults, workload("a", jwt("a", LATE))), "DB").await.unwrap();
    assert_eq!(azure.counts(), before, "it is cached from the first time");
}

/// The author of a pod may write a token that seems to expire last; it must not fail other pods.
#[tokio::test]
async fn a_session_sends_its_own_token_after_a_refused_one() {
    let forged = jwt("a", LATE + 1);
    let body = format!("client_assertion={forged}&");
    let azure = Azure::start(move |request, _| {
        let refused = request.kind == Kind::Token && request.body.contains(&body);
        refused.then(|| status(401, r#"{"error_codes":[700027]}"#)).flatten()
    })
    .await;
    let vaults = azure.vaults(QUICK);
    let _forged = vault(&vaults, workload("a", forged));
    get(&vault(&vaults, workload("a", jwt("a", LATE))), "db").await.unwrap();
    assert_eq!(azure.count(Kind::Token), 2);
}

#[test]
fn only_a_token_of_the_service_account_becomes_a_credential() {
    let made = |namespace: &str, name: &str, token: String| {
        ServiceAccountToken::new(namespace, name, AUDIENCE, token.into()).map(drop)
    };
    assert_eq!(made("ns", "a", jwt("a", LATE)), Ok(()));
    assert_eq!(made("ns", "a", jwt("a", 1)), Ok(()), "Entra ID decides");
    for (namespace, name, token) in [
        ("ns", "a", jwt("b", LATE)),
        ("ns", "A", jwt("a", LATE)),
        ("n", "a", jwt("a", LATE)),
        ("ns", "", jwt("a", LATE)),
        // Two accounts with the same subject.
        ("ns:a", "b", jwt_of("ns", "a:b", "")),
        ("ns", "a:b", jwt_of("ns:a", "b", "")),
    ] {
        assert_eq!(made(namespace, name, token), Err(TokenFault::OtherSubject), "{namespace}/{name}");
    }
    for token in ["", "garbage", "e30.e30.sig", VERSION] {
        assert!(matches!(made("ns", "a", token.to_owned()), Err(TokenFault::Malformed(_))), "{token}");
    }
    let shown = format!("{:?}", account("ns", "a", jwt("a", LATE)));
    assert_eq!(shown, "ServiceAccountToken(ns/a)");
}
