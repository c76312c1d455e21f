//! The resource that a token request asks for: the scope of the v2.0 endpoint, as a resource.
//!
//! Pure. The table in docs/azure-emulator.md has the source of each rule.

use super::errors::EntraError;

/// Scopes of `OpenID` Connect, which are for users. Client libraries append them to every request,
/// and the client credentials flow ignores them.
const OPENID_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// The resource of a scope that names none.
const MICROSOFT_GRAPH: &str = "https://graph.microsoft.com";

/// The resource of a scope parameter: everything before the last slash of its only `.default`.
///
/// A resource with a trailing slash therefore has two slashes in its scope.
pub(super) fn resource_of(scope: &str) -> Result<&str, EntraError> {
    let mut scopes = scope.split_ascii_whitespace().filter(|one| !OPENID_SCOPES.contains(one));
    let (first, others) = (scopes.next(), scopes.collect::<Vec<_>>());
    let default = first.and_then(resource_of_default);
    match default {
        Some(resource) if others.is_empty() => Ok(resource),
        None if others.iter().all(|one| resource_of_default(one).is_none()) => {
            Err(EntraError::not_a_default_scope(scope))
        }
        _ => Err(EntraError::several_scopes(scope)),
    }
}

/// `None` for a scope other than `.default`.
fn resource_of_default(scope: &str) -> Option<&str> {
    match scope.strip_suffix(".default")? {
        "" => Some(MICROSOFT_GRAPH),
        resource => resource.strip_suffix('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_default_scope_names_the_resource_whatever_openid_scopes_are_beside_it() {
        let cases = [
            ("https://vault.azure.net/.default", "https://vault.azure.net"),
            ("https://vault.azure.net//.default", "https://vault.azure.net/"),
            ("https://vault.azure.net/.default openid offline_access profile", "https://vault.azure.net"),
            ("openid profile offline_access email https://vault.azure.net//.default", "https://vault.azure.net/"),
            ("cfa8b339-82a2-471a-a3c9-0fc0be7a4093/.default", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"),
            (".default", "https://graph.microsoft.com"),
        ];
        for (scope, resource) in cases {
            assert_eq!(resource_of(scope).unwrap(), resource, "{scope}");
        }
    }

    #[test]
    fn other_scopes_are_refused_by_their_number_of_defaults() {
        let cases = [
            ("https://vault.azure.net", 1_002_012),
            ("https://vault.azure.net/user_impersonation", 1_002_012),
            ("https://vault.azure.net.default", 1_002_012),
            ("https%3A%2F%2Fvault.azure.net%2F.default", 1_002_012),
            ("openid offline_access profile", 1_002_012),
            ("https://vault.azure.net/a https://vault.azure.net/b openid", 1_002_012),
            ("https://vault.azure.net/.default https://management.azure.com/.default", 70011),
            ("https://vault.azure.net/.default https://vault.azure.net/user_impersonation", 70011),
            ("https://vault.azure.net/user_impersonation https://vault.azure.net/.default", 70011),
        ];
        for (scope, code) in cases {
            assert_eq!(resource_of(scope).unwrap_err().code(), code, "{scope}");
        }
    }
}
