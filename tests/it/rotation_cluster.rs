//! What a real API server is told about refreshes: nothing in quiet times, each change once, each failure once.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::apiserver::{CLASSES, Cluster, Rights, STATUSES, User, cluster, watching};
use crate::lab::{Node, Vault, lab};
use crate::rotation::{PATIENCE, cycles, metric};

trials! { "rotation_cluster":
    quiet_cycles_write_nothing_to_the_cluster,
    a_new_value_is_written_to_each_status_once,
    a_vault_that_fails_is_told_once_to_each_pod,
    a_class_that_is_gone_and_back_is_noticed,
    a_restarted_driver_reads_statuses_and_writes_none,
}

const EVENTS: (&str, &str) = ("Event", "events");

struct Scene {
    cluster: &'static Cluster,
    node: Node,
    user: User,
    vault: Vault,
    namespace: String,
}

/// A driver that rotates at this interval, and a namespace with the class `demo`, which mounts the secrets `a` and `b`.
fn scene(interval: &str) -> Result<Scene> {
    let (cluster, vault) = (cluster()?, lab().vault());
    vault.set("a");
    vault.set("b");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["a", "b"])?;
    let user = cluster.user(Rights::Rotation)?;
    let mut setup = cluster.setup(&user);
    setup.flags.push("--enable-secret-rotation".to_owned());
    setup.flags.push(format!("--rotation-poll-interval={interval}"));
    let node = Node::start(setup)?;
    watching(&node)?;
    wait_for("the driver watches pods", PATIENCE, || Ok(node.log().contains("\"watching pods\"")))?;
    Ok(Scene { cluster, node, user, vault, namespace })
}

impl Scene {
    /// Publishes this many pods and waits until each has its status.
    fn pods(&self, count: usize) -> Result<Vec<Volume>> {
        let pod = |number: usize| Volume {
            namespace: self.namespace.clone(),
            pod: format!("web-{number}"),
            ..self.vault.volume("demo")
        };
        let pods: Vec<Volume> = (0..count).map(pod).collect();
        for pod in &pods {
            self.node.publish(pod)?;
        }
        // The server's log tells of a call when its answer has gone out.
        wait_for("each has its status", PATIENCE, || {
            Ok(self.cluster.count(&self.user, "create", STATUSES.1)? == count)
        })?;
        Ok(pods)
    }

    fn statuses(&self) -> Result<Vec<Value>> {
        self.cluster.list(STATUSES, &self.namespace)?.into_iter().map(|one| Ok(serde_json::to_value(one)?)).collect()
    }

    /// Waits until every status has this value at this place.
    fn all_say(&self, path: &str, value: Option<&Value>) -> Result<()> {
        wait_for(&format!("{path} is {value:?}"), PATIENCE, || {
            Ok(self.statuses()?.iter().all(|status| status.pointer(path) == value))
        })
    }

    /// How often the driver wrote anything.
    fn writes(&self) -> Result<usize> {
        let verbs = ["create", "update", "patch", "delete"];
        Ok(self.cluster.calls(&self.user)?.iter().filter(|call| verbs.contains(&call.verb.as_str())).count())
    }

    fn more_cycles(&self, count: f64) -> Result<()> {
        let wanted = cycles(&self.node)? + count;
        wait_for("more cycles", PATIENCE, || Ok(cycles(&self.node)? >= wanted))
    }
}

fn quiet_cycles_write_nothing_to_the_cluster() -> Result<()> {
    let scene = scene("200ms")?;
    scene.pods(10)?;
    let calls = scene.cluster.calls(&scene.user)?.len();
    let before = scene.statuses()?;
    scene.more_cycles(20.0)?;
    assert_eq!(scene.statuses()?, before, "a status was written");
    let after = scene.cluster.calls(&scene.user)?;
    ensure!(after.len() == calls, "the API server was asked: {:?}", &after[calls..]);
    Ok(())
}

fn a_new_value_is_written_to_each_status_once() -> Result<()> {
    let scene = scene("200ms")?;
    let pods = scene.pods(5)?;
    let writes = scene.writes()?;
    let value = lab().secret("a");
    let version = lab().azure().set_secret(&scene.vault.name, "a", &value);
    scene.all_say("/status/objects/0", Some(&json!({ "id": "secret/a", "version": version })))?;
    for pod in &pods {
        assert_eq!(fs::read_to_string(scene.node.kubelet.target(pod).join("a"))?, value);
    }
    scene.more_cycles(5.0)?;
    wait_for("five writes", PATIENCE, || Ok(scene.writes()? >= writes + 5))?;
    assert_eq!(scene.writes()?, writes + 5);
    ensure!(scene.cluster.list(EVENTS, &scene.namespace)?.is_empty(), "a rotation is no event");
    Ok(())
}

fn a_vault_that_fails_is_told_once_to_each_pod() -> Result<()> {
    let scene = scene("300ms")?;
    let pods = scene.pods(5)?;
    let writes = scene.writes()?;
    let before = fs::read_to_string(scene.node.kubelet.target(&pods[0]).join("a"))?;
    lab().azure().add_fault(Fault::new(Action::status(503)).host(&scene.vault.name));
    let version = lab().azure().set_secret(&scene.vault.name, "a", &lab().secret("a"));
    scene.all_say("/status/reason", Some(&json!("VaultUnavailable")))?;
    wait_for("five cycles failed", PATIENCE, || {
        Ok(metric(&scene.node, "rotation_reconcile_error_total", &["reason=\"VaultUnavailable\""])? >= 25.0)
    })?;
    for pod in &pods {
        assert_eq!(fs::read_to_string(scene.node.kubelet.target(pod).join("a"))?, before);
    }
    wait_for("each pod has an event", PATIENCE, || Ok(scene.cluster.list(EVENTS, &scene.namespace)?.len() == 5))?;
    for event in scene.cluster.list(EVENTS, &scene.namespace)? {
        assert_eq!(event.data["reason"], "FailedRefreshVaultUnavailable");
        assert_eq!(event.data["count"], 1);
        let text = event.data["message"].as_str().context("no message")?;
        ensure!(text.contains("keeps what it holds") && text.contains(&scene.vault.name), "{text}");
        lab().remember(text);
    }
    for status in scene.statuses()? {
        ensure!(status["status"]["message"].as_str().is_some_and(|text| text.contains(&scene.vault.name)), "{status}");
        lab().remember(&status.to_string());
    }
    wait_for("ten writes", PATIENCE, || Ok(scene.writes()? >= writes + 10))?;
    assert_eq!(scene.writes()?, writes + 10, "an event and a status each");
    lab().azure().clear_faults(&scene.vault.name);
    scene.all_say("/status/objects/0/version", Some(&json!(version)))?;
    scene.all_say("/status/reason", None)?;
    scene.all_say("/status/message", None)?;
    scene.more_cycles(3.0)?;
    wait_for("five more", PATIENCE, || Ok(scene.writes()? >= writes + 15))?;
    assert_eq!(scene.writes()?, writes + 15);
    Ok(())
}

fn a_class_that_is_gone_and_back_is_noticed() -> Result<()> {
    let scene = scene("1s")?;
    let pods = scene.pods(2)?;
    let classes = scene.cluster.api(CLASSES, Some(&scene.namespace));
    scene.cluster.block_on(classes.delete("demo", &DeleteParams::default()))?;
    scene.all_say("/status/reason", Some(&json!("ClassNotFound")))?;
    for pod in &pods {
        scene.node.publish(pod)?;
        ensure!(scene.node.kubelet.target(pod).join("a").exists());
    }
    scene.cluster.class(&scene.namespace, "demo", &scene.vault, &["b"])?;
    scene.all_say("/status/reason", None)?;
    for pod in &pods {
        let target = scene.node.kubelet.target(pod);
        ensure!(!target.join("a").exists() && target.join("b").exists());
    }
    // With an interval of an hour only the watch can tell.
    let hourly = self::scene("1h")?;
    let pods = hourly.pods(1)?;
    let value = lab().secret("b");
    lab().azure().set_secret(&hourly.vault.name, "b", &value);
    let change = json!({ "metadata": { "annotations": { "keyvault-csi/refresh": "now" } } });
    let classes = hourly.cluster.api(CLASSES, Some(&hourly.namespace));
    let (patch, params) = (Patch::Merge(change), PatchParams::default());
    hourly.cluster.block_on(classes.patch("demo", &params, &patch))?;
    let file = hourly.node.kubelet.target(&pods[0]).join("b");
    wait_for("it is refreshed", Duration::from_secs(10), || Ok(fs::read_to_string(&file)? == value))
}

fn a_restarted_driver_reads_statuses_and_writes_none() -> Result<()> {
    let Scene { cluster, node, user, vault, namespace } = scene("300ms")?;
    let scene = Scene { cluster, node, user, vault, namespace };
    let pods = scene.pods(3)?;
    let (before, writes) = (scene.statuses()?, scene.writes()?);
    let Scene { cluster, node, user, vault, namespace } = scene;
    let node = Node::start(node.driver.kill()?)?;
    let scene = Scene { cluster, node, user, vault, namespace };
    for pod in &pods {
        scene.node.publish(pod)?;
    }
    wait_for("each is read", PATIENCE, || Ok(cluster.count(&scene.user, "get", STATUSES.1)? == 3))?;
    scene.more_cycles(5.0)?;
    assert_eq!((scene.writes()?, scene.statuses()?), (writes, before));
    assert_eq!(cluster.count(&scene.user, "get", STATUSES.1)?, 3, "read once");
    // One that was deleted meanwhile is made again when there is something to say.
    let name = scene.statuses()?[0]["metadata"]["name"].as_str().context("no name")?.to_owned();
    let api = cluster.api(STATUSES, Some(&scene.namespace));
    cluster.block_on(api.delete(&name, &DeleteParams::default()))?;
    let version = lab().azure().set_secret(&scene.vault.name, "a", &lab().secret("a"));
    scene.all_say("/status/objects/0/version", Some(&json!(version)))?;
    wait_for("it is there again", PATIENCE, || Ok(scene.statuses()?.len() == 3))
}
