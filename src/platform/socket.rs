//! Unix sockets that are private before they are bound.
//!
//! Does not speak any protocol. A stale socket file is replaced, a live one is refused.
//! The listeners go to `csi`.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How many connections may wait to be accepted. A kubelet that finds the queue full fails at once, so that it has to
/// hold what comes while others are accepted; the kernel takes less if net.core.somaxconn says so.
const BACKLOG: i32 = 1_024;

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on this path.
    #[error("another process is listening on {0}; stop it first (is a second one of this kind running on this node?)")]
    InUse(PathBuf),
    /// The path holds something that is not a socket.
    #[error("{0} exists and is not a socket; remove it, or choose another path")]
    NotASocket(PathBuf),
    /// The operating system refuses.
    #[error("cannot {doing} {path}: {error}")]
    Refused {
        /// What was tried.
        doing: &'static str,
        /// The socket's path.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The file of a socket that listens.
#[derive(Debug, Clone)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// Removes the file. To be called while the socket still listens: from then on another process may take the place,
    /// and its socket must not be removed. (An inode number would not tell: file systems give it out again at once.)
    pub fn remove(&self) {
        // Gone already, or the folder went read-only: the next start takes it for stale.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens on `path` with mode 0600 from the first moment on.
///
/// # Errors
/// [`SocketError`]: in use, not a socket, or refused by the system (the folder is missing, the path is too long).
pub fn listen_private(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    remove_stale(path)?;
    let refused = |doing| {
        let path = path.to_owned();
        move |error: rustix::io::Errno| SocketError::Refused { doing, path, error: error.into() }
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(refused("make a socket for"))?;
    // bind() gives the socket file the mode of the socket itself, less the umask: there is no moment at which
    // others could connect, and no process-wide umask to juggle.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(refused("make private the socket for"))?;
    let address = SocketAddrUnix::new(path).map_err(refused("use the path"))?;
    rustix::net::bind(&socket, &address).map_err(refused("bind"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(refused("listen on"))?;
    Ok((UnixListener::from(socket), SocketFile(path.to_owned())))
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let refused = |doing| move |error| SocketError::Refused { doing, path: path.to_owned(), error };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("look at")(error)),
    }
    match try_connect(path) {
        Ok(()) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(refused("remove the stale socket"))
        }
        Err(error) => Err(refused("try the socket")(error)),
    }
}

/// Whether somebody listens; does not wait for a listener that accepts nobody.
fn try_connect(path: &Path) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        // Its queue is full: there is a listener all the same.
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
