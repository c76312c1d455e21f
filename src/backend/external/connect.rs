//! Finding a provider's socket and connecting to it, for one call.
//!
//! Looks again at each try, in upstream's order of directories
//! (docs/reference/csi-driver.md#provider-sockets), and takes the first socket on which somebody
//! accepts. One that is not there is an error at once; one on which nobody accepts, as while a
//! provider restarts, is waited for.

use std::error::Error as _;
use std::io;
use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, WouldBlock};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::error::Fault;
use super::socket::ProviderName;
use crate::server::grpc::channel;

/// How long is waited between two looks, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// How long a socket may be away that was there during this call: a provider that restarts makes it anew.
const AWAY: Duration = Duration::from_secs(10);

/// What one look found.
enum Look {
    Connected(Channel),
    Absent,
    /// Somebody may accept soon.
    Refused(PathBuf, io::Error),
    /// Waiting would not help.
    Impossible(PathBuf, io::Error),
}

/// A search for one call's provider.
pub(super) struct Search<'a> {
    pub(super) name: &'a ProviderName,
    pub(super) directories: &'a [PathBuf],
    /// When the caller must have an answer.
    pub(super) deadline: Instant,
    /// Whether its socket was seen during this call.
    pub(super) met: bool,
}

impl Search<'_> {
    /// Connects, and waits until that is possible.
    pub(super) async fn connect(&mut self) -> Result<Channel, Fault> {
        let began = Instant::now();
        let mut seen = began;
        let mut pause = PAUSES[0];
        loop {
            let fault = match self.look().await {
                Look::Connected(channel) => {
                    self.met = true;
                    return Ok(channel);
                }
                Look::Absent if !self.met || seen.elapsed() >= AWAY => return Err(self.absent()),
                Look::Absent => self.absent(),
                Look::Refused(socket, source) => {
                    (self.met, seen) = (true, Instant::now());
                    Fault::Unreachable { socket, source, waited: began.elapsed() }
                }
                Look::Impossible(socket, source) => {
                    return Err(Fault::Unreachable { socket, source, waited: began.elapsed() });
                }
            };
            if Instant::now() + pause >= self.deadline {
                return Err(fault);
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    async fn look(&self) -> Look {
        let mut seen = Look::Absent;
        for socket in self.name.sockets(self.directories) {
            let source = match channel(&socket).await {
                Ok(channel) => return Look::Connected(channel),
                Err(error) => cause(&error),
            };
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                continue;
            }
            // Nobody listens, or more wait than the provider lets.
            let look = match matches!(source.kind(), ConnectionRefused | ConnectionReset | WouldBlock) {
                true => Look::Refused(socket, source),
                false => Look::Impossible(socket, source),
            };
            // The first is the one that counts, as upstream has it.
            if let Look::Absent = seen {
                seen = look;
            }
        }
        seen
    }

    fn absent(&self) -> Fault {
        Fault::NotFound(self.name.sockets(self.directories))
    }
}

/// What the kernel said.
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
