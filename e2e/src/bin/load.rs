//! Load for a running driver, as a program: `load --socket=… --root=… --count=200 --concurrency=32 …` prints figures as JSON.
//!
//! The classes `class-0`, `class-1`, … must be there, and their vaults know the service principals of `--identities`.
#![allow(clippy::print_stdout)] // The figures are what it is for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use keyvault_csi_e2e::load::Load;

/// Publishes volumes as a kubelet does, and tells how long that took.
#[derive(Debug, Parser)]
struct Arguments {
    /// The driver's CSI socket.
    #[arg(long)]
    socket: PathBuf,
    /// The kubelet's root directory.
    #[arg(long)]
    root: PathBuf,
    /// What pods' names begin with.
    #[arg(long, default_value = "web")]
    prefix: String,
    /// How many pods with one volume each.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// The number of the first pod.
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// How many calls at a time.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// How many files each volume must have.
    #[arg(long, default_value_t = 10)]
    objects: usize,
    /// How many classes the pods take in turn.
    #[arg(long, default_value_t = 1)]
    classes: usize,
    /// The number of the first class.
    #[arg(long, default_value_t = 0)]
    first_class: usize,
    /// How many service principals the pods take in turn.
    #[arg(long, default_value_t = 1)]
    identities: usize,
    /// The number of the first service principal.
    #[arg(long, default_value_t = 0)]
    first_identity: usize,
    /// How many milliseconds lie at least between the starts of two calls of one caller.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Unpublish the volumes instead.
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
