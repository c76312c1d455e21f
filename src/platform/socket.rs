//! Unix sockets that are private before they are bound.
//!
//! Replaces a stale socket file, and refuses to replace a live one. Implements no protocol.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How many connections may wait to be accepted. A kubelet fails at once if the queue is full, so
/// it must hold a burst. The kernel caps the value at net.core.somaxconn.
const BACKLOG: i32 = 1_024;

/// Why the program cannot listen on a socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A process accepts connections on this path.
    #[error("another process is listening on {0}; stop it first (does a second driver or provider run on this node?)")]
    InUse(PathBuf),
    /// The path is not a socket.
    #[error("{0} exists and is not a socket; remove it, or choose another path")]
    NotASocket(PathBuf),
    /// The operating system refuses.
    #[error("cannot {doing} {path}: {error}")]
    Refused {
        /// The failed step.
        doing: &'static str,
        /// The socket's path.
        path: PathBuf,
        /// The kernel's error.
        error: io::Error,
    },
}

/// The file of a listening socket.
#[derive(Debug, Clone)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// Removes the file. Must be called while the socket still listens: later, another process may
    /// have created its own socket here, which must stay. (Comparing inode numbers does not protect
    /// it: file systems reuse them at once.)
    pub fn remove(&self) {
        // Fails if the file is gone or the folder is read-only; the next start replaces a stale
        // file.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens on `path`, whose mode is 0600 from the first moment on.
///
/// # Errors
/// The path is in use or not a socket, or the system refuses (the folder is missing, the path is
/// too long).
pub fn listen_private(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    remove_stale(path)?;
    let refused = |doing| {
        let path = path.to_owned();
        move |error: rustix::io::Errno| SocketError::Refused { doing, path, error: error.into() }
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(refused("create a socket for"))?;
    // bind() gives the file the socket's mode, less the umask: other users can connect at no
    // moment, and the process-wide umask does not change.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(refused("set the mode of the socket for"))?;
    let address = SocketAddrUnix::new(path).map_err(refused("use the socket path"))?;
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
        Err(error) => return Err(refused("inspect")(error)),
    }
    match try_connect(path) {
        Ok(()) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(refused("remove the stale socket"))
        }
        Err(error) => Err(refused("connect to the socket")(error)),
    }
}

/// Fails unless a process listens; does not wait for it to accept.
fn try_connect(path: &Path) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        // The queue of a listener is full.
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
