//! Secrets of certificates: as PEM, as PKCS#12, in separate files; openssl checks the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::CertificateMaterial;

use crate::harness::{Node, Vault, harness};

trials! { "certificates":
    a_pkcs12_secret_becomes_key_and_certificate_in_pem,
    a_pkcs12_secret_can_be_mounted_unchanged,
    a_pem_secret_is_written_as_it_is,
    certificate_and_key_get_separate_files,
    a_certificate_alone_is_its_leaf_in_pem,
    a_damaged_archive_is_reported_without_its_content,
}

/// A self-signed certificate and its key, created by openssl in a folder of their own.
pub(crate) struct CertifiedKey {
    folder: tempfile::TempDir,
}

pub(crate) fn openssl(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("openssl").args(arguments).output().context("openssl is missing: install it")?;
    ensure!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

impl CertifiedKey {
    pub(crate) fn new(algorithm: &[&str]) -> Result<CertifiedKey> {
        let certified = CertifiedKey { folder: tempfile::tempdir()? };
        let (key, certificate) = (certified.path("key.pem"), certified.path("cert.pem"));
        let fixed = ["-nodes", "-x509", "-days", "30", "-subj", "/CN=test.domain.com"];
        openssl(&[&["req"], &["-newkey"], algorithm, &fixed, &["-keyout", &key, "-out", &certificate]].concat())?;
        let archive = certified.path("archive.pfx");
        openssl(&["pkcs12", "-export", "-inkey", &key, "-in", &certificate, "-passout", "pass:", "-out", &archive])?;
        Ok(certified)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.path(name))?)
    }

    pub(crate) fn pem(&self) -> Result<String> {
        Ok(String::from_utf8([self.read("key.pem")?, self.read("cert.pem")?].concat())?)
    }
}

/// Checks with openssl that the key belongs to the certificate.
pub(crate) fn ensure_key_pair(key: &Path, certificate: &Path) -> Result<()> {
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    let of_key = openssl(&["pkey", "-in", &key, "-pubout"])?;
    let of_certificate = openssl(&["x509", "-in", &certificate, "-noout", "-pubkey"])?;
    ensure!(of_key == of_certificate, "the key does not belong to the certificate");
    Ok(())
}

fn with_certificate(certified: &CertifiedKey, flags: &[&str], archive: bool) -> Result<(Node, Vault)> {
    let mut setup = harness().setup();
    setup.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let (node, vault) = (Node::start(setup)?, harness().vault());
    let material = match archive {
        true => CertificateMaterial::from_pfx(&certified.read("archive.pfx")?, "")?,
        false => CertificateMaterial::from_pem(&certified.pem()?)?,
    };
    let secret = material.secret_value.clone();
    harness().azure().set_certificate(&vault.name, "server", &material);
    // The key's text is a secret like any other.
    harness().secrets.lock().unwrap().push(secret[secret.len() / 2..secret.len() / 2 + 40].to_owned());
    Ok((node, vault))
}

fn publish(node: &Node, vault: &Vault, fields: &str) -> Result<PathBuf> {
    let objects = format!("array:\n  - |\n    objectName: server\n    objectType: secret\n{fields}");
    node.class("demo", &vault.parameters_of(&objects))?;
    Ok(node.publish(&vault.volume("demo"))?)
}

const RSA: &[&str] = &["rsa:2048"];
const EC: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn a_pkcs12_secret_becomes_key_and_certificate_in_pem() -> Result<()> {
    for algorithm in [RSA, EC] {
        let certified = CertifiedKey::new(algorithm)?;
        let (node, vault) = with_certificate(&certified, &[], true)?;
        let file = publish(&node, &vault, "")?.join("server");
        let text = fs::read_to_string(&file)?;
        ensure!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"), "the key comes first");
        ensure!(text.ends_with("-----END CERTIFICATE-----\n"));
        ensure_key_pair(&file, &file)?;
    }
    Ok(())
}

fn a_pkcs12_secret_can_be_mounted_unchanged() -> Result<()> {
    let certified = CertifiedKey::new(RSA)?;
    let (node, vault) = with_certificate(&certified, &[], true)?;
    let file = publish(&node, &vault, "    objectFormat: PFX\n    objectEncoding: base64\n")?.join("server");
    let opened = openssl(&["pkcs12", "-in", &file.display().to_string(), "-passin", "pass:", "-nodes"])?;
    ensure!(String::from_utf8_lossy(&opened).contains("BEGIN PRIVATE KEY"));
    let text = publish(&node, &vault, "    objectFormat: pfx\n")?.join("server");
    ensure!(fs::read_to_string(text)?.starts_with("MII"), "without an encoding it is base64 text");
    Ok(())
}

fn a_pem_secret_is_written_as_it_is() -> Result<()> {
    let certified = CertifiedKey::new(EC)?;
    let (node, vault) = with_certificate(&certified, &[], false)?;
    let file = publish(&node, &vault, "")?.join("server");
    assert_eq!(fs::read_to_string(&file)?, certified.pem()?);
    Ok(())
}

fn certificate_and_key_get_separate_files() -> Result<()> {
    let certified = CertifiedKey::new(RSA)?;
    let (node, vault) = with_certificate(&certified, &["--write-cert-and-key-in-separate-files"], true)?;
    let target = publish(&node, &vault, "    objectAlias: tls/server\n")?;
    ensure_key_pair(&target.join("tls/server.key"), &target.join("tls/server.crt"))?;
    ensure_key_pair(&target.join("tls/server"), &target.join("tls/server"))?;
    ensure!(!fs::read_to_string(target.join("tls/server.crt"))?.contains("PRIVATE"));
    Ok(())
}

fn a_certificate_alone_is_its_leaf_in_pem() -> Result<()> {
    let certified = CertifiedKey::new(EC)?;
    let (node, vault) = with_certificate(&certified, &[], true)?;
    node.class("demo", &vault.parameters_of("array:\n  - |\n    objectName: server\n    objectType: cert\n"))?;
    let file = node.publish(&vault.volume("demo"))?.join("server");
    assert_eq!(fs::read(file)?, certified.read("cert.pem")?);
    Ok(())
}

fn a_damaged_archive_is_reported_without_its_content() -> Result<()> {
    let certified = CertifiedKey::new(RSA)?;
    let (node, vault) = (harness().node()?, harness().vault());
    let mut material = CertificateMaterial::from_pfx(&certified.read("archive.pfx")?, "")?;
    let half = material.secret_value.len() / 2 / 4 * 4;
    material.secret_value.truncate(half);
    harness().azure().set_certificate(&vault.name, "server", &material);
    let objects = "array:\n  - |\n    objectName: server\n    objectType: secret\n";
    node.class("demo", &vault.parameters_of(objects))?;
    let status = node.refused(&vault.volume("demo"))?;
    for word in ["secret/server", "default/demo", "ObjectInvalid"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {}", status.message());
    }
    ensure!(!status.message().contains(&material.secret_value[half - 40..]), "{status}");
    Ok(())
}
