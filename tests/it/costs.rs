//! What a publish and a quiet cycle cost in system calls: counts, which a slow machine does not change.
//!
//! strace counts them in the driver. What is asked of the vault and of the API server is counted in `sharing`, `rotation` and
//! `cluster_reports`; times and memory are the benchmark's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::Kind;
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;

use crate::harness::{Node, harness};
use crate::rotation::PATIENCE;
use crate::sharing::{pods, publish_all};

trials! { "costs":
    a_publish_makes_a_known_number_of_system_calls,
    a_quiet_cycle_touches_no_file,
}

/// System calls by name.
type Calls = BTreeMap<String, f64>;

/// Lets a driver work under strace, and counts its calls until its end.
fn counted(flags: &[&str], work: impl FnOnce(&Node) -> Result<()>) -> Result<Calls> {
    let mut setup = harness().setup();
    setup.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    let (wrapper, table) = (setup.folder.join("counted"), setup.folder.join("calls"));
    // The driver itself is the process that is started; who counts is its grandchild.
    let script = format!(
        "#!/bin/sh\nexec strace -D -f -c -U calls,name -o {} {} \"$@\"\n",
        table.display(),
        setup.binary.display()
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    setup.binary = wrapper;
    let node = Node::start(setup).context("is strace installed? `make test` does that on Debian")?;
    work(&node)?;
    node.driver.terminate()?;
    let total = |text: &str| text.lines().any(|line| line.split_whitespace().nth(1) == Some("total"));
    wait_for("the table", PATIENCE, || Ok(fs::read_to_string(&table).is_ok_and(|text| total(&text))))?;
    let text = fs::read_to_string(&table)?;
    let rows = text.lines().filter_map(|line| line.trim().split_once(' '));
    Ok(rows.filter_map(|(count, name)| Some((name.trim().to_owned(), count.parse().ok()?))).collect())
}

fn of(calls: &Calls, name: &str) -> f64 {
    calls.get(name).copied().unwrap_or_default()
}

/// What one more of something costs, from two counts that differ in how many there were.
fn each(few: &Calls, many: &Calls, more: f64) -> Calls {
    let names = few.keys().chain(many.keys());
    names.map(|name| (name.clone(), (of(many, name) - of(few, name)) / more)).collect()
}

/// Ten secrets that are in memory: what is left is the call, the mount and the files.
fn a_publish_makes_a_known_number_of_system_calls() -> Result<()> {
    let count = |volumes: usize| -> Result<Calls> {
        counted(&["--freshness-window=1h"], |node| {
            let vault = harness().vault();
            pods(node, &vault, 10, 1, volumes)?.iter().try_for_each(|volume| Ok(node.publish(volume).map(drop)?))
        })
    };
    let cost = each(&count(10)?, &count(60)?, 50.0);
    // One directory for readers and one for the generation, ten files with their modes, a link for each, and the switch.
    let wanted = [
        ("fsopen", 1.0),
        ("fsconfig", 6.0),
        ("fsmount", 1.0),
        ("move_mount", 1.0),
        ("mkdirat", 2.0),
        ("fchmod", 12.0),
        ("symlinkat", 11.0),
        ("renameat", 1.0),
        ("unlinkat", 0.0),
    ];
    for (name, times) in wanted {
        assert_eq!(of(&cost, name).round(), times, "{name}: {cost:?}");
    }
    ensure!(of(&cost, "openat") < 24.0 && of(&cost, "write") < 20.0, "{cost:?}");
    ensure!(of(&cost, "total") < 230.0, "{cost:?}");
    Ok(())
}

/// A hundred volumes of one service account.
fn a_quiet_cycle_touches_no_file() -> Result<()> {
    let flags = ["--enable-secret-rotation", "--rotation-poll-interval=500ms"];
    let count = |least: f64| -> Result<(Calls, f64)> {
        let mut made = 0.0;
        let calls = counted(&flags, |node| {
            let vault = harness().vault();
            let volumes: Vec<Volume> = pods(node, &vault, 10, 1, 100)?;
            publish_all(node, &volumes)?;
            // Ten for the first volume, and ten a cycle. Asking the driver itself would cost calls.
            let asked = || vault.counters().get(Kind::Get) as f64;
            wait_for("cycles", PATIENCE, || Ok(asked() >= 10.0 * (least + 1.0)))?;
            made = asked() / 10.0 - 1.0;
            Ok(())
        })?;
        Ok((calls, made))
    };
    let ((few, before), (many, after)) = (count(2.0)?, count(22.0)?);
    let cost = each(&few, &many, after - before);
    for name in ["fsopen", "mkdirat", "fchmod", "symlinkat", "renameat", "unlinkat"] {
        assert_eq!(of(&cost, name), 0.0, "{name}: {cost:?}");
    }
    // Ten requests; the folder of manifests is looked at once a second.
    ensure!(of(&cost, "openat") < 6.0 && of(&cost, "writev") < 20.0, "{cost:?}");
    ensure!(of(&cost, "total") < 200.0, "{cost:?}");
    Ok(())
}
