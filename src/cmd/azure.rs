//! The flags of the Azure provider, which all roles that fetch share, and the provider that they
//! configure.
//!
//! Flags with upstream's meaning have upstream's names and defaults
//! (docs/reference/azure-provider.md#flags).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args as ClapArgs};

use super::descriptors::Descriptors;
use super::process::user_agent;
use crate::azure::keyvault::{
    CLOUD_FILE_VARIABLE, CloudFiles, ConnectionLimits, Options, Rate, TokenProxyOptions, Vaults,
};
use crate::azure::provider::{Azure, DefaultCloud, Rendering};
use crate::compute::Compute;
use crate::formats::duration;
use crate::model::FileMode;
use crate::server::metrics::FetchMetrics;

/// Requests to one vault after a pause (docs/decisions.md#d7).
const BURST: u32 = 64;

/// Flags of the Azure provider.
#[derive(Debug, ClapArgs)]
pub(super) struct AzureArgs {
    /// Cloud of classes that do not name one.
    #[arg(long, default_value = "AzurePublicCloud")]
    cloud_name: String,
    /// File with the addresses of AzureStackCloud, for classes that do not name a file; default:
    /// the file in AZURE_ENVIRONMENT_FILEPATH.
    #[arg(long, value_name = "FILE")]
    cloud_file: Option<PathBuf>,
    /// Folder with files of addresses of AzureStackCloud; a class selects one of them with
    /// cloudEnvFileName.
    #[arg(long, value_name = "FOLDER")]
    cloud_files_dir: Option<PathBuf>,
    /// URL of the AKS token proxy for identity bindings; if empty, the cluster's API server.
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    token_proxy_url: String,
    /// TLS server name of the AKS token proxy; if empty, the name in the API server's certificate.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    sni_name: String,
    /// CA certificate of the cluster, for the AKS token proxy.
    #[arg(long, value_name = "FILE", default_value = TokenProxyOptions::CA_FILE)]
    token_proxy_ca_file: PathBuf,
    /// How long a fetched object serves other pods with the same identity; 0 disables sharing.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration::parse)]
    freshness_window: Duration,
    /// Limit of requests per second from this node to one vault; 0 means unlimited.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    vault_requests_per_second: u32,
    /// Text to append to the User-Agent of all requests to Azure.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = parse_user_agent)]
    custom_user_agent: String,
    /// Sort the certificates of a PKCS#12 secret, starting with the server's.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    construct_pem_chain: bool,
    /// Also write the certificate and the key of a certificate's secret to separate files, .crt and
    /// .key.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    write_cert_and_key_in_separate_files: bool,
}

impl AzureArgs {
    /// The file in the flag, else in the environment; an empty variable counts as unset.
    fn cloud_file(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(CLOUD_FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        self.cloud_file.clone().or_else(variable)
    }

    /// The folder in the flag; an empty path counts as unset.
    fn cloud_files_dir(&self) -> anyhow::Result<Option<PathBuf>> {
        let folder = self.cloud_files_dir.clone().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_dir()) {
            anyhow::bail!("--cloud-files-dir {folder:?} is not a folder");
        }
        Ok(folder)
    }

    /// The configured provider.
    ///
    /// # Errors
    /// An invalid flag, by name.
    pub(super) fn provider(
        &self,
        metrics: &FetchMetrics,
        compute: &Compute,
        descriptors: Descriptors,
    ) -> anyhow::Result<Azure> {
        let files = CloudFiles { folder: self.cloud_files_dir()?, file: self.cloud_file() };
        let cloud = DefaultCloud::new(&self.cloud_name, files)
            .with_context(|| format!("--cloud-name {:?}", self.cloud_name))?;
        let rendering = Rendering {
            construct_pem_chain: self.construct_pem_chain,
            separate_files: self.write_cert_and_key_in_separate_files,
            default_mode: FileMode::DEFAULT,
        };
        let proxy = TokenProxyOptions::new(&self.token_proxy_url, &self.sni_name, self.token_proxy_ca_file.clone())?;
        let rate = Rate { per_second: self.vault_requests_per_second, burst: BURST };
        let freshness = self.freshness_window;
        let user_agent = format!("{} {}", user_agent(), self.custom_user_agent).trim_end().to_owned();
        let connections = ConnectionLimits { fetches: descriptors.fetches, idle: descriptors.idle };
        let (metrics, compute) = (metrics.clone(), compute.clone());
        let options =
            Options { user_agent, token_proxy: proxy, freshness, rate, connections, metrics, compute: compute.clone() };
        Ok(Azure::new(Vaults::new(options)?, cloud, rendering, compute))
    }
}

fn parse_user_agent(text: &str) -> Result<String, String> {
    match text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("must be printable ASCII".to_owned()),
    }
}
