//! Terminating, finished and annotated pods: how rotation uses the watch of this node's pods, with
//! the chart's RBAC rules.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::apiserver::{Rights, User, wait_for_watch};
use crate::harness::Node;
use crate::mirror_fixture::{Fixture, PODS, decoded};
use crate::rotation::{PATIENCE, cycles};

trials! { "rotation_pods":
    an_annotated_pod_is_refreshed_and_no_other,
    a_terminating_pod_is_not_refreshed,
    a_finished_pod_is_not_refreshed,
    a_new_value_is_in_a_hundred_volumes_and_in_the_secret,
}

/// Starts a driver that rotates, with these rights and flags.
fn rotating(fixture: &Fixture, rights: Rights, flags: &[&str]) -> Result<(Node, User)> {
    let user = fixture.cluster.user(rights)?;
    let flags = ["--enable-secret-rotation"].iter().chain(flags);
    let node = Node::start(fixture.setup(&user, "a", flags.copied()))?;
    wait_for_watch(&node)?;
    Ok((node, user))
}

fn holds(target: &Path, value: &str) -> Result<bool> {
    Ok(fs::read_to_string(target.join("password"))? == value)
}

fn an_annotated_pod_is_refreshed_and_no_other() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("password");
    fixture.class("annotated", &["password"], &Value::Null)?;
    fixture.class("other", &["password"], &Value::Null)?;
    let (node, _) = rotating(&fixture, Rights::Rotation, &["--rotation-poll-interval=1h"])?;
    let annotated = fixture.pod("annotated", "a", "annotated", &Value::Null)?;
    let other = fixture.pod("other", "a", "other", &Value::Null)?;
    let (target, other) = (node.publish(&annotated)?, node.publish(&other)?);
    let mut number = 0;
    for _ in 0..3 {
        let value = fixture.vault.set("password");
        let change = |value: &str| json!({ "metadata": { "annotations": { "keyvault-csi/refresh": value } } });
        // Only a change triggers a refresh, and the watch may see the pod for the first time only
        // now.
        wait_for("a refresh", PATIENCE, || {
            number += 1;
            fixture.merge(PODS, "annotated", &change(&number.to_string()))?;
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) {
                if holds(&target, &value)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        ensure!(!holds(&other, &value)?, "a refresh without an annotation");
    }
    Ok(())
}

fn a_terminating_pod_is_not_refreshed() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("password");
    fixture.class("demo", &["password"], &Value::Null)?;
    let (node, _) = rotating(&fixture, Rights::Rotation, &["--rotation-poll-interval=200ms"])?;
    let (terminating, running) =
        (fixture.pod("terminating", "a", "demo", &Value::Null)?, fixture.pod("running", "a", "demo", &Value::Null)?);
    let (target, other) = (node.publish(&terminating)?, node.publish(&running)?);
    let old = fixture.vault.set("password");
    wait_for("refreshes of both pods", PATIENCE, || Ok(holds(&target, &old)? && holds(&other, &old)?))?;
    let api = fixture.cluster.api(PODS, Some(&fixture.namespace));
    let deleted = fixture.cluster.block_on(
        api.delete("terminating", &DeleteParams { grace_period_seconds: Some(600), ..DeleteParams::default() }),
    )?;
    ensure!(deleted.left().is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()), "the pod is gone at once");
    // Until the watch has the change, a cycle may still write.
    let before = cycles(&node)?;
    wait_for("some cycles", PATIENCE, || Ok(cycles(&node)? >= before + 5.0))?;
    let new = fixture.vault.set("password");
    wait_for("a refresh of the other pod", PATIENCE, || holds(&other, &new))?;
    ensure!(holds(&target, &old)?, "a terminating pod's volume was written");
    node.kubelet.unpublish(&terminating)?;
    Ok(())
}

fn a_finished_pod_is_not_refreshed() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("password");
    fixture.class("demo", &["password"], &Value::Null)?;
    let (node, _) = rotating(&fixture, Rights::Rotation, &["--rotation-poll-interval=200ms"])?;
    let job = fixture.pod("job", "a", "demo", &Value::Null)?;
    let target = node.publish(&job)?;
    let old = fixture.vault.set("password");
    wait_for("a refresh", PATIENCE, || holds(&target, &old))?;
    let api = fixture.cluster.api(PODS, Some(&fixture.namespace));
    let status = json!({ "status": { "phase": "Succeeded" } });
    let (patch, params) = (kube::api::Patch::Merge(status), kube::api::PatchParams::default());
    fixture.cluster.block_on(api.patch_status("job", &params, &patch))?;
    // No pod is left for its fetch, so the requests to the vault stop.
    wait_for("a second without a request", PATIENCE, || {
        let requests = fixture.vault.counters().total();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            if fixture.vault.counters().total() != requests {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    let new = fixture.vault.set("password");
    ensure!(holds(&target, &old)?);
    // A new call of the kubelet means that the volume is in use.
    node.publish(&job)?;
    wait_for("another refresh", PATIENCE, || holds(&target, &new))
}

fn a_new_value_is_in_a_hundred_volumes_and_in_the_secret() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("password");
    let secret_objects = json!([{ "secretName": "mirrored", "type": "Opaque", "data": [{ "objectName": "password", "key": "password" }] }]);
    fixture.class("demo", &["password"], &secret_objects)?;
    let (node, _) = rotating(&fixture, Rights::Sync, &["--rotation-poll-interval=1s", "--sync-secret=true"])?;
    let owner = fixture.replica_set("web")?;
    let targets: Vec<_> = (0..100)
        .map(|number| Ok(node.publish(&fixture.pod(&format!("web-{number}"), "a", "demo", &owner)?)?))
        .collect::<Result<_>>()?;
    fixture.there("mirrored")?;
    for _ in 0..3 {
        let value = fixture.vault.set("password");
        let began = Instant::now();
        for target in &targets {
            wait_for("the value in the file", PATIENCE, || holds(target, &value))?;
        }
        wait_for("the value in the Secret", PATIENCE, || {
            Ok(fixture.secret("mirrored")?.is_some_and(|secret| decoded(&secret, "password") == Some(value.clone())))
        })?;
        // The interval, and five seconds.
        ensure!(began.elapsed() < Duration::from_secs(6), "only after {:?}", began.elapsed());
    }
    Ok(())
}
