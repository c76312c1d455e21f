//! docs/reference/azure-provider.md#certificate-secrets, docs/reference/azure-provider.md#pkcs12,
//! docs/reference/azure-provider.md#keys, docs/reference/azure-provider.md#certificates and
//! docs/reference/azure-provider.md#rendering-tests: keys and certificates as files, judged by
//! openssl.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::formats::jwk::Jwk;
use crate::formats::pkcs12::Work;
use crate::formats::tests::archive::{KEY_VAULT, Writer, write};
use crate::formats::tests::openssl::{AUTHORITY, BARE, OpenSsl, ROOT, SERVER};
use crate::model::{ExposeSecret, FileMode, SecretString};

const ALL: Rendering = Rendering { construct_pem_chain: true, separate_files: true, default_mode: FileMode::DEFAULT };
const ONE: Rendering = Rendering { separate_files: false, ..ALL };
const UNORDERED: Rendering = Rendering { construct_pem_chain: false, ..ONE };

const PEM: Option<&str> = Some("application/x-pem-file");
const PKCS12: Option<&str> = Some("application/x-pkcs12");

/// Files as name and content, and warnings as text.
type Outcome = Result<(Vec<(String, Vec<u8>)>, Vec<String>), String>;

fn outcome(spec: &ObjectSpec, index: Option<usize>, fetched: ObjectValue<'_>, rendering: &Rendering) -> Outcome {
    let rendered = render(spec, index, fetched, rendering, &mut Work::default()).map_err(|error| error.to_string())?;
    let file = |file: &crate::model::SecretFile| (file.name.to_string(), file.content.expose_secret().to_vec());
    Ok((rendered.files.iter().map(file).collect(), rendered.warnings.iter().map(ToString::to_string).collect()))
}

fn backed(more: &str, index: Option<usize>, value: &str, content_type: Option<&str>, rendering: &Rendering) -> Outcome {
    let value = SecretString::from(value);
    let fetched = ObjectValue::Secret(SecretValue { value: &value, content_type, certificate_backed: true });
    outcome(&object(&secret(more)).unwrap(), index, fetched, rendering)
}

/// The PEM that comes of an archive, and the warnings.
fn pem_of(archive: &[u8], rendering: &Rendering) -> Result<(String, Vec<String>), String> {
    let (mut files, warnings) = backed("", None, &STANDARD.encode(archive), PKCS12, rendering)?;
    assert_eq!(files.len(), 1);
    Ok((String::from_utf8(files.remove(0).1).unwrap(), warnings))
}

#[test]
fn the_corpus_comes_out_with_matching_keys_and_ordered_chains() {
    for kind in ["RSA:2048", "RSA:4096", "EC:P-256", "EC:P-384", "EC:P-521", "ED25519"] {
        let lab = OpenSsl::new();
        lab.chain(kind);
        for options in [
            "",
            "-legacy",
            "-legacy -nomaciter",
            "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1",
            "-keypbe AES-128-CBC -certpbe AES-256-CBC -macalg sha512",
            "-nomac",
        ] {
            let (pem, warnings) =
                pem_of(&lab.archive(options), &ONE).unwrap_or_else(|why| panic!("{kind} {options}: {why}"));
            assert_eq!(warnings, [""; 0]);
            lab.check_key_and_chain(&pem, &["server", "intermediate", "root"]);
        }
        let key = [lab.pkcs8("server")];
        let [server, intermediate, root] = ["server", "intermediate", "root"].map(|name| lab.der(name));
        let openssl = Writer { salt: 8, iterations: 2048, mac: Some(2048), certificates_first: true, ..KEY_VAULT };
        for writer in [KEY_VAULT, openssl, Writer { password: &[], ..KEY_VAULT }] {
            let shuffled = [server.clone(), root.clone(), intermediate.clone()];
            let (pem, warnings) = pem_of(&write(&writer, &key, &shuffled), &ONE).unwrap();
            assert_eq!(warnings, [""; 0]);
            lab.check_key_and_chain(&pem, &["server", "intermediate", "root"]);
        }
    }
}

#[test]
fn one_certificate_without_identifiers_is_enough() {
    let lab = OpenSsl::new();
    lab.certificate("alone", "RSA:2048", None, BARE);
    let archive = write(&KEY_VAULT, &[lab.pkcs8("alone")], &[lab.der("alone")]);
    lab.check_key_and_chain(&pem_of(&archive, &ONE).unwrap().0, &["alone"]);
}

#[test]
fn archives_without_a_chain_keep_their_order_and_warn() {
    let lab = OpenSsl::new();
    lab.chain("EC:P-256");
    lab.certificate("second", "EC:P-256", Some("intermediate"), SERVER);
    lab.certificate("plain", "EC:P-256", None, ROOT);
    lab.certificate("below", "EC:P-256", Some("plain"), SERVER);
    lab.certificate("bare", "EC:P-256", Some("root"), BARE);
    let key = [lab.pkcs8("server")];
    let render = |names: &[&str], rendering: &Rendering| {
        let certificates: Vec<_> = names.iter().map(|name| lab.der(name)).collect();
        pem_of(&write(&KEY_VAULT, &key, &certificates), rendering)
    };
    for names in [
        &["root", "server"][..],
        &["server", "second", "intermediate", "root"],
        &["below", "plain", "plain"],
        &["root", "bare"],
    ] {
        let (pem, warnings) = render(names, &ONE).unwrap();
        assert_eq!(lab.subjects(&pem), names);
        let text = "secret/secret1: its certificates do not form one chain by their key identifiers and are written in the \
                    order of the PFX; import the certificate again with its whole chain, each certificate once";
        assert_eq!(warnings, [text]);
        assert_eq!(render(names, &UNORDERED).unwrap(), (pem, vec![]));
    }
    let fix = "import the certificate again with each certificate of the chain once, or run the driver with \
               --construct-pem-chain=false";
    for (names, wrong) in [
        (
            &["root", "root"][..],
            "no leaf found: each of the 2 certificates is, by its key identifier, the issuer of another",
        ),
        (
            &["server", "root", "intermediate", "root"],
            "the issuers of the server's certificate form a cycle, by their key identifiers",
        ),
    ] {
        let error = render(names, &ONE).unwrap_err();
        assert_eq!(error, format!("secret/secret1 cannot be rendered as a PEM chain: {wrong}; {fix}"));
        assert_eq!(lab.subjects(&render(names, &UNORDERED).unwrap().0), names);
    }
    assert_eq!(
        render(&[], &ONE).unwrap_err(),
        "secret/secret1 cannot be rendered as a PEM chain: no leaf found: there is no certificate at all; import the PFX into \
         the vault again with its certificate"
    );
    let (pem, _) = render(&[], &UNORDERED).unwrap();
    assert!(pem.ends_with("-----END PRIVATE KEY-----\n"));
}

#[test]
fn several_keys_keep_their_order_and_a_missing_key_is_reported() {
    let lab = OpenSsl::new();
    lab.chain("EC:P-256");
    let keys = ["root", "server"].map(|name| lab.pkcs8(name));
    let certificate = [lab.der("server")];
    let (pem, warnings) = pem_of(&write(&KEY_VAULT, &keys, &certificate), &ONE).unwrap();
    assert_eq!((pem.matches("BEGIN PRIVATE KEY").count(), warnings.len()), (2, 0));
    lab.write("out.pem", &pem);
    assert_eq!(lab.text("pkey -in out.pem"), lab.text("pkey -in root.key"));
    let (pem, warnings) = pem_of(&write(&KEY_VAULT, &[], &certificate), &ONE).unwrap();
    assert_eq!(lab.subjects(&pem), ["server"]);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.starts_with("secret/secret1: the certificate comes without its private key; make"), "{warning}");
}

#[test]
fn separate_files_come_before_the_whole() {
    let lab = OpenSsl::new();
    lab.chain("EC:P-256");
    let archive = STANDARD.encode(lab.archive("-legacy"));
    let (files, warnings) = backed("objectAlias: tls/site", Some(3), &archive, PKCS12, &ALL).unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["tls/site/3.crt", "tls/site/3.key", "tls/site/3"]);
    let [crt, key, whole] = [0, 1, 2].map(|at| String::from_utf8(files[at].1.clone()).unwrap());
    assert_eq!((format!("{key}{crt}"), warnings.len()), (whole, 0));
    assert_eq!(lab.check_chain(&crt), ["server", "intermediate", "root"]);
    lab.write("out.key", &key);
    assert_eq!(lab.text("pkey -in out.key -pubout"), lab.text("pkey -in server.key -pubout"));
}

#[test]
fn pem_stays_as_it_is_and_is_split_but_not_sorted() {
    let whole = "Bag Attributes: x\n-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\naGk=\n-----END EC PRIVATE \
                 KEY-----\n-----BEGIN CERTIFICATE-----\nYg==\n-----END CERTIFICATE-----\n\r\n-----BEGIN CERTIFICATE-----\r\nYQ==\r\n\
                 -----END CERTIFICATE-----\r\n";
    let crt = "-----BEGIN CERTIFICATE-----\nYg==\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nYQ==\n-----END \
               CERTIFICATE-----\n";
    let key = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\naGk=\n-----END EC PRIVATE KEY-----\n";
    let files = |crt: &str, key: &str, whole: &str| {
        [("secret1.crt", crt), ("secret1.key", key), ("secret1", whole)]
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .to_vec()
    };
    assert_eq!(backed("", None, whole, PEM, &ALL), Ok((files(crt, key, whole), vec![])));
    let (rendered, warnings) = backed("objectFormat: PFX", None, whole, PEM, &ALL).unwrap();
    assert_eq!(rendered, files(crt, key, whole));
    assert!(warnings[0].contains("objectFormat is pfx, but the vault stores this certificate as PEM"), "{warnings:?}");
    assert_eq!(backed("", None, "no block", PEM, &ALL), Ok((files("", "", "no block"), vec![])));
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let warning = "secret/secret1: 1 PEM blocks cannot be read and are missing from its .crt and .key files";
    assert_eq!(backed("", None, broken, PEM, &ALL), Ok((files("", "", broken), vec![warning.into()])));
    assert_eq!(backed("", None, broken, PEM, &ONE).unwrap().1, [""; 0]);
}

#[test]
fn pfx_is_base64_text_or_the_binary_and_its_halves_are_empty() {
    let archive = write(&KEY_VAULT, &[], &[]);
    let text = STANDARD.encode(&archive);
    let files = |whole: &[u8]| {
        [("secret1.crt", &b""[..]), ("secret1.key", b""), ("secret1", whole)]
            .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
            .to_vec()
    };
    let warning = "secret/secret1: its .crt and .key files are empty since objectFormat is pfx; leave objectFormat out to \
                   fill them";
    for (more, whole) in [
        ("objectFormat: pfx", text.as_bytes()),
        ("objectFormat: PFX\nobjectEncoding: utf-8", text.as_bytes()),
        ("objectFormat: pfx\nobjectEncoding: Base64", &archive),
    ] {
        assert_eq!(backed(more, None, &text, PKCS12, &ALL), Ok((files(whole), vec![warning.into()])), "{more}");
        assert_eq!(backed(more, None, &text, PKCS12, &ONE), Ok((files(whole)[2..].to_vec(), vec![])), "{more}");
    }
}

#[test]
fn errors_name_the_object_and_the_fix_and_no_content() {
    let lab = OpenSsl::new();
    lab.certificate("alone", "EC:P-256", None, AUTHORITY);
    let archive = STANDARD.encode(write(&KEY_VAULT, &[lab.pkcs8("alone")], &[lab.der("alone")]));
    let again = "import the certificate into the vault again, as PFX or PEM";
    for content_type in [None, Some(""), Some("application/x-pkcs12 "), Some("text/plain")] {
        let told = content_type.map_or("(none)".to_owned(), |text| format!("{text:?}"));
        assert_eq!(
            backed("", Some(1), "hunter2", content_type, &ALL).unwrap_err(),
            format!(
                "secret/secret1/1 cannot be rendered as a certificate: its content type {told} is neither \
                 application/x-pkcs12 nor application/x-pem-file; {again}"
            )
        );
    }
    assert_eq!(
        backed("objectEncoding: base64", None, &archive, PKCS12, &ONE).unwrap_err(),
        "secret/secret1 cannot be rendered with objectEncoding base64: the value is not base64: byte 1 of 960 is not allowed \
         there; leave objectEncoding out to get PEM, or set objectFormat pfx with objectEncoding base64 to get the binary \
         archive"
            .replace("960", &pem_of(&STANDARD.decode(&archive).unwrap(), &ONE).unwrap().0.len().to_string())
    );
    for (value, wrong) in [
        (
            "hunter2!",
            "the PKCS#12 archive cannot be decoded: the value is not base64: byte 8 of 8 is not allowed there",
        ),
        (
            "aHVudGVyMg==",
            "the value is not a PKCS#12 archive, or the archive is damaged: the outer structure cannot be read",
        ),
    ] {
        assert_eq!(
            backed("", None, value, PKCS12, &ONE).unwrap_err(),
            format!(
                "secret/secret1 cannot be rendered as PEM: {wrong}; import the certificate into the vault again, from a PFX \
                 file that openssl pkcs12 reads, or set objectFormat pfx to mount it as it is"
            )
        );
    }
    let long = format!("objectAlias: {}", "a".repeat(254));
    let error = backed(&long, None, &archive, PKCS12, &ALL).unwrap_err();
    assert!(
        error.contains("with \".crt\" behind its file name: a component of the file name is 258 bytes long"),
        "{error}"
    );
    assert!(backed(&long, None, &archive, PKCS12, &ONE).is_ok());
}

#[test]
fn a_certificate_is_one_block_and_not_parsed() {
    let spec = object("objectName: site\nobjectType: cert\nfilePermission: 0400\n").unwrap();
    let block = b"-----BEGIN CERTIFICATE-----\ndGVzdA==\n-----END CERTIFICATE-----\n".to_vec();
    let fetched = ObjectValue::Certificate(b"test");
    assert_eq!(outcome(&spec, None, fetched, &ALL), Ok((vec![("site".into(), block.clone())], vec![])));
    assert_eq!(outcome(&spec, Some(0), fetched, &ALL), Ok((vec![("site/0".into(), block)], vec![])));
    assert_eq!(render(&spec, None, fetched, &ALL, &mut Work::default()).unwrap().files[0].mode.bits(), 0o400);
}

#[test]
fn a_key_is_its_public_half() {
    let lab = OpenSsl::new();
    lab.key("key", "EC:P-521", "rendered");
    let der = lab.run("pkey -in key.key -pubout -outform DER");
    let text = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = der[der.len() - 132..].split_at(66);
    let (x, y) = (text(x), text(y));
    let key = Jwk { kty: Some("EC-HSM"), crv: Some("P-521"), x: Some(&x), y: Some(&y), ..Jwk::default() };
    let spec = object("objectName: signing\nobjectType: key\n").unwrap();
    let expected = lab.run("pkey -in key.key -pubout");
    assert_eq!(outcome(&spec, None, ObjectValue::Key(key), &ALL), Ok((vec![("signing".into(), expected)], vec![])));
    assert_eq!(
        outcome(&spec, None, ObjectValue::Key(Jwk { crv: Some("P-256K"), ..key }), &ALL).unwrap_err(),
        "key/signing cannot be rendered as PEM: the curve \"P-256K\" is not supported, only P-256, P-384 and P-521 are; take \
         the object out of the class, or use a key of another type"
    );
}

proptest::proptest! {
    #[test]
    fn no_value_panics(value in ".{0,60}", pem in proptest::prelude::any::<bool>()) {
        let content_type = if pem { PEM } else { PKCS12 };
        for more in ["", "objectFormat: pfx", "objectEncoding: hex", "objectFormat: pfx\nobjectEncoding: base64"] {
            let _ = backed(more, None, &value, content_type, &ALL);
        }
    }
}
