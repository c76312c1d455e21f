//! Keys and version histories; pods that log in with their service account or the node's identity.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use azure_emulator::{Issuer, Jwk, Kind, Permission};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::json;

use crate::harness::{Node, Vault, harness};

trials! { "objects":
    a_public_key_becomes_pem,
    a_history_has_exactly_as_many_versions_as_asked_for,
    a_history_without_an_enabled_version_is_an_error,
    a_pod_logs_in_with_its_service_account,
    tokens_that_are_not_the_pods_own_are_refused,
    missing_tokens_are_reported_with_the_fix,
    a_pod_logs_in_with_the_nodes_identity,
    an_unknown_managed_identity_is_an_error,
}

const AUDIENCE: &str = "api://AzureADTokenExchange";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

fn objects(node: &Node, vault: &Vault, object: &str) -> Result<()> {
    node.class("demo", &vault.parameters_of(&format!("array:\n  - |\n    {}\n", object.replace('\n', "\n    "))))
}

fn a_public_key_becomes_pem() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    // The example of RFC 7517, appendix A.1.
    let (x, y) = ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
    harness().azure().set_key(&vault.name, "signing", Jwk::ec("P-256", x, y).with_kty("EC-HSM"));
    objects(&node, &vault, "objectName: signing\nobjectType: key")?;
    let file = node.publish(&vault.volume("demo"))?.join("signing");
    let output =
        std::process::Command::new("openssl").args(["pkey", "-pubin", "-noout", "-text", "-in"]).arg(&file).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.contains("30:a0:42:4c:d2:1c:29:44"), "{text}");
    harness().azure().set_key(&vault.name, "symmetric", Jwk::oct());
    objects(&node, &vault, "objectName: symmetric\nobjectType: key")?;
    ensure!(node.refused(&vault.volume("demo"))?.message().contains("key/symmetric"));
    Ok(())
}

fn a_history_has_exactly_as_many_versions_as_asked_for() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let values: Vec<String> = (0..5).map(|_| vault.set("rotating")).collect();
    harness().azure().set_page_size(&vault.name, 2);
    objects(&node, &vault, "objectName: rotating\nobjectType: secret\nobjectAlias: deep/one\nobjectVersionHistory: 3")?;
    let target = node.publish(&vault.volume("demo"))?;
    let mut found = Vec::new();
    for index in 0..3 {
        found.push(fs::read_to_string(target.join(format!("deep/one/{index}")))?);
    }
    ensure!(!target.join("deep/one/3").exists(), "one version too many");
    // The order of versions of the same second is undefined, but each value appears once.
    found.sort();
    found.dedup();
    ensure!(found.len() == 3 && found.iter().all(|value| values.contains(value)), "{found:?}");
    ensure!(vault.counters().get(Kind::ListVersions) == 3, "three pages of two");
    Ok(())
}

fn a_history_without_an_enabled_version_is_an_error() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let version = harness().azure().set_secret(&vault.name, "off", &harness().secret("off"));
    harness().azure().disable_secret(&vault.name, "off", &version);
    objects(&node, &vault, "objectName: off\nobjectType: secret\nobjectVersionHistory: 2")?;
    let status = node.refused(&vault.volume("demo"))?;
    ensure!(status.message().contains("secret/off") && status.message().contains("ObjectDisabled"), "{status}");
    Ok(())
}

/// Starts a driver with a class for workload identity, and returns the issuer of its pods' tokens.
fn federated() -> Result<(Node, Vault, Pods)> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    let issuer_url = format!("https://issuer.{}/", vault.tenant);
    let issuer = harness().azure().add_issuer(&issuer_url);
    let client = format!("{}f", &vault.client_id[..vault.client_id.len() - 1]);
    let subject = "system:serviceaccount:default:default";
    harness().azure().add_federated_credential(&vault.tenant, &client, &issuer_url, subject, AUDIENCE);
    harness().azure().grant(&vault.name, &client, &[Permission::Get]);
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("clientID".to_owned(), client);
    node.class("demo", &parameters)?;
    Ok((node, vault, Pods { issuer }))
}

/// Pods whose service account tokens this issuer signs.
struct Pods {
    issuer: Issuer,
}

impl Pods {
    /// Returns a pod's volume, and the tokens that a kubelet would send with it.
    fn pod(&self, subject: &str) -> (Volume, String) {
        let token = self.issuer.token(subject, AUDIENCE, Duration::from_secs(3600), json!({}));
        harness().secrets.lock().unwrap().push(token.clone());
        let tokens = json!({AUDIENCE: {"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"}}).to_string();
        (Volume::of_class("default", "web", "demo"), tokens)
    }
}

fn a_pod_logs_in_with_its_service_account() -> Result<()> {
    let (node, vault, pods) = federated()?;
    // In the volume context, as before Kubernetes 1.35, and among the secrets, as since then.
    let (mut old, tokens) = pods.pod("system:serviceaccount:default:default");
    old.attributes.insert(TOKENS.to_owned(), tokens);
    let (mut new, tokens) = pods.pod("system:serviceaccount:default:default");
    new.secrets.insert(TOKENS.to_owned(), tokens);
    for volume in [old, new] {
        let target = node.publish(&volume)?;
        ensure!(target.join("password").exists());
    }
    assert_eq!(vault.entra().get(Kind::Token), 1, "one identity has one token");
    assert_eq!(vault.counters().get(Kind::Get), 2);
    Ok(())
}

fn tokens_that_are_not_the_pods_own_are_refused() -> Result<()> {
    let (node, vault, pods) = federated()?;
    let (mut volume, tokens) = pods.pod("system:serviceaccount:default:another");
    volume.attributes.insert(TOKENS.to_owned(), tokens);
    node.refused(&volume)?;
    assert_eq!(vault.counters().get(Kind::Get), 0);
    Ok(())
}

fn missing_tokens_are_reported_with_the_fix() -> Result<()> {
    let (node, _vault, _pods) = federated()?;
    let volume = Volume::of_class("default", "web", "demo");
    let status = node.refused(&volume)?;
    for word in ["tokens not found", "tokenRequests", AUDIENCE] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    let mut volume = volume;
    volume.attributes.insert(TOKENS.to_owned(), json!({"other": {"token": "x"}}).to_string());
    ensure!(node.refused(&volume)?.message().contains("token for audience"));
    Ok(())
}

fn managed(user: Option<&str>) -> Result<(Node, Vault)> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("useVMManagedIdentity".to_owned(), "true".to_owned());
    if let Some(user) = user {
        parameters.insert("userAssignedIdentityID".to_owned(), user.to_owned());
    }
    // A managed identity ignores clientID (docs/reference/azure-provider.md#identity-selection).
    parameters.insert("clientID".to_owned(), "stray".to_owned());
    node.class("demo", &parameters)?;
    Ok((node, vault))
}

fn a_pod_logs_in_with_the_nodes_identity() -> Result<()> {
    let user = "aaaaaaaa-0000-4000-8000-000000000001";
    let (node, vault) = managed(Some(user))?;
    harness().azure().add_managed_identity(&vault.tenant, user);
    harness().azure().grant(&vault.name, user, &[Permission::Get]);
    let target = node.publish(&Volume::of_class("default", "web", "demo"))?;
    ensure!(target.join("password").exists());
    assert_eq!(vault.entra().get(Kind::Token), 0, "Entra ID got a request");
    Ok(())
}

fn an_unknown_managed_identity_is_an_error() -> Result<()> {
    let (node, _vault) = managed(Some("aaaaaaaa-0000-4000-8000-00000000dead"))?;
    let status = node.refused(&Volume::of_class("default", "web", "demo"))?;
    ensure!(status.message().contains("400") && status.message().contains("default/demo"), "{status}");
    Ok(())
}
