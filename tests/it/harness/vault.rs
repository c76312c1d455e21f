//! Vaults of tests: each in a cloud, with an Entra tenant and a service principal of its own.

use std::collections::BTreeMap;

use azure_emulator::{Counters, Permission};
use keyvault_csi_e2e::kubelet::Volume;

use super::{Harness, STACK, harness};

/// A vault, and the service principal that may read it.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    pub(crate) name: String,
    pub(crate) suffix: String,
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

impl Harness {
    /// A vault of Azure's public cloud in an Entra tenant of its own, with one service principal
    /// that may read it.
    pub(crate) fn vault(&self) -> Vault {
        self.vault_in_cloud("vault.azure.net")
    }

    /// A vault in the cloud with this suffix.
    pub(crate) fn vault_in_cloud(&self, suffix: &str) -> Vault {
        self.vault_in_tenant(suffix, None)
    }

    /// A vault in a cloud and in this Entra tenant, by default one of its own.
    pub(crate) fn vault_in_tenant(&self, suffix: &str, tenant: Option<&str>) -> Vault {
        let number = self.next_number();
        let vault = Vault {
            name: format!("kv-{number:03}"),
            suffix: suffix.to_owned(),
            tenant: tenant.map_or_else(|| format!("tenant-{number:03}.example"), str::to_owned),
            client_id: format!("00000000-0000-4000-9000-{number:012}"),
            client_secret: self.secret("client"),
        };
        let azure = self.azure();
        azure.add_tenant(&vault.tenant);
        azure.add_client(&vault.tenant, &vault.client_id, &vault.client_secret);
        azure.add_vault(&vault.name, suffix, &vault.tenant);
        azure.grant(&vault.name, &vault.client_id, &[Permission::Get, Permission::List]);
        vault
    }
}

impl Vault {
    pub(crate) fn host(&self) -> String {
        format!("{}.{}", self.name, self.suffix)
    }

    /// Sets a secret to a new value and returns the value.
    pub(crate) fn set(&self, name: &str) -> String {
        let value = harness().secret(name);
        harness().azure().set_secret(&self.name, name, &value);
        value
    }

    /// Requests to the vault so far.
    pub(crate) fn counters(&self) -> Counters {
        harness().azure().counters(&self.name)
    }

    /// Requests to the Entra tenant so far.
    pub(crate) fn entra(&self) -> Counters {
        harness().azure().counters(&self.tenant)
    }

    /// The parameters of a class that mounts these secrets.
    pub(crate) fn parameters(&self, secrets: &[&str]) -> BTreeMap<String, String> {
        let objects = secrets.iter().fold("array:\n".to_owned(), |objects, name| {
            objects + "  - |\n    objectName: " + name + "\n    objectType: secret\n"
        });
        self.parameters_of(&objects)
    }

    /// The parameters of a class with this `objects` text.
    pub(crate) fn parameters_of(&self, objects: &str) -> BTreeMap<String, String> {
        [("keyvaultName", self.name.as_str()), ("tenantID", &self.tenant), ("objects", objects)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// A pod's volume with the service principal that may read the vault.
    pub(crate) fn volume(&self, class: &str) -> Volume {
        Volume::of_class("default", "web", class).with_service_principal(&self.client_id, &self.client_secret)
    }
}

/// The file of the custom cloud. `path` is that of its login host:
/// `adfs` with AD FS, otherwise empty.
pub(crate) fn stack_file(path: &str) -> String {
    let environment = serde_json::json!({
        "name": "AzureStackCloud",
        "activeDirectoryEndpoint": format!("https://{}/{path}", STACK.1),
        "keyVaultEndpoint": format!("https://{}/", STACK.0),
        "keyVaultDNSSuffix": STACK.0,
    });
    environment.to_string()
}
