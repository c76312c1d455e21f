//! How drivers and providers of tests start: each with a folder, an address or ports of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use keyvault_csi_e2e::driver::{DriverSetup, Kernel};
use keyvault_csi_e2e::provider::ProviderSetup;

use super::{Harness, environment};

impl Harness {
    /// A driver in a folder of its own, with every log level on.
    pub(crate) fn setup(&self) -> DriverSetup {
        let number = self.next_number();
        let folder = self.folder.path().join(format!("n{number}"));
        fs::create_dir_all(&folder).unwrap();
        let mut setup = DriverSetup {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_keyvault-csi")),
            folder,
            address: format!("127.0.{}.{}", 1 + number / 250, 1 + number % 250),
            ca: self.ca.clone(),
            kubeconfig: None,
            node_id: "node-1".to_owned(),
            // A test that changes a value expects it in the next publish;
            // `sharing` tests the default.
            flags: vec!["-v=10".to_owned(), "--freshness-window=0s".to_owned()],
            environment: Vec::new(),
            kernel: Kernel::Present,
            largest_file: None,
            descriptors: None,
            kill_at: None,
        };
        if environment::has_kubelet_root() {
            setup.flags.push(kubelet_root_flag(&setup.kubelet_root()));
        }
        setup
    }

    /// The same with a folder for the files of custom clouds, as an administrator mounts one;
    /// returns the folder too.
    pub(crate) fn setup_with_clouds(&self) -> Result<(DriverSetup, PathBuf)> {
        let mut setup = self.setup();
        let clouds = setup.folder.join("clouds");
        fs::create_dir_all(&clouds)?;
        setup.flags.push(format!("--cloud-files-dir={}", clouds.display()));
        Ok((setup, clouds))
    }

    /// The release binary as the chart starts it; a debug build without `KEYVAULT_CSI_RELEASE`.
    pub(crate) fn release_setup(&self) -> DriverSetup {
        let mut setup = self.setup();
        if let Some(release) = std::env::var_os("KEYVAULT_CSI_RELEASE") {
            setup.binary = PathBuf::from(release);
        }
        setup.flags.clear();
        setup.environment.push(("MALLOC_ARENA_MAX".to_owned(), "2".to_owned()));
        setup
    }

    /// A provider in a folder of its own, with every log level on.
    pub(crate) fn provider_setup(&self) -> ProviderSetup {
        let number = self.next_number();
        let folder = self.folder.path().join(format!("p{number}"));
        fs::create_dir_all(&folder).unwrap();
        let port = |base| base + u16::try_from(number).unwrap();
        ProviderSetup {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_keyvault-csi")),
            providers: folder.join("providers"),
            folder,
            // Below the range of ephemeral ports.
            ports: [port(20_000), port(22_000)],
            ca: self.ca.clone(),
            flags: vec!["-v=10".to_owned(), "--freshness-window=0s".to_owned()],
            environment: Vec::new(),
        }
    }
}

pub(crate) fn kubelet_root_flag(root: &Path) -> String {
    format!("--kubelet-root={}", root.display())
}

/// The directories in which a driver of this setup looks for providers' sockets: the additional
/// one, then the main one.
pub(crate) fn provider_dirs(setup: &DriverSetup) -> [PathBuf; 2] {
    ["more", "providers"].map(|folder| setup.folder.join(folder))
}

/// Creates the provider directories, and the flags that make a driver look there.
pub(crate) fn set_provider_dirs(setup: &mut DriverSetup) -> Result<()> {
    let [additional, main] = provider_dirs(setup);
    for folder in [&additional, &main] {
        fs::create_dir_all(folder)?;
    }
    setup.flags.push(format!("--additional-provider-volume-paths={}", additional.display()));
    setup.flags.push(format!("--provider-volume={}", main.display()));
    Ok(())
}
