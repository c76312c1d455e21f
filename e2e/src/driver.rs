//! The built binary as a process: started with folders of its own, watched until it is ready, ended by its id.
//!
//! Nothing here links to the product; what it prints goes to a file that tests read.
//! `kubelet` talks to it.

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

/// How long an answer of HTTP may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to start a driver.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The built `keyvault-csi`.
    pub binary: PathBuf,
    /// A folder of its own; `csi.sock`, `registry/`, `manifests/`, `kubelet/` and `node.log` appear in it.
    pub folder: PathBuf,
    /// An address of the loopback interface of its own, for metrics and health.
    pub address: String,
    /// The CA that it trusts.
    pub ca: PathBuf,
    /// The kubeconfig to take classes from the API with, instead of `manifests/`.
    pub kubeconfig: Option<PathBuf>,
    /// The node's name.
    pub node_id: String,
    /// More flags.
    pub flags: Vec<String>,
    /// More variables.
    pub environment: Vec<(String, String)>,
    /// What it takes the kernel for.
    pub kernel: Kernel,
    /// The largest file that it may write, in bytes.
    pub largest_file: Option<u64>,
    /// How many descriptors it may have open: as it starts, and at most.
    pub descriptors: Option<[u64; 2]>,
    /// Have the kernel kill it when it is about to make such a call for the first time.
    pub killed_at: Option<Call>,
}

/// A kernel, by what the driver may find missing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// The one that runs.
    #[default]
    Present,
    /// No mount API but mount(2), as before Linux 5.2.
    WithoutMountApi,
    /// No flag among the options of a tmpfs, as before Linux 6.4, which brought the first: `noswap`.
    WithoutNoswap,
}

/// A system call, told from others of its kind by one argument.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The call's number.
    pub number: i64,
    /// Which argument, counted from 0, which of its bits count, and what they are.
    pub argument: Option<(u8, u64, u64)>,
}

/// A running driver. Dropping it kills it.
#[derive(Debug)]
pub struct DriverProcess {
    process: Process,
    setup: Setup,
    /// From the start of the process until its socket answered.
    pub started_in: Duration,
}

impl Setup {
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

    /// The folder of the class manifests.
    pub fn manifests(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    /// The file that the driver's output goes to.
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
        restrict(&mut command, filter(self.kernel, self.killed_at), self.largest_file, self.descriptors);
        command
    }

    /// Makes the folders, starts the driver, and waits until its socket and its registration are there.
    ///
    /// # Errors
    /// It ends, or is not there in time; the text has what it printed.
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
    /// How it was started.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it as Kubernetes does, with SIGTERM, and waits.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn terminate(self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits until it has ended by itself, and returns how to start it again in the same folders, and how it ended.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn ended(mut self) -> Result<(Setup, ExitStatus)> {
        let status = self.process.ended("by itself")?;
        Ok((self.setup.clone(), status))
    }

    /// Kills it at once, and returns how to start it again in the same folders.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(self) -> Result<Setup> {
        self.process.kill()?;
        Ok(self.setup)
    }

    /// Its resident memory in KiB.
    ///
    /// # Errors
    /// It is gone.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// GETs a path from its metrics address: status code and body.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub fn metrics(&self) -> Result<String> {
        let (status, body) = http_get(&format!("{}:8095", self.setup.address), "/metrics")?;
        if status != 200 {
            bail!("/metrics answers {status}");
        }
        Ok(body)
    }

    /// GETs a path from its health address: status code and body.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        http_get(&format!("{}:9808", self.setup.address), path)
    }
}

#[allow(unsafe_code)] // The only way to set a system-call filter and limits for a child alone.
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
        // SAFETY: the closure makes system calls only, and allocates at most for an error.
        unsafe { command.pre_exec(restrict) };
    }
}

/// The system-call filter for what is asked for: fsopen(2) does not exist, fsconfig(2) knows no flags, or a call is
/// the last one.
fn filter(kernel: Kernel, killed_at: Option<Call>) -> Option<BpfProgram> {
    const SET_FLAG: u64 = 0;
    let fails = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let (call, action) = match (kernel, killed_at) {
        (_, Some(call)) => (call, SeccompAction::KillProcess),
        (Kernel::WithoutMountApi, None) => (Call { number: libc::SYS_fsopen, argument: None }, fails(libc::ENOSYS)),
        (Kernel::WithoutNoswap, None) => {
            let argument = Some((1, u64::from(u32::MAX), SET_FLAG));
            (Call { number: libc::SYS_fsconfig, argument }, fails(libc::EINVAL))
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
    // A filter of one rule compiles, or no test with it can run.
    #[allow(clippy::expect_used)]
    Some(filter.expect("a filter of one rule compiles"))
}

/// One HTTP/1.1 GET.
///
/// # Errors
/// No connection, or no HTTP.
pub fn http_get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}

/// Waits until `condition` holds.
///
/// # Errors
/// It does not hold within `patience`; `what` names it.
pub fn wait_for(what: &str, patience: Duration, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_between(what, patience, PAUSE, condition)
}

/// The same for a condition that costs something to look at, with such a pause between two looks.
///
/// # Errors
/// It does not hold within `patience`; `what` names it.
pub fn wait_between(
    what: &str,
    patience: Duration,
    pause: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    while !condition()? {
        if began.elapsed() > patience {
            bail!("{what}: not within {patience:?}");
        }
        std::thread::park_timeout(pause);
    }
    Ok(())
}

/// The folder as a path that fits a Unix socket's name.
pub fn short_folder() -> Result<tempfile::TempDir> {
    let base = Path::new("/tmp");
    Ok(tempfile::Builder::new().prefix("kv").rand_bytes(4).tempdir_in(base)?)
}
