//! A private network and mount namespace, in which Azure's real host names resolve to loopback.
//!
//! Needs root, or a system that allows unprivileged user namespaces. Starts no thread and no
//! process; the caller starts the emulator on port 443 and then the driver.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Moves this process, which must have a single thread, into its own network and mount namespaces.
///
/// `hosts` and `resolv_conf` become `/etc/hosts` and `/etc/resolv.conf`; the files are in `folder`
/// and must stay there. Without root, it creates a user namespace in which the caller is root.
///
/// # Errors
/// The system does not allow namespaces; the text has the fix.
pub fn enter(folder: &Path, hosts: &str, resolv_conf: &str) -> Result<()> {
    let both = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if !uid.is_root() || unshare(both).is_err() {
        unshare(both | CloneFlags::CLONE_NEWUSER).context(
            "cannot make namespaces: run as root, or allow unprivileged user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0)",
        )?;
        fs::write("/proc/self/setgroups", "deny").context("cannot write setgroups")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("cannot map the user")?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("cannot map the group")?;
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make the mounts private")?;
    for (name, text) in [("hosts", hosts), ("resolv.conf", resolv_conf)] {
        let file = folder.join(name);
        fs::write(&file, text)?;
        let over = Path::new("/etc").join(name);
        // systemd-resolved makes it a link; a mount needs the file that the link points to.
        let over = fs::canonicalize(&over).unwrap_or(over);
        mount(Some(&file), &over, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("cannot put {} over {}", file.display(), over.display()))?;
    }
    loopback_up().context("cannot bring the loopback interface up")?;
    loopback_address(METADATA).context("cannot give the loopback interface the address of the metadata service")
}

/// The address of the metadata service on Azure's virtual machines.
const METADATA: [u8; 4] = [169, 254, 169, 254];

#[allow(unsafe_code)] // There is no safe call for an interface's addresses, and `ip` is not on every machine.
fn loopback_address(address: [u8; 4]) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    nix::ioctl_write_ptr_bad!(set_interface_address, libc::SIOCSIFADDR, libc::ifreq);
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an ifreq of zeros is valid, an Internet address fits into its union, and the kernel
    // reads it during the call only.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo:1\0") {
            *to = *from as libc::c_char;
        }
        let mut internet: libc::sockaddr_in = std::mem::zeroed();
        internet.sin_family = libc::AF_INET as libc::sa_family_t;
        internet.sin_addr.s_addr = u32::from_ne_bytes(address);
        request.ifr_ifru.ifru_addr = std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(internet);
        set_interface_address(socket.as_raw_fd(), &request)?;
    }
    Ok(())
}

/// A hosts file that resolves these names to 127.0.0.1.
pub fn hosts_file<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().fold("127.0.0.1 localhost\n".to_owned(), |file, name| file + "127.0.0.1 " + name + "\n")
}

#[allow(unsafe_code)] // There is no safe call for the flags of an interface, and `ip` is not on every machine.
fn loopback_up() -> Result<()> {
    use std::os::fd::AsRawFd as _;
    nix::ioctl_write_ptr_bad!(set_interface_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an ifreq of zeros is valid, and the kernel reads it during the call only.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        set_interface_flags(socket.as_raw_fd(), &request)?;
    }
    Ok(())
}
