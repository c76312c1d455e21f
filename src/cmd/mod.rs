//! The command line: one program with one subcommand for each role.
//!
//! Wires the modules together and contains no other logic. Flags with upstream's meaning have
//! upstream's names (docs/reference/csi-driver.md#flags).

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
    /// The provider alone, for another driver: serves the provider protocol on azure.sock.
    #[command(args_override_self = true, disable_version_flag = true)]
    Provider(Box<provider::Args>),
}

/// Runs the program with the arguments of the process.
///
/// # Errors
/// The role cannot start or fails later; the text is for the administrator.
pub fn run() -> anyhow::Result<()> {
    let command_line = goflags::translate(&Cli::command(), std::env::args_os());
    match Cli::parse_from(command_line.words).role {
        Role::Node(args) => node::run(*args, &command_line.unused),
        Role::Provider(args) => provider::run(*args, &command_line.unused),
    }
}
