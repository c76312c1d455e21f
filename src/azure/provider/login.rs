//! Pure. The credential for the identity that a class chooses, or the certificate to parse first.
//!
//! One table (docs/reference/azure-provider.md#identity-selection). Only what the chosen identity
//! needs is read: tokens and Secrets of other identities are ignored.

use super::credentials::{CertificateProof, CredentialsError, Proof, service_principal};
use super::error::Error;
use super::params::{IdentityMode, Params};
use super::service_account::{BINDING_AUDIENCE, WORKLOAD_AUDIENCE, service_account};
use crate::azure::keyvault::Credential;
use crate::model::{Caller, ClassRef};

/// How a class logs in.
#[derive(Debug)]
pub(super) enum Login {
    /// With this credential.
    Credential(Credential),
    /// With a certificate, which has to be parsed first.
    Certificate {
        /// The application's id.
        client_id: String,
        /// The certificate.
        proof: CertificateProof,
    },
}

/// Finds how a class logs in.
///
/// # Errors
/// Credentials or tokens that are missing or unusable.
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

/// The error for a Secret that is not a service principal.
pub(super) fn refused(params: &Params, class: &ClassRef, source: CredentialsError) -> Error {
    let near_misses = params.near_misses.clone();
    Error::Credentials { class: class.clone(), vault: params.vault.clone(), source, near_misses }
}
