//! docs/reference/azure-provider.md#keys: a key of Key Vault is converted to the same bytes as
//! openssl writes for it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::openssl::OpenSsl;
use crate::formats::jwk::{Curve, Error, Jwk, ec, public_key, rsa};

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn rsa_keys_equal_openssls() {
    let openssl = OpenSsl::new();
    for kind in ["RSA:2048", "RSA:4096"] {
        openssl.key("key", kind, "jwk");
        let modulus = openssl.text("rsa -in key.key -noout -modulus");
        let modulus = hex::decode(modulus.trim().trim_start_matches("Modulus=")).unwrap();
        let expected = openssl.run("pkey -in key.key -pubout -outform DER");
        for zeros in [0, 1, 3] {
            let n = text(&[vec![0; zeros], modulus.clone()].concat());
            for (kty, e) in [("RSA", "AQAB"), ("RSA-HSM", "AAEAAQ"), ("RSA", "AAEAAQ==")] {
                let key = Jwk { kty: Some(kty), n: Some(&n), e: Some(e), ..Jwk::default() };
                assert_eq!(public_key(&key).unwrap(), expected, "{kind} {kty} {e}");
            }
        }
    }
}

#[test]
fn ec_keys_equal_openssls() {
    let openssl = OpenSsl::new();
    for (crv, size) in [("P-256", 32), ("P-384", 48), ("P-521", 66)] {
        openssl.key("key", &format!("EC:{crv}"), "jwk");
        let expected = openssl.run("pkey -in key.key -pubout -outform DER");
        let (x, y) = expected[expected.len() - 2 * size..].split_at(size);
        let trimmed = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        for (x, y) in [(x.to_vec(), y.to_vec()), (trimmed(x), [&[0, 0], y].concat())] {
            for kty in ["EC", "EC-HSM"] {
                let (x, y) = (text(&x), text(&y));
                let key = Jwk { kty: Some(kty), crv: Some(crv), x: Some(&x), y: Some(&y), ..Jwk::default() };
                assert_eq!(public_key(&key).unwrap(), expected, "{crv} {kty}");
            }
        }
    }
    let padded = ec(Curve::P256, &[1], &[2]).unwrap();
    assert!(padded.ends_with(&[&[4][..], &[0; 31], &[1], &[0; 31], &[2]].concat()));
}

#[test]
fn other_keys_and_missing_members_are_refused() {
    let full =
        Jwk { kty: Some("EC"), n: Some("AQ"), e: Some("AQAB"), crv: Some("P-256"), x: Some("AQ"), y: Some("Ag") };
    assert!(public_key(&full).is_ok());
    let long = text(&[1; 33]);
    for (key, error) in [
        (Jwk { kty: None, ..full }, Error::Missing("kty")),
        (Jwk { kty: Some("oct"), ..full }, Error::Type("oct".into())),
        (Jwk { kty: Some("oct-HSM"), ..full }, Error::Type("oct-HSM".into())),
        (Jwk { kty: Some("rsa"), ..full }, Error::Type("rsa".into())),
        (Jwk { crv: None, ..full }, Error::Missing("crv")),
        (Jwk { crv: Some("P-256K"), ..full }, Error::Curve("P-256K".into())),
        (Jwk { x: None, ..full }, Error::Missing("x")),
        (Jwk { y: Some(""), ..full }, Error::Missing("y")),
        (Jwk { y: Some("a+b"), ..full }, Error::Number("y", "is not base64url")),
        (Jwk { x: Some(&long), ..full }, Error::Number("x", "is longer than the curve allows")),
        (Jwk { kty: Some("RSA"), n: None, ..full }, Error::Missing("n")),
        (Jwk { kty: Some("RSA"), e: None, ..full }, Error::Missing("e")),
        (Jwk { kty: Some("RSA"), n: Some("AAA"), ..full }, Error::Number("n", "is zero")),
    ] {
        assert_eq!(public_key(&key), Err(error));
    }
    assert_eq!(rsa(&[1; 2049], &[3]), Err(Error::Number("n", "is longer than 16384 bits")));
    assert_eq!(
        public_key(&Jwk { crv: Some("P-256K"), ..full }).unwrap_err().to_string(),
        "the curve \"P-256K\" is not supported, only P-256, P-384 and P-521 are"
    );
}

proptest! {
    #[test]
    fn no_input_panics(n in ".{0,40}", e in prop::collection::vec(any::<u8>(), 0..80), ec in any::<bool>()) {
        let e = text(&e);
        let kty = if ec { "EC" } else { "RSA" };
        let key = Jwk { kty: Some(kty), n: Some(&n), e: Some(&e), crv: Some("P-521"), x: Some(&e), y: Some(&n) };
        let _ = public_key(&key);
        let _ = public_key(&Jwk { n: Some(&e), y: Some(&e), ..key });
    }
}
