//! Certificates and keys for `kubernetes.io/tls` (docs/reference/csi-driver.md#tls-secrets),
//! created and checked by openssl.

use super::super::tls::{self, AUTHORITY, CERTIFICATE, PRIVATE_KEY, TlsError};
use crate::formats::pem::Text;
use crate::formats::pkcs12::Work;
use crate::formats::tests::openssl::{self, OpenSsl};

/// A chain `server`, `middle`, `root` of this kind of key.
fn chain(kind: &str) -> OpenSsl {
    let lab = OpenSsl::new();
    lab.certificate("root", kind, None, openssl::ROOT);
    lab.certificate("middle", kind, Some("root"), openssl::AUTHORITY);
    lab.certificate("server", kind, Some("middle"), openssl::SERVER);
    lab
}

fn read(lab: &OpenSsl, name: &str) -> String {
    std::fs::read_to_string(lab.path(name)).unwrap()
}

/// The common names of the certificates in a text, in order.
fn names(lab: &OpenSsl, text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for block in text.split_inclusive("-----END CERTIFICATE-----\n").filter(|block| block.contains("BEGIN")) {
        lab.write("one.pem", block);
        let subject = lab.text("x509 -in one.pem -noout -subject -nameopt multiline");
        names.push(
            subject.lines().find_map(|line| line.split_once("commonName")).unwrap().1.trim_matches([' ', '=']).into(),
        );
    }
    names
}

fn value(key: &str, file: &[u8]) -> Result<Text, TlsError> {
    tls::value(key, &tls::open(file, &mut Work::default())?)
}

fn get(key: &str, file: impl AsRef<[u8]>) -> String {
    value(key, file.as_ref()).unwrap().to_string()
}

#[test]
fn the_chain_begins_with_the_server_in_any_order_of_the_file() {
    let lab = chain("EC:P-256");
    let file =
        [read(&lab, "root.pem"), read(&lab, "server.key"), read(&lab, "middle.pem"), read(&lab, "server.pem")].concat();
    assert_eq!(names(&lab, &get(CERTIFICATE, &file)), ["server", "middle", "root"]);
    assert_eq!(names(&lab, &get(AUTHORITY, &file)), ["middle", "root"]);
    assert!(!get(CERTIFICATE, &file).contains("KEY") && !get(AUTHORITY, &file).contains("KEY"));
    // Without a private key in the file, all certificates are issuers.
    let authorities = [read(&lab, "middle.pem"), read(&lab, "root.pem")].concat();
    assert_eq!(names(&lab, &get(AUTHORITY, &authorities)), ["middle", "root"]);
    // Without a chain, the order of the file stays.
    lab.certificate("other", "EC:P-256", None, openssl::BARE);
    let file = [read(&lab, "other.pem"), read(&lab, "server.pem")].concat();
    assert_eq!(names(&lab, &get(CERTIFICATE, &file)), ["other", "server"]);
}

#[test]
fn pkcs12_gives_the_same_as_pem_in_der_and_in_base64() {
    for (kind, label) in [("RSA:2048", "RSA PRIVATE KEY"), ("EC:P-384", "EC PRIVATE KEY"), ("ED25519", "PRIVATE KEY")] {
        let lab = chain(kind);
        lab.write("above.pem", [read(&lab, "middle.pem"), read(&lab, "root.pem")].concat());
        let archive = lab.run("pkcs12 -export -inkey server.key -in server.pem -certfile above.pem -passout pass:");
        lab.write("archive.pfx", &archive);
        let text = lab.text("base64 -in archive.pfx");
        let pem = [read(&lab, "server.key"), read(&lab, "server.pem"), read(&lab, "above.pem")].concat();
        for key in [CERTIFICATE, PRIVATE_KEY, AUTHORITY] {
            let (from_pem, from_der, from_text) = (get(key, &pem), get(key, &archive), get(key, &text));
            assert!(from_pem == from_der && from_der == from_text, "{kind} {key}");
        }
        let key = get(PRIVATE_KEY, &pem);
        assert!(key.starts_with(&format!("-----BEGIN {label}-----\n")), "{kind}");
        lab.write("ours.key", key);
        assert_eq!(lab.text("pkey -in ours.key -pubout"), lab.text("x509 -in server.pem -noout -pubkey"), "{kind}");
    }
}

#[test]
fn keys_come_out_as_upstream_writes_them() {
    let lab = OpenSsl::new();
    lab.key("rsa", "RSA:2048", "upstream");
    lab.key("ec", "EC:P-256", "upstream");
    // What Go's MarshalPKCS1PrivateKey and MarshalECPrivateKey write is what openssl calls
    // traditional.
    for (name, parameters) in
        [("rsa", ""), ("ec", "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n")]
    {
        let traditional = lab.text(&format!("pkey -in {name}.key -traditional"));
        for file in [read(&lab, &format!("{name}.key")), traditional.clone()] {
            // The parameters behind the key, which made upstream write an empty key, change
            // nothing.
            assert_eq!(get(PRIVATE_KEY, format!("{file}{parameters}")), traditional, "{name}");
        }
    }
}

#[test]
fn a_missing_part_is_named() {
    let lab = chain("EC:P-256");
    let (certificate, key) = (read(&lab, "server.pem"), read(&lab, "server.key"));
    assert!(matches!(value(CERTIFICATE, b"hunter2"), Err(TlsError::Neither(_))));
    assert!(matches!(value(PRIVATE_KEY, b"\xff\xfe"), Err(TlsError::Neither(_))));
    assert_eq!(value(CERTIFICATE, key.as_bytes()).unwrap_err(), TlsError::NoCertificate(0));
    assert_eq!(value(PRIVATE_KEY, certificate.as_bytes()).unwrap_err(), TlsError::NoKey(0));
    let damaged = certificate.replace("MII", "M!I");
    let text = value(CERTIFICATE, damaged.as_bytes()).unwrap_err().to_string();
    assert!(text.contains("no certificate (1 PEM blocks in it are damaged)"), "{text}");
    for arguments in ["pkey -in server.key -aes256 -passout pass:x", "ec -in server.key -aes256 -passout pass:x"] {
        assert_eq!(value(PRIVATE_KEY, &lab.run(arguments)).unwrap_err(), TlsError::Encrypted, "{arguments}");
    }
}
