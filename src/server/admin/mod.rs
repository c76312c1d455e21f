//! Plain HTTP for people and probes: `/metrics`, `/healthz`, `/readyz`.
//!
//! Says nothing secret and changes nothing; profiling is not served at all. `http` has the connections and their
//! limits, `health` and `page` the answers. Where a server listens is decided here and in the flags.

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

/// Every address of the host, as Go programs mean it by `:8095`: of both families, where there are both.
pub fn everywhere(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// Reads an address as Go programs take it: `:8095` means [everywhere]; `0` or nothing means none.
///
/// # Errors
/// The text is no address.
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

/// Binds a listener, naming the address in the error. [Everywhere](everywhere) is every IPv4 address where the kernel
/// has no IPv6.
///
/// # Errors
/// The address is in use or not of this host.
pub async fn bind(address: SocketAddr, what: &str) -> io::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address == everywhere(address.port()) && has_no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address} for {what}: {error}")))
}

/// Linux's number for a family of addresses that the kernel does not have; the standard library has no name for it.
const EAFNOSUPPORT: i32 = 97;

/// Whether the kernel was built, or told, to do without.
fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}
