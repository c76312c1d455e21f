//! Volumes with many long names and deep paths: a volume that can be published can also be
//! refreshed, after any change of its class.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::wait_for;

use crate::harness::{Node, Vault, harness};
use crate::rotation::{metric, rotating};

trials! { "volume_size":
    five_hundred_long_aliases_are_refreshed,
    deep_paths_are_refreshed,
    a_class_may_grow_to_the_limits_of_a_volume,
    a_volume_that_an_older_driver_made_is_enlarged,
}

/// For thousands of requests and files, beside other tests.
const PATIENCE: Duration = Duration::from_secs(180);

/// The limit of objects in a class.
const OBJECTS: usize = 500;

/// Writes a class that mounts each of these secrets (name, alias).
fn class(node: &Node, vault: &Vault, objects: &[(String, String)]) -> Result<()> {
    let objects = objects.iter().fold("array:\n".to_owned(), |objects, (name, alias)| {
        objects + &format!("  - |\n    objectName: {name}\n    objectType: secret\n    objectAlias: {alias}\n")
    });
    node.class("demo", &vault.parameters_of(&objects))
}

/// Returns a name of 250 bytes, whose link takes a page.
fn long(at: usize, kind: &str) -> String {
    format!("{kind}-{at:03}-{}", "x".repeat(250 - kind.len() - 5))
}

/// Sets the secrets to new values of two pages, and returns the first and the last value.
fn fill(vault: &Vault, objects: &[(String, String)]) -> [String; 2] {
    let value = |(name, _): &(String, String)| {
        let value = harness().secret(name) + &"y".repeat(5_000);
        harness().azure().set_secret(&vault.name, name, &value);
        value
    };
    let values: Vec<String> = objects.iter().map(value).collect();
    [values[0].clone(), values[values.len() - 1].clone()]
}

fn holds(target: &Path, objects: &[(String, String)], values: &[String; 2]) -> bool {
    let read = |at: usize| fs::read_to_string(target.join(&objects[at].1)).ok();
    [read(0), read(objects.len() - 1)] == values.each_ref().map(|value| Some(value.clone()))
}

/// Checks that no write failed. A fetch may fail: it has five seconds for five hundred requests.
fn no_write_failed(node: &Node) -> Result<()> {
    for reason in ["TooLarge", "WriteFailed"] {
        let failed = metric(node, "rotation_reconcile_error_total", &[&format!("reason=\"{reason}\"")])?;
        assert_eq!(failed, 0.0, "{}", node.log());
    }
    Ok(())
}

/// Publishes these objects, changes all of them twice, and waits for the new values in the volume.
fn rotates(objects: &[(String, String)]) -> Result<()> {
    let (node, vault) = (rotating("500ms", &["--vault-requests-per-second=10000"])?, harness().vault());
    let values = fill(&vault, objects);
    class(&node, &vault, objects)?;
    let target = node.publish(&vault.volume("demo"))?;
    ensure!(holds(&target, objects, &values));
    for _ in 0..2 {
        let values = fill(&vault, objects);
        wait_for("all new values", PATIENCE, || Ok(holds(&target, objects, &values)))?;
    }
    no_write_failed(&node)?;
    Ok(())
}

fn five_hundred_long_aliases_are_refreshed() -> Result<()> {
    rotates(&(0..OBJECTS).map(|at| (format!("o-{at}"), long(at, "a"))).collect::<Vec<_>>())
}

fn deep_paths_are_refreshed() -> Result<()> {
    let deep = |at: usize| format!("{}/{}file", long(at, "d"), "d/".repeat(14));
    rotates(&(0..OBJECTS).map(|at| (format!("o-{at}"), deep(at))).collect::<Vec<_>>())
}

/// From one small object to the largest number with the longest names, and from there to other
/// names: all names change.
fn a_class_may_grow_to_the_limits_of_a_volume() -> Result<()> {
    let (node, vault) = (rotating("500ms", &["--vault-requests-per-second=10000"])?, harness().vault());
    let small = [("o-0".to_owned(), "small".to_owned())];
    let set = |kind: &str| -> Vec<_> { (0..OBJECTS).map(|at| (format!("o-{at}"), long(at, kind))).collect() };
    // The contents need nearly the limit of 1,024 pages.
    fill(&vault, &set("one"));
    class(&node, &vault, &small)?;
    let target = node.publish(&vault.volume("demo"))?;
    let before = rustix::fs::statfs(&target)?.f_blocks;
    for kind in ["one", "two"] {
        class(&node, &vault, &set(kind))?;
        wait_for("the new names", PATIENCE, || {
            let names = fs::read_dir(&target)?.filter_map(Result::ok).map(|entry| entry.file_name());
            let names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
            Ok(names.iter().filter(|name| name.starts_with(kind)).count() == OBJECTS && names.len() == OBJECTS + 2)
        })?;
    }
    no_write_failed(&node)?;
    assert_eq!(rustix::fs::statfs(&target)?.f_blocks, before, "the size of the tmpfs changed");
    Ok(())
}

fn a_volume_that_an_older_driver_made_is_enlarged() -> Result<()> {
    let (node, vault) = (rotating("500ms", &[])?, harness().vault());
    let objects: Vec<_> = (0..40).map(|at| (format!("o-{at}"), long(at, "a"))).collect();
    fill(&vault, &objects);
    class(&node, &vault, &objects)?;
    let target = node.publish(&vault.volume("demo"))?;
    // Just large enough for its contents: 40 files of two pages, and 40 links.
    let flags =
        rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount_remount(&target, flags, c"nr_blocks=120,nr_inodes=128")?;
    assert_eq!(rustix::fs::statfs(&target)?.f_blocks, 120);
    let values = fill(&vault, &objects);
    wait_for("all new values", PATIENCE, || Ok(holds(&target, &objects, &values)))?;
    no_write_failed(&node)?;
    let mounts = crate::harness::mounts_on(&target)?;
    for option in ["nosuid", "nodev", "noexec", "size=16416k"] {
        ensure!(mounts.len() == 1 && mounts[0].contains(option), "{option} is missing: {mounts:?}");
    }
    Ok(())
}
