//! What the driver costs: requests, time, memory and CPU, measured on the built binary from outside, in its own process.
//!
//! Azure's emulator runs in this process, kube-apiserver and etcd beside it; calls come from the program `load`. Start reading in
//! `scenarios`, which has what is measured; `scene` sets it up, `process` reads the kernel's figures, `report` writes them down.
//! Every figure is the median of some runs; each run has a driver of its own.
#![allow(clippy::print_stdout, clippy::print_stderr)] // The table is what it is for; what runs, too, is told.

mod process;
mod report;
mod scaling;
mod scenarios;
mod scene;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use self::report::Figures;
use self::scene::Scene;

/// Measures a built keyvault-csi; KUBEBUILDER_ASSETS says where etcd and kube-apiserver are.
#[derive(Debug, Parser)]
struct Arguments {
    /// The release binary.
    #[arg(long)]
    binary: PathBuf,
    /// The image's archive.
    #[arg(long)]
    image: PathBuf,
    /// The load client; by default the program `load` beside this one.
    #[arg(long)]
    load: Option<PathBuf>,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Where the chart of the scaling figures goes.
    #[arg(long)]
    chart: Option<PathBuf>,
    /// How many runs the medians are of.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only the figures that need no minutes: without scaling and without the worst case.
    #[arg(long)]
    short: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let beside = std::env::current_exe()?.with_file_name("load");
    let load = arguments.load.clone().unwrap_or(beside);
    let binary = arguments.binary.canonicalize().context("the release binary is not built: make bench")?;
    let mut figures = Figures::default();
    figures.note("binary_mb", std::fs::metadata(&binary)?.len() as f64 / 1e6);
    figures.note("image_mb", report::image_mb(&arguments.image)?);
    let scene = Scene::enter(binary, load.canonicalize().context("the load client is not built: make bench")?)?;
    (0..arguments.runs).try_for_each(|_| scenarios::idle(&scene, &mut figures))?;
    scene.fill()?;
    for run in 1..=arguments.runs {
        eprintln!("run {run} of {}", arguments.runs);
        scenarios::all(&scene, &mut figures)?;
    }
    let mut scaling = Vec::new();
    if !arguments.short {
        scaling = scaling::curve(&scene)?;
        figures.note("memory_per_volume_kib", scaling::per_volume(&scaling)?);
        scenarios::unshared(&scene, &mut figures)?;
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
