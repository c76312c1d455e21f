//! Whose the mirrored Secrets are: two nodes, several owners, Secrets that somebody else wrote, and lifetimes.

use std::time::Duration;

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::{Value, json};

use crate::apiserver::User;
use crate::lab::Node;
use crate::mirror_scene::{PATIENCE, SECRETS, Scene, decoded, opaque, owners, writes};

trials! { "mirror_owners":
    two_nodes_and_two_deployments_make_exactly_two_owners_and_no_conflict,
    two_nodes_that_rotate_at_once_make_no_conflict,
    owners_that_come_one_after_the_other_all_stay,
    older_content_of_another_node_is_not_written_back,
    a_secret_that_upstream_wrote_is_adopted,
    a_foreign_secret_is_left_alone,
    a_secret_of_another_type_is_left_alone,
    two_classes_do_not_fight_over_a_secret,
    a_secret_whose_class_is_gone_is_taken_over,
    an_owner_made_anew_takes_the_place_of_the_old_one,
    a_retained_secret_has_no_owner,
    without_the_roles_the_event_says_what_to_grant,
}

const SOON: &str = "--secret-check-interval=1s";
const MANAGED: &str = "secrets-store.csi.k8s.io/managed";

/// Two nodes with two pods each, one of each of two ReplicaSets.
struct Four {
    nodes: [(Node, User); 2],
    pods: [Vec<Volume>; 2],
    owners: Vec<String>,
}

fn four(scene: &Scene, flags: &[&str]) -> Result<Four> {
    let nodes = [scene.node("a", flags)?, scene.node("b", flags)?];
    let sets = [scene.replica_set("one")?, scene.replica_set("two")?];
    let mut pods = [Vec::new(), Vec::new()];
    for (at, suffix) in ["a", "b"].into_iter().enumerate() {
        for set in &sets {
            let name = format!("{}-{suffix}", set["name"].as_str().unwrap_or_default());
            pods[at].push(scene.pod(&name, suffix, "demo", set)?);
        }
    }
    let mut owners: Vec<String> = sets.iter().filter_map(|set| set["uid"].as_str().map(str::to_owned)).collect();
    owners.sort();
    Ok(Four { nodes, pods, owners })
}

fn two_nodes_and_two_deployments_make_exactly_two_owners_and_no_conflict() -> Result<()> {
    let scene = Scene::new()?;
    let first = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let Four { nodes, pods, owners: expected } = four(&scene, &[SOON])?;
    let publish = |at: usize| -> Result<()> {
        for pod in &pods[at] {
            nodes[at].0.kubelet.unpublish(pod)?;
            nodes[at].0.publish(pod)?;
        }
        Ok(())
    };
    publish(0)?;
    publish(1)?;
    scene.holds("shop", "k", &first)?;
    wait_for("both own it", PATIENCE, || Ok(owners(&scene.there("shop")?) == expected))?;
    for round in 0..50 {
        let value = scene.vault.set("a");
        publish(round % 2)?;
        scene.holds("shop", "k", &value)?;
        publish((round + 1) % 2)?;
    }
    let secret = scene.there("shop")?;
    assert_eq!(owners(&secret), expected);
    // Quiet: looks go on, writes do not.
    let total = || -> Result<usize> {
        Ok(writes(scene.cluster, &nodes[0].1)?.len() + writes(scene.cluster, &nodes[1].1)?.len())
    };
    let looks = |user: &User| scene.cluster.count(user, "get", "secrets");
    let settled = [looks(&nodes[0].1)?, looks(&nodes[1].1)?];
    let (before, version) = (total()?, secret["metadata"]["resourceVersion"].clone());
    wait_for("both look again", PATIENCE, || {
        Ok(looks(&nodes[0].1)? >= settled[0] + 3 && looks(&nodes[1].1)? >= settled[1] + 3)
    })?;
    assert_eq!((total()?, scene.there("shop")?["metadata"]["resourceVersion"].clone()), (before, version));
    // One write for each value, one for its creation, one for the second owner, and hardly more.
    ensure!((52..=56).contains(&before), "{before} writes");
    ensure!(undisturbed(&scene, &nodes)? == 0);
    Ok(())
}

/// That nothing was refused but a second creation, and a write of somebody who had looked before another node wrote; that
/// nobody was told of anything. Gives how many writes of the latter kind there were. (Managers' disputes cannot be among
/// them: each write is forced.)
fn undisturbed(scene: &Scene, nodes: &[(Node, User)]) -> Result<usize> {
    let mut guarded = 0;
    for (node, user) in nodes {
        let calls = scene.cluster.calls(user)?;
        let refused = calls.iter().filter(|call| call.resource == "secrets" && call.code >= 400 && call.code != 404);
        let refused = refused.filter(|call| call.code != 409 || call.verb != "create");
        let (modified, refused): (Vec<_>, Vec<_>) = refused.partition(|call| call.code == 409 && call.verb == "patch");
        ensure!(refused.is_empty(), "{refused:?}");
        guarded += modified.len();
        ensure!(!node.log().contains("not all Secrets of the class"), "{}", node.log());
    }
    assert_eq!(scene.events("FailedToCreateSecret")?, Vec::<String>::new());
    Ok(guarded)
}

/// Both drivers rotate by themselves, at an interval so short that they meet a new value in the same moment.
fn two_nodes_that_rotate_at_once_make_no_conflict() -> Result<()> {
    let scene = Scene::new()?;
    let first = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let flags = ["--enable-secret-rotation", "--rotation-poll-interval=100ms", "--secret-check-interval=1h"];
    let Four { nodes, pods, owners: expected } = four(&scene, &flags)?;
    let mut files = Vec::new();
    for (at, (node, _)) in nodes.iter().enumerate() {
        for pod in &pods[at] {
            files.push(node.publish(pod)?.join("a"));
        }
    }
    scene.holds("shop", "k", &first)?;
    wait_for("both own it", PATIENCE, || Ok(owners(&scene.there("shop")?) == expected))?;
    let wrote = |user: &User| -> Result<usize> { Ok(writes(scene.cluster, user)?.len()) };
    let before = [wrote(&nodes[0].1)?, wrote(&nodes[1].1)?];
    for _ in 0..50 {
        let value = scene.vault.set("a");
        wait_for("all files have it", PATIENCE, || {
            Ok(files.iter().all(|file| std::fs::read_to_string(file).is_ok_and(|found| found == value)))
        })?;
        scene.holds("shop", "k", &value)?;
    }
    assert_eq!(owners(&scene.there("shop")?), expected);
    // Whoever comes second finds it written; in the same moment its write is refused, and it looks again.
    let made = [wrote(&nodes[0].1)? - before[0], wrote(&nodes[1].1)? - before[1]];
    ensure!(made[0] > 0 && made[1] > 0, "one node wrote everything: {made:?}");
    let guarded = undisturbed(&scene, &nodes)?;
    ensure!(made[0] + made[1] - guarded == 50, "{made:?} writes, {guarded} of them refused");
    Ok(())
}

fn owners_that_come_one_after_the_other_all_stay() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let nodes = [scene.node("a", &[])?.0, scene.node("b", &[])?.0];
    let mut expected = Vec::new();
    for (at, suffix) in ["a", "b", "a", "b", "b"].into_iter().enumerate() {
        let set = scene.replica_set(&format!("set-{at}"))?;
        expected.extend(set["uid"].as_str().map(str::to_owned));
        expected.sort();
        nodes[usize::from(suffix == "b")].publish(&scene.pod(&format!("pod-{at}"), suffix, "demo", &set)?)?;
        scene.holds("shop", "k", &value)?;
        wait_for("all own it", PATIENCE, || Ok(owners(&scene.there("shop")?) == expected))?;
    }
    Ok(())
}

fn older_content_of_another_node_is_not_written_back() -> Result<()> {
    let scene = Scene::new()?;
    let old = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let ((late, late_user), (early, _)) = (scene.node("a", &[SOON])?, scene.node("b", &[SOON])?);
    let owner = scene.replica_set("web")?;
    late.publish(&scene.pod("web-1", "a", "demo", &owner)?)?;
    scene.holds("shop", "k", &old)?;
    let new = scene.vault.set("a");
    early.publish(&scene.pod("web-2", "b", "demo", &owner)?)?;
    scene.holds("shop", "k", &new)?;
    let looks = scene.cluster.count(&late_user, "get", "secrets")?;
    wait_for("the node with the old value looks", PATIENCE, || {
        Ok(scene.cluster.count(&late_user, "get", "secrets")? >= looks + 4)
    })?;
    assert_eq!(decoded(&scene.there("shop")?, "k"), Some(new));
    assert_eq!(writes(scene.cluster, &late_user)?, ["create"]);
    // Deleted by hand it may come back old for a moment, but ends new.
    Ok(())
}

/// As upstream's driver writes a Secret and, some seconds later, its owner
/// (docs/reference/csi-driver.md#secret-label, docs/reference/csi-driver.md#secret-owners).
fn as_upstream(scene: &Scene, name: &str, data: &Value, owner: &Value) -> Result<Value> {
    let object = json!({
        "metadata": { "name": name, "labels": { MANAGED: "true", "old": "label" }, "annotations": { "old": "annotation" } },
        "type": "Opaque",
        "data": data,
    });
    scene.put("csi-secrets-store", object)?;
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner["name"], "uid": owner["uid"] });
    scene.merge_as("csi-secrets-store", SECRETS, name, &json!({ "metadata": { "ownerReferences": [owner] } }))?;
    scene.there(name)
}

fn a_secret_that_upstream_wrote_is_adopted() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let old = scene.replica_set("old")?;
    let there = as_upstream(&scene, "shop", &json!({ "k": "b2xk", "gone": "Z29uZQ==" }), &old)?;
    let (node, user) = scene.node("a", &[])?;
    let new = scene.replica_set("new")?;
    let pod = scene.pod("web-1", "a", "demo", &new)?;
    node.publish(&pod)?;
    let secret = scene.holds("shop", "k", &value)?;
    assert_eq!(secret["metadata"]["uid"], there["metadata"]["uid"]);
    wait_for("both own it", PATIENCE, || Ok(owners(&scene.there("shop")?).len() == 2))?;
    let secret = scene.there("shop")?;
    // What upstream wrote and the class does not ask for is gone; the owner is not.
    ensure!(
        secret["data"]["gone"].is_null(),
        "{:?}",
        secret["data"].as_object().map(|data| data.keys().collect::<Vec<_>>())
    );
    assert_eq!(secret["metadata"]["labels"], json!({ MANAGED: "true" }));
    ensure!(secret["metadata"]["annotations"]["old"].is_null());
    assert_eq!(writes(scene.cluster, &user)?, ["patch", "patch", "patch"]);
    // It rotates from now on, in one write.
    let value = scene.vault.set("a");
    node.kubelet.unpublish(&pod)?;
    node.publish(&pod)?;
    let secret = scene.holds("shop", "k", &value)?;
    assert_eq!(owners(&secret).len(), 2);
    assert_eq!(writes(scene.cluster, &user)?.len(), 4);
    Ok(())
}

fn a_foreign_secret_is_left_alone() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    let objects = json!([opaque("shop", &[("a", "k")]), opaque("beside", &[("a", "k")])]);
    scene.class("demo", &["a"], &objects)?;
    let there = scene.put("kubectl", json!({ "metadata": { "name": "shop" }, "data": { "other": "eA==" } }))?;
    let (node, user) = scene.node("a", &[SOON])?;
    node.publish(&scene.pod("web-1", "a", "demo", &scene.replica_set("web")?)?)?;
    // Its neighbour is written all the same.
    scene.holds("beside", "k", &value)?;
    scene.told(&[
        &format!("class {}/demo", scene.namespace),
        &format!("Secret {}/shop", scene.namespace),
        "SecretConflict",
        MANAGED,
    ])?;
    assert_eq!(scene.there("shop")?, there);
    assert_eq!(writes(scene.cluster, &user)?, ["create"]);
    // Handed over, it is written.
    scene.merge(SECRETS, "shop", &json!({ "metadata": { "labels": { MANAGED: "true" } } }))?;
    scene.holds("shop", "k", &value)?;
    Ok(())
}

fn a_secret_of_another_type_is_left_alone() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    let mut object = opaque("shop", &[("a", "password")]);
    scene.class("demo", &["a"], &json!([object]))?;
    let (node, _) = scene.node("a", &[SOON])?;
    node.publish(&scene.pod("web-1", "a", "demo", &scene.replica_set("web")?)?)?;
    let first = scene.holds("shop", "password", &value)?;
    object["type"] = "kubernetes.io/basic-auth".into();
    scene.change_class("demo", &json!({ "spec": { "secretObjects": [object] } }))?;
    scene.told(&["has type Opaque", "kubernetes.io/basic-auth", "delete the Secret"])?;
    assert_eq!(scene.there("shop")?, first);
    scene.delete(SECRETS, "shop")?;
    assert_eq!(scene.holds("shop", "password", &value)?["type"], "kubernetes.io/basic-auth");
    Ok(())
}

fn two_classes_do_not_fight_over_a_secret() -> Result<()> {
    let scene = Scene::new()?;
    let (a, b) = (scene.vault.set("a"), scene.vault.set("b"));
    scene.class("first", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    scene.class("second", &["b"], &json!([opaque("shop", &[("b", "k")])]))?;
    let (node, user) = scene.node("a", &[SOON])?;
    let owner = scene.replica_set("web")?;
    node.publish(&scene.pod("web-1", "a", "first", &owner)?)?;
    scene.holds("shop", "k", &a)?;
    node.publish(&scene.pod("web-2", "a", "second", &owner)?)?;
    scene.told(&[
        &format!("class {}/second", scene.namespace),
        &format!("written for class {}/first", scene.namespace),
    ])?;
    let looks = scene.cluster.count(&user, "get", "secrets")?;
    wait_for("both look again", PATIENCE, || Ok(scene.cluster.count(&user, "get", "secrets")? >= looks + 5))?;
    assert_eq!(writes(scene.cluster, &user)?, ["create"]);
    // Once the first wants it no more, it is the second's.
    scene.change_class("first", &json!({ "spec": { "secretObjects": [] } }))?;
    scene.holds("shop", "k", &b)?;
    Ok(())
}

fn a_secret_whose_class_is_gone_is_taken_over() -> Result<()> {
    let scene = Scene::new()?;
    let (a, b) = (scene.vault.set("a"), scene.vault.set("b"));
    scene.class("first", &["a"], &json!([opaque("shop", &[("a", "old")])]))?;
    scene.class("second", &["b"], &json!([opaque("shop", &[("b", "new")])]))?;
    let (node, _) = scene.node("a", &[])?;
    let owner = scene.replica_set("web")?;
    node.publish(&scene.pod("web-1", "a", "first", &owner)?)?;
    scene.holds("shop", "old", &a)?;
    scene.delete(crate::apiserver::CLASSES, "first")?;
    node.publish(&scene.pod("web-2", "a", "second", &owner)?)?;
    let secret = scene.holds("shop", "new", &b)?;
    ensure!(secret["data"]["old"].is_null());
    assert_eq!(secret["metadata"]["annotations"]["keyvault-csi/class"], "second");
    Ok(())
}

fn an_owner_made_anew_takes_the_place_of_the_old_one() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, _) = scene.node("a", &[])?;
    let (other, old) = (scene.replica_set("other")?, scene.replica_set("web")?);
    for (name, owner) in [("web-0", &other), ("web-1", &old)] {
        node.publish(&scene.pod(name, "a", "demo", owner)?)?;
    }
    scene.holds("shop", "k", &value)?;
    wait_for("both own it", PATIENCE, || Ok(owners(&scene.there("shop")?).len() == 2))?;
    scene.delete(("ReplicaSet", "replicasets"), "web")?;
    scene.delete(crate::mirror_scene::PODS, "web-1")?;
    let new = scene.replica_set("web")?;
    ensure!(new["uid"] != old["uid"]);
    node.publish(&scene.pod("web-2", "a", "demo", &new)?)?;
    let mut expected: Vec<String> =
        [&other, &new].iter().filter_map(|set| set["uid"].as_str().map(str::to_owned)).collect();
    expected.sort();
    wait_for("the new one owns it", PATIENCE, || Ok(owners(&scene.there("shop")?) == expected))
}

fn a_retained_secret_has_no_owner() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, _) = scene.node("a", &[])?;
    node.publish(&scene.pod("web-1", "a", "demo", &scene.replica_set("web")?)?)?;
    assert_eq!(owners(&scene.holds("shop", "k", &value)?).len(), 1);
    let retain = |value: Value| json!({ "metadata": { "annotations": { "keyvault-csi/retain": value } } });
    scene.change_class("demo", &retain("true".into()))?;
    wait_for("nobody owns it", PATIENCE, || Ok(owners(&scene.there("shop")?).is_empty()))?;
    scene.change_class("demo", &retain(Value::Null))?;
    wait_for("it is owned again", PATIENCE, || Ok(owners(&scene.there("shop")?).len() == 1))
}

fn without_the_roles_the_event_says_what_to_grant() -> Result<()> {
    let scene = Scene::new()?;
    scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let user = scene.cluster.user(crate::apiserver::Rights::AllButSecrets)?;
    let node = Node::start(scene.setup(&user, "a", ["--sync-secret"].into_iter()))?;
    let began = std::time::Instant::now();
    node.publish(&scene.pod("web-1", "a", "demo", &scene.replica_set("web")?)?)?;
    ensure!(began.elapsed() < Duration::from_secs(10), "the pod waited");
    scene.told(&["ApiServerForbidden", "syncSecret.enabled=true", &format!("{}/shop", scene.namespace)])?;
    Ok(())
}
