//! Keys, certificates and archives made with the openssl program, which also checks the output of
//! the code under test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex};

use tempfile::TempDir;

/// Extensions of an authority's certificate.
pub(crate) const AUTHORITY: &str =
    "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always\n";
/// Of a root that does not name itself as its issuer.
pub(crate) const ROOT: &str =
    "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=none\n";
/// Of a server's certificate.
pub(crate) const SERVER: &str =
    "subjectAltName=DNS:a.example\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always\n";
/// Of a server's certificate without its own key identifier.
pub(crate) const NO_SUBJECT_KEY: &str = "subjectKeyIdentifier=none\nauthorityKeyIdentifier=keyid:always\n";
/// No key identifiers at all.
pub(crate) const BARE: &str = "subjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n";

/// Generating keys is expensive (RSA 4096 takes seconds), so all tests share them.
static KEYS: LazyLock<Mutex<BTreeMap<String, String>>> = LazyLock::new(Mutex::default);

/// Runs openssl in a temporary folder.
pub(crate) struct OpenSsl {
    folder: TempDir,
}

impl OpenSsl {
    pub(crate) fn new() -> OpenSsl {
        OpenSsl { folder: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Runs openssl in the folder; a failure of it fails the test.
    pub(crate) fn run(&self, arguments: &str) -> Vec<u8> {
        run_in(self.folder.path(), arguments).unwrap_or_else(|why| panic!("openssl {arguments}: {why}"))
    }

    /// The same, with text as output.
    pub(crate) fn text(&self, arguments: &str) -> String {
        String::from_utf8(self.run(arguments)).unwrap()
    }

    /// Makes `name.key`, of a kind such as `RSA:2048` or `EC:P-256`; `tag` distinguishes keys of
    /// one kind.
    pub(crate) fn key(&self, name: &str, kind: &str, tag: &str) {
        let mut keys = KEYS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let pem = keys.entry(format!("{kind} {tag}")).or_insert_with(|| {
            let (algorithm, size) = kind.split_once(':').unwrap_or((kind, ""));
            let option = match algorithm {
                "RSA" => format!("-pkeyopt rsa_keygen_bits:{size}"),
                "EC" => format!("-pkeyopt ec_paramgen_curve:{size}"),
                _ => String::new(),
            };
            self.text(&format!("genpkey -algorithm {algorithm} {option}"))
        });
        self.write(&format!("{name}.key"), &*pem);
    }

    /// Makes `name.key` and `name.pem`, signed by `issuer` or by itself.
    pub(crate) fn certificate(&self, name: &str, kind: &str, issuer: Option<&str>, extensions: &str) {
        self.key(name, kind, name);
        self.write("extensions", extensions);
        self.run(&format!("req -new -key {name}.key -subj /CN={name} -out request"));
        let signer = match issuer {
            Some(issuer) => format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial"),
            None => format!("-key {name}.key"),
        };
        self.run(&format!("x509 -req -in request {signer} -days 30 -extfile extensions -out {name}.pem"));
    }

    /// A chain of server, intermediate and root under these names; only the server's key is of
    /// `kind`.
    pub(crate) fn chain(&self, kind: &str) {
        self.certificate("root", "EC:P-256", None, AUTHORITY);
        self.certificate("intermediate", "EC:P-256", Some("root"), AUTHORITY);
        self.certificate("server", kind, Some("intermediate"), SERVER);
    }

    /// The certificate in DER.
    pub(crate) fn der(&self, name: &str) -> Vec<u8> {
        self.run(&format!("x509 -in {name}.pem -outform DER"))
    }

    /// The key as PKCS#8 in DER.
    pub(crate) fn pkcs8(&self, name: &str) -> Vec<u8> {
        self.run(&format!("pkcs8 -topk8 -nocrypt -in {name}.key -outform DER"))
    }

    /// The archive of server, intermediate and root with an empty password.
    pub(crate) fn archive(&self, options: &str) -> Vec<u8> {
        let issuers =
            ["intermediate", "root"].map(|name| fs::read_to_string(self.path(&format!("{name}.pem"))).unwrap());
        self.write("issuers", issuers.concat());
        self.run(&format!(
            "pkcs12 -export -inkey server.key -in server.pem -certfile issuers -name friendly -passout pass: {options}"
        ))
    }

    /// Asserts that a PEM file holds a valid key and, after it, a chain of certificates that starts
    /// with the key's.
    pub(crate) fn check_key_and_chain(&self, pem: &str, certificates: &[&str]) {
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.ends_with("-----END CERTIFICATE-----\n"));
        self.write("out.pem", pem);
        self.run("pkey -in out.pem -check -noout");
        assert_eq!(self.text("pkey -in out.pem -pubout"), self.text("x509 -in out.pem -noout -pubkey"));
        assert_eq!(self.check_chain(pem), certificates);
    }

    /// Asserts that each certificate is signed by the next one; returns their names.
    pub(crate) fn check_chain(&self, pem: &str) -> Vec<String> {
        let names = self.subjects(pem);
        for at in 1..names.len() {
            let (child, parent) = (format!("part{}.pem", at - 1), format!("part{at}.pem"));
            self.run(&format!("verify -partial_chain -trusted {parent} {child}"));
        }
        names
    }

    /// The names of the certificates in a PEM text, in its order.
    pub(crate) fn subjects(&self, pem: &str) -> Vec<String> {
        let parts = pem.split("-----BEGIN CERTIFICATE-----").skip(1).enumerate();
        parts
            .map(|(at, part)| {
                self.write(&format!("part{at}.pem"), format!("-----BEGIN CERTIFICATE-----{part}"));
                let subject = self.text(&format!("x509 -in part{at}.pem -noout -subject -nameopt multiline,-align"));
                subject.rsplit('=').next().unwrap().trim().to_owned()
            })
            .collect()
    }
}

fn run_in(folder: &Path, arguments: &str) -> Result<Vec<u8>, String> {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            format!("{error}: these tests need the openssl program, 3.0 or newer: apt-get install openssl")
        })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
