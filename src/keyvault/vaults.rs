//! What the process holds for Azure: one HTTPS client, and what it has learned about vaults.
//!
//! Opens vaults without touching the network; holds no credential and no token. Control goes on to `vault`.

use std::fmt;

use tokio::time::Instant;

use super::challenge::Challenges;
use super::cloud::Cloud;
use super::error::Error;
use super::http::{self, Http};
use super::names::{TenantId, VaultName};
use super::retry::Limits;
use super::session::{Access, Credential};
use super::vault::Vault;

/// What the caller chooses.
#[derive(Debug, Clone)]
pub struct Options {
    /// What stands in the User-Agent header of every request; printable ASCII.
    pub user_agent: String,
}

/// The way to every vault. Built once per process and cheap to clone; all clones share one pool of connections.
#[derive(Clone)]
pub struct Vaults {
    http: Http,
    challenges: Challenges,
    limits: Limits,
}

impl Vaults {
    /// Builds the HTTPS client: TLS 1.2 or newer, the system's CA certificates or those of SSL_CERT_FILE and SSL_CERT_DIR, the
    /// proxy of HTTPS_PROXY and NO_PROXY. Certificates and variables are read here and never again.
    ///
    /// Makes rustls use ring, unless the process has chosen another provider before.
    ///
    /// # Errors
    /// [`Error::Client`], when there are no CA certificates or the user agent is not printable.
    pub fn new(options: Options) -> Result<Vaults, Error> {
        Vaults::with_client(http::builder(&options.user_agent), Limits::PRODUCT)
    }

    /// The same with a client and limits of the caller's choice.
    pub(super) fn with_client(client: reqwest::ClientBuilder, limits: Limits) -> Result<Vaults, Error> {
        Ok(Vaults { http: Http::new(client, limits.exchange)?, challenges: Challenges::default(), limits })
    }

    /// Opens a vault for one fetch, which ends at `deadline`. Nothing is sent before the first object is asked for.
    ///
    /// # Errors
    /// [`Error::Credential`], when the credential is incomplete.
    pub fn open(
        &self,
        cloud: &Cloud,
        name: &VaultName,
        tenant: &TenantId,
        credential: Credential,
        deadline: Instant,
    ) -> Result<Vault, Error> {
        let access = Access {
            http: self.http.clone(),
            challenges: self.challenges.clone(),
            limits: self.limits,
            cloud: cloud.clone(),
            host: name.host(cloud),
            tenant: tenant.clone(),
            credential,
            deadline,
        };
        // The first session makes its own; this one is to find fault with it.
        access.token_credential()?;
        Ok(Vault::new(access))
    }
}

impl fmt::Debug for Vaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vaults").field("limits", &self.limits).finish_non_exhaustive()
    }
}
