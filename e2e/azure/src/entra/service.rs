//! Responds to a request to a login host.

use std::collections::BTreeMap;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName};

use super::discovery;
use super::errors::EntraError;
use super::token::{self, Asked};
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
        EntraOperation::Token(endpoint) => {
            let form = with_basic_credentials(parse_query(&String::from_utf8_lossy(&request.body)), request);
            let asked = Asked { cloud, tenant, endpoint, through_proxy: request.endpoint.is_token_proxy() };
            let granted = token::token(&mut shared.lock(), asked, &form);
            granted.unwrap_or_else(|error| error.response(request))
        }
        EntraOperation::TokenWithoutPost => EntraError::not_a_post(&request.method).response(request),
        EntraOperation::Unknown => not_found(),
    };
    with_service_headers(response, request)
}

/// The client id of a token request, for the journal.
pub(crate) fn client_of_form(body: &[u8]) -> Option<String> {
    parse_query(&String::from_utf8_lossy(body)).remove("client_id")
}

/// Adds id and secret from the `Authorization` header to a form that has none.
fn with_basic_credentials(mut form: BTreeMap<String, String>, request: &ParsedRequest) -> BTreeMap<String, String> {
    if let Some((client_id, secret)) = request.basic() {
        form.entry("client_id".to_owned()).or_insert(client_id);
        form.entry("client_secret".to_owned()).or_insert(secret);
    }
    form
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
