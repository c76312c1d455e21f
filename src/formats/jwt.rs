//! What a JSON Web Token says: its claims, in the compact form of RFC 7515 §3.1 and RFC 7519.
//!
//! Checks the form and no signature: that takes the issuer's key, which the authority has. So claims say what a token wants to be.
//! Bounded: a longer text than [`LONGEST`] is not read.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The longest token that is read, in bytes. Kubernetes' own have 1 to 2 KiB.
pub const LONGEST: usize = 16 << 10;

/// What a token says, as far as somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: whose it is.
    pub subject: String,
    /// `exp`: when it expires, in whole seconds since 1970.
    pub expires: Option<i64>,
    /// `aud`: whom it is for; `None` if it does not say.
    pub audiences: Option<Vec<String>>,
}

/// Why a text is not a token. Never a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`LONGEST`] bytes.
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    /// Not a header, a payload and a signature.
    #[error("it does not have three parts in base64url")]
    Parts,
    /// The first part is not a JSON object.
    #[error("its header is not a JSON object")]
    Header,
    /// The second part is not a JSON object, a claim has another type than RFC 7519 says, or occurs twice.
    #[error("its payload is not a JSON object with the claims sub, exp and aud of RFC 7519")]
    Payload,
}

/// The header, of which nothing matters here but that it is an object.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "alg")]
    _alg: Option<IgnoredAny>,
}

/// The payload. A derived reader refuses claims that occur twice, of which two readers might take different ones.
#[derive(Deserialize)]
struct Payload {
    sub: String,
    exp: Option<f64>,
    aud: Option<Audience>,
}

/// RFC 7519 §4.1.3: one, or a list, as Kubernetes writes it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// Reads a token.
    ///
    /// # Errors
    /// What it is in place of a token.
    pub fn read(token: &str) -> Result<Claims, Malformed> {
        if token.len() > LONGEST {
            return Err(Malformed::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed::Parts);
        };
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if signature.is_empty() || !signature.bytes().all(is_base64) {
            return Err(Malformed::Parts);
        }
        let decoded = |part: &str| BASE64.decode(part).map_err(|_| Malformed::Parts);
        object::<Header>(&decoded(header)?).ok_or(Malformed::Header)?;
        let Payload { sub, exp, aud } = object(&decoded(payload)?).ok_or(Malformed::Payload)?;
        let audiences = aud.map(|aud| match aud {
            Audience::One(one) => vec![one],
            Audience::Many(many) => many,
        });
        // A number of seconds may have a fraction (RFC 7519 §2); the conversion keeps within the type's bounds.
        Ok(Claims { subject: sub, expires: exp.map(|exp| exp.floor() as i64), audiences })
    }
}

/// Reads a JSON object and nothing else: serde would take a list for a struct, too.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let starts = json.iter().find(|byte| !byte.is_ascii_whitespace());
    starts.filter(|byte| **byte == b'{')?;
    serde_json::from_slice(json).ok()
}
