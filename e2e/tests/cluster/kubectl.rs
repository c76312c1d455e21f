//! Runs kubectl and Helm: every request to the cluster.
//!
//! A command that fails is an error with its whole output.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use keyvault_csi_e2e::driver::wait_at_interval;
use serde_json::Value;

/// The timeout of whatever the cluster does; a busy machine needs part of it.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The interval of checks: each starts a program, and several tests check at once.
const INTERVAL: Duration = Duration::from_millis(250);

/// The root of the repository.
pub(crate) fn checkout() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs kubectl, and returns its output.
pub(crate) fn kubectl(arguments: &[&str]) -> Result<String> {
    output(Command::new("kubectl").args(arguments), "")
}

/// Runs kubectl with a manifest on its standard input.
pub(crate) fn kubectl_with(arguments: &[&str], manifest: &str) -> Result<String> {
    output(Command::new("kubectl").args(arguments), manifest)
}

/// Applies a manifest in a namespace.
pub(crate) fn apply(namespace: &str, manifest: &str) -> Result<()> {
    kubectl_with(&["apply", "--namespace", namespace, "--filename", "-"], manifest)?;
    Ok(())
}

/// An object, if it exists.
pub(crate) fn get(namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
    let text = kubectl(&["get", kind, name, "--namespace", namespace, "--ignore-not-found", "--output", "json"])?;
    if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
}

/// The objects of a kind, in a namespace, with further options.
pub(crate) fn list(namespace: &str, kind: &str, options: &[&str]) -> Result<Vec<Value>> {
    let mut arguments = vec!["get", kind, "--namespace", namespace, "--output", "json"];
    arguments.extend(options);
    let mut listed: Value = serde_json::from_str(&kubectl(&arguments)?)?;
    match listed["items"].take() {
        Value::Array(items) => Ok(items),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            bail!("not a list: {listed}")
        }
    }
}

/// Runs a command in a pod's container, as `kubectl exec POD -- ...`.
pub(crate) fn exec(namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
    let mut arguments = vec!["exec", pod, "--namespace", namespace, "--"];
    arguments.extend(command);
    kubectl(&arguments)
}

/// Deletes a pod, and waits until it does not exist.
pub(crate) fn delete_pod(namespace: &str, pod: &str) -> Result<()> {
    kubectl(&["delete", "pod", pod, "--namespace", namespace, "--grace-period=1", "--timeout=120s"])?;
    Ok(())
}

/// Waits for a state of the cluster.
pub(crate) fn wait_for(what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_at_interval(what, TIMEOUT, INTERVAL, condition)
}

/// Waits until a pod is Ready.
pub(crate) fn ready(namespace: &str, pod: &str) -> Result<()> {
    let timeout = format!("--timeout={}s", TIMEOUT.as_secs());
    let ready = kubectl(&["wait", "--for=condition=Ready", "pod", pod, "--namespace", namespace, &timeout]);
    let describe = |error| bail!("{error:#}\n{}", kubectl(&["describe", "pod", pod, "--namespace", namespace])?);
    ready.map(drop).or_else(describe)
}

/// Whether a condition of an object is True.
pub(crate) fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|condition| condition["type"] == kind && condition["status"] == "True"))
}

/// Waits for an event of a pod with this reason and all these words in its message; returns its
/// component and message.
pub(crate) fn event(namespace: &str, pod: &str, reason: &str, words: &[&str]) -> Result<(String, String)> {
    let selector = format!("--field-selector=involvedObject.name={pod},reason={reason}");
    let mut found = None;
    let mut seen = String::new();
    let waited = wait_for(&format!("an event {reason} with {words:?}"), || {
        let events = list(namespace, "events", &[&selector])?;
        let text =
            |event: &Value, path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        seen = events.iter().map(|event| text(event, "/message")).collect::<Vec<_>>().join("\n");
        found = events
            .iter()
            .map(|event| (text(event, "/source/component"), text(event, "/message")))
            .find(|(_, message)| words.iter().all(|word| message.contains(word)));
        Ok(found.is_some())
    });
    waited.with_context(|| format!("events so far:\n{seen}"))?;
    found.context("no event")
}

/// The text at a JSON pointer.
pub(crate) fn text(object: &Value, pointer: &str) -> Result<String> {
    let found = object.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("nothing at {pointer} in {object}"))?.to_owned())
}

/// The server's minor version.
pub(crate) fn server_minor() -> Result<u32> {
    let versions: Value = serde_json::from_str(&kubectl(&["version", "--output", "json"])?)?;
    Ok(text(&versions, "/serverVersion/minor")?.trim_end_matches('+').parse()?)
}

/// Runs Helm on the chart: `install`, `upgrade` or `uninstall`.
pub(crate) fn helm(action: &str, release: &str, values: Option<&Path>) -> Result<()> {
    let tools = std::env::var_os("KEYVAULT_CSI_TOOLS").context("KEYVAULT_CSI_TOOLS is not set: run make e2e")?;
    let mut command = Command::new(Path::new(&tools).join("bin/helm4"));
    command.args([action, release, "--namespace", "kube-system", "--timeout", "60s"]);
    if let Some(values) = values {
        command.arg(checkout().join("manifests/chart")).arg("--values").arg(values);
    }
    output(&mut command, "")?;
    Ok(())
}

fn output(command: &mut Command, input: &str) -> Result<String> {
    let output = run(command, input).with_context(|| format!("{command:?} cannot be run"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

fn run(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // The input fits into the pipe, so this cannot block. Dropping the pipe closes it.
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}
