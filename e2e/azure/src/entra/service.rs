//! Responds to a request to a login host.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName};

use super::discovery;
use super::errors::EntraError;
use super::token;
use crate::form::parse_query;
use crate::random;
use crate::request::entra::{ADFS, EntraOperation};
use crate::request::parsed::ParsedRequest;
use crate::response::BufferedResponse;
use crate::state::SharedState;

/// The response without a fault.
pub(crate) fn respond(
    shared: &SharedState,
    request: &ParsedRequest,
    tenant: &str,
    operation: EntraOperation,
) -> BufferedResponse {
    let Some(cloud) = shared.clouds.of_login_host(&request.host) else {
        return not_found();
    };
    if tenant == ADFS && !cloud.custom {
        return not_found();
    }
    let response = match operation {
        EntraOperation::Discovery => discovery::instance(request),
        EntraOperation::Configuration => discovery::configuration(shared, request, tenant),
        EntraOperation::Token => {
            let form = parse_query(&String::from_utf8_lossy(&request.body));
            let granted = token::token(&mut shared.lock(), cloud, tenant, &form, request.endpoint.is_token_proxy());
            granted.unwrap_or_else(|error| error.response(request))
        }
        EntraOperation::Unknown => not_found(),
    };
    with_service_headers(response, request)
}

/// The client id of a token request, for the journal.
pub(crate) fn client_of_form(body: &[u8]) -> Option<String> {
    parse_query(&String::from_utf8_lossy(body)).remove("client_id")
}

/// Adds the headers that the real service sends with every response.
fn with_service_headers(response: BufferedResponse, request: &ParsedRequest) -> BufferedResponse {
    let response = response
        .header(CACHE_CONTROL, "no-store, no-cache")
        .header(HeaderName::from_static("pragma"), "no-cache")
        .header(HeaderName::from_static("x-ms-request-id"), &random::guid());
    match &request.client_request_id {
        Some(id) => response.header(HeaderName::from_static("client-request-id"), id),
        None => response,
    }
}

/// The error that the service sends with an injected status.
pub(crate) fn error_response(request: &ParsedRequest, status: StatusCode) -> BufferedResponse {
    with_service_headers(EntraError::for_status(status).response(request), request)
}

fn not_found() -> BufferedResponse {
    let page = "<html><head><title>Sign in</title></head><body>404: no such page</body></html>";
    BufferedResponse::text(StatusCode::NOT_FOUND, "text/html; charset=utf-8", page)
}
