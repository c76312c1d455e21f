//! The node as somebody sees it who sits there: its mounts, folders, processes and local ports.
//!
//! Through a privileged pod in the node's network and PID namespaces, so that the tests may run anywhere. One node: tests
//! that look at it, and the pods they look at, have to meet.

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

/// Tells on the node when the driver's process ends, when the next one starts, and when that says that it is ready: within
/// milliseconds, which nobody could who asks from outside. Each step has two minutes.
const RESTART: &str = r#"
told() { read up rest < /proc/uptime; echo "$1 $up"; }
awaited() { n=0; until eval "$1"; do n=$((n + 1)); [ $n -lt 12000 ] || exit 1; usleep 5000; done; }
old=$(pidof keyvault-csi) || exit 1
told watching
awaited '[ "$(pidof keyvault-csi)" != "$old" ]'; told ended
awaited 'pidof keyvault-csi > /dev/null'; told started
awaited 'wget -q -O /dev/null http://127.0.0.1:9808/readyz 2> /dev/null'; told ready
"#;

/// Follows a restart of the driver on the node.
pub(crate) struct Restart {
    script: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// This process's clock and the node's, at one moment.
    clocks: (Instant, f64),
}

impl Restart {
    /// Begins to watch.
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

    /// When the next step was seen.
    pub(crate) fn step(&mut self, what: &str) -> Result<Instant> {
        let up = self.line(what)?;
        Ok(self.clocks.0 + Duration::try_from_secs_f64(up - self.clocks.1)?)
    }

    fn line(&mut self, what: &str) -> Result<f64> {
        let line = self.lines.next().with_context(|| format!("not seen in time: {what}"))??;
        let up = line.strip_prefix(what).with_context(|| format!("{line} instead of {what}"))?;
        Ok(up.trim().parse()?)
    }
}

impl Drop for Restart {
    fn drop(&mut self) {
        // Ended already is fine.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
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
