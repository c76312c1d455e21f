//! AKS identity binding: the way to a cluster's token proxy, which stands before Entra ID
//! (docs/reference/azure-provider.md#identity-binding).
//!
//! Finds out the proxy's name from the API server's certificate when nobody gives it, and keeps a client that trusts the cluster's
//! authority; puts no request together and asks for no token. Control goes back to `transport`.
//!
//! # Guarantees
//! Nothing is asked before the first token is wanted, a failure is not remembered, and the authority's file is looked at for each
//! token. An authority that is empty or damaged for the moment changes nothing.

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

use super::error::{Error, Service};
use super::http::{self, Http, Place, limits};
use super::resolve::{Alias, Resolver};
use super::trust::Renewed;
use crate::formats::certificate::ParsedCertificate;
use crate::platform::dir::read_ordinary_file;

/// The API server's name inside of a cluster.
const API_SERVER: &str = "kubernetes.default.svc.cluster.local";
/// Its variables in every container.
const API_SERVER_VARIABLES: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT");
/// What stands around the cluster's id in one of its names.
const CLUSTER: (&str, &str) = ("hcp-kubernetes.", ".svc.cluster.local");
/// The largest file of an authority.
const LARGEST: u64 = 1 << 20;
/// The digits of base 32 with the extended hexadecimal alphabet, in lower case.
const BASE32_HEX: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// How the token proxy is found; empty parts are found out.
#[derive(Debug, Clone)]
pub struct TokenProxyOptions {
    url: Url,
    sni_name: Option<String>,
    ca_file: PathBuf,
}

/// Why options of the token proxy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenProxyError {
    /// The address is none.
    #[error("--token-proxy-url {0}; it looks like https://{API_SERVER}")]
    Url(&'static str),
    /// The name is none.
    #[error("--sni-name is no host name; it looks like aeaf…j78g.ests.aks")]
    Name,
}

impl TokenProxyOptions {
    /// The authority's file in every container that has a service account's token.
    pub const CA_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

    /// Takes what the driver was started with; empty texts stand for the API server and for the name in its certificate.
    ///
    /// # Errors
    /// An address that is not https, or that has a user, a query or a fragment; a name that is no host name.
    pub fn new(url: &str, sni_name: &str, ca_file: PathBuf) -> Result<TokenProxyOptions, TokenProxyError> {
        let text = if url.is_empty() { format!("https://{API_SERVER}") } else { url.to_owned() };
        let url = Url::parse(&text).map_err(|_| TokenProxyError::Url("is no URL"))?;
        if url.scheme() != "https" {
            return Err(TokenProxyError::Url("does not start with https://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(TokenProxyError::Url("has a user, a query or a fragment, which it must not"));
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

/// The way to the token proxy. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct TokenProxy(Arc<Inner>);

struct Inner {
    options: TokenProxyOptions,
    user_agent: String,
    exchange: Duration,
    name: OnceCell<String>,
    door: Mutex<Option<Door>>,
}

/// A client, and the authority that it trusts.
struct Door {
    authority: Option<[u8; 32]>,
    http: Http,
}

/// Where a token request is sent.
pub(super) struct Way {
    pub(super) http: Http,
    /// The proxy's address, under the name that its certificate is for.
    pub(super) url: Url,
}

impl TokenProxy {
    pub(super) fn new(options: TokenProxyOptions, user_agent: &str, exchange: Duration) -> TokenProxy {
        let (name, door) = (OnceCell::new(), Mutex::new(None));
        TokenProxy(Arc::new(Inner { options, user_agent: user_agent.to_owned(), exchange, name, door }))
    }

    /// The proxy's host, for error texts.
    pub(super) fn host(&self) -> &str {
        self.0.options.url.host_str().unwrap_or_default()
    }

    /// The way to the proxy, with the authority as it is now.
    ///
    /// # Errors
    /// The authority's file, or the API server's certificate, is of no use; or the API server cannot be reached.
    pub(super) async fn way(&self) -> Result<Way, Error> {
        let authority = self.authority().await?;
        let name = self.0.name.get_or_try_init(|| self.find_name(authority.as_deref())).await?;
        let mut url = self.0.options.url.clone();
        url.set_host(Some(name)).map_err(|_| Error::TokenProxy("its name is no host".to_owned()))?;
        Ok(Way { http: self.door(authority, name).await?, url })
    }

    /// The client: the one that is there, or a new one when the authority has changed.
    async fn door(&self, authority: Option<Vec<u8>>, name: &str) -> Result<Http, Error> {
        let digest = authority.as_ref().map(|pem| Sha256::digest(pem).into());
        let mut door = self.0.door.lock().await;
        // A file that is away for the moment does not make the system's authorities count.
        let same = |door: &&Door| door.authority == digest || digest.is_none();
        if let Some(door) = door.as_ref().filter(same) {
            return Ok(door.http.clone());
        }
        let made = self.client(authority.as_deref(), Some(name));
        match (made, door.as_ref()) {
            (Ok(http), _) => {
                *door = Some(Door { authority: digest, http: http.clone() });
                Ok(http)
            }
            (Err(error), Some(old)) => {
                warn!(%error, "the cluster's CA certificate has changed and cannot be used; the old one stays");
                Ok(old.http.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// A client for the proxy under `name`, or for the API server under its own.
    fn client(&self, authority: Option<&[u8]>, name: Option<&str>) -> Result<Http, Error> {
        let certificates = authority.map(|pem| self.certificates(pem)).transpose()?;
        let real = match (name, self.0.options.url.host()) {
            (Some(_), Some(Host::Domain(host))) => host.to_owned(),
            (Some(_), Some(Host::Ipv4(ip))) => ip.to_string(),
            (Some(_), Some(Host::Ipv6(ip))) => ip.to_string(),
            (Some(_), None) | (None, _) => API_SERVER.to_owned(),
        };
        // In a container the API server's address needs no DNS, which a driver on the host's network may not have.
        let known = std::env::var(API_SERVER_VARIABLES.0).ok().and_then(|text| text.parse::<IpAddr>().ok());
        let address = known.filter(|_| real == API_SERVER).map(|ip| SocketAddr::new(ip, 0));
        let agent = self.0.user_agent.clone();
        let resolver = Resolver::default();
        let builder = move || {
            let alias = Alias { real: real.clone(), address, resolver: resolver.clone() };
            // HTTP/1.1, since the Host header is not the URL's: HTTP/2 has room for one name only.
            http::builder(&agent).no_proxy().http1_only().tls_info(true).dns_resolver(alias)
        };
        match certificates {
            Some(certificates) => Http::direct(builder().tls_certs_only(certificates), self.0.exchange),
            None => {
                let make = move |roots| http::built(builder().tls_certs_only(roots));
                Ok(Http::renewed(Renewed::new(Box::new(make), usize::MAX)?, self.0.exchange, false))
            }
        }
    }

    fn certificates(&self, pem: &[u8]) -> Result<Vec<Certificate>, Error> {
        let unusable = || Error::TokenProxy(format!("{} holds no CA certificate", self.0.options.ca_file.display()));
        let certificates = Certificate::from_pem_bundle(pem).map_err(|_| unusable())?;
        Some(certificates).filter(|certificates| !certificates.is_empty()).ok_or_else(unusable)
    }

    /// The authority's file; `None` where there is none, and the system's authorities count.
    async fn authority(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.0.options.ca_file.clone();
        let read = tokio::task::spawn_blocking(move || read_authority(&path)).await.map_err(io::Error::other);
        read.and_then(|read| read)
            .map_err(|error| Error::TokenProxy(format!("cannot read {}: {error}", self.0.options.ca_file.display())))
    }

    /// The proxy's name: the one that was given, or what the API server's certificate says.
    async fn find_name(&self, authority: Option<&[u8]>) -> Result<String, Error> {
        if let Some(name) = &self.0.options.sni_name {
            return Ok(name.clone());
        }
        let file = self.0.options.ca_file.display();
        let authority = authority.ok_or_else(|| {
            Error::TokenProxy(format!("there is no {file} to check the API server with; give --sni-name"))
        })?;
        let port = std::env::var(API_SERVER_VARIABLES.1).ok().and_then(|text| text.parse::<u16>().ok()).unwrap_or(443);
        let url = Url::parse(&format!("https://{API_SERVER}:{port}/version"))
            .map_err(|_| Error::TokenProxy("the API server has no address".to_owned()))?;
        let place = Place { service: Service::TokenProxy, host: API_SERVER, what: "certificate" };
        let request = reqwest::Request::new(reqwest::Method::GET, url);
        // Whether it lets us in does not matter: the certificate has come by then.
        let reply = self.client(Some(authority), None)?.exchange(place, request, limits::SMALL).await?;
        let names = reply
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

fn read_authority(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_ordinary_file(path, LARGEST) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The proxy's name from the names in the API server's certificate; the first that has the cluster's id counts.
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
