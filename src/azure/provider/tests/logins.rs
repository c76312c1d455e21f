//! The table of docs/reference/azure-provider.md#identity-selection, without its quirks.

use super::service_accounts::jwt;
use super::*;
use crate::azure::keyvault::Credential;
use crate::azure::provider::login::{Login, login};
use crate::model::{self, ClassRef, Reason, TOKENS};

/// What a class and a pod bring; everything but the parameters is a yes or a no.
struct Row {
    parameters: &'static [(&'static str, &'static str)],
    audience: Option<&'static str>,
    secret: bool,
    result: Result<&'static str, &'static str>,
}

fn result(row: &Row) -> Result<String, String> {
    let params = with(row.parameters).map_err(|mistakes| mistakes.to_string())?;
    let tokens = row.audience.map(|audience| format!(r#"{{"{audience}": {{"token": "{}"}}}}"#, jwt("shop", "web")));
    let attributes: Vec<_> = tokens.iter().map(|tokens| (TOKENS, tokens.as_str())).collect();
    let secrets = if row.secret { &[("clientid", "sp"), ("clientsecret", "s")][..] } else { &[] };
    login(&params, &class(), &model::tests::caller(&attributes, secrets)).map(kind).map_err(credentials_missing)
}

fn class() -> ClassRef {
    ClassRef { namespace: "shop".parse().unwrap(), name: "demo".parse().unwrap() }
}

fn credentials_missing(error: Error) -> String {
    assert_eq!(error.reason(), Reason::CredentialsMissing);
    error.to_string()
}

fn kind(login: Login) -> String {
    let credential = match login {
        Login::Credential(credential) => credential,
        Login::Certificate { client_id, .. } => return format!("service principal with certificate {client_id}"),
    };
    let (kind, id) = match credential {
        Credential::ClientSecret { client_id, .. } => ("service principal", client_id),
        Credential::ClientCertificate { client_id, .. } => ("service principal with certificate", client_id),
        Credential::WorkloadIdentity { client_id, account } => {
            assert_eq!((account.namespace(), account.name()), ("shop", "web"));
            ("workload identity", client_id)
        }
        Credential::IdentityBinding { client_id, account } => {
            assert_eq!((account.namespace(), account.name()), ("shop", "web"));
            ("identity binding", client_id)
        }
        Credential::ManagedIdentity { client_id } => ("managed identity", client_id.unwrap_or_default()),
    };
    format!("{kind} {id}")
}

#[test]
fn the_precedence_of_identities_is_a_table() {
    const POD: (&str, &str) = ("usePodIdentity", "true");
    const VM: (&str, &str) = ("useVMManagedIdentity", "true");
    const PROXY: (&str, &str) = ("useAzureTokenProxy", "true");
    const CLIENT: (&str, &str) = ("clientID", "app");
    const USER: (&str, &str) = ("userAssignedIdentityID", "node");
    const WORKLOAD: Option<&str> = Some(WORKLOAD_AUDIENCE);
    const BINDING: Option<&str> = Some(BINDING_AUDIENCE);
    let row = |parameters, audience, secret, result| Row { parameters, audience, secret, result };
    for (number, row) in [
        row(&[], None, true, Ok("service principal sp")),
        row(&[], WORKLOAD, true, Ok("service principal sp")),
        row(&[], None, false, Err("nodePublishSecretRef")),
        row(&[], WORKLOAD, false, Err("nodePublishSecretRef")),
        row(&[USER], None, true, Ok("service principal sp")),
        row(&[CLIENT], WORKLOAD, false, Ok("workload identity app")),
        row(&[CLIENT], WORKLOAD, true, Ok("workload identity app")),
        row(&[CLIENT], None, true, Err("service account tokens not found: add {audience: api://AzureADTokenExchange}")),
        row(&[CLIENT], BINDING, true, Err("token for audience api://AzureADTokenExchange not found")),
        row(&[VM], None, true, Ok("managed identity ")),
        row(&[VM, USER], None, false, Ok("managed identity node")),
        // Upstream fails here: it looks at a token that it would not use
        // (docs/reference/azure-provider.md#identity-selection).
        row(&[VM, CLIENT], None, false, Ok("managed identity ")),
        row(&[VM, CLIENT, USER], BINDING, true, Ok("managed identity node")),
        row(&[PROXY, CLIENT], BINDING, true, Ok("identity binding app")),
        row(&[PROXY, CLIENT], WORKLOAD, true, Err("token for audience api://AKSIdentityBinding not found")),
        row(
            &[PROXY, CLIENT],
            None,
            true,
            Err("service account tokens not found: add {audience: api://AKSIdentityBinding}"),
        ),
        row(&[PROXY], BINDING, true, Err("clientID is not set: useAzureTokenProxy needs")),
        row(&[POD], None, true, Err("use workload identity")),
        row(&[POD, CLIENT], WORKLOAD, true, Err("use workload identity")),
        row(&[POD, VM], None, false, Err("usePodIdentity is true, but so is useVMManagedIdentity")),
        row(&[VM, PROXY, CLIENT], BINDING, false, Err("useVMManagedIdentity is true, but so is useAzureTokenProxy")),
        row(&[POD, PROXY], None, false, Err("choose only one identity mode")),
        row(&[POD, VM, PROXY], None, false, Err("choose only one identity mode")),
    ]
    .into_iter()
    .enumerate()
    {
        match (result(&row), row.result) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "row {number}"),
            (Err(text), Err(words)) => assert!(text.contains(words), "row {number}: {text}"),
            (got, expected) => panic!("row {number}: {got:?} instead of {expected:?}"),
        }
    }
}
