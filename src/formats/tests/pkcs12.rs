//! docs/reference/azure-provider.md#pkcs12: archives of openssl and of our own writer.

use proptest::prelude::*;

use super::archive::{KEY_VAULT, MAX_ITERATIONS, Writer, bag, data, fake_key, finish, oid, tlv, write};
use super::openssl::OpenSsl;
use crate::formats::pkcs12::{self, Archive, Error, Work, limits};

fn read(der: &[u8], password: &str) -> Result<Archive, Error> {
    pkcs12::read(der, password, &mut Work::default())
}

fn read_base64(text: &str, password: &str) -> Result<Archive, Error> {
    pkcs12::read_base64(text, password, &mut Work::default())
}

fn error(der: &[u8]) -> Error {
    read(der, "").err().expect("the archive should be refused")
}

fn keys(archive: &Archive) -> Vec<Vec<u8>> {
    archive.keys.iter().map(|key| key.to_vec()).collect()
}

#[test]
fn every_algorithm_of_openssl_is_read() {
    let openssl = OpenSsl::new();
    openssl.chain("EC:P-256");
    let (key, certificates) =
        (openssl.pkcs8("server"), ["server", "intermediate", "root"].map(|name| openssl.der(name)));
    for options in [
        "",
        "-legacy",
        "-legacy -nomaciter -noiter",
        "-legacy -descert",
        "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1",
        "-legacy -keypbe PBE-SHA1-2DES -certpbe PBE-SHA1-RC2-128 -macalg sha1",
        "-macalg sha224",
        "-macalg sha384",
        "-macalg sha512",
        "-macalg sha256 -nomaciter",
        "-keypbe AES-128-CBC -certpbe AES-192-CBC -macalg sha256",
        "-keypbe DES-EDE3-CBC -certpbe DES-EDE3-CBC",
        "-nomac",
        "-legacy -nomac",
        "-keypbe NONE -certpbe NONE",
        "-keypbe NONE -certpbe NONE -nomac",
        "-iter 100000",
    ] {
        let read = read(&openssl.archive(options), "").unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!(keys(&read), [key.as_slice()], "{options}");
        assert_eq!(read.certificates, certificates, "{options}");
    }
}

/// Key Vault: key first, salts of 20 bytes, one MAC iteration; openssl: certificates first, salts
/// of 8 bytes.
#[test]
fn both_empty_passwords_and_all_salts_are_read_and_order_is_kept() {
    let openssl = OpenSsl::new();
    openssl.chain("EC:P-384");
    openssl.key("other", "EC:P-521", "other");
    let two = [openssl.pkcs8("other"), openssl.pkcs8("server")];
    let three = ["root", "server", "intermediate"].map(|name| openssl.der(name));
    for password in [&[0, 0][..], &[]] {
        for (salt, iterations, certificates_first) in [(20, 2000, false), (8, 2048, true), (8, 1, false), (0, 1, true)]
        {
            for mac in [Some(1), Some(2048), None] {
                for rc2 in [true, false] {
                    let writer = Writer { password, salt, iterations, mac, rc2, certificates_first };
                    let der = write(&writer, &two, &three);
                    let read = read(&der, "").unwrap();
                    assert_eq!((keys(&read).as_slice(), read.certificates.as_slice()), (&two[..], &three[..]));
                }
            }
        }
    }
    openssl.write("ours.pfx", write(&KEY_VAULT, &two, &three));
    let seen = openssl.text("pkcs12 -in ours.pfx -legacy -passin pass: -nodes");
    assert_eq!(openssl.subjects(&seen), ["root", "server", "intermediate"]);
}

#[test]
fn an_archive_opens_with_its_password_only() {
    let openssl = OpenSsl::new();
    openssl.chain("EC:P-256");
    for options in ["-passout pass:hunter2", "-legacy -passout pass:hunter2", "-legacy -nomac -passout pass:hunter2"] {
        let der = openssl.archive(options);
        assert_eq!(read(&der, "hunter2").unwrap().certificates.len(), 3, "{options}");
        for wrong in ["", "hunter3"] {
            let error = read(&der, wrong).err().unwrap();
            assert!(matches!(error, Error::Integrity | Error::Decryption(_)), "{options}: {error}");
        }
    }
}

#[test]
fn keys_alone_and_certificates_alone_are_read() {
    let openssl = OpenSsl::new();
    openssl.chain("RSA:2048");
    let only_key = read(&write(&KEY_VAULT, &[openssl.pkcs8("server")], &[]), "").unwrap();
    assert_eq!((keys(&only_key), only_key.certificates.len()), (vec![openssl.pkcs8("server")], 0));
    let none = read(&openssl.run("pkcs12 -export -nokeys -in root.pem -passout pass:"), "").unwrap();
    assert_eq!((none.keys.len(), none.certificates), (0, vec![openssl.der("root")]));
}

#[test]
fn base64_may_have_line_breaks_and_nothing_else() {
    use base64::Engine as _;
    let der = write(&KEY_VAULT, &[], &[]);
    let text = base64::engine::general_purpose::STANDARD.encode(&der);
    assert!(read_base64(&text, "").is_ok());
    assert!(read_base64(&format!("{}\r\n{}\n", &text[..64], &text[64..]), "").is_ok());
    let spaced = format!(" {text}");
    let error = read_base64(&spaced, "").err().unwrap().to_string();
    assert!(error.starts_with("the PKCS#12 archive cannot be decoded: the value is not base64: byte 1 of"), "{error}");
}

#[test]
fn errors_name_the_cause_and_nothing_of_the_content() {
    let openssl = OpenSsl::new();
    openssl.chain("EC:P-256");
    let good = write(&KEY_VAULT, &[openssl.pkcs8("server")], &[]);
    let mut tampered = good.clone();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    assert_eq!(error(&tampered), Error::Integrity);
    assert_eq!(error(&[]), Error::Malformed("the outer structure"));
    assert_eq!(error(b"hunter2"), Error::Malformed("the outer structure"));
    assert_eq!(error(&good[..good.len() - 1]), Error::Malformed("the outer structure"));
    assert_eq!(error(&[0x30, 0x80, 2, 1, 3]), Error::Indefinite);
    assert_eq!(error(&tlv(0x30, &[&[2, 1, 2], &data(&[])])), Error::Version(2));
    let plain = |bags: &[u8]| finish(&KEY_VAULT, &data(&tlv(0x30, &[bags])));
    assert_eq!(error(&plain(&[5, 0])), Error::Malformed("a list of keys and certificates"));
    let key_bag = "1.2.840.113549.1.12.10.1.1";
    assert_eq!(
        error(&plain(&bag(key_bag, &[0x30, 0]))).to_string(),
        "private key 1 of the PKCS#12 archive: the private key is neither PKCS#8 nor PKCS#1 (RSA) nor SEC1 (EC), or it is damaged"
    );
    let nested = plain(&bag("1.2.840.113549.1.12.10.1.6", &[0x30, 0]));
    assert_eq!(
        error(&nested).to_string(),
        "a nested content of the PKCS#12 archive uses 1.2.840.113549.1.12.10.1.6, which is not supported"
    );
    let signed = tlv(0x30, &[&[2, 1, 3], &tlv(0x30, &[&oid("1.2.840.113549.1.7.2"), &tlv(0xa0, &[&[0x30, 0]])])]);
    assert_eq!(
        error(&signed).to_string(),
        "the outer content of the PKCS#12 archive uses 1.2.840.113549.1.7.2, which is not supported"
    );
    // Lists of revoked certificates are skipped.
    assert!(read(&plain(&bag("1.2.840.113549.1.12.10.1.4", &[0x30, 0])), "").unwrap().keys.is_empty());
}

#[test]
fn unknown_algorithms_are_named() {
    let openssl = OpenSsl::new();
    openssl.chain("EC:P-256");
    let rc4 = error(&openssl.archive("-legacy -keypbe PBE-SHA1-RC4-40 -certpbe NONE"));
    assert_eq!(
        rc4.to_string(),
        "a private key of the PKCS#12 archive uses 1.2.840.113549.1.12.1.2, which is not supported"
    );
    let camellia = error(&openssl.archive("-keypbe CAMELLIA-256-CBC -certpbe NONE"));
    assert_eq!(
        camellia.to_string(),
        "a private key of the PKCS#12 archive uses 1.2.392.200011.61.1.1.1.4, which is not supported"
    );
    let mac = error(&openssl.archive("-macalg md5"));
    assert_eq!(
        mac.to_string(),
        "the integrity check of the PKCS#12 archive uses 1.2.840.113549.2.5, which is not supported"
    );
}

#[test]
fn work_and_size_are_bounded() {
    let too_many = i32::try_from(limits::ITERATIONS).unwrap() + 1;
    let too_much = |writer: &Writer, keys: &[Vec<u8>]| {
        let error = error(&write(writer, keys, &[]));
        let Error::TooMuchWork { required } = error else { panic!("{error}") };
        required
    };
    assert_eq!(too_much(&Writer { mac: Some(too_many), ..KEY_VAULT }, &[]), 1_000_001 + 2 * 2_000);
    assert_eq!(too_much(&Writer { iterations: too_many, ..KEY_VAULT }, &[]), 1 + 2 * 1_000_001);
    assert_eq!(too_much(&Writer { mac: Some(i32::MAX), iterations: i32::MAX, ..KEY_VAULT }, &[fake_key()]), {
        // Each count has 32 bits: the key's three times (saturated), and the certificates' twice.
        u64::from(i32::MAX as u32) + u64::from(u32::MAX) + 2 * u64::from(i32::MAX as u32)
    });
    // The iterations of all keys are added up.
    let keys = vec![fake_key(); 200];
    assert_eq!(too_much(&Writer { iterations: MAX_ITERATIONS, ..KEY_VAULT }, &keys), 1 + 202 * 3 * 10_000 - 40_000);
    assert_eq!(
        error(&write(&Writer { iterations: -1, ..KEY_VAULT }, &[], &[])),
        Error::Malformed("the parameters of a cipher")
    );
    let bags = bag("1.2.840.113549.1.12.10.1.4", &[0x30, 0]).repeat(501);
    assert_eq!(error(&finish(&KEY_VAULT, &data(&tlv(0x30, &[&bags])))), Error::TooManyBags);
}

/// Visible iterations above the limit are refused before the first derivation, whatever the
/// password.
#[test]
fn an_archive_beyond_the_ceiling_costs_nothing() {
    let openssl = OpenSsl::new();
    openssl.chain("EC:P-256");
    let der = openssl.archive("-iter 340000 -macalg sha256");
    for password in ["", "wrong"] {
        let mut work = Work::default();
        let error = pkcs12::read(&der, password, &mut work).err().unwrap();
        assert_eq!((error, work.spent()), (Error::TooMuchWork { required: 3 * 340_000 }, 0));
    }
    let text = Error::TooMuchWork { required: 3 * 340_000 }.to_string();
    for word in ["1020000 iterations", "at most 1000000", "openssl pkcs12 -export -iter 2048"] {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

#[test]
fn all_derivations_of_an_archive_count_together() {
    let openssl = OpenSsl::new();
    openssl.chain("EC:P-256");
    // MAC, certificates, key; without a MAC, or with a wrong password, less.
    for (options, password, spent) in [
        ("-iter 1000", "", 3_000),
        ("-iter 1000 -nomac -certpbe AES-256-CBC", "", 2_000),
        ("-legacy -iter 1000", "", 1_000 + 2 * 1_000 + 3 * 1_000),
        ("-iter 1000 -passout pass:x", "wrong", 1_000),
        // The empty password has two forms, and both are tried.
        ("-iter 1000 -passout pass:x", "", 2_000),
    ] {
        let mut work = Work::default();
        let read = pkcs12::read(&openssl.archive(options), password, &mut work);
        assert_eq!((read.is_ok(), work.spent()), (!options.contains("pass:x"), spent), "{options}");
    }
    // Two keys of 500,000 iterations are accepted, and so are Java's older keystores.
    let mut work = Work::default();
    pkcs12::read(&openssl.archive("-iter 500000 -nomac -certpbe AES-256-CBC"), "", &mut work).unwrap();
    assert_eq!(work.spent(), limits::ITERATIONS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
        let _ = read(&bytes, "");
        let _ = read_base64(&text, &text);
    }

    /// Damage at one place, with and without the MAC that finds it.
    #[test]
    fn no_damage_panics(at in 0usize..600, to in any::<u8>(), mac in any::<bool>(), cut in any::<bool>()) {
        let key = fake_key();
        let writer = Writer { iterations: 1, mac: mac.then_some(1), ..KEY_VAULT };
        let mut der = write(&writer, std::slice::from_ref(&key), std::slice::from_ref(&key));
        let at = at % der.len();
        der[at] = to;
        if cut {
            der.truncate(at);
        }
        let _ = read(&der, "");
    }

    /// The same within an encrypted content.
    #[test]
    fn no_damaged_content_panics(at in 0usize..200, to in any::<u8>()) {
        let mut key = fake_key();
        let at = at % key.len();
        key[at] = to;
        let writer = Writer { iterations: 1, mac: None, ..KEY_VAULT };
        let _ = read(&write(&writer, &[key], &[]), "");
    }
}
