//! A writer of PKCS#12 archives like those of Key Vault and Windows, for cases that openssl does
//! not write.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeEncrypt as _, KeyIvInit as _};
use der::Encode as _;
use der::asn1::ObjectIdentifier;
use hmac::{Hmac, KeyInit as _, Mac as _};
use pkcs12::kdf::{Pkcs12KeyType, derive_key};
use sha1::Sha1;

/// The writer claims more iterations but does not run them: the reader refuses such an archive
/// before it can notice.
pub(crate) const MAX_ITERATIONS: i32 = 10_000;

/// The form of an archive.
#[derive(Clone, Copy)]
pub(crate) struct Writer {
    /// The password in the encoding of the old algorithms.
    pub(crate) password: &'static [u8],
    /// The length of each salt.
    pub(crate) salt: u8,
    /// Of the ciphers.
    pub(crate) iterations: i32,
    /// The iterations of the MAC; no MAC without them.
    pub(crate) mac: Option<i32>,
    /// Whether certificates are encrypted with RC2-40, as on Windows, or with 3DES.
    pub(crate) rc2: bool,
    pub(crate) certificates_first: bool,
}

/// The form of Key Vault's archives (docs/reference/azure-provider.md#rendering-tests).
pub(crate) const KEY_VAULT: Writer =
    Writer { password: &[0, 0], salt: 20, iterations: 2000, mac: Some(1), rc2: true, certificates_first: false };

const DATA: &str = "1.2.840.113549.1.7.1";
const ENCRYPTED_DATA: &str = "1.2.840.113549.1.7.6";
const TRIPLE_DES: &str = "1.2.840.113549.1.12.1.3";
const RC2_40: &str = "1.2.840.113549.1.12.1.6";

/// The archive of these keys (PKCS#8) and certificates, both in DER.
pub(crate) fn write(writer: &Writer, keys: &[Vec<u8>], certificates: &[Vec<u8>]) -> Vec<u8> {
    let shrouded = keys.iter().flat_map(|key| {
        let cipher = tlv(0x04, &[&writer.encrypt(key, false)]);
        let value = tlv(0x30, &[&writer.algorithm(false), &cipher]);
        bag("1.2.840.113549.1.12.10.1.2", &value)
    });
    let keys = data(&tlv(0x30, &[&shrouded.collect::<Vec<u8>>()]));
    let bags = certificates.iter().flat_map(|certificate| {
        let octets = tlv(0xa0, &[&tlv(0x04, &[certificate])]);
        bag("1.2.840.113549.1.12.10.1.3", &tlv(0x30, &[&oid("1.2.840.113549.1.9.22.1"), &octets]))
    });
    let plain = tlv(0x30, &[&bags.collect::<Vec<u8>>()]);
    let cipher = tlv(0x80, &[&writer.encrypt(&plain, writer.rc2)]);
    let content = tlv(0x30, &[&oid(DATA), &writer.algorithm(writer.rc2), &cipher]);
    let content = tlv(0x30, &[&[2, 1, 0], &content]);
    let certificates = tlv(0x30, &[&oid(ENCRYPTED_DATA), &tlv(0xa0, &[&content])]);
    match writer.certificates_first {
        true => finish(writer, &[certificates, keys].concat()),
        false => finish(writer, &[keys, certificates].concat()),
    }
}

/// An archive with these contents.
pub(crate) fn finish(writer: &Writer, safes: &[u8]) -> Vec<u8> {
    let safe = tlv(0x30, &[safes]);
    let mac = writer.mac.map(|iterations| {
        let salt = writer.salt();
        let key = derive_key::<Sha1>(writer.password, &salt, Pkcs12KeyType::Mac, iterations.min(MAX_ITERATIONS), 20);
        let digest = Hmac::<Sha1>::new_from_slice(&key).unwrap().chain_update(&safe).finalize().into_bytes();
        let algorithm = tlv(0x30, &[&oid("1.3.14.3.2.26"), &[5, 0]]);
        let digest = tlv(0x30, &[&algorithm, &tlv(0x04, &[&digest])]);
        tlv(0x30, &[&digest, &tlv(0x04, &[&salt]), &iterations.to_der().unwrap()])
    });
    tlv(0x30, &[&[2, 1, 3], &data(&safe), &mac.unwrap_or_default()])
}

/// A content of type data.
pub(crate) fn data(content: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&oid(DATA), &tlv(0xa0, &[&tlv(0x04, &[content])])])
}

/// A bag with the attributes that Windows writes.
pub(crate) fn bag(id: &str, value: &[u8]) -> Vec<u8> {
    let names = [("1.2.840.113549.1.9.21", &[4, 1, 7][..]), ("1.3.6.1.4.1.311.17.1", &[0x1e, 2, 0, b'x'])];
    let attributes = names.iter().flat_map(|(id, value)| tlv(0x30, &[&oid(id), &tlv(0x31, &[value])]));
    tlv(0x30, &[&oid(id), &tlv(0xa0, &[value]), &tlv(0x31, &[&attributes.collect::<Vec<u8>>()])])
}

pub(crate) fn oid(text: &str) -> Vec<u8> {
    ObjectIdentifier::new(text).unwrap().to_der().unwrap()
}

pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let mut bytes = vec![tag];
    match content.len() {
        0..128 => bytes.push(length[3]),
        128..256 => bytes.extend([0x81, length[3]]),
        _ => bytes.extend([0x82, length[2], length[3]]),
    }
    bytes.extend(content);
    bytes
}

impl Writer {
    fn salt(&self) -> Vec<u8> {
        (0..self.salt).collect()
    }

    fn algorithm(&self, rc2: bool) -> Vec<u8> {
        let params = tlv(0x30, &[&tlv(0x04, &[&self.salt()]), &self.iterations.to_der().unwrap()]);
        tlv(0x30, &[&oid(if rc2 { RC2_40 } else { TRIPLE_DES }), &params])
    }

    fn encrypt(&self, plain: &[u8], rc2: bool) -> Vec<u8> {
        let derive = |kind, size| {
            derive_key::<Sha1>(self.password, &self.salt(), kind, self.iterations.min(MAX_ITERATIONS), size)
        };
        let key = derive(Pkcs12KeyType::EncryptionKey, if rc2 { 5 } else { 24 });
        let vector = derive(Pkcs12KeyType::Iv, 8);
        let mut buffer = plain.to_vec();
        buffer.resize(plain.len() + 8, 0);
        let encrypted = match rc2 {
            true => cbc::Encryptor::<rc2::Rc2>::new_from_slices(&key, &vector)
                .unwrap()
                .encrypt_padded::<Pkcs7>(&mut buffer, plain.len()),
            false => cbc::Encryptor::<des::TdesEde3>::new_from_slices(&key, &vector)
                .unwrap()
                .encrypt_padded::<Pkcs7>(&mut buffer, plain.len()),
        };
        encrypted.unwrap().to_vec()
    }
}

/// A private key in PKCS#8, made without openssl: the structure is valid, the number is arbitrary.
pub(crate) fn fake_key() -> Vec<u8> {
    let inner = tlv(0x30, &[&[2, 1, 1], &tlv(0x04, &[&[7; 32]])]);
    let algorithm = tlv(0x30, &[&oid("1.2.840.10045.2.1"), &oid("1.2.840.10045.3.1.7")]);
    tlv(0x30, &[&[2, 1, 0], &algorithm, &tlv(0x04, &[&inner])])
}
