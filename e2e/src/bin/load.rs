//! Load on a running driver, as a program that prints its figures as JSON:
//! `load --socket=… --root=… --count=200 --concurrency=32 …`.
//!
//! The classes `class-0`, `class-1`, … must exist, and their vaults must grant access to the
//! service principals of `--identities`.
#![allow(clippy::print_stdout)] // The program prints figures.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use keyvault_csi_e2e::load::Load;

/// Publishes volumes as a kubelet does, and prints how long the calls took.
#[derive(Debug, Parser)]
struct Arguments {
    /// The driver's CSI socket.
    #[arg(long)]
    socket: PathBuf,
    /// The kubelet's root directory.
    #[arg(long)]
    root: PathBuf,
    /// The prefix of the pods' names.
    #[arg(long, default_value = "web")]
    prefix: String,
    /// The number of pods, each with one volume.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// The number of the first pod.
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// The number of concurrent calls.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// The number of files that each volume must have.
    #[arg(long, default_value_t = 10)]
    objects: usize,
    /// The number of classes, which the pods use in turn.
    #[arg(long, default_value_t = 1)]
    classes: usize,
    /// The number of the first class.
    #[arg(long, default_value_t = 0)]
    first_class: usize,
    /// The number of service principals, which the pods use in turn.
    #[arg(long, default_value_t = 1)]
    identities: usize,
    /// The number of the first service principal.
    #[arg(long, default_value_t = 0)]
    first_identity: usize,
    /// The least time between the starts of two calls of one caller, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Unpublish the volumes instead of publishing them.
    #[arg(long)]
    unpublish: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let load = Load {
        socket: arguments.socket,
        root: arguments.root,
        prefix: arguments.prefix,
        first: arguments.first,
        count: arguments.count,
        concurrency: arguments.concurrency,
        objects: arguments.objects,
        classes: (arguments.classes, arguments.first_class),
        identities: (arguments.identities, arguments.first_identity),
        pause: Duration::from_millis(arguments.pause),
        unpublish: arguments.unpublish,
    };
    println!("{}", load.run()?.json());
    Ok(())
}
