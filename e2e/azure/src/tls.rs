//! Certificate authorities for one run, and the server certificates that they sign.
//!
//! Private keys are in memory only; that of an authority is dropped once its leaves are signed.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use thiserror::Error;

use crate::clouds::Clouds;

/// A certificate or TLS configuration could not be made.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A DNS name was refused, or making a key failed.
    #[error("cannot make the certificate; check the extra DNS names: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate was refused by the TLS library.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// The server's TLS configuration, and the CA that clients must trust.
pub(crate) struct Identity {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) ca_pem: String,
}

/// A certificate authority with its private key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Authority, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(name)?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// Signs a server certificate with a new key.
    pub(crate) fn sign(&self, params: &CertificateParams) -> Result<CertifiedKey, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::from_der(vec![leaf.der().clone()], key, &provider())?)
    }
}

/// Generates the CA and the certificate for Entra ID and Key Vault.
pub(crate) fn identity(clouds: &Clouds) -> Result<Identity, TlsError> {
    let authority = Authority::new("azure-emulator throw-away CA")?;
    let mut names = clouds.dns_names();
    names.push("localhost".to_owned());
    let mut params = leaf_params("azure-emulator", names)?;
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let leaf = SingleCertAndKey::from(authority.sign(&params)?);
    Ok(Identity { server: server_config(Arc::new(leaf))?, ca_pem: authority.pem })
}

/// A configuration that offers HTTP/2 and HTTP/1.1.
pub(crate) fn server_config(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

pub(crate) fn leaf_params(common_name: &str, names: Vec<String>) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Python's TLS in strict mode refuses a leaf without its issuer's key identifier.
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Explicit, since a process that links this crate may have no default provider, or two.
fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn authority_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}
