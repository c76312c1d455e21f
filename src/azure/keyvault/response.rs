//! A whole HTTP response: the body of a success, or an [`Error`] with its status, codes, ids and
//! Retry-After.
//!
//! Headers are data of another program: values of another form or length than expected are ignored.

use std::time::Duration;

use azure_core::time::{OffsetDateTime, parse_rfc7231};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use super::claims::RequiredClaims;
use super::endpoint::{Endpoint, Service};
use super::error::Error;
use super::error_codes::{ErrorCodes, MAX_LENGTH};
use super::refusal::Refusal;
use super::www_authenticate::Challenges;

/// A longer Retry-After is cut: it is nonsense, and its sum with the current time could overflow.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The headers in milliseconds, which come before the standard one, as in the Azure SDK.
const RETRY_AFTER_MS: [&str; 2] = ["x-ms-retry-after-ms", "retry-after-ms"];

/// A response with any status.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The server's certificate in DER, if the client was built with `tls_info`.
    pub(super) peer: Option<Vec<u8>>,
}

impl Response {
    /// The body of a 200.
    ///
    /// # Errors
    /// Another status, and a body that is not JSON.
    pub(super) fn accept(self, endpoint: Endpoint<'_>, client_id: Option<String>) -> Result<Bytes, Error> {
        if self.status != 200 {
            return Err(self.refused(endpoint, client_id));
        }
        if !is_json(&self.headers) {
            return Err(Error::unexpected(endpoint, "the answer is not JSON"));
        }
        Ok(self.body)
    }

    /// The error for a response that is not a success.
    pub(super) fn refused(&self, endpoint: Endpoint<'_>, client_id: Option<String>) -> Error {
        let codes = match endpoint.service {
            Service::KeyVault => ErrorCodes::of_key_vault(&self.body),
            Service::EntraId | Service::TokenProxy => ErrorCodes::of_entra_id(&self.body),
            // It has no codes of this form; the status suffices.
            Service::Imds => ErrorCodes::default(),
        };
        let claims = (endpoint.service == Service::KeyVault && self.status == 401)
            .then(|| RequiredClaims::of(&Challenges::of(&self.headers)))
            .flatten();
        Error::Refused(Box::new(Refusal {
            service: endpoint.service,
            host: endpoint.host.to_owned(),
            operation: endpoint.operation,
            status: self.status,
            codes,
            request_id: request_id(&self.headers),
            retry_after: retry_after(&self.headers, OffsetDateTime::now_utc()),
            client_id,
            claims,
        }))
    }
}

/// The wait that the service asks for: milliseconds in Azure's headers, seconds or a date in the
/// standard one.
pub(super) fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let milliseconds = RETRY_AFTER_MS.iter().find_map(|name| text(name)?.parse().ok()).map(Duration::from_millis);
    let standard = || {
        let value = text(RETRY_AFTER.as_str())?;
        match value.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            // A date in the past is a wait of zero.
            Err(_) => parse_rfc7231(value).ok().map(|date| Duration::try_from(date - now).unwrap_or_default()),
        }
    };
    milliseconds.or_else(standard).map(|wait| wait.min(MAX_RETRY_AFTER))
}

/// The service's id of this request, by which Microsoft's support finds it.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-ms-request-id")?.to_str().ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && (1..=MAX_LENGTH).contains(&text.len())).then(|| text.to_owned())
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    text.split(';').next().is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}
