//! The clouds: which login host belongs to which vault suffix.
//!
//! Names only, no tenants and no vaults. The public clouds are built in; the names of
//! `Options::dns_names` form the custom cloud.

/// Resources other than Key Vault, so that a test can get a valid token with the wrong audience.
const OTHER_RESOURCES: [&str; 3] =
    ["https://management.azure.com", "https://management.core.windows.net", "https://graph.microsoft.com"];

/// Key Vault's application id, which Entra ID accepts as a resource in every cloud.
pub(crate) const KEY_VAULT_APP: &str = "cfa8b339-82a2-471a-a3c9-0fc0be7a4093";

/// The login host of Azure public.
pub(crate) const PUBLIC_LOGIN_HOST: &str = "login.microsoftonline.com";

/// One cloud; the preferred login host is the first.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    pub(crate) login_hosts: Vec<String>,
    pub(crate) suffixes: Vec<String>,
    /// Whether it comes from the options; only such a cloud can have AD FS.
    pub(crate) custom: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Clouds {
    all: Vec<Cloud>,
}

impl Clouds {
    /// The public clouds, and a custom one if `dns_names` is not empty.
    ///
    /// A name that starts with `*.` is a vault suffix, any other is a login host.
    pub(crate) fn new(dns_names: &[String]) -> Clouds {
        let mut all = vec![
            cloud(&[PUBLIC_LOGIN_HOST], "vault.azure.net"),
            cloud(&["login.microsoftonline.us"], "vault.usgovcloudapi.net"),
            // For China, instance discovery prefers the second host.
            cloud(&["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"], "vault.azure.cn"),
            cloud(&["login.microsoftonline.de"], "vault.microsoftazure.de"),
        ];
        if !dns_names.is_empty() {
            let lower = dns_names.iter().map(|name| name.to_ascii_lowercase());
            let (wild, plain): (Vec<_>, Vec<_>) = lower.partition(|name| name.starts_with("*."));
            let suffixes = wild.iter().map(|name| name[2..].to_owned()).collect();
            all.push(Cloud { login_hosts: plain, suffixes, custom: true });
        }
        Clouds { all }
    }

    /// The clouds, built-in ones first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cloud> {
        self.all.iter()
    }

    /// The DNS names that the server's certificate must have.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        let hosts = self.all.iter().flat_map(|cloud| {
            let wild = cloud.suffixes.iter().map(|suffix| format!("*.{suffix}"));
            cloud.login_hosts.iter().cloned().chain(wild)
        });
        hosts.collect()
    }

    /// The cloud with this login host.
    pub(crate) fn of_login_host(&self, host: &str) -> Option<&Cloud> {
        self.all.iter().find(|cloud| cloud.login_hosts.iter().any(|known| known == host))
    }

    /// The cloud with this vault suffix.
    pub(crate) fn of_suffix(&self, suffix: &str) -> Option<&Cloud> {
        self.all.iter().find(|cloud| cloud.suffixes.iter().any(|known| known == suffix))
    }

    /// Splits `name.suffix` if the suffix belongs to a cloud and the name is a single label.
    pub(crate) fn split_vault_host<'h>(&self, host: &'h str) -> Option<(&'h str, &'h str)> {
        let (name, suffix) = host.split_once('.')?;
        (!name.is_empty() && self.of_suffix(suffix).is_some()).then_some((name, suffix))
    }

    /// The vault suffixes, for error texts.
    pub(crate) fn suffixes(&self) -> Vec<&str> {
        self.all.iter().flat_map(|cloud| cloud.suffixes.iter().map(String::as_str)).collect()
    }

    /// The login host in the challenge of a vault with this suffix.
    pub(crate) fn authority(&self, suffix: &str) -> &str {
        self.of_suffix(suffix).and_then(|cloud| cloud.login_hosts.first()).map_or(PUBLIC_LOGIN_HOST, String::as_str)
    }
}

impl Cloud {
    /// Whether Entra ID of this cloud issues tokens for `resource`, without a trailing slash.
    pub(crate) fn knows_resource(&self, resource: &str) -> bool {
        resource == KEY_VAULT_APP
            || OTHER_RESOURCES.contains(&resource)
            || resource.strip_prefix("https://").is_some_and(|host| self.suffixes.iter().any(|suffix| suffix == host))
    }
}

fn cloud(login_hosts: &[&str], suffix: &str) -> Cloud {
    let login_hosts = login_hosts.iter().map(|&host| host.to_owned()).collect();
    Cloud { login_hosts, suffixes: vec![suffix.to_owned()], custom: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_labels_under_a_known_suffix_are_vaults() {
        let clouds = Clouds::new(&["*.Vault.Stack.Test".to_owned()]);
        assert_eq!(clouds.split_vault_host("a.vault.azure.net"), Some(("a", "vault.azure.net")));
        assert_eq!(clouds.split_vault_host("a.vault.stack.test"), Some(("a", "vault.stack.test")));
        for host in ["vault.azure.net", ".vault.azure.net", "a.b.vault.azure.net", "a.vault.azure.net.evil", "a", ""] {
            assert_eq!(clouds.split_vault_host(host), None, "{host}");
        }
    }

    #[test]
    fn a_custom_cloud_without_a_login_host_uses_the_public_one() {
        let clouds = Clouds::new(&["*.vault.stack.test".to_owned()]);
        assert_eq!(clouds.authority("vault.stack.test"), "login.microsoftonline.com");
        assert_eq!(clouds.authority("vault.usgovcloudapi.net"), "login.microsoftonline.us");
    }

    #[test]
    fn a_cloud_issues_no_tokens_for_the_vaults_of_another_cloud() {
        let clouds = Clouds::new(&[]);
        let public = clouds.of_login_host("login.microsoftonline.com").expect("built in");
        assert!(public.knows_resource("https://vault.azure.net"));
        assert!(!public.knows_resource("https://vault.azure.cn"));
        assert!(!public.knows_resource("vault.azure.net"));
    }
}
