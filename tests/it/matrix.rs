//! The tests of the Azure provider, each run in two environments: with the driver's built-in
//! provider, and with `--azure-provider=external` and our provider behind its socket. Both must
//! have the same outcomes: files, modes and Reasons, publish by publish.
//!
//! Contents differ between the runs, since each run creates its values. The tests assert them, and
//! `provider_parity` compares those of one vault byte by byte.

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;

use crate::harness::{take_outcomes, with_external_provider};
use crate::{
    azure, certificates, cloud_files, identities, identity_binding, networks, objects, publish, refusals, scenarios,
    sharing, troubleshooting,
};

/// The tests that run in both environments.
const MATRIX: &[&[crate::Test]] = &[
    azure::TESTS,
    certificates::TESTS,
    cloud_files::TESTS,
    identities::TESTS,
    identity_binding::TESTS,
    networks::TESTS,
    objects::TESTS,
    publish::TESTS,
    refusals::TESTS,
    scenarios::TESTS,
    sharing::TESTS,
    troubleshooting::TESTS,
];

pub(crate) fn trials() -> Vec<Trial> {
    let tests = MATRIX.iter().copied().flatten();
    tests.map(|&(name, test)| crate::trial(name, move || run_in_both(test))).collect()
}

fn run_in_both(test: fn() -> Result<()>) -> Result<()> {
    take_outcomes();
    test()?;
    let built_in = take_outcomes();
    with_external_provider(|| test().context("with the external provider"))?;
    let external = take_outcomes();
    ensure!(built_in == external, "built in: {built_in:?}\nexternal: {external:?}");
    Ok(())
}
