//! Pure. The values of a request that must not be shown, and well-known texts.
//!
//! The strings of a JSON document and the lines of a text are values as well.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{RUN, SHORTEST};

/// How many short values are looked for: each is searched separately.
const SHORT: usize = 4096;

/// How deep JSON documents inside strings of JSON documents are read.
const DEPTH: usize = 3;

/// The parts of credential files that are the same in all of them, and that error texts quote: the
/// beginnings of URLs, types of credentials, and the lines before and after PEM.
pub(super) const WELL_KNOWN: &[&str] = &[
    "https://oauth2.googleapis.com/token",
    "https://accounts.google.com/o/oauth2/auth",
    "https://accounts.google.com/o/oauth2/token",
    "https://accounts.google.com/o/oauth2/v2/auth",
    "https://www.googleapis.com/oauth2/v1/certs",
    "https://www.googleapis.com/oauth2/v3/token",
    "https://www.googleapis.com/oauth2/v4/token",
    "https://www.googleapis.com/robot/v1/metadata/x509/",
    "https://www.googleapis.com/auth/cloud-platform",
    "https://sts.googleapis.com/v1/token",
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/",
    "https://secretmanager.googleapis.com/v1/projects/",
    "https://cloudresourcemanager.googleapis.com/v1/projects/",
    "iam.gserviceaccount.com",
    "https://login.microsoftonline.com/",
    "https://login.microsoftonline.us/",
    "https://login.partner.microsoftonline.cn/",
    "https://login.chinacloudapi.cn/",
    "https://login.windows.net/",
    "https://sts.windows.net/",
    "https://management.azure.com/",
    "https://management.core.windows.net/",
    "https://graph.microsoft.com/",
    "https://vault.azure.net/",
    "api://AzureADTokenExchange",
    "https://sts.amazonaws.com/",
    "https://secretsmanager.amazonaws.com/",
    "https://ssm.amazonaws.com/",
    "https://kubernetes.default.svc.cluster.local/",
    "service_account",
    "authorized_user",
    "external_account",
    "impersonated_service_account",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----END RSA PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----",
    "-----END EC PRIVATE KEY-----",
    "-----BEGIN DSA PRIVATE KEY-----",
    "-----END DSA PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    "-----END ENCRYPTED PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PUBLIC KEY-----",
    "-----END PUBLIC KEY-----",
    "-----BEGIN RSA PUBLIC KEY-----",
    "-----END RSA PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----",
    "-----END CERTIFICATE-----",
    "-----BEGIN TRUSTED CERTIFICATE-----",
    "-----END TRUSTED CERTIFICATE-----",
    "-----BEGIN X509 CERTIFICATE-----",
    "-----END X509 CERTIFICATE-----",
    "-----BEGIN CERTIFICATE REQUEST-----",
    "-----END CERTIFICATE REQUEST-----",
    "-----BEGIN EC PARAMETERS-----",
    "-----END EC PARAMETERS-----",
    "-----BEGIN DH PARAMETERS-----",
    "-----END DH PARAMETERS-----",
    "-----BEGIN PKCS7-----",
    "-----END PKCS7-----",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "-----END PGP PRIVATE KEY BLOCK-----",
    "Proc-Type: 4,ENCRYPTED",
    "DEK-Info: AES-256-CBC,",
    "DEK-Info: AES-128-CBC,",
    "DEK-Info: DES-EDE3-CBC,",
];

/// The values that must not be shown.
#[derive(Default)]
pub(super) struct Values<'a> {
    /// Those of at least [`RUN`] bytes.
    long: Vec<Cow<'a, str>>,
    /// The others.
    short: BTreeSet<String>,
    too_many: bool,
}

impl<'a> Values<'a> {
    /// Adds a value, and the values inside it.
    pub(super) fn add(&mut self, value: &'a str) {
        self.add_at(Cow::Borrowed(value), 0);
    }

    fn add_at(&mut self, value: Cow<'a, str>, depth: usize) {
        if depth < DEPTH && value.trim_start().starts_with(['{', '[', '"']) {
            let mut strings = Strings { found: Vec::new() };
            let mut document = serde_json::Deserializer::from_str(&value);
            // A text that is not a document may begin with one.
            let _ = (&mut strings).deserialize(&mut document);
            strings.found.into_iter().for_each(|string| self.add_at(Cow::Owned(string), depth + 1));
        }
        if value.contains(['\n', '\r']) {
            // Longer lines are runs of the whole.
            value.split(['\n', '\r']).map(str::trim).for_each(|line| self.add_short(line));
        }
        if value.len() < RUN {
            self.add_short(&value);
        } else {
            self.long.push(value);
        }
    }

    fn add_short(&mut self, value: &str) {
        if (SHORTEST..RUN).contains(&value.len()) && !self.short.contains(value) {
            self.too_many |= self.short.len() >= SHORT;
            if !self.too_many {
                self.short.insert(value.to_owned());
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.long.is_empty() && self.short.is_empty()
    }

    pub(super) fn long(&self) -> &[Cow<'a, str>] {
        &self.long
    }

    /// The short values; `None` if there are too many.
    pub(super) fn short(&self) -> Option<&BTreeSet<String>> {
        (!self.too_many).then_some(&self.short)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.long.iter().map(AsRef::as_ref).chain(self.short.iter().map(String::as_str))
    }
}

/// Collects the strings of a JSON document without building its tree in memory.
struct Strings {
    found: Vec<String>,
}

impl<'de> DeserializeSeed<'de> for &mut Strings {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Strings {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if text.len() >= SHORTEST {
            self.found.push(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key::<serde::de::IgnoredAny>()?.is_some() {
            fields.next_value_seed(&mut *self)?;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
