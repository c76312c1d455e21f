//! Authentication and authorization of requests to a vault.
//!
//! A token is looked up in the directory, and its signature is not verified. The response to a
//! failed authentication has the challenge, which names the authority and the resource.

use super::errors::KeyVaultError;
use crate::clouds::KEY_VAULT_APP;
use crate::content::ObjectKind;
use crate::directory::{Directory, IssuedToken};
use crate::permission::{Access, Permission};
use crate::request::parsed::ParsedRequest;
use crate::vault::Vault;

/// The region of all vaults.
pub(super) const REGION: &str = "westeurope";

/// A client with a valid token for this vault.
#[derive(Debug)]
pub(super) struct Caller {
    client_id: String,
    object_id: String,
    tenant: String,
}

/// Checks the token: known, not revoked, not expired, for Key Vault, and from the vault's tenant.
pub(super) fn authenticate(
    request: &ParsedRequest,
    vault: &Vault,
    directory: &Directory,
    authority: &str,
    now: i64,
) -> Result<Caller, KeyVaultError> {
    let refuse = |message: String, invalid_token: bool| {
        let description = invalid_token.then_some(message.as_str());
        let challenge = challenge(authority, &vault.tenant, &vault.suffix, description);
        Err(KeyVaultError::unauthorized(message, challenge))
    };
    let Some(token) = request.bearer() else {
        let message = "AKV10000: Request is missing a Bearer or PoP token.";
        return refuse(message.to_owned(), false);
    };
    let Some(issued) = directory.lookup(token) else {
        let message = "AKV10046: Unable to resolve the key used for signature validation.";
        return refuse(message.to_owned(), false);
    };
    match token_error(issued, vault, now) {
        Some(message) => refuse(message, true),
        None => Ok(Caller {
            client_id: issued.client_id.clone(),
            object_id: issued.object_id.clone(),
            tenant: issued.tenant.clone(),
        }),
    }
}

/// Why a token that was issued is not valid for this vault.
fn token_error(issued: &IssuedToken, vault: &Vault, now: i64) -> Option<String> {
    let resource = format!("https://{}", vault.suffix);
    let audience = issued.audience.trim_end_matches('/');
    if issued.revoked {
        return Some("AKV10045: The token was revoked.".to_owned());
    }
    if issued.expires <= now {
        return Some("AKV10040: The token is expired.".to_owned());
    }
    if audience != resource && audience != KEY_VAULT_APP {
        return Some(format!("AKV10022: Invalid audience. Expected {resource}, found: {}.", issued.audience));
    }
    if issued.tenant != vault.tenant {
        return Some(format!(
            "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/{}/, found \
             https://sts.windows.net/{}/.",
            vault.tenant, issued.tenant
        ));
    }
    None
}

/// The value of `WWW-Authenticate`; with a description also that the token is not valid.
pub(super) fn challenge(authority: &str, tenant: &str, suffix: &str, description: Option<&str>) -> String {
    let challenge = format!(r#"Bearer authorization="https://{authority}/{tenant}", resource="https://{suffix}""#);
    match description {
        None => challenge,
        Some(text) => format!(r#"{challenge}, error="invalid_token", error_description="{text}""#),
    }
}

pub(super) fn authorize(
    vault: &Vault,
    caller: &Caller,
    kind: ObjectKind,
    permission: Permission,
    object: Option<&str>,
) -> Result<(), KeyVaultError> {
    if vault.allows(&caller.client_id, kind, permission) {
        return Ok(());
    }
    let who =
        format!("appid={};oid={};iss=https://sts.windows.net/{}/", caller.client_id, caller.object_id, caller.tenant);
    let location = format!("{};location={REGION}", vault.name);
    Err(match vault.access {
        Access::Policy => KeyVaultError::forbidden(
            "ForbiddenByPolicy",
            format!(
                "The user, group or application '{who}' does not have {} {} permission on \
                 key vault '{location}'. For help resolving this issue, please see \
                 https://go.microsoft.com/fwlink/?linkid=2125287",
                kind.collection(),
                policy_name(kind, permission)
            ),
        ),
        Access::Rbac => {
            KeyVaultError::forbidden("ForbiddenByRbac", rbac_text(vault, &who, &location, (kind, permission), object))
        }
    })
}

fn rbac_text(
    vault: &Vault,
    who: &str,
    location: &str,
    (kind, permission): (ObjectKind, Permission),
    object: Option<&str>,
) -> String {
    let object = object.map_or_else(String::new, |name| format!("/{}/{name}", kind.collection()));
    format!(
        "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny \
         assignments or role definitions were changed recently, please observe propagation \
         time.\r\nCaller: {who}\r\nAction: '{}'\r\nResource: \
         '/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/emulator/providers/\
         microsoft.keyvault/vaults/{}{object}'\r\nAssignment: (not found)\r\nDenyAssignmentId: \
         null\r\nDecisionReason: 'DeniedWithNoValidRBAC' \r\nVault: {location}\r\n",
        rbac_action(kind, permission),
        vault.name
    )
}

fn policy_name(kind: ObjectKind, permission: Permission) -> &'static str {
    match permission {
        Permission::Get => "get",
        Permission::List => "list",
        Permission::Set if kind == ObjectKind::Secret => "set",
        Permission::Set => "import",
        Permission::Delete => "delete",
        Permission::Recover => "recover",
        Permission::Purge => "purge",
    }
}

fn rbac_action(kind: ObjectKind, permission: Permission) -> String {
    let action = match (kind, permission) {
        (ObjectKind::Secret, Permission::Get) => "getSecret/action",
        (ObjectKind::Secret, Permission::List) => "readMetadata/action",
        (ObjectKind::Secret, Permission::Set) => "setSecret/action",
        (ObjectKind::Key | ObjectKind::Certificate, Permission::Get | Permission::List) => "read",
        (ObjectKind::Key, Permission::Set) => "import/action",
        (ObjectKind::Certificate, Permission::Set) => "import/action",
        (_, Permission::Delete) => "delete",
        (_, Permission::Recover) => "recover/action",
        (_, Permission::Purge) => "purge/action",
    };
    format!("Microsoft.KeyVault/vaults/{}/{action}", kind.collection())
}
