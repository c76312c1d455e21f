//! A driver that is paused for a while, as by `SIGSTOP` or with its virtual machine.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use azure_emulator::{Action, Fault, Kind};
use keyvault_csi_e2e::driver::wait_for;
use nix::sys::signal::Signal;

use crate::harness::{Node, harness};
use crate::rotation::{PATIENCE, metric, rotating};

trials! { "pauses":
    a_pause_of_more_than_three_periods_is_no_failure,
    a_fetch_cut_short_by_a_pause_is_repeated,
}

/// The kubelet's period in these tests. After the pause the driver has one period for its first
/// cycle, which is why it is not shorter.
const PERIOD: Duration = Duration::from_secs(4);

fn republish() -> String {
    format!("--republish-period={}s", PERIOD.as_secs())
}

fn holds(target: &Path, value: &str) -> Result<bool> {
    Ok(fs::read_to_string(target.join("password"))? == value)
}

/// Stops the process for this time; there is no event to wait for.
fn pause(node: &Node, length: Duration, meanwhile: impl FnOnce()) -> Result<()> {
    node.signal(Signal::SIGSTOP)?;
    meanwhile();
    let began = Instant::now();
    wait_for("the time has passed", 2 * length, || Ok(began.elapsed() >= length))?;
    node.signal(Signal::SIGCONT)
}

fn no_failure(node: &Node) -> Result<()> {
    assert_eq!(metric(node, "rotation_reconcile_error_total", &[])?, 0.0, "{}", node.log());
    ensure!(!node.log().contains("volumes cannot be refreshed"), "{}", node.log());
    Ok(())
}

fn a_pause_of_more_than_three_periods_is_no_failure() -> Result<()> {
    let (node, vault) = (rotating("200ms", &[&republish()])?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let mut value = String::new();
    pause(&node, 3 * PERIOD + Duration::from_secs(1), || value = vault.set("password"))?;
    // Before the kubelet's next call.
    wait_for("a refresh", PATIENCE, || holds(&target, &value))?;
    no_failure(&node)?;
    ensure!(node.log().contains("the process was paused"), "{}", node.log());
    let (called, value) = (Instant::now(), vault.set("password"));
    node.publish(&volume)?;
    wait_for("another refresh", PATIENCE, || holds(&target, &value))?;
    no_failure(&node)?;
    // From here on the kubelet does not call.
    let lapsed = || Ok(metric(&node, "rotation_reconcile_error_total", &["reason=\"CredentialsMissing\""])? >= 1.0);
    wait_for("the credentials lapse", PATIENCE, lapsed)?;
    ensure!(called.elapsed() >= 3 * PERIOD, "after {:?} already", called.elapsed());
    ensure!(node.log().contains("requiresRepublish"));
    Ok(())
}

/// When the process continues, the deadline of its running fetch has passed.
fn a_fetch_cut_short_by_a_pause_is_repeated() -> Result<()> {
    let (node, vault) = (rotating("200ms", &[&republish()])?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let target = node.publish(&vault.volume("demo"))?;
    harness().azure().add_fault(Fault::new(Action::Hang).host(&vault.name));
    let gets = vault.counters().get(Kind::Get);
    wait_for("a fetch hangs", PATIENCE, || Ok(vault.counters().get(Kind::Get) > gets))?;
    let mut value = String::new();
    pause(&node, PERIOD + Duration::from_secs(3), || {
        harness().azure().clear_faults(&vault.name);
        value = vault.set("password");
    })?;
    wait_for("a refresh", PATIENCE, || holds(&target, &value))?;
    no_failure(&node)
}
