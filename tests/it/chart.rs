//! The Helm chart, rendered by the real Helm engine: runs the checks of `e2e/chart/check.py`.
//!
//! `e2e/chart/cluster.py` covers install, upgrade and uninstall, which need an API server.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

trials! { "chart":
    the_chart_renders_as_expected,
    the_program_accepts_every_flag_of_the_chart,
}

fn the_chart_renders_as_expected() -> Result<()> {
    ensure!(check(&[])? >= 15, "checks are missing");
    Ok(())
}

fn the_program_accepts_every_flag_of_the_chart() -> Result<()> {
    ensure!(check(&["--binary", env!("CARGO_BIN_EXE_keyvault-csi")])? == 1);
    Ok(())
}

/// Runs the checks and returns how many passed.
fn check(arguments: &[&str]) -> Result<usize> {
    let python = std::env::var_os("KEYVAULT_CSI_PYTHON")
        .context("KEYVAULT_CSI_PYTHON is not set: run `make test`, which sets up a Python with the Helm engine")?;
    let output = Command::new(python)
        .arg("-B")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/chart/check.py"))
        .args(arguments)
        .output()?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{text}\n{errors}");
    Ok(text.lines().filter(|line| line.starts_with("ok ")).count())
}
