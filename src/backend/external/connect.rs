//! Finds a provider's socket and connects to it, for one call.
//!
//! Each try searches the directories in upstream's order
//! (docs/reference/csi-driver.md#provider-sockets), and connects to the first socket that accepts.
//! A missing socket is an error at once; one that refuses connections, as while a provider
//! restarts, is tried until the deadline.

use std::error::Error as _;
use std::io;
use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, WouldBlock};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::error::ProviderFault;
use super::socket::ProviderName;
use crate::queue::backoff::Backoff;
use crate::server::grpc::channel;

/// The pause between two tries, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// How long a socket that existed during this call may be missing: a provider that restarts creates
/// it again.
const ABSENT: Duration = Duration::from_secs(10);

/// The result of one try.
enum ConnectAttempt {
    Connected(Channel),
    Absent,
    /// The socket refuses connections for the moment.
    Refused(PathBuf, io::Error),
    /// A retry would not help.
    Impossible(PathBuf, io::Error),
}

/// A search for one call's provider.
pub(super) struct Search<'a> {
    pub(super) name: &'a ProviderName,
    pub(super) directories: &'a [PathBuf],
    pub(super) deadline: Instant,
    /// Whether the socket existed during this call.
    pub(super) discovered: bool,
}

impl Search<'_> {
    /// Connects, and retries until the deadline.
    pub(super) async fn connect(&mut self) -> Result<Channel, ProviderFault> {
        let began = Instant::now();
        let mut seen = began;
        let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
        loop {
            let fault = match self.attempt().await {
                ConnectAttempt::Connected(channel) => {
                    self.discovered = true;
                    return Ok(channel);
                }
                ConnectAttempt::Absent if !self.discovered || seen.elapsed() >= ABSENT => return Err(self.absent()),
                ConnectAttempt::Absent => self.absent(),
                ConnectAttempt::Refused(socket, source) => {
                    (self.discovered, seen) = (true, Instant::now());
                    ProviderFault::Unreachable { socket, source, waited: began.elapsed() }
                }
                ConnectAttempt::Impossible(socket, source) => {
                    return Err(ProviderFault::Unreachable { socket, source, waited: began.elapsed() });
                }
            };
            let pause = backoff.next_exact();
            if Instant::now() + pause >= self.deadline {
                return Err(fault);
            }
            sleep(pause).await;
        }
    }

    async fn attempt(&self) -> ConnectAttempt {
        let mut seen = ConnectAttempt::Absent;
        for socket in self.name.sockets(self.directories) {
            let source = match channel(&socket).await {
                Ok(channel) => return ConnectAttempt::Connected(channel),
                Err(error) => cause(&error),
            };
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                continue;
            }
            // No process listens, or the backlog is full.
            let failed = match matches!(source.kind(), ConnectionRefused | ConnectionReset | WouldBlock) {
                true => ConnectAttempt::Refused(socket, source),
                false => ConnectAttempt::Impossible(socket, source),
            };
            // The first socket counts, as in upstream.
            if let ConnectAttempt::Absent = seen {
                seen = failed;
            }
        }
        seen
    }

    fn absent(&self) -> ProviderFault {
        ProviderFault::NotFound(self.name.sockets(self.directories))
    }
}

/// The kernel's error.
fn cause(error: &tonic::transport::Error) -> io::Error {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref::<io::Error>() {
            return match found.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(found.kind(), found.to_string()),
            };
        }
        source = inner.source();
    }
    io::Error::other(error.to_string())
}
