//! The command line: one program, one subcommand a role.
//!
//! Knows every module and decides nothing but what is started with what. Flags have upstream's names where the
//! meaning is upstream's (docs/reference/csi-driver.md#flags).

mod azure;
mod descriptors;
mod goflags;
mod node;
mod process;
mod provider;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Azure Key Vault secrets, keys and certificates as files in Kubernetes pods.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The node driver: a CSI plugin that fills pods' volumes from Key Vault.
    #[command(args_override_self = true, disable_version_flag = true)]
    Node(Box<node::Args>),
    /// The provider alone, under another driver: serves the provider protocol on azure.sock.
    #[command(args_override_self = true, disable_version_flag = true)]
    Provider(Box<provider::Args>),
}

/// Runs the program with the process's own arguments.
///
/// # Errors
/// What kept the role from starting or going on, made for the person who started it.
pub fn run() -> anyhow::Result<()> {
    let translated = goflags::translate(&Cli::command(), std::env::args_os());
    match Cli::parse_from(translated.words).role {
        Role::Node(args) => node::run(*args, &translated.unused),
        Role::Provider(args) => provider::run(*args, &translated.unused),
    }
}
