//! The properties of the cluster outside the Kubernetes API, and the ways to change it from
//! outside.
//!
//! They are environment variables, which `e2e/run` sets for its own cluster; for another cluster in
//! KUBECONFIG, see the table in e2e/cluster/README.md. A test whose requirement is not met is
//! listed as ignored, never as passed.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;

/// The tests with a requirement, and the variable that is set if it is met.
const REQUIREMENTS: &[(&str, &str)] = &[
    ("disruptive::a_restart_of_the_kubelet_does_not_affect_pods", RESTART),
    ("user_manifests::a_managed_identity_of_the_node", IMDS),
    ("examples::managed_identity_user_assigned", IMDS),
    ("examples::managed_identity_system_assigned", IMDS),
    ("rotation::volumes_of_identities_without_a_secret_are_refreshed", IMDS),
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

/// Marks the tests whose requirements are not met as ignored.
pub(crate) fn mark_ignored(trials: Vec<Trial>) -> Vec<Trial> {
    trials
        .into_iter()
        .map(|trial| {
            let requirement = REQUIREMENTS.iter().find(|(name, _)| *name == trial.name());
            match requirement {
                Some((_, variable)) if set(variable).is_none() => trial.with_kind(*variable).with_ignored_flag(true),
                Some(_) | None => trial,
            }
        })
        .collect()
}

/// The address of this machine for Azure; nodes connect to port 443.
pub(crate) fn azure() -> Result<Ipv4Addr> {
    address(AZURE)
}

/// The address of this machine for the name server of the driver's pods.
pub(crate) fn name_server() -> Result<Ipv4Addr> {
    address(NAME_SERVER)
}

/// The address of this machine for the metadata service, port 80, if the nodes can reach one.
pub(crate) fn imds() -> Result<Option<Ipv4Addr>> {
    set(IMDS).map(|_| address(IMDS)).transpose()
}

/// Loads the image of an archive onto the nodes under this name; if the variable is not set, the
/// nodes must have it.
pub(crate) fn load_image(archive: &str, name: &str) -> Result<()> {
    set(LOAD).map_or(Ok(()), |command| run(&command, &[archive, name]))
}

/// The directory of this machine that is the node's directory of provider sockets.
pub(crate) fn providers() -> Result<PathBuf> {
    set(PROVIDERS).map(PathBuf::from).context("E2E_PROVIDERS is not set")
}

pub(crate) fn restart_kubelet() -> Result<()> {
    run(&set(RESTART).context("E2E_RESTART is not set")?, &["kubelet"])
}

fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

fn address(variable: &str) -> Result<Ipv4Addr> {
    let text =
        set(variable).with_context(|| format!("{variable} is not set: e2e/cluster/README.md, \"Another cluster\""))?;
    text.parse().with_context(|| format!("{variable} is not an IPv4 address: {text}"))
}

/// Runs a command with its first arguments, separated by spaces, and further arguments.
fn run(command: &str, arguments: &[&str]) -> Result<()> {
    let mut words = command.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    let output = command.args(words).args(arguments).output().with_context(|| format!("{command:?} cannot be run"))?;
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}
