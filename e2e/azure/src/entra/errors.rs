//! Entra ID's errors: codes, statuses and bodies.
//!
//! No text has a secret or a token. `for_status` is for injected faults, the other constructors are
//! for checks.

use hyper::header::HeaderName;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::random;
use crate::request::parsed::ParsedRequest;
use crate::response::BufferedResponse;

/// An error: the number after `AADSTS`, the OAuth error, the status and the text.
#[derive(Debug)]
pub(crate) struct EntraError {
    code: u32,
    error: &'static str,
    status: StatusCode,
    text: String,
}

impl EntraError {
    /// The two endpoints differ in the OAuth error.
    pub(super) fn tenant_not_found(tenant: &str, error: &'static str) -> EntraError {
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and \
             are signing into the correct cloud. Check with your subscription administrator, \
             this may happen if there are no active subscriptions for the tenant."
        );
        bad_request(90002, error, text)
    }

    pub(super) fn missing_field(name: &str) -> EntraError {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        bad_request(900144, "invalid_request", text)
    }

    pub(super) fn unsupported_grant(grant_type: &str) -> EntraError {
        let text = format!("The app requested an unsupported grant type '{grant_type}'.");
        bad_request(70003, "unsupported_grant_type", text)
    }

    pub(super) fn not_a_default_scope(scope: &str) -> EntraError {
        let text = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must \
             have a scope value with /.default suffixed to the resource identifier \
             (application ID URI)."
        );
        bad_request(1_002_012, "invalid_scope", text)
    }

    /// More than one scope, of which at least one is `.default`.
    pub(super) fn several_scopes(scope: &str) -> EntraError {
        let text = format!(
            "The provided request must include a 'scope' input parameter. The provided value for the \
             input parameter 'scope' is not valid. The scope {scope} is not valid."
        );
        bad_request(70011, "invalid_scope", text)
    }

    pub(super) fn resource_not_supported() -> EntraError {
        bad_request(901_002, "invalid_request", "The 'resource' request parameter is not supported.".to_owned())
    }

    pub(super) fn generic_tenant() -> EntraError {
        let text = "No tenant-identifying information found in either the request or implied by any provided \
                    credentials.";
        bad_request(50059, "invalid_request", text.to_owned())
    }

    pub(super) fn malformed_tenant(tenant: &str) -> EntraError {
        let text =
            format!("Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain.");
        bad_request(900_023, "invalid_request", text)
    }

    pub(super) fn not_a_post(method: &Method) -> EntraError {
        let text = format!("The endpoint only accepts POST, OPTIONS requests. Received a {method} request.");
        bad_request(900_561, "invalid_request", text)
    }

    pub(super) fn client_not_found(client_id: &str, tenant: &str) -> EntraError {
        let text = format!(
            "Application with identifier '{client_id}' was not found in the directory \
             '{tenant}'. This can happen if the application has not been installed by the \
             administrator of the tenant or consented to by any user in the tenant. You may \
             have sent your authentication request to the wrong tenant."
        );
        bad_request(700_016, "unauthorized_client", text)
    }

    pub(super) fn unknown_resource(resource: &str, tenant: &str) -> EntraError {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named \
             {tenant}. This can happen if the application has not been installed by the \
             administrator of the tenant or consented to by any user in the tenant. You might \
             have sent your authentication request to the wrong tenant."
        );
        bad_request(500_011, "invalid_resource", text)
    }

    pub(super) fn no_credential() -> EntraError {
        let text = "'client_assertion', 'client_secret' or 'request' is required for the \
                    'client_credentials' grant type.";
        invalid_client(7_000_216, text.to_owned())
    }

    pub(super) fn wrong_secret(client_id: &str) -> EntraError {
        let text = format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the \
             client secret value, not the client secret ID, for a secret added to app \
             '{client_id}'."
        );
        invalid_client(7_000_215, text)
    }

    pub(super) fn expired_secret(client_id: &str) -> EntraError {
        let text = format!(
            "The provided client secret keys for app '{client_id}' are expired. Visit the Azure \
             portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider \
             using certificate credentials for added security: https://aka.ms/certCreds."
        );
        invalid_client(7_000_222, text)
    }

    pub(super) fn no_federation(client_id: &str) -> EntraError {
        let text = format!("The client '{client_id}'({client_id}) has no configured federated identity credentials.");
        invalid_client(70_025, text)
    }

    pub(super) fn no_matching_issuer(issuer: &str) -> EntraError {
        no_match(700_211, "issuer", issuer)
    }

    pub(super) fn no_matching_audience(audience: &str) -> EntraError {
        no_match(700_212, "audience", audience)
    }

    pub(super) fn no_matching_subject(subject: &str) -> EntraError {
        no_match(700_213, "subject", subject)
    }

    /// Times are Unix seconds.
    pub(super) fn assertion_out_of_time(now: i64, not_before: Option<i64>, expires: i64) -> EntraError {
        let text = format!(
            "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, expiry \
             time of assertion {}. Review the documentation at \
             https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
            formatted(now),
            not_before.map_or_else(|| "-".to_owned(), formatted),
            formatted(expires)
        );
        invalid_client(700_024, text)
    }

    pub(super) fn malformed_assertion(detail: Option<&str>) -> EntraError {
        let detail = detail.map_or_else(String::new, |detail| format!(" {detail}"));
        bad_request(50_027, "invalid_request", format!("JWT token is invalid or malformed.{detail}"))
    }

    pub(super) fn unknown_assertion_type() -> EntraError {
        bad_request(90_011, "invalid_request", "Unexpected client assertion type.".to_owned())
    }

    pub(super) fn issuer_not_reachable(issuer: &str) -> EntraError {
        let text = format!("Request to External OIDC endpoint failed: no keys are known for the issuer '{issuer}'.");
        bad_request(50_166, "invalid_request", text)
    }

    pub(super) fn unknown_signing_key() -> EntraError {
        let text = "Unable to verify token signature. The signing key identifier does not match any valid \
                    registered keys.";
        invalid_client(5_000_811, text.to_owned())
    }

    pub(super) fn bad_federated_signature() -> EntraError {
        invalid_client(50_013, "Assertion failed signature validation.".to_owned())
    }

    pub(super) fn assertion_of_another_client() -> EntraError {
        let text = "Client assertion application identifier doesn't match 'client_id' parameter. Review the \
                    documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .";
        invalid_client(700_021, text.to_owned())
    }

    pub(super) fn wrong_assertion_audience(audience: &str) -> EntraError {
        let text = format!("Client assertion audience claim does not match Realm issuer. Found '{audience}'.");
        invalid_client(700_023, text)
    }

    pub(super) fn unknown_certificate(reason: &str, thumbprint: &str, client_id: &str) -> EntraError {
        let text = format!(
            "The certificate with identifier used to sign the client assertion is not registered on application. \
             [Reason - {reason}, Thumbprint of key used by client: '{thumbprint}', Please visit the Azure Portal, \
             Graph Explorer or directly use MS Graph to see configured keys for app Id '{client_id}'."
        );
        invalid_client(700_027, text)
    }

    pub(super) fn bad_certificate_signature() -> EntraError {
        invalid_client(700_027, "Client assertion failed signature validation.".to_owned())
    }

    pub(super) fn unknown_instance() -> EntraError {
        let text = "Unknown or invalid instance.".to_owned();
        bad_request(50_049, "invalid_instance", text)
    }

    /// The error that the service sends with an injected status.
    pub(super) fn for_status(status: StatusCode) -> EntraError {
        let (code, error, text) = match status.as_u16() {
            429 => (90_055, "temporarily_unavailable", "There are too many incoming requests. Try again later."),
            401 => (7_000_215, "invalid_client", "Invalid client secret provided."),
            500..=599 => (90_033, "temporarily_unavailable", "A transient error has occurred. Please try again."),
            _ => (90_014, "invalid_request", "The request is malformed or invalid."),
        };
        EntraError { code, error, status, text: text.to_owned() }
    }

    /// The number after `AADSTS`.
    #[cfg(test)]
    pub(super) fn code(&self) -> u32 {
        self.code
    }

    /// The response in the service's form, with new ids.
    pub(super) fn response(&self, request: &ParsedRequest) -> BufferedResponse {
        if request.is_adfs() {
            return self.adfs_response();
        }
        let timestamp = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let trace_id = random::guid();
        let correlation_id = request.client_request_id.clone().unwrap_or_else(random::guid);
        let description = format!(
            "AADSTS{}: {} Trace ID: {trace_id} Correlation ID: {correlation_id} \
             Timestamp: {timestamp}",
            self.code, self.text
        );
        let document = json!({
            "error": self.error,
            "error_description": description,
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": format!("https://{}/error?code={}", request.host, self.code),
        });
        let code = self.code.to_string();
        BufferedResponse::json(self.status, &document).header(HeaderName::from_static("x-ms-error-code"), &code)
    }

    /// The response of AD FS, which has other numbers and fewer fields.
    fn adfs_response(&self) -> BufferedResponse {
        let number = match self.error {
            "invalid_client" => "MSIS9622",
            "unauthorized_client" => "MSIS9607",
            "unsupported_grant_type" => "MSIS9611",
            "invalid_resource" | "invalid_scope" => "MSIS9602",
            _ => "MSIS9600",
        };
        let status = if self.status.is_server_error() { self.status } else { StatusCode::BAD_REQUEST };
        let document = json!({ "error": self.error, "error_description": format!("{number}: {}", self.text) });
        BufferedResponse::json(status, &document)
    }
}

/// Unix seconds as `2026-11-22T02:24:26.0000000Z`.
fn formatted(seconds: i64) -> String {
    let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    moment.strftime("%Y-%m-%dT%H:%M:%S.0000000Z").to_string()
}

fn no_match(code: u32, what: &str, found: &str) -> EntraError {
    let text = format!(
        "No matching federated identity record found for presented assertion {what} '{found}'. Check your federated \
         identity credential Subject, Audience and Issuer against the presented assertion. \
         https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
    );
    invalid_client(code, text)
}

fn bad_request(code: u32, error: &'static str, text: String) -> EntraError {
    EntraError { code, error, status: StatusCode::BAD_REQUEST, text }
}

fn invalid_client(code: u32, text: String) -> EntraError {
    EntraError { code, error: "invalid_client", status: StatusCode::UNAUTHORIZED, text }
}
