//! The node as somebody sees it who sits there: its mounts, folders, processes and local ports.
//!
//! Through a privileged pod in the node's network and PID namespaces, so that the tests may run anywhere. One node: tests
//! that look at it, and the pods they look at, have to meet.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::kubectl::{apply, exec, kubectl, ready};

static NAMESPACE: OnceLock<String> = OnceLock::new();
const POD: &str = "node";

/// Starts the pod.
pub(crate) fn start() -> Result<()> {
    let namespace = NAMESPACE.get_or_init(|| format!("e2e-node-{}", std::process::id()));
    kubectl(&["create", "namespace", namespace])?;
    crate::scene::accounts(namespace)?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}, "spec": {
        "hostPID": true,
        "hostNetwork": true,
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{
            "name": "main",
            "image": "registry.k8s.io/e2e-test-images/busybox:1.29-4",
            "command": ["sleep", "100000"],
            "securityContext": {"privileged": true},
        }],
    }});
    apply(namespace, &pod.to_string())?;
    ready(namespace, POD)
}

/// The lines of the node's mount table that name this folder.
pub(crate) fn mounts(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.display().to_string();
    Ok(run(&["cat", "/proc/1/mounts"])?.lines().filter(|line| line.contains(&folder)).map(str::to_owned).collect())
}

/// Whether there is such a file or folder on the node.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    let path = format!("/proc/1/root{}", path.display());
    Ok(run(&["sh", "-c", "if [ -e \"$0\" ]; then echo yes; fi", &path])? == "yes\n")
}

/// The driver's process.
pub(crate) fn driver() -> Result<Option<u32>> {
    let found = run(&["sh", "-c", "pidof keyvault-csi || true"])?;
    found.split_whitespace().next().map(|id| id.parse().with_context(|| found.clone())).transpose()
}

/// What a port of the node's own loopback interface answers to a GET; nothing if it does not say 200.
pub(crate) fn http(port: u16, path: &str) -> Result<Option<String>> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let text = run(&["sh", "-c", "wget -q -O - \"$0\" && echo done || true", &url])?;
    Ok(text.strip_suffix("done\n").map(str::to_owned))
}

fn run(command: &[&str]) -> Result<String> {
    exec(NAMESPACE.get().context("the node's pod was not started")?, POD, command)
}
