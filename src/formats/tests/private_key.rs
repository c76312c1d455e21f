//! docs/reference/azure-provider.md#private-keys: keys of every form are converted to PKCS#8 that
//! openssl reads as the same key.

use proptest::prelude::*;

use super::archive::{fake_key, oid, tlv};
use super::openssl::OpenSsl;
use crate::formats::private_key::{Error, pkcs8};

#[test]
fn pkcs8_pkcs1_and_sec1_give_the_same_pkcs8() {
    let openssl = OpenSsl::new();
    for kind in ["RSA:2048", "EC:P-256", "EC:P-384", "EC:P-521", "EC:secp256k1", "ED25519"] {
        openssl.key("key", kind, "forms");
        let expected = openssl.pkcs8("key");
        let mut forms = vec![expected.clone()];
        if !kind.starts_with("ED") {
            forms.push(openssl.run("pkey -in key.key -traditional -outform DER"));
        }
        for form in forms {
            let key = pkcs8(&form).unwrap();
            assert_eq!(key.as_slice(), expected, "{kind}");
            openssl.write("out.der", &key);
            assert_eq!(
                openssl.text("pkey -inform DER -in out.der -pubout"),
                openssl.text("pkey -in key.key -pubout"),
                "{kind}"
            );
        }
    }
}

#[test]
fn curve_parameters_and_attributes_are_removed_and_short_numbers_padded() {
    let curve = oid("1.2.840.10045.3.1.7");
    let algorithm = tlv(0x30, &[&oid("1.2.840.10045.2.1"), &curve]);
    let number = [7; 31];
    let key = |version: u8, number: &[u8], more: &[u8], outside: &[u8]| {
        let inner = tlv(0x30, &[&[2, 1, 1], &tlv(0x04, &[number]), more]);
        tlv(0x30, &[&[2, 1, version], &algorithm, &tlv(0x04, &[&inner]), outside])
    };
    let padded = [&[0][..], &number].concat();
    let plain = key(0, &padded, &[], &[]);
    // Windows writes the key's usage as an attribute.
    let usage = tlv(0xa0, &[&tlv(0x30, &[&oid("2.5.29.15"), &tlv(0x31, &[&[3, 1, 0x80]])])]);
    for odd in [
        key(0, &number, &[], &[]),
        key(0, &[&[0, 0, 0][..], &number].concat(), &[], &[]),
        key(0, &padded, &tlv(0xa0, &[&curve]), &[]),
        key(0, &padded, &[], &usage),
    ] {
        assert_eq!(*pkcs8(&odd).unwrap(), plain);
    }
    let public = tlv(0xa1, &[&[3, 3, 0, 4, 4]]);
    let outside = tlv(0x81, &[&[0, 4, 4]]);
    assert_eq!(*pkcs8(&key(1, &padded, &[], &outside)).unwrap(), key(0, &padded, &public, &[]));
    assert_eq!(pkcs8(&key(0, &[7; 33], &[], &[])), Err(Error::TooLong));
}

#[test]
fn malformed_keys_are_refused() {
    let openssl = OpenSsl::new();
    assert_eq!(pkcs8(&[]), Err(Error::Unreadable));
    assert_eq!(pkcs8(b"-----BEGIN PRIVATE KEY-----"), Err(Error::Unreadable));
    assert_eq!(pkcs8(&fake_key()[..40]), Err(Error::Unreadable));
    openssl.write("explicit", openssl.text("ecparam -name prime256v1 -genkey -noout -param_enc explicit"));
    assert_eq!(pkcs8(&openssl.run("pkcs8 -topk8 -nocrypt -in explicit -outform DER")), Err(Error::UnnamedCurve));
    let algorithm = tlv(0x30, &[&oid("1.2.840.10045.2.1"), &oid("1.2.840.10045.3.1.7")]);
    assert_eq!(pkcs8(&tlv(0x30, &[&[2, 1, 0], &algorithm, &tlv(0x04, &[b"hunter2"])])), Err(Error::Ec));
}

proptest! {
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let _ = pkcs8(&bytes);
        let mut key = fake_key();
        let at = at.index(key.len());
        key[at] = to;
        let _ = pkcs8(&key);
    }
}
