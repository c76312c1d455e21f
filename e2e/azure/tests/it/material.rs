//! Keys and certificates for tests, made by openssl: another program than the one under test.
//!
//! Everything is made when a test asks for it and lives in a folder that goes away with it.
//! Nothing here knows the emulator's own way to read such files.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tempfile::TempDir;

/// A self-signed certificate with its key.
pub(crate) struct Material {
    folder: TempDir,
}

impl Material {
    /// An RSA key of 2048 bits.
    pub(crate) fn rsa() -> Material {
        Material::new(&["-newkey", "rsa:2048"])
    }

    /// A key on a named curve.
    pub(crate) fn ec(curve: &str) -> Material {
        Material::new(&["-newkey", "ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")])
    }

    fn new(key: &[&str]) -> Material {
        let folder = tempfile::tempdir().unwrap();
        let end = ["-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=test.domain.com", "-days", "2"];
        openssl(folder.path(), &[&["req", "-x509"], key, &end].concat());
        Material { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Key and certificate in one PEM text.
    pub(crate) fn pem(&self) -> String {
        self.text("key.pem") + &self.text("cert.pem")
    }

    /// The certificate in DER.
    pub(crate) fn der(&self) -> Vec<u8> {
        openssl(self.folder.path(), &["x509", "-in", "cert.pem", "-outform", "DER"])
    }

    /// The public key in DER.
    pub(crate) fn spki(&self) -> Vec<u8> {
        openssl(self.folder.path(), &["pkey", "-in", "key.pem", "-pubout", "-outform", "DER"])
    }

    /// Key and certificate as PKCS#12, with further options of openssl.
    pub(crate) fn pfx(&self, password: &str, options: &[&str]) -> Vec<u8> {
        let password = format!("pass:{password}");
        let start = ["pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-passout", &password];
        openssl(self.folder.path(), &[start.as_slice(), options].concat())
    }

    /// The modulus in hexadecimal, as openssl sees it.
    pub(crate) fn modulus(&self) -> String {
        let out = openssl(self.folder.path(), &["rsa", "-in", "key.pem", "-noout", "-modulus"]);
        String::from_utf8(out).unwrap().trim().trim_start_matches("Modulus=").to_lowercase()
    }

    /// The digest of the certificate, in base64url.
    pub(crate) fn thumbprint(&self, algorithm: &str) -> String {
        let out = openssl(self.folder.path(), &["x509", "-in", "cert.pem", "-noout", "-fingerprint", algorithm]);
        let text = String::from_utf8(out).unwrap();
        let digits = text.trim().rsplit_once('=').unwrap().1.replace(':', "");
        URL_SAFE_NO_PAD.encode(hex::decode(digits).unwrap())
    }

    /// A JWT signed with the key.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let der = PrivatePkcs8KeyDer::from_pem_slice(self.text("key.pem").as_bytes()).unwrap();
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let padding: &dyn RsaEncoding = if header["alg"] == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What openssl writes to standard output.
pub(crate) fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
