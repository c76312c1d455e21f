//! What stops the driver or the kubelet: one test at a time, with no other beside it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::kubectl::{condition, event, exec, get, helm, ready, wait_for};
use crate::release::{self, RELEASE};
use crate::scene::Scene;
use crate::{node, place};

// The one that is timed comes last: what `e2e/run` does beside has ended by then.
trials! { "alone":
    an_upgrade_of_the_image_is_not_noticed_by_pods,
    a_kubelet_that_restarts_goes_on,
    a_pod_that_comes_before_the_driver_starts_with_it,
    a_driver_that_is_deleted_is_soon_ready_again,
}

/// What the driver itself may take of the time from its deletion until it is ready again.
const OWN_TIME: Duration = Duration::from_secs(2);

/// A pod that reads its file all the time, and ends with the first wrong answer.
struct Reader {
    scene: Scene,
}

impl Reader {
    fn start(about: &str) -> Result<Reader> {
        let scene = Scene::new(about)?;
        let value = scene.set("a");
        scene.credentials()?;
        scene.class("demo", &["a"])?;
        let script = format!(
            "reads=0; while :; do [ \"$(cat /mnt/demo/a)\" = '{value}' ] || exit 1; reads=$((reads + 1)); echo $reads > /tmp/reads; usleep 5000; done"
        );
        scene.pod("web", &["demo"], &script)?;
        ready(&scene.namespace, "web")?;
        let reader = Reader { scene };
        reader.goes_on()?;
        Ok(reader)
    }

    /// Waits until it has read another ten times; it never got a wrong answer so far.
    fn goes_on(&self) -> Result<()> {
        let before = self.reads()?;
        wait_for("the pod reads on", || Ok(self.reads()? > before + 10))?;
        let pod = get(&self.scene.namespace, "pod", "web")?.context("no pod")?;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        Ok(())
    }

    fn reads(&self) -> Result<u64> {
        let read = exec(&self.scene.namespace, "web", &["cat", "/tmp/reads"])?;
        // Empty while it is being written.
        Ok(read.trim().parse().unwrap_or_default())
    }
}

fn a_driver_that_is_deleted_is_soon_ready_again() -> Result<()> {
    let reader = Reader::start("deleted")?;
    let mut restart = node::Restart::watch()?;
    let began = Instant::now();
    let name = release::kill()?;
    let since = |moment: Instant| moment.saturating_duration_since(began);
    let (ended, started) = (since(restart.step("ended")?), since(restart.step("started")?));
    let says = since(restart.step("ready")?);
    wait_for("the driver's pod is Ready again", || {
        Ok(release::pods()?.iter().any(|pod| pod["metadata"]["name"] != name.as_str() && condition(pod, "Ready")))
    })?;
    let ready = began.elapsed();
    // Between the two processes, the kubelet ends one pod and starts another.
    let own = ended + (says - started);
    tell(&format!(
        "driver deleted: process ended after {ended:.2?}, next one started after {started:.2?}, ready after {says:.2?}, its pod after {ready:.2?}: {own:.2?} without the cluster's part"
    ))?;
    ensure!(own <= OWN_TIME, "{own:.2?} without the cluster's part, more than {OWN_TIME:?}");
    reader.goes_on()
}

fn an_upgrade_of_the_image_is_not_noticed_by_pods() -> Result<()> {
    let reader = Reader::start("upgrade")?;
    let old = release::pod()?;
    release::load("second")?;
    release::put("upgrade", "second")?;
    let pods = release::pods()?;
    ensure!(pods.iter().all(|pod| pod["metadata"]["name"] != old.as_str()), "{old} is still there");
    let image = pods[0]["spec"]["containers"][0]["image"].to_string();
    ensure!(image.contains(":second"), "{image}");
    reader.goes_on()?;
    // The new driver takes the old one's mount down.
    crate::kubectl::delete_pod(&reader.scene.namespace, "web")
}

fn a_kubelet_that_restarts_goes_on() -> Result<()> {
    let reader = Reader::start("kubelet")?;
    place::restart_kubelet()?;
    reader.goes_on()?;
    let after = Reader::start("kubelet")?;
    crate::kubectl::delete_pod(&reader.scene.namespace, "web")?;
    after.goes_on()
}

fn a_pod_that_comes_before_the_driver_starts_with_it() -> Result<()> {
    helm("uninstall", RELEASE, None)?;
    wait_for("the driver is gone", || Ok(release::pods()?.is_empty()))?;
    let scene = Scene::new("early")?;
    let value = scene.set("a");
    scene.credentials()?;
    scene.class("demo", &["a"])?;
    scene.pod("web", &["demo"], "sleep 10000")?;
    // What more the kubelet says depends on its version: no CSIDriver object, or no driver of the name.
    event(&scene.namespace, "web", "FailedMount", &["secrets-store.csi.k8s.io"])?;
    release::put("install", "first")?;
    ready(&scene.namespace, "web")?;
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    Ok(())
}

/// A figure for whoever reads the tests' output.
fn tell(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}")?;
    Ok(())
}
