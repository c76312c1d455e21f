//! The CA certificates of the system, or of SSL_CERT_FILE and SSL_CERT_DIR.

use std::path::PathBuf;

use reqwest::Certificate;

use super::error::Error;
use crate::platform::fingerprint;

pub(super) struct CaBundle {
    pub(super) certificates: Vec<Certificate>,
    /// How many files or certificates could not be read.
    pub(super) faults: usize,
    pub(super) first_fault: Option<String>,
}

impl CaBundle {
    /// Reads all certificates that can be read.
    ///
    /// # Errors
    /// [`Error::Client`] if there is none.
    pub(super) fn read() -> Result<CaBundle, Error> {
        let loaded = rustls_native_certs::load_native_certs();
        let mut faults: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        let mut certificates = Vec::new();
        for der in &loaded.certs {
            match Certificate::from_der(der) {
                Ok(certificate) => certificates.push(certificate),
                Err(error) => faults.push(error.to_string()),
            }
        }
        let first_fault = faults.first().cloned();
        match (certificates.is_empty(), first_fault) {
            (true, None) => Err(Error::Client("no CA certificates were found".to_owned())),
            (true, Some(fault)) => Err(Error::Client(format!("no CA certificates were found ({fault})"))),
            (false, first_fault) => Ok(CaBundle { certificates, faults: faults.len(), first_fault }),
        }
    }

    /// The fingerprint of the files, from their metadata.
    pub(super) fn fingerprint() -> u64 {
        fingerprint::fingerprint(&paths())
    }
}

/// What the variables name, or else the system's paths.
fn paths() -> Vec<PathBuf> {
    let file = std::env::var_os(openssl_probe::ENV_CERT_FILE).map(PathBuf::from);
    let folders = std::env::var_os(openssl_probe::ENV_CERT_DIR).unwrap_or_default();
    let folders = std::env::split_paths(&folders).filter(|path| !path.as_os_str().is_empty());
    let named: Vec<PathBuf> = file.into_iter().chain(folders).collect();
    if !named.is_empty() {
        return named;
    }
    let system = openssl_probe::probe();
    system.cert_file.into_iter().chain(system.cert_dir).collect()
}
