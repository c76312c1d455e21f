//! Setting up who there is: tenants, applications, issuers, managed identities, and their tokens.
//!
//! Every application can have a secret, certificates and federated credentials at once.
//! What they may do in a vault is granted next door.

use std::time::Duration;

use super::{Azure, must};
use crate::directory::Federation;
use crate::entra::BINDING_AUDIENCE;
use crate::issuer::Issuer;
use crate::key_set::KeySet;
use crate::world::now;

impl Azure {
    /// Adds a tenant.
    pub fn add_tenant(&self, tenant: &str) {
        self.shared.world().directory.add_tenant(tenant);
    }

    /// Adds a client, or gives a known one a new secret that is not expired.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_client(&self, tenant: &str, client_id: &str, client_secret: &str) {
        must(self.world(|world| world.add_client(tenant, client_id, client_secret).map(|_| ())));
    }

    /// Lets the client's secret expire, so that Entra ID answers AADSTS7000222.
    ///
    /// # Panics
    /// If the client was not added.
    #[track_caller]
    pub fn expire_client_secret(&self, tenant: &str, client_id: &str) {
        must(self.world(|world| {
            world.client(tenant, client_id)?.expired = true;
            Ok(())
        }));
    }

    /// Sets how long new tokens of a tenant live, or of one client in it.
    ///
    /// # Panics
    /// If the tenant or the client was not added.
    #[track_caller]
    pub fn set_token_lifetime(&self, tenant: &str, client_id: Option<&str>, lifetime: Duration) {
        must(self.world(|world| {
            match client_id {
                Some(client_id) => {
                    world.client(tenant, client_id)?.token_lifetime = Some(lifetime);
                }
                None => world.tenant(tenant)?.token_lifetime = Some(lifetime),
            }
            Ok(())
        }));
    }

    /// Revokes the tokens that a client has now; returns how many there were.
    pub fn revoke_tokens(&self, client_id: &str) -> usize {
        self.shared.world().directory.revoke_tokens(client_id)
    }

    /// Lets the tokens that a client has now expire; returns how many there were.
    pub fn expire_tokens(&self, client_id: &str) -> usize {
        let mut world = self.shared.world();
        world.directory.expire_tokens(client_id, now())
    }

    /// Every token handed out, oldest first, for tests that look for leaks.
    pub fn issued_tokens(&self) -> Vec<String> {
        self.shared.world().directory.issued_tokens()
    }

    /// Adds an application without a secret; one that is there stays as it is.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_application(&self, tenant: &str, client_id: &str) {
        must(self.world(|world| world.add_application(tenant, client_id).map(|_| ())));
    }

    /// Lets an application, which is added if need be, sign assertions with the key of a certificate in DER.
    ///
    /// # Panics
    /// If the tenant was not added, or the certificate does not parse.
    #[track_caller]
    pub fn add_client_certificate(&self, tenant: &str, client_id: &str, der: &[u8]) {
        must(self.world(|world| world.add_client_certificate(tenant, client_id, der)));
    }

    /// Takes all certificates of an application away.
    ///
    /// # Panics
    /// If the client was not added.
    #[track_caller]
    pub fn remove_client_certificates(&self, tenant: &str, client_id: &str) {
        must(self.world(|world| {
            world.client(tenant, client_id)?.certificates.clear();
            Ok(())
        }));
    }

    /// Lets tokens of an issuer with this subject and audience speak for an application, which is added if
    /// need be. With the audience `api://AKSIdentityBinding` it is a binding, known to token proxies only.
    ///
    /// # Panics
    /// If the tenant was not added, or the application has 20 federated credentials already.
    #[track_caller]
    pub fn add_federated_credential(&self, tenant: &str, client_id: &str, issuer: &str, subject: &str, audience: &str) {
        let own = |text: &str| text.to_owned();
        let federation = Federation { issuer: own(issuer), subject: own(subject), audience: own(audience) };
        must(self.world(|world| world.add_federation(tenant, client_id, federation)));
    }

    /// Takes all federated credentials of an application away.
    ///
    /// # Panics
    /// If the client was not added.
    #[track_caller]
    pub fn remove_federated_credentials(&self, tenant: &str, client_id: &str) {
        must(self.world(|world| {
            world.client(tenant, client_id)?.federations.clear();
            Ok(())
        }));
    }

    /// Lets an application, which is added if need be, have tokens through a cluster's token proxy for the
    /// service account that is `subject`.
    ///
    /// # Panics
    /// As [`Azure::add_federated_credential`].
    #[track_caller]
    pub fn add_identity_binding(&self, tenant: &str, client_id: &str, issuer: &str, subject: &str) {
        self.add_federated_credential(tenant, client_id, issuer, subject, BINDING_AUDIENCE);
    }

    /// The issuer of this address, with a key that is made on first use and known to Entra ID.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[track_caller]
    pub fn add_issuer(&self, issuer_url: &str) -> Issuer {
        must(self.world(|world| world.add_issuer(issuer_url)))
    }

    /// Lets Entra ID know the keys of an issuer that exists elsewhere, as its JWKS document has them; known ones are
    /// replaced.
    ///
    /// # Panics
    /// If the document has no RSA key.
    #[track_caller]
    pub fn set_issuer_keys(&self, issuer_url: &str, jwks: &str) {
        let keys = must(KeySet::parse(jwks));
        self.shared.world().key_sets.insert(issuer_url.to_owned(), keys);
    }

    /// Gives the machine a user-assigned managed identity.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_managed_identity(&self, tenant: &str, client_id: &str) {
        must(self.world(|world| world.add_managed_identity(tenant, client_id, false)));
    }

    /// Gives the machine its system-assigned managed identity, in place of the one that it had.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_system_identity(&self, tenant: &str, client_id: &str) {
        must(self.world(|world| world.add_managed_identity(tenant, client_id, true)));
    }

    /// Takes a managed identity away from the machine; its tokens stay good.
    pub fn remove_managed_identity(&self, client_id: &str) {
        self.shared.world().machine.remove(client_id);
    }
}
