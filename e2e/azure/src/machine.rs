//! The managed identities of the virtual machine whose metadata service is emulated.
//!
//! Pure: it selects an identity by the rules of the metadata service and issues nothing.

use std::collections::BTreeMap;

/// Tenants by client id, both in lower case.
#[derive(Debug, Default)]
pub(crate) struct MachineIdentities {
    system: Option<(String, String)>,
    user: BTreeMap<String, String>,
}

impl MachineIdentities {
    /// Adds a user-assigned identity, or replaces the system-assigned one.
    pub(crate) fn add(&mut self, tenant: &str, client: &str, system: bool) {
        let (tenant, client) = (tenant.to_ascii_lowercase(), client.to_ascii_lowercase());
        if system {
            self.system = Some((client, tenant));
        } else {
            self.user.insert(client, tenant);
        }
    }

    pub(crate) fn remove(&mut self, client: &str) {
        let client = client.to_ascii_lowercase();
        self.user.remove(&client);
        self.system.take_if(|(system, _)| *system == client);
    }

    /// The client and tenant of a request; without a client id, the system-assigned identity or the
    /// only user-assigned one.
    pub(crate) fn select(&self, client_id: Option<&str>) -> Result<(String, String), &'static str> {
        let not_found = "Identity not found";
        if let Some(client) = client_id {
            let client = client.to_ascii_lowercase();
            let system = self.system.as_ref().filter(|(system, _)| *system == client);
            let tenant = self.user.get(&client).or(system.map(|(_, tenant)| tenant));
            return tenant.map(|tenant| (client.clone(), tenant.clone())).ok_or(not_found);
        }
        if let Some(system) = &self.system {
            return Ok(system.clone());
        }
        let mut user = self.user.iter();
        match (user.next(), user.next()) {
            (None, _) => Err(not_found),
            (Some((client, tenant)), None) => Ok((client.clone(), tenant.clone())),
            (Some(_), Some(_)) => Err("Multiple user assigned identities exist, please specify the clientId / \
                                       resourceId of the identity in the token request"),
        }
    }
}
