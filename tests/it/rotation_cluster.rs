//! What a real API server gets about refreshes: nothing in quiet times, each change once, each
//! failure once.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::apiserver::{CLASSES, Cluster, Rights, STATUSES, User, cluster, wait_for_watch};
use crate::harness::{Node, Vault, harness};
use crate::rotation::{PATIENCE, cycles, metric};

trials! { "rotation_cluster":
    quiet_cycles_write_nothing_to_the_cluster,
    a_new_value_is_written_to_each_status_once,
    a_failing_vault_causes_one_event_for_each_pod,
    a_deleted_and_recreated_class_is_noticed,
    a_restarted_driver_reads_statuses_and_writes_none,
}

const EVENTS: (&str, &str) = ("Event", "events");

struct Fixture {
    cluster: &'static Cluster,
    node: Node,
    user: User,
    vault: Vault,
    namespace: String,
}

/// Starts a driver that rotates at this interval, and creates a namespace with the class `demo` of
/// the secrets `a` and `b`.
fn fixture(interval: &str) -> Result<Fixture> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("a");
    vault.set("b");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["a", "b"])?;
    let user = cluster.user(Rights::Rotation)?;
    let mut setup = cluster.setup(&user);
    setup.flags.push("--enable-secret-rotation".to_owned());
    setup.flags.push(format!("--rotation-poll-interval={interval}"));
    let node = Node::start(setup)?;
    wait_for_watch(&node)?;
    wait_for("the driver watches pods", PATIENCE, || Ok(node.log().contains("\"watching pods\"")))?;
    Ok(Fixture { cluster, node, user, vault, namespace })
}

impl Fixture {
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
        // The server logs a call after its response.
        wait_for("all statuses", PATIENCE, || Ok(self.cluster.count(&self.user, "create", STATUSES.1)? == count))?;
        Ok(pods)
    }

    fn statuses(&self) -> Result<Vec<Value>> {
        self.cluster.list(STATUSES, &self.namespace)?.into_iter().map(|one| Ok(serde_json::to_value(one)?)).collect()
    }

    /// Waits until every status has this value at this path.
    fn all_have(&self, path: &str, value: Option<&Value>) -> Result<()> {
        wait_for(&format!("{path} is {value:?}"), PATIENCE, || {
            Ok(self.statuses()?.iter().all(|status| status.pointer(path) == value))
        })
    }

    /// Returns the number of the driver's writes.
    fn writes(&self) -> Result<usize> {
        let verbs = ["create", "update", "patch", "delete"];
        Ok(self.cluster.calls(&self.user)?.iter().filter(|call| verbs.contains(&call.verb.as_str())).count())
    }

    fn more_cycles(&self, count: f64) -> Result<()> {
        let last = cycles(&self.node)? + count;
        wait_for("more cycles", PATIENCE, || Ok(cycles(&self.node)? >= last))
    }
}

fn quiet_cycles_write_nothing_to_the_cluster() -> Result<()> {
    let fixture = fixture("200ms")?;
    fixture.pods(10)?;
    let calls = fixture.cluster.calls(&fixture.user)?.len();
    let before = fixture.statuses()?;
    fixture.more_cycles(20.0)?;
    assert_eq!(fixture.statuses()?, before, "a status was written");
    let after = fixture.cluster.calls(&fixture.user)?;
    ensure!(after.len() == calls, "the API server got requests: {:?}", &after[calls..]);
    Ok(())
}

fn a_new_value_is_written_to_each_status_once() -> Result<()> {
    let fixture = fixture("200ms")?;
    let pods = fixture.pods(5)?;
    let writes = fixture.writes()?;
    let value = harness().secret("a");
    let version = harness().azure().set_secret(&fixture.vault.name, "a", &value);
    fixture.all_have("/status/objects/0", Some(&json!({ "id": "secret/a", "version": version })))?;
    for pod in &pods {
        assert_eq!(fs::read_to_string(fixture.node.kubelet.target(pod).join("a"))?, value);
    }
    fixture.more_cycles(5.0)?;
    wait_for("five writes", PATIENCE, || Ok(fixture.writes()? >= writes + 5))?;
    assert_eq!(fixture.writes()?, writes + 5);
    ensure!(fixture.cluster.list(EVENTS, &fixture.namespace)?.is_empty(), "a rotation is no event");
    Ok(())
}

fn a_failing_vault_causes_one_event_for_each_pod() -> Result<()> {
    let fixture = fixture("300ms")?;
    let pods = fixture.pods(5)?;
    let writes = fixture.writes()?;
    let before = fs::read_to_string(fixture.node.kubelet.target(&pods[0]).join("a"))?;
    harness().azure().add_fault(Fault::new(Action::status(503)).host(&fixture.vault.name));
    let version = harness().azure().set_secret(&fixture.vault.name, "a", &harness().secret("a"));
    fixture.all_have("/status/reason", Some(&json!("VaultUnavailable")))?;
    wait_for("five cycles failed", PATIENCE, || {
        Ok(metric(&fixture.node, "rotation_reconcile_error_total", &["reason=\"VaultUnavailable\""])? >= 25.0)
    })?;
    for pod in &pods {
        assert_eq!(fs::read_to_string(fixture.node.kubelet.target(pod).join("a"))?, before);
    }
    wait_for("an event for each pod", PATIENCE, || Ok(fixture.cluster.list(EVENTS, &fixture.namespace)?.len() == 5))?;
    for event in fixture.cluster.list(EVENTS, &fixture.namespace)? {
        assert_eq!(event.data["reason"], "FailedRefreshVaultUnavailable");
        assert_eq!(event.data["count"], 1);
        let text = event.data["message"].as_str().context("no message")?;
        ensure!(text.contains("keeps what it holds") && text.contains(&fixture.vault.name), "{text}");
        harness().remember(text);
    }
    for status in fixture.statuses()? {
        ensure!(
            status["status"]["message"].as_str().is_some_and(|text| text.contains(&fixture.vault.name)),
            "{status}"
        );
        harness().remember(&status.to_string());
    }
    wait_for("ten writes", PATIENCE, || Ok(fixture.writes()? >= writes + 10))?;
    assert_eq!(fixture.writes()?, writes + 10, "an event and a status each");
    harness().azure().clear_faults(&fixture.vault.name);
    fixture.all_have("/status/objects/0/version", Some(&json!(version)))?;
    fixture.all_have("/status/reason", None)?;
    fixture.all_have("/status/message", None)?;
    fixture.more_cycles(3.0)?;
    wait_for("five more", PATIENCE, || Ok(fixture.writes()? >= writes + 15))?;
    assert_eq!(fixture.writes()?, writes + 15);
    Ok(())
}

fn a_deleted_and_recreated_class_is_noticed() -> Result<()> {
    let fixture = fixture("1s")?;
    let pods = fixture.pods(2)?;
    let classes = fixture.cluster.api(CLASSES, Some(&fixture.namespace));
    fixture.cluster.block_on(classes.delete("demo", &DeleteParams::default()))?;
    fixture.all_have("/status/reason", Some(&json!("ClassNotFound")))?;
    for pod in &pods {
        fixture.node.publish(pod)?;
        ensure!(fixture.node.kubelet.target(pod).join("a").exists());
    }
    fixture.cluster.class(&fixture.namespace, "demo", &fixture.vault, &["b"])?;
    fixture.all_have("/status/reason", None)?;
    for pod in &pods {
        let target = fixture.node.kubelet.target(pod);
        ensure!(!target.join("a").exists() && target.join("b").exists());
    }
    // With an interval of an hour only the watch can trigger a refresh.
    let hourly = self::fixture("1h")?;
    let pods = hourly.pods(1)?;
    let value = harness().secret("b");
    harness().azure().set_secret(&hourly.vault.name, "b", &value);
    let change = json!({ "metadata": { "annotations": { "keyvault-csi/refresh": "now" } } });
    let classes = hourly.cluster.api(CLASSES, Some(&hourly.namespace));
    let (patch, params) = (Patch::Merge(change), PatchParams::default());
    hourly.cluster.block_on(classes.patch("demo", &params, &patch))?;
    let file = hourly.node.kubelet.target(&pods[0]).join("b");
    wait_for("a refresh", Duration::from_secs(10), || Ok(fs::read_to_string(&file)? == value))
}

fn a_restarted_driver_reads_statuses_and_writes_none() -> Result<()> {
    let Fixture { cluster, node, user, vault, namespace } = fixture("300ms")?;
    let fixture = Fixture { cluster, node, user, vault, namespace };
    let pods = fixture.pods(3)?;
    let (before, writes) = (fixture.statuses()?, fixture.writes()?);
    let Fixture { cluster, node, user, vault, namespace } = fixture;
    let node = Node::start(node.driver.kill()?)?;
    let fixture = Fixture { cluster, node, user, vault, namespace };
    for pod in &pods {
        fixture.node.publish(pod)?;
    }
    wait_for("each status is read", PATIENCE, || Ok(cluster.count(&fixture.user, "get", STATUSES.1)? == 3))?;
    fixture.more_cycles(5.0)?;
    assert_eq!((fixture.writes()?, fixture.statuses()?), (writes, before));
    assert_eq!(cluster.count(&fixture.user, "get", STATUSES.1)?, 3, "read once");
    // A status that was deleted meanwhile is created again with the next change.
    let name = fixture.statuses()?[0]["metadata"]["name"].as_str().context("no name")?.to_owned();
    let api = cluster.api(STATUSES, Some(&fixture.namespace));
    cluster.block_on(api.delete(&name, &DeleteParams::default()))?;
    let version = harness().azure().set_secret(&fixture.vault.name, "a", &harness().secret("a"));
    fixture.all_have("/status/objects/0/version", Some(&json!(version)))?;
    wait_for("the status exists again", PATIENCE, || Ok(fixture.statuses()?.len() == 3))
}
