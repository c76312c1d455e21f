//! The benchmark: requests, time, memory and CPU of the built binary, measured from outside.
//!
//! The Azure emulator runs in this process, kube-apiserver and etcd in child processes, and the
//! program `load` makes the calls. Start reading in `scenarios`. Every figure is the median of
//! several runs; each run starts its own driver.
#![allow(clippy::print_stdout, clippy::print_stderr)] // The program prints a table, and its progress.

mod budgets;
mod environment;
mod figures;
mod process;
mod report;
mod scaling;
mod scenarios;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::environment::Environment;
use crate::figures::Figures;

/// Measures a built keyvault-csi. KUBEBUILDER_ASSETS is the directory of etcd and kube-apiserver.
#[derive(Debug, Parser)]
struct Arguments {
    /// The release binary.
    #[arg(long)]
    binary: PathBuf,
    /// The archive of the image.
    #[arg(long)]
    image: PathBuf,
    /// The load client; by default the program `load` beside this one.
    #[arg(long)]
    load: Option<PathBuf>,
    /// The file for the figures.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// The file for the chart of the scaling figures.
    #[arg(long)]
    chart: Option<PathBuf>,
    /// The number of runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Skip the figures that take minutes: scaling and the worst case.
    #[arg(long)]
    short: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let default_load = std::env::current_exe()?.with_file_name("load");
    let load = arguments.load.clone().unwrap_or(default_load);
    let binary = arguments.binary.canonicalize().context("the release binary is not built: make bench")?;
    let mut figures = Figures::default();
    figures.record("binary_mb", std::fs::metadata(&binary)?.len() as f64 / 1e6);
    figures.record("image_mb", report::image_mb(&arguments.image)?);
    let environment =
        Environment::enter(binary, load.canonicalize().context("the load client is not built: make bench")?)?;
    (0..arguments.runs).try_for_each(|_| scenarios::idle(&environment, &mut figures))?;
    environment.fill()?;
    for run in 1..=arguments.runs {
        eprintln!("run {run} of {}", arguments.runs);
        scenarios::all(&environment, &mut figures)?;
    }
    let mut scaling = Vec::new();
    if !arguments.short {
        scaling = scaling::curve(&environment)?;
        figures.record("memory_per_volume_kib", scaling::per_volume(&scaling)?);
        scenarios::unshared(&environment, &mut figures)?;
    }
    let report = report::Report { figures, scaling, runs: arguments.runs };
    report.write(&arguments.json)?;
    if let Some(chart) = &arguments.chart
        && !report.scaling.is_empty()
    {
        report::draw(&report.scaling, chart)?;
    }
    println!("{}", report.table());
    keyvault_csi_apiserver::stop();
    Ok(())
}
