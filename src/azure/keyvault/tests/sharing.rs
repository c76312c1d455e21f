//! Which identities share cached objects, and which do not (docs/decisions.md#d6).

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::{Credential, Error, Identity, Options, Vault, VaultSecret, Vaults};
use super::identities::{LATE, account, identity_in, jwt, jwt_of, known, secret, workload};
use super::server::{
    Azure, CLIENT_ID, CLIENT_SECRET, Kind, QUICK, Request, open, open_as, options, secret as body, status, with_options,
};
use super::{Reason, get};
use crate::model::ExposeSecret as _;

fn sharing(azure: &Azure, window: Duration) -> Vaults {
    with_options(azure.client(), QUICK, Options { freshness: window, ..options() })
}

const WINDOW: Duration = Duration::from_secs(60);

fn vault_of(vaults: &Vaults, credential: Credential) -> Vault {
    open_as(vaults, "myvault", credential, Duration::from_secs(60))
}

async fn all(vaults: impl Iterator<Item = Vault>) -> Vec<Result<Arc<VaultSecret>, Error>> {
    futures::future::join_all(vaults.map(|vault| async move { get(&vault, "db").await })).await
}

#[tokio::test]
async fn a_hundred_fetches_of_one_identity_cost_one_request() {
    let azure = Azure::well().await;
    let vaults = sharing(&azure, WINDOW);
    let results = all((0..100).map(|_| open(&vaults, "myvault", WINDOW))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(azure.counts(), [1, 1, 1]);
    // Later, too, within the window; and names are not case-sensitive.
    get(&open(&vaults, "myvault", WINDOW), "DB").await.unwrap();
    assert_eq!(azure.counts(), [1, 1, 1]);
    // Another object, version, type or vault is another request.
    let vault = open(&vaults, "myvault", WINDOW);
    get(&vault, "other").await.unwrap();
    let name = super::ObjectName::new("db").unwrap();
    vault.secret(&name, Some(&super::ObjectVersionId::new(super::VERSION).unwrap())).await.unwrap();
    let _ = vault.key(&name, None).await;
    get(&open(&vaults, "other", WINDOW), "db").await.unwrap();
    assert_eq!(azure.count(Kind::Get), 5);
}

#[tokio::test]
async fn an_object_older_than_the_window_is_dropped_and_fetched_again() {
    let azure = Azure::well().await;
    let window = Duration::from_millis(200);
    let vaults = sharing(&azure, window);
    get(&open(&vaults, "myvault", WINDOW), "db").await.unwrap();
    assert_eq!(vaults.objects().secrets.len(), 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    while vaults.objects().secrets.len() > 0 {
        assert!(Instant::now() < deadline, "the value is still in memory");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    get(&open(&vaults, "myvault", WINDOW), "db").await.unwrap();
    assert_eq!(azure.count(Kind::Get), 2);
}

#[tokio::test]
async fn a_window_of_zero_shares_nothing() {
    let azure = Azure::well().await;
    let vaults = sharing(&azure, Duration::ZERO);
    let results = all((0..5).map(|_| open(&vaults, "myvault", WINDOW))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(azure.counts(), [1, 1, 5]);
}

/// The identity is in the token, as with Azure: a forbidden identity stays forbidden while another
/// one's value is cached.
#[tokio::test]
async fn an_identity_gets_neither_the_403_nor_the_value_of_another() {
    let azure = Azure::start(|request, _| match request.kind {
        Kind::Token => status(200, &token_of(request)),
        Kind::Get if request.bearer.as_deref().is_some_and(|bearer| bearer.contains("bad")) => status(403, "{}"),
        Kind::Challenge | Kind::Get => None,
    })
    .await;
    let vaults = sharing(&azure, WINDOW);
    let credentials = ["good", "bad", "good", "bad", "bad", "good"];
    let results = all(credentials.iter().map(|text| vault_of(&vaults, secret(text)))).await;
    for (credential, result) in credentials.iter().zip(results) {
        match *credential {
            "good" => assert!(result.is_ok()),
            _ => assert_eq!(result.unwrap_err().reason(), Reason::Forbidden),
        }
    }
    // A refusal is not cached: a new grant takes effect at once.
    assert_eq!(get(&vault_of(&vaults, secret("bad")), "db").await.unwrap_err().reason(), Reason::Forbidden);
    assert_eq!(azure.count(Kind::Get), 3);
}

/// A pod with a stale token fails; those of the same service account with valid tokens do not.
#[tokio::test]
async fn a_stale_token_of_one_pod_does_not_fail_the_others() {
    let azure = Azure::start(|request, _| match request.kind {
        Kind::Token if request.body.contains("stale") => status(
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS700024: expired","error_codes":[700024]}"#,
        ),
        Kind::Token | Kind::Challenge | Kind::Get => None,
    })
    .await;
    let vaults = sharing(&azure, WINDOW);
    let stale = || workload("web", format!("{}-stale", jwt("web", LATE)));
    let good = || workload("web", jwt("web", LATE));
    // The stale one leads.
    let opened = [stale(), good(), good(), stale(), good()].map(|credential| vault_of(&vaults, credential));
    let results = all(opened.into_iter()).await;
    for at in [1, 2, 4] {
        assert!(results[at].is_ok(), "{at}: {:?}", results[at]);
    }
}

/// A response of Entra ID with a token that names the identity.
fn token_of(request: &Request) -> String {
    let value = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(request.body.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let who = [value("client_id"), value("client_secret"), value("client_assertion")].join("_").replace('.', "-");
    format!(r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"{who}"}}"#)
}

/// Of few kinds and values, so that some are equal.
fn credentials() -> impl Strategy<Value = (u8, u8, u8)> {
    (0u8..3, 0u8..2, 0u8..2)
}

fn credential((kind, client, proof): (u8, u8, u8)) -> Credential {
    let client_id = format!("{CLIENT_ID}{client}");
    match kind {
        0 => Credential::ClientSecret { client_id, client_secret: format!("{CLIENT_SECRET}-{proof}").into() },
        1 => {
            let name = format!("sa{proof}");
            Credential::WorkloadIdentity { client_id, account: account("ns", &name, jwt(&name, LATE)) }
        }
        _ => Credential::ClientSecret { client_id, client_secret: jwt(&format!("sa{proof}"), LATE).into() },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// In any combination and order, each identity gets the vault's answer for its own token.
    #[test]
    fn two_identities_never_share(asked in prop::collection::vec((credentials(), 0u8..3), 1..24)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let azure = Azure::start(|request, _| match request.kind {
                Kind::Token => status(200, &token_of(request)),
                Kind::Get => {
                    let name = request.target.split('/').nth(2).unwrap_or_default();
                    status(200, &body(&request.host, name, &format!("{name} for {}", request.bearer.as_deref().unwrap_or_default())))
                }
                Kind::Challenge => None,
            })
            .await;
            let vaults = sharing(&azure, WINDOW);
            let calls = asked.iter().map(|&(who, what)| {
                let vault = vault_of(&vaults, credential(who));
                async move { get(&vault, &format!("name-{what}")).await }
            });
            let results = futures::future::join_all(calls).await;
            for (&(who, what), result) in asked.iter().zip(results) {
                let value = result.unwrap();
                let (_, client, proof) = who;
                let value = value.value.expose_secret();
                prop_assert!(value.starts_with(&format!("name-{what} for {CLIENT_ID}{client}_")), "{value}");
                let proven = match who.0 {
                    0 => format!("{CLIENT_SECRET}-{proof}"),
                    _ => jwt(&format!("sa{proof}"), LATE).replace('.', "-"),
                };
                prop_assert!(value.contains(&proven), "{value} does not hold {proven}");
            }
            let mut different: Vec<_> = asked.clone();
            different.sort();
            different.dedup();
            prop_assert_eq!(azure.count(Kind::Get), different.len());
            Ok(())
        })?;
    }

    /// Two credentials are one identity exactly if they differ in nothing but the token of one
    /// service account.
    #[test]
    fn an_identity_is_all_of_its_parts(one in parts(), other in parts()) {
        let identity = |(kind, tenant, client, a, b): &(u8, String, String, String, String)| -> Identity {
            let client_id = client.clone();
            let credential = match kind {
                0 => Credential::ClientSecret { client_id, client_secret: format!("{a}{b}").into() },
                1 => Credential::WorkloadIdentity { client_id, account: account(a, b, jwt_of(a, b, "")) },
                2 => known(&client_id, a.as_bytes(), b.as_bytes()),
                _ => Credential::ManagedIdentity { client_id: Some(client_id) },
            };
            identity_in(&credential, tenant)
        };
        let parts = |(kind, tenant, client, a, b): &(u8, String, String, String, String)| match kind {
            0 => (*kind, tenant.clone(), client.clone(), format!("{a}{b}"), String::new()),
            1 | 2 => (*kind, tenant.clone(), client.clone(), a.clone(), b.clone()),
            _ => (*kind, tenant.clone(), client.clone(), String::new(), String::new()),
        };
        prop_assert_eq!(identity(&one) == identity(&other), parts(&one) == parts(&other));
    }
}

fn parts() -> impl Strategy<Value = (u8, String, String, String, String)> {
    (0u8..4, "[ab]{1,2}", "[ab]{1,2}", "[ab]{0,2}", "[ab]{0,2}")
}
