//! A driver with too few file descriptors names the cause, does not spin, and recovers when it has
//! some again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::harness::{Node, harness};
use crate::hostile::{Neighbour, Peak};

trials! { "low_descriptors":
    a_start_with_twenty_four_descriptors_works_or_says_why_not,
    a_driver_recovers_from_running_out_of_descriptors,
}

/// Below any usual limit, but enough to start.
const FEW: u64 = 24;
const PATIENCE: Duration = Duration::from_secs(30);
/// The deadline of a call that the driver may be unable to accept.
const CALL: Duration = Duration::from_secs(3);

/// Returns a process's hard limit of descriptors.
fn hard_limit(process: u32) -> Result<u64> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no limit")?;
    Ok(line.split_whitespace().nth(4).context("no hard limit")?.parse()?)
}

/// Whether a text says that descriptors are missing.
fn names_descriptors(text: &str) -> bool {
    ["Too many open files", "too many open files", "descriptor", "RLIMIT_NOFILE", "open files"]
        .iter()
        .any(|words| text.contains(words))
}

fn a_start_with_twenty_four_descriptors_works_or_says_why_not() -> Result<()> {
    let mut setup = harness().setup();
    let binary = std::mem::replace(&mut setup.binary, setup.folder.join("start"));
    fs::write(&setup.binary, format!("#!/bin/sh\nulimit -n {FEW}\nexec {} \"$@\"\n", binary.display()))?;
    fs::set_permissions(&setup.binary, fs::Permissions::from_mode(0o755))?;
    let again = setup.clone();
    match Node::start(setup) {
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains("the process exited") && names_descriptors(&text), "{text}");
            ensure!(!text.contains("panicked"), "{text}");
        }
        Ok(node) => {
            let neighbour = Neighbour::new(&node)?;
            served_or_explained(&node, &neighbour)?;
            // Silent connections take the remaining descriptors for as long as they are open.
            let idle: Vec<UnixStream> =
                (0..2 * FEW).filter_map(|_| UnixStream::connect(node.setup().socket()).ok()).collect();
            served_or_explained(&node, &neighbour)?;
            drop(idle);
            wait_for("the driver serves again", PATIENCE, || served_or_explained(&node, &neighbour))?;
            drop(node);
        }
    }
    // With the usual limit it starts in the same folder.
    fs::write(&again.binary, format!("#!/bin/sh\nexec {} \"$@\"\n", binary.display()))?;
    let node = Node::start(again)?;
    Neighbour::new(&node)?.is_served(&node)
}

/// Whether a pod starts. If not, the error must name descriptors, or say that the call was not even
/// accepted.
fn served_or_explained(node: &Node, neighbour: &Neighbour) -> Result<bool> {
    let Err(error) = neighbour.is_served_within(node, CALL) else { return Ok(true) };
    let text = format!("{error:#}");
    let unaccepted = ["Timeout expired", "DeadlineExceeded", "deadline", "Cancelled", "transport"];
    let explained = names_descriptors(&text) || unaccepted.iter().any(|words| text.contains(words));
    ensure!(explained, "{text}");
    Ok(false)
}

fn a_driver_recovers_from_running_out_of_descriptors() -> Result<()> {
    let mut setup = harness().setup();
    setup.flags.extend(["--enable-secret-rotation", "--rotation-poll-interval=200ms"].map(str::to_owned));
    let node = Node::start(setup)?;
    let neighbour = Neighbour::new(&node)?;
    let vault = harness().vault();
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let target = node.publish(&vault.volume("demo"))?;
    neighbour.is_served(&node)?;
    let process = Pid::from_raw(i32::try_from(node.id())?).context("a process id")?;
    let (peak, busy, began) = (Peak::of(node.id())?, crate::clocks::cpu_time(node.id())?, Instant::now());
    // The kernel refuses the next descriptor, however many are open. The hard limit stays, since
    // raising it needs a capability.
    let maximum = hard_limit(node.id())?;
    let before = prlimit(Some(process), Resource::Nofile, Rlimit { current: Some(3), maximum: Some(maximum) })?;
    let value = vault.set("password");
    // Three calls one after another: none is served, and each returns.
    for _ in 0..3 {
        ensure!(!served_or_explained(&node, &neighbour)?, "the pod was served without a descriptor");
    }
    let share = (crate::clocks::cpu_time(node.id())? - busy).as_secs_f64() / began.elapsed().as_secs_f64();
    ensure!(share < 0.6, "{share:.2} of a processor were used");
    peak.at_most(16)?;
    ensure!(names_descriptors(&node.log()), "the log does not name descriptors");
    prlimit(Some(process), Resource::Nofile, before)?;
    wait_for("pods start again", PATIENCE, || served_or_explained(&node, &neighbour))?;
    neighbour.is_served(&node)?;
    wait_for("the driver is healthy", PATIENCE, || Ok(node.health("/healthz").is_ok_and(|(status, _)| status == 200)))?;
    wait_for("the files follow the vault", PATIENCE, || {
        Ok(fs::read_to_string(target.join("password")).is_ok_and(|found| found == value))
    })
}
