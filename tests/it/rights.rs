//! Removes each right of each role in the chart in turn, with real RBAC: something must fail that
//! works with the right.
//!
//! The API server has the admission plug-in OwnerReferencesPermissionEnforcement; all other tests
//! use a server without it and the chart's default roles. A right without which nothing fails has
//! to be removed from the chart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use keyvault_csi_e2e::driver::wait_for;
use serde_json::{Value, json};

use crate::apiserver::{CLASSES, Rights, STATUSES, User, cluster};
use crate::chart;
use crate::harness::Node;
use crate::mirror_fixture::{Fixture, PATIENCE, PODS, opaque};

trials! { "rights":
    every_role_of_the_chart_is_tested,
    every_right_of_the_driver_is_needed,
    every_right_of_rotation_is_needed,
    every_right_of_the_mirror_is_needed,
    every_right_of_the_startup_taint_is_needed,
    every_right_of_people_is_needed,
    a_missing_right_to_delete_is_reported_with_the_setting,
}

const DRIVER: &str = "secretproviderclasses-role";
const ROTATION: &str = "secretproviderrotation-role";
const MIRROR: &str = "secretprovidersyncing-role";
const TAINT: &str = "secrets-store-csi-driver-startup-taint-role";
/// Roles for people, aggregated into the cluster's roles admin, edit and view.
const PEOPLE: [&str; 3] = [
    "secretproviderclasses-admin-role",
    "secretproviderclasses-viewer-role",
    "secretproviderclasspodstatuses-viewer-role",
];
const MANAGED: &str = "secrets-store.csi.k8s.io/managed";
/// The chart value in the driver's message when the plug-in requires a right that the driver lacks.
const SETTING: &str = "rbac.ownerReferencesPermissionEnforcement=true";

/// One verb on one kind of objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    group: String,
    resource: String,
    verb: String,
}

/// Makes the driver use a right.
type Act = fn(&Fixture, &Node, &str, &str) -> Result<()>;

/// Returns the port of the API server with the admission plug-in; the first call starts it.
fn strict_server() -> Result<u16> {
    const PORT: u16 = 6446;
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start =
        || cluster()?.serve_with(PORT, &["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"]).map(drop);
    let started = STARTED.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    started.clone().map(|()| PORT).map_err(|error| anyhow!("{error}"))
}

/// Returns the rights of each role that the chart renders with these values.
fn rendered(values: &Value) -> Result<BTreeMap<String, Vec<Right>>> {
    let rights = |rule: &BTreeMap<String, Vec<String>>| {
        let known = ["apiGroups", "resources", "verbs"];
        ensure!(rule.keys().eq(known), "a rule with {:?}: this test handles {known:?} only", rule.keys());
        let mut rights = Vec::new();
        for group in &rule["apiGroups"] {
            for resource in &rule["resources"] {
                let right =
                    |verb: &String| Right { group: group.clone(), resource: resource.clone(), verb: verb.clone() };
                rights.extend(rule["verbs"].iter().map(right));
            }
        }
        Ok(rights)
    };
    let objects = chart::rendered(values)?;
    let roles = objects.iter().filter(|object| object["kind"] == "ClusterRole" || object["kind"] == "Role");
    let roles = roles.map(|role| {
        let rules: Vec<BTreeMap<String, Vec<String>>> = serde_json::from_value(role["rules"].clone())?;
        let rights = rules.iter().map(rights).collect::<Result<Vec<_>>>()?;
        Ok((role["metadata"]["name"].as_str().context("a role without a name")?.to_owned(), rights.concat()))
    });
    roles.collect()
}

/// [`rendered`] with every feature on.
fn all_rendered() -> Result<BTreeMap<String, Vec<Right>>> {
    rendered(&json!({
        "enableSecretRotation": true,
        "syncSecret": { "enabled": true },
        "startupTaint": { "enabled": true },
        "rbac": { "ownerReferencesPermissionEnforcement": true },
    }))
}

/// Returns the rights of these roles together.
fn rights_of(roles: &[&str]) -> Result<Vec<Right>> {
    static ALL: OnceLock<Result<BTreeMap<String, Vec<Right>>, String>> = OnceLock::new();
    let all = ALL.get_or_init(|| all_rendered().map_err(|error| format!("{error:#}")));
    let all = all.as_ref().map_err(|error| anyhow!("{error}"))?;
    let rights = roles.iter().map(|role| all.get(*role).cloned().with_context(|| format!("no role {role}")));
    Ok(rights.collect::<Result<Vec<_>>>()?.concat())
}

/// Returns rules that grant these rights, one by one.
fn granting<'a>(rights: impl Iterator<Item = &'a Right>) -> Value {
    let rule =
        |right: &Right| json!({ "apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb] });
    rights.map(rule).collect()
}

fn every_role_of_the_chart_is_tested() -> Result<()> {
    let tried: BTreeSet<&str> = [DRIVER, ROTATION, MIRROR, TAINT].into_iter().chain(PEOPLE).collect();
    let rendered = all_rendered()?;
    ensure!(rendered.keys().map(String::as_str).eq(tried.iter().copied()), "the chart has the roles {rendered:?}");
    Ok(())
}

/// Removes each right of `role` in turn from a driver that also has the rights of `others`; `act`
/// makes the driver use the right.
fn check_rights(role: &str, others: &[&str], flags: &[&str], act: Act) -> Result<()> {
    let own = rights_of(&[role])?;
    let all = [rights_of(others)?, own.clone()].concat();
    for right in &own {
        works_with(&all, flags, right, act).with_context(|| format!("{role} with {right:?}"))?;
        fails_without(&all, flags, right, act).with_context(|| format!("{role} without {right:?}"))?;
    }
    Ok(())
}

/// Starts a driver with these rights, and creates a namespace for it.
fn driver(rights: &Value, flags: &[&str]) -> Result<(Fixture, Node, User)> {
    let fixture = Fixture::new()?;
    fixture.vault.set("a");
    let user = fixture.cluster.user_at(Rights::None, strict_server()?)?;
    fixture.cluster.allow(&user, "some", rights.clone())?;
    let mut own = json!({ "spec": { "taints": [{ "key": "starting", "effect": "NoSchedule" }] } });
    own["metadata"] = json!({ "name": fixture.node_name("a") });
    fixture.cluster.create(("Node", "nodes"), None, own)?;
    let node = Node::start(fixture.setup(&user, "a", flags.iter().copied()))?;
    Ok((fixture, node, user))
}

/// With all rights, the driver makes the request, the API server allows it, and nothing is deleted.
fn works_with(all: &[Right], flags: &[&str], right: &Right, act: Act) -> Result<()> {
    let (fixture, node, user) = driver(&granting(all.iter()), flags)?;
    act(&fixture, &node, &right.resource, &right.verb)?;
    // The plug-in requires the right to delete when owners change.
    let verb = match (right.resource.as_str(), right.verb.as_str()) {
        ("secrets", "delete") => "patch",
        ("secretproviderclasspodstatuses", "delete") => "update",
        (_, verb) => verb,
    };
    wait_for("an allowed request", PATIENCE, || {
        Ok(fixture.cluster.allowed(&user).iter().any(|call| call.verb == verb && call.resource == right.resource))
    })?;
    ensure!(
        !fixture.cluster.allowed(&user).iter().any(|call| call.verb.starts_with("delete")),
        "an object was deleted"
    );
    let complaints = refusals(&node.log(), right);
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

/// Without this right the driver's log names the refused request.
fn fails_without(all: &[Right], flags: &[&str], right: &Right, act: Act) -> Result<()> {
    let (fixture, node, _) = driver(&granting(all.iter().filter(|one| *one != right)), flags)?;
    act(&fixture, &node, &right.resource, &right.verb)?;
    wait_for("the log names the refused request", PATIENCE, || Ok(!refusals(&node.log(), right).is_empty()))?;
    ensure!(!node.log().contains("panicked"));
    Ok(())
}

/// Returns the lines of a log about this missing right: in the API server's words, or in ours where
/// it concerns owners.
fn refusals(log: &str, right: &Right) -> Vec<String> {
    let words = match right.verb.as_str() {
        "delete" => vec![SETTING.to_owned()],
        verb => vec![format!("cannot {verb} resource"), right.resource.clone()],
    };
    let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    lines.map(str::to_owned).collect()
}

/// Publishes the volume of a new pod of the class `demo`.
fn publish(fixture: &Fixture, node: &Node, pod: &str) -> Result<()> {
    Ok(node.publish(&fixture.pod(pod, "a", "demo", &Value::Null)?).map(drop)?)
}

fn every_right_of_the_driver_is_needed() -> Result<()> {
    check_rights(DRIVER, &[], &[], |fixture, node, resource, verb| {
        fixture.class("demo", &["a"], &json!([]))?;
        match (resource, verb) {
            ("secretproviderclasses", "get") => {
                node.refused(&fixture.pod("web", "a", "absent", &Value::Null)?).map(drop)
            }
            ("events", _) => node.refused(&fixture.pod("web", "a", "absent", &Value::Null)?).map(drop),
            ("secretproviderclasspodstatuses", "get" | "update" | "delete") => {
                let name = format!("web-{}-demo", fixture.namespace);
                // The driver has to replace an existing status of another node.
                let status = json!({
                    "podName": "web", "secretProviderClassName": "demo", "mounted": true, "targetPath": "/elsewhere", "objects": [],
                });
                fixture.cluster.create(
                    STATUSES,
                    Some(&fixture.namespace),
                    json!({ "metadata": { "name": name }, "status": status }),
                )?;
                publish(fixture, node, "web")
            }
            _ => publish(fixture, node, "web"),
        }
    })
}

fn every_right_of_rotation_is_needed() -> Result<()> {
    let flags = ["--enable-secret-rotation=true", "--rotation-poll-interval=1s"];
    check_rights(ROTATION, &[DRIVER], &flags, |_, _, _, _| Ok(()))
}

fn every_right_of_the_mirror_is_needed() -> Result<()> {
    check_rights(MIRROR, &[DRIVER], &["--sync-secret=true"], |fixture, node, resource, verb| {
        fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
        if resource == "secrets" && ["get", "patch"].contains(&verb) {
            // An existing Secret of upstream's driver.
            let metadata = json!({ "name": "shop", "labels": { MANAGED: "true" } });
            fixture
                .put("secrets-store-csi", json!({ "metadata": metadata, "type": "Opaque", "data": { "k": "b2xk" } }))?;
        }
        if (resource, verb) == ("pods", "get") {
            // The driver reads a pod that its watch does not have: here, a deleted one.
            let pod = fixture.pod("web", "a", "demo", &Value::Null)?;
            fixture.delete(PODS, "web")?;
            return Ok(node.publish(&pod).map(drop)?);
        }
        publish(fixture, node, "web")?;
        if verb == "delete" {
            // The second pod becomes a second owner.
            fixture.there("shop")?;
            publish(fixture, node, "web-2")?;
        }
        Ok(())
    })
}

fn every_right_of_the_startup_taint_is_needed() -> Result<()> {
    check_rights(TAINT, &[DRIVER], &["--startup-taint=starting"], |_, node, _, _| {
        node.kubelet.register(&node.setup().registration_socket()).map(drop)
    })
}

/// With the default roles, where the chart's value for the plug-in is not set.
fn a_missing_right_to_delete_is_reported_with_the_setting() -> Result<()> {
    let roles = rendered(&json!({ "syncSecret": { "enabled": true } }))?;
    let rights: Vec<Right> = [DRIVER, MIRROR].iter().flat_map(|role| roles[*role].clone()).collect();
    ensure!(!rights.iter().any(|right| right.verb == "delete"), "{rights:?}");
    let (fixture, node, user) = driver(&granting(rights.iter()), &["--sync-secret=true"])?;
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    publish(&fixture, &node, "web")?;
    fixture.there("shop")?;
    // The second pod would be a second owner. It runs all the same, and its events have the fix.
    publish(&fixture, &node, "web-2")?;
    let event = fixture.failure_event(&["refuses to change its owners", SETTING])?;
    ensure!(event.contains("Secret") && event.contains("shop"), "{event}");
    let allowed = fixture.cluster.allowed(&user);
    ensure!(!allowed.iter().any(|call| call.verb == "patch"), "{allowed:?}");
    Ok(())
}

fn every_right_of_people_is_needed() -> Result<()> {
    for role in PEOPLE {
        let all = rights_of(&[role])?;
        for right in &all {
            let less: Vec<&Right> = all.iter().filter(|one| *one != right).collect();
            let other = *less.first().context("a role with one right")?;
            let with = person(&all.iter().collect::<Vec<_>>(), right)?;
            with.can(right).with_context(|| format!("{role} with {right:?}"))?;
            let without = person(&less, other)?;
            without.cannot(right).with_context(|| format!("{role} without {right:?}"))?;
        }
    }
    Ok(())
}

/// A user with some rights, and a namespace with a class and a status.
struct Person {
    fixture: Fixture,
    client: kube::Client,
}

/// Creates a user with these rights, and waits until the API server applies them to the `expected`
/// one.
fn person(rights: &[&Right], expected: &Right) -> Result<Person> {
    let fixture = Fixture::new()?;
    let user = fixture.cluster.user(Rights::None)?;
    fixture.cluster.allow(&user, "some", granting(rights.iter().copied()))?;
    let client = fixture.cluster.client_as(&user)?;
    let person = Person { fixture, client };
    wait_for("the rights apply", PATIENCE, || Ok(person.request(expected)? != 403))?;
    Ok(person)
}

impl Person {
    fn can(&self, right: &Right) -> Result<()> {
        let code = self.request(right)?;
        ensure!(code == 200, "HTTP {code}");
        Ok(())
    }

    fn cannot(&self, right: &Right) -> Result<()> {
        let code = self.request(right)?;
        ensure!(code == 403, "HTTP {code}");
        Ok(())
    }

    /// Uses a right on an existing object, and returns the status code.
    fn request(&self, right: &Right) -> Result<u16> {
        let kind = if right.resource == CLASSES.1 { CLASSES } else { STATUSES };
        ensure!(right.resource == kind.1, "no object for {right:?}");
        let (fixture, namespace) = (&self.fixture, self.fixture.namespace.as_str());
        if fixture.cluster.get(kind, namespace, "demo")?.is_none() {
            fixture.cluster.create(kind, Some(namespace), json!({ "metadata": { "name": "demo" } }))?;
        }
        let there = serde_json::to_value(fixture.cluster.get(kind, namespace, "demo")?.context("the object is gone")?)?;
        let all = format!("/apis/{}/v1/namespaces/{namespace}/{}", right.group, right.resource);
        let one = format!("{all}/demo");
        let dry = "?dryRun=All";
        let mut new = there.clone();
        new["metadata"] = json!({ "name": "another" });
        let (method, path, body) = match right.verb.as_str() {
            "get" => ("GET", one, Value::Null),
            "list" => ("GET", all, Value::Null),
            "watch" => ("GET", format!("{all}?watch=1&timeoutSeconds=1"), Value::Null),
            "create" => ("POST", all + dry, new),
            "update" => ("PUT", one + dry, there),
            "patch" => ("PATCH", one + dry, json!({ "metadata": { "labels": { "a": "b" } } })),
            "delete" => ("DELETE", one + dry, Value::Null),
            "deletecollection" => ("DELETE", all + dry, Value::Null),
            verb => bail!("no request for {verb}"),
        };
        let request = http::Request::builder().method(method).uri(path).header(
            http::header::CONTENT_TYPE,
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" },
        );
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        match fixture.cluster.block_on(self.client.request_text(request.body(body)?)) {
            Ok(_) => Ok(200),
            Err(kube::Error::Api(status)) => Ok(status.code),
            Err(error) => Err(error.into()),
        }
    }
}
