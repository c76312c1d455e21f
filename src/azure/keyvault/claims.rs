//! Pure. The claims challenge: a 401 for a token that the tenant's policies do not accept any more.
//!
//! Conditional Access and continuous access evaluation answer so
//! (<https://learn.microsoft.com/entra/identity-platform/claims-challenge>). The driver does not
//! send the claims to Entra ID: it declares no client capability (`cp1`), and a policy that needs
//! more than a new token needs an administrator. It names them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::www_authenticate::Challenges;

/// How many claims a text names.
const MAX_CLAIMS: usize = 4;
/// The longest name of a claim that is shown.
const MAX_NAME: usize = 32;

/// Standard base64, where the padding may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The claims that an access token must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequiredClaims {
    /// Each matches `^[A-Za-z0-9_]{1,32}$`; values are left out.
    names: Vec<String>,
}

impl RequiredClaims {
    /// Those of the first claims challenge, if there is one.
    pub(super) fn of(challenges: &Challenges) -> Option<RequiredClaims> {
        let insufficient = |error: &str| error.eq_ignore_ascii_case("insufficient_claims");
        let mut all = challenges.all.iter();
        let challenge = all.find(|one| one.is("Bearer") && one.get("error").is_some_and(insufficient))?;
        Some(RequiredClaims { names: challenge.get("claims").map(names).unwrap_or_default() })
    }

    /// Their names, in brackets and with a space before them, for error texts.
    pub(super) fn shown(&self) -> String {
        match self.names.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.names.join(", ")),
        }
    }
}

/// The claims in a text like base64 of `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`.
fn names(claims: &str) -> Vec<String> {
    let standard: String = claims
        .chars()
        .map(|c| {
            if c == '-' {
                '+'
            } else if c == '_' {
                '/'
            } else {
                c
            }
        })
        .collect();
    let bytes = BASE64.decode(standard).unwrap_or_default();
    let request: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let name = |name: &&String| {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        plain && (1..=MAX_NAME).contains(&name.len())
    };
    let claims = request["access_token"].as_object().into_iter().flat_map(|claims| claims.keys());
    claims.filter(name).take(MAX_CLAIMS).cloned().collect()
}
