//! Set-up of tenants, applications, issuers and managed identities, and of their tokens.
//!
//! An application can have a secret, certificates and federated credentials at once.

use std::time::Duration;

use super::handle::{Azure, must};
use crate::clock::now;
use crate::directory::{BINDING_AUDIENCE, Federation};
use crate::issuer::Issuer;
use crate::key_set::KeySet;
use crate::machine::resource_id;

impl Azure {
    /// Adds a tenant.
    pub fn add_tenant(&self, tenant: &str) {
        self.shared.lock().directory.add_tenant(tenant);
    }

    /// Adds a client, or gives an existing one a new secret that has not expired.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_client(&self, tenant: &str, client_id: &str, client_secret: &str) {
        must(self.change(|state| state.add_client(tenant, client_id, client_secret).map(|_| ())));
    }

    /// Makes the client's secret expire, so that Entra ID responds with AADSTS7000222.
    ///
    /// # Panics
    /// If the client was not added.
    #[track_caller]
    pub fn expire_client_secret(&self, tenant: &str, client_id: &str) {
        must(self.change(|state| {
            state.client(tenant, client_id)?.expired = true;
            Ok(())
        }));
    }

    /// Sets the lifetime of new tokens of a tenant, or of one client in it.
    ///
    /// # Panics
    /// If the tenant or the client was not added.
    #[track_caller]
    pub fn set_token_lifetime(&self, tenant: &str, client_id: Option<&str>, lifetime: Duration) {
        must(self.change(|state| {
            match client_id {
                Some(client_id) => {
                    state.client(tenant, client_id)?.token_lifetime = Some(lifetime);
                }
                None => state.tenant(tenant)?.token_lifetime = Some(lifetime),
            }
            Ok(())
        }));
    }

    /// Revokes the tokens that a client has now, and returns how many.
    pub fn revoke_tokens(&self, client_id: &str) -> usize {
        self.shared.lock().directory.revoke_tokens(client_id)
    }

    /// Makes the tokens that a client has now expire, and returns how many.
    pub fn expire_tokens(&self, client_id: &str) -> usize {
        let mut state = self.shared.lock();
        state.directory.expire_tokens(client_id, now())
    }

    /// All issued tokens, oldest first, for tests that search for leaks.
    pub fn issued_tokens(&self) -> Vec<String> {
        self.shared.lock().directory.issued_tokens()
    }

    /// Adds an application without a secret; an existing one does not change.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_application(&self, tenant: &str, client_id: &str) {
        must(self.change(|state| state.add_application(tenant, client_id).map(|_| ())));
    }

    /// Registers a certificate in DER, with whose key an application signs assertions. Adds the
    /// application if it is unknown.
    ///
    /// # Panics
    /// If the tenant was not added, or the certificate does not parse.
    #[track_caller]
    pub fn add_client_certificate(&self, tenant: &str, client_id: &str, der: &[u8]) {
        must(self.change(|state| state.add_client_certificate(tenant, client_id, der)));
    }

    /// Removes all certificates of an application.
    ///
    /// # Panics
    /// If the client was not added.
    #[track_caller]
    pub fn remove_client_certificates(&self, tenant: &str, client_id: &str) {
        must(self.change(|state| {
            state.client(tenant, client_id)?.certificates.clear();
            Ok(())
        }));
    }

    /// Adds a federated credential to an application, which is added if it is unknown. With the
    /// audience `api://AKSIdentityBinding` it is an identity binding, for token proxies only.
    ///
    /// # Panics
    /// If the tenant was not added, or the application has 20 federated credentials already.
    #[track_caller]
    pub fn add_federated_credential(&self, tenant: &str, client_id: &str, issuer: &str, subject: &str, audience: &str) {
        let own = |text: &str| text.to_owned();
        let federation = Federation { issuer: own(issuer), subject: own(subject), audience: own(audience) };
        must(self.change(|state| state.add_federation(tenant, client_id, federation)));
    }

    /// Removes all federated credentials of an application.
    ///
    /// # Panics
    /// If the client was not added.
    #[track_caller]
    pub fn remove_federated_credentials(&self, tenant: &str, client_id: &str) {
        must(self.change(|state| {
            state.client(tenant, client_id)?.federations.clear();
            Ok(())
        }));
    }

    /// Binds a service account, `subject`, to an application: it gets tokens through the token
    /// proxy of a cluster. Adds the application if it is unknown.
    ///
    /// # Panics
    /// As [`Azure::add_federated_credential`].
    #[track_caller]
    pub fn add_identity_binding(&self, tenant: &str, client_id: &str, issuer: &str, subject: &str) {
        self.add_federated_credential(tenant, client_id, issuer, subject, BINDING_AUDIENCE);
    }

    /// The issuer of this address, with a key that is generated on first use and that Entra ID has.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[track_caller]
    pub fn add_issuer(&self, issuer_url: &str) -> Issuer {
        must(self.change(|state| state.add_issuer(issuer_url)))
    }

    /// Gives Entra ID the keys of an external issuer from its JWKS document; replaces earlier ones.
    ///
    /// # Panics
    /// If the document has no RSA key.
    #[track_caller]
    pub fn set_issuer_keys(&self, issuer_url: &str, jwks: &str) {
        let keys = must(KeySet::parse(jwks));
        self.shared.lock().key_sets.insert(issuer_url.to_owned(), keys);
    }

    /// Assigns a user-assigned managed identity to the machine.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_managed_identity(&self, tenant: &str, client_id: &str) {
        must(self.change(|state| state.add_managed_identity(tenant, client_id, false)));
    }

    /// The Azure resource id of a user-assigned managed identity.
    pub fn managed_identity_resource_id(&self, client_id: &str) -> String {
        resource_id(client_id)
    }

    /// The object id of a client, by which the metadata service knows a managed identity, too.
    ///
    /// # Panics
    /// If the client was not added.
    #[track_caller]
    pub fn object_id(&self, tenant: &str, client_id: &str) -> String {
        must(self.change(|state| state.client(tenant, client_id).map(|client| client.object_id.clone())))
    }

    /// Sets the system-assigned managed identity of the machine.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_system_identity(&self, tenant: &str, client_id: &str) {
        must(self.change(|state| state.add_managed_identity(tenant, client_id, true)));
    }

    /// Removes a managed identity from the machine; its tokens stay valid.
    pub fn remove_managed_identity(&self, client_id: &str) {
        self.shared.lock().machine.remove(client_id);
    }
}
