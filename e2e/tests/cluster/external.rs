//! Classes of another provider: the scenarios of upstream's `e2e-provider` suite
//! (docs/reference/csi-driver.md#end-to-end-scenarios), with real pods.
//!
//! The reference provider runs as a process on the node, with its socket in the folder that the chart gives to the driver. Its values
//! are set by each test under names of its own. What needs no kubelet and no garbage collector stands in `tests/it/external*.rs`.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use keyvault_csi_e2e::reference::{self, Options, ProviderProcess};
use serde_json::{Value, json};

use crate::kubectl::{delete_pod, event, exec, kubectl, ready, wait_for};
use crate::node;
use crate::place;
use crate::release::kubelet_root;
use crate::rotating::{becomes, gone, owned_by, reads, scene, two_deployments};
use crate::scene::{AUDIENCE, Scene};

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
/// The word that makes this program a provider.
const ROLE: &str = "reference-provider";

static PROVIDER: Mutex<Option<ProviderProcess>> = Mutex::new(None);

/// Runs as a provider if the command line says so.
pub(crate) fn is_provider() -> Option<Result<()>> {
    let mut words = std::env::args_os().skip(1).peekable();
    words.next_if(|word| word == ROLE)?;
    let words = std::iter::once(ROLE.into()).chain(words);
    Some(Options::try_parse_from(words).map_err(Into::into).and_then(|options| reference::run(&options)))
}

/// Ends the provider, if there was one.
pub(crate) fn stop() {
    PROVIDER.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Asks the provider something; the first one starts it.
fn provider<T>(ask: impl FnOnce(&ProviderProcess) -> Result<T>) -> Result<T> {
    let mut running = PROVIDER.lock().unwrap_or_else(PoisonError::into_inner);
    if running.is_none() {
        let options = Options { socket: place::providers()?.join(format!("{NAME}.sock")), control: CONTROL.parse()? };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE);
        *running = Some(ProviderProcess::start(command, &options)?);
    }
    ask(running.as_ref().context("no provider")?)
}

/// Sets a value that only this scene uses, and returns it.
fn set(scene: &Scene, name: &str, version: &str) -> Result<String> {
    let value = format!("{version} of {name} in {}", scene.namespace);
    provider(|provider| {
        provider.tell("/secret", &[("name", &of(scene, name)), ("value", &value), ("version", version)])
    })?;
    Ok(value)
}

/// The provider's name for a value of this scene.
fn of(scene: &Scene, name: &str) -> String {
    format!("{}-{name}", scene.namespace)
}

/// A class of the provider that mounts values under their own names.
fn class(scene: &Scene, version: &str, name: &str, values: &[&str], secret_objects: &Value) -> Result<()> {
    let object = |value: &&str| format!("  - |\n    objectName: {}\n    path: {value}\n", of(scene, value));
    let objects = values.iter().fold("array:\n".to_owned(), |objects, value| objects + &object(value));
    let class = json!({
        "apiVersion": format!("secrets-store.csi.x-k8s.io/{version}"), "kind": "SecretProviderClass",
        "metadata": {"name": name},
        "spec": {"provider": NAME, "parameters": {"objects": objects}, "secretObjects": secret_objects},
    });
    scene.apply(&class.to_string())
}

fn opaque(name: &str, object: &str) -> Value {
    let data = json!([{"objectName": object, "key": "username"}]);
    json!([{"secretName": name, "type": "Opaque", "labels": {"environment": "test"}, "data": data}])
}

fn a_pod_reads_its_files_and_leaves_nothing() -> Result<()> {
    for version in ["v1", "v1alpha1"] {
        let scene = scene("external")?;
        let (secret, key) = (set(&scene, "secret", "v1")?, set(&scene, "nested/key", "v1")?);
        class(&scene, version, "demo", &["secret", "nested/key"], &json!([]))?;
        scene.pod("web", &["demo"], FOREVER)?;
        ready(&scene.namespace, "web")?;
        assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/demo/secret"])?, secret);
        assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/demo/nested/key"])?, key);
        let folder = kubelet_root().join("pods").join(scene.uid("web")?);
        ensure!(!node::mounts(&folder)?.is_empty());
        delete_pod(&scene.namespace, "web")?;
        wait_for("the pod's folder is gone", || Ok(!node::exists(&folder)?))?;
        ensure!(node::mounts(&folder)?.is_empty());
    }
    Ok(())
}

fn a_changed_value_reaches_file_and_secret() -> Result<()> {
    let scene = scene("external-rotated")?;
    let old = set(&scene, "a", "v1")?;
    class(&scene, "v1", "demo", &["a"], &opaque("mirrored", "a"))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    becomes(&scene.namespace, "mirrored", "username", &old)?;
    let new = set(&scene, "a", "v2")?;
    reads(&scene.namespace, "web", "/mnt/demo/a", &new)?;
    becomes(&scene.namespace, "mirrored", "username", &new)
}

fn two_deployments_own_one_secret_until_the_last_is_gone() -> Result<()> {
    let scene = scene("external-owners")?;
    let value = set(&scene, "a", "v1")?;
    class(&scene, "v1", "demo", &["a"], &opaque("mirrored", "a"))?;
    two_deployments(&scene, &value)?;
    for (name, left) in [("one", Some(1)), ("two", None)] {
        kubectl(&["delete", "deployment", name, "--namespace", &scene.namespace, "--timeout=120s"])?;
        match left {
            Some(left) => owned_by(&scene.namespace, "mirrored", left)?,
            None => gone(&scene.namespace, "mirrored")?,
        }
    }
    Ok(())
}

fn the_class_is_the_namespaces_own() -> Result<()> {
    let (here, there) = (scene("external-here")?, scene("external-there")?);
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
    let scene = scene("external-two")?;
    let values = ["one", "two"].map(|name| set(&scene, name, "v1"));
    for name in ["one", "two"] {
        class(&scene, "v1", name, &[name], &opaque(&format!("mirrored-{name}"), name))?;
    }
    scene.pod("web", &["one", "two"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    for (name, value) in ["one", "two"].into_iter().zip(values) {
        let value = value?;
        assert_eq!(exec(&scene.namespace, "web", &["cat", &format!("/mnt/{name}/{name}")])?, value);
        becomes(&scene.namespace, &format!("mirrored-{name}"), "username", &value)?;
        owned_by(&scene.namespace, &format!("mirrored-{name}"), 1)?;
    }
    Ok(())
}

/// Tokens for the audiences of the CSIDriver object, and the Secret's keys, at the mount and at refreshes.
fn the_kubelets_tokens_reach_the_provider() -> Result<()> {
    let scene = scene("external-tokens")?;
    set(&scene, "a", "v1")?;
    class(&scene, "v1", "demo", &["a"], &json!([]))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    let uid = scene.uid("web")?;
    let asked = || {
        let seen = provider(ProviderProcess::requests)?;
        Ok::<_, anyhow::Error>(seen.into_iter().filter(|seen| seen.target.contains(&uid)).collect::<Vec<_>>())
    };
    wait_for("it is refreshed", || Ok(asked()?.len() >= 3))?;
    for (at, seen) in asked()?.into_iter().enumerate() {
        ensure!(seen.audiences.iter().any(|audience| audience == AUDIENCE), "{at}: {:?}", seen.audiences);
        assert_eq!(seen.secrets, Some(vec!["clientid".to_owned(), "clientsecret".to_owned()]), "{at}");
        assert_eq!(seen.attributes.get("csi.storage.k8s.io/pod.uid"), Some(&uid), "{at}");
        assert_eq!(seen.held.len(), usize::from(at > 0), "{at}");
    }
    Ok(())
}

fn the_providers_calls_are_counted() -> Result<()> {
    let scene = scene("external-counted")?;
    set(&scene, "a", "v1")?;
    class(&scene, "v1", "demo", &["a"], &json!([]))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    let label = format!("provider=\"{NAME}\"");
    for name in ["node_publish_total{", "rotation_reconcile_total{"] {
        wait_for(name, || {
            let metrics = node::http(8095, "/metrics")?.unwrap_or_default();
            Ok(metrics.lines().any(|line| line.starts_with(name) && line.contains(&label)))
        })?;
    }
    Ok(())
}
