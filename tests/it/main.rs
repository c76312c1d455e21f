//! The integration tests: the built driver as a process, a kubelet on its sockets, the Azure emulator over real HTTPS,
//! real tmpfs. One binary, since linking costs more than running.
//!
//! The process moves into a private network before it has threads, which is why it has its own `main`. Modules stand
//! in reading order; a test that is not listed in its module's `trials!` is dead code, and that is an error.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on ends.
#![allow(missing_docs)] // Test names are sentences.

/// A test's name, and the test.
pub(crate) type Test = (&'static str, fn() -> anyhow::Result<()>);

/// Lists a module's tests: functions without arguments that return `anyhow::Result<()>`.
macro_rules! trials {
    ($module:literal: $($test:ident,)*) => {
        /// By name.
        pub(crate) const TESTS: &[crate::Test] =
            &[$((concat!($module, "::", stringify!($test)), $test),)*];

        #[allow(dead_code)] // Some are made by `matrix`.
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            TESTS.iter().map(|&(name, test)| crate::trial(name, test)).collect()
        }
    };
}

mod apiserver;
mod harness;
mod raw_http2;

mod azure;
mod certificates;
mod classes;
mod cloud_files;
mod identities;
mod identity_binding;
mod networks;
mod objects;
mod publish;
mod refusals;
mod troubleshooting;
mod unpublish;

mod external;
mod external_faults;
mod external_fixture;
mod external_rotation;

mod cluster_classes;
mod cluster_reports;
mod external_cluster;
mod mirror;
mod mirror_fixture;
mod mirror_guards;
mod mirror_owners;

mod costs;
mod descriptors;
mod health;
mod host_directories;
mod interruptions;
mod kernels;
mod key_derivation;
mod kubelets;
mod pauses;
mod resources;
mod rights;
mod rotation;
mod rotation_cluster;
mod rotation_failures;
mod rotation_pods;
mod rotation_soak;
mod rotation_steps;
mod scenarios;
mod sharing;
mod startup;
mod streams;
mod surface;
mod takeover;
mod tenant_input;
mod tokens;
mod volume_size;

mod matrix;
mod plugin;
mod plugin_process;
mod provider_parity;

mod bundles;
mod clocks;
mod hostile;
mod hostile_classes;
mod hostile_frames;
mod hostile_vaults;
mod low_descriptors;
mod reboots;

mod leaks;
mod memory;

mod chart;
mod dockerfiles;
mod proto;
mod security_page;
mod tidy;

use std::process::ExitCode;

use libtest_mimic::{Arguments, run};

fn trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> libtest_mimic::Trial {
    libtest_mimic::Trial::test(name, || test().map_err(|error| format!("{error:#}").into()))
}

/// What is measured while nothing else runs.
const IDLE: [&str; 2] = [
    "resources::the_idle_process_needs_at_most_ten_mib",
    "cluster_reports::the_idle_process_with_the_api_needs_at_most_twelve_mib",
];

fn main() -> ExitCode {
    if let Some(ended) = external_fixture::is_provider() {
        return if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let arguments = Arguments::from_args();
    if !arguments.list {
        harness::enter();
    }
    let trials = [
        matrix::trials(),
        unpublish::trials(),
        classes::trials(),
        surface::trials(),
        health::trials(),
        health::soak(),
        streams::trials(),
        streams::soak(),
        descriptors::trials(),
        descriptors::soak(),
        startup::trials(),
        takeover::trials(),
        tenant_input::trials(),
        kubelets::trials(),
        costs::trials(),
        interruptions::trials(),
        kernels::trials(),
        host_directories::trials(),
        host_directories::variants(),
        tokens::trials(),
        key_derivation::trials(),
        key_derivation::soak(),
        pauses::trials(),
        volume_size::trials(),
        external::trials(),
        external_faults::trials(),
        external_rotation::trials(),
        cluster_classes::trials(),
        cluster_reports::trials(),
        external_cluster::trials(),
        mirror::trials(),
        mirror_guards::trials(),
        mirror_owners::trials(),
        resources::trials(),
        rights::trials(),
        chart::trials(),
        memory::trials(),
        rotation::trials(),
        rotation_failures::trials(),
        rotation_cluster::trials(),
        rotation_pods::trials(),
        rotation_soak::trials(),
        rotation_steps::trials(),
        plugin::trials(),
        plugin_process::trials(),
        provider_parity::trials(),
        bundles::trials(),
        clocks::trials(),
        hostile_classes::trials(),
        hostile_frames::trials(),
        hostile_vaults::trials(),
        low_descriptors::trials(),
        reboots::trials(),
        dockerfiles::trials(),
        proto::trials(),
        security_page::trials(),
        tidy::trials(),
    ];
    // The others' classes would be in its memory.
    let (idle, trials): (Vec<_>, Vec<_>) = trials.into_iter().flatten().partition(|trial| IDLE.contains(&trial.name()));
    let idle = run(&Arguments { test_threads: Some(1), ..arguments.clone() }, idle);
    let conclusion = run(&arguments, trials);
    // Last, since it looks at everything that the others left: logs, errors, metrics, files.
    let leaks = run(&arguments, leaks::trials());
    apiserver::stop();
    match [idle, conclusion, leaks].iter().any(|conclusion| conclusion.has_failed()) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
