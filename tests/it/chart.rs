//! The Helm chart, by the programs of Helm 3 and Helm 4: `e2e/chart/check.py` checks what they
//! render, and `e2e/chart/cluster.py` installs, upgrades and uninstalls it on an API server.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::apiserver::empty_server;

trials! { "chart":
    the_chart_renders_as_expected,
    helm_3_and_helm_4_install_upgrade_and_uninstall_it,
}

fn the_chart_renders_as_expected() -> Result<()> {
    let done = output(python("check.py")?.arg(env!("CARGO_BIN_EXE_keyvault-csi")))?;
    ensure!(done.lines().filter(|line| line.starts_with("ok ")).count() >= 20, "checks are missing: {done}");
    Ok(())
}

/// One test, since both need the same server: one of two tests would wait for the other on a thread
/// of the test runner.
fn helm_3_and_helm_4_install_upgrade_and_uninstall_it() -> Result<()> {
    on_an_api_server("helm3").context("Helm 3")?;
    on_an_api_server("helm4").context("Helm 4")
}

fn on_an_api_server(program: &str) -> Result<()> {
    let server = empty_server()?;
    let done = output(server.environment(python("cluster.py")?.arg(program))?)?;
    ensure!(done.lines().filter(|line| line.starts_with("ok ")).count() == 9, "steps are missing: {done}");
    Ok(())
}

/// A script of `e2e/chart`.
fn python(script: &str) -> Result<Command> {
    let python = variable("KEYVAULT_CSI_PYTHON", "the output of `e2e/python`")?;
    variable("KEYVAULT_CSI_TOOLS", "the output of `e2e/tools`")?;
    let mut command = Command::new(python);
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/chart").join(script));
    Ok(command)
}

/// The objects that the chart renders with these values.
pub(crate) fn rendered(values: &Value) -> Result<Vec<Value>> {
    let tools = variable("KEYVAULT_CSI_TOOLS", "the output of `e2e/tools`")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string())?;
    let mut command = Command::new(Path::new(&tools).join("bin/helm4"));
    command.args(["template", "csi", concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/chart")]);
    Ok(serde_saphyr::from_multiple(&output(command.arg("--values").arg(file))?)?)
}

fn variable(name: &str, value: &str) -> Result<OsString> {
    std::env::var_os(name).with_context(|| format!("{name} is not set: run `make test`, or set it to {value}"))
}

/// Runs a command, and returns what it prints.
fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    let (text, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "{command:?}: {}\n{text}\n{errors}", done.status);
    Ok(text.into_owned())
}
