//! The built binary as a node driver: a process with its own directories, on loopback.
//!
//! Its output goes to a file that tests read. Calls to it are in `kubelet`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::process::{PAUSE, Process};

/// The read timeout of HTTP requests.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// The binary, directories, flags and restrictions of a driver process.
#[derive(Debug, Clone)]
pub struct DriverSetup {
    /// The built `keyvault-csi`.
    pub binary: PathBuf,
    /// A directory for this driver; `csi.sock`, `registry/`, `manifests/`, `kubelet/` and
    /// `node.log` are created in it.
    pub folder: PathBuf,
    /// A loopback address for this driver, for metrics and health.
    pub address: String,
    /// The CA bundle that it trusts.
    pub ca: PathBuf,
    /// The kubeconfig to read classes from the API server with; without it, they are in
    /// `manifests/`.
    pub kubeconfig: Option<PathBuf>,
    /// The node's name.
    pub node_id: String,
    /// Additional flags.
    pub flags: Vec<String>,
    /// Additional environment variables.
    pub environment: Vec<(String, String)>,
    /// The kernel features that it finds.
    pub kernel: Kernel,
    /// The largest file that it can write, in bytes.
    pub largest_file: Option<u64>,
    /// The soft and the hard limit of open descriptors.
    pub descriptors: Option<[u64; 2]>,
    /// The kernel kills the process instead of executing this system call.
    pub kill_at: Option<SystemCall>,
}

/// A kernel, by the features that it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// The running kernel.
    #[default]
    Present,
    /// Only mount(2) and no newer mount API, as before Linux 5.2.
    WithoutMountApi,
    /// No flag options of tmpfs, as before Linux 6.4, which added the first one: `noswap`.
    WithoutNoswap,
}

/// A system call, identified by its number and one argument.
#[derive(Debug, Clone, Copy)]
pub struct SystemCall {
    /// The number of the call.
    pub number: i64,
    /// The index of an argument, a mask for it, and its masked value.
    pub argument: Option<(u8, u64, u64)>,
}

/// A running driver. Dropping it kills it.
#[derive(Debug)]
pub struct DriverProcess {
    process: Process,
    setup: DriverSetup,
    /// The time from the start of the process until its sockets accepted connections.
    pub started_in: Duration,
}

impl DriverSetup {
    /// The CSI socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("csi.sock")
    }

    /// The registration socket.
    pub fn registration_socket(&self) -> PathBuf {
        self.folder.join("registry/secrets-store.csi.k8s.io-reg.sock")
    }

    /// The kubelet's root directory.
    pub fn kubelet_root(&self) -> PathBuf {
        self.folder.join("kubelet")
    }

    /// The directory of the class manifests.
    pub fn manifests(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    /// The file with the driver's output.
    pub fn log(&self) -> PathBuf {
        self.folder.join("node.log")
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("node")
            .arg(format!("--endpoint=unix://{}", self.socket().display()))
            .arg(format!("--nodeid={}", self.node_id))
            .arg(format!("--registration-dir={}", self.folder.join("registry").display()))
            .arg("--kubelet-registration-path=/var/lib/kubelet/plugins/csi-secrets-store/csi.sock")
            .arg(match &self.kubeconfig {
                Some(file) => format!("--kubeconfig={}", file.display()),
                None => format!("--manifests={}", self.manifests().display()),
            })
            .arg(format!("--metrics-addr={}:8095", self.address))
            .arg(format!("--health-addr={}:9808", self.address))
            .args(&self.flags)
            .env_clear()
            .env("SSL_CERT_FILE", &self.ca)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null());
        restrict(&mut command, filter(self.kernel, self.kill_at), self.largest_file, self.descriptors);
        command
    }

    /// Creates the directories, starts the driver, and waits until it accepts connections on both
    /// sockets.
    ///
    /// # Errors
    /// It exits, or is not ready in time; the text has its output.
    pub fn start(self) -> Result<DriverProcess> {
        for folder in [self.folder.join("registry"), self.manifests(), self.kubelet_root()] {
            fs::create_dir_all(folder)?;
        }
        let sockets = [self.socket(), self.registration_socket()];
        let ready = || sockets.iter().all(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok());
        let (process, started_in) = Process::start(self.command(), &self.log(), ready)?;
        Ok(DriverProcess { process, setup: self, started_in })
    }
}

impl DriverProcess {
    /// The setup that it was started with.
    pub fn setup(&self) -> &DriverSetup {
        &self.setup
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Stops it with SIGTERM, as the kubelet does, and waits for its exit.
    ///
    /// # Errors
    /// It does not exit in time.
    pub fn terminate(self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has exited.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for an exit without sending a signal; returns the setup, with which it can be started
    /// again, and the status.
    ///
    /// # Errors
    /// It does not exit in time.
    pub fn wait_for_exit(mut self) -> Result<(DriverSetup, ExitStatus)> {
        let status = self.process.wait_for_exit("on its own")?;
        Ok((self.setup.clone(), status))
    }

    /// Kills it, and returns the setup, with which it can be started again.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(self) -> Result<DriverSetup> {
        self.process.kill()?;
        Ok(self.setup)
    }

    /// Its resident memory in KiB.
    ///
    /// # Errors
    /// It has exited.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// The body of `/metrics`.
    ///
    /// # Errors
    /// No connection, no HTTP, or not status 200.
    pub fn metrics(&self) -> Result<String> {
        let (status, body) = http_get(&format!("{}:8095", self.setup.address), "/metrics")?;
        if status != 200 {
            bail!("/metrics responds with {status}");
        }
        Ok(body)
    }

    /// Status code and body of a path on its health address.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        http_get(&format!("{}:9808", self.setup.address), path)
    }
}

#[allow(unsafe_code)] // The only way to set a system call filter and limits for a child only.
fn restrict(
    command: &mut Command,
    filter: Option<BpfProgram>,
    largest_file: Option<u64>,
    descriptors: Option<[u64; 2]>,
) {
    use std::os::unix::process::CommandExt as _;
    let restricted = filter.is_some() || largest_file.is_some() || descriptors.is_some();
    let restrict = move || {
        if let Some(bytes) = largest_file {
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, bytes, bytes)?;
            // SAFETY: ignoring a signal installs no handler.
            unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }?;
        }
        if let Some([soft, hard]) = descriptors {
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        if let Some(filter) = &filter {
            seccompiler::apply_filter(filter).map_err(std::io::Error::other)?;
        }
        Ok(())
    };
    if restricted {
        // SAFETY: the closure makes system calls only, and allocates only for an error.
        unsafe { command.pre_exec(restrict) };
    }
}

/// The system call filter: fsopen(2) does not exist, fsconfig(2) refuses flags, or a call kills the
/// process.
fn filter(kernel: Kernel, kill_at: Option<SystemCall>) -> Option<BpfProgram> {
    const SET_FLAG: u64 = 0;
    let fail_with = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let (call, action) = match (kernel, kill_at) {
        (_, Some(call)) => (call, SeccompAction::KillProcess),
        (Kernel::WithoutMountApi, None) => {
            (SystemCall { number: libc::SYS_fsopen, argument: None }, fail_with(libc::ENOSYS))
        }
        (Kernel::WithoutNoswap, None) => {
            let argument = Some((1, u64::from(u32::MAX), SET_FLAG));
            (SystemCall { number: libc::SYS_fsconfig, argument }, fail_with(libc::EINVAL))
        }
        (Kernel::Present, None) => return None,
    };
    let condition = |(index, mask, value)| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
    };
    let rule = call.argument.map(|argument| SeccompRule::new(vec![condition(argument)?])).transpose();
    let filter = rule.and_then(|rule| {
        let rules = [(call.number, rule.into_iter().collect())].into();
        SeccompFilter::new(rules, SeccompAction::Allow, action, std::env::consts::ARCH.try_into()?)?.try_into()
    });
    // A test with a filter that does not compile cannot run.
    #[allow(clippy::expect_used)]
    Some(filter.expect("a filter of one rule compiles"))
}

/// One HTTP/1.1 GET.
///
/// # Errors
/// No connection, or no HTTP.
pub fn http_get(address: &str, path: &str) -> Result<(u16, String)> {
    let response = http(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))?;
    let (head, body) = response.split_once("\r\n\r\n").context("no HTTP response")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}

/// Sends an HTTP request, and returns the whole response.
///
/// # Errors
/// No connection, or no response until the server closes it.
pub fn http(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

/// Waits until `condition` holds.
///
/// # Errors
/// It does not hold within `timeout`; `what` names it.
pub fn wait_for(what: &str, timeout: Duration, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_at_interval(what, timeout, PAUSE, condition)
}

/// Waits until `condition`, which is expensive to check, holds; pauses between two checks.
///
/// # Errors
/// It does not hold within `timeout`; `what` names it.
pub fn wait_at_interval(
    what: &str,
    timeout: Duration,
    pause: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    while !condition()? {
        if began.elapsed() > timeout {
            bail!("{what}: not within {timeout:?}");
        }
        std::thread::park_timeout(pause);
    }
    Ok(())
}

/// A temporary directory whose path is short enough for the address of a Unix socket.
pub fn short_folder() -> Result<tempfile::TempDir> {
    let base = Path::new("/tmp");
    Ok(tempfile::Builder::new().prefix("kv").rand_bytes(4).tempdir_in(base)?)
}
