//! The claims of a JSON Web Token in the compact form of RFC 7515 §3.1 and RFC 7519.
//!
//! Checks the form and not the signature: only the authority has the issuer's key. So claims are
//! unverified. A text of more than [`MAX_LENGTH`] bytes is not read.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// In bytes. Tokens of Kubernetes have 1 to 2 KiB.
pub const MAX_LENGTH: usize = 16 << 10;

/// The claims that this program uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the principal.
    pub subject: String,
    /// `exp`: when it expires, in whole seconds since 1970.
    pub expires: Option<i64>,
    /// `aud`: the intended recipients; `None` if the claim is absent.
    pub audiences: Option<Vec<String>>,
}

/// Why a text is not a token; contains no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`MAX_LENGTH`] bytes.
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Not a header, a payload and a signature.
    #[error("it does not have three parts in base64url")]
    Parts,
    /// The first part is not a JSON object.
    #[error("its header is not a JSON object")]
    Header,
    /// The second part is not a JSON object, or a claim has a type other than in RFC 7519 or occurs
    /// twice.
    #[error("its payload is not a JSON object with the claims sub, exp and aud of RFC 7519")]
    Payload,
}

/// The header. Only its being an object is checked.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "alg")]
    _alg: Option<IgnoredAny>,
}

/// The payload. The derived `Deserialize` refuses a claim that occurs twice: two parsers could
/// choose different ones.
#[derive(Deserialize)]
struct Payload {
    sub: String,
    exp: Option<f64>,
    aud: Option<Audience>,
}

/// RFC 7519 §4.1.3: a string, or a list as in Kubernetes' tokens.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    Single(String),
    List(Vec<String>),
}

impl Claims {
    /// Parses a token.
    ///
    /// # Errors
    /// The text is not a token.
    pub fn read(token: &str) -> Result<Claims, Malformed> {
        if token.len() > MAX_LENGTH {
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
            Audience::Single(audience) => vec![audience],
            Audience::List(audiences) => audiences,
        });
        // A number of seconds may have a fraction (RFC 7519 §2); `as` saturates.
        Ok(Claims { subject: sub, expires: exp.map(|exp| exp.floor() as i64), audiences })
    }
}

/// Parses a JSON object and nothing else: serde would also accept a list for a struct.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let starts = json.iter().find(|byte| !byte.is_ascii_whitespace());
    starts.filter(|byte| **byte == b'{')?;
    serde_json::from_slice(json).ok()
}
