//! What pods, and people who look at them, see: files, events, status objects, and what is left when a pod is gone.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::kubectl::{condition, delete_pod, event, exec, get, kubectl, ready, text, wait_for};
use crate::scene::Scene;
use crate::{names, node, release};

trials! { "pods":
    a_missing_class_is_told_by_the_kubelet_and_by_us,
    a_missing_secret_is_told_with_its_name,
    two_classes_of_one_name_in_two_namespaces,
    two_volumes_of_two_classes_in_one_pod,
    the_status_object_is_upstreams,
    a_pod_that_is_deleted_leaves_nothing,
    kubectl_get_shows_something_useful,
    names_are_looked_up_by_the_image_itself,
    a_class_of_v1alpha1_mounts,
    one_class_name_with_a_bad_provider_elsewhere,
    metrics_have_upstreams_names,
    our_kinds_and_roles_have_upstreams_names,
}

const FOREVER: &str = "sleep 10000";
const STATUS: &str = "secretproviderclasspodstatus";

fn a_missing_class_is_told_by_the_kubelet_and_by_us() -> Result<()> {
    let scene = Scene::new("no-class")?;
    scene.credentials()?;
    scene.pod("web", &["absent"], FOREVER)?;
    let wanted = format!("failed to get secretproviderclass {}/absent", scene.namespace);
    let (component, _) = event(&scene.namespace, "web", "FailedMount", &[&wanted, "not found"])?;
    assert_eq!(component, "kubelet");
    let (component, message) = event(&scene.namespace, "web", "FailedMountClassNotFound", &[&wanted])?;
    ensure!(component.contains("secrets-store"), "{component}: {message}");
    // And the pod starts as soon as there is the class.
    let value = scene.set("late");
    scene.class("absent", &["late"])?;
    ready(&scene.namespace, "web")?;
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/absent/late"])?, value);
    Ok(())
}

fn a_missing_secret_is_told_with_its_name() -> Result<()> {
    let scene = Scene::new("no-secret")?;
    scene.credentials()?;
    scene.class("demo", &["never-set"])?;
    scene.pod("web", &["demo"], FOREVER)?;
    event(&scene.namespace, "web", "FailedMount", &["never-set", &scene.vault])?;
    let uid = scene.uid("web")?;
    ensure!(mounts(&uid)?.is_empty(), "a mount is there");
    Ok(())
}

fn two_classes_of_one_name_in_two_namespaces() -> Result<()> {
    let scenes = [Scene::new("left")?, Scene::new("right")?];
    for scene in &scenes {
        scene.set("which");
        scene.credentials()?;
        scene.class("same", &["which"])?;
        scene.pod("web", &["same"], FOREVER)?;
    }
    for scene in &scenes {
        ready(&scene.namespace, "web")?;
        let read = exec(&scene.namespace, "web", &["cat", "/mnt/same/which"])?;
        assert_eq!(read, format!("value of which in {}", scene.vault));
    }
    Ok(())
}

fn two_volumes_of_two_classes_in_one_pod() -> Result<()> {
    let scene = Scene::new("two")?;
    let (one, other) = (scene.set("one"), scene.set("other"));
    scene.credentials()?;
    scene.class("first", &["one"])?;
    scene.class("second", &["other"])?;
    scene.pod("web", &["first", "second"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/first/one"])?, one);
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/second/other"])?, other);
    for class in ["first", "second"] {
        status(&scene, class)?;
    }
    Ok(())
}

fn the_status_object_is_upstreams() -> Result<()> {
    let scene = Scene::new("status")?;
    scene.set("b");
    scene.set("a");
    scene.credentials()?;
    scene.class("demo", &["b", "a"])?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    let found = status(&scene, "demo")?;
    let uid = scene.uid("web")?;
    let target = release::kubelet_root().join(format!("pods/{uid}/volumes/kubernetes.io~csi/demo/mount"));
    assert_eq!(
        found["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}])
    );
    let node = text(&get(&scene.namespace, "pod", "web")?.context("no pod")?, "/spec/nodeName")?;
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
    let scene = Scene::new("gone")?;
    scene.set("a");
    scene.credentials()?;
    scene.class("demo", &["a"])?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    status(&scene, "demo")?;
    let uid = scene.uid("web")?;
    ensure!(!mounts(&uid)?.is_empty(), "the mount is not where this test looks for it");
    delete_pod(&scene.namespace, "web")?;
    let folder = release::kubelet_root().join("pods").join(&uid);
    wait_for("the pod's mounts and folder are gone", || Ok(mounts(&uid)?.is_empty() && !node::exists(&folder)?))?;
    let name = format!("web-{}-demo", scene.namespace);
    wait_for("the status object is gone", || Ok(get(&scene.namespace, STATUS, &name)?.is_none()))
}

fn kubectl_get_shows_something_useful() -> Result<()> {
    let scene = Scene::new("columns")?;
    scene.set("a");
    scene.credentials()?;
    scene.class("demo", &["a"])?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    status(&scene, "demo")?;
    let shown = |kind: &str| kubectl(&["get", kind, "--namespace", &scene.namespace]);
    let classes = shown("secretproviderclasses")?;
    ensure!(["demo", "azure", &scene.vault].iter().all(|word| classes.contains(word)), "{classes}");
    let statuses = shown(STATUS)?;
    ensure!(["web", "demo", "true"].iter().all(|word| statuses.contains(word)), "{statuses}");
    Ok(())
}

fn names_are_looked_up_by_the_image_itself() -> Result<()> {
    let scene = Scene::new("names")?;
    scene.set("a");
    scene.credentials()?;
    scene.class("demo", &["a"])?;
    let host = format!("{}.vault.azure.net", scene.vault);
    ensure!(!names::asked(&host), "{host} is known already");
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    ensure!(names::asked(&host), "the name server was not asked for {host}");
    Ok(())
}

fn a_class_of_v1alpha1_mounts() -> Result<()> {
    let scene = Scene::new("alpha")?;
    let value = scene.set("a");
    scene.credentials()?;
    scene.apply(&scene.class_of("v1alpha1", "demo", &["a"]))?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    let served = |version: &str| {
        let kind = format!("{STATUS}.{version}.secrets-store.csi.x-k8s.io");
        get(&scene.namespace, &kind, &format!("web-{}-demo", scene.namespace))
    };
    status(&scene, "demo")?;
    ensure!(served("v1")?.is_some() && served("v1alpha1")?.is_some());
    Ok(())
}

/// The class is the one of the pod's namespace, whatever others of its name say.
fn one_class_name_with_a_bad_provider_elsewhere() -> Result<()> {
    let (bad, good) = (Scene::new("bad")?, Scene::new("good")?);
    let value = good.set("a");
    bad.apply(&bad.class_of("v1", "demo", &["a"]).replace("provider: azure", "provider: invalid"))?;
    good.class("demo", &["a"])?;
    for scene in [&bad, &good] {
        scene.credentials()?;
        scene.pod("web", &["demo"], FOREVER)?;
    }
    ready(&good.namespace, "web")?;
    assert_eq!(exec(&good.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    event(&bad.namespace, "web", "FailedMount", &["invalid", &format!("{}/demo", bad.namespace)])?;
    Ok(())
}

fn metrics_have_upstreams_names() -> Result<()> {
    let scene = Scene::new("metrics")?;
    scene.set("a");
    scene.credentials()?;
    scene.class("demo", &["a"])?;
    scene.pod("web", &["demo"], FOREVER)?;
    ready(&scene.namespace, "web")?;
    delete_pod(&scene.namespace, "web")?;
    wait_for("both counters are there", || {
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
        ensure!(get("", "clusterrole", absent)?.is_none(), "{absent} is granted though it is not needed");
    }
    Ok(())
}

/// The status object of the pod `web` and a class, as soon as it is there.
pub(crate) fn status(scene: &Scene, class: &str) -> Result<serde_json::Value> {
    let name = format!("web-{}-{class}", scene.namespace);
    let mut found = None;
    wait_for(&format!("the status object {name}"), || {
        found = get(&scene.namespace, STATUS, &name)?;
        Ok(found.is_some())
    })?;
    found.context("no status")
}

/// The tmpfs mounts of a pod's CSI volumes on this node.
fn mounts(uid: &str) -> Result<Vec<String>> {
    node::mounts(&release::kubelet_root().join(format!("pods/{uid}/volumes/kubernetes.io~csi")))
}
