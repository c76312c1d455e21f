//! Service principals that log in with a certificate; openssl makes what the pods' Secrets hold.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::formats::pkcs12::Work;
use crate::formats::tests::openssl::{BARE, OpenSsl};
use crate::model::{ExposeSecret as _, SecretString};

fn taken(pairs: &[(&str, &str)]) -> Result<ClientCertificate, String> {
    let pairs = pairs.iter().chain([&("clientid", "id")]);
    let secrets = pairs.map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect();
    match service_principal(&secrets).map_err(|error| error.to_string())?.proof {
        Proof::Certificate(proof) => {
            proof.text.read(&mut Work::default()).map_err(|error| proof.refused(error).to_string())
        }
        Proof::Secret(_) => Err("the client secret".to_owned()),
    }
}

struct Files {
    lab: OpenSsl,
}

impl Files {
    fn new() -> Files {
        let lab = OpenSsl::new();
        lab.certificate("client", "RSA:2048", None, BARE);
        lab.certificate("other", "RSA:2048", None, BARE);
        Files { lab }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.lab.path(name)).unwrap()
    }

    fn archive(&self, options: &str) -> String {
        BASE64_STANDARD.encode(self.lab.run(&format!("pkcs12 -export -inkey client.key -in client.pem {options}")))
    }

    /// Asserts that certificate and key of `client` were taken.
    fn check(&self, pairs: &[(&str, &str)]) {
        let taken = taken(pairs).unwrap_or_else(|error| panic!("{:?}: {error}", pairs.iter().map(|pair| pair.0)));
        assert_eq!(taken.certificate, self.lab.der("client"));
        assert_eq!(taken.key.expose_secret(), self.lab.pkcs8("client"));
    }
}

#[test]
fn a_certificate_is_parsed_from_every_form() {
    let files = Files::new();
    let (key, certificate, other) = (files.read("client.key"), files.read("client.pem"), files.read("other.pem"));
    let old = files.lab.text("rsa -in client.key -traditional");
    assert!(old.contains("BEGIN RSA PRIVATE KEY"));
    for pem in [
        format!("{key}{certificate}"),
        format!("{certificate}{key}"),
        format!("{certificate}{old}"),
        // The chain may come along, in any order.
        format!("{other}{key}{certificate}"),
        format!("Bag Attributes\n    friendlyName: x\n{}", format!("{certificate}{key}").replace('\n', "\r\n")),
    ] {
        files.check(&[("clientcertificate", &pem)]);
        files.check(&[("ClientCertificate", &pem), ("other", "x")]);
    }
    files.check(&[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &other)]);
    for (options, password) in [
        ("-passout pass:", ""),
        ("-passout pass:geheim", "geheim"),
        ("-legacy -passout pass:geheim", "geheim"),
        ("-certfile other.pem -passout pass:", ""),
    ] {
        let archive = files.archive(options);
        files.check(&[("clientcertificate", &archive), ("clientCertificatePassword", password)]);
        // As base64 writes it: lines of 76 columns, and one at the end.
        let lines: Vec<&str> = archive.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        files.check(&[
            ("clientcertificate", &format!("{}\n", lines.join("\n"))),
            ("clientcertificatepassword", password),
        ]);
    }
    files.check(&[("clientcertificate", &files.archive("-passout pass:"))]);
}

#[test]
fn a_faulty_certificate_says_what_to_do() {
    let files = Files::new();
    files.lab.certificate("curve", "EC:P-256", None, BARE);
    let (key, certificate, other) = (files.read("client.key"), files.read("client.pem"), files.read("other.pem"));
    let curve = files.read("curve.key") + &files.read("curve.pem");
    let encrypted = files.lab.text("pkcs8 -topk8 -in client.key -passout pass:x") + &certificate;
    let encrypted_header = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let cut = &format!("{key}{certificate}")[..key.len() + 100];
    let archive = files.archive("-passout pass:geheim");
    let binary = "\u{30}\u{82}\u{fffd}";
    for (pairs, words) in [
        (
            &[("ClientCertificate", certificate.as_str())][..],
            "ClientCertificate in the Secret of nodePublishSecretRef holds no private key",
        ),
        (&[("clientcertificate", &key)], "holds no certificate"),
        (&[("clientcertificate", &format!("{key}{other}"))], "belongs to none of its certificates"),
        (&[("clientcertificate", &format!("{key}{certificate}{}", files.read("other.key")))], "holds 2 private keys"),
        (&[("clientcertificate", &curve)], "not RSA, and Entra ID accepts no other"),
        (&[("clientcertificate", &encrypted)], "encrypted private key; decrypt it"),
        (&[("clientcertificate", &format!("{encrypted_header}{certificate}"))], "encrypted private key; decrypt it"),
        (&[("clientcertificate", cut)], "damaged"),
        (&[("clientcertificate", binary)], "neither PEM nor a PKCS#12 archive in base64"),
        (&[("clientcertificate", "AAAA")], "not a PKCS#12 archive, or the archive is damaged"),
        (&[("clientcertificate", &archive)], "password is wrong"),
        (&[("clientcertificate", &archive), ("clientcertificatepassword", "falsch")], "password is wrong"),
        (&[("clientcertificate", "")], "\"clientcertificate\" in the Secret of nodePublishSecretRef is empty"),
        (
            &[("clientSecret", "s"), ("clientCertificate", &archive)],
            "has both \"clientSecret\" and \"clientCertificate\", and either could be meant",
        ),
        (
            &[("clientcertificate", "a"), ("CLIENTCERTIFICATE", "b")],
            "has both \"CLIENTCERTIFICATE\" and \"clientcertificate\"",
        ),
        (&[("tls.crt", &certificate)], "has no key tls.key: add it, next to tls.crt"),
        (&[("tls.key", &key)], "has no key tls.crt: add it, next to tls.key"),
        (
            &[("tls.crt", &other), ("tls.key", &key)],
            "tls.crt and tls.key in the Secret of nodePublishSecretRef holds a private key that belongs to none",
        ),
    ] {
        let error = taken(pairs).expect_err("it should be refused");
        assert!(error.contains(words), "{words}: {error}");
        for secret in [&key[100..140], &archive[..40], "geheim", "falsch"] {
            assert!(!error.contains(secret), "{error}");
        }
    }
    // A Secret with a client secret may hold a server's certificate for another purpose: that
    // worked upstream.
    assert_eq!(
        taken(&[("clientsecret", "s"), ("tls.crt", &certificate), ("tls.key", &key)]).unwrap_err(),
        "the client secret"
    );
}
