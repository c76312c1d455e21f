//! Classes from a directory of manifests:
//! looked up in the pod's namespace, and read again when they change.

use std::fs;

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::wait_for;

use crate::harness::{class_manifest, harness};

/// How long a line may take to appear in the log.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

trials! { "classes":
    a_changed_manifest_takes_effect_at_the_next_publish,
    a_broken_manifest_hides_no_other_and_keeps_its_last_good_content,
    the_class_of_the_pods_own_namespace_is_used,
    the_same_class_in_two_files_is_an_error,
    the_example_manifests_are_read,
}

fn a_changed_manifest_takes_effect_at_the_next_publish() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("first");
    vault.set("second");
    for object in ["first", "second", "first"] {
        node.class("demo", &vault.parameters(&[object]))?;
        let target = node.publish(&vault.volume("demo"))?;
        ensure!(target.join(object).exists(), "{object} is missing");
    }
    fs::remove_file(node.setup().manifests().join("demo.yaml"))?;
    ensure!(node.refused(&vault.volume("demo"))?.message().contains("not found"));
    Ok(())
}

fn a_broken_manifest_hides_no_other_and_keeps_its_last_good_content() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("good", &vault.parameters(&["password"]))?;
    node.class("spoilt", &vault.parameters(&["password"]))?;
    node.publish(&vault.volume("spoilt"))?;
    node.manifest("spoilt.yaml", "kind: [unfinished")?;
    node.manifest("other.yaml", "kind: {also\n")?;
    for class in ["good", "spoilt"] {
        node.publish(&vault.volume(class))?;
    }
    let status = node.refused(&vault.volume("absent"))?;
    // Only the log names files of the node: events are for tenants.
    ensure!(status.message().contains("some manifests of the driver cannot be read"), "{status}");
    wait_for("the log names file and line", PATIENCE, || {
        let log = node.log();
        Ok(["other.yaml", "spoilt.yaml", "line"].iter().all(|word| log.contains(word)))
    })?;
    ensure!(!status.message().contains(".yaml"), "{status}");
    Ok(())
}

fn the_class_of_the_pods_own_namespace_is_used() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let value = vault.set("password");
    let mut bad = vault.parameters(&["password"]);
    bad.insert("keyvaultName".to_owned(), "kv-197".to_owned());
    node.manifest("default.yaml", &class_manifest("default", "demo", Some("invalid"), &bad))?;
    let parameters = vault.parameters(&["password"]);
    node.manifest("test-ns.yaml", &class_manifest("test-ns", "demo", Some("azure"), &parameters))?;
    let mut volume = vault.volume("demo");
    node.refused(&volume)?;
    volume.namespace = "test-ns".to_owned();
    let target = node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    Ok(())
}

fn the_same_class_in_two_files_is_an_error() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let text = class_manifest("default", "demo", Some("azure"), &vault.parameters(&["password"]));
    node.manifest("one.yaml", &text)?;
    node.manifest("two.yaml", &text)?;
    let status = node.refused(&vault.volume("demo"))?;
    ensure!(status.message().contains("defined twice") && !status.message().contains(".yaml"), "{status}");
    wait_for("the log names both files", PATIENCE, || {
        let log = node.log();
        Ok(log.contains("one.yaml") && log.contains("two.yaml"))
    })
}

fn the_example_manifests_are_read() -> Result<()> {
    let node = harness().node()?;
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/examples");
    for entry in fs::read_dir(examples)? {
        let entry = entry?;
        node.manifest(&entry.file_name().to_string_lossy(), &fs::read_to_string(entry.path())?)?;
    }
    let status = node.refused(&keyvault_csi_e2e::kubelet::Volume::of_class("default", "web", "demo"))?;
    // The class is valid; only the pod's credentials are missing.
    ensure!(status.message().contains("nodePublishSecretRef"), "{status}");
    ensure!(status.message().contains("demo-vault"), "{status}");
    Ok(())
}
