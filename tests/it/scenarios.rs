//! The scenarios of the end-to-end suite of upstream's Azure provider
//! (docs/reference/azure-provider.md#end-to-end-scenarios), against the emulator. Scenarios that
//! need a cluster are in `make e2e`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{CertificateMaterial, Jwk};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::certificates::{CertifiedKey, ensure_key_pair, openssl};
use crate::harness::{Node, Vault, harness};

trials! { "scenarios":
    secrets_and_keys_are_read_by_name_and_alias,
    eleven_objects_of_three_certificates_are_written,
    certificates_and_keys_have_separate_files_with_the_flag,
    versions_and_modes_are_as_the_class_says,
}

/// A vault with upstream's fixtures: a secret, keys of software and hardware, certificates as PEM
/// and PKCS#12, RSA and EC.
pub(crate) struct Content {
    pub(crate) vault: Vault,
    value: String,
    rsa: CertifiedKey,
    pem: CertifiedKey,
    ec: CertifiedKey,
}

/// The same with a driver.
struct Fixtures {
    node: Node,
    vault: Vault,
    value: String,
    rsa: CertifiedKey,
    pem: CertifiedKey,
    ec: CertifiedKey,
}

fn fixtures(flags: &[&str]) -> Result<Fixtures> {
    let mut setup = harness().setup();
    setup.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let node = Node::start(setup)?;
    let Content { vault, value, rsa, pem, ec } = content()?;
    Ok(Fixtures { node, vault, value, rsa, pem, ec })
}

pub(crate) fn content() -> Result<Content> {
    let vault = harness().vault();
    let value = vault.set("secret1");
    let (rsa, pem) = (CertifiedKey::new(&["rsa:2048"])?, CertifiedKey::new(&["rsa:2048"])?);
    let ec = CertifiedKey::new(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    let azure = harness().azure();
    for (name, made, is_archive) in [("pkcs12cert1", &rsa, true), ("pemcert1", &pem, false), ("ecccert1", &ec, true)] {
        let material = match is_archive {
            true => CertificateMaterial::from_pfx(&made.read("archive.pfx")?, "")?,
            false => CertificateMaterial::from_pem(&made.pem()?)?,
        };
        let secret = &material.secret_value;
        harness().secrets.lock().unwrap().push(secret[secret.len() / 2..secret.len() / 2 + 40].to_owned());
        azure.set_certificate(&vault.name, name, &material);
    }
    let (n, e) = rsa_numbers(&rsa)?;
    azure.set_key(&vault.name, "key1", Jwk::rsa(&n, &e));
    azure.set_key(&vault.name, "rsahsmkey1", Jwk::rsa(&n, &e).with_kty("RSA-HSM"));
    // The example of RFC 7517, appendix A.1.
    let (x, y) = ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
    azure.set_key(&vault.name, "echsmkey1", Jwk::ec("P-256", x, y).with_kty("EC-HSM"));
    Ok(Content { vault, value, rsa, pem, ec })
}

/// Returns modulus and exponent in base64url, as in a JWK.
fn rsa_numbers(made: &CertifiedKey) -> Result<(String, String)> {
    let text = String::from_utf8(openssl(&["rsa", "-in", &made.path("key.pem"), "-noout", "-modulus"])?)?;
    let hexadecimal = text.trim().strip_prefix("Modulus=").context("a modulus")?;
    let bytes: Vec<u8> = (0..hexadecimal.len() / 2)
        .map(|at| u8::from_str_radix(&hexadecimal[2 * at..2 * at + 2], 16))
        .collect::<Result<_, _>>()?;
    Ok((BASE64_URL_SAFE_NO_PAD.encode(&bytes), "AQAB".to_owned()))
}

impl Fixtures {
    /// Mounts these objects (type, name, and more fields, separated by `;`), and returns the
    /// target.
    fn mount(&self, objects: &[(&str, &str, &str)]) -> Result<PathBuf> {
        let text = objects.iter().fold("array:\n".to_owned(), |text, (kind, name, more)| {
            let more: String = more.split_terminator(';').map(|line| format!("    {line}\n")).collect();
            format!("{text}  - |\n    objectName: {name}\n    objectType: {kind}\n{more}")
        });
        self.node.class("demo", &self.vault.parameters_of(&text))?;
        self.node.publish(&self.vault.volume("demo")).map_err(|status| anyhow::anyhow!("{}", status.message()))
    }
}

fn text(file: &Path) -> String {
    file.display().to_string()
}

fn secrets_and_keys_are_read_by_name_and_alias() -> Result<()> {
    let fixtures = fixtures(&[])?;
    let folder = fixtures.mount(&[
        ("secret", "secret1", ""),
        ("secret", "secret1", "objectAlias: SECRET_1"),
        ("key", "key1", ""),
        ("key", "key1", "objectAlias: keys/KEY_1"),
        ("key", "rsahsmkey1", ""),
        ("key", "echsmkey1", ""),
    ])?;
    for name in ["secret1", "SECRET_1"] {
        assert_eq!(fs::read_to_string(folder.join(name))?, fixtures.value);
    }
    let public = openssl(&["pkey", "-in", &fixtures.rsa.path("key.pem"), "-pubout"])?;
    for name in ["key1", "keys/KEY_1", "rsahsmkey1"] {
        assert_eq!(fs::read(folder.join(name))?, public, "{name}");
    }
    let shown = openssl(&["pkey", "-pubin", "-noout", "-text", "-in", &text(&folder.join("echsmkey1"))])?;
    ensure!(String::from_utf8_lossy(&shown).contains("NIST CURVE: P-256"));
    Ok(())
}

fn eleven_objects_of_three_certificates_are_written() -> Result<()> {
    let fixtures = fixtures(&[])?;
    let folder = fixtures.mount(&[
        ("cert", "pemcert1", ""),
        ("key", "pemcert1", "objectAlias: pemcert1-pub-key"),
        ("secret", "pemcert1", "objectAlias: pemcert1-secret"),
        ("cert", "pkcs12cert1", ""),
        ("key", "pkcs12cert1", "objectAlias: pkcs12cert1-pub-key"),
        ("secret", "pkcs12cert1", "objectAlias: pkcs12cert1-secret"),
        ("secret", "pkcs12cert1", "objectAlias: pkcs12cert1-pfx;objectFormat: pfx"),
        ("secret", "pkcs12cert1", "objectAlias: pkcs12cert1-binary;objectFormat: pfx;objectEncoding: base64"),
        ("cert", "ecccert1", ""),
        ("key", "ecccert1", "objectAlias: ecccert1-pub-key"),
        ("secret", "ecccert1", "objectAlias: ecccert1-secret"),
    ])?;
    for (name, made) in [("pemcert1", &fixtures.pem), ("pkcs12cert1", &fixtures.rsa), ("ecccert1", &fixtures.ec)] {
        assert_eq!(fs::read(folder.join(name))?, made.read("cert.pem")?, "{name}");
        let named = openssl(&["x509", "-in", &text(&folder.join(name)), "-noout", "-checkhost", "test.domain.com"])?;
        ensure!(String::from_utf8_lossy(&named).contains("does match"), "{name}");
        let public = openssl(&["x509", "-in", &text(&folder.join(name)), "-noout", "-pubkey"])?;
        assert_eq!(fs::read(folder.join(format!("{name}-pub-key")))?, public, "{name}");
        let secret = folder.join(format!("{name}-secret"));
        ensure_key_pair(&secret, &secret)?;
    }
    let binary = folder.join("pkcs12cert1-binary");
    openssl(&["pkcs12", "-in", &text(&binary), "-passin", "pass:", "-nodes"])?;
    let decoded = openssl(&["base64", "-d", "-A", "-in", &text(&folder.join("pkcs12cert1-pfx"))])?;
    assert_eq!(decoded, fs::read(binary)?);
    Ok(())
}

fn certificates_and_keys_have_separate_files_with_the_flag() -> Result<()> {
    let fixtures = fixtures(&["--write-cert-and-key-in-separate-files=true"])?;
    let folder = fixtures.mount(&[
        ("secret", "pemcert1", ""),
        ("secret", "pkcs12cert1", ""),
        ("secret", "ecccert1", "objectVersionHistory: 2"),
        ("secret", "secret1", ""),
    ])?;
    for base in ["pemcert1", "pkcs12cert1", "ecccert1/0"] {
        ensure_key_pair(&folder.join(format!("{base}.key")), &folder.join(format!("{base}.crt")))?;
        ensure!(folder.join(base).exists());
    }
    ensure!(!folder.join("secret1.crt").exists(), "an ordinary secret has one file");
    Ok(())
}

fn versions_and_modes_are_as_the_class_says() -> Result<()> {
    let fixtures = fixtures(&[])?;
    let newer = fixtures.vault.set("secret1");
    let folder = fixtures.mount(&[
        ("secret", "secret1", "objectVersionHistory: 2;objectAlias: history"),
        ("secret", "secret1", "objectVersion: latest;filePermission: 0755"),
    ])?;
    assert_eq!(fs::read_to_string(folder.join("secret1"))?, newer);
    assert_eq!(fs::metadata(folder.join("secret1"))?.permissions().mode() & 0o7777, 0o755);
    let mut both = [fs::read_to_string(folder.join("history/0"))?, fs::read_to_string(folder.join("history/1"))?];
    let mut wanted = [newer, fixtures.value];
    // The order of versions of the same second is undefined.
    both.sort();
    wanted.sort();
    assert_eq!(both, wanted);
    Ok(())
}
