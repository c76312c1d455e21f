//! Tests that stop the driver or the kubelet, which run one at a time and without other tests.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::fixture::Fixture;
use crate::kubectl::{condition, event, exec, get, helm, ready, wait_for};
use crate::release::{self, RELEASE};
use crate::{environment, node};

// The test that measures time is the last: the other jobs of `e2e/run` are done by then.
trials! { "disruptive":
    an_upgrade_of_the_image_does_not_affect_pods,
    a_restart_of_the_kubelet_does_not_affect_pods,
    a_pod_from_before_the_driver_starts_once_it_is_installed,
    a_driver_that_is_deleted_is_soon_ready_again,
}

/// The limit of the driver's part of the time from its deletion until it is ready again.
const DRIVER_TIME: Duration = Duration::from_secs(2);

/// A pod that reads its file in a loop, and exits at the first wrong content.
struct Reader {
    fixture: Fixture,
}

impl Reader {
    fn start(about: &str) -> Result<Reader> {
        let fixture = Fixture::new(about)?;
        let value = fixture.set("a");
        fixture.credentials()?;
        fixture.class("demo", &["a"])?;
        let script = format!(
            "reads=0; while :; do [ \"$(cat /mnt/demo/a)\" = '{value}' ] || exit 1; reads=$((reads + 1)); echo $reads > /tmp/reads; usleep 5000; done"
        );
        fixture.pod("web", &["demo"], &script)?;
        ready(&fixture.namespace, "web")?;
        let reader = Reader { fixture };
        reader.assert_reading()?;
        Ok(reader)
    }

    /// Waits for ten more reads, and asserts that it never restarted.
    fn assert_reading(&self) -> Result<()> {
        let before = self.reads()?;
        wait_for("the pod reads its file", || Ok(self.reads()? > before + 10))?;
        let pod = get(&self.fixture.namespace, "pod", "web")?.context("no pod")?;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        Ok(())
    }

    fn reads(&self) -> Result<u64> {
        let read = exec(&self.fixture.namespace, "web", &["cat", "/tmp/reads"])?;
        // Empty while the pod writes it.
        Ok(read.trim().parse().unwrap_or_default())
    }
}

fn a_driver_that_is_deleted_is_soon_ready_again() -> Result<()> {
    let reader = Reader::start("deleted")?;
    let mut restart = node::Restart::watch()?;
    let began = Instant::now();
    let name = release::kill()?;
    let since = |moment: Instant| moment.saturating_duration_since(began);
    let (exited, started) = (since(restart.step("exited")?), since(restart.step("started")?));
    let reports_ready = since(restart.step("ready")?);
    wait_for("the driver's pod is Ready again", || {
        Ok(release::pods()?.iter().any(|pod| pod["metadata"]["name"] != name.as_str() && condition(pod, "Ready")))
    })?;
    let ready = began.elapsed();
    // Between the two processes, the kubelet stops one pod and starts another.
    let own = exited + (reports_ready - started);
    print(&format!(
        "driver deleted: process exited after {exited:.2?}, next one started after {started:.2?}, ready after {reports_ready:.2?}, its pod after {ready:.2?}: {own:.2?} without the cluster's part"
    ))?;
    ensure!(own <= DRIVER_TIME, "{own:.2?} without the cluster's part, more than {DRIVER_TIME:?}");
    reader.assert_reading()
}

fn an_upgrade_of_the_image_does_not_affect_pods() -> Result<()> {
    let reader = Reader::start("upgrade")?;
    let old = release::pod()?;
    release::load("second")?;
    release::apply_chart("upgrade", "second")?;
    let pods = release::pods()?;
    ensure!(pods.iter().all(|pod| pod["metadata"]["name"] != old.as_str()), "{old} still exists");
    let image = pods[0]["spec"]["containers"][0]["image"].to_string();
    ensure!(image.contains(":second"), "{image}");
    reader.assert_reading()?;
    // The new driver unmounts the old one's volume.
    crate::kubectl::delete_pod(&reader.fixture.namespace, "web")
}

fn a_restart_of_the_kubelet_does_not_affect_pods() -> Result<()> {
    let reader = Reader::start("kubelet")?;
    environment::restart_kubelet()?;
    // A restarted kubelet first refuses to execute in pods, until it has read them from the API
    // server.
    wait_for("the restarted kubelet knows the pod", || Ok(reader.reads().is_ok()))?;
    reader.assert_reading()?;
    let after = Reader::start("kubelet")?;
    crate::kubectl::delete_pod(&reader.fixture.namespace, "web")?;
    after.assert_reading()
}

fn a_pod_from_before_the_driver_starts_once_it_is_installed() -> Result<()> {
    helm("uninstall", RELEASE, None)?;
    wait_for("the driver's pods are deleted", || Ok(release::pods()?.is_empty()))?;
    let fixture = Fixture::new("early")?;
    let value = fixture.set("a");
    fixture.credentials()?;
    fixture.class("demo", &["a"])?;
    fixture.pod("web", &["demo"], "sleep 10000")?;
    // The rest of the message depends on the kubelet's version: no CSIDriver object, or no such
    // driver.
    event(&fixture.namespace, "web", "FailedMount", &["secrets-store.csi.k8s.io"])?;
    release::apply_chart("install", "first")?;
    ready(&fixture.namespace, "web")?;
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    Ok(())
}

/// Prints a measurement.
fn print(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}")?;
    Ok(())
}
