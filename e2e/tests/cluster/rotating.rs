//! With rotation and the mirror switched on by an upgrade of the chart: files and Secrets follow the vault, and Secrets live as long as
//! those who use them.
//!
//! The scenarios are those of upstream's suites
//! (docs/reference/csi-driver.md#end-to-end-scenarios). The kubelet here looks at its pods every
//! ten seconds.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::kubectl::{condition, delete_pod, exec, get, kubectl, list, ready, text, wait_for};
use crate::pods::status;
use crate::scene::Scene;
use crate::seeds;
use crate::{node, release};

trials! { "rotating":
    a_changed_value_reaches_files_and_secret,
    without_secret_objects_the_file_alone_follows,
    identities_without_a_secret_follow_too,
    a_history_moves_on,
    two_deployments_own_one_secret_until_the_last_is_gone,
    annotations_nested_names_and_types_arrive,
    one_class_name_in_two_namespaces_has_two_secrets,
    two_classes_in_one_pod_have_a_secret_each,
    a_secret_that_is_deleted_by_hand_comes_back,
    a_vault_that_is_away_is_told_and_the_old_value_stays,
    metrics_count_rotations_and_syncs,
}

const FOREVER: &str = "sleep 10000";

/// What must run before anybody switches rotation on.
pub(crate) fn before() -> Vec<libtest_mimic::Trial> {
    vec![libtest_mimic::Trial::test("rotating::it_is_switched_on_under_a_running_pod", || {
        it_is_switched_on_under_a_running_pod().map_err(|error| format!("{error:#}").into())
    })]
}

/// Switches rotation and the mirror on, once.
fn on() -> Result<()> {
    static ON: OnceLock<Result<(), String>> = OnceLock::new();
    let switched = ON.get_or_init(|| release::rotate().map_err(|error| format!("{error:#}")));
    switched.clone().map_err(|error| anyhow::anyhow!("rotation cannot be switched on: {error}"))
}

/// A scene with credentials, and rotation on.
pub(crate) fn scene(about: &str) -> Result<Scene> {
    on()?;
    let scene = Scene::new(about)?;
    scene.credentials()?;
    Ok(scene)
}

/// A class with these secrets and `secretObjects`.
fn class(scene: &Scene, name: &str, secrets: &[&str], secret_objects: &Value) -> Result<()> {
    let objects = serde_json::to_string(secret_objects)?;
    scene.apply(&scene.class_of("v1", name, secrets).replacen(
        "spec:\n",
        &format!("spec:\n  secretObjects: {objects}\n"),
        1,
    ))
}

fn opaque(name: &str, object: &str, key: &str) -> Value {
    json!([{ "secretName": name, "type": "Opaque", "labels": {"environment": "test"},
             "annotations": {"kubed.appscode.com/sync": "app=test"}, "data": [{"objectName": object, "key": key}] }])
}

/// The value under a key of a Secret, as soon as the Secret is there.
pub(crate) fn value(namespace: &str, secret: &str, key: &str) -> Result<Option<String>> {
    let Some(found) = get(namespace, "secret", secret)? else { return Ok(None) };
    let Some(encoded) = found["data"][key].as_str() else { return Ok(None) };
    Ok(Some(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded)?)?))
}

pub(crate) fn becomes(namespace: &str, secret: &str, key: &str, wanted: &str) -> Result<()> {
    let waited = wait_for(&format!("{namespace}/{secret} has the value under {key}"), || {
        Ok(value(namespace, secret, key)?.as_deref() == Some(wanted))
    });
    waited.with_context(|| format!("{:?}", get(namespace, "secret", secret)))
}

fn owners(namespace: &str, secret: &str) -> Result<usize> {
    let found = get(namespace, "secret", secret)?.context("no Secret")?;
    Ok(found["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len))
}

pub(crate) fn owned_by(namespace: &str, secret: &str, count: usize) -> Result<()> {
    let waited =
        wait_for(&format!("{namespace}/{secret} has {count} owners"), || Ok(owners(namespace, secret)? == count));
    waited.with_context(|| format!("{:?}", get(namespace, "secret", secret)))
}

pub(crate) fn gone(namespace: &str, secret: &str) -> Result<()> {
    wait_for(&format!("{namespace}/{secret} is gone"), || Ok(get(namespace, "secret", secret)?.is_none()))
}

/// Waits until a file of the pod `pod` holds this.
pub(crate) fn reads(namespace: &str, pod: &str, file: &str, wanted: &str) -> Result<()> {
    wait_for(&format!("{pod}: {file} has the new value"), || Ok(exec(namespace, pod, &["cat", file])? == wanted))
}

/// A Deployment of two pods that mount the class `demo`, and have the Secret `mirrored` in their environment.
pub(crate) fn deployment(scene: &Scene, name: &str) -> Result<()> {
    let pod = json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": "registry.k8s.io/e2e-test-images/busybox:1.29-4", "command": ["sh", "-c", FOREVER],
                "env": [{"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "mirrored", "key": "username"}}}],
                "volumeMounts": [{"name": "demo", "mountPath": "/mnt/demo", "readOnly": true}],
            }],
            "volumes": [{"name": "demo", "csi": {
                "driver": "secrets-store.csi.k8s.io", "readOnly": true, "volumeAttributes": {"secretProviderClass": "demo"},
                "nodePublishSecretRef": {"name": "secrets-store-creds"},
            }}],
        },
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": pod},
    });
    scene.apply(&deployment.to_string())
}

/// The names of a Deployment's pods, once both are Ready.
pub(crate) fn pods_of(scene: &Scene, name: &str) -> Result<Vec<String>> {
    let selector = format!("--selector=app={name}");
    wait_for(&format!("both pods of {name} are Ready"), || {
        let pods = list(&scene.namespace, "pods", &[&selector])?;
        Ok(pods.len() == 2 && pods.iter().all(|pod| condition(pod, "Ready")))
    })?;
    list(&scene.namespace, "pods", &[&selector])?.iter().map(|pod| text(pod, "/metadata/name")).collect()
}

fn a_changed_value_reaches_files_and_secret() -> Result<()> {
    let scene = scene("rotated")?;
    let old = scene.set("a");
    class(&scene, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    becomes(&scene.namespace, "mirrored", "username", &old)?;
    let new = scene.change("a");
    reads(&scene.namespace, "web", "/mnt/demo/a", &new)?;
    becomes(&scene.namespace, "mirrored", "username", &new)?;
    let version = status(&scene, "demo")?["status"]["objects"][0]["version"].clone();
    ensure!(version.as_str().is_some_and(|version| !version.is_empty()), "{version}");
    Ok(())
}

fn without_secret_objects_the_file_alone_follows() -> Result<()> {
    let scene = scene("mount-only")?;
    scene.set("a");
    scene.class("demo", &["a"])?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    let new = scene.change("a");
    reads(&scene.namespace, "web", "/mnt/demo/a", &new)?;
    let ours = list(&scene.namespace, "secrets", &["--selector=secrets-store.csi.k8s.io/managed=true"])?;
    ensure!(ours.is_empty(), "{ours:?}");
    Ok(())
}

/// Workload identity needs the tokens that the kubelet brings with each of its calls.
fn identities_without_a_secret_follow_too() -> Result<()> {
    for (about, start) in [
        ("workload", seeds::start_workload_identity as fn(&Scene) -> Result<&'static str>),
        ("managed", seeds::start_managed_identity),
    ] {
        let scene = scene(about)?;
        scene.set("secret1");
        scene.set_key("key1");
        let pod = start(&scene)?;
        let new = scene.change("secret1");
        reads(&scene.namespace, pod, "/mnt/secrets-store/secret1", &new)?;
    }
    Ok(())
}

fn a_history_moves_on() -> Result<()> {
    let scene = scene("history")?;
    let old = scene.set("a");
    let manifest = scene.class_of("v1", "demo", &["a"]);
    let manifest = manifest.replace("objectName: a\n", "objectName: a\n          objectVersionHistory: 2\n");
    let objects = opaque("mirrored", "a/0", "username");
    scene.apply(&manifest.replacen("spec:\n", &format!("spec:\n  secretObjects: {objects}\n"), 1))?;
    scene.permit_lists();
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    becomes(&scene.namespace, "mirrored", "username", &old)?;
    let new = scene.change("a");
    reads(&scene.namespace, "web", "/mnt/demo/a/0", &new)?;
    reads(&scene.namespace, "web", "/mnt/demo/a/1", &old)?;
    becomes(&scene.namespace, "mirrored", "username", &new)
}

/// Two Deployments of the class `demo`, `one` and `two`: all their pods have the value of `a` as a file and from the Secret, which
/// both own.
pub(crate) fn two_deployments(scene: &Scene, value: &str) -> Result<()> {
    for name in ["one", "two"] {
        deployment(scene, name)?;
    }
    for name in ["one", "two"] {
        for pod in pods_of(scene, name)? {
            assert_eq!(exec(&scene.namespace, &pod, &["cat", "/mnt/demo/a"])?, value);
            assert_eq!(exec(&scene.namespace, &pod, &["sh", "-c", "printf %s \"$FROM_SECRET\""])?, value);
        }
    }
    owned_by(&scene.namespace, "mirrored", 2)?;
    let secret = get(&scene.namespace, "secret", "mirrored")?.context("no Secret")?;
    assert_eq!(secret["metadata"]["labels"]["secrets-store.csi.k8s.io/managed"], "true");
    assert_eq!(secret["metadata"]["labels"]["environment"], "test");
    Ok(())
}

fn two_deployments_own_one_secret_until_the_last_is_gone() -> Result<()> {
    let scene = scene("owners")?;
    let value = scene.set("a");
    class(&scene, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    two_deployments(&scene, &value)?;
    // A rotation keeps both.
    let new = scene.change("a");
    becomes(&scene.namespace, "mirrored", "username", &new)?;
    owned_by(&scene.namespace, "mirrored", 2)?;
    kubectl(&["delete", "deployment", "one", "--namespace", &scene.namespace, "--timeout=120s"])?;
    owned_by(&scene.namespace, "mirrored", 1)?;
    kubectl(&["delete", "deployment", "two", "--namespace", &scene.namespace, "--timeout=120s"])?;
    gone(&scene.namespace, "mirrored")
}

fn annotations_nested_names_and_types_arrive() -> Result<()> {
    let scene = scene("kinds")?;
    let (user, password) = (scene.set("user"), scene.set("password"));
    let objects = json!([
        {"secretName": "login", "type": "kubernetes.io/basic-auth", "annotations": {"example.com/a": "b"},
         "data": [{"objectName": "user", "key": "username"}, {"objectName": "nested/bar", "key": "password"}]},
    ]);
    let manifest = scene.class_of("v1", "demo", &["user", "password"]);
    let manifest =
        manifest.replace("objectName: password\n", "objectName: password\n          objectAlias: nested/bar\n");
    scene.apply(&manifest.replacen("spec:\n", &format!("spec:\n  secretObjects: {objects}\n"), 1))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/demo/nested/bar"])?, password);
    becomes(&scene.namespace, "login", "password", &password)?;
    becomes(&scene.namespace, "login", "username", &user)?;
    let secret = get(&scene.namespace, "secret", "login")?.context("no Secret")?;
    assert_eq!(secret["type"], "kubernetes.io/basic-auth");
    assert_eq!(secret["metadata"]["annotations"]["example.com/a"], "b");
    Ok(())
}

fn one_class_name_in_two_namespaces_has_two_secrets() -> Result<()> {
    let scenes = [scene("here")?, scene("there")?];
    for scene in &scenes {
        scene.set("a");
        class(scene, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
        deployment(scene, "one")?;
    }
    for scene in &scenes {
        pods_of(scene, "one")?;
        becomes(&scene.namespace, "mirrored", "username", &format!("value of a in {}", scene.vault))?;
        owned_by(&scene.namespace, "mirrored", 1)?;
    }
    Ok(())
}

fn two_classes_in_one_pod_have_a_secret_each() -> Result<()> {
    let scene = scene("pair")?;
    let (a, b) = (scene.set("a"), scene.set("b"));
    class(&scene, "first", &["a"], &opaque("mirrored-a", "a", "username"))?;
    class(&scene, "second", &["b"], &opaque("mirrored-b", "b", "username"))?;
    scene.pod("web", &["first", "second"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    for (secret, value) in [("mirrored-a", &a), ("mirrored-b", &b)] {
        becomes(&scene.namespace, secret, "username", value)?;
        owned_by(&scene.namespace, secret, 1)?;
    }
    // A bare pod owns nothing by itself: its status objects do, and go with it.
    delete_pod(&scene.namespace, "web")?;
    gone(&scene.namespace, "mirrored-a")?;
    gone(&scene.namespace, "mirrored-b")
}

fn a_secret_that_is_deleted_by_hand_comes_back() -> Result<()> {
    let scene = scene("deleted")?;
    scene.set("a");
    class(&scene, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    wait_for("the Secret is there", || Ok(get(&scene.namespace, "secret", "mirrored")?.is_some()))?;
    kubectl(&["delete", "secret", "mirrored", "--namespace", &scene.namespace])?;
    // Nobody tells of the deletion; the next change of the content does.
    let new = scene.change("a");
    becomes(&scene.namespace, "mirrored", "username", &new)
}

fn a_vault_that_is_away_is_told_and_the_old_value_stays() -> Result<()> {
    let scene = scene("away")?;
    let old = scene.set("a");
    scene.class("demo", &["a"])?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    scene.forbid();
    wait_for("the status tells of it", || Ok(status(&scene, "demo")?["status"]["reason"] == "Forbidden"))?;
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/demo/a"])?, old);
    scene.permit();
    let new = scene.change("a");
    reads(&scene.namespace, "web", "/mnt/demo/a", &new)?;
    wait_for("the status is good again", || Ok(status(&scene, "demo")?["status"]["reason"].is_null()))
}

fn metrics_count_rotations_and_syncs() -> Result<()> {
    let scene = scene("counted")?;
    scene.set("a");
    class(&scene, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    scene.change("a");
    let wanted = ["rotation_reconcile_total{", "rotation_reconcile_duration_sec", "sync_k8s_secret_total{"];
    wait_for("the metrics are there", || {
        let text = node::http(8095, "/metrics")?.unwrap_or_default();
        Ok(wanted.iter().all(|name| text.contains(name)))
    })
}

/// As docs/install.md says, by an upgrade of the chart: the pod is not restarted, its files follow the vault, and its Secret appears.
fn it_is_switched_on_under_a_running_pod() -> Result<()> {
    let scene = Scene::new("before")?;
    let old = scene.set("a");
    scene.credentials()?;
    class(&scene, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    let started = get(&scene.namespace, "pod", "web")?.context("no pod")?["status"]["containerStatuses"].clone();
    ensure!(get(&scene.namespace, "secret", "mirrored")?.is_none(), "the mirror is on already");
    on()?;
    becomes(&scene.namespace, "mirrored", "username", &old)?;
    let new = scene.change("a");
    reads(&scene.namespace, "web", "/mnt/demo/a", &new)?;
    becomes(&scene.namespace, "mirrored", "username", &new)?;
    let now = get(&scene.namespace, "pod", "web")?.context("no pod")?;
    assert_eq!(now["status"]["containerStatuses"][0]["containerID"], started[0]["containerID"]);
    for role in ["secretprovidersyncing-role", "secretproviderrotation-role"] {
        get("", "clusterrole", role)?.with_context(|| format!("no {role}"))?;
    }
    get("", "clusterrolebinding", "secretprovidersyncing-rolebinding")?.context("no binding")?;
    Ok(())
}
