//! External providers with a real API server: the rows of upstream's `e2e-provider` suite
//! (docs/reference/csi-driver.md#end-to-end-scenarios) that need one.
//!
//! Row by row: *v1alpha1 SPC* is `a_class_of_the_deprecated_version_mounts`; *sync*, *delete first
//! Deployment* and *annotations and nested object names* are
//! `two_deployments_of_one_class_own_one_secret`; *namespaced SPC* and *no SPC in namespace* are
//! `a_pod_uses_the_class_of_its_namespace`; *two SPCs, two volumes, one pod* is
//! `two_volumes_of_one_pod_make_two_secrets`; *rotation* and *metrics* are
//! `rotation_reaches_file_secret_and_status`. The deletion of a Secret without owners needs the
//! garbage collector, which only a complete cluster has.

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use keyvault_csi_e2e::reference::ReferenceProvider;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Value, json};
use tonic::Code;

use crate::apiserver::{CLASSES, Cluster, Rights, STATUSES, User, cluster, wait_for_watch};
use crate::external_fixture::{NAME, ROTATING, objects, options, parameters, provider};
use crate::harness::{Node, harness, set_provider_dirs};
use crate::mirror_fixture::{Fixture, PATIENCE, PODS, decoded, opaque, owners};

trials! { "external_cluster":
    a_class_of_the_deprecated_version_mounts,
    two_deployments_of_one_class_own_one_secret,
    a_pod_uses_the_class_of_its_namespace,
    two_volumes_of_one_pod_make_two_secrets,
    rotation_reaches_file_secret_and_status,
    a_status_has_the_providers_versions,
    a_failure_is_an_event_without_the_credentials,
}

/// A driver that mirrors Secrets, and its provider.
fn driver_and_provider(fixture: &Fixture, flags: &[&str]) -> Result<(Node, User, ReferenceProvider)> {
    let user = fixture.cluster.user(Rights::Sync)?;
    let mut setup = fixture.setup(&user, "a", ["--sync-secret=true"].iter().chain(flags).copied());
    set_provider_dirs(&mut setup)?;
    let provider = provider(&options(&setup, 1, 8080)?)?;
    Ok((Node::start(setup)?, user, provider))
}

fn class(cluster: &Cluster, namespace: &str, name: &str, provider: &str, of: &[&str], secrets: &Value) -> Result<()> {
    let spec = json!({ "provider": provider, "parameters": parameters(of, ""), "secretObjects": secrets });
    cluster.create(CLASSES, Some(namespace), json!({ "metadata": { "name": name }, "spec": spec }))?;
    Ok(())
}

fn a_class_of_the_deprecated_version_mounts() -> Result<()> {
    let fixture = Fixture::new()?;
    let (node, _, _provider) = driver_and_provider(&fixture, &[])?;
    let resource = ApiResource {
        group: "secrets-store.csi.x-k8s.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "secrets-store.csi.x-k8s.io/v1alpha1".to_owned(),
        kind: CLASSES.0.to_owned(),
        plural: CLASSES.1.to_owned(),
    };
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": resource.api_version, "kind": resource.kind, "metadata": { "name": "demo" },
        "spec": { "provider": NAME, "parameters": { "objects": objects(&["objectName: foo", "objectName: fookey"]) } },
    }))?;
    let api = kube::Api::namespaced_with(fixture.cluster.client(), &fixture.namespace, &resource);
    fixture.cluster.block_on(api.create(&PostParams::default(), &object))?;
    let target = node.publish(&fixture.pod("web", "a", "demo", &Value::Null)?)?;
    assert_eq!(std::fs::read_to_string(target.join("foo"))?, "secret");
    ensure!(std::fs::read_to_string(target.join("fookey"))?.starts_with("-----BEGIN PUBLIC KEY-----"));
    Ok(())
}

fn two_deployments_of_one_class_own_one_secret() -> Result<()> {
    let fixture = Fixture::new()?;
    let (node, _, _provider) = driver_and_provider(&fixture, &["--secret-check-interval=1s"])?;
    let object = json!({
        "secretName": "foosecret", "type": "Opaque", "labels": { "environment": "test" }, "annotations": { "kept": "yes" },
        "data": [{ "objectName": "foo", "key": "username" }, { "objectName": "nested/bar", "key": "nested" }],
    });
    let of = ["objectName: foo", "objectName: foo, path: nested/bar"];
    class(fixture.cluster, &fixture.namespace, "demo", NAME, &of, &json!([object]))?;
    let sets = [fixture.replica_set("one")?, fixture.replica_set("two")?];
    let mut pods: Vec<Vec<Volume>> = Vec::new();
    for set in &sets {
        let name = set["name"].as_str().context("no name")?;
        let pods_of = (0..2).map(|number| fixture.pod(&format!("{name}-{number}"), "a", "demo", set));
        pods.push(pods_of.collect::<Result<_>>()?);
    }
    for pod in pods.iter().flatten() {
        let target = node.publish(pod)?;
        assert_eq!(std::fs::read_to_string(target.join("foo"))?, "secret");
    }
    let secret = fixture.holds("foosecret", "username", "secret")?;
    assert_eq!(decoded(&secret, "nested").as_deref(), Some("secret"));
    let labels = json!({ "environment": "test", "secrets-store.csi.k8s.io/managed": "true" });
    assert_eq!(secret["metadata"]["labels"], labels);
    assert_eq!(secret["metadata"]["annotations"]["kept"], "yes");
    wait_for("both own the Secret", PATIENCE, || Ok(owners(&fixture.there("foosecret")?).len() == 2))?;
    ensure!(node.metrics()?.lines().any(|line| line.starts_with("sync_k8s_secret_total") && line.contains(NAME)));
    Ok(())
}

fn a_pod_uses_the_class_of_its_namespace() -> Result<()> {
    let fixture = Fixture::new()?;
    let (node, _, _provider) = driver_and_provider(&fixture, &[])?;
    let elsewhere = fixture.cluster.namespace()?;
    class(fixture.cluster, &elsewhere, "demo", "no-such-provider", &["objectName: foo"], &json!([]))?;
    class(
        fixture.cluster,
        &fixture.namespace,
        "demo",
        NAME,
        &["objectName: foo"],
        &json!([opaque("s", &[("foo", "k")])]),
    )?;
    class(fixture.cluster, &elsewhere, "only-there", NAME, &["objectName: foo"], &json!([]))?;
    wait_for_watch(&node)?;
    node.publish(&fixture.pod("web", "a", "demo", &fixture.replica_set("web")?)?)?;
    wait_for("one owner is set", PATIENCE, || Ok(owners(&fixture.there("s")?).len() == 1))?;
    let mut pod = fixture.pod("lost", "a", "only-there", &Value::Null)?;
    let status = node.refused(&pod)?;
    let expected = format!("failed to get secretproviderclass {}/only-there: not found", fixture.namespace);
    ensure!(status.code() == Code::Unknown && status.message().contains(&expected), "{status}");
    pod = fixture.pod("wrong", "a", "demo", &Value::Null)?;
    pod.namespace.clone_from(&elsewhere);
    ensure!(node.refused(&pod)?.message().contains("provider not found"));
    Ok(())
}

fn two_volumes_of_one_pod_make_two_secrets() -> Result<()> {
    let fixture = Fixture::new()?;
    let (node, _, _provider) = driver_and_provider(&fixture, &[])?;
    for (name, key) in [("one", "foo"), ("two", "fookey")] {
        let secrets = json!([opaque(&format!("secret-{name}"), &[(key, "k")])]);
        class(fixture.cluster, &fixture.namespace, name, NAME, &[&format!("objectName: {key}")], &secrets)?;
    }
    let owner = fixture.replica_set("web")?;
    let volumes = ["one", "two"].map(|class| {
        let attributes = json!({ "secretProviderClass": class });
        json!({ "name": class, "csi": { "driver": "secrets-store.csi.k8s.io", "readOnly": true, "volumeAttributes": attributes } })
    });
    let pod = json!({
        "metadata": { "name": "web", "ownerReferences": [owner] },
        "spec": { "nodeName": fixture.node_name("a"), "containers": [{ "name": "c", "image": "i" }], "volumes": volumes },
    });
    let made = fixture.cluster.create(PODS, Some(&fixture.namespace), pod)?;
    for class in ["one", "two"] {
        let volume = Volume {
            uid: made.metadata.uid.clone().context("no UID")?,
            name: class.to_owned(),
            ..Volume::of_class(&fixture.namespace, "web", class)
        };
        node.publish(&volume)?;
    }
    fixture.holds("secret-one", "k", "secret")?;
    fixture.there("secret-two")?;
    for name in ["secret-one", "secret-two"] {
        assert_eq!(owners(&fixture.there(name)?).len(), 1, "{name}");
    }
    Ok(())
}

fn rotation_reaches_file_secret_and_status() -> Result<()> {
    let fixture = Fixture::new()?;
    let (node, _, provider) = driver_and_provider(&fixture, &ROTATING)?;
    let secrets = json!([opaque("rotated", &[("foo", "k")])]);
    class(fixture.cluster, &fixture.namespace, "demo", NAME, &["objectName: foo"], &secrets)?;
    let pod = fixture.pod("web", "a", "demo", &fixture.replica_set("web")?)?;
    let target = node.publish(&pod)?;
    fixture.holds("rotated", "k", "secret")?;
    provider.control("/rotation", &[("rotated", "true")])?;
    wait_for("the file", PATIENCE, || Ok(std::fs::read_to_string(target.join("foo"))? == "rotated"))?;
    fixture.holds("rotated", "k", "rotated")?;
    wait_for("the status", PATIENCE, || {
        Ok(versions(&fixture, "web")? == json!([{ "id": "secret/foo", "version": "v2" }]))
    })?;
    node.kubelet.unpublish(&pod)?;
    let metrics = node.metrics()?;
    for name in ["node_publish_total", "node_unpublish_total", "rotation_reconcile_total"] {
        ensure!(metrics.contains(&format!("{name}{{")), "{name} is missing in {metrics}");
    }
    Ok(())
}

fn versions(fixture: &Fixture, pod: &str) -> Result<Value> {
    let name = format!("{pod}-{}-demo", fixture.namespace);
    let found = fixture.cluster.get(STATUSES, &fixture.namespace, &name)?;
    Ok(found.map_or(Value::Null, |status| status.data["status"]["objects"].clone()))
}

fn a_status_has_the_providers_versions() -> Result<()> {
    let fixture = Fixture::new()?;
    let (node, _, _provider) = driver_and_provider(&fixture, &[])?;
    let of = ["objectName: fookey, objectVersion: b2", "objectName: foo"];
    class(fixture.cluster, &fixture.namespace, "demo", NAME, &of, &json!([]))?;
    node.publish(&fixture.pod("web", "a", "demo", &Value::Null)?)?;
    let sorted = json!([{ "id": "secret/foo", "version": "v1" }, { "id": "secret/fookey", "version": "b2" }]);
    wait_for("the status", PATIENCE, || Ok(versions(&fixture, "web")? == sorted))
}

fn a_failure_is_an_event_without_the_credentials() -> Result<()> {
    let cluster = cluster()?;
    let fixture = Fixture::new()?;
    let (node, _, provider) = driver_and_provider(&fixture, &[])?;
    class(cluster, &fixture.namespace, "demo", NAME, &["objectName: foo"], &json!([]))?;
    provider.control("/answer", &[("answer", "quote")])?;
    let pod = fixture.pod("web", "a", "demo", &Value::Null)?;
    node.refused(&pod)?;
    wait_for("the event is there", PATIENCE, || Ok(!fixture.events("FailedMountProviderFailed")?.is_empty()))?;
    let events = fixture.events("FailedMountProviderFailed")?;
    let secret = &pod.secrets["clientsecret"];
    ensure!(events[0].contains("cannot serve") && !events[0].contains(secret.as_str()), "{events:?}");
    harness().remember(&events[0]);
    Ok(())
}
