//! Our provider behind its socket, beside a driver that has `--azure-provider=external`.

use anyhow::Result;
use keyvault_csi_e2e::driver::DriverSetup;
use keyvault_csi_e2e::provider::ProviderProcess;

use super::environment;
use super::harness;
use super::setup::{provider_dirs, set_provider_dirs};

/// The flags that both roles have: where the driver does not fetch, the provider gets them.
const FETCH_FLAGS: &[&str] = &[
    "-v",
    "--cloud-file",
    "--cloud-files-dir",
    "--cloud-name",
    "--construct-pem-chain",
    "--custom-user-agent",
    "--freshness-window",
    "--sni-name",
    "--token-proxy-ca-file",
    "--token-proxy-url",
    "--vault-requests-per-second",
    "--write-cert-and-key-in-separate-files",
];

/// Starts our provider in the main provider directory of a driver, if the environment has one, with
/// those of the driver's flags that concern fetching.
pub(super) fn start(setup: &mut DriverSetup) -> Result<Option<ProviderProcess>> {
    if !environment::has_external_provider() {
        return Ok(None);
    }
    environment::count_external_provider();
    let mut provider = harness().provider_setup();
    let is_fetch_flag = |flag: &&String| FETCH_FLAGS.contains(&flag.split('=').next().unwrap_or_default());
    provider.flags = setup.flags.iter().filter(is_fetch_flag).cloned().collect();
    provider.environment = setup.environment.clone();
    provider.ca = setup.ca.clone();
    if !setup.flags.iter().any(|flag| flag == "--azure-provider=external") {
        set_provider_dirs(setup)?;
        setup.flags.push("--azure-provider=external".to_owned());
    }
    let [_, folder] = provider_dirs(setup);
    provider.providers = folder;
    provider.start().map(Some)
}
