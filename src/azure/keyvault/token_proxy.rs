//! The token proxy of AKS identity binding, in front of Entra ID
//! (docs/reference/azure-provider.md#identity-binding).
//!
//! Finds the proxy's name in the API server's certificate unless a flag gives it, and keeps a
//! client that trusts the cluster's CA. Neither builds token requests nor sends them: `transport`
//! does.
//!
//! # Guarantees
//! Nothing is sent before the first token request, a failure is not cached, and the CA file is read
//! for each token. A CA file that is temporarily empty or damaged changes nothing.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Certificate;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, OnceCell};
use tracing::{info, warn};
use url::{Host, Url};

use super::client::{self, build};
use super::endpoint::{Endpoint, Service};
use super::error::Error;
use super::http::{Http, MAX_SMALL_RESPONSE};
use super::reloading_client::ReloadingClient;
use super::resolve::{FixedResolver, Resolver};
use crate::formats::certificate::ParsedCertificate;
use crate::platform::dir::read_ordinary_file;

/// The API server's name in a cluster.
const API_SERVER: &str = "kubernetes.default.svc.cluster.local";
/// Its host and port in the environment of each container.
const API_SERVER_VARIABLES: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT");
/// Prefix and suffix of the API server's name with the cluster's id.
const CLUSTER: (&str, &str) = ("hcp-kubernetes.", ".svc.cluster.local");
/// The largest CA file.
const MAX_CA_FILE: u64 = 1 << 20;
/// The digits of base 32 with the extended hexadecimal alphabet, in lower case.
const BASE32_HEX: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Address, name and CA of the token proxy.
#[derive(Debug, Clone)]
pub struct TokenProxyOptions {
    url: Url,
    sni_name: Option<String>,
    ca_file: PathBuf,
}

/// Why options of the token proxy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenProxyError {
    /// The address cannot be used.
    #[error("--token-proxy-url {0}; give one like https://{API_SERVER}")]
    Url(&'static str),
    /// The name is not a host name.
    #[error("--sni-name is not a host name; give one like aeaf…j78g.ests.aks")]
    Name,
}

impl TokenProxyOptions {
    /// The CA file in each container that has a service account token.
    pub const CA_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

    /// From the driver's flags. An empty `url` is the API server's, an empty `sni_name` the name
    /// for its certificate.
    ///
    /// # Errors
    /// An address that is not https, or has a user, a query or a fragment; a name that is not a
    /// host name.
    pub fn new(url: &str, sni_name: &str, ca_file: PathBuf) -> Result<TokenProxyOptions, TokenProxyError> {
        let text = if url.is_empty() { format!("https://{API_SERVER}") } else { url.to_owned() };
        let url = Url::parse(&text).map_err(|_| TokenProxyError::Url("is not a URL"))?;
        if url.scheme() != "https" {
            return Err(TokenProxyError::Url("does not start with https://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(TokenProxyError::Url("must not have a user, a query or a fragment"));
        }
        let label =
            |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let plain = |name: &str| name.split('.').all(label);
        let parsed = |name: &str| Url::parse(&format!("https://{name}/")).is_ok_and(|url| url.domain().is_some());
        let good = sni_name.is_empty() || (plain(sni_name) && parsed(sni_name));
        if !good {
            return Err(TokenProxyError::Name);
        }
        Ok(TokenProxyOptions { url, sni_name: Some(sni_name.to_owned()).filter(|name| !name.is_empty()), ca_file })
    }
}

/// Cheap to clone; all clones share name and client.
#[derive(Clone)]
pub(super) struct TokenProxy(Arc<Inner>);

struct Inner {
    options: TokenProxyOptions,
    user_agent: String,
    timeout: Duration,
    name: OnceCell<String>,
    client: Mutex<Option<CachedClient>>,
}

/// A client, and the digest of the CA file that it trusts.
struct CachedClient {
    ca_digest: Option<[u8; 32]>,
    http: Http,
}

/// Where and how a token request is sent.
pub(super) struct Route {
    pub(super) http: Http,
    /// The proxy's address, with the name of its certificate.
    pub(super) url: Url,
}

impl TokenProxy {
    pub(super) fn new(options: TokenProxyOptions, user_agent: &str, timeout: Duration) -> TokenProxy {
        let (name, client) = (OnceCell::new(), Mutex::new(None));
        TokenProxy(Arc::new(Inner { options, user_agent: user_agent.to_owned(), timeout, name, client }))
    }

    /// For error texts.
    pub(super) fn host(&self) -> &str {
        self.0.options.url.host_str().unwrap_or_default()
    }

    /// The route to the proxy, with the current CA file.
    ///
    /// # Errors
    /// The CA file or the API server's certificate cannot be used, or the API server cannot be
    /// reached.
    pub(super) async fn route(&self) -> Result<Route, Error> {
        let ca_file = self.read_ca_file().await?;
        let name = self.0.name.get_or_try_init(|| self.find_name(ca_file.as_deref())).await?;
        let mut url = self.0.options.url.clone();
        url.set_host(Some(name)).map_err(|_| Error::TokenProxy("its name is not a host name".to_owned()))?;
        Ok(Route { http: self.client(ca_file, name).await?, url })
    }

    /// The cached client, or a new one if the CA file has changed.
    async fn client(&self, ca_file: Option<Vec<u8>>, name: &str) -> Result<Http, Error> {
        let digest = ca_file.as_ref().map(|pem| Sha256::digest(pem).into());
        let mut cached = self.0.client.lock().await;
        // A CA file that is temporarily missing must not make the client trust the system's CAs.
        let usable = |cached: &&CachedClient| cached.ca_digest == digest || digest.is_none();
        if let Some(cached) = cached.as_ref().filter(usable) {
            return Ok(cached.http.clone());
        }
        let built = self.build_client(ca_file.as_deref(), Some(name));
        match (built, cached.as_ref()) {
            (Ok(http), _) => {
                *cached = Some(CachedClient { ca_digest: digest, http: http.clone() });
                Ok(http)
            }
            (Err(error), Some(old)) => {
                warn!(%error, "the cluster's CA certificate has changed and cannot be used; the old one stays");
                Ok(old.http.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// A client for the proxy with this name, or for the API server with its own.
    fn build_client(&self, ca_file: Option<&[u8]>, name: Option<&str>) -> Result<Http, Error> {
        let certificates = ca_file.map(|pem| self.certificates(pem)).transpose()?;
        let host = match (name, self.0.options.url.host()) {
            (Some(_), Some(Host::Domain(host))) => host.to_owned(),
            (Some(_), Some(Host::Ipv4(ip))) => ip.to_string(),
            (Some(_), Some(Host::Ipv6(ip))) => ip.to_string(),
            (Some(_), None) | (None, _) => API_SERVER.to_owned(),
        };
        // From the environment, since a driver on the host's network may have no cluster DNS.
        let address = std::env::var(API_SERVER_VARIABLES.0).ok().and_then(|text| text.parse::<IpAddr>().ok());
        let address = address.filter(|_| host == API_SERVER).map(|ip| SocketAddr::new(ip, 0));
        let agent = self.0.user_agent.clone();
        let resolver = Resolver::default();
        let builder = move || {
            let resolver = FixedResolver { host: host.clone(), address, resolver: resolver.clone() };
            // HTTP/1.1, since the Host header is not the URL's host: HTTP/2 has only one of them.
            client::builder(&agent).no_proxy().http1_only().tls_info(true).dns_resolver(resolver)
        };
        match certificates {
            Some(certificates) => Http::direct(builder().tls_certs_only(certificates), self.0.timeout),
            None => {
                let build = move |certificates| build(builder().tls_certs_only(certificates));
                Ok(Http::reloading(ReloadingClient::new(Box::new(build), usize::MAX)?, self.0.timeout, false))
            }
        }
    }

    fn certificates(&self, pem: &[u8]) -> Result<Vec<Certificate>, Error> {
        let unusable = || Error::TokenProxy(format!("{} holds no CA certificate", self.0.options.ca_file.display()));
        let certificates = Certificate::from_pem_bundle(pem).map_err(|_| unusable())?;
        Some(certificates).filter(|certificates| !certificates.is_empty()).ok_or_else(unusable)
    }

    /// `None` if there is no CA file, and the client is to trust the system's CAs.
    async fn read_ca_file(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.0.options.ca_file.clone();
        let read = tokio::task::spawn_blocking(move || read_optional(&path)).await.map_err(io::Error::other);
        read.and_then(|read| read)
            .map_err(|error| Error::TokenProxy(format!("cannot read {}: {error}", self.0.options.ca_file.display())))
    }

    /// The proxy's name: the one of the flag, or the one for the API server's certificate.
    async fn find_name(&self, ca_file: Option<&[u8]>) -> Result<String, Error> {
        if let Some(name) = &self.0.options.sni_name {
            return Ok(name.clone());
        }
        let path = self.0.options.ca_file.display();
        let ca_file = ca_file.ok_or_else(|| {
            Error::TokenProxy(format!("there is no {path} to verify the API server with; give --sni-name"))
        })?;
        let port = std::env::var(API_SERVER_VARIABLES.1).ok().and_then(|text| text.parse::<u16>().ok()).unwrap_or(443);
        let url = Url::parse(&format!("https://{API_SERVER}:{port}/version"))
            .map_err(|_| Error::TokenProxy("the API server has no address".to_owned()))?;
        let endpoint = Endpoint { service: Service::TokenProxy, host: API_SERVER, operation: "certificate" };
        let request = reqwest::Request::new(reqwest::Method::GET, url);
        // Any status will do: the certificate is part of the handshake.
        let client = self.build_client(Some(ca_file), None)?;
        let response = client.exchange(endpoint, request, MAX_SMALL_RESPONSE).await?;
        let names = response
            .peer
            .as_deref()
            .and_then(ParsedCertificate::from_der)
            .map(|facts| facts.dns_names)
            .unwrap_or_default();
        let name = name_of(&names).ok_or_else(|| {
            let cause = "the API server's certificate has no name hcp-kubernetes.<id>.svc.cluster.local";
            Error::TokenProxy(format!("{cause}; is this an AKS cluster with identity bindings? Or give --sni-name"))
        })?;
        info!(name, "found the token proxy's name");
        Ok(name)
    }
}

impl fmt::Debug for TokenProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenProxy").field(&self.0.options).finish()
    }
}

fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_ordinary_file(path, MAX_CA_FILE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The proxy's name, computed from the first name in the API server's certificate that has the
/// cluster's id.
pub(super) fn name_of(names: &[String]) -> Option<String> {
    let id = |name: &String| name.strip_prefix(CLUSTER.0)?.strip_suffix(CLUSTER.1).map(str::to_owned);
    let id = names.iter().find_map(id).filter(|id| !id.is_empty())?;
    let digest = Sha256::new().chain_update("identity-binding").chain_update(id).finalize();
    Some(format!("a{}.ests.aks", base32_hex(&digest)))
}

/// Five bits a digit, without padding.
fn base32_hex(bytes: &[u8]) -> String {
    let (mut text, mut bits, mut held) = (String::new(), 0u32, 0u32);
    let digit = |value: u32| char::from(BASE32_HEX[(value & 31) as usize]);
    for byte in bytes {
        (bits, held) = ((bits & 0xff) << 8 | u32::from(*byte), held + 8);
        while held >= 5 {
            held -= 5;
            text.push(digit(bits >> held));
        }
    }
    if held > 0 {
        text.push(digit(bits << (5 - held)));
    }
    text
}
