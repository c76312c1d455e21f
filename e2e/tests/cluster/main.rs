//! The tests on a real cluster: our image and chart, Helm, pods and a kubelet.
//!
//! The Azure emulator runs in this process, at an address of `environment` that the cluster's nodes
//! can reach. Start reading in `fixture` and `release`; the other modules are scenarios. A test
//! that is not listed in its module's `trials!` is dead code, which is an error.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot continue panics.
#![allow(missing_docs)] // Test names are sentences.

/// Lists a module's tests: functions without arguments that return `anyhow::Result<()>`.
macro_rules! trials {
    ($module:literal: $($test:ident,)*) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$(libtest_mimic::Trial::test(concat!($module, "::", stringify!($test)), || {
                $test().map_err(|error: anyhow::Error| format!("{error:#}").into())
            }),)*]
        }
    };
}

mod environment;
mod fixture;
mod kubectl;
mod name_server;
mod node;
mod release;

mod disruptive;
mod external;

mod examples;
mod pods;
mod rotation;
mod user_manifests;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, run};

/// The number of concurrent tests, which wait for the kubelet most of the time.
const CONCURRENCY: usize = 8;

fn main() -> Result<ExitCode> {
    if let Some(exit) = external::run_as_provider() {
        return exit.map(|()| ExitCode::SUCCESS);
    }
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        fixture::start()?;
        node::start()?;
        release::install()?;
    }
    arguments.test_threads.get_or_insert(CONCURRENCY);
    let concurrent = user_manifests::trials().into_iter().chain(pods::trials()).collect();
    let concurrent = run(&arguments, environment::mark_ignored(concurrent));
    arguments.test_threads = Some(1);
    let disruptive = run(
        &arguments,
        environment::mark_ignored(disruptive::trials().into_iter().chain(rotation::before()).collect()),
    );
    arguments.test_threads = Some(CONCURRENCY);
    let rotation = run(
        &arguments,
        environment::mark_ignored(
            [external::trials(), rotation::trials(), examples::trials()].into_iter().flatten().collect(),
        ),
    );
    external::stop();
    let steady = run(
        &arguments,
        vec![libtest_mimic::Trial::test("release::the_driver_never_restarted", || {
            release::assert_steady().map_err(|error| format!("{error:#}").into())
        })],
    );
    let failed = [concurrent, disruptive, rotation, steady].iter().any(|conclusion| conclusion.has_failed());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
