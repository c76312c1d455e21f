//! AKS identity binding end to end: tokens come from a cluster's token proxy, and no token request
//! goes past it to Entra ID (docs/identities.md#identity-binding-aks-only,
//! docs/reference/azure-provider.md#identity-binding).
//!
//! The emulator has one counter and one list of faults for all its token proxies, so these tests
//! take turns.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Issuer, Kind, Permission, TokenProxy, TokenProxyOptions};
use keyvault_csi_e2e::driver::{DriverSetup, wait_for};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::json;
use tonic::Status;

use crate::harness::{Node, Vault, harness};
use crate::rotation::{PATIENCE, metric};

trials! { "identity_binding":
    a_binding_works_as_soon_as_the_cluster_is_ready,
    a_binding_and_workload_identity_share_nothing,
    the_example_manifest_reads_the_vault_through_the_proxy,
    a_refresh_gets_new_tokens_from_the_proxy,
    a_cluster_with_another_ca_is_not_trusted,
    a_wrong_sni_name_ends_in_the_handshake,
    a_refused_exchange_names_the_cause_and_the_fix,
}

const WORKLOAD: &str = "api://AzureADTokenExchange";
const BINDING: &str = "api://AKSIdentityBinding";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
const LOGIN: &str = "login.microsoftonline.com";
/// The emulator's name for all token proxies, in counters, faults and journal.
const PROXY: &str = "token-proxy";

fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that panicked has released its turn.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the address of a test's cluster. Each run by `matrix` has its own, since servers keep
/// listening.
fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 2, if crate::harness::has_external_provider() { 100 + number } else { number })
}

/// Starts a cluster's API server and token proxy.
fn cluster(number: u8, port: u16, path: &str) -> Result<TokenProxy> {
    let options = TokenProxyOptions {
        listen: (address(number), port).into(),
        cluster_id: "abc123def456".to_owned(),
        path: path.to_owned(),
    };
    Ok(harness().token_proxy(&options)?)
}

/// Returns the setup of a driver in a pod of the cluster, and the path of its cluster CA.
fn setup(number: u8, port: u16) -> (DriverSetup, PathBuf) {
    let mut setup = harness().setup();
    let ca_file = setup.folder.join("ca.crt");
    setup.flags.push(format!("--token-proxy-ca-file={}", ca_file.display()));
    setup.environment =
        [("KUBERNETES_SERVICE_HOST", address(number).to_string()), ("KUBERNETES_SERVICE_PORT", port.to_string())]
            .map(|(key, value)| (key.to_owned(), value))
            .into();
    (setup, ca_file)
}

/// Returns the number of token requests to all proxies so far.
fn exchanges() -> u64 {
    harness().azure().counters(PROXY).get(Kind::Token)
}

/// A vault, and a managed identity that may read it and is bound to a cluster.
struct Bound {
    vault: Vault,
    issuer: Issuer,
    client: String,
    service_account: &'static str,
}

impl Bound {
    fn new(service_account: &'static str) -> Bound {
        let vault = harness().vault();
        let issuer_url = format!("https://issuer.{}/", vault.tenant);
        let issuer = harness().azure().add_issuer(&issuer_url);
        let client = format!("b{}", &vault.client_id[1..]);
        let bound = Bound { vault, issuer, client, service_account };
        bound.bind();
        harness().azure().grant(&bound.vault.name, &bound.client, &[Permission::Get]);
        bound
    }

    fn bind(&self) {
        let (tenant, issuer) = (&self.vault.tenant, self.issuer.url());
        harness().azure().add_identity_binding(tenant, &self.client, issuer, &self.subject());
    }

    fn subject(&self) -> String {
        format!("system:serviceaccount:default:{}", self.service_account)
    }

    /// Writes a class for this client, with identity binding unless `proxy` is false.
    fn class(&self, node: &Node, name: &str, object: &str, client: &str, proxy: bool) -> Result<()> {
        let mut parameters = self.vault.parameters(&[object]);
        parameters.insert("clientID".to_owned(), client.to_owned());
        if proxy {
            parameters.insert("useAzureTokenProxy".to_owned(), "true".to_owned());
        }
        node.class(name, &parameters)
    }

    /// Returns a new pod's volume with the service account's tokens for these audiences.
    fn pod_for(&self, class: &str, audiences: &[&str]) -> Volume {
        let token = |audience: &&str| {
            let token = self.issuer.token(&self.subject(), audience, Duration::from_secs(3600), json!({}));
            harness().secrets.lock().unwrap().push(token.clone());
            ((*audience).to_owned(), json!({"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"}))
        };
        let tokens: serde_json::Map<_, _> = audiences.iter().map(token).collect();
        let mut volume = Volume::of_class("default", "web", class);
        self.service_account.clone_into(&mut volume.service_account);
        volume.attributes.insert(TOKENS.to_owned(), serde_json::Value::Object(tokens).to_string());
        volume
    }

    /// Returns a new pod's volume with tokens for workload identity and for identity binding.
    fn pod(&self, class: &str) -> Volume {
        self.pod_for(class, &[WORKLOAD, BINDING])
    }

    /// Checks that Entra ID got no request past the proxy.
    fn nothing_past_the_proxy(&self) {
        assert_eq!(self.vault.entra().total(), 0, "Entra ID got a request past the proxy");
    }
}

fn has(status: &Status, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

fn a_binding_works_as_soon_as_the_cluster_is_ready() -> Result<()> {
    let _turn = turn();
    let (mut setup, ca_file) = setup(1, 6443);
    setup.flags.push("--token-proxy-url=https://kubernetes.default.svc.cluster.local:6443/base".to_owned());
    let (node, bound) = (Node::start(setup)?, Bound::new("default"));
    bound.vault.set("password");
    bound.class(&node, "bound", "password", &bound.client, true)?;
    // The driver starts without CA and proxy, and only publishes fail.
    has(&node.refused(&bound.pod("bound"))?, &["token proxy", "ca.crt", "--sni-name", "IdentityUnavailable"])?;
    fs::write(&ca_file, "-----BEGIN")?;
    has(&node.refused(&bound.pod("bound"))?, &["holds no CA certificate"])?;
    let proxy = cluster(1, 6443, "/base")?;
    fs::write(&ca_file, proxy.ca_pem())?;
    node.publish(&bound.pod("bound"))?;
    bound.nothing_past_the_proxy();
    ensure!(node.log().contains(proxy.sni()), "the log does not have the proxy's name");
    // Without the binding, a new token is refused.
    harness().azure().remove_federated_credentials(&bound.vault.tenant, &bound.client);
    harness().azure().revoke_tokens(&bound.client);
    let mut pod = bound.pod("bound");
    pod.pod = "another".to_owned();
    bound.vault.set("second");
    bound.class(&node, "bound", "second", &bound.client, true)?;
    has(&node.refused(&pod)?, &["AADSTS70025", "CredentialsRejected"])
}

fn a_binding_and_workload_identity_share_nothing() -> Result<()> {
    let _turn = turn();
    let proxy = cluster(2, 6443, "/")?;
    let (mut setup, ca_file) = setup(2, 6443);
    fs::write(&ca_file, proxy.ca_pem())?;
    // With an address and a name the driver makes no request to the API server.
    setup.environment.clear();
    setup.flags.push(format!("--token-proxy-url=https://{}:6443", address(2)));
    setup.flags.push(format!("--sni-name={}", proxy.sni()));
    let (node, bound) = (Node::start(setup)?, Bound::new("default"));
    bound.vault.set("password");
    bound.class(&node, "bound", "password", &bound.client, true)?;
    node.publish(&bound.pod("bound"))?;
    bound.class(&node, "plain", "password", &bound.client, false)?;
    // The same client and service account, but Entra ID itself has no federated credential of it.
    let status = node.refused(&bound.pod("plain"))?;
    ensure!(status.message().contains("AADSTS70025"), "workload identity got the binding's token: {status}");
    let (tenant, issuer) = (&bound.vault.tenant, bound.issuer.url());
    harness().azure().add_federated_credential(tenant, &bound.client, issuer, &bound.subject(), WORKLOAD);
    node.publish(&bound.pod("plain"))?;
    ensure!(bound.vault.entra().get(Kind::Token) >= 2, "workload identity has a token of its own");
    Ok(())
}

/// Uses the defaults of the flags. The proxy accepts tokens of its own audience only, and
/// handshakes with its own name only.
fn the_example_manifest_reads_the_vault_through_the_proxy() -> Result<()> {
    let _turn = turn();
    let proxy = cluster(3, 443, "/")?;
    let (setup, ca_file) = setup(3, 443);
    fs::write(&ca_file, proxy.ca_pem())?;
    let (node, bound) = (Node::start(setup)?, Bound::new("identity-binding"));
    let value = bound.vault.set("database-password");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/examples/identity-binding.yaml");
    let mut example = fs::read_to_string(path)?;
    for (placeholder, real) in [
        ("00000000-0000-0000-0000-000000000000", &bound.client),
        ("demo-vault", &bound.vault.name),
        ("contoso.example", &bound.vault.tenant),
    ] {
        ensure!(example.contains(placeholder), "{placeholder} is missing in {path}");
        example = example.replace(placeholder, real);
    }
    node.manifest("identity-binding.yaml", &example)?;
    let before = exchanges();
    for _ in 0..2 {
        let target = node.publish(&bound.pod("identity-binding"))?;
        assert_eq!(fs::read_to_string(target.join("database-password"))?, value);
    }
    assert_eq!(exchanges() - before, 1, "pods of one service account share a token");
    let journal = harness().azure().journal();
    let ours = |entry: &&azure_emulator::JournalEntry| entry.client_id.as_ref() == Some(&bound.client);
    let request = journal.iter().filter(|entry| entry.kind == Kind::Token).find(ours).context("no token request")?;
    assert_eq!((request.service.as_str(), request.host.as_str(), request.status), (PROXY, LOGIN, Some(200)));
    assert_eq!(request.path, format!("/{}/oauth2/v2.0/token", bound.vault.tenant));
    ensure!(node.log().contains(proxy.sni()), "the log does not have the proxy's name");
    bound.nothing_past_the_proxy();
    Ok(())
}

fn a_refresh_gets_new_tokens_from_the_proxy() -> Result<()> {
    let _turn = turn();
    let proxy = cluster(4, 443, "/")?;
    let (mut setup, ca_file) = setup(4, 443);
    fs::write(&ca_file, proxy.ca_pem())?;
    setup.flags.extend(["--enable-secret-rotation", "--rotation-poll-interval=200ms"].map(str::to_owned));
    let (node, bound) = (Node::start(setup)?, Bound::new("default"));
    bound.vault.set("password");
    bound.class(&node, "bound", "password", &bound.client, true)?;
    let before = exchanges();
    let file = node.publish(&bound.pod("bound"))?.join("password");
    let holds = |value: &str| Ok(fs::read_to_string(&file)? == value);
    let second = bound.vault.set("password");
    wait_for("a refresh writes the new value", PATIENCE, || holds(&second))?;
    assert_eq!(exchanges() - before, 1, "a refresh has the token of the mount");
    // Without the binding the driver cannot replace a revoked token, and the files stay unchanged.
    harness().azure().remove_federated_credentials(&bound.vault.tenant, &bound.client);
    harness().azure().revoke_tokens(&bound.client);
    let third = bound.vault.set("password");
    wait_for("the proxy refuses a new token", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_error_total", &["reason=\"CredentialsRejected\""])? >= 1.0)
    })?;
    ensure!(holds(&second)?, "a failed refresh changed the file");
    bound.bind();
    wait_for("a refresh with a new token writes the new value", PATIENCE, || holds(&third))?;
    ensure!(exchanges() - before >= 3);
    bound.nothing_past_the_proxy();
    Ok(())
}

fn a_cluster_with_another_ca_is_not_trusted() -> Result<()> {
    let _turn = turn();
    let proxy = cluster(5, 443, "/")?;
    let bound = Bound::new("default");
    bound.vault.set("password");
    let name = format!("--sni-name={}", proxy.sni());
    // The driver connects to the API server first, or to the proxy only if it has the proxy's name.
    for flag in [None, Some(name)] {
        let (mut setup, ca_file) = setup(5, 443);
        setup.flags.extend(flag);
        // Azure's CA, which is trusted for everything else.
        fs::copy(&harness().ca, &ca_file)?;
        let node = Node::start(setup)?;
        bound.class(&node, "bound", "password", &bound.client, true)?;
        let before = exchanges();
        let status = node.refused(&bound.pod("bound"))?;
        has(&status, &["unknown authority", "check --token-proxy-ca-file", "TlsUntrusted"])?;
        assert_eq!(exchanges(), before, "a token was sent to a server without the cluster's certificate");
        fs::write(&ca_file, proxy.ca_pem())?;
        node.publish(&bound.pod("bound"))?;
        assert_eq!(exchanges() - before, 1);
    }
    bound.nothing_past_the_proxy();
    Ok(())
}

fn a_wrong_sni_name_ends_in_the_handshake() -> Result<()> {
    let _turn = turn();
    let proxy = cluster(6, 443, "/")?;
    let (mut setup, ca_file) = setup(6, 443);
    fs::write(&ca_file, proxy.ca_pem())?;
    setup.flags.push("--sni-name=another.ests.aks".to_owned());
    let (node, bound) = (Node::start(setup)?, Bound::new("default"));
    bound.class(&node, "bound", "password", &bound.client, true)?;
    let before = exchanges();
    let status = node.refused_within(&bound.pod("bound"), Duration::from_secs(5))?;
    has(&status, &["handshake", "--token-proxy-url and --sni-name"])?;
    assert_eq!(exchanges(), before);
    bound.nothing_past_the_proxy();
    Ok(())
}

fn a_refused_exchange_names_the_cause_and_the_fix() -> Result<()> {
    let _turn = turn();
    let proxy = cluster(7, 443, "/")?;
    let (setup, ca_file) = setup(7, 443);
    fs::write(&ca_file, proxy.ca_pem())?;
    let (node, mut bound) = (Node::start(setup)?, Bound::new("default"));
    bound.vault.set("password");
    bound.class(&node, "bound", "password", &bound.client, true)?;
    let before = exchanges();
    // The pod has no token for the proxy's audience.
    let status = node.refused(&bound.pod_for("bound", &[WORKLOAD]))?;
    has(&status, &[BINDING, "tokenRequests", "CredentialsMissing"])?;
    assert_eq!(exchanges(), before);
    // The proxy's own refusal, without a code of Entra ID: no ClusterRole lets the service account
    // use the identity.
    let body = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403}).to_string();
    let forbidden = Action::Body { status: 403, content_type: "application/json".to_owned(), body };
    harness().azure().add_fault(Fault::new(forbidden).host(PROXY).kind(Kind::Token));
    let status = node.refused(&bound.pod("bound"));
    harness().azure().clear_faults(PROXY);
    has(&status?, &["the token proxy refuses the pod", "ClusterRole", "use-managed-identity", "CredentialsRejected"])?;
    // Entra ID's refusals, which the proxy passes on.
    bound.class(&node, "unknown", "password", "99999999-0000-4000-9000-000000000000", true)?;
    has(&node.refused(&bound.pod("unknown"))?, &["AADSTS700016", "CredentialsRejected"])?;
    bound.service_account = "another";
    has(&node.refused(&bound.pod("bound"))?, &["AADSTS700213", "set its subject to", "CredentialsRejected"])?;
    bound.service_account = "default";
    harness().azure().remove_federated_credentials(&bound.vault.tenant, &bound.client);
    has(&node.refused(&bound.pod("bound"))?, &["AADSTS70025", "add one", "CredentialsRejected"])?;
    ensure!(exchanges() - before >= 4, "the proxy got {} requests", exchanges() - before);
    assert_eq!(bound.vault.counters().get(Kind::Get), 0);
    bound.nothing_past_the_proxy();
    Ok(())
}
