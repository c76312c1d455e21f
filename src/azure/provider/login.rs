//! Pure. From the identity that a class chooses and what the pod brings to the credential that logs in, or to a
//! certificate that has to be read first.
//!
//! One table (docs/reference/azure-provider.md#identity-selection), and only what the chosen
//! identity needs is looked at: a stray token or Secret of another identity does no harm. Control
//! comes from `fetch` and goes on to `keyvault`, by way of `certificate_login` for a certificate.

use super::credentials::{CertificateProof, CredentialsError, Proof, service_principal};
use super::error::Error;
use super::params::{IdentityMode, Params};
use super::service_account::{BINDING_AUDIENCE, WORKLOAD_AUDIENCE, service_account};
use crate::azure::keyvault::Credential;
use crate::model::{Caller, ClassRef};

/// What logs in.
#[derive(Debug)]
pub(super) enum Login {
    /// It is complete.
    Credential(Credential),
    /// The certificate has to be read.
    Certificate {
        /// The application's id.
        client_id: String,
        /// The certificate.
        proof: CertificateProof,
    },
}

/// What logs in as a class asks for, from what the pod brings.
///
/// # Errors
/// What the pod does not bring, or brings in a form that cannot be used.
pub(super) fn login(params: &Params, class: &ClassRef, caller: &Caller) -> Result<Login, Error> {
    let account =
        |audience| service_account(caller, audience).map_err(|source| Error::Token { class: class.clone(), source });
    Ok(Login::Credential(match &params.identity {
        IdentityMode::WorkloadIdentity { client_id } => {
            Credential::WorkloadIdentity { client_id: client_id.clone(), account: account(WORKLOAD_AUDIENCE)? }
        }
        IdentityMode::IdentityBinding { client_id } => {
            Credential::IdentityBinding { client_id: client_id.clone(), account: account(BINDING_AUDIENCE)? }
        }
        IdentityMode::ManagedIdentity { client_id } => Credential::ManagedIdentity { client_id: client_id.clone() },
        IdentityMode::ServicePrincipal => {
            let principal = service_principal(caller.credentials()).map_err(|source| refused(params, class, source))?;
            let client_id = principal.client_id;
            match principal.proof {
                Proof::Secret(client_secret) => Credential::ClientSecret { client_id, client_secret },
                Proof::Certificate(proof) => return Ok(Login::Certificate { client_id, proof }),
            }
        }
    }))
}

/// Why the pod's Secret is no service principal.
pub(super) fn refused(params: &Params, class: &ClassRef, source: CredentialsError) -> Error {
    let near_misses = params.near_misses.clone();
    Error::Credentials { class: class.clone(), vault: params.vault.clone(), source, near_misses }
}
