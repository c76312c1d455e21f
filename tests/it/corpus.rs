//! The tests of the Azure provider once more, each with `node --azure-provider=external` and our provider behind its socket: the same
//! files, and the same words and Reasons. And both ways side by side, compared byte for byte.

use std::cell::Cell;

use anyhow::Result;
use keyvault_csi_e2e::driver::Setup;
use keyvault_csi_e2e::provider::ProviderProcess;
use libtest_mimic::Trial;

use crate::external_scene::{folders, look_there};
use crate::lab::lab;
use crate::{
    azure, certificates, identities, networks, objects, publish, refusals, scenarios, sharing, trial, troubleshooting,
};

thread_local! {
    /// Whether drivers that this test starts have our provider behind a socket.
    static BY_SOCKET: Cell<bool> = const { Cell::new(false) };
}

/// What is not about the provider, or looks at what only the driver's own provider can show.
const LEFT_OUT: &[&str] = &[];

/// The flags that both roles have: where the driver does not fetch, they are the provider's.
const FETCHING: &[&str] = &[
    "-v",
    "--cloud-file",
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

pub(crate) fn trials() -> Vec<Trial> {
    let corpus = [
        azure::TESTS,
        certificates::TESTS,
        identities::TESTS,
        networks::TESTS,
        objects::TESTS,
        publish::TESTS,
        refusals::TESTS,
        scenarios::TESTS,
        sharing::TESTS,
        troubleshooting::TESTS,
    ];
    let tests = corpus.into_iter().flatten().filter(|(name, _)| !LEFT_OUT.contains(name));
    tests.map(|&(name, test)| trial(&format!("corpus::{name}"), move || by_socket(test))).collect()
}

/// Runs a test whose drivers have our provider behind a socket.
fn by_socket(test: fn() -> Result<()>) -> Result<()> {
    BY_SOCKET.set(true);
    let outcome = std::panic::catch_unwind(test);
    // The thread runs other tests after this one.
    BY_SOCKET.set(false);
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether the drivers of this test have our provider behind a socket.
pub(crate) fn is_by_socket() -> bool {
    BY_SOCKET.get()
}

/// Starts our provider where a driver of this setup looks, with the driver's own flags as far as they are about fetching.
pub(crate) fn provider_beside(setup: &mut Setup) -> Result<ProviderProcess> {
    let mut provider = lab().provider_setup();
    let is_fetching = |flag: &&String| FETCHING.contains(&flag.split('=').next().unwrap_or_default());
    provider.flags = setup.flags.iter().filter(is_fetching).cloned().collect();
    provider.environment = setup.environment.clone();
    provider.ca = setup.ca.clone();
    if !setup.flags.iter().any(|flag| flag == "--azure-provider=external") {
        look_there(setup)?;
        setup.flags.push("--azure-provider=external".to_owned());
    }
    let [_, folder] = folders(setup);
    provider.providers = folder;
    provider.start()
}
