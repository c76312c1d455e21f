//! Pure. From the identity that a class chooses and what the pod brings to the credential that logs in.
//!
//! One table (spec/azure-provider.md §5.2), and only what the chosen identity needs is looked at: a stray token or Secret of
//! another identity does no harm. Control comes from `fetch` and goes on to `keyvault`.

use std::collections::BTreeMap;

use super::credentials::{Proof, service_principal};
use super::error::Error;
use super::params::{IdentityMode, Params};
use super::service_account::{BINDING_AUDIENCE, WORKLOAD_AUDIENCE, service_account};
use crate::keyvault::Credential;
use crate::model::{ClassRef, SecretString};

/// The credential that a class asks for, from the pod's volume context and secrets.
///
/// # Errors
/// What the pod does not bring, or brings in a form that cannot be used.
pub(super) fn credential(
    params: &Params,
    class: &ClassRef,
    context: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, SecretString>,
) -> Result<Credential, Error> {
    let account = |audience| {
        service_account(context, secrets, audience).map_err(|source| Error::Token { class: class.clone(), source })
    };
    match &params.identity {
        IdentityMode::WorkloadIdentity { client_id } => {
            Ok(Credential::WorkloadIdentity { client_id: client_id.clone(), account: account(WORKLOAD_AUDIENCE)? })
        }
        IdentityMode::IdentityBinding { client_id } => {
            Ok(Credential::IdentityBinding { client_id: client_id.clone(), account: account(BINDING_AUDIENCE)? })
        }
        IdentityMode::ManagedIdentity { client_id } => Ok(Credential::ManagedIdentity { client_id: client_id.clone() }),
        IdentityMode::ServicePrincipal => {
            let principal = service_principal(secrets).map_err(|source| Error::Credentials {
                class: class.clone(),
                vault: params.vault.clone(),
                source,
                near_misses: params.near_misses.clone(),
            })?;
            let client_id = principal.client_id;
            Ok(match principal.proof {
                Proof::Secret(client_secret) => Credential::ClientSecret { client_id, client_secret },
                Proof::Certificate(pair) => Credential::ClientCertificate {
                    client_id,
                    certificate_der: pair.certificate,
                    private_key_pkcs8: pair.key,
                },
            })
        }
    }
}
