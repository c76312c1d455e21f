//! The integration tests: the built driver as a process, a kubelet on its sockets, the Azure
//! emulator over HTTPS, and tmpfs mounts. One binary, since linking takes longer than the tests.
//!
//! A `main` of its own moves the process into a private network before it has threads. A test that
//! its module's `trials!` does not list is dead code, and therefore an error.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is a failed test.
#![allow(missing_docs)] // Test names are sentences.

/// A test's name, and the test.
pub(crate) type Test = (&'static str, fn() -> anyhow::Result<()>);

/// Lists a module's tests: functions without arguments that return `anyhow::Result<()>`.
macro_rules! trials {
    ($module:literal: $($test:ident,)*) => {
        pub(crate) const TESTS: &[crate::Test] =
            &[$((concat!($module, "::", stringify!($test)), $test),)*];

        #[allow(dead_code)] // `matrix` runs some modules by `TESTS`.
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            TESTS.iter().map(|&(name, test)| crate::trial(name, test)).collect()
        }
    };
}

mod apiserver;
mod harness;
mod raw_http2;
mod recorded_azure;
mod recorded_fixture;

mod azure;
mod certificates;
mod classes;
mod cloud_files;
mod identities;
mod identity_binding;
mod networks;
mod objects;
mod publish;
mod recorded;
mod recorded_errors;
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
mod csi_relay;
mod csi_sanity;
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
mod metric_states;
mod plugin;
mod plugin_process;
mod prometheus;
mod provider_parity;

mod budgets;
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
mod manifests;
mod proto;
mod security_page;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial, run};

fn trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    let shown = name.to_owned();
    Trial::test(name, move || {
        let began = Instant::now();
        let result = test();
        DURATIONS.lock().unwrap().push((began.elapsed(), shown));
        result.map_err(|error| format!("{error:#}").into())
    })
}

/// How long each test took.
static DURATIONS: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Writes the slowest tests of a long run, which decide how long a run of CI takes.
fn show_slowest() {
    const SHOWN: usize = 10;
    let mut durations = DURATIONS.lock().unwrap();
    durations.sort_by(|one, other| other.cmp(one));
    if durations.len() > 2 * SHOWN {
        let mut out = std::io::stdout();
        for (duration, name) in durations.iter().take(SHOWN) {
            let _ = writeln!(out, "{:6.1} s {name}", duration.as_secs_f64());
        }
    }
}

fn main() -> ExitCode {
    if let Some(result) = external_fixture::run_reference_provider() {
        return if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(result) = recorded_fixture::run_test(&[recorded::TESTS, recorded_errors::TESTS]) {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::from_args();
    if !arguments.list {
        harness::enter();
    }
    let trials = [volumes(), api_server(), refreshes(), provider_role(), attacks(), repository()];
    let conclusion = run(&arguments, trials.into_iter().flatten().collect());
    // These come last: they search the logs, errors, metrics and files of all tests before them.
    let leaks = run(&arguments, leaks::trials().into_iter().chain(prometheus::last()).collect());
    apiserver::stop();
    show_slowest();
    let failed = [conclusion, leaks].iter().any(|conclusion| conclusion.has_failed());
    if !arguments.list {
        harness::leave(failed);
    }
    match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// Volumes of one node, without an API server.
fn volumes() -> Vec<Trial> {
    let trials = [
        matrix::trials(),
        recorded_fixture::isolated(recorded::TESTS),
        recorded_fixture::isolated(recorded_errors::TESTS),
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
        csi_sanity::trials(),
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
    ];
    trials.into_iter().flatten().collect()
}

/// The driver with an API server, the chart, memory, and metrics.
fn api_server() -> Vec<Trial> {
    let trials = [
        // Far from `chart`, which needs the same server.
        manifests::trials(),
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
        prometheus::trials(),
    ];
    trials.into_iter().flatten().collect()
}

fn refreshes() -> Vec<Trial> {
    let trials = [
        rotation::trials(),
        rotation_failures::trials(),
        rotation_cluster::trials(),
        rotation_pods::trials(),
        rotation_soak::trials(),
        rotation_steps::trials(),
    ];
    trials.into_iter().flatten().collect()
}

/// Our provider under another driver.
fn provider_role() -> Vec<Trial> {
    let trials = [plugin::trials(), plugin_process::trials(), provider_parity::trials()];
    trials.into_iter().flatten().collect()
}

/// Budgets, hostile input, faults of the node, and scarce resources.
fn attacks() -> Vec<Trial> {
    let trials = [
        budgets::trials(),
        bundles::trials(),
        clocks::trials(),
        hostile_classes::trials(),
        hostile_frames::trials(),
        hostile_vaults::trials(),
        low_descriptors::trials(),
        reboots::trials(),
    ];
    trials.into_iter().flatten().collect()
}

/// Checks of files of the repository.
fn repository() -> Vec<Trial> {
    let trials = [dockerfiles::trials(), proto::trials(), security_page::trials()];
    trials.into_iter().flatten().collect()
}
