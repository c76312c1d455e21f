//! Every right of the shipped roles is taken away in turn, by real RBAC: each time something fails that names the right.
//!
//! One test for each role, so that they run side by side. A right that nothing misses fails its test: it has to go from the chart.

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use serde_json::{Value, json};

use crate::apiserver::{Rights, STATUSES, shipped};
use crate::lab::Node;
use crate::mirror_scene::{PATIENCE, PODS, Scene, opaque};

trials! { "rights":
    every_right_of_the_driver_is_needed,
    every_right_of_rotation_is_needed,
    every_right_of_the_mirror_is_needed,
    every_right_of_the_startup_taint_is_needed,
}

const DRIVER: &str = "secretproviderclasses-role";
const ROTATION: &str = "secretproviderrotation-role";
const MIRROR: &str = "secretprovidersyncing-role";
const TAINT: &str = "secrets-store-csi-driver-startup-taint-role";
const MANAGED: &str = "secrets-store.csi.k8s.io/managed";

/// Takes each right of `role` away from a driver that has `others` besides; `act` makes the driver use it.
fn each(role: &str, others: &[&str], flags: &[&str], act: fn(&Scene, &Node, &str, &str) -> Result<()>) -> Result<()> {
    let own = rules(role)?;
    let mut all = shipped(others)?;
    all.as_array_mut().context("no rules")?.extend(own.as_array().context("no rules")?.clone());
    for rule in own.as_array().context("no rules")? {
        for verb in rule["verbs"].as_array().context("no verbs")?.iter().filter_map(Value::as_str) {
            let resource = rule["resources"][0].as_str().context("no resource")?;
            let less: Value =
                all.as_array().context("no rules")?.iter().map(|rule| without(rule, resource, verb)).collect();
            let missed = misses(less, flags, resource, verb, act);
            missed.with_context(|| format!("{role} without {verb} on {resource}"))?;
        }
    }
    Ok(())
}

/// A role's rules; the start-up taint's stand in the chart only, where `e2e/chart/cases.py` compares them.
fn rules(role: &str) -> Result<Value> {
    match role {
        TAINT => Ok(json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"] }])),
        _ => shipped(&[role]),
    }
}

/// The rule less one verb on one resource.
fn without(rule: &Value, resource: &str, verb: &str) -> Value {
    let mut rule = rule.clone();
    if rule["resources"][0] == resource
        && let Some(verbs) = rule["verbs"].as_array_mut()
    {
        verbs.retain(|one| one != verb);
        if verbs.is_empty() {
            // A rule without a verb is refused; this one allows nothing.
            verbs.push("nothing".into());
        }
    }
    rule
}

fn misses(
    rules: Value,
    flags: &[&str],
    resource: &str,
    verb: &str,
    act: fn(&Scene, &Node, &str, &str) -> Result<()>,
) -> Result<()> {
    let scene = Scene::new()?;
    scene.vault.set("a");
    let user = scene.cluster.user(Rights::None)?;
    scene.cluster.allow(&user, "less", rules)?;
    let taint = json!({ "spec": { "taints": [{ "key": "starting", "effect": "NoSchedule" }] } });
    let mut own = taint;
    own["metadata"] = json!({ "name": scene.node_name("a") });
    scene.cluster.create(("Node", "nodes"), None, own)?;
    let node = Node::start(scene.setup(&user, "a", flags.iter().copied()))?;
    act(&scene, &node, resource, verb)?;
    // The API server's own words: for taking owners to a Secret it asks for the right to delete.
    let words = match (resource, verb) {
        ("secrets", "delete") => vec!["cannot set an ownerRef on a resource you can't delete".to_owned()],
        _ => vec![format!("cannot {verb} resource"), resource.to_owned()],
    };
    wait_for(&format!("the log says {words:?}"), PATIENCE, || {
        Ok(node.log().lines().any(|line| words.iter().all(|word| line.contains(word))))
    })?;
    ensure!(!node.log().contains("panicked"));
    Ok(())
}

/// A class with a Secret, and a pod of it that has its volume.
fn published(scene: &Scene, node: &Node, pod: &str) -> Result<()> {
    Ok(node.publish(&scene.pod(pod, "a", "demo", &Value::Null)?).map(drop)?)
}

fn every_right_of_the_driver_is_needed() -> Result<()> {
    each(DRIVER, &[], &[], |scene, node, resource, verb| {
        scene.class("demo", &["a"], &json!([]))?;
        match (resource, verb) {
            ("secretproviderclasses", "get") => node.refused(&scene.pod("web", "a", "absent", &Value::Null)?).map(drop),
            ("events", _) => node.refused(&scene.pod("web", "a", "absent", &Value::Null)?).map(drop),
            ("secretproviderclasspodstatuses", "get" | "update") => {
                let name = format!("web-{}-demo", scene.namespace);
                // One of another node is there already, which is to be replaced.
                let status = json!({
                    "podName": "web", "secretProviderClassName": "demo", "mounted": true, "targetPath": "/elsewhere", "objects": [],
                });
                scene.cluster.create(
                    STATUSES,
                    Some(&scene.namespace),
                    json!({ "metadata": { "name": name }, "status": status }),
                )?;
                published(scene, node, "web")
            }
            _ => published(scene, node, "web"),
        }
    })
}

fn every_right_of_rotation_is_needed() -> Result<()> {
    let flags = ["--enable-secret-rotation=true", "--rotation-poll-interval=1s"];
    each(ROTATION, &[DRIVER], &flags, |_, _, _, _| Ok(()))
}

fn every_right_of_the_mirror_is_needed() -> Result<()> {
    each(MIRROR, &[DRIVER], &["--sync-secret=true"], |scene, node, resource, verb| {
        scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
        if resource == "secrets" && ["get", "patch"].contains(&verb) {
            // As upstream left it.
            let metadata = json!({ "name": "shop", "labels": { MANAGED: "true" } });
            scene
                .put("secrets-store-csi", json!({ "metadata": metadata, "type": "Opaque", "data": { "k": "b2xk" } }))?;
        }
        if (resource, verb) == ("pods", "get") {
            // A pod that the watch does not have is asked for: here, one that is gone.
            let pod = scene.pod("web", "a", "demo", &Value::Null)?;
            scene.delete(PODS, "web")?;
            return Ok(node.publish(&pod).map(drop)?);
        }
        published(scene, node, "web")?;
        if verb == "delete" {
            // The second pod is a second owner.
            scene.there("shop")?;
            published(scene, node, "web-2")?;
        }
        Ok(())
    })
}

fn every_right_of_the_startup_taint_is_needed() -> Result<()> {
    each(TAINT, &[DRIVER], &["--startup-taint=starting"], |_, node, _, _| {
        node.kubelet.register(&node.setup().registration_socket()).map(drop)
    })
}
