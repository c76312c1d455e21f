//! Responds to a request to a vault.
//!
//! The order of checks is that of the real service: token, API version, name, permission, store.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName};

use super::access;
use super::certificates;
use super::checks;
use super::errors::KeyVaultError;
use super::keys;
use super::secrets;
use crate::clock::now;
use crate::content::ObjectKind;
use crate::limits;
use crate::random;
use crate::request::keyvault::VaultOperation;
use crate::request::parsed::ParsedRequest;
use crate::response::BufferedResponse;
use crate::state::{EmulatorState, SharedState};
use crate::vault::Vault;

/// The response without a fault, for a host of the form `name.suffix`.
pub(crate) fn respond(
    shared: &SharedState,
    request: &ParsedRequest,
    host: (&str, &str),
    operation: &VaultOperation,
) -> BufferedResponse {
    let (name, suffix) = host;
    let mut state = shared.lock();
    let EmulatorState { directory, vaults, .. } = &mut *state;
    let Some(vault) = vaults.get_mut(name).filter(|vault| vault.suffix == suffix) else {
        return no_such_host();
    };
    let authority = shared.clouds.authority(suffix);
    let response = access::authenticate(request, vault, directory, authority, now())
        .and_then(|caller| perform(request, vault, &caller, operation));
    with_service_headers(response.unwrap_or_else(|error| error.response()))
}

/// The checks after authentication, and the operation.
fn perform(
    request: &ParsedRequest,
    vault: &mut Vault,
    caller: &access::Caller,
    operation: &VaultOperation,
) -> Result<BufferedResponse, KeyVaultError> {
    match request.query.get("api-version").map(String::as_str) {
        None | Some("") => return Err(KeyVaultError::no_api_version()),
        Some(version) if !limits::API_VERSIONS.contains(&version) => {
            return Err(KeyVaultError::unknown_api_version(version));
        }
        Some(_) => {}
    }
    checks::check_names(operation)?;
    if let Some(permission) = operation.permission() {
        access::authorize(vault, caller, operation.object_kind, permission, operation.object())?;
    }
    match operation.object_kind {
        ObjectKind::Secret => secrets::perform(request, vault, &operation.verb, now()),
        ObjectKind::Key => keys::perform(request, vault, &operation.verb, now()),
        ObjectKind::Certificate => certificates::perform(request, vault, &operation.verb, now()),
    }
}

/// The error that a vault sends with an injected status.
pub(crate) fn error_response(
    shared: &SharedState,
    suffix: &str,
    tenant: Option<&str>,
    kind: ObjectKind,
    status: StatusCode,
) -> BufferedResponse {
    let mut error = KeyVaultError::for_status(kind, status);
    if status == StatusCode::UNAUTHORIZED {
        let authority = shared.clouds.authority(suffix);
        let tenant = tenant.unwrap_or("common");
        error = error.with_challenge(access::challenge(authority, tenant, suffix, None));
    }
    with_service_headers(error.response())
}

/// The response of a host that the real DNS would not resolve; on purpose not in Key Vault's form.
pub(crate) fn no_such_host() -> BufferedResponse {
    let page = "<html><head><title>404</title></head><body>azure-emulator: no such host. In Azure \
                this name would not resolve; add the vault first.</body></html>";
    BufferedResponse::text(StatusCode::NOT_FOUND, "text/html; charset=utf-8", page)
}

/// Adds the headers that the real service sends with every response.
fn with_service_headers(response: BufferedResponse) -> BufferedResponse {
    let fixed = [
        ("pragma", "no-cache"),
        ("x-ms-keyvault-region", access::REGION),
        ("x-ms-keyvault-service-version", "1.9.2784.1"),
        ("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;"),
        ("x-content-type-options", "nosniff"),
        ("strict-transport-security", "max-age=31536000;includeSubDomains"),
    ];
    let response =
        response.header(CACHE_CONTROL, "no-cache").header(HeaderName::from_static("x-ms-request-id"), &random::guid());
    fixed.into_iter().fold(response, |response, (name, value)| response.header(HeaderName::from_static(name), value))
}
