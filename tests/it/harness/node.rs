//! A driver with its kubelet, and the manifests and mounts that tests look at.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::{DriverProcess, DriverSetup};
use keyvault_csi_e2e::kubelet::{DEADLINE, Kubelet, Volume};
use keyvault_csi_e2e::provider::ProviderProcess;
use tonic::Status;

use super::{Harness, environment, external_provider, harness};

/// A driver with its kubelet.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) driver: DriverProcess,
    pub(crate) kubelet: Kubelet,
    /// The provider that the driver calls instead of the built-in one, if the environment has one.
    pub(crate) provider: Option<ProviderProcess>,
}

impl Deref for Node {
    type Target = DriverProcess;

    fn deref(&self) -> &DriverProcess {
        &self.driver
    }
}

impl Harness {
    /// A running driver with its kubelet.
    pub(crate) fn node(&self) -> Result<Node> {
        Node::start(self.setup())
    }
}

impl Node {
    pub(crate) fn start(mut setup: DriverSetup) -> Result<Node> {
        let provider = external_provider::start(&mut setup)?;
        let driver = setup.start()?;
        let kubelet = Kubelet::new(&driver.setup().kubelet_root(), &driver.setup().socket())?;
        Ok(Node { driver, kubelet, provider })
    }

    /// The log of the driver, and of the external provider if there is one.
    pub(crate) fn log(&self) -> String {
        self.driver.log() + &self.provider.as_ref().map(ProviderProcess::log).unwrap_or_default()
    }

    /// The metrics of the driver, and of the external provider if there is one; records the pages
    /// for `prometheus`.
    pub(crate) fn metrics(&self) -> Result<String> {
        let provider = self.provider.as_ref().map(ProviderProcess::metrics).transpose()?;
        let pages = [self.driver.metrics()?, provider.unwrap_or_default()];
        pages.iter().for_each(|page| harness().record_page(page));
        Ok(pages.concat())
    }

    /// Writes a class of the namespace `default` into the driver's manifests.
    pub(crate) fn class(&self, name: &str, parameters: &BTreeMap<String, String>) -> Result<()> {
        self.manifest(&format!("{name}.yaml"), &class_manifest("default", name, Some("azure"), parameters))
    }

    /// Writes a file into the driver's manifests, in one step.
    pub(crate) fn manifest(&self, file: &str, text: &str) -> Result<()> {
        let folder = self.setup().manifests();
        fs::write(folder.join(".new"), text)?;
        Ok(fs::rename(folder.join(".new"), folder.join(file))?)
    }

    /// Publishes as the kubelet does; records the error's text for `leaks`.
    pub(crate) fn publish(&self, volume: &Volume) -> Result<PathBuf, Status> {
        self.publish_within(volume, DEADLINE)
    }

    pub(crate) fn publish_within(&self, volume: &Volume, deadline: Duration) -> Result<PathBuf, Status> {
        let published = self.kubelet.publish_within(volume, deadline);
        // The target can be unpublished by now; then there is no outcome to record.
        let _ = environment::record_outcome(&published);
        published.inspect_err(|status| harness().remember(status.message()))
    }

    /// Publishes a volume that must fail;
    /// checks that no mount and no target is left, and returns the status.
    pub(crate) fn refused(&self, volume: &Volume) -> Result<Status> {
        self.refused_within(volume, DEADLINE)
    }

    pub(crate) fn refused_within(&self, volume: &Volume, deadline: Duration) -> Result<Status> {
        let status = self.publish_within(volume, deadline).err().context("the publish succeeded")?;
        let target = self.kubelet.target(volume);
        ensure!(mounts_on(&target)?.is_empty(), "a mount is left after: {status}");
        ensure!(!target.exists(), "{} is left after: {status}", target.display());
        Ok(status)
    }
}

/// A SecretProviderClass manifest.
pub(crate) fn class_manifest(
    namespace: &str,
    name: &str,
    provider: Option<&str>,
    parameters: &BTreeMap<String, String>,
) -> String {
    let mut spec = serde_json::Map::new();
    if let Some(provider) = provider {
        spec.insert("provider".to_owned(), provider.into());
    }
    if !parameters.is_empty() {
        spec.insert("parameters".to_owned(), serde_json::to_value(parameters).unwrap());
    }
    serde_json::json!({
        "apiVersion": "secrets-store.csi.x-k8s.io/v1",
        "kind": "SecretProviderClass",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
    .to_string()
}

/// The lines of the mount table for this mount point.
pub(crate) fn mounts_on(target: &Path) -> Result<Vec<String>> {
    let target = target.display().to_string().replace(' ', "\\040");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().filter(|line| line.split(' ').nth(1) == Some(&target)).map(str::to_owned).collect())
}

/// Detaches every mount below this folder that a test left, such as those of a killed driver.
pub(super) fn detach_below(folder: &Path) -> Result<()> {
    let prefix = format!("{}/", folder.display());
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|target| target.starts_with(&prefix));
    for target in targets.map(|target| target.replace("\\040", " ")).collect::<Vec<_>>().iter().rev() {
        nix::mount::umount2(target.as_str(), nix::mount::MntFlags::MNT_DETACH)?;
    }
    Ok(())
}
