//! Pure. What may be taken out of an HTTP answer for an error's text: status, codes, ids, a time to wait.
//!
//! A body never gets further than this file: only what looks like a code leaves it, since the rest may quote a secret.
//! Control goes on to `error`, which says what an answer means.

use std::time::Duration;

use azure_core::time::{OffsetDateTime, parse_rfc7231};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// The longest code or id that is shown.
const LONGEST: usize = 64;

/// The longest wait that is believed; beyond, the number is nonsense, and the sum of it and now may overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The headers that carry milliseconds, before the standard one, as in the Azure SDK.
const RETRY_AFTER_MS: [&str; 2] = ["x-ms-retry-after-ms", "retry-after-ms"];

/// The codes in an error's body; each matches `^[A-Za-z0-9]{1,64}$`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Codes {
    /// Key Vault's code, or Entra ID's `AADSTS` with its number.
    pub(super) code: Option<String>,
    /// Key Vault's inner code, which is more precise.
    pub(super) inner: Option<String>,
}

impl Codes {
    /// Reads Key Vault's `{"error":{"code","message","innererror":{"code"}}}`; what is not there stays out.
    pub(super) fn of_key_vault(body: &[u8]) -> Codes {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &body["error"];
        Codes {
            code: error["code"].as_str().and_then(code),
            inner: error["innererror"]["code"].as_str().and_then(code),
        }
    }

    /// Reads Entra ID's `{"error","error_description","error_codes"}`; the description only for its `AADSTS` number.
    pub(super) fn of_entra_id(body: &[u8]) -> Codes {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let listed = body["error_codes"][0].as_u64().map(|number| format!("AADSTS{number}"));
        let described = || {
            let text = body["error_description"].as_str()?;
            let word = code(text.split(|c: char| !c.is_ascii_alphanumeric()).next()?)?;
            // AD FS has numbers of its own.
            let number = word.strip_prefix("AADSTS").or_else(|| word.strip_prefix("MSIS"))?;
            number.bytes().all(|byte| byte.is_ascii_digit()).then_some(word)
        };
        Codes { code: listed.or_else(described), inner: None }
    }

    /// Whether one of the codes is `wanted`.
    pub(super) fn has(&self, wanted: &str) -> bool {
        self.all().any(|code| code.eq_ignore_ascii_case(wanted))
    }

    /// The codes, the general one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.code.iter().chain(&self.inner).map(String::as_str)
    }
}

/// How long the answer asks to wait: milliseconds in Azure's headers, seconds or a date in the standard one.
pub(super) fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let milliseconds = RETRY_AFTER_MS.iter().find_map(|name| text(name)?.parse().ok()).map(Duration::from_millis);
    let standard = || {
        let value = text(RETRY_AFTER.as_str())?;
        match value.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            // A date in the past asks for no wait at all.
            Err(_) => parse_rfc7231(value).ok().map(|date| Duration::try_from(date - now).unwrap_or_default()),
        }
    };
    milliseconds.or_else(standard).map(|wait| wait.min(LONGEST_WAIT))
}

/// The service's id of this exchange, by which Microsoft's support finds it.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-ms-request-id")?.to_str().ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && (1..=LONGEST).contains(&text.len())).then(|| text.to_owned())
}

/// Whether the answer says that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(reqwest::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn code(text: &str) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain && (1..=LONGEST).contains(&text.len())).then(|| text.to_owned())
}
