//! The managed identities of the virtual machine whose metadata service is emulated.
//!
//! Pure: it selects an identity by the rules of the metadata service and issues nothing.

use std::collections::BTreeMap;

use crate::error::{SetupError, invalid};

/// Identities by client id. All texts are in lower case: Azure compares ids without case.
#[derive(Debug, Default)]
pub(crate) struct MachineIdentities {
    /// The client id of the system-assigned identity.
    system: Option<String>,
    identities: BTreeMap<String, Identity>,
}

#[derive(Debug, Clone, Default)]
struct Identity {
    tenant: String,
    object_id: Option<String>,
    resource_id: Option<String>,
}

/// How a request names an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdentitySelector<'a> {
    /// The system-assigned identity, or the only user-assigned one.
    Default,
    ClientId(&'a str),
    ObjectId(&'a str),
    ResourceId(&'a str),
}

impl MachineIdentities {
    /// Adds a user-assigned identity, or replaces the system-assigned one.
    pub(crate) fn add(&mut self, tenant: &str, client: &str, system: bool) {
        let client = client.to_ascii_lowercase();
        if system && let Some(replaced) = self.system.replace(client.clone()).filter(|replaced| *replaced != client) {
            self.identities.remove(&replaced);
        }
        self.identities.entry(client).or_default().tenant = tenant.to_ascii_lowercase();
    }

    /// Sets the other two ids of an identity; an empty one is not changed.
    pub(crate) fn set_ids(&mut self, client: &str, object_id: &str, resource_id: &str) -> Result<(), SetupError> {
        let identity = self.identities.get_mut(&client.to_ascii_lowercase());
        let identity =
            identity.ok_or_else(|| invalid("managed identity", client, "the client id of one that was added"))?;
        let given = |id: &str| (!id.is_empty()).then(|| id.to_ascii_lowercase());
        identity.object_id = given(object_id).or(identity.object_id.take());
        identity.resource_id = given(resource_id).or(identity.resource_id.take());
        Ok(())
    }

    pub(crate) fn remove(&mut self, client: &str) {
        let client = client.to_ascii_lowercase();
        self.identities.remove(&client);
        self.system.take_if(|system| *system == client);
    }

    /// The client and tenant of a request.
    pub(crate) fn select(&self, selector: IdentitySelector<'_>) -> Result<(String, String), &'static str> {
        let is = |id: &Option<String>, wanted: &str| id.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(wanted));
        let found = match selector {
            IdentitySelector::Default => self.default_identity()?,
            IdentitySelector::ClientId(id) => self.identities.get_key_value(&id.to_ascii_lowercase()),
            IdentitySelector::ObjectId(id) => self.identities.iter().find(|(_, known)| is(&known.object_id, id)),
            IdentitySelector::ResourceId(id) => self.identities.iter().find(|(_, known)| is(&known.resource_id, id)),
        };
        let (client, identity) = found.ok_or("Identity not found")?;
        Ok((client.clone(), identity.tenant.clone()))
    }

    fn default_identity(&self) -> Result<Option<(&String, &Identity)>, &'static str> {
        if let Some(system) = &self.system {
            return Ok(self.identities.get_key_value(system));
        }
        if self.identities.len() > 1 {
            return Err("Multiple user assigned identities exist, please specify the clientId / resourceId of the \
                        identity in the token request");
        }
        Ok(self.identities.first_key_value())
    }
}
