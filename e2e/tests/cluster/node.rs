//! The node's mounts, directories, processes and local ports.
//!
//! Read through a privileged pod in the node's network and PID namespaces, so that the tests can
//! run anywhere. The cluster must have a single node, so that this pod is on the node of the tests'
//! pods.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::kubectl::{apply, exec, kubectl, ready};

static NAMESPACE: OnceLock<String> = OnceLock::new();
const POD: &str = "node";

/// Starts the pod.
pub(crate) fn start() -> Result<()> {
    let namespace = NAMESPACE.get_or_init(|| format!("e2e-node-{}", std::process::id()));
    kubectl(&["create", "namespace", namespace])?;
    crate::fixture::wait_for_service_account(namespace)?;
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

/// The lines of the node's mount table with this directory.
pub(crate) fn mounts(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.display().to_string();
    Ok(run(&["cat", "/proc/1/mounts"])?.lines().filter(|line| line.contains(&folder)).map(str::to_owned).collect())
}

/// Whether the node has this file or directory.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    let path = format!("/proc/1/root{}", path.display());
    Ok(run(&["sh", "-c", "if [ -e \"$0\" ]; then echo yes; fi", &path])? == "yes\n")
}

/// Prints, on the node, when the driver's process exits, when the next one starts, and when that is
/// ready. On the node the times are exact to milliseconds. The timeout of each step is two minutes.
const RESTART: &str = r#"
report() { read up rest < /proc/uptime; echo "$1 $up"; }
wait_until() { n=0; until eval "$1"; do n=$((n + 1)); [ $n -lt 12000 ] || exit 1; usleep 5000; done; }
old=$(pidof keyvault-csi) || exit 1
report watching
wait_until '[ "$(pidof keyvault-csi)" != "$old" ]'; report exited
wait_until 'pidof keyvault-csi > /dev/null'; report started
wait_until 'wget -q -O /dev/null http://127.0.0.1:9808/readyz 2> /dev/null'; report ready
"#;

/// Observes a restart of the driver on the node.
pub(crate) struct Restart {
    script: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The time of this process's clock and of the node's at the same moment.
    clocks: (Instant, f64),
}

impl Restart {
    /// Starts to observe.
    pub(crate) fn watch() -> Result<Restart> {
        let namespace = NAMESPACE.get().context("the node's pod was not started")?;
        let mut command = Command::new("kubectl");
        command.args(["exec", POD, "--namespace", namespace, "--", "sh", "-c", RESTART]);
        let mut script = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(script.stdout.take().context("no output")?).lines();
        let mut restart = Restart { script, lines, clocks: (Instant::now(), 0.0) };
        let up = restart.line("watching")?;
        restart.clocks = (Instant::now(), up);
        Ok(restart)
    }

    /// Waits for the next step, and returns its time.
    pub(crate) fn step(&mut self, what: &str) -> Result<Instant> {
        let up = self.line(what)?;
        Ok(self.clocks.0 + Duration::try_from_secs_f64(up - self.clocks.1)?)
    }

    fn line(&mut self, what: &str) -> Result<f64> {
        let line = self.lines.next().with_context(|| format!("not within two minutes: {what}"))??;
        let up = line.strip_prefix(what).with_context(|| format!("{line} instead of {what}"))?;
        Ok(up.trim().parse()?)
    }
}

impl Drop for Restart {
    fn drop(&mut self) {
        // An error means that it has exited already.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// The response to a GET on a port of the node's loopback interface, if its status is 200.
pub(crate) fn http(port: u16, path: &str) -> Result<Option<String>> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let text = run(&["sh", "-c", "wget -q -O - \"$0\" && echo done || true", &url])?;
    Ok(text.strip_suffix("done\n").map(str::to_owned))
}

fn run(command: &[&str]) -> Result<String> {
    exec(NAMESPACE.get().context("the node's pod was not started")?, POD, command)
}
