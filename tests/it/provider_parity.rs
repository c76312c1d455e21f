//! One vault, read by the built-in provider and by our provider behind its socket: equal bytes,
//! modes and versions, and equal texts for every failure. `matrix` runs all other tests of the
//! provider in both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Kind};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::{Value, json};

use crate::apiserver::{CLASSES, Cluster, Rights, STATUSES, cluster};
use crate::harness::{Node, harness, tree, with_external_provider};
use crate::plugin::objects;
use crate::scenarios::content;

trials! { "provider_parity":
    files_modes_and_versions_are_the_same,
    failures_have_the_same_texts_and_reasons,
    files_follow_the_vault_through_the_socket,
}

const PATIENCE: Duration = Duration::from_secs(60);

type Objects = &'static [(&'static str, &'static str, &'static str)];

/// Every kind of object and format that the vault has.
const REQUESTED: [Objects; 4] = [
    &[
        ("cert", "pemcert1", ""),
        ("key", "pemcert1", "objectAlias: pemcert1-pub-key"),
        ("secret", "pemcert1", "objectAlias: pemcert1-secret"),
        ("cert", "pkcs12cert1", "objectAlias: deep/er/cert"),
        ("key", "pkcs12cert1", "objectAlias: deep/key"),
        ("secret", "pkcs12cert1", "objectAlias: pkcs12cert1-secret;filePermission: 0400"),
        ("secret", "pkcs12cert1", "objectAlias: pkcs12cert1-pfx;objectFormat: pfx"),
        ("secret", "pkcs12cert1", "objectAlias: pkcs12cert1-binary;objectFormat: pfx;objectEncoding: base64"),
        ("cert", "ecccert1", ""),
        ("key", "ecccert1", "objectAlias: ecccert1-pub-key"),
        ("secret", "ecccert1", "objectAlias: ecccert1-secret"),
    ],
    &[
        ("secret", "secret1", "filePermission: 0755"),
        ("secret", "secret1", "objectAlias: SECRET_1;objectVersion: latest"),
        ("secret", "empty", ""),
        ("secret", "hexadecimal", "objectEncoding: hex;filePermission: 0000"),
        ("secret", "binary", "objectEncoding: base64"),
        ("secret", "text", "objectEncoding: UTF-8"),
    ],
    &[
        ("secret", "secret1", "objectVersionHistory: 3"),
        ("secret", "pemcert1", "objectVersionHistory: 2;objectAlias: certs/pem"),
        ("key", "key1", "objectVersionHistory: 5"),
    ],
    &[("key", "key1", ""), ("key", "rsahsmkey1", "objectAlias: keys/hsm"), ("key", "echsmkey1", "")],
];

fn driver(cluster: &Cluster, flags: &[&str]) -> Result<Node> {
    let mut setup = cluster.setup(&cluster.user(Rights::All)?);
    setup.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Node::start(setup)
}

/// Returns the versions in the status object of a volume.
fn versions(cluster: &Cluster, namespace: &str, pod: &str, class: &str) -> Result<Value> {
    let name = format!("{pod}-{namespace}-{class}");
    wait_for("the status exists", PATIENCE, || Ok(cluster.get(STATUSES, namespace, &name)?.is_some()))?;
    let status = cluster.get(STATUSES, namespace, &name)?.context("the status is gone")?;
    status.data.pointer("/status/objects").cloned().context("no objects")
}

fn files_modes_and_versions_are_the_same() -> Result<()> {
    let (cluster, vault) = (cluster()?, content()?.vault);
    let namespace = cluster.namespace()?;
    let azure = harness().azure();
    for (name, value) in [("empty", ""), ("hexadecimal", "00ff10"), ("binary", "AAEC/w=="), ("text", "grün\r\n")] {
        azure.set_secret(&vault.name, name, value);
    }
    vault.set("secret1");
    let mut seen = 0;
    for (flagged, flags) in
        [&[][..], &["--write-cert-and-key-in-separate-files", "--construct-pem-chain=false"]].iter().enumerate()
    {
        let (own, socket) = (driver(cluster, flags)?, with_external_provider(|| driver(cluster, flags))?);
        for (number, requested) in REQUESTED.iter().enumerate() {
            // An object with an encoding cannot be split into separate files.
            let requested: Vec<_> = requested
                .iter()
                .filter(|(_, _, more)| flagged == 0 || !more.contains("objectEncoding: base64"))
                .copied()
                .collect();
            let class = format!("class-{flagged}-{number}");
            let spec = json!({ "provider": "azure", "parameters": vault.parameters_of(&objects(&requested)) });
            cluster.create(CLASSES, Some(&namespace), json!({ "metadata": { "name": class }, "spec": spec }))?;
            let mut results = Vec::new();
            for (node, pod) in [(&own, "own"), (&socket, "socket")] {
                let mut volume = vault.volume(&class);
                (volume.namespace, volume.pod) = (namespace.clone(), pod.to_owned());
                let target = node.publish(&volume).map_err(|status| anyhow::anyhow!("{class}, {pod}: {status}"))?;
                results.push((tree(&target)?, versions(cluster, &namespace, pod, &class)?));
            }
            let [own, socket] = &results[..] else { unreachable!() };
            ensure!(own.0.len() >= requested.len() && own.1.as_array().is_some_and(|ids| !ids.is_empty()), "{class}");
            ensure!(own.0.keys().eq(socket.0.keys()), "{class}: {:?}, {:?}", own.0.keys(), socket.0.keys());
            for ((path, own), socket) in own.0.iter().zip(socket.0.values()) {
                ensure!(own.0 == socket.0, "{class}: {path} has the modes {:o} and {:o}", own.0, socket.0);
                ensure!(own.1 == socket.1, "{class}: {path} has other bytes");
            }
            ensure!(own.1 == socket.1, "{class}: {}, {}", own.1, socket.1);
            seen += own.0.len();
        }
    }
    ensure!(seen > 40, "{seen} files");
    Ok(())
}

/// Returns a text without the parts that differ between calls: request ids and times.
fn without_varying_parts(text: &str) -> String {
    let (mut words, mut is_id) = (Vec::new(), 0);
    for word in text.split(' ') {
        is_id = match (is_id, word) {
            (0, "(request") => 1,
            (1, "id") => 2,
            (2, _) => 3,
            _ => 0,
        };
        let is_number = word.trim_end_matches(',').parse::<f64>().is_ok();
        words.push(if is_id == 3 || is_number { "…" } else { word });
    }
    words.join(" ").replace("try;", "tries;")
}

/// A driver with the built-in provider, one with our provider behind a socket, and the reasons that
/// both gave.
struct Both {
    own: Node,
    socket: Node,
    reasons: BTreeSet<String>,
}

impl Both {
    fn refuse(
        &mut self,
        what: &str,
        parameters: &BTreeMap<String, String>,
        volume: &Volume,
        reason: &str,
    ) -> Result<()> {
        let mut errors = Vec::new();
        for node in [&self.own, &self.socket] {
            node.class("demo", parameters)?;
            let status = node.refused_within(volume, Duration::from_secs(4))?;
            ensure!(status.message().ends_with(&format!(" ({reason})")), "{what}, {reason}: {status}");
            errors.push((status.code(), without_varying_parts(status.message())));
        }
        ensure!(errors[0] == errors[1], "{what}:\n{}\n{}", errors[0].1, errors[1].1);
        self.reasons.insert(reason.to_owned());
        Ok(())
    }

    /// Starts new drivers, which have neither open circuits nor tokens of the faults before.
    fn restart(&mut self) -> Result<()> {
        (self.own, self.socket) = (harness().node()?, with_external_provider(|| harness().node())?);
        Ok(())
    }
}

fn failures_have_the_same_texts_and_reasons() -> Result<()> {
    let (vault, azure) = (harness().vault(), harness().azure());
    vault.set("password");
    azure.set_secret(&vault.name, "large", &"x".repeat(12_289));
    let mut both =
        Both { own: harness().node()?, socket: with_external_provider(|| harness().node())?, reasons: BTreeSet::new() };
    let (pod, bare) = (vault.volume("demo"), Volume::of_class("default", "web", "demo"));
    let good = vault.parameters(&["password"]);
    let with = |key: &str, value: &str| {
        let mut parameters = good.clone();
        parameters.insert(key.to_owned(), value.to_owned());
        parameters
    };
    let with_objects = |list: &[(&str, &str, &str)]| with("objects", &objects(list));
    let mut wrong = vault.clone();
    wrong.client_secret = harness().secret("wrong");
    let many: Vec<String> = (0..300).map(|number| format!("objectAlias: file-{number}")).collect();
    let many: Vec<_> = many.iter().map(|alias| ("secret", "large", alias.as_str())).collect();
    let mistaken: Vec<_> = (0..30).map(|_| ("sekret", "../up", "filePermission: 999;objectEncoding: rot13")).collect();

    both.refuse("no name", &with("keyvaultName", ""), &pod, "ClassInvalid")?;
    both.refuse("pod identity", &with("usePodIdentity", "true"), &pod, "ClassInvalid")?;
    both.refuse("more mistakes than an event holds", &with_objects(&mistaken), &pod, "ClassInvalid")?;
    both.refuse("no credentials", &good, &bare, "CredentialsMissing")?;
    both.refuse("no tokens", &with("clientID", &vault.client_id), &bare, "CredentialsMissing")?;
    both.refuse("wrong secret", &good, &wrong.volume("demo"), "CredentialsRejected")?;
    both.refuse("wrong tenant", &with("tenantID", "no-such.example"), &pod, "TenantNotFound")?;
    both.refuse("wrong vault", &with("keyvaultName", "no-such-vault"), &pod, "VaultNotFound")?;
    both.refuse("missing", &with_objects(&[("cert", "missing", "")]), &pod, "ObjectNotFound")?;
    let encoded = with_objects(&[("secret", "password", "objectEncoding: base64")]);
    both.refuse("not base64", &encoded, &pod, "ObjectInvalid")?;
    both.refuse("too large", &with_objects(&many), &pod, "TooLarge")?;
    for (status, inner, reason) in [
        (401, "", "Unauthorized"),
        (403, "ForbiddenByRbac", "Forbidden"),
        (403, "SecretDisabled", "ObjectDisabled"),
        (429, "", "Throttled"),
        (503, "", "VaultUnavailable"),
    ] {
        let body = json!({"error": {"code": "Forbidden", "message": "m", "innererror": {"code": inner}}}).to_string();
        let action = Action::Body { status, content_type: "application/json".to_owned(), body };
        azure.add_fault(Fault::new(action).host(&vault.name).kind(Kind::Get));
        both.refuse(inner, &good, &pod, reason)?;
        azure.clear_faults(&vault.name);
    }
    both.restart()?;
    azure.add_fault(Fault::new(Action::Hang).host(&vault.name).kind(Kind::Get));
    both.refuse("hanging", &good, &pod, "Timeout")?;
    azure.clear_faults(&vault.name);
    both.restart()?;
    azure.add_fault(Fault::new(Action::status(500)).host(&vault.tenant));
    both.refuse("Entra ID is down", &good, &pod, "IdentityUnavailable")?;
    azure.clear_faults(&vault.tenant);
    assert_eq!(both.reasons.len(), 15, "{:?}", both.reasons);
    Ok(())
}

/// Without a freshness window, which would delay refreshes: the protocol does not say what a Mount
/// is for.
fn files_follow_the_vault_through_the_socket() -> Result<()> {
    let vault = harness().vault();
    let older = vault.set("password");
    let node = with_external_provider(|| {
        let mut setup = harness().setup();
        setup.flags.extend(["--enable-secret-rotation", "--rotation-poll-interval=200ms"].map(str::to_owned));
        Node::start(setup)
    })?;
    node.class("demo", &vault.parameters(&["password"]))?;
    let file = node.publish(&vault.volume("demo"))?.join("password");
    assert_eq!(std::fs::read_to_string(&file)?, older);
    let newer = vault.set("password");
    wait_for("the new value", PATIENCE, || Ok(std::fs::read_to_string(&file)? == newer))?;
    // A failed refresh changes nothing, and its reason reaches the driver.
    harness().azure().delete_secret(&vault.name, "password");
    wait_for("the driver counts the failure", PATIENCE, || {
        let metrics = node.driver.metrics()?;
        let mut lines = metrics.lines().filter(|line| line.starts_with("rotation_reconcile_error_total{"));
        Ok(lines.any(|line| line.contains("reason=\"ObjectNotFound\"")))
    })?;
    assert_eq!(std::fs::read_to_string(&file)?, newer);
    Ok(())
}
