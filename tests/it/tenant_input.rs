//! Hostile input of authors of pods and classes: names in URLs and objects, and files of custom
//! clouds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use keyvault_csi_e2e::provider::UpstreamDriver;
use serde_json::{Value, json};
use tonic::Code;

use crate::apiserver::{CLASSES, Cluster, Rights, STATUSES, User, cluster, wait_for_watch};
use crate::cloud_files::as_configmap;
use crate::harness::{Node, STACK, Vault, class_manifest, harness, stack_file};
use crate::mirror_fixture::{EVENTS, Fixture as Mirror, PATIENCE, SECRETS, opaque, owners};
use crate::plugin::Fixture as Plugin;

trials! { "tenant_input":
    no_name_of_a_class_becomes_part_of_a_url,
    names_of_classes_are_checked_with_manifests_too,
    forged_pod_info_becomes_no_part_of_a_url,
    a_forged_status_leads_to_no_request,
    a_forged_owner_of_a_pod_leads_to_no_request,
    a_forged_class_in_a_secrets_annotation_leads_to_no_request,
    labels_that_no_secret_can_have_are_not_sent,
    a_status_that_the_server_refuses_is_not_sent_again,
    a_secret_that_the_server_refuses_is_not_sent_again,
    volume_attributes_cannot_name_a_cloud_file_to_the_node,
    volume_attributes_name_only_files_of_the_folder_to_the_provider,
    the_example_of_a_custom_cloud_works,
}

/// Names that would change the meaning of a URL, or that no object can have.
const HOSTILE: &[&str] = &[
    "../../../../../api/v1/namespaces/kube-system/secrets/x",
    "../demo",
    "..",
    ".",
    "demo/status",
    "demo?watch=true",
    "demo#x",
    "demo%2f..%2fdemo",
    "%2e%2e",
    "demo ",
    "de mo",
    "demo\n",
    "Demo",
    "demo_",
    "-demo",
    "d\u{e9}mo",
    "demo\u{0}",
];

fn volume(vault: &Vault, namespace: &str, class: &str) -> Volume {
    Volume { namespace: namespace.to_owned(), ..vault.volume(class) }
}

/// Returns the URIs of a driver's requests, without lists, watches and events.
fn requested(cluster: &Cluster, user: &User) -> Result<Vec<String>> {
    let calls = cluster.calls(user)?.into_iter();
    let calls = calls.filter(|call| !matches!(call.verb.as_str(), "list" | "watch") && call.resource != EVENTS.1);
    Ok(calls.map(|call| call.uri).collect())
}

fn no_name_of_a_class_becomes_part_of_a_url() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("a");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["a"])?;
    // Without the right to watch, the driver reads each class by its name.
    let user = cluster.user(Rights::GetOnly)?;
    let node = Node::start(cluster.setup(&user))?;
    let long = "d".repeat(254);
    for name in HOSTILE.iter().copied().chain([long.as_str()]) {
        let status = node.refused(&volume(&vault, &namespace, name))?;
        ensure!(status.code() == Code::InvalidArgument, "{name:?}: {status}");
        for word in ["secretProviderClass", "use at most 253 lower-case letters", "InvalidRequest"] {
            ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
        }
    }
    // The driver requested neither a class nor a status; a good name shows that it makes requests
    // at all.
    assert_eq!(requested(cluster, &user)?, [""; 0]);
    node.publish(&volume(&vault, &namespace, "demo"))?;
    wait_for("the status is written", PATIENCE, || Ok(requested(cluster, &user)?.len() > 1))?;
    let requested = requested(cluster, &user)?;
    let group = format!("/apis/secrets-store.csi.x-k8s.io/v1/namespaces/{namespace}");
    let good = [format!("{group}/{}/demo", CLASSES.1), format!("{group}/{}?", STATUSES.1)];
    ensure!(requested.iter().all(|uri| good.contains(uri)), "{requested:?}");
    Ok(())
}

fn names_of_classes_are_checked_with_manifests_too() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let value = vault.set("password");
    let parameters = vault.parameters(&["password"]);
    let manifest = |name: &str| class_manifest("default", name, Some("azure"), &parameters);
    // One file with three classes; only two of them have valid names.
    let text = [manifest("one"), manifest("../demo"), manifest("two")].join("\n---\n");
    node.manifest("all.yaml", &text)?;
    for class in ["one", "two"] {
        let target = node.publish(&vault.volume(class))?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    for name in HOSTILE {
        let status = node.refused(&vault.volume(name))?;
        ensure!(status.code() == Code::InvalidArgument && status.message().contains("secretProviderClass"), "{status}");
    }
    let status = node.refused(&vault.volume("absent"))?;
    ensure!(status.message().contains("some manifests of the driver cannot be read"), "{status}");
    wait_for("field and kind in the log", PATIENCE, || {
        Ok(node.log().contains("metadata.name of a SecretProviderClass"))
    })
}

fn forged_pod_info_becomes_no_part_of_a_url() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("a");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["a"])?;
    let user = cluster.user(Rights::GetOnly)?;
    let node = Node::start(cluster.setup(&user))?;
    let good = volume(&vault, &namespace, "demo");
    node.kubelet.prepare(&good)?;
    for key in ["pod.namespace", "pod.name", "pod.uid", "serviceAccount.name"] {
        let key = format!("csi.storage.k8s.io/{key}");
        // A UID may have any letters, digits and hyphens.
        let harmless = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        for forged in HOSTILE.iter().filter(|name| !(key.ends_with("uid") && harmless(name))) {
            let mut request = node.kubelet.publish_request(&good);
            request.volume_context.insert(key.clone(), (*forged).to_owned());
            let status = node.kubelet.send(request, Duration::from_secs(10)).err().context("the publish succeeded")?;
            ensure!(status.code() == Code::InvalidArgument, "{status}");
            ensure!(status.message().contains(&key) && status.message().contains("InvalidRequest"), "{status}");
        }
    }
    assert_eq!(requested(cluster, &user)?, [""; 0]);
    ensure!(!cluster.calls(&user)?.iter().any(|call| call.resource == EVENTS.1), "an event for a forged pod");
    Ok(())
}

/// A status has the names of pod and class as free text, and the mirror reads both objects.
fn a_forged_status_leads_to_no_request() -> Result<()> {
    let fixture = Mirror::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("good", &[("a", "k")])]))?;
    let label = json!({ "internal.secrets-store.csi.k8s.io/node-name": fixture.node_name("a") });
    for (number, name) in HOSTILE.iter().enumerate() {
        for (at, (pod, class)) in [(*name, "demo"), ("web", *name)].into_iter().enumerate() {
            let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u-1" });
            let status = json!({
                "metadata": { "name": format!("forged-{number}-{at}"), "labels": label, "ownerReferences": [owner] },
                "status": { "podName": pod, "secretProviderClassName": class, "mounted": true, "targetPath": "/x", "objects": [] },
            });
            fixture.cluster.create(STATUSES, Some(&fixture.namespace), status)?;
        }
    }
    let (node, user) = fixture.node("a", &["--secret-check-interval=1s"])?;
    node.publish(&fixture.pod("web", "a", "demo", &fixture.replica_set("web")?)?)?;
    fixture.holds("good", "k", &value)?;
    for uri in requested(fixture.cluster, &user)? {
        ensure!(
            !["..", "%", "#", "watch=true", "/status", "kube-system"].iter().any(|part| uri.contains(part)),
            "{uri}"
        );
    }
    Ok(())
}

/// The UID of a pod's owner is free text, and becomes the name of a field manager in a URL.
fn a_forged_owner_of_a_pod_leads_to_no_request() -> Result<()> {
    let fixture = Mirror::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("good", &[("a", "k")])]))?;
    let (node, user) = fixture.node("a", &[])?;
    for (number, uid) in ["u&dryRun=All", "u&force=false&x=", "u#", "../u", "u v"].iter().enumerate() {
        let owner =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "forged", "uid": uid, "controller": true });
        node.publish(&fixture.pod(&format!("web-{number}"), "a", "demo", &owner)?)?;
        fixture.holds("good", "k", &value)?;
    }
    // Each pod counts as a pod without an owner: its status object owns the Secret instead.
    wait_for("all statuses as owners", PATIENCE, || Ok(owners(&fixture.there("good")?).len() == 5))?;
    let secret = fixture.there("good")?;
    let kinds = secret["metadata"]["ownerReferences"].as_array().context("no owners")?;
    ensure!(kinds.iter().all(|owner| owner["kind"] == STATUSES.0), "{kinds:?}");
    for uri in requested(fixture.cluster, &user)? {
        ensure!(!["dryRun", "force=false", "#", "..", "%"].iter().any(|part| uri.contains(part)), "{uri}");
    }
    Ok(())
}

/// An annotation names the class that a Secret belongs to, and the mirror reads that class to see
/// whether it still has the Secret.
fn a_forged_class_in_a_secrets_annotation_leads_to_no_request() -> Result<()> {
    let fixture = Mirror::new()?;
    let value = fixture.vault.set("a");
    let names: Vec<String> = (0..HOSTILE.len()).map(|number| format!("secret-{number}")).collect();
    for (name, hostile) in names.iter().zip(HOSTILE) {
        let metadata = json!({
            "name": name, "labels": { "secrets-store.csi.k8s.io/managed": "true" },
            "annotations": { "keyvault-csi/class": hostile },
        });
        fixture.put("another-manager", json!({ "metadata": metadata, "type": "Opaque", "data": { "k": "b2xk" } }))?;
    }
    let objects: Vec<Value> = names.iter().map(|name| opaque(name, &[("a", "k")])).collect();
    fixture.class("demo", &["a"], &json!(objects))?;
    // The driver does not watch classes, so each read of a class would be in the audit log.
    let (node, user) = fixture.node("a", &[])?;
    node.publish(&fixture.pod("web", "a", "demo", &fixture.replica_set("web")?)?)?;
    // No class has such a name, so the Secrets belong to no class and this one takes them over.
    for name in &names {
        fixture.holds(name, "k", &value)?;
    }
    for uri in requested(fixture.cluster, &user)? {
        ensure!(!["..", "%", "#", "watch=true", "/status"].iter().any(|part| uri.contains(part)), "{uri}");
    }
    Ok(())
}

fn labels_that_no_secret_can_have_are_not_sent() -> Result<()> {
    let fixture = Mirror::new()?;
    let value = fixture.vault.set("a");
    let with = |number: usize, field: &str, pair: (&str, &str)| {
        let mut object = opaque(&format!("bad-{number}"), &[("a", "k")]);
        object[field] = json!({ pair.0: pair.1 });
        object
    };
    let bad = json!([
        with(0, "labels", ("label", "no value of a label!")),
        with(1, "labels", ("no key!", "v")),
        with(2, "labels", ("../key", "v")),
        with(3, "annotations", ("no key!", "v")),
        opaque("good", &[("a", "k")]),
    ]);
    fixture.class("demo", &["a"], &bad)?;
    let (node, user) = fixture.node("a", &["--secret-check-interval=1s"])?;
    node.publish(&fixture.pod("web", "a", "demo", &fixture.replica_set("web")?)?)?;
    fixture.holds("good", "k", &value)?;
    let text = fixture.failure_event(&["spec.secretObjects[0]", "spec.secretObjects[3]"])?;
    for part in
        ["\"no value of a label!\" is not the value of a label", "\"no key!\" is not the key of a label or annotation"]
    {
        ensure!(text.contains(part), "{part} is missing: {text}");
    }
    // Resyncs read the good Secret again, and make no request for the other ones.
    let good = format!("/api/v1/namespaces/{}/secrets/good", fixture.namespace);
    wait_for("some resyncs", PATIENCE, || {
        Ok(requested(fixture.cluster, &user)?.iter().filter(|uri| **uri == good).count() >= 4)
    })?;
    let requested = requested(fixture.cluster, &user)?;
    ensure!(!requested.iter().any(|uri| uri.contains("/secrets/bad-")), "{requested:?}");
    assert_eq!(fixture.cluster.count(&user, "create", SECRETS.1)?, 1);
    Ok(())
}

fn a_status_that_the_server_refuses_is_not_sent_again() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("a");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["a"])?;
    let user = cluster.user(Rights::All)?;
    let mut setup = cluster.setup(&user);
    // The node's name becomes a label; with a hyphen at its end the server responds with 422.
    setup.node_id = "node-1-".to_owned();
    let node = Node::start(setup)?;
    wait_for_watch(&node)?;
    let refused = volume(&vault, &namespace, "demo");
    node.publish(&refused)?;
    wait_for("the refusal in the log", PATIENCE, || Ok(node.log().contains("the request is not repeated")))?;
    // Another driver, which lacks the right, starts later and repeats its request three times.
    // During this time the first one sends nothing.
    let other = cluster.user(Rights::GetOnly)?;
    let second = Node::start(cluster.setup(&other))?;
    second.publish(&volume(&vault, &namespace, "demo"))?;
    wait_for("repeated requests of the other driver", PATIENCE, || {
        Ok(cluster.count(&other, "create", STATUSES.1)? >= 4)
    })?;
    let calls = cluster.calls(&user)?;
    let codes: Vec<u64> = calls.iter().filter(|call| call.resource == STATUSES.1).map(|call| call.code).collect();
    assert_eq!(codes, [422]);
    assert_eq!(node.log().matches("the request is not repeated").count(), 1);
    Ok(())
}

fn a_secret_that_the_server_refuses_is_not_sent_again() -> Result<()> {
    let fixture = Mirror::new()?;
    let value = fixture.vault.set("a");
    // An immutable Secret: the server responds with 422 to every write of other data.
    let metadata = json!({ "name": "frozen", "labels": { "secrets-store.csi.k8s.io/managed": "true" } });
    fixture.put(
        "another-manager",
        json!({ "metadata": metadata, "type": "Opaque", "immutable": true, "data": { "k": "b2xk" } }),
    )?;
    fixture.class("demo", &["a"], &json!([opaque("frozen", &[("a", "k")]), opaque("good", &[("a", "k")])]))?;
    let (node, user) = fixture.node("a", &["--secret-check-interval=1s"])?;
    node.publish(&fixture.pod("web", "a", "demo", &fixture.replica_set("web")?)?)?;
    fixture.holds("good", "k", &value)?;
    fixture.failure_event(&["the API server refuses it"])?;
    let gets = || {
        let uri = format!("/api/v1/namespaces/{}/secrets/frozen", fixture.namespace);
        let requested = requested(fixture.cluster, &user)?;
        Ok::<_, anyhow::Error>(requested.iter().filter(|requested| **requested == uri).count())
    };
    wait_for("some resyncs", PATIENCE, || Ok(gets()? >= 4))?;
    let refused =
        fixture.cluster.calls(&user)?.iter().filter(|call| call.resource == SECRETS.1 && call.code == 422).count();
    assert_eq!(refused, 1);
    // A new Secret of the same name is written.
    fixture.delete(SECRETS, "frozen")?;
    fixture.holds("frozen", "k", &value)?;
    Ok(())
}

/// Returns parameters with the file of the custom cloud, and a volume whose attributes name another
/// file.
fn renamed(clouds: &Path, vault: &Vault) -> Result<(BTreeMap<String, String>, Volume)> {
    fs::write(clouds.join("stack.json"), stack_file(""))?;
    // Another file of the administrator, with a cloud that does not exist.
    let other =
        json!({ "activeDirectoryEndpoint": "https://login.other.test/", "keyVaultDNSSuffix": "vault.other.test" });
    fs::write(clouds.join("other.json"), other.to_string())?;
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("cloudName".to_owned(), "AzureStackCloud".to_owned());
    parameters.insert("cloudEnvFileName".to_owned(), "stack.json".to_owned());
    let mut volume = vault.volume("demo");
    volume.attributes.insert("cloudEnvFileName".to_owned(), "other.json".to_owned());
    Ok((parameters, volume))
}

fn volume_attributes_cannot_name_a_cloud_file_to_the_node() -> Result<()> {
    let (setup, clouds) = harness().setup_with_clouds()?;
    let (node, vault) = (Node::start(setup)?, harness().vault_in_cloud(STACK.0));
    let value = vault.set("password");
    let (mut parameters, mut volume) = renamed(&clouds, &vault)?;
    for name in ["other.json", "/etc/passwd", "../x"] {
        volume.attributes.insert("cloudEnvFileName".to_owned(), name.to_owned());
        node.class("demo", &parameters)?;
        let target = node.publish(&Volume { uid: vault.volume("demo").uid, ..volume.clone() })?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    parameters.remove("cloudEnvFileName");
    node.class("demo", &parameters)?;
    volume.attributes.insert("cloudEnvFileName".to_owned(), "stack.json".to_owned());
    let status = node.refused(&volume)?;
    ensure!(status.message().contains("is not valid without a file"), "{status}");
    Ok(())
}

fn volume_attributes_name_only_files_of_the_folder_to_the_provider() -> Result<()> {
    let clouds = harness().setup_with_clouds()?.1;
    let fixture = Plugin::new(&[&format!("--cloud-files-dir={}", clouds.display())])?;
    let vault = harness().vault_in_cloud(STACK.0);
    vault.set("password");
    let (parameters, mut volume) = renamed(&clouds, &vault)?;
    let mount = |volume: &Volume| fixture.mount(&UpstreamDriver::request(&parameters, volume));
    // The other file's cloud does not exist: its host in the error shows which file was read.
    let text = mount(&volume).err().context("the mount succeeded")?.message().to_owned();
    ensure!(text.contains("login.other.test") || text.contains("vault.other.test"), "{text}");
    fs::write(clouds.join("../theirs.json"), stack_file(""))?;
    for name in
        [clouds.join("../theirs.json").display().to_string(), "/etc/passwd".to_owned(), "/etc/absent".to_owned()]
    {
        volume.attributes.insert("cloudEnvFileName".to_owned(), name);
        let text = mount(&volume).err().context("the mount succeeded")?.message().to_owned();
        ensure!(text.contains("is refused: only files of the driver's --cloud-files-dir"), "{text}");
    }
    volume.attributes.remove("cloudEnvFileName");
    mount(&volume)?;
    Ok(())
}

/// Creates the objects of docs/custom-clouds.md on a real API server, and lays out the ConfigMap as
/// the kubelet does.
fn the_example_of_a_custom_cloud_works() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault_in_cloud(STACK.0));
    let value = vault.set("password");
    let namespace = cluster.namespace()?;
    let page = include_str!("../../docs/custom-clouds.md");
    let filled = page
        .replace("vault.stack.example", STACK.0)
        .replace("login.stack.example", STACK.1)
        .replace("my-vault", &vault.name)
        .replace("my-tenant.example", &vault.tenant)
        .replace("namespace: kube-system", &format!("namespace: {namespace}"))
        .replace("namespace: default", &format!("namespace: {namespace}"));
    let blocks = filled.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
    let text = blocks.collect::<Vec<_>>().join("---\n");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let [map, class] = &objects[..] else { anyhow::bail!("{} objects", objects.len()) };
    let map = cluster.create(("ConfigMap", "configmaps"), Some(&namespace), map.clone())?;
    cluster.create(CLASSES, Some(&namespace), class.clone())?;
    let user = cluster.user(Rights::All)?;
    let mut setup = cluster.setup(&user);
    let clouds = setup.folder.join("clouds");
    for (name, content) in map.data["data"].as_object().context("no files")? {
        as_configmap(&clouds, "..1", name, content.as_str().context("no text")?)?;
    }
    setup.flags.push(format!("--cloud-files-dir={}", clouds.display()));
    let node = Node::start(setup)?;
    let target = node.publish(&volume(&vault, &namespace, "demo"))?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    Ok(())
}
