//! The start of the driver: its version, the defaults of empty flags, and the startup taint.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use serde_json::{Value, json};

use crate::apiserver::{Cluster, Rights, User, cluster};
use crate::harness::{Node, harness};

trials! { "startup":
    the_version_is_upstreams_json,
    empty_flag_values_mean_what_they_mean_in_go,
    the_startup_taint_is_removed_after_the_registration,
    without_the_right_the_taint_stays_and_the_log_says_what_to_grant,
}

const PATIENCE: Duration = Duration::from_secs(30);
const NODES: (&str, &str) = ("Node", "nodes");
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const TAINT: &str = "secrets-store.csi.k8s.io/agent-not-ready";

fn the_version_is_upstreams_json() -> Result<()> {
    for flag in ["--version", "-version", "--version=true"] {
        let output = Command::new(env!("CARGO_BIN_EXE_keyvault-csi")).args(["node", flag]).output()?;
        ensure!(output.status.success());
        let version: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(version["BuildVersion"], env!("CARGO_PKG_VERSION"));
        ensure!(version["GitCommit"].is_string() && version["BuildDate"].is_string(), "{version}");
    }
    Ok(())
}

/// The chart of upstream's provider renders unset values as empty flags: an empty metrics address
/// means port 8080, an empty path means none.
fn empty_flag_values_mean_what_they_mean_in_go() -> Result<()> {
    let mut setup = harness().setup();
    let flags = ["--metrics-addr=", "--kubeconfig=", "--provider-volume=", "--max-call-recv-msg-size=2147483647"];
    setup.flags.extend(flags.map(str::to_owned));
    setup.environment.push(("AZURE_ENVIRONMENT_FILEPATH".to_owned(), String::new()));
    let _node = Node::start(setup)?;
    // Every address, also in an IPv6-only cluster.
    let both = std::path::Path::new("/proc/net/if_inet6").exists();
    for address in ["127.0.0.1", "::1"].iter().take(if both { 2 } else { 1 }) {
        wait_for("port 8080 is served", PATIENCE, || Ok(std::net::TcpStream::connect((*address, 8080)).is_ok()))?;
    }
    Ok(())
}

/// Creates a node with the startup taint and another one, and starts a driver that has to remove
/// the startup taint.
fn tainted(cluster: &Cluster, name: &str, rights: bool) -> Result<(Node, User)> {
    let taints = json!([
        { "key": TAINT, "effect": "NoSchedule" }, { "key": "other", "value": "stays", "effect": "NoExecute" },
        { "key": TAINT, "effect": "NoExecute" },
    ]);
    cluster.create(NODES, None, json!({ "metadata": { "name": name }, "spec": { "taints": taints } }))?;
    let user = cluster.user(Rights::All)?;
    if rights {
        cluster.allow(
            &user,
            "startup-taint",
            json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"] }]),
        )?;
    }
    let mut setup = cluster.setup(&user);
    setup.node_id = name.to_owned();
    setup.flags.push(format!("--startup-taint={TAINT}"));
    Ok((Node::start(setup)?, user))
}

fn taints(cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let node = cluster.block_on(cluster.api(NODES, None).get(name))?;
    let taints = node.data.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    taints.iter().map(|taint| Ok(taint["key"].as_str().context("no key")?.to_owned())).collect()
}

fn the_startup_taint_is_removed_after_the_registration() -> Result<()> {
    let cluster = cluster()?;
    let (node, _) = tainted(cluster, "tainted-1", true)?;
    // The API server adds a taint of its own to a new node.
    assert_eq!(taints(cluster, "tainted-1")?, [TAINT, "other", TAINT, NOT_READY]);
    node.kubelet.register(&node.setup().registration_socket())?;
    wait_for("the taint is gone", PATIENCE, || Ok(taints(cluster, "tainted-1")? == ["other", NOT_READY]))?;
    wait_for("the line in the log", PATIENCE, || Ok(node.log().contains("start-up taint removed from the node")))
}

fn without_the_right_the_taint_stays_and_the_log_says_what_to_grant() -> Result<()> {
    let cluster = cluster()?;
    let (node, user) = tainted(cluster, "tainted-2", false)?;
    node.kubelet.register(&node.setup().registration_socket())?;
    wait_for("the log says what to grant", PATIENCE, || {
        Ok(node.log().contains("ClusterRole secrets-store-csi-driver-startup-taint-role"))
    })?;
    assert_eq!(taints(cluster, "tainted-2")?.len(), 4);
    // It keeps trying.
    cluster.allow(
        &user,
        "startup-taint",
        json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"] }]),
    )?;
    wait_for("the taint is gone", PATIENCE, || Ok(taints(cluster, "tainted-2")? == ["other", NOT_READY]))
}
