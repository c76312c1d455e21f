//! Key Vault: what a vault's host answers.
//!
//! Each kind of object has a module that acts once `access` has let the caller in.
//! The order of checks is fixed: token, API version, name, permission, and then the store.

mod operation;

mod access;
mod certificates;
mod keys;
mod secrets;

pub(crate) mod errors;
pub(crate) mod names;
mod paging;
mod wire;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName};
use serde_json::Value;

pub(crate) use self::certificates::read_material;
pub(crate) use self::operation::Operation;

use crate::answer::Answer;
use crate::call::Call;
use crate::content::ObjectKind;
use crate::object::Refusal;
use crate::random;
use crate::vault::Vault;
use crate::world::{Shared, World, now};
use errors::KeyVaultError;

/// The right answer of a host that looks like a vault's.
pub(crate) fn answer(shared: &Shared, call: &Call, host: (&str, &str), operation: &Operation) -> Answer {
    let (name, suffix) = host;
    let mut world = shared.world();
    let World { directory, vaults, .. } = &mut *world;
    let Some(vault) = vaults.get_mut(name).filter(|vault| vault.suffix == suffix) else {
        return no_such_host();
    };
    let authority = shared.clouds.authority(suffix);
    let answer = access::authenticate(call, vault, directory, authority, now())
        .and_then(|caller| perform(call, vault, &caller, operation));
    decorate(answer.unwrap_or_else(|error| error.answer()))
}

/// The checks behind authentication, and the operation.
fn perform(
    call: &Call,
    vault: &mut Vault,
    caller: &access::Caller,
    operation: &Operation,
) -> Result<Answer, KeyVaultError> {
    match call.query.get("api-version").map(String::as_str) {
        None | Some("") => return Err(KeyVaultError::no_api_version()),
        Some(version) if !names::API_VERSIONS.contains(&version) => {
            return Err(KeyVaultError::unknown_api_version(version));
        }
        Some(_) => {}
    }
    operation.check()?;
    if let Some(permission) = operation.permission() {
        access::authorize(vault, caller, operation.on, permission, operation.object())?;
    }
    match operation.on {
        ObjectKind::Secret => secrets::perform(call, vault, &operation.verb, now()),
        ObjectKind::Key => keys::perform(call, vault, &operation.verb, now()),
        ObjectKind::Certificate => certificates::perform(call, vault, &operation.verb, now()),
    }
}

/// The answer of a vault to a status that a fault asks for.
pub(crate) fn answer_of_status(
    shared: &Shared,
    suffix: &str,
    tenant: Option<&str>,
    kind: ObjectKind,
    status: StatusCode,
) -> Answer {
    let mut error = KeyVaultError::for_status(kind, status);
    if status == StatusCode::UNAUTHORIZED {
        let authority = shared.clouds.authority(suffix);
        let tenant = tenant.unwrap_or("common");
        error = error.with_challenge(access::challenge(authority, tenant, suffix, None));
    }
    decorate(error.answer())
}

/// A name that the real DNS would not resolve; the body is not in Key Vault's form on purpose.
pub(crate) fn no_such_host() -> Answer {
    let page = "<html><head><title>404</title></head><body>azure-emulator: no such host. In Azure \
                this name would not resolve; add the vault first.</body></html>";
    Answer::text(StatusCode::NOT_FOUND, "text/html; charset=utf-8", page)
}

fn ok(document: &Value) -> Answer {
    Answer::json(StatusCode::OK, document)
}

/// Gives a version new attributes from the request's body; `found` is its id, if the store has it.
fn update(
    call: &Call,
    vault: &mut Vault,
    (kind, name, version): (ObjectKind, &str, Option<&str>),
    found: Result<String, Refusal>,
    now: i64,
) -> Result<String, KeyVaultError> {
    let change = wire::ObjectBody::parse(&call.body, kind)?.change();
    let label = label(name, version);
    let refused = |refusal| KeyVaultError::refused(kind, refusal, &label);
    let version = found.map_err(refused)?;
    vault.update(kind, name, &version, &change, now).map_err(refused)?;
    Ok(version)
}

/// How an error text names a version.
fn label(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("{name}/{version}"),
        None => name.to_owned(),
    }
}

/// The headers that the real service puts on everything.
fn decorate(answer: Answer) -> Answer {
    let fixed = [
        ("pragma", "no-cache"),
        ("x-ms-keyvault-region", access::REGION),
        ("x-ms-keyvault-service-version", "1.9.2784.1"),
        ("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;"),
        ("x-content-type-options", "nosniff"),
        ("strict-transport-security", "max-age=31536000;includeSubDomains"),
    ];
    let answer =
        answer.header(CACHE_CONTROL, "no-cache").header(HeaderName::from_static("x-ms-request-id"), &random::guid());
    fixed.into_iter().fold(answer, |answer, (name, value)| answer.header(HeaderName::from_static(name), value))
}
