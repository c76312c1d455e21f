//! With rotation and the mirror enabled by an upgrade of the chart: files and Secrets follow the
//! vault, and Secrets exist as long as their owners.
//!
//! The scenarios are those of upstream's suites
//! (docs/reference/csi-driver.md#end-to-end-scenarios). The kubelet of these clusters syncs its
//! pods every ten seconds.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::kubectl::{condition, delete_pod, exec, get, kubectl, list, ready, text, wait_for};
use crate::pods::status;
use crate::user_manifests;
use crate::{node, release};

trials! { "rotation":
    a_changed_value_reaches_files_and_secret,
    without_secret_objects_only_the_file_changes,
    volumes_of_identities_without_a_secret_are_refreshed,
    a_version_history_is_refreshed,
    two_deployments_own_one_secret_until_the_last_is_gone,
    secrets_have_annotations_types_and_nested_objects,
    one_class_name_in_two_namespaces_has_two_secrets,
    two_classes_in_one_pod_have_a_secret_each,
    a_deleted_secret_is_created_again,
    the_status_has_the_failure_of_a_vault_and_the_old_value_stays,
    metrics_count_rotations_and_syncs,
}

const FOREVER: &str = "sleep 10000";

/// The test that must run before rotation is enabled.
pub(crate) fn before() -> Vec<libtest_mimic::Trial> {
    vec![libtest_mimic::Trial::test("rotation::it_can_be_enabled_under_a_running_pod", || {
        it_can_be_enabled_under_a_running_pod().map_err(|error| format!("{error:#}").into())
    })]
}

/// Enables rotation and the mirror, once.
fn enable() -> Result<()> {
    static ENABLED: OnceLock<Result<(), String>> = OnceLock::new();
    let enabled = ENABLED.get_or_init(|| release::enable_rotation().map_err(|error| format!("{error:#}")));
    enabled.clone().map_err(|error| anyhow::anyhow!("rotation cannot be enabled: {error}"))
}

/// A fixture with credentials; enables rotation.
pub(crate) fn fixture(about: &str) -> Result<Fixture> {
    enable()?;
    let fixture = Fixture::new(about)?;
    fixture.credentials()?;
    Ok(fixture)
}

/// Creates a class with these secrets and `secretObjects`.
fn class(fixture: &Fixture, name: &str, secrets: &[&str], secret_objects: &Value) -> Result<()> {
    let objects = serde_json::to_string(secret_objects)?;
    fixture.apply(&fixture.class_of("v1", name, secrets).replacen(
        "spec:\n",
        &format!("spec:\n  secretObjects: {objects}\n"),
        1,
    ))
}

fn opaque(name: &str, object: &str, key: &str) -> Value {
    json!([{ "secretName": name, "type": "Opaque", "labels": {"environment": "test"},
             "annotations": {"kubed.appscode.com/sync": "app=test"}, "data": [{"objectName": object, "key": key}] }])
}

/// The value of a key of a Secret, if both exist.
pub(crate) fn value(namespace: &str, secret: &str, key: &str) -> Result<Option<String>> {
    let Some(found) = get(namespace, "secret", secret)? else { return Ok(None) };
    let Some(encoded) = found["data"][key].as_str() else { return Ok(None) };
    Ok(Some(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded)?)?))
}

pub(crate) fn wait_for_value(namespace: &str, secret: &str, key: &str, expected: &str) -> Result<()> {
    let waited = wait_for(&format!("{namespace}/{secret} has the value of {key}"), || {
        Ok(value(namespace, secret, key)?.as_deref() == Some(expected))
    });
    waited.with_context(|| format!("{:?}", get(namespace, "secret", secret)))
}

fn owners(namespace: &str, secret: &str) -> Result<usize> {
    let found = get(namespace, "secret", secret)?.context("no Secret")?;
    Ok(found["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len))
}

pub(crate) fn wait_for_owners(namespace: &str, secret: &str, count: usize) -> Result<()> {
    let waited =
        wait_for(&format!("{namespace}/{secret} has {count} owners"), || Ok(owners(namespace, secret)? == count));
    waited.with_context(|| format!("{:?}", get(namespace, "secret", secret)))
}

pub(crate) fn wait_until_deleted(namespace: &str, secret: &str) -> Result<()> {
    wait_for(&format!("{namespace}/{secret} is deleted"), || Ok(get(namespace, "secret", secret)?.is_none()))
}

/// Waits until a file of a pod has this content.
pub(crate) fn wait_for_content(namespace: &str, pod: &str, file: &str, expected: &str) -> Result<()> {
    wait_for(&format!("{pod}: {file} has the new value"), || Ok(exec(namespace, pod, &["cat", file])? == expected))
}

/// Creates a Deployment of two pods that mount the class `demo`, and have the Secret `mirrored` in
/// their environment.
pub(crate) fn deployment(fixture: &Fixture, name: &str) -> Result<()> {
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
    fixture.apply(&deployment.to_string())
}

/// Waits until both pods of a Deployment are Ready, and returns their names.
pub(crate) fn pods_of(fixture: &Fixture, name: &str) -> Result<Vec<String>> {
    let selector = format!("--selector=app={name}");
    wait_for(&format!("both pods of {name} are Ready"), || {
        let pods = list(&fixture.namespace, "pods", &[&selector])?;
        Ok(pods.len() == 2 && pods.iter().all(|pod| condition(pod, "Ready")))
    })?;
    list(&fixture.namespace, "pods", &[&selector])?.iter().map(|pod| text(pod, "/metadata/name")).collect()
}

fn a_changed_value_reaches_files_and_secret() -> Result<()> {
    let fixture = fixture("rotated")?;
    let old = fixture.set("a");
    class(&fixture, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    wait_for_value(&fixture.namespace, "mirrored", "username", &old)?;
    let new = fixture.change("a");
    wait_for_content(&fixture.namespace, "web", "/mnt/demo/a", &new)?;
    wait_for_value(&fixture.namespace, "mirrored", "username", &new)?;
    let version = status(&fixture, "demo")?["status"]["objects"][0]["version"].clone();
    ensure!(version.as_str().is_some_and(|version| !version.is_empty()), "{version}");
    Ok(())
}

fn without_secret_objects_only_the_file_changes() -> Result<()> {
    let fixture = fixture("mount-only")?;
    fixture.set("a");
    fixture.class("demo", &["a"])?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    let new = fixture.change("a");
    wait_for_content(&fixture.namespace, "web", "/mnt/demo/a", &new)?;
    let ours = list(&fixture.namespace, "secrets", &["--selector=secrets-store.csi.k8s.io/managed=true"])?;
    ensure!(ours.is_empty(), "{ours:?}");
    Ok(())
}

/// A refresh with workload identity needs the tokens in the kubelet's calls.
fn volumes_of_identities_without_a_secret_are_refreshed() -> Result<()> {
    for (about, start) in [
        ("workload", user_manifests::start_workload_identity as fn(&Fixture) -> Result<&'static str>),
        ("managed", user_manifests::start_managed_identity),
    ] {
        let fixture = fixture(about)?;
        fixture.set("secret1");
        fixture.set_key("key1");
        let pod = start(&fixture)?;
        let new = fixture.change("secret1");
        wait_for_content(&fixture.namespace, pod, "/mnt/secrets-store/secret1", &new)?;
    }
    Ok(())
}

fn a_version_history_is_refreshed() -> Result<()> {
    let fixture = fixture("history")?;
    let old = fixture.set("a");
    let manifest = fixture.class_of("v1", "demo", &["a"]);
    let manifest = manifest.replace("objectName: a\n", "objectName: a\n          objectVersionHistory: 2\n");
    let objects = opaque("mirrored", "a/0", "username");
    fixture.apply(&manifest.replacen("spec:\n", &format!("spec:\n  secretObjects: {objects}\n"), 1))?;
    fixture.grant_list();
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    wait_for_value(&fixture.namespace, "mirrored", "username", &old)?;
    let new = fixture.change("a");
    wait_for_content(&fixture.namespace, "web", "/mnt/demo/a/0", &new)?;
    wait_for_content(&fixture.namespace, "web", "/mnt/demo/a/1", &old)?;
    wait_for_value(&fixture.namespace, "mirrored", "username", &new)
}

/// Creates the Deployments `one` and `two` of the class `demo`, and asserts that all their pods
/// have the value of `a` as a file and from the Secret, which both Deployments own.
pub(crate) fn two_deployments(fixture: &Fixture, value: &str) -> Result<()> {
    for name in ["one", "two"] {
        deployment(fixture, name)?;
    }
    for name in ["one", "two"] {
        for pod in pods_of(fixture, name)? {
            assert_eq!(exec(&fixture.namespace, &pod, &["cat", "/mnt/demo/a"])?, value);
            assert_eq!(exec(&fixture.namespace, &pod, &["sh", "-c", "printf %s \"$FROM_SECRET\""])?, value);
        }
    }
    wait_for_owners(&fixture.namespace, "mirrored", 2)?;
    let secret = get(&fixture.namespace, "secret", "mirrored")?.context("no Secret")?;
    assert_eq!(secret["metadata"]["labels"]["secrets-store.csi.k8s.io/managed"], "true");
    assert_eq!(secret["metadata"]["labels"]["environment"], "test");
    Ok(())
}

fn two_deployments_own_one_secret_until_the_last_is_gone() -> Result<()> {
    let fixture = fixture("owners")?;
    let value = fixture.set("a");
    class(&fixture, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    two_deployments(&fixture, &value)?;
    // A rotation does not change the owners.
    let new = fixture.change("a");
    wait_for_value(&fixture.namespace, "mirrored", "username", &new)?;
    wait_for_owners(&fixture.namespace, "mirrored", 2)?;
    kubectl(&["delete", "deployment", "one", "--namespace", &fixture.namespace, "--timeout=120s"])?;
    wait_for_owners(&fixture.namespace, "mirrored", 1)?;
    kubectl(&["delete", "deployment", "two", "--namespace", &fixture.namespace, "--timeout=120s"])?;
    wait_until_deleted(&fixture.namespace, "mirrored")
}

fn secrets_have_annotations_types_and_nested_objects() -> Result<()> {
    let fixture = fixture("kinds")?;
    let (user, password) = (fixture.set("user"), fixture.set("password"));
    let objects = json!([
        {"secretName": "login", "type": "kubernetes.io/basic-auth", "annotations": {"example.com/a": "b"},
         "data": [{"objectName": "user", "key": "username"}, {"objectName": "nested/bar", "key": "password"}]},
    ]);
    let manifest = fixture.class_of("v1", "demo", &["user", "password"]);
    let manifest =
        manifest.replace("objectName: password\n", "objectName: password\n          objectAlias: nested/bar\n");
    fixture.apply(&manifest.replacen("spec:\n", &format!("spec:\n  secretObjects: {objects}\n"), 1))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/demo/nested/bar"])?, password);
    wait_for_value(&fixture.namespace, "login", "password", &password)?;
    wait_for_value(&fixture.namespace, "login", "username", &user)?;
    let secret = get(&fixture.namespace, "secret", "login")?.context("no Secret")?;
    assert_eq!(secret["type"], "kubernetes.io/basic-auth");
    assert_eq!(secret["metadata"]["annotations"]["example.com/a"], "b");
    Ok(())
}

fn one_class_name_in_two_namespaces_has_two_secrets() -> Result<()> {
    let fixtures = [fixture("here")?, fixture("there")?];
    for fixture in &fixtures {
        fixture.set("a");
        class(fixture, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
        deployment(fixture, "one")?;
    }
    for fixture in &fixtures {
        pods_of(fixture, "one")?;
        wait_for_value(&fixture.namespace, "mirrored", "username", &format!("value of a in {}", fixture.vault))?;
        wait_for_owners(&fixture.namespace, "mirrored", 1)?;
    }
    Ok(())
}

fn two_classes_in_one_pod_have_a_secret_each() -> Result<()> {
    let fixture = fixture("pair")?;
    let (a, b) = (fixture.set("a"), fixture.set("b"));
    class(&fixture, "first", &["a"], &opaque("mirrored-a", "a", "username"))?;
    class(&fixture, "second", &["b"], &opaque("mirrored-b", "b", "username"))?;
    fixture.pod("web", &["first", "second"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    for (secret, value) in [("mirrored-a", &a), ("mirrored-b", &b)] {
        wait_for_value(&fixture.namespace, secret, "username", value)?;
        wait_for_owners(&fixture.namespace, secret, 1)?;
    }
    // The owner for a bare pod is its status object, which is deleted with the pod.
    delete_pod(&fixture.namespace, "web")?;
    wait_until_deleted(&fixture.namespace, "mirrored-a")?;
    wait_until_deleted(&fixture.namespace, "mirrored-b")
}

fn a_deleted_secret_is_created_again() -> Result<()> {
    let fixture = fixture("deleted")?;
    fixture.set("a");
    class(&fixture, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    wait_for("the Secret exists", || Ok(get(&fixture.namespace, "secret", "mirrored")?.is_some()))?;
    kubectl(&["delete", "secret", "mirrored", "--namespace", &fixture.namespace])?;
    // The driver does not watch Secrets; it notices the deletion when the content changes.
    let new = fixture.change("a");
    wait_for_value(&fixture.namespace, "mirrored", "username", &new)
}

fn the_status_has_the_failure_of_a_vault_and_the_old_value_stays() -> Result<()> {
    let fixture = fixture("away")?;
    let old = fixture.set("a");
    fixture.class("demo", &["a"])?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    fixture.revoke_get();
    wait_for("the status has the reason", || Ok(status(&fixture, "demo")?["status"]["reason"] == "Forbidden"))?;
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/demo/a"])?, old);
    fixture.grant_get();
    let new = fixture.change("a");
    wait_for_content(&fixture.namespace, "web", "/mnt/demo/a", &new)?;
    wait_for("the status has no reason", || Ok(status(&fixture, "demo")?["status"]["reason"].is_null()))
}

fn metrics_count_rotations_and_syncs() -> Result<()> {
    let fixture = fixture("counted")?;
    fixture.set("a");
    class(&fixture, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    fixture.change("a");
    let names = ["rotation_reconcile_total{", "rotation_reconcile_duration_sec", "sync_k8s_secret_total{"];
    wait_for("the metrics exist", || {
        let text = node::http(8095, "/metrics")?.unwrap_or_default();
        Ok(names.iter().all(|name| text.contains(name)))
    })
}

/// An upgrade of the chart, as docs/install.md describes, does not restart the pod; its files
/// follow the vault, and its Secret is created.
fn it_can_be_enabled_under_a_running_pod() -> Result<()> {
    let fixture = Fixture::new("before")?;
    let old = fixture.set("a");
    fixture.credentials()?;
    class(&fixture, "demo", &["a"], &opaque("mirrored", "a", "username"))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    let started = get(&fixture.namespace, "pod", "web")?.context("no pod")?["status"]["containerStatuses"].clone();
    ensure!(get(&fixture.namespace, "secret", "mirrored")?.is_none(), "the mirror is enabled already");
    enable()?;
    wait_for_value(&fixture.namespace, "mirrored", "username", &old)?;
    let new = fixture.change("a");
    wait_for_content(&fixture.namespace, "web", "/mnt/demo/a", &new)?;
    wait_for_value(&fixture.namespace, "mirrored", "username", &new)?;
    let now = get(&fixture.namespace, "pod", "web")?.context("no pod")?;
    assert_eq!(now["status"]["containerStatuses"][0]["containerID"], started[0]["containerID"]);
    for role in ["secretprovidersyncing-role", "secretproviderrotation-role"] {
        get("", "clusterrole", role)?.with_context(|| format!("no {role}"))?;
    }
    get("", "clusterrolebinding", "secretprovidersyncing-rolebinding")?.context("no binding")?;
    Ok(())
}
