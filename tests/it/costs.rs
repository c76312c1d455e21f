//! System calls of a publish and of a refresh without changes:
//! counts, which a slow machine does not change.
//!
//! strace counts them in the driver. `sharing`, `rotation` and `cluster_reports` count requests to
//! the vault and to the API server; the benchmark measures times and memory.

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

/// Runs a driver under strace, and returns its system calls until it exits.
fn count_calls(flags: &[&str], work: impl FnOnce(&Node) -> Result<()>) -> Result<Calls> {
    let mut setup = harness().setup();
    setup.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    let (wrapper, table) = (setup.folder.join("wrapper"), setup.folder.join("calls"));
    // With -D the driver is the process that the test started, and strace its grandchild.
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
    wait_for("strace writes its table", PATIENCE, || Ok(fs::read_to_string(&table).is_ok_and(|text| total(&text))))?;
    let text = fs::read_to_string(&table)?;
    let rows = text.lines().filter_map(|line| line.trim().split_once(' '));
    Ok(rows.filter_map(|(count, name)| Some((name.trim().to_owned(), count.parse().ok()?))).collect())
}

fn number(calls: &Calls, name: &str) -> f64 {
    calls.get(name).copied().unwrap_or_default()
}

/// The calls of one repetition, from two counts that differ by `more` repetitions.
fn per_repetition(few: &Calls, many: &Calls, more: f64) -> Calls {
    let names = few.keys().chain(many.keys());
    names.map(|name| (name.clone(), (number(many, name) - number(few, name)) / more)).collect()
}

/// Ten secrets from the object cache: only the call, the mount and the files remain.
fn a_publish_makes_a_known_number_of_system_calls() -> Result<()> {
    let count = |volumes: usize| -> Result<Calls> {
        count_calls(&["--freshness-window=1h"], |node| {
            let vault = harness().vault();
            pods(node, &vault, 10, 1, volumes)?.iter().try_for_each(|volume| Ok(node.publish(volume).map(drop)?))
        })
    };
    let cost = per_repetition(&count(10)?, &count(60)?, 50.0);
    // The root and the generation are directories, ten files have a mode and a link each, and one
    // rename switches `..data`.
    let expected = [
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
    for (name, times) in expected {
        assert_eq!(number(&cost, name).round(), times, "{name}: {cost:?}");
    }
    ensure!(number(&cost, "openat") < 24.0 && number(&cost, "write") < 20.0, "{cost:?}");
    ensure!(number(&cost, "total") < 230.0, "{cost:?}");
    Ok(())
}

/// A hundred volumes of one service account.
fn a_quiet_cycle_touches_no_file() -> Result<()> {
    let flags = ["--enable-secret-rotation", "--rotation-poll-interval=500ms"];
    let count = |least: f64| -> Result<(Calls, f64)> {
        let mut cycles = 0.0;
        let calls = count_calls(&flags, |node| {
            let vault = harness().vault();
            let volumes: Vec<Volume> = pods(node, &vault, 10, 1, 100)?;
            publish_all(node, &volumes)?;
            // Ten for the first volume, and ten per cycle.
            // The driver's metrics would cost system calls.
            let gets = || vault.counters().get(Kind::Get) as f64;
            wait_for("cycles", PATIENCE, || Ok(gets() >= 10.0 * (least + 1.0)))?;
            cycles = gets() / 10.0 - 1.0;
            Ok(())
        })?;
        Ok((calls, cycles))
    };
    let ((few, before), (many, after)) = (count(2.0)?, count(22.0)?);
    let cost = per_repetition(&few, &many, after - before);
    for name in ["fsopen", "mkdirat", "fchmod", "symlinkat", "renameat", "unlinkat"] {
        assert_eq!(number(&cost, name), 0.0, "{name}: {cost:?}");
    }
    // Ten requests, and a check of the folder of manifests once a second.
    ensure!(number(&cost, "openat") < 6.0 && number(&cost, "writev") < 20.0, "{cost:?}");
    ensure!(number(&cost, "total") < 200.0, "{cost:?}");
    Ok(())
}
