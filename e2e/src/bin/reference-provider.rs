//! The reference provider as a program, for clusters.

use anyhow::Result;
use clap::Parser as _;
use keyvault_csi_e2e::reference::{self, Options};

fn main() -> Result<()> {
    reference::run(&Options::parse())
}
