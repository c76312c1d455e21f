//! Pods that end and pods that ask: what rotation takes from the watch of this node's pods, with the rights that are shipped.

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
    a_pod_that_asks_is_refreshed_and_no_other,
    a_pod_that_is_being_deleted_is_left_alone,
    a_pod_that_has_ended_is_left_alone,
    a_new_value_is_in_a_hundred_volumes_and_in_the_secret,
}

/// A driver that rotates at this interval, with these rights.
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

fn a_pod_that_asks_is_refreshed_and_no_other() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("password");
    fixture.class("asked", &["password"], &Value::Null)?;
    fixture.class("other", &["password"], &Value::Null)?;
    let (node, _) = rotating(&fixture, Rights::Rotation, &["--rotation-poll-interval=1h"])?;
    let asks = fixture.pod("asks", "a", "asked", &Value::Null)?;
    let (target, other) = (node.publish(&asks)?, node.publish(&fixture.pod("silent", "a", "other", &Value::Null)?)?);
    let mut asked = 0;
    for _ in 0..3 {
        let value = fixture.vault.set("password");
        let change = |value: &str| json!({ "metadata": { "annotations": { "keyvault-csi/refresh": value } } });
        // It counts that it changes; the pod may be looked at for the first time only now, which is no change.
        wait_for("it is refreshed", PATIENCE, || {
            asked += 1;
            fixture.merge(PODS, "asks", &change(&asked.to_string()))?;
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) {
                if holds(&target, &value)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        ensure!(!holds(&other, &value)?, "nobody asked for that");
    }
    Ok(())
}

fn a_pod_that_is_being_deleted_is_left_alone() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("password");
    fixture.class("demo", &["password"], &Value::Null)?;
    let (node, _) = rotating(&fixture, Rights::Rotation, &["--rotation-poll-interval=200ms"])?;
    let (ends, stays) =
        (fixture.pod("ends", "a", "demo", &Value::Null)?, fixture.pod("stays", "a", "demo", &Value::Null)?);
    let (ending, staying) = (node.publish(&ends)?, node.publish(&stays)?);
    let old = fixture.vault.set("password");
    wait_for("both are refreshed", PATIENCE, || Ok(holds(&ending, &old)? && holds(&staying, &old)?))?;
    let api = fixture.cluster.api(PODS, Some(&fixture.namespace));
    let deleted = fixture
        .cluster
        .block_on(api.delete("ends", &DeleteParams { grace_period_seconds: Some(600), ..DeleteParams::default() }))?;
    ensure!(deleted.left().is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()), "it is gone at once");
    // Until the watch has told it, a cycle may still write.
    let before = cycles(&node)?;
    wait_for("some cycles", PATIENCE, || Ok(cycles(&node)? >= before + 5.0))?;
    let new = fixture.vault.set("password");
    wait_for("the other one is refreshed", PATIENCE, || holds(&staying, &new))?;
    ensure!(holds(&ending, &old)?, "a pod on its way out was written to");
    node.kubelet.unpublish(&ends)?;
    Ok(())
}

fn a_pod_that_has_ended_is_left_alone() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("password");
    fixture.class("demo", &["password"], &Value::Null)?;
    let (node, _) = rotating(&fixture, Rights::Rotation, &["--rotation-poll-interval=200ms"])?;
    let job = fixture.pod("job", "a", "demo", &Value::Null)?;
    let target = node.publish(&job)?;
    let old = fixture.vault.set("password");
    wait_for("it is refreshed", PATIENCE, || holds(&target, &old))?;
    let api = fixture.cluster.api(PODS, Some(&fixture.namespace));
    let status = json!({ "status": { "phase": "Succeeded" } });
    let (patch, params) = (kube::api::Patch::Merge(status), kube::api::PatchParams::default());
    fixture.cluster.block_on(api.patch_status("job", &params, &patch))?;
    // Its fetch has nobody left, so that the vault is not asked any more.
    wait_for("the vault is left alone", PATIENCE, || {
        let asked = fixture.vault.counters().total();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            if fixture.vault.counters().total() != asked {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    let new = fixture.vault.set("password");
    ensure!(holds(&target, &old)?);
    // A kubelet that still calls knows better.
    node.publish(&job)?;
    wait_for("it is refreshed again", PATIENCE, || holds(&target, &new))
}

fn a_new_value_is_in_a_hundred_volumes_and_in_the_secret() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("password");
    let wish = json!([{ "secretName": "mirrored", "type": "Opaque", "data": [{ "objectName": "password", "key": "password" }] }]);
    fixture.class("demo", &["password"], &wish)?;
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
            wait_for("the file has it", PATIENCE, || holds(target, &value))?;
        }
        wait_for("the Secret has it", PATIENCE, || {
            Ok(fixture.secret("mirrored")?.is_some_and(|secret| decoded(&secret, "password") == Some(value.clone())))
        })?;
        // The interval, and five seconds.
        ensure!(began.elapsed() < Duration::from_secs(6), "only after {:?}", began.elapsed());
    }
    Ok(())
}
