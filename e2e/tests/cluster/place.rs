//! What the cluster of the tests is like, and what can be done to it from outside: all that is not Kubernetes' own API.
//!
//! Comes from the environment, which `e2e/run` sets for its own cluster, and whoever names another one by KUBECONFIG
//! (e2e/cluster/README.md has the table). A test that needs what is not there is listed as ignored, never as passed.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;

/// Which tests need more than a cluster, and the variable that says that it is there.
const NEEDS: &[(&str, &str)] = &[
    ("alone::a_kubelet_that_restarts_goes_on", RESTART),
    ("seeds::a_managed_identity_of_the_node", IMDS),
    ("rotating::identities_without_a_secret_follow_too", IMDS),
    ("external::a_pod_reads_its_files_and_leaves_nothing", PROVIDERS),
    ("external::a_changed_value_reaches_file_and_secret", PROVIDERS),
    ("external::two_deployments_own_one_secret_until_the_last_is_gone", PROVIDERS),
    ("external::the_class_is_the_namespaces_own", PROVIDERS),
    ("external::two_classes_in_one_pod_have_a_secret_each", PROVIDERS),
    ("external::the_kubelets_tokens_reach_the_provider", PROVIDERS),
    ("external::the_providers_calls_are_counted", PROVIDERS),
];

const AZURE: &str = "E2E_AZURE";
const NAME_SERVER: &str = "E2E_NAME_SERVER";
const IMDS: &str = "E2E_IMDS";
const LOAD: &str = "E2E_LOAD_IMAGE";
const RESTART: &str = "E2E_RESTART";
const PROVIDERS: &str = "E2E_PROVIDERS";

/// Marks the tests that cannot run here.
pub(crate) fn able(trials: Vec<Trial>) -> Vec<Trial> {
    trials
        .into_iter()
        .map(|trial| {
            let needed = NEEDS.iter().find(|(name, _)| *name == trial.name());
            match needed {
                Some((_, variable)) if set(variable).is_none() => trial.with_kind(*variable).with_ignored_flag(true),
                Some(_) | None => trial,
            }
        })
        .collect()
}

/// The address of this machine where the nodes look for Azure, port 443.
pub(crate) fn azure() -> Result<Ipv4Addr> {
    address(AZURE)
}

/// The address of this machine where the driver's pods look for a name server.
pub(crate) fn name_server() -> Result<Ipv4Addr> {
    address(NAME_SERVER)
}

/// The address of this machine where the nodes look for the metadata service, port 80, if they find it at all.
pub(crate) fn imds() -> Result<Option<Ipv4Addr>> {
    set(IMDS).map(|_| address(IMDS)).transpose()
}

/// Brings the image of an archive onto the nodes under this name; without a way to do that it has to be there.
pub(crate) fn load_image(archive: &str, name: &str) -> Result<()> {
    set(LOAD).map_or(Ok(()), |command| run(&command, &[archive, name]))
}

/// The folder of this machine that is the node's folder for sockets of providers.
pub(crate) fn providers() -> Result<PathBuf> {
    set(PROVIDERS).map(PathBuf::from).context("E2E_PROVIDERS is not set")
}

/// Stops and starts the kubelet.
pub(crate) fn restart_kubelet() -> Result<()> {
    run(&set(RESTART).context("E2E_RESTART is not set")?, &["kubelet"])
}

fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

fn address(variable: &str) -> Result<Ipv4Addr> {
    let text =
        set(variable).with_context(|| format!("{variable} is not set: e2e/cluster/README.md, \"Another cluster\""))?;
    text.parse().with_context(|| format!("{variable} is no IPv4 address: {text}"))
}

/// A command and its first arguments, parted by spaces.
fn run(command: &str, arguments: &[&str]) -> Result<()> {
    let mut words = command.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    let output = command.args(words).args(arguments).output().with_context(|| format!("{command:?} cannot be run"))?;
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}
