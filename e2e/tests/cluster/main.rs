//! The tests on a real cluster: our image, installed by our chart with the real Helm engine, real pods, a real kubelet.
//!
//! The emulator of Azure runs in this process, where the cluster's nodes look for it; `place` says where that is. Start
//! reading in `scene` and `release`; the other modules are scenarios, and one that is
//! not listed in its module's `trials!` is dead code, and that is an error.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on ends.
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

mod kubectl;
mod names;
mod node;
mod place;
mod release;
mod scene;

mod pods;
mod seeds;

mod newer;

mod alone;

mod rotating;

mod external;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, run};

/// How many tests run at once; they wait for the kubelet most of the time.
const AT_ONCE: usize = 8;

fn main() -> Result<ExitCode> {
    if let Some(ended) = external::is_provider() {
        return ended.map(|()| ExitCode::SUCCESS);
    }
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        scene::start()?;
        node::start()?;
        release::install()?;
    }
    arguments.test_threads.get_or_insert(AT_ONCE);
    let together = [seeds::trials(), pods::trials(), newer::trials(arguments.list)?];
    let together = run(&arguments, place::able(together.into_iter().flatten().collect()));
    arguments.test_threads = Some(1);
    let alone = run(&arguments, place::able(alone::trials().into_iter().chain(rotating::before()).collect()));
    arguments.test_threads = Some(AT_ONCE);
    let rotating = run(&arguments, place::able(external::trials().into_iter().chain(rotating::trials()).collect()));
    external::stop();
    let steady = run(
        &arguments,
        vec![libtest_mimic::Trial::test("release::the_driver_never_restarted", || {
            release::is_steady().map_err(|error| format!("{error:#}").into())
        })],
    );
    let failed = [together, alone, rotating, steady].iter().any(|conclusion| conclusion.has_failed());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
