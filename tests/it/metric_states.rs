//! Processes of each role, in the states that their metrics can show, for Prometheus to scrape.

use std::any::Any;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use azure_emulator::{Action, Fault, ObjectAttributes};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_proto::csi::NodeUnpublishVolumeRequest;
use serde_json::json;

use crate::external_fixture::{class, driver_and_provider, volume};
use crate::harness::{Node, harness};
use crate::key_derivation::{ABOVE, Tenant, USUAL, archive};
use crate::mirror_fixture::{self, opaque};
use crate::plugin::{Fixture, objects};
use crate::rotation::{PATIENCE, metric, rotating};

/// A process whose metrics are in a state.
pub(crate) struct State {
    pub(crate) name: &'static str,
    /// The address of `/metrics`.
    pub(crate) address: String,
    /// Keeps the processes running.
    _processes: Box<dyn Any>,
}

impl State {
    pub(crate) fn of_node(name: &'static str, node: Node, others: impl Any) -> State {
        let address = format!("{}:8095", node.setup().address);
        State { name, address, _processes: Box::new((node, others)) }
    }

    fn of_provider(name: &'static str, fixture: Fixture) -> State {
        let address = format!("127.0.0.1:{}", fixture.provider.setup().ports[1]);
        State { name, address, _processes: Box::new(fixture) }
    }
}

/// All states but that of [`refusing`].
pub(crate) fn states() -> Result<Vec<State>> {
    Ok(vec![
        State::of_node("without volumes", harness().node()?, ()),
        State::of_node("with volumes", with_volumes()?, ()),
        State::of_node("rotating", rotating_soon_expired()?, ()),
        State::of_node("throttled", failing_refreshes(Action::status_retry_after(429, 60), "retry_after")?, ()),
        State::of_node("vault down", failing_refreshes(Action::status(503), "circuit_open")?, ()),
        other_provider("other provider", true)?,
        other_provider("other provider gone", false)?,
        State::of_node("mirroring", mirroring()?, ()),
        State::of_provider("provider without calls", Fixture::new(&[])?),
        State::of_provider("provider", called_provider()?),
    ])
}

/// A driver that has published, published again, derived keys and unpublished.
fn with_volumes() -> Result<Node> {
    let node = harness().node()?;
    let tenant = Tenant::new(&node, "shop")?;
    let plain = tenant.plain("demo");
    node.publish(&plain)?;
    node.publish(&plain)?;
    node.publish(&tenant.with_archive(&archive(&tenant.made, USUAL)?))?;
    node.kubelet.unpublish(&plain)?;
    Ok(node)
}

/// A driver that has refused a publish for each kind of `error_type`, an archive, and an unpublish.
pub(crate) fn refusing() -> Result<Node> {
    let node = harness().node()?;
    let tenant = Tenant::new(&node, "shop")?;
    node.class("missing", &tenant.vault.parameters(&["missing"]))?;
    node.class("incomplete", &tenant.vault.parameters_of(""))?;
    for name in ["absent", "missing", "incomplete"] {
        node.refused(&tenant.vault.volume(name))?;
    }
    node.refused(&tenant.with_archive(&archive(&tenant.made, ABOVE)?))?;
    class(&node, "unknown", &["objectName: foo"], "")?;
    node.refused(&volume("unknown"))?;
    ensure!(node.kubelet.send_unpublish(NodeUnpublishVolumeRequest::default()).is_err());
    Ok(node)
}

/// A driver that has refreshed a volume with a new value, whose secret expires tomorrow.
fn rotating_soon_expired() -> Result<Node> {
    let (node, vault) = (rotating("200ms", &[])?, harness().vault());
    let now = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())?;
    let set = |version: u8| {
        let created = Some(now - 1_000 + i64::from(version));
        let attributes = ObjectAttributes { created, expires: Some(now + 86_400), ..Default::default() };
        let value = harness().secret("soon");
        harness().azure().set_secret_version(&vault.name, "soon", &format!("{version:032}"), &value, attributes);
    };
    set(1);
    node.class("demo", &vault.parameters(&["soon"]))?;
    node.publish(&vault.volume("demo"))?;
    set(2);
    wait_for("a new value", PATIENCE, || {
        let expires = metric(&node, "rotation_next_expiration_timestamp_seconds{", &[])?;
        Ok(expires > 0.0 && metric(&node, "rotation_reconcile_total", &["rotated=\"true\""])? > 0.0)
    })?;
    Ok(node)
}

/// A driver that cannot refresh a volume, and has paused its requests to the vault for this reason.
fn failing_refreshes(action: Action, reason: &str) -> Result<Node> {
    let (node, vault) = (rotating("500ms", &[])?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    node.publish(&vault.volume("demo"))?;
    harness().azure().add_fault(Fault::new(action).host(&vault.name));
    wait_for("a failed refresh, and a pause", PATIENCE, || {
        let failing = metric(&node, "rotation_volumes_failing{", &[])? == 1.0;
        Ok(failing && metric(&node, "keyvault_backoff_vaults{", &[&format!("reason=\"{reason}\"")])? == 1.0)
    })?;
    Ok(node)
}

/// A driver with another provider, which has returned errors, and is healthy or has been killed.
fn other_provider(name: &'static str, healthy: bool) -> Result<State> {
    let flags = ["--provider-health-check", "--provider-health-check-interval=100ms"];
    let (node, provider) = driver_and_provider(&flags)?;
    class(&node, "demo", &["objectName: foo"], "")?;
    node.publish(&volume("demo"))?;
    for code in ["AuthenticationFailed", "a \"bad\" label"] {
        class(&node, "faulty", &["objectName: foo"], &format!("code={code}"))?;
        node.refused_within(&volume("faulty"), Duration::from_secs(20))?;
    }
    let gauge = |value: &str| -> Result<bool> {
        let metrics = node.metrics()?;
        Ok(metrics.lines().any(|line| line.starts_with("provider_healthy{") && line.ends_with(value)))
    };
    wait_for("the provider is healthy", PATIENCE, || gauge(" 1"))?;
    if healthy {
        return Ok(State::of_node(name, node, provider));
    }
    provider.kill()?;
    wait_for("the provider is not healthy", PATIENCE, || gauge(" 0"))?;
    Ok(State::of_node(name, node, ()))
}

/// A driver that has written one Secret of a class, and cannot write another.
fn mirroring() -> Result<Node> {
    let fixture = mirror_fixture::Fixture::new()?;
    fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")]), opaque("absent", &[("b", "k")])]))?;
    let (node, _) = fixture.node("a", &[])?;
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    wait_for("a Secret, and an error", PATIENCE, || {
        let written = metric(&node, "sync_k8s_secret_total", &[])?;
        Ok(written > 0.0 && metric(&node, "sync_k8s_secret_error_total", &[])? > 0.0)
    })?;
    Ok(node)
}

/// A provider with calls that succeeded, and calls that failed, also because its vault throttles.
fn called_provider() -> Result<Fixture> {
    let fixture = Fixture::new(&[])?;
    fixture.vault.set("password");
    let request = |name| fixture.request(&objects(&[("secret", name, "")]));
    fixture.mount(&request("password"))?;
    ensure!(fixture.mount(&request("missing")).is_err());
    fixture.driver.version()?;
    ensure!(fixture.provider.health("/healthz")?.0 == 200);
    harness().azure().add_fault(Fault::new(Action::status_retry_after(429, 300)).host(&fixture.vault.name));
    ensure!(fixture.mount(&request("password")).is_err());
    Ok(fixture)
}
