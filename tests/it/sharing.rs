//! The number of requests for many pods, and pauses for a throttling vault. The counts are exact
//! (docs/decisions.md#d6).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Kind, Permission};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::json;

use crate::harness::{Node, Vault, harness};

trials! { "sharing":
    a_new_identity_costs_one_token_and_its_objects,
    a_hundred_pods_of_one_service_account_cost_as_much_as_one,
    a_hundred_service_accounts_cost_one_token_and_its_objects_each,
    pods_of_other_identities_never_get_cached_objects,
    requests_to_a_throttling_vault_are_paused_and_all_pods_start,
    fetches_are_counted_with_bounded_labels,
}

const AUDIENCE: &str = "api://AzureADTokenExchange";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Starts a driver with the default freshness window.
fn sharing() -> Result<Node> {
    let mut setup = harness().setup();
    setup.flags = vec!["-v=10".to_owned()];
    Node::start(setup)
}

/// Creates ten secrets and a class `demo` of them.
fn ten_secrets(node: &Node, vault: &Vault) -> Result<()> {
    let names: Vec<String> = (0..10).map(|number| format!("object-{number}")).collect();
    for name in &names {
        vault.set(name);
    }
    node.class("demo", &vault.parameters(&names.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// Lets the service accounts `sa-0`, `sa-1`, … read the vault through the class `demo`, and returns
/// volumes of many pods.
pub(crate) fn pods(node: &Node, vault: &Vault, objects: usize, accounts: usize, count: usize) -> Result<Vec<Volume>> {
    let names: Vec<String> = (0..objects).map(|number| format!("object-{number}")).collect();
    for name in &names {
        vault.set(name);
    }
    let issuer_url = format!("https://issuer.{}/", vault.tenant);
    let issuer = harness().azure().add_issuer(&issuer_url);
    // An application has at most twenty federated credentials.
    let client = |account: usize| format!("{}{:02}", &vault.client_id[..vault.client_id.len() - 2], 80 + account / 20);
    for account in 0..accounts {
        let subject = format!("system:serviceaccount:default:sa-{account}");
        harness().azure().add_federated_credential(&vault.tenant, &client(account), &issuer_url, &subject, AUDIENCE);
        harness().azure().grant(&vault.name, &client(account), &[Permission::Get]);
    }
    node.class("demo", &vault.parameters(&names.iter().map(String::as_str).collect::<Vec<_>>()))?;
    let volume = |number: usize| {
        let account = format!("sa-{}", number % accounts);
        let subject = format!("system:serviceaccount:default:{account}");
        let token = issuer.token(&subject, AUDIENCE, Duration::from_secs(3600), json!({}));
        harness().secrets.lock().unwrap().push(token.clone());
        let tokens = json!({AUDIENCE: {"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"}});
        let mut volume = Volume::of_class("default", &format!("web-{number}"), "demo");
        volume.service_account = account;
        volume.attributes.insert("clientID".to_owned(), client(number % accounts));
        volume.secrets.insert(TOKENS.to_owned(), tokens.to_string());
        volume
    };
    Ok((0..count).map(volume).collect())
}

/// Publishes all volumes at once; each must succeed.
pub(crate) fn publish_all(node: &Node, volumes: &[Volume]) -> Result<()> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = volumes.iter().map(|volume| scope.spawn(|| node.publish(volume))).collect();
        for (volume, call) in volumes.iter().zip(calls) {
            let target = call
                .join()
                .ok()
                .context("the call panicked")?
                .map_err(|status| anyhow::anyhow!("{}: {}", volume.pod, status.message()))?;
            ensure!(target.join("object-0").exists(), "{} is empty", volume.pod);
        }
        Ok(())
    })
}

fn a_new_identity_costs_one_token_and_its_objects() -> Result<()> {
    let (node, vault) = (sharing()?, harness().vault());
    ten_secrets(&node, &vault)?;
    node.publish(&vault.volume("demo"))?;
    assert_eq!(vault.counters().get(Kind::Challenge), 1, "the vault is new to this process");
    // Another service principal; the vault's challenge is cached by now.
    let mut other = vault.clone();
    other.client_id = format!("{}e", &vault.client_id[..vault.client_id.len() - 1]);
    other.client_secret = harness().secret("client");
    harness().azure().add_client(&vault.tenant, &other.client_id, &other.client_secret);
    harness().azure().grant(&vault.name, &other.client_id, &[Permission::Get]);
    for place in [&vault.name, &vault.tenant] {
        harness().azure().reset_counters(place);
    }
    harness()
        .azure()
        .add_fault(Fault::new(Action::latency(Duration::from_millis(50))).host(&vault.name).kind(Kind::Get));
    node.publish(&other.volume("demo"))?;
    assert_eq!((vault.entra().total(), vault.entra().get(Kind::Token)), (1, 1));
    assert_eq!((vault.counters().total(), vault.counters().get(Kind::Get)), (10, 10));
    let most = harness().azure().max_in_flight(&vault.name);
    ensure!((2..=16).contains(&most), "{most} at once");
    Ok(())
}

fn a_hundred_pods_of_one_service_account_cost_as_much_as_one() -> Result<()> {
    let (node, vault) = (sharing()?, harness().vault());
    let volumes = pods(&node, &vault, 10, 1, 100)?;
    publish_all(&node, &volumes)?;
    assert_eq!(vault.entra().total(), 1);
    assert_eq!((vault.counters().get(Kind::Challenge), vault.counters().get(Kind::Get)), (1, 10));
    assert_eq!(vault.counters().total(), 11);
    Ok(())
}

fn a_hundred_service_accounts_cost_one_token_and_its_objects_each() -> Result<()> {
    let (node, vault) = (sharing()?, harness().vault());
    let volumes = pods(&node, &vault, 10, 101, 101)?;
    let (first, others) = volumes.split_first().context("a pod")?;
    node.publish(first)?;
    for place in [&vault.name, &vault.tenant] {
        harness().azure().reset_counters(place);
    }
    publish_all(&node, others)?;
    assert_eq!((vault.entra().total(), vault.entra().get(Kind::Token)), (100, 100));
    assert_eq!((vault.counters().total(), vault.counters().get(Kind::Get)), (1_000, 1_000), "a challenge, or too much");
    Ok(())
}

/// The cache has the objects for the first identity; the second one is forbidden, and the third one
/// has a wrong secret.
fn pods_of_other_identities_never_get_cached_objects() -> Result<()> {
    let (node, vault) = (sharing()?, harness().vault());
    ten_secrets(&node, &vault)?;
    node.publish(&vault.volume("demo"))?;
    let mut forbidden = vault.clone();
    forbidden.client_id = format!("{}e", &vault.client_id[..vault.client_id.len() - 1]);
    forbidden.client_secret = harness().secret("client");
    harness().azure().add_client(&vault.tenant, &forbidden.client_id, &forbidden.client_secret);
    let status = node.refused(&forbidden.volume("demo"))?;
    ensure!(status.message().contains("Forbidden"), "{status}");
    let mut wrong = vault.clone();
    wrong.client_secret = harness().secret("wrong");
    let status = node.refused(&wrong.volume("demo"))?;
    ensure!(status.message().contains("AADSTS7000215"), "{status}");
    // The first identity still gets them without a request.
    harness().azure().reset_counters(&vault.name);
    node.publish(&vault.volume("demo"))?;
    assert_eq!(vault.counters().total(), 0);
    Ok(())
}

fn requests_to_a_throttling_vault_are_paused_and_all_pods_start() -> Result<()> {
    let (node, vault) = (sharing()?, harness().vault());
    let volumes = pods(&node, &vault, 5, 51, 51)?;
    let (first, others) = volumes.split_first().context("a pod")?;
    node.publish(first)?;
    let known = harness().azure().journal().last().map_or(0, |entry| entry.sequence);
    harness().azure().add_fault(Fault::new(Action::status_retry_after(429, 2)).host(&vault.name));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let relief = scope.spawn(|| {
            wait_for("ten seconds of throttling", Duration::from_secs(20), || Ok(began.elapsed().as_secs() >= 10))?;
            harness().azure().clear_faults(&vault.name);
            anyhow::Ok(())
        });
        publish_all(&node, others)?;
        relief.join().map_err(|_| anyhow::anyhow!("the relief panicked"))?
    })?;
    let journal = harness().azure().journal();
    ensure!(journal.first().is_some_and(|entry| entry.sequence <= known + 1), "the journal has lost the beginning");
    let seen: Vec<_> = journal.iter().filter(|entry| entry.service == vault.name && entry.sequence > known).collect();
    let throttled = |entry: &&&azure_emulator::JournalEntry| entry.status == Some(429);
    let first = seen.iter().find(throttled).context("a 429")?.arrived_ms;
    let last = seen.iter().rfind(throttled).context("a 429")?.arrived_ms;
    ensure!(last - first > 8_000, "throttled for {} ms only", last - first);
    // Requests that were in progress at the first 429 are finished after half a second.
    let during: Vec<i64> =
        seen.iter().map(|entry| entry.arrived_ms).filter(|at| (first + 500..last + 2_000).contains(at)).collect();
    // One probe a second. A busy machine can delay one probe and not the next, so that the gap
    // between two arrivals may be shorter; their number may not be larger.
    let close = during.windows(2).find(|pair| pair[1] - pair[0] < 500);
    ensure!(close.is_none(), "two within half a second: {close:?} of {during:?}");
    let most = usize::try_from((last + 2_000 - first) / 1_000 + 2)?;
    ensure!(during.len() <= most, "{} requests, at most {most} are allowed: {during:?}", during.len());
    ensure!(during.len() >= 8, "too few probes of the vault: {during:?}");
    let after: Vec<i64> = seen.iter().map(|entry| entry.arrived_ms).filter(|at| *at >= last + 2_000).collect();
    for &from in &after {
        let within = after.iter().filter(|at| (from..from + 1_000).contains(*at)).count();
        // A hundred a second, and the burst after a moment without requests.
        ensure!(within <= 170, "{within} requests in one second after the throttling");
    }
    Ok(())
}

fn fetches_are_counted_with_bounded_labels() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    node.publish(&vault.volume("demo"))?;
    node.class("demo", &vault.parameters(&["missing"]))?;
    node.refused(&vault.volume("demo"))?;
    let text = node.metrics()?;
    harness().remember(&text);
    let labels = "provider=\"azure\",os_type=\"linux\",service_name=\"csi-secrets-store-provider-azure\",object_type=\"secret\",object_name=\"\"";
    for error in ["", "ObjectNotFound"] {
        let series = format!("{labels},error=\"{error}\"}} 1");
        let count = text.lines().find(|line| line.starts_with("keyvault_request_count{") && line.ends_with(&series));
        ensure!(count.is_some(), "no count with {series} in:\n{text}");
    }
    ensure!(text.contains("keyvault_request_bucket{") && text.contains("le=\"0.1\""), "{text}");
    Ok(())
}
