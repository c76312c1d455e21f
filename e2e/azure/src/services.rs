//! Routes a request to its service: for the correct response, or for the error of an injected
//! status.

use hyper::StatusCode;

use crate::entra;
use crate::imds;
use crate::keyvault;
use crate::request::endpoint::Endpoint;
use crate::request::parsed::{ParsedRequest, Service};
use crate::response::BufferedResponse;
use crate::state::SharedState;
use crate::token_proxy;

/// The response without a fault.
pub(crate) fn respond(shared: &SharedState, request: &ParsedRequest) -> BufferedResponse {
    match &request.service {
        Service::Entra { tenant, operation } => entra::respond(shared, request, tenant, *operation),
        Service::Vault { name, suffix, operation } => keyvault::respond(shared, request, (name, suffix), operation),
        Service::Imds { operation } => imds::respond(shared, request, *operation),
        Service::Unknown if request.endpoint == Endpoint::ApiServer => token_proxy::api_server_response(),
        Service::Unknown => keyvault::no_such_host(),
    }
}

/// The error that the service of the request sends with this status.
pub(crate) fn error_response(shared: &SharedState, request: &ParsedRequest, status: StatusCode) -> BufferedResponse {
    match &request.service {
        Service::Entra { .. } => entra::error_response(request, status),
        Service::Imds { .. } => imds::error_response(status),
        Service::Vault { name, suffix, operation } => {
            let tenant = shared.lock().vaults.get(name).map(|vault| vault.tenant.clone());
            keyvault::error_response(shared, suffix, tenant.as_deref(), operation.object_kind, status)
        }
        Service::Unknown => BufferedResponse::text(status, "text/plain", "azure-emulator: fault"),
    }
}
