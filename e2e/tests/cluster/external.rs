//! Classes of another provider: the scenarios of upstream's `e2e-provider` suite
//! (docs/reference/csi-driver.md#end-to-end-scenarios), with real pods.
//!
//! The reference provider runs as a process on the node, with its socket in the directory that the
//! chart mounts into the driver. Each test sets its own values. The tests that need no kubelet and
//! no garbage collector are `tests/it/external*.rs`.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use keyvault_csi_e2e::reference::{self, Options, ReferenceProvider};
use serde_json::{Value, json};

use crate::environment;
use crate::fixture::{AUDIENCE, Fixture};
use crate::kubectl::{delete_pod, event, exec, kubectl, ready, wait_for};
use crate::node;
use crate::release::{self, kubelet_root};
use crate::rotation::{
    fixture, two_deployments, wait_for_content, wait_for_owners, wait_for_value, wait_until_deleted,
};

trials! { "external":
    a_pod_reads_its_files_and_leaves_nothing,
    a_changed_value_reaches_file_and_secret,
    two_deployments_own_one_secret_until_the_last_is_gone,
    the_class_is_the_namespaces_own,
    two_classes_in_one_pod_have_a_secret_each,
    the_kubelets_tokens_reach_the_provider,
    the_providers_calls_are_counted,
}

const NAME: &str = "e2e-provider";
const FOREVER: &str = "sleep 10000";
/// A port of the node's loopback interface.
const CONTROL: &str = "127.0.0.1:8087";
/// The argument that makes this program a provider.
const ROLE: &str = "reference-provider";
/// The key of service account tokens.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

static PROVIDER: Mutex<Option<ReferenceProvider>> = Mutex::new(None);

/// Runs as a provider if the first argument is [`ROLE`].
pub(crate) fn run_as_provider() -> Option<Result<()>> {
    let mut words = std::env::args_os().skip(1).peekable();
    words.next_if(|word| word == ROLE)?;
    let words = std::iter::once(ROLE.into()).chain(words);
    Some(Options::try_parse_from(words).map_err(Into::into).and_then(|options| reference::run(&options)))
}

/// Stops the provider, if it runs.
pub(crate) fn stop() {
    PROVIDER.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Calls the provider; the first call starts it.
fn provider<T>(call: impl FnOnce(&ReferenceProvider) -> Result<T>) -> Result<T> {
    let mut running = PROVIDER.lock().unwrap_or_else(PoisonError::into_inner);
    if running.is_none() {
        let options =
            Options { socket: environment::providers()?.join(format!("{NAME}.sock")), control: CONTROL.parse()? };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE);
        *running = Some(ReferenceProvider::start(command, &options)?);
    }
    call(running.as_ref().context("no provider")?)
}

/// Sets a value of this fixture, and returns it.
fn set(fixture: &Fixture, name: &str, version: &str) -> Result<String> {
    let value = format!("{version} of {name} in {}", fixture.namespace);
    provider(|provider| {
        provider.control("/secret", &[("name", &object_name(fixture, name)), ("value", &value), ("version", version)])
    })?;
    Ok(value)
}

/// The provider's name of a value of this fixture.
fn object_name(fixture: &Fixture, name: &str) -> String {
    format!("{}-{name}", fixture.namespace)
}

/// Creates a class of the provider with these values.
fn class(fixture: &Fixture, version: &str, name: &str, values: &[&str], secret_objects: &Value) -> Result<()> {
    let object = |value: &&str| format!("  - |\n    objectName: {}\n    path: {value}\n", object_name(fixture, value));
    let objects = values.iter().fold("array:\n".to_owned(), |objects, value| objects + &object(value));
    let class = json!({
        "apiVersion": format!("secrets-store.csi.x-k8s.io/{version}"), "kind": "SecretProviderClass",
        "metadata": {"name": name},
        "spec": {"provider": NAME, "parameters": {"objects": objects}, "secretObjects": secret_objects},
    });
    fixture.apply(&class.to_string())
}

fn opaque(name: &str, object: &str) -> Value {
    let data = json!([{"objectName": object, "key": "username"}]);
    json!([{"secretName": name, "type": "Opaque", "labels": {"environment": "test"}, "data": data}])
}

fn a_pod_reads_its_files_and_leaves_nothing() -> Result<()> {
    for version in ["v1", "v1alpha1"] {
        let fixture = fixture("external")?;
        let (secret, key) = (set(&fixture, "secret", "v1")?, set(&fixture, "nested/key", "v1")?);
        class(&fixture, version, "demo", &["secret", "nested/key"], &json!([]))?;
        fixture.pod("web", &["demo"], FOREVER)?;
        ready(&fixture.namespace, "web")?;
        assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/demo/secret"])?, secret);
        assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/demo/nested/key"])?, key);
        let folder = kubelet_root().join("pods").join(fixture.uid("web")?);
        ensure!(!node::mounts(&folder)?.is_empty());
        delete_pod(&fixture.namespace, "web")?;
        wait_for("the pod's directory is removed", || Ok(!node::exists(&folder)?))?;
        ensure!(node::mounts(&folder)?.is_empty());
    }
    Ok(())
}

fn a_changed_value_reaches_file_and_secret() -> Result<()> {
    let fixture = fixture("external-rotated")?;
    let old = set(&fixture, "a", "v1")?;
    class(&fixture, "v1", "demo", &["a"], &opaque("mirrored", "a"))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    wait_for_value(&fixture.namespace, "mirrored", "username", &old)?;
    let new = set(&fixture, "a", "v2")?;
    wait_for_content(&fixture.namespace, "web", "/mnt/demo/a", &new)?;
    wait_for_value(&fixture.namespace, "mirrored", "username", &new)
}

fn two_deployments_own_one_secret_until_the_last_is_gone() -> Result<()> {
    let fixture = fixture("external-owners")?;
    let value = set(&fixture, "a", "v1")?;
    class(&fixture, "v1", "demo", &["a"], &opaque("mirrored", "a"))?;
    two_deployments(&fixture, &value)?;
    for (name, left) in [("one", Some(1)), ("two", None)] {
        kubectl(&["delete", "deployment", name, "--namespace", &fixture.namespace, "--timeout=120s"])?;
        match left {
            Some(left) => wait_for_owners(&fixture.namespace, "mirrored", left)?,
            None => wait_until_deleted(&fixture.namespace, "mirrored")?,
        }
    }
    Ok(())
}

fn the_class_is_the_namespaces_own() -> Result<()> {
    let (here, there) = (fixture("external-here")?, fixture("external-there")?);
    let value = set(&here, "a", "v1")?;
    class(&here, "v1", "demo", &["a"], &json!([]))?;
    let wrong = json!({
        "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass", "metadata": {"name": "demo"},
        "spec": {"provider": "invalid-provider", "parameters": {"objects": "array: []"}},
    });
    there.apply(&wrong.to_string())?;
    here.pod("web", &["demo"], FOREVER)?;
    ready(&here.namespace, "web")?;
    assert_eq!(exec(&here.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    there.pod("wrong", &["demo"], FOREVER)?;
    event(
        &there.namespace,
        "wrong",
        "FailedMount",
        &["invalid-provider", "provider not found", "invalid-provider.sock"],
    )?;
    there.pod("lost", &["absent"], FOREVER)?;
    let absent = format!("failed to get secretproviderclass {}/absent", there.namespace);
    event(&there.namespace, "lost", "FailedMount", &[&absent, "not found"])?;
    Ok(())
}

fn two_classes_in_one_pod_have_a_secret_each() -> Result<()> {
    let fixture = fixture("external-two")?;
    let values = ["one", "two"].map(|name| set(&fixture, name, "v1"));
    for name in ["one", "two"] {
        class(&fixture, "v1", name, &[name], &opaque(&format!("mirrored-{name}"), name))?;
    }
    fixture.pod("web", &["one", "two"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    for (name, value) in ["one", "two"].into_iter().zip(values) {
        let value = value?;
        assert_eq!(exec(&fixture.namespace, "web", &["cat", &format!("/mnt/{name}/{name}")])?, value);
        wait_for_value(&fixture.namespace, &format!("mirrored-{name}"), "username", &value)?;
        wait_for_owners(&fixture.namespace, &format!("mirrored-{name}"), 1)?;
    }
    Ok(())
}

/// Each mount and refresh has tokens for the CSIDriver object's audiences among its attributes, and
/// the Secret's keys. A newer kubelet delivers the tokens among the secrets.
fn the_kubelets_tokens_reach_the_provider() -> Result<()> {
    let fixture = fixture("external-tokens")?;
    set(&fixture, "a", "v1")?;
    class(&fixture, "v1", "demo", &["a"], &json!([]))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    let uid = fixture.uid("web")?;
    let requests = || {
        let seen = provider(ReferenceProvider::requests)?;
        Ok::<_, anyhow::Error>(seen.into_iter().filter(|seen| seen.target.contains(&uid)).collect::<Vec<_>>())
    };
    let mut keys = vec!["clientid", "clientsecret"];
    if release::tokens_are_among_secrets()? {
        keys.push(TOKENS);
    }
    keys.sort_unstable();
    wait_for("it is refreshed", || Ok(requests()?.len() >= 3))?;
    for (at, seen) in requests()?.into_iter().enumerate() {
        ensure!(seen.audiences.iter().any(|audience| audience == AUDIENCE), "{at}: {:?}", seen.audiences);
        let mut secrets = seen.secrets.context("no secrets")?;
        secrets.sort();
        assert_eq!(secrets, keys, "{at}");
        assert_eq!(seen.attributes.get("csi.storage.k8s.io/pod.uid"), Some(&uid), "{at}");
        assert_eq!(seen.held.len(), usize::from(at > 0), "{at}");
    }
    Ok(())
}

fn the_providers_calls_are_counted() -> Result<()> {
    let fixture = fixture("external-counted")?;
    set(&fixture, "a", "v1")?;
    class(&fixture, "v1", "demo", &["a"], &json!([]))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    let label = format!("provider=\"{NAME}\"");
    for name in ["node_publish_total{", "rotation_reconcile_total{"] {
        wait_for(name, || {
            let metrics = node::http(8095, "/metrics")?.unwrap_or_default();
            Ok(metrics.lines().any(|line| line.starts_with(name) && line.contains(&label)))
        })?;
    }
    Ok(())
}
