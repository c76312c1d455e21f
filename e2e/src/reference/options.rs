//! The options of the reference provider.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// The command line of the reference provider.
#[derive(Debug, Clone, Parser)]
#[command(about = "A provider for the Secrets Store CSI driver, for tests")]
pub struct Options {
    /// The socket that the driver calls: NAME.sock in one of its directories.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// The address of its control API, over HTTP.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub control: SocketAddr,
}
