//! Plain HTTP for probes and Prometheus: `/metrics`, `/healthz`, `/readyz`.
//!
//! Serves no secret, changes nothing, and has no profiling endpoints. `http` has the connections
//! and their limits, `health` and `page` the responses.

mod accept;
mod health;
mod http;
mod page;
mod shared_check;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

pub use health::{Ready, serve_health, serve_health_at};
pub use page::serve_metrics;
pub use shared_check::{Check, Checked};

/// Every address of the host, as Go programs mean it by `:8095`: IPv6 and IPv4, where the host has
/// both.
pub fn everywhere(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// Parses an address as Go programs do: `:8095` means [everywhere]; `0` and the empty text mean
/// none.
///
/// # Errors
/// The text is not an address.
pub fn parse_address(text: &str) -> Result<Option<SocketAddr>, String> {
    let all = |port: &str| port.parse().map(everywhere).ok();
    match text {
        "" | "0" => Ok(None),
        _ => match text.strip_prefix(':') {
            Some(port) => all(port),
            None => text.parse().ok(),
        }
        .map(Some)
        .ok_or_else(|| "must be ADDRESS:PORT, :PORT for every address, or 0 for none".to_owned()),
    }
}

/// Binds a listener; an error names the address. [Everywhere](everywhere) is every IPv4 address if
/// the kernel has no IPv6.
///
/// # Errors
/// The address is in use, or does not belong to this host.
pub async fn bind(address: SocketAddr, what: &str) -> io::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address == everywhere(address.port()) && has_no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address} for {what}: {error}")))
}

/// Linux's number for an address family that the kernel lacks; the standard library has no name for
/// it.
const EAFNOSUPPORT: i32 = 97;

/// Whether IPv6 is compiled out of the kernel or disabled.
fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}
