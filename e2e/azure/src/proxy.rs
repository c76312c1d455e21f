//! AKS identity binding: a cluster's API server and the token proxy behind the same address.
//!
//! Clients find the cluster's id in the API server's certificate and compute the proxy's name from it;
//! the name that they ask for in the TLS handshake decides what they reach. Any other name, or none,
//! is refused by an alert. What the proxy answers comes from `entra`, where only bindings count.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::StatusCode;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::answer::Answer;
use crate::call::Door;
use crate::tls::{Authority, TlsError, leaf_params, server_config};

/// The name under which requests through a proxy are counted and faulted.
pub(crate) const PLACE: &str = "token-proxy";

/// The name under which requests to the API server are counted.
pub(crate) const API_SERVER: &str = "api-server";

/// The names of the API server inside a cluster.
const API_SERVER_NAMES: [&str; 3] =
    ["kubernetes.default.svc.cluster.local", "kubernetes.default.svc", "kubernetes.default"];

/// The digits of base 32 with the extended hexadecimal alphabet, in lower case.
const BASE32_HEX: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// How to start a token proxy.
#[derive(Debug, Clone)]
pub struct TokenProxyOptions {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The id in the API server's name `hcp-kubernetes.<id>.svc.cluster.local`.
    pub cluster_id: String,
    /// What the paths of requests begin with; `/` for nothing.
    pub path: String,
}

/// A token proxy that runs as long as its emulator.
#[derive(Debug, Clone)]
pub struct TokenProxy {
    pub(crate) address: SocketAddr,
    pub(crate) sni: String,
    pub(crate) ca_pem: String,
}

impl TokenProxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The only name under which it gives tokens: 53 characters and `.ests.aks`.
    pub fn sni(&self) -> &str {
        &self.sni
    }

    /// The cluster's authority in PEM, as pods find it in their service account's `ca.crt`.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

/// What the names of a cluster lead to.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    sni: Arc<str>,
    path: Arc<str>,
}

impl Cluster {
    /// Where a connection with this name belongs; others do not get past the handshake.
    pub(crate) fn door(&self, name: Option<&str>) -> Door {
        if name == Some(&*self.sni) { Door::TokenProxy { path: Arc::clone(&self.path) } } else { Door::ApiServer }
    }
}

/// Everything that a listener for a cluster needs.
pub(crate) struct Setup {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) cluster: Cluster,
    pub(crate) sni: String,
    pub(crate) ca_pem: String,
}

/// Makes the cluster's authority and both certificates.
pub(crate) fn set_up(options: &TokenProxyOptions) -> Result<Setup, TlsError> {
    let sni = sni_of(&options.cluster_id);
    let authority = Authority::new("azure-emulator cluster CA")?;
    let proxy = authority.sign(&leaf_params("token proxy", vec![sni.clone()])?)?;
    let mut names = API_SERVER_NAMES.map(str::to_owned).to_vec();
    names.push(format!("hcp-kubernetes.{}.svc.cluster.local", options.cluster_id));
    let api_server = authority.sign(&leaf_params("apiserver", names)?)?;
    let resolver = Resolver { sni: sni.clone(), proxy: Arc::new(proxy), api_server: Arc::new(api_server) };
    let acceptor = TlsAcceptor::from(server_config(Arc::new(resolver))?);
    let cluster = Cluster { sni: Arc::from(sni.as_str()), path: Arc::from(options.path.as_str()) };
    Ok(Setup { acceptor, cluster, sni, ca_pem: authority.pem })
}

/// An API server that lets nobody in.
pub(crate) fn api_server_answer() -> Answer {
    let document = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
    });
    Answer::json(StatusCode::UNAUTHORIZED, &document)
}

/// The proxy's name for a cluster's id.
fn sni_of(cluster_id: &str) -> String {
    let digest = Sha256::new().chain_update("identity-binding").chain_update(cluster_id).finalize();
    format!("a{}.ests.aks", base32_hex(&digest))
}

/// Five bits a digit, without padding.
fn base32_hex(bytes: &[u8]) -> String {
    let bit = |index: usize| bytes.get(index / 8).map_or(0, |byte| byte >> (7 - index % 8) & 1);
    let digits = (0..bytes.len() * 8).step_by(5);
    digits
        .map(|first| {
            let value = (first..first + 5).fold(0, |value, index| value << 1 | bit(index));
            char::from(BASE32_HEX[usize::from(value)])
        })
        .collect()
}

#[derive(Debug)]
struct Resolver {
    sni: String,
    proxy: Arc<CertifiedKey>,
    api_server: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        if name == self.sni {
            return Some(Arc::clone(&self.proxy));
        }
        API_SERVER_NAMES.contains(&name).then(|| Arc::clone(&self.api_server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_computed_as_aks_does() {
        let known = [
            ("696995ccb303450001b31a18", "aeaf29ip1hi5q38ebc3u4daum81u0unk52t5bg50j25234fmuj78g.ests.aks"),
            ("abc123def456", "avimke6u6l2eeq8qc1cneuaq4sl2e1av9t4clqgun97le32hub670.ests.aks"),
        ];
        for (id, name) in known {
            assert_eq!(sni_of(id), name);
            assert_eq!(name.find('.'), Some(53));
        }
    }
}
