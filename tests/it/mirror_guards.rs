//! What the mirror reads and what it does not: statuses that lie, volumes that upstream's driver published, every type.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::CertificateMaterial;
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::{Value, json};

use crate::apiserver::STATUSES;
use crate::certificates::{Made, matches};
use crate::harness::{Node, harness};
use crate::mirror_fixture::{Fixture, PATIENCE, decoded, opaque};

trials! { "mirror_guards":
    a_status_that_lies_makes_the_driver_read_nothing,
    volumes_that_upstream_published_are_mirrored,
    every_type_is_written,
    one_bad_secret_object_stops_no_other,
}

const NODE_LABEL: &str = "internal.secrets-store.csi.k8s.io/node-name";

/// A status object, as upstream's driver writes one, or somebody who pretends.
fn status(fixture: &Fixture, name: &str, pod: (&str, &str), class: &str, target: &Path) -> Result<()> {
    status_on(fixture, &fixture.node_name("a"), name, pod, class, target)
}

fn status_on(fixture: &Fixture, node: &str, name: &str, pod: (&str, &str), class: &str, target: &Path) -> Result<()> {
    let object = json!({
        "metadata": {
            "name": name,
            "labels": { NODE_LABEL: node },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": pod.0, "uid": pod.1 }],
        },
        "status": {
            "podName": pod.0, "secretProviderClassName": class, "mounted": true, "targetPath": target,
            "objects": [{ "id": "secret/a", "version": "1" }],
        },
    });
    fixture.cluster.create(STATUSES, Some(&fixture.namespace), object)?;
    Ok(())
}

fn a_status_that_lies_makes_the_driver_read_nothing() -> Result<()> {
    let (fixture, theirs) = (Fixture::new()?, Fixture::new()?);
    fixture.vault.set("a");
    theirs.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("good", &[("a", "k")])]))?;
    // The class that nobody mounts, in the victim's namespace and in the thief's.
    fixture.class("steal", &["a"], &json!([opaque("stolen", &[("a", "k"), ("passwd", "passwd")])]))?;
    theirs.class("steal", &["a"], &json!([opaque("stolen", &[("a", "k")])]))?;
    let (node, user) = fixture.node("a", &["--secret-check-interval=1s"])?;
    let victim = fixture.pod("victim", "a", "demo", &fixture.replica_set("web")?)?;
    let target = node.publish(&victim)?;
    fixture.there("good")?;
    // A pod that mounts another class; a pod that has not mounted anything yet; another one's UID; a path of the host.
    let owner = theirs.replica_set("thief")?;
    let thief = theirs.pod("thief", "a", "steal", &owner)?;
    status(&fixture, "lie-1", ("victim", &victim.uid), "steal", &target)?;
    status(&fixture, "lie-2", ("victim", &victim.uid), "steal", Path::new("/etc"))?;
    for (name, uid) in [("lie-3", &victim.uid), ("lie-4", &thief.uid)] {
        status_on(&theirs, &fixture.node_name("a"), name, ("thief", uid), "steal", &target)?;
    }
    wait_for("the false status is ignored", PATIENCE, || Ok(node.log().contains("the status is ignored")))?;
    // Later news and several looks mark the time.
    let value = fixture.vault.set("a");
    node.kubelet.unpublish(&victim)?;
    node.publish(&victim)?;
    fixture.holds("good", "k", &value)?;
    let looks = fixture.cluster.count(&user, "get", "secrets")?;
    wait_for("it looks again", PATIENCE, || Ok(fixture.cluster.count(&user, "get", "secrets")? >= looks + 3))?;
    ensure!(fixture.secret("stolen")?.is_none() && theirs.secret("stolen")?.is_none(), "a false status was used");
    Ok(())
}

/// Mounts a tmpfs where the kubelet has the volume.
fn mounted(node: &Node, volume: &Volume) -> Result<std::path::PathBuf> {
    let target = node.kubelet.target(volume);
    fs::create_dir_all(&target)?;
    rustix::mount::mount("tmpfs", &target, "tmpfs", rustix::mount::MountFlags::empty(), None)?;
    Ok(target)
}

fn volumes_that_upstream_published_are_mirrored() -> Result<()> {
    let fixture = Fixture::new()?;
    let (node, _) = fixture.node("a", &[])?;
    let owner = fixture.replica_set("web")?;
    let data = [("nested/bar", "b"), ("a", "k")];
    // As its writer lays files out (docs/reference/csi-driver.md#volume-layout).
    fixture.class("written", &["a"], &json!([opaque("written", &data)]))?;
    let pod = fixture.pod("web-1", "a", "written", &owner)?;
    let target = mounted(&node, &pod)?;
    let generation = target.join("..2026_01_02_03_04_05.678");
    fs::create_dir_all(generation.join("nested"))?;
    let (plain, nested) = (harness().secret("plain"), harness().secret("nested"));
    fs::write(generation.join("a"), &plain)?;
    fs::write(generation.join("nested/bar"), &nested)?;
    symlink("..2026_01_02_03_04_05.678", target.join("..data"))?;
    symlink("..data/a", target.join("a"))?;
    symlink("..data/nested", target.join("nested"))?;
    // Links of somebody else's lead nowhere.
    symlink("/etc/passwd", generation.join("passwd"))?;
    status(&fixture, "written", ("web-1", &pod.uid), "written", &target)?;
    fixture.holds("written", "k", &plain)?;
    assert_eq!(decoded(&fixture.there("written")?, "b").as_deref(), Some(nested.as_str()));
    // One that is being unpublished, whose link goes first, is no volume without files.
    fs::remove_file(target.join("..data"))?;
    fixture.change_class("written", &json!({ "spec": { "secretObjects": [opaque("absent", &[("absent", "k")])] } }))?;
    // As a provider writes them itself (docs/reference/csi-driver.md#files-of-providers).
    fixture.class("legacy", &["a"], &json!([opaque("legacy", &data), opaque("linked", &[("passwd", "k")])]))?;
    let pod = fixture.pod("web-2", "a", "legacy", &owner)?;
    let target = mounted(&node, &pod)?;
    fs::create_dir(target.join("nested"))?;
    fs::write(target.join("nested/bar"), &nested)?;
    fs::write(target.join("a"), &plain)?;
    symlink("/etc/passwd", target.join("passwd"))?;
    status(&fixture, "legacy", ("web-2", &pod.uid), "legacy", &target)?;
    fixture.holds("legacy", "k", &plain)?;
    fixture.told(&["file matching objectName passwd not found in the pod; the volume has a, nested/bar"])?;
    ensure!(fixture.secret("linked")?.is_none());
    let events = fixture.events("FailedToCreateSecret")?;
    ensure!(!events.iter().any(|text| text.contains("written")), "{events:?}");
    Ok(())
}

fn every_type_is_written() -> Result<()> {
    let fixture = Fixture::new()?;
    let docker = json!({ "auths": { "r.example": { "auth": harness().secret("docker") } } }).to_string();
    harness().azure().set_secret(&fixture.vault.name, "docker", &docker);
    let (name, password) = (fixture.vault.set("name"), fixture.vault.set("password"));
    let mut made = Vec::new();
    for (name, algorithm) in [("rsa", &["rsa:2048"][..]), ("ed", &["ed25519"])] {
        let one = Made::new(algorithm)?;
        let pem = one.pem()?;
        harness().azure().set_secret(&fixture.vault.name, name, &pem);
        // The key's text is a secret like any other.
        harness().secrets.lock().unwrap().push(pem[60..100].to_owned());
        made.push(one);
    }
    let pfx = CertificateMaterial::from_pfx(&made[0].read("archive.pfx")?, "")?;
    harness().azure().set_certificate(&fixture.vault.name, "pfx", &pfx);
    let object = |name: &str, more: &str| format!("  - |\n    objectName: {name}\n    objectType: secret\n{more}");
    let simple = ["docker", "name", "password", "rsa", "ed"].map(|name| object(name, "")).concat();
    let history = object("name", "    objectAlias: past\n    objectVersionHistory: 2\n");
    let archive = object("pfx", "    objectFormat: pfx\n    objectEncoding: base64\n");
    let objects = format!("array:\n{simple}{history}{archive}");
    let of = |name: &str, r#type: &str, data: &[(&str, &str)]| -> Value {
        let mut secret = opaque(name, data);
        secret["type"] = r#type.into();
        secret
    };
    let tls = |name: &str, file: &str| {
        of(name, "kubernetes.io/tls", &[(file, "tls.crt"), (file, "tls.key"), (file, "ca.crt")])
    };
    let secrets = json!([
        of("json", "kubernetes.io/dockerconfigjson", &[("docker", ".dockerconfigjson")]),
        of("cfg", "kubernetes.io/dockercfg", &[("docker", ".dockercfg")]),
        of("basic", "kubernetes.io/basic-auth", &[("name", "username"), ("password", "password")]),
        of("ssh", "kubernetes.io/ssh-auth", &[("password", "ssh-privatekey")]),
        of("other", "example.org/other", &[("past/0", "past"), ("pfx", "archive")]),
        tls("tls-rsa", "rsa"),
        tls("tls-ed", "ed"),
        tls("tls-pfx", "pfx"),
    ]);
    fixture.class_of("demo", &fixture.vault.parameters_of(&objects), &secrets)?;
    let (node, _) = fixture.node("a", &[])?;
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    for (secret, key, value) in [
        ("json", ".dockerconfigjson", &docker),
        ("cfg", ".dockercfg", &docker),
        ("basic", "username", &name),
        ("basic", "password", &password),
        ("ssh", "ssh-privatekey", &password),
        ("other", "past", &name),
    ] {
        fixture.holds(secret, key, value)?;
    }
    for one in secrets.as_array().context("no list")? {
        let name = one["secretName"].as_str().unwrap_or_default();
        let secret = fixture.there(name)?;
        assert_eq!(secret["type"], one["type"], "{name}");
        if one["type"] == "kubernetes.io/tls" {
            let folder = tempfile::tempdir()?;
            let (key, certificate) = (folder.path().join("key"), folder.path().join("certificate"));
            fs::write(&key, decoded(&secret, "tls.key").context("no key")?)?;
            fs::write(&certificate, decoded(&secret, "tls.crt").context("no certificate")?)?;
            matches(&key, &certificate)?;
            assert_eq!(decoded(&secret, "ca.crt"), decoded(&secret, "tls.crt"));
        }
    }
    assert_eq!(fixture.there("tls-rsa")?["data"], fixture.there("tls-pfx")?["data"]);
    ensure!(!node.log().contains("not all Secrets"), "{}", node.log());
    Ok(())
}

fn one_bad_secret_object_stops_no_other() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    let mut mislabelled = opaque("mislabelled", &[("a", "k")]);
    mislabelled["labels"] = json!({ "label": "no value of a label!" });
    // No write of other data is taken for an immutable Secret.
    let metadata = json!({ "name": "refused", "labels": { "secrets-store.csi.k8s.io/managed": "true" } });
    fixture.put(
        "somebody",
        json!({ "metadata": metadata, "type": "Opaque", "immutable": true, "data": { "k": "b2xk" } }),
    )?;
    let refused = opaque("refused", &[("a", "k")]);
    let bad = json!([
        opaque("../../../../api/v1/nodes", &[("a", "k")]),
        opaque("absent", &[("b", "k")]),
        json!({ "secretName": "tls", "type": "kubernetes.io/tls", "data": [{ "objectName": "a", "key": "tls.crt" }] }),
        mislabelled,
        refused,
        opaque("good", &[("a", "k")]),
    ]);
    fixture.class("demo", &["a"], &bad)?;
    let (node, _) = fixture.node("a", &[])?;
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    fixture.holds("good", "k", &value)?;
    let text = fixture.told(&["secretObjects[0]"])?;
    for part in [
        "secretName is not a valid Secret name",
        "file matching objectName b not found in the pod; the volume has a",
        "tls.crt from file a: the file is neither PEM nor",
        "labels: \"no value of a label!\" is not the value of a label",
        "the API server refuses it",
    ] {
        ensure!(text.contains(part), "{part} is missing: {text}");
    }
    // A mistake is told once, not at each look, and the metric has it.
    let metrics = node.metrics()?;
    harness().remember(&metrics);
    ensure!(
        metrics.contains("sync_k8s_secret_error_total{") && metrics.contains("reason=\"ClassInvalid\""),
        "{metrics}"
    );
    ensure!(!metrics.contains("absent") && !metrics.contains("refused"), "{metrics}");
    assert_eq!(node.log().matches("\"not all Secrets of the class are up to date\"").count(), 1);
    Ok(())
}
