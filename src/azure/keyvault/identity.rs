//! The credentials for vaults, and the identity of each.
//!
//! Sends nothing: `session` makes token requests of a credential. Caches are keyed by identity, so
//! that an object or token of one identity is never returned to another.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::cloud::Cloud;
use super::key_pair::LoginCertificate;
use super::names::{TenantId, is_client_id};
use super::service_account::ServiceAccountToken;
use crate::model::{ExposeSecret as _, SecretString};

/// What proves an identity.
pub enum Credential {
    /// A service principal with a client secret
    /// (docs/reference/azure-provider.md#service-principal).
    ClientSecret {
        /// The application's id.
        client_id: String,
        /// The application's secret.
        client_secret: SecretString,
    },
    /// A service principal with a certificate.
    ClientCertificate {
        /// The application's id.
        client_id: String,
        /// The pod's namespace, in whose turn the key is read.
        namespace: String,
        /// A certificate of the application.
        certificate: LoginCertificate,
    },
    /// A pod's service account, federated with an application or a managed identity
    /// (docs/reference/azure-provider.md#workload-identity).
    WorkloadIdentity {
        /// The id of the application or managed identity.
        client_id: String,
        /// The service account with its token for Entra ID's audience.
        account: ServiceAccountToken,
    },
    /// The same through the token proxy of an AKS cluster
    /// (docs/reference/azure-provider.md#identity-binding); another identity, even for the same
    /// pod.
    IdentityBinding {
        /// The id of the managed identity.
        client_id: String,
        /// The service account with its token for the proxy's audience.
        account: ServiceAccountToken,
    },
    /// The node's own identity (docs/reference/azure-provider.md#managed-identity).
    ManagedIdentity {
        /// The client id of a user-assigned identity; `None` is the system-assigned one.
        client_id: Option<String>,
    },
}

/// The identity of a credential for Entra ID: credentials with the same one may share tokens and
/// objects.
///
/// A digest, from which no secret can be recovered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity([u8; 32]);

impl Credential {
    /// The identity of this credential, in a tenant of a cloud (docs/decisions.md#d6).
    ///
    /// A changed client secret, certificate or private key, or another service account, is another
    /// identity. Another token of the same service account is not.
    pub fn identity(&self, tenant: &TenantId, cloud: &Cloud) -> Identity {
        let (tenant, id) = (tenant.as_str().to_ascii_lowercase(), self.id().to_ascii_lowercase());
        let parts: [&[u8]; 3] = [cloud.authority().as_bytes(), tenant.as_bytes(), id.as_bytes()];
        let rest: [&[u8]; 3] = match self {
            Credential::ClientSecret { client_secret, .. } => {
                [b"secret", client_secret.expose_secret().as_bytes(), b""]
            }
            Credential::ClientCertificate { certificate, .. } => {
                [b"certificate", &certificate.facts().thumbprint, &certificate.facts().key]
            }
            Credential::WorkloadIdentity { account, .. } => {
                [b"workload", account.namespace().as_bytes(), account.name().as_bytes()]
            }
            Credential::IdentityBinding { account, .. } => {
                [b"binding", account.namespace().as_bytes(), account.name().as_bytes()]
            }
            Credential::ManagedIdentity { client_id: Some(_) } => [b"user-assigned", b"", b""],
            Credential::ManagedIdentity { client_id: None } => [b"system-assigned", b"", b""],
        };
        let mut digest = Sha256::new();
        for part in parts.into_iter().chain(rest) {
            // With the length, so that "ab" and "c" differ from "a" and "bc".
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Identity(digest.finalize().into())
    }

    /// The client id, if it has the form of one; see [`is_client_id`].
    pub(super) fn client_id(&self) -> Option<String> {
        Some(self.id()).filter(|id| is_client_id(id)).map(str::to_owned)
    }

    pub(super) fn service_account(&self) -> Option<&ServiceAccountToken> {
        match self {
            Credential::WorkloadIdentity { account, .. } | Credential::IdentityBinding { account, .. } => Some(account),
            Credential::ClientSecret { .. }
            | Credential::ClientCertificate { .. }
            | Credential::ManagedIdentity { .. } => None,
        }
    }

    /// The client id as it was given; may be a swapped secret, see [`is_client_id`].
    pub(super) fn id(&self) -> &str {
        match self {
            Credential::ClientSecret { client_id, .. }
            | Credential::ClientCertificate { client_id, .. }
            | Credential::WorkloadIdentity { client_id, .. }
            | Credential::IdentityBinding { client_id, .. } => client_id,
            Credential::ManagedIdentity { client_id } => client_id.as_deref().unwrap_or_default(),
        }
    }
}

/// Without secrets, and with the id only if it has the form of one.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Credential::ClientSecret { .. } => "ClientSecret",
            Credential::ClientCertificate { .. } => "ClientCertificate",
            Credential::WorkloadIdentity { .. } => "WorkloadIdentity",
            Credential::IdentityBinding { .. } => "IdentityBinding",
            Credential::ManagedIdentity { .. } => "ManagedIdentity",
        };
        f.debug_struct(kind).field("client_id", &self.client_id()).finish_non_exhaustive()
    }
}

/// Enough to distinguish identities in a log, too little to verify a guess.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:02x}{:02x})", self.0[0], self.0[1])
    }
}
