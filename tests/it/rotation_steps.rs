//! The kernel kills a driver at each step of a refresh: the volume is whole, and refreshed after
//! the restart.
//!
//! A system-call filter ends the process before the step's call, so each step is certain to be
//! tested.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::{SystemCall, wait_for};
use nix::libc;

use crate::harness::{Node, Vault, harness};
use crate::rotation::{PATIENCE, rotating};

trials! { "rotation_steps":
    a_driver_killed_at_any_step_of_a_refresh_leaves_a_whole_volume,
}

/// What readers have to see after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Old,
    New,
}

/// Returns the steps of a refresh in order: the state, the call before which the process dies, and
/// what readers see.
fn steps() -> Vec<(&'static str, SystemCall, Seen)> {
    let call = |number, argument| SystemCall { number, argument };
    let create = (libc::O_CREAT | libc::O_EXCL) as u64;
    let mode = |mode| Some((1, 0o7777, mode));
    let remove_directory = libc::AT_REMOVEDIR as u64;
    vec![
        ("before the first step", call(libc::SYS_mkdirat, None), Seen::Old),
        ("the generation has no mode", call(libc::SYS_fchmod, mode(0o755)), Seen::Old),
        ("the generation is empty", call(libc::SYS_openat, Some((2, create, create))), Seen::Old),
        ("a file has no mode", call(libc::SYS_fchmod, mode(0o640)), Seen::Old),
        ("another file has no mode", call(libc::SYS_fchmod, mode(0o440)), Seen::Old),
        ("all files are written", call(libc::SYS_symlinkat, None), Seen::Old),
        ("the new generation is prepared", call(libc::SYS_renameat, None), Seen::Old),
        (
            "the link of a removed object still exists",
            call(libc::SYS_unlinkat, Some((2, remove_directory, 0))),
            Seen::New,
        ),
        (
            "the old generation is empty",
            call(libc::SYS_unlinkat, Some((2, remove_directory, remove_directory))),
            Seen::New,
        ),
    ]
}

/// Writes a class of these objects, each with its file's mode.
fn class(node: &Node, vault: &Vault, objects: &[(&str, &str)]) -> Result<()> {
    let objects = objects.iter().fold("array:\n".to_owned(), |text, (name, mode)| {
        format!("{text}  - |\n    objectName: {name}\n    objectType: secret\n    filePermission: {mode}\n")
    });
    node.class("demo", &vault.parameters_of(&objects))
}

/// Returns the files that a pod sees, with their contents.
fn visible(target: &Path) -> Result<BTreeMap<String, String>> {
    let names = fs::read_dir(target.join("..data"))?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    let names: Vec<_> = names.collect::<Result<_>>()?;
    let read = |name: String| Ok((name.clone(), fs::read_to_string(target.join("..data").join(&name))?));
    names.into_iter().flatten().map(read).collect()
}

fn a_driver_killed_at_any_step_of_a_refresh_leaves_a_whole_volume() -> Result<()> {
    steps().into_iter().try_for_each(|(step, call, seen)| kill_at(call, seen).with_context(|| step.to_owned()))
}

/// Kills a driver at one step of a refresh in which one object changes, one is removed and one is
/// added.
fn kill_at(call: SystemCall, seen: Seen) -> Result<()> {
    let (node, vault) = (rotating("1h", &[])?, harness().vault());
    let set =
        |names: [&str; 2]| -> BTreeMap<String, String> { names.map(|name| (name.to_owned(), vault.set(name))).into() };
    let old = set(["kept", "removed"]);
    class(&node, &vault, &[("kept", "0640"), ("removed", "0440")])?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let new = set(["kept", "added"]);
    class(&node, &vault, &[("kept", "0640"), ("added", "0440")])?;
    let mut setup = node.driver.kill()?;
    setup.flags.push("--rotation-poll-interval=100ms".to_owned());
    setup.kill_at = Some(call);
    let node = Node::start(setup)?;
    // The kernel may kill the driver during this call, which then fails.
    let _ = node.publish(&volume);
    let (mut setup, status) = node.driver.wait_for_exit()?;
    ensure!(status.signal() == Some(libc::SIGSYS), "{status}");
    let found = visible(&target)?;
    ensure!(found == if seen == Seen::Old { old } else { new.clone() }, "{:?} were seen", found.keys());
    setup.kill_at = None;
    let node = Node::start(setup)?;
    node.publish(&volume)?;
    // The driver may remove a listed file before this test reads it.
    let refreshed = || visible(&target).is_ok_and(|seen| seen == new);
    wait_for("a refresh after the restart", PATIENCE, || Ok(refreshed() && is_tidy(&target)?))
}

/// Whether the volume has one generation, and one link for each object.
fn is_tidy(target: &Path) -> Result<bool> {
    let entries = fs::read_dir(target)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let (dots, mut links): (Vec<String>, Vec<String>) = entries.partition(|name| name.starts_with(".."));
    links.sort();
    Ok(dots.len() == 2 && links == ["added", "kept"])
}
