//! Ownership of mirrored Secrets: two nodes, several owners, Secrets of other managers, and
//! lifetimes.

use std::time::Duration;

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::{Value, json};

use crate::apiserver::User;
use crate::harness::Node;
use crate::mirror_fixture::{Fixture, PATIENCE, SECRETS, decoded, opaque, owners, writes};

trials! { "mirror_owners":
    two_nodes_and_two_deployments_make_exactly_two_owners_and_no_conflict,
    two_nodes_that_rotate_at_once_make_no_conflict,
    owners_added_one_after_another_all_stay,
    older_content_of_another_node_is_not_written_back,
    a_secret_that_upstream_wrote_is_adopted,
    a_foreign_secret_is_not_changed,
    a_secret_of_another_type_is_not_changed,
    two_classes_do_not_fight_over_a_secret,
    a_secret_whose_class_is_gone_is_taken_over,
    a_recreated_owner_replaces_the_old_one,
    a_retained_secret_has_no_owner,
    without_the_roles_the_event_says_what_to_grant,
}

const SOON: &str = "--secret-check-interval=1s";
const MANAGED: &str = "secrets-store.csi.k8s.io/managed";

/// Two nodes, each with one pod of each of two ReplicaSets.
struct TwoNodes {
    nodes: [(Node, User); 2],
    pods: [Vec<Volume>; 2],
    owners: Vec<String>,
}

fn two_nodes(fixture: &Fixture, flags: &[&str]) -> Result<TwoNodes> {
    let nodes = [fixture.node("a", flags)?, fixture.node("b", flags)?];
    let sets = [fixture.replica_set("one")?, fixture.replica_set("two")?];
    let mut pods = [Vec::new(), Vec::new()];
    for (at, suffix) in ["a", "b"].into_iter().enumerate() {
        for set in &sets {
            let name = format!("{}-{suffix}", set["name"].as_str().unwrap_or_default());
            pods[at].push(fixture.pod(&name, suffix, "demo", set)?);
        }
    }
    let mut owners: Vec<String> = sets.iter().filter_map(|set| set["uid"].as_str().map(str::to_owned)).collect();
    owners.sort();
    Ok(TwoNodes { nodes, pods, owners })
}

fn two_nodes_and_two_deployments_make_exactly_two_owners_and_no_conflict() -> Result<()> {
    let fixture = Fixture::new()?;
    let first = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let TwoNodes { nodes, pods, owners: expected } = two_nodes(&fixture, &[SOON])?;
    let publish = |at: usize| -> Result<()> {
        for pod in &pods[at] {
            nodes[at].0.kubelet.unpublish(pod)?;
            nodes[at].0.publish(pod)?;
        }
        Ok(())
    };
    publish(0)?;
    publish(1)?;
    fixture.holds("shop", "k", &first)?;
    wait_for("both owners", PATIENCE, || Ok(owners(&fixture.there("shop")?) == expected))?;
    for round in 0..50 {
        let value = fixture.vault.set("a");
        publish(round % 2)?;
        fixture.holds("shop", "k", &value)?;
        publish((round + 1) % 2)?;
    }
    let secret = fixture.there("shop")?;
    assert_eq!(owners(&secret), expected);
    // In quiet times there are resyncs and no writes.
    let total = || -> Result<usize> {
        Ok(writes(fixture.cluster, &nodes[0].1)?.len() + writes(fixture.cluster, &nodes[1].1)?.len())
    };
    let gets = |user: &User| fixture.cluster.count(user, "get", "secrets");
    let settled = [gets(&nodes[0].1)?, gets(&nodes[1].1)?];
    let (before, version) = (total()?, secret["metadata"]["resourceVersion"].clone());
    wait_for("resyncs of both nodes", PATIENCE, || {
        Ok(gets(&nodes[0].1)? >= settled[0] + 3 && gets(&nodes[1].1)? >= settled[1] + 3)
    })?;
    assert_eq!((total()?, fixture.there("shop")?["metadata"]["resourceVersion"].clone()), (before, version));
    // One write for each value, one for the creation, one for the second owner, and few more.
    ensure!((52..=56).contains(&before), "{before} writes");
    ensure!(outdated_writes(&fixture, &nodes)? == 0);
    Ok(())
}

/// Checks that the API server refused only second creations and outdated writes, and that no event
/// and no log line reports a failure. Returns the number of outdated writes: the node had read the
/// Secret before the other one wrote it. (No conflict between field managers is among them, since
/// each write is forced.)
fn outdated_writes(fixture: &Fixture, nodes: &[(Node, User)]) -> Result<usize> {
    let mut outdated = 0;
    for (node, user) in nodes {
        let calls = fixture.cluster.calls(user)?;
        let refused = calls.iter().filter(|call| call.resource == "secrets" && call.code >= 400 && call.code != 404);
        let refused = refused.filter(|call| call.code != 409 || call.verb != "create");
        let (modified, refused): (Vec<_>, Vec<_>) = refused.partition(|call| call.code == 409 && call.verb == "patch");
        ensure!(refused.is_empty(), "{refused:?}");
        outdated += modified.len();
        ensure!(!node.log().contains("not all Secrets of the class"), "{}", node.log());
    }
    assert_eq!(fixture.events("FailedToCreateSecret")?, Vec::<String>::new());
    Ok(outdated)
}

/// Both drivers rotate at an interval so short that they often see a new value at the same moment.
fn two_nodes_that_rotate_at_once_make_no_conflict() -> Result<()> {
    let fixture = Fixture::new()?;
    let first = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let flags = ["--enable-secret-rotation", "--rotation-poll-interval=100ms", "--secret-check-interval=1h"];
    let TwoNodes { nodes, pods, owners: expected } = two_nodes(&fixture, &flags)?;
    let mut files = Vec::new();
    for (at, (node, _)) in nodes.iter().enumerate() {
        for pod in &pods[at] {
            files.push(node.publish(pod)?.join("a"));
        }
    }
    fixture.holds("shop", "k", &first)?;
    wait_for("both owners", PATIENCE, || Ok(owners(&fixture.there("shop")?) == expected))?;
    let wrote = |user: &User| -> Result<usize> { Ok(writes(fixture.cluster, user)?.len()) };
    let before = [wrote(&nodes[0].1)?, wrote(&nodes[1].1)?];
    for _ in 0..50 {
        let value = fixture.vault.set("a");
        wait_for("the value in all files", PATIENCE, || {
            Ok(files.iter().all(|file| std::fs::read_to_string(file).is_ok_and(|found| found == value)))
        })?;
        fixture.holds("shop", "k", &value)?;
    }
    assert_eq!(owners(&fixture.there("shop")?), expected);
    // The second node finds the value written. If both write at the same moment, one is refused and
    // reads again.
    let made = [wrote(&nodes[0].1)? - before[0], wrote(&nodes[1].1)? - before[1]];
    ensure!(made[0] > 0 && made[1] > 0, "one node wrote everything: {made:?}");
    let outdated = outdated_writes(&fixture, &nodes)?;
    ensure!(made[0] + made[1] - outdated == 50, "{made:?} writes, {outdated} of them refused");
    Ok(())
}

fn owners_added_one_after_another_all_stay() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let nodes = [fixture.node("a", &[])?.0, fixture.node("b", &[])?.0];
    let mut expected = Vec::new();
    for (at, suffix) in ["a", "b", "a", "b", "b"].into_iter().enumerate() {
        let set = fixture.replica_set(&format!("set-{at}"))?;
        expected.extend(set["uid"].as_str().map(str::to_owned));
        expected.sort();
        nodes[usize::from(suffix == "b")].publish(&fixture.pod(&format!("pod-{at}"), suffix, "demo", &set)?)?;
        fixture.holds("shop", "k", &value)?;
        wait_for("all owners", PATIENCE, || Ok(owners(&fixture.there("shop")?) == expected))?;
    }
    Ok(())
}

fn older_content_of_another_node_is_not_written_back() -> Result<()> {
    let fixture = Fixture::new()?;
    let old = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let ((late, late_user), (early, _)) = (fixture.node("a", &[SOON])?, fixture.node("b", &[SOON])?);
    let owner = fixture.replica_set("web")?;
    late.publish(&fixture.pod("web-1", "a", "demo", &owner)?)?;
    fixture.holds("shop", "k", &old)?;
    let new = fixture.vault.set("a");
    early.publish(&fixture.pod("web-2", "b", "demo", &owner)?)?;
    fixture.holds("shop", "k", &new)?;
    let gets = fixture.cluster.count(&late_user, "get", "secrets")?;
    wait_for("resyncs of the node with the old value", PATIENCE, || {
        Ok(fixture.cluster.count(&late_user, "get", "secrets")? >= gets + 4)
    })?;
    assert_eq!(decoded(&fixture.there("shop")?, "k"), Some(new));
    assert_eq!(writes(fixture.cluster, &late_user)?, ["create"]);
    Ok(())
}

/// Writes a Secret, and then its owner, as upstream's driver does
/// (docs/reference/csi-driver.md#secret-label, docs/reference/csi-driver.md#secret-owners).
fn as_upstream(fixture: &Fixture, name: &str, data: &Value, owner: &Value) -> Result<Value> {
    let object = json!({
        "metadata": { "name": name, "labels": { MANAGED: "true", "old": "label" }, "annotations": { "old": "annotation" } },
        "type": "Opaque",
        "data": data,
    });
    fixture.put("csi-secrets-store", object)?;
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner["name"], "uid": owner["uid"] });
    fixture.merge_as("csi-secrets-store", SECRETS, name, &json!({ "metadata": { "ownerReferences": [owner] } }))?;
    fixture.there(name)
}

fn a_secret_that_upstream_wrote_is_adopted() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let old = fixture.replica_set("old")?;
    let there = as_upstream(&fixture, "shop", &json!({ "k": "b2xk", "gone": "Z29uZQ==" }), &old)?;
    let (node, user) = fixture.node("a", &[])?;
    let new = fixture.replica_set("new")?;
    let pod = fixture.pod("web-1", "a", "demo", &new)?;
    node.publish(&pod)?;
    let secret = fixture.holds("shop", "k", &value)?;
    assert_eq!(secret["metadata"]["uid"], there["metadata"]["uid"]);
    wait_for("both owners", PATIENCE, || Ok(owners(&fixture.there("shop")?).len() == 2))?;
    let secret = fixture.there("shop")?;
    // Upstream's keys that the class does not have are gone; upstream's owner stays.
    ensure!(
        secret["data"]["gone"].is_null(),
        "{:?}",
        secret["data"].as_object().map(|data| data.keys().collect::<Vec<_>>())
    );
    assert_eq!(secret["metadata"]["labels"], json!({ MANAGED: "true" }));
    ensure!(secret["metadata"]["annotations"]["old"].is_null());
    assert_eq!(writes(fixture.cluster, &user)?, ["patch", "patch", "patch"]);
    // From now on a rotation is one write.
    let value = fixture.vault.set("a");
    node.kubelet.unpublish(&pod)?;
    node.publish(&pod)?;
    let secret = fixture.holds("shop", "k", &value)?;
    assert_eq!(owners(&secret).len(), 2);
    assert_eq!(writes(fixture.cluster, &user)?.len(), 4);
    Ok(())
}

fn a_foreign_secret_is_not_changed() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    let objects = json!([opaque("shop", &[("a", "k")]), opaque("beside", &[("a", "k")])]);
    fixture.class("demo", &["a"], &objects)?;
    let there = fixture.put("kubectl", json!({ "metadata": { "name": "shop" }, "data": { "other": "eA==" } }))?;
    let (node, user) = fixture.node("a", &[SOON])?;
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    // The other Secret is written.
    fixture.holds("beside", "k", &value)?;
    fixture.failure_event(&[
        &format!("class {}/demo", fixture.namespace),
        &format!("Secret {}/shop", fixture.namespace),
        "SecretConflict",
        MANAGED,
    ])?;
    assert_eq!(fixture.there("shop")?, there);
    assert_eq!(writes(fixture.cluster, &user)?, ["create"]);
    // With the label the Secret is ours, and is written.
    fixture.merge(SECRETS, "shop", &json!({ "metadata": { "labels": { MANAGED: "true" } } }))?;
    fixture.holds("shop", "k", &value)?;
    Ok(())
}

fn a_secret_of_another_type_is_not_changed() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    let mut object = opaque("shop", &[("a", "password")]);
    fixture.class("demo", &["a"], &json!([object]))?;
    let (node, _) = fixture.node("a", &[SOON])?;
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    let first = fixture.holds("shop", "password", &value)?;
    object["type"] = "kubernetes.io/basic-auth".into();
    fixture.change_class("demo", &json!({ "spec": { "secretObjects": [object] } }))?;
    fixture.failure_event(&["has type Opaque", "kubernetes.io/basic-auth", "delete the Secret"])?;
    assert_eq!(fixture.there("shop")?, first);
    fixture.delete(SECRETS, "shop")?;
    assert_eq!(fixture.holds("shop", "password", &value)?["type"], "kubernetes.io/basic-auth");
    Ok(())
}

fn two_classes_do_not_fight_over_a_secret() -> Result<()> {
    let fixture = Fixture::new()?;
    let (a, b) = (fixture.vault.set("a"), fixture.vault.set("b"));
    fixture.class("first", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    fixture.class("second", &["b"], &json!([opaque("shop", &[("b", "k")])]))?;
    let (node, user) = fixture.node("a", &[SOON])?;
    let owner = fixture.replica_set("web")?;
    node.publish(&fixture.pod("web-1", "a", "first", &owner)?)?;
    fixture.holds("shop", "k", &a)?;
    node.publish(&fixture.pod("web-2", "a", "second", &owner)?)?;
    fixture.failure_event(&[
        &format!("class {}/second", fixture.namespace),
        &format!("written for class {}/first", fixture.namespace),
    ])?;
    let gets = fixture.cluster.count(&user, "get", "secrets")?;
    wait_for("resyncs of both classes", PATIENCE, || Ok(fixture.cluster.count(&user, "get", "secrets")? >= gets + 5))?;
    assert_eq!(writes(fixture.cluster, &user)?, ["create"]);
    // When the first class drops the Secret, the second one takes it over.
    fixture.change_class("first", &json!({ "spec": { "secretObjects": [] } }))?;
    fixture.holds("shop", "k", &b)?;
    Ok(())
}

fn a_secret_whose_class_is_gone_is_taken_over() -> Result<()> {
    let fixture = Fixture::new()?;
    let (a, b) = (fixture.vault.set("a"), fixture.vault.set("b"));
    fixture.class("first", &["a"], &json!([opaque("shop", &[("a", "old")])]))?;
    fixture.class("second", &["b"], &json!([opaque("shop", &[("b", "new")])]))?;
    let (node, _) = fixture.node("a", &[])?;
    let owner = fixture.replica_set("web")?;
    node.publish(&fixture.pod("web-1", "a", "first", &owner)?)?;
    fixture.holds("shop", "old", &a)?;
    fixture.delete(crate::apiserver::CLASSES, "first")?;
    node.publish(&fixture.pod("web-2", "a", "second", &owner)?)?;
    let secret = fixture.holds("shop", "new", &b)?;
    ensure!(secret["data"]["old"].is_null());
    assert_eq!(secret["metadata"]["annotations"]["keyvault-csi/class"], "second");
    Ok(())
}

fn a_recreated_owner_replaces_the_old_one() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, _) = fixture.node("a", &[])?;
    let (other, old) = (fixture.replica_set("other")?, fixture.replica_set("web")?);
    for (name, owner) in [("web-0", &other), ("web-1", &old)] {
        node.publish(&fixture.pod(name, "a", "demo", owner)?)?;
    }
    fixture.holds("shop", "k", &value)?;
    wait_for("both owners", PATIENCE, || Ok(owners(&fixture.there("shop")?).len() == 2))?;
    fixture.delete(("ReplicaSet", "replicasets"), "web")?;
    fixture.delete(crate::mirror_fixture::PODS, "web-1")?;
    let new = fixture.replica_set("web")?;
    ensure!(new["uid"] != old["uid"]);
    node.publish(&fixture.pod("web-2", "a", "demo", &new)?)?;
    let mut expected: Vec<String> =
        [&other, &new].iter().filter_map(|set| set["uid"].as_str().map(str::to_owned)).collect();
    expected.sort();
    wait_for("the new owner", PATIENCE, || Ok(owners(&fixture.there("shop")?) == expected))
}

fn a_retained_secret_has_no_owner() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, _) = fixture.node("a", &[])?;
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    assert_eq!(owners(&fixture.holds("shop", "k", &value)?).len(), 1);
    let retain = |value: Value| json!({ "metadata": { "annotations": { "keyvault-csi/retain": value } } });
    fixture.change_class("demo", &retain("true".into()))?;
    wait_for("no owner", PATIENCE, || Ok(owners(&fixture.there("shop")?).is_empty()))?;
    fixture.change_class("demo", &retain(Value::Null))?;
    wait_for("an owner again", PATIENCE, || Ok(owners(&fixture.there("shop")?).len() == 1))
}

fn without_the_roles_the_event_says_what_to_grant() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let user = fixture.cluster.user(crate::apiserver::Rights::AllButSecrets)?;
    let node = Node::start(fixture.setup(&user, "a", ["--sync-secret"].into_iter()))?;
    let began = std::time::Instant::now();
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    ensure!(began.elapsed() < Duration::from_secs(10), "the pod waited");
    fixture.failure_event(&[
        "ApiServerForbidden",
        "syncSecret.enabled=true",
        &format!("{}/shop", fixture.namespace),
    ])?;
    Ok(())
}
