//! Pods as users observe them: files, events and status objects, and the clean-up after a pod.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::fixture::Fixture;
use crate::kubectl::{condition, delete_pod, event, exec, get, kubectl, ready, text, wait_for};
use crate::{name_server, node, release};

trials! { "pods":
    a_missing_class_is_an_event_of_the_kubelet_and_of_the_driver,
    the_event_of_a_missing_secret_has_its_name,
    two_classes_of_one_name_in_two_namespaces,
    two_volumes_of_two_classes_in_one_pod,
    the_status_object_is_upstreams,
    a_pod_that_is_deleted_leaves_nothing,
    kubectl_get_shows_the_printer_columns,
    the_image_resolves_names_without_a_c_library,
    a_pod_without_root_reads_by_its_fs_group,
    a_class_of_v1alpha1_mounts,
    one_class_name_with_a_bad_provider_elsewhere,
    metrics_have_upstreams_names,
    our_kinds_and_roles_have_upstreams_names,
}

const FOREVER: &str = "sleep 10000";
const STATUS: &str = "secretproviderclasspodstatus";

fn a_missing_class_is_an_event_of_the_kubelet_and_of_the_driver() -> Result<()> {
    let fixture = Fixture::new("no-class")?;
    fixture.credentials()?;
    fixture.pod("web", &["absent"], FOREVER)?;
    let wanted = format!("failed to get secretproviderclass {}/absent", fixture.namespace);
    let (component, _) = event(&fixture.namespace, "web", "FailedMount", &[&wanted, "not found"])?;
    assert_eq!(component, "kubelet");
    let (component, message) = event(&fixture.namespace, "web", "FailedMountClassNotFound", &[&wanted])?;
    ensure!(component.contains("secrets-store"), "{component}: {message}");
    // The pod starts once the class exists.
    let value = fixture.set("late");
    fixture.class("absent", &["late"])?;
    ready(&fixture.namespace, "web")?;
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/absent/late"])?, value);
    Ok(())
}

fn the_event_of_a_missing_secret_has_its_name() -> Result<()> {
    let fixture = Fixture::new("no-secret")?;
    fixture.credentials()?;
    fixture.class("demo", &["never-set"])?;
    fixture.pod("web", &["demo"], FOREVER)?;
    event(&fixture.namespace, "web", "FailedMount", &["never-set", &fixture.vault])?;
    let uid = fixture.uid("web")?;
    ensure!(mounts(&uid)?.is_empty(), "the volume is mounted");
    Ok(())
}

fn two_classes_of_one_name_in_two_namespaces() -> Result<()> {
    let fixtures = [Fixture::new("left")?, Fixture::new("right")?];
    for fixture in &fixtures {
        fixture.set("which");
        fixture.credentials()?;
        fixture.class("same", &["which"])?;
        fixture.pod("web", &["same"], FOREVER)?;
    }
    for fixture in &fixtures {
        ready(&fixture.namespace, "web")?;
        let read = exec(&fixture.namespace, "web", &["cat", "/mnt/same/which"])?;
        assert_eq!(read, format!("value of which in {}", fixture.vault));
    }
    Ok(())
}

fn two_volumes_of_two_classes_in_one_pod() -> Result<()> {
    let fixture = Fixture::new("two")?;
    let (one, other) = (fixture.set("one"), fixture.set("other"));
    fixture.credentials()?;
    fixture.class("first", &["one"])?;
    fixture.class("second", &["other"])?;
    fixture.pod("web", &["first", "second"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/first/one"])?, one);
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/second/other"])?, other);
    for class in ["first", "second"] {
        status(&fixture, class)?;
    }
    Ok(())
}

fn the_status_object_is_upstreams() -> Result<()> {
    let fixture = Fixture::new("status")?;
    fixture.set("b");
    fixture.set("a");
    fixture.credentials()?;
    fixture.class("demo", &["b", "a"])?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    let found = status(&fixture, "demo")?;
    let uid = fixture.uid("web")?;
    let target = release::kubelet_root().join(format!("pods/{uid}/volumes/kubernetes.io~csi/demo/mount"));
    assert_eq!(
        found["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}])
    );
    let node = text(&get(&fixture.namespace, "pod", "web")?.context("no pod")?, "/spec/nodeName")?;
    assert_eq!(found["metadata"]["labels"]["internal.secrets-store.csi.k8s.io/node-name"], node);
    let status = &found["status"];
    assert_eq!(status["mounted"], true);
    assert_eq!(status["podName"], "web");
    assert_eq!(status["secretProviderClassName"], "demo");
    assert_eq!(status["targetPath"], target.display().to_string());
    let ids: Vec<_> = status["objects"].as_array().context("no objects")?.iter().map(|object| &object["id"]).collect();
    assert_eq!(ids, ["secret/a", "secret/b"]);
    Ok(())
}

fn a_pod_that_is_deleted_leaves_nothing() -> Result<()> {
    let fixture = Fixture::new("gone")?;
    fixture.set("a");
    fixture.credentials()?;
    fixture.class("demo", &["a"])?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    status(&fixture, "demo")?;
    let uid = fixture.uid("web")?;
    ensure!(!mounts(&uid)?.is_empty(), "this test does not find the mount");
    delete_pod(&fixture.namespace, "web")?;
    let folder = release::kubelet_root().join("pods").join(&uid);
    wait_for("the pod's mounts and directory are removed", || Ok(mounts(&uid)?.is_empty() && !node::exists(&folder)?))?;
    let name = format!("web-{}-demo", fixture.namespace);
    wait_for("the status object is deleted", || Ok(get(&fixture.namespace, STATUS, &name)?.is_none()))
}

fn kubectl_get_shows_the_printer_columns() -> Result<()> {
    let fixture = Fixture::new("columns")?;
    fixture.set("a");
    fixture.credentials()?;
    fixture.class("demo", &["a"])?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    status(&fixture, "demo")?;
    let shown = |kind: &str| kubectl(&["get", kind, "--namespace", &fixture.namespace]);
    let classes = shown("secretproviderclasses")?;
    ensure!(["demo", "azure", &fixture.vault].iter().all(|word| classes.contains(word)), "{classes}");
    let statuses = shown(STATUS)?;
    ensure!(["web", "demo", "true"].iter().all(|word| statuses.contains(word)), "{statuses}");
    Ok(())
}

fn the_image_resolves_names_without_a_c_library() -> Result<()> {
    let fixture = Fixture::new("names")?;
    fixture.set("a");
    fixture.credentials()?;
    fixture.class("demo", &["a"])?;
    let host = format!("{}.vault.azure.net", fixture.vault);
    ensure!(!name_server::was_queried(&host), "{host} was queried before");
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    ensure!(name_server::was_queried(&host), "{host} was not queried");
    Ok(())
}

fn a_pod_without_root_reads_by_its_fs_group() -> Result<()> {
    let fixture = Fixture::new("group")?;
    let value = fixture.set("a");
    fixture.credentials()?;
    fixture.class("demo", &["a"])?;
    let unprivileged = json!({"runAsUser": 65534, "runAsGroup": 65534, "fsGroup": 2000});
    fixture.pod_with("web", &["demo"], FOREVER, &unprivileged)?;
    ready(&fixture.namespace, "web")?;
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    assert_eq!(exec(&fixture.namespace, "web", &["stat", "-L", "-c", "%g", "/mnt/demo/a"])?, "2000\n");
    Ok(())
}

fn a_class_of_v1alpha1_mounts() -> Result<()> {
    let fixture = Fixture::new("alpha")?;
    let value = fixture.set("a");
    fixture.credentials()?;
    fixture.apply(&fixture.class_of("v1alpha1", "demo", &["a"]))?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    let served = |version: &str| {
        let kind = format!("{STATUS}.{version}.secrets-store.csi.x-k8s.io");
        get(&fixture.namespace, &kind, &format!("web-{}-demo", fixture.namespace))
    };
    status(&fixture, "demo")?;
    ensure!(served("v1")?.is_some() && served("v1alpha1")?.is_some());
    Ok(())
}

/// The class is that of the pod's namespace; classes with its name elsewhere do not matter.
fn one_class_name_with_a_bad_provider_elsewhere() -> Result<()> {
    let (bad, good) = (Fixture::new("bad")?, Fixture::new("good")?);
    let value = good.set("a");
    bad.apply(&bad.class_of("v1", "demo", &["a"]).replace("provider: azure", "provider: invalid"))?;
    good.class("demo", &["a"])?;
    for fixture in [&bad, &good] {
        fixture.credentials()?;
        fixture.pod("web", &["demo"], FOREVER)?;
    }
    ready(&good.namespace, "web")?;
    assert_eq!(exec(&good.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    event(&bad.namespace, "web", "FailedMount", &["invalid", &format!("{}/demo", bad.namespace)])?;
    Ok(())
}

fn metrics_have_upstreams_names() -> Result<()> {
    let fixture = Fixture::new("metrics")?;
    fixture.set("a");
    fixture.credentials()?;
    fixture.class("demo", &["a"])?;
    fixture.pod("web", &["demo"], FOREVER)?;
    ready(&fixture.namespace, "web")?;
    delete_pod(&fixture.namespace, "web")?;
    wait_for("both counters exist", || {
        let text = node::http(8095, "/metrics")?.unwrap_or_default();
        Ok(["node_publish_total{", "node_unpublish_total{"].iter().all(|name| text.contains(name)))
    })
}

fn our_kinds_and_roles_have_upstreams_names() -> Result<()> {
    for kind in ["secretproviderclasses", "secretproviderclasspodstatuses"] {
        let definition = get("", "customresourcedefinition", &format!("{kind}.secrets-store.csi.x-k8s.io"))?;
        let definition = definition.with_context(|| format!("no definition of {kind}"))?;
        ensure!(condition(&definition, "Established"), "{definition}");
    }
    for role in [
        "secretproviderclasses-role",
        "secretproviderclasses-admin-role",
        "secretproviderclasses-viewer-role",
        "secretproviderclasspodstatuses-viewer-role",
    ] {
        get("", "clusterrole", role)?.with_context(|| format!("no {role}"))?;
    }
    get("", "clusterrolebinding", "secretproviderclasses-rolebinding")?.context("no binding")?;
    for absent in ["secretprovidersyncing-role", "secretproviderrotation-role"] {
        ensure!(get("", "clusterrole", absent)?.is_none(), "{absent} is not needed");
    }
    Ok(())
}

/// Waits for the status object of the pod `web` and a class.
pub(crate) fn status(fixture: &Fixture, class: &str) -> Result<serde_json::Value> {
    let name = format!("web-{}-{class}", fixture.namespace);
    let mut found = None;
    wait_for(&format!("the status object {name}"), || {
        found = get(&fixture.namespace, STATUS, &name)?;
        Ok(found.is_some())
    })?;
    found.context("no status")
}

/// The tmpfs mounts of a pod's CSI volumes on this node.
fn mounts(uid: &str) -> Result<Vec<String>> {
    node::mounts(&release::kubelet_root().join(format!("pods/{uid}/volumes/kubernetes.io~csi")))
}
