//! The driver in the cluster: our image, installed by our chart.
//!
//! The driver's pods trust the emulator's CA by the way that docs/install.md has for a private CA.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::environment;
use crate::fixture::ca_pem;
use crate::kubectl::{get, helm, kubectl, kubectl_with, list, server_minor, text};

pub(crate) const NAMESPACE: &str = "kube-system";
pub(crate) const RELEASE: &str = "csi";
const REPOSITORY: &str = "registry.example/keyvault-csi";
const DAEMONSET: &str = "csi-secrets-store-csi-driver";
const CA: &str = "private-ca";
/// The poll interval of rotation.
const INTERVAL: &str = "5s";

/// Loads the image under a tag, and installs the chart with it.
pub(crate) fn install() -> Result<()> {
    load("first")?;
    let ca = kubectl(&[
        "create",
        "configmap",
        CA,
        "--dry-run=client",
        "--output=json",
        &format!("--from-literal=ca.crt={}", ca_pem()),
    ])?;
    kubectl_with(&["apply", "--namespace", NAMESPACE, "--filename", "-"], &ca)?;
    apply_chart("install", "first")
}

/// The image's name without its tag.
fn repository() -> String {
    std::env::var("E2E_REPOSITORY").unwrap_or_else(|_| REPOSITORY.to_owned())
}

/// Loads the image of the archive under a tag.
pub(crate) fn load(tag: &str) -> Result<()> {
    let archive = std::env::var("KEYVAULT_CSI_IMAGE").context("KEYVAULT_CSI_IMAGE is not set: run make e2e")?;
    environment::load_image(&archive, &format!("{}:{tag}", repository()))
}

/// Installs or upgrades the release, and waits until the driver is ready.
pub(crate) fn apply_chart(action: &str, tag: &str) -> Result<()> {
    apply_chart_with(action, tag, false)
}

/// Enables rotation and the mirror, as docs/install.md describes.
pub(crate) fn enable_rotation() -> Result<()> {
    apply_chart_with("upgrade", "first", true)
}

fn apply_chart_with(action: &str, tag: &str, rotation: bool) -> Result<()> {
    let values = json!({
        "logVerbosity": 2,
        "enableSecretRotation": rotation,
        "rotationPollInterval": INTERVAL,
        "syncSecret": {"enabled": rotation},
        "linux": {
            "image": {"repository": repository(), "tag": tag},
            // The name server resolves Azure's names to the emulator.
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": [environment::name_server()?]},
            "kubeletRootDir": kubelet_root(),
            "volumes": [{"name": CA, "configMap": {"name": CA}}],
            "volumeMounts": [{"name": CA, "mountPath": "/etc/ssl/certs/private-ca.crt", "subPath": "ca.crt", "readOnly": true}],
        },
    });
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(values.to_string().as_bytes())?;
    helm(action, RELEASE, Some(file.path()))?;
    rolled_out()
}

/// Whether the kubelet delivers tokens among the secrets of a call: since 1.35, if the CSIDriver
/// object says so, and else in the volume context. The chart says so wherever the API server knows
/// the field.
pub(crate) fn tokens_are_among_secrets() -> Result<bool> {
    let driver = get("", "csidriver", "secrets-store.csi.k8s.io")?.context("no CSIDriver object")?;
    let among_secrets = driver["spec"]["serviceAccountTokenInSecrets"] == true;
    ensure!(among_secrets == (server_minor()? >= 35), "{driver}");
    Ok(among_secrets)
}

/// Waits until the newest revision is ready.
pub(crate) fn rolled_out() -> Result<()> {
    kubectl(&["rollout", "status", "daemonset", DAEMONSET, "--namespace", NAMESPACE, "--timeout=120s"])?;
    Ok(())
}

/// The kubelet's root directory.
pub(crate) fn kubelet_root() -> PathBuf {
    std::env::var_os("E2E_KUBELET_ROOT").map_or_else(|| PathBuf::from("/var/lib/kubelet"), PathBuf::from)
}

/// The driver's pods that are not terminating.
pub(crate) fn pods() -> Result<Vec<Value>> {
    let mut pods = list(NAMESPACE, "pods", &["--selector=app=secrets-store-csi-driver"])?;
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(pods)
}

/// The name of the driver's pod on the single node.
pub(crate) fn pod() -> Result<String> {
    text(pods()?.first().context("no driver")?, "/metadata/name")
}

/// Deletes the driver's pod without waiting, and returns its name.
pub(crate) fn kill() -> Result<String> {
    let pod = pod()?;
    kubectl(&["delete", "pod", &pod, "--namespace", NAMESPACE, "--wait=false"])?;
    Ok(pod)
}

/// Asserts that the driver's container never restarted, and that it never failed to unmount.
pub(crate) fn assert_steady() -> Result<()> {
    for pod in pods()? {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{pod}");
        let log = kubectl(&["logs", &text(&pod, "/metadata/name")?, "--namespace", NAMESPACE])?;
        ensure!(!log.contains("failed to clean and unmount target path") && !log.contains("panicked"), "{log}");
    }
    Ok(())
}
