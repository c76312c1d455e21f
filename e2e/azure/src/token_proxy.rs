//! AKS identity binding: a cluster's API server and its token proxy behind one address.
//!
//! Clients read the cluster's id from the API server's certificate and compute the proxy's name
//! from it. The name in their TLS handshake (SNI) selects the endpoint; any other name, or none,
//! gets an alert. `entra` responds to the proxy's requests and accepts identity bindings only.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::StatusCode;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::request::endpoint::{API_SERVER_NAMES, Endpoint};
use crate::response::BufferedResponse;
use crate::tls::{Authority, TlsError, leaf_params, server_config};

/// The digits of base 32 with the extended hexadecimal alphabet, in lower case.
const BASE32_HEX: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The address and the names of a token proxy.
#[derive(Debug, Clone)]
pub struct TokenProxyOptions {
    /// The address to listen on; port 0 selects a free one.
    pub listen: SocketAddr,
    /// The id in the API server's name `hcp-kubernetes.<id>.svc.cluster.local`.
    pub cluster_id: String,
    /// The path prefix of requests; `/` for none.
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
    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The SNI that selects the proxy: 53 characters and `.ests.aks`.
    pub fn sni(&self) -> &str {
        &self.sni
    }

    /// The cluster's CA in PEM, as it is in the `ca.crt` of a service account volume.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

/// The endpoints of a cluster, by SNI.
#[derive(Debug, Clone)]
pub(crate) struct ClusterEndpoints {
    sni: Arc<str>,
    path: Arc<str>,
}

impl ClusterEndpoints {
    /// The endpoint of a connection. Names other than the proxy's and the API server's do not pass
    /// the handshake.
    pub(crate) fn endpoint(&self, name: Option<&str>) -> Endpoint {
        if name == Some(&*self.sni) {
            Endpoint::TokenProxy { path: Arc::clone(&self.path) }
        } else {
            Endpoint::ApiServer
        }
    }
}

/// TLS, endpoints and names of a cluster's listener.
pub(crate) struct TokenProxyTls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) cluster: ClusterEndpoints,
    pub(crate) sni: String,
    pub(crate) ca_pem: String,
}

impl TokenProxyTls {
    /// Generates the cluster's CA and both certificates.
    pub(crate) fn new(options: &TokenProxyOptions) -> Result<TokenProxyTls, TlsError> {
        let sni = sni_of(&options.cluster_id);
        let authority = Authority::new("azure-emulator cluster CA")?;
        let proxy = authority.sign(&leaf_params("token proxy", vec![sni.clone()])?)?;
        let mut names = API_SERVER_NAMES.map(str::to_owned).to_vec();
        names.push(format!("hcp-kubernetes.{}.svc.cluster.local", options.cluster_id));
        let api_server = authority.sign(&leaf_params("apiserver", names)?)?;
        let resolver = Resolver { sni: sni.clone(), proxy: Arc::new(proxy), api_server: Arc::new(api_server) };
        let acceptor = TlsAcceptor::from(server_config(Arc::new(resolver))?);
        let cluster = ClusterEndpoints { sni: Arc::from(sni.as_str()), path: Arc::from(options.path.as_str()) };
        Ok(TokenProxyTls { acceptor, cluster, sni, ca_pem: authority.pem })
    }
}

/// The API server refuses every request.
pub(crate) fn api_server_response() -> BufferedResponse {
    let document = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
    });
    BufferedResponse::json(StatusCode::UNAUTHORIZED, &document)
}

fn sni_of(cluster_id: &str) -> String {
    let digest = Sha256::new().chain_update("identity-binding").chain_update(cluster_id).finalize();
    format!("a{}.ests.aks", base32_hex(&digest))
}

/// Five bits a digit, without padding (RFC 4648 §7).
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
