//! Every way of logging in, and every refusal, as a client that we did not write must see it.
//!
//! Each way has an application of its own, so that the journal shows who read the secret. A script
//! reads `setup.json` and reports one outcome for each line of the tables, in this order.

use std::time::Duration;

use azure_emulator::{Emulator, Kind, Permission, TokenProxyOptions};
use serde_json::{Value, json};

use crate::harness::{SECRET, TENANT, VAULT};
use crate::material::Material;
use crate::sdk_machine::Machine;

/// The names that the logins need.
pub(crate) const NAMES: &[&str] = &[
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.stack.test",
    "kubernetes.default.svc",
    "first-vault.vault.azure.net",
    "other-vault.vault.azure.net",
    "gov-vault.vault.usgovcloudapi.net",
    "stack-vault.vault.stack.test",
    "adfs-vault.vault.stack.test",
];

const OTHER_TENANT: &str = "22222222-aaaa-4bbb-8ccc-000000000022";
const GREETING: &str = "hello\nworld ☃";
const ISSUER: &str = "https://oidc.example/cluster/";
const SUBJECT: &str = "system:serviceaccount:shop:web";
const EXCHANGE: &str = "api://AzureADTokenExchange";
const BINDING: &str = "api://AKSIdentityBinding";

/// The vaults that the applications read.
const VAULTS: [(&str, &str, &str); 5] = [
    (VAULT, "vault.azure.net", TENANT),
    ("other-vault", "vault.azure.net", OTHER_TENANT),
    ("gov-vault", "vault.usgovcloudapi.net", TENANT),
    ("stack-vault", "vault.stack.test", TENANT),
    ("adfs-vault", "vault.stack.test", "adfs"),
];

/// The ways that work: the script's name for each, the number of its application, and the vault.
const GRANTED: [(&str, u32, &str); 17] = [
    ("client secret", 1, VAULT),
    ("certificate, PEM", 2, VAULT),
    ("certificate, PFX", 3, VAULT),
    ("assertion", 4, VAULT),
    ("workload identity", 4, VAULT),
    ("default: secret in the environment", 1, VAULT),
    ("default: workload identity in the environment", 4, VAULT),
    ("default: managed identity", 5, VAULT),
    ("managed identity, system-assigned", 5, VAULT),
    ("managed identity, client id", 6, VAULT),
    ("managed identity, object id", 7, VAULT),
    ("managed identity, resource id", 7, VAULT),
    ("identity binding", 8, VAULT),
    ("tenant of the challenge", 1, "other-vault"),
    ("US government", 1, "gov-vault"),
    ("custom cloud", 1, "stack-vault"),
    ("AD FS", 1, "adfs-vault"),
];

/// A client, where it differs from the tables.
pub(crate) struct Client {
    /// The ways that it does not have.
    pub(crate) without: &'static [&'static str],
    /// The ways that only it has.
    pub(crate) further: &'static [(&'static str, u32, &'static str)],
    /// What it says about a tenant that has no OpenID configuration.
    pub(crate) unknown_tenant: &'static str,
}

/// MSAL for Python is also used without the SDK above it, and hides Entra ID's text about a tenant.
pub(crate) const PYTHON: Client =
    Client { without: &[], further: &MSAL, unknown_tenant: "Unable to get authority configuration" };

/// The SDK for JavaScript reads certificates from PEM only.
pub(crate) const JAVASCRIPT: Client =
    Client { without: &["certificate, PFX"], further: &[], unknown_tenant: "AADSTS90002" };

const MSAL: [(&str, u32, &str); 9] = [
    ("msal: secret", 1, VAULT),
    ("msal: PEM", 2, VAULT),
    ("msal: PEM with thumbprint", 2, VAULT),
    ("msal: PFX", 3, VAULT),
    ("msal: assertion", 4, VAULT),
    ("msal: managed identity, system-assigned", 5, VAULT),
    ("msal: managed identity, client id", 6, VAULT),
    ("msal: managed identity, object id", 7, VAULT),
    ("msal: managed identity, resource id", 7, VAULT),
];

/// What does not work, and the code of the error.
/// That of an unknown tenant depends on the client.
const REFUSED: [(&str, &str); 11] = [
    ("wrong secret", "AADSTS7000215"),
    ("expired secret", "AADSTS7000222"),
    ("unknown application", "AADSTS700016"),
    ("unknown tenant", ""),
    ("unknown certificate", "AADSTS700027"),
    ("forged assertion", "AADSTS50013"),
    ("assertion of another subject", "AADSTS700213"),
    ("unknown managed identity", "Identity not found"),
    ("tenant of the challenge is not allowed", "not configured to acquire tokens for tenant"),
    ("no permission", "Forbidden"),
    ("another cloud", "AADSTS500011"),
];

fn application(number: u32) -> String {
    format!("{number:08}-aaaa-4bbb-8ccc-000000000000")
}

/// Adds tenants, applications and vaults, and writes the files of the client.
pub(crate) fn set_up(machine: &Machine, emulator: &Emulator) {
    let azure = emulator.azure();
    for tenant in [TENANT, OTHER_TENANT, "adfs"] {
        azure.add_tenant(tenant);
        azure.add_client(tenant, &application(1), SECRET);
    }
    azure.add_client(TENANT, &application(9), SECRET);
    azure.expire_client_secret(TENANT, &application(9));
    let (pem, pfx, unknown) = (Material::rsa(), Material::rsa(), Material::rsa());
    azure.add_client_certificate(TENANT, &application(2), &pem.der());
    azure.add_client_certificate(TENANT, &application(3), &pfx.der());
    azure.add_federated_credential(TENANT, &application(4), ISSUER, SUBJECT, EXCHANGE);
    azure.add_system_identity(TENANT, &application(5));
    azure.add_managed_identity(TENANT, &application(6));
    azure.add_managed_identity(TENANT, &application(7));
    azure.add_identity_binding(TENANT, &application(8), ISSUER, SUBJECT);
    azure.add_client(TENANT, &application(10), SECRET);
    for (name, suffix, tenant) in VAULTS {
        azure.add_vault(name, suffix, tenant);
        azure.set_secret(name, "greeting", GREETING);
        for number in 1..=8 {
            azure.grant(name, &application(number), &[Permission::Get]);
        }
    }
    let issuer = azure.add_issuer(ISSUER);
    let token = |subject, audience| issuer.token(subject, audience, Duration::from_secs(3600), Value::Null);
    let assertion = token(SUBJECT, EXCHANGE);
    machine.write("forged", assertion[..assertion.len() - 8].to_owned() + "AAAAAAAA");
    machine.write("assertion", assertion);
    machine.write("other-subject", token("system:serviceaccount:shop:other", EXCHANGE));
    machine.write("binding", token(SUBJECT, BINDING));
    machine.write("client.pem", pem.pem());
    machine.write("client.pfx", pfx.pfx("the-password", &[]));
    machine.write("unknown.pem", unknown.pem());
    let proxy = emulator.start_token_proxy(&TokenProxyOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        cluster_id: "abc123def456".to_owned(),
        path: "/".to_owned(),
    });
    let proxy = proxy.unwrap();
    machine.write("cluster-ca.pem", proxy.ca_pem());
    let document = json!({
        "tenant": TENANT,
        "secret": SECRET,
        "pfx_password": "the-password",
        "pem_thumbprint": sha1_hex(&pem),
        "applications": (0..=10).map(application).collect::<Vec<_>>(),
        "object_id": azure.object_id(TENANT, &application(7)),
        "resource_id": azure.managed_identity_resource_id(&application(7)),
        "vaults": VAULTS.map(|(name, suffix, _)| format!("https://{name}.{suffix}")),
        "token_proxy": format!("https://kubernetes.default.svc:{}", proxy.address().port()),
        "token_proxy_name": proxy.sni(),
    });
    machine.write("setup.json", document.to_string());
}

/// Compares the outcomes with the tables, and the journal with them.
pub(crate) fn check(emulator: &Emulator, report: &Value, client: &Client) {
    let granted = GRANTED.iter().filter(|(name, ..)| !client.without.contains(name));
    let granted: Vec<_> = granted.chain(client.further).collect();
    let mut expected: Vec<_> = granted.iter().map(|(name, ..)| json!([name, GREETING])).collect();
    expected.extend(REFUSED.iter().map(|(name, code)| {
        let code = if *name == "unknown tenant" { client.unknown_tenant } else { code };
        json!([name, code])
    }));
    crate::sdk_machine::assert_same("logins", &report["logins"], &Value::Array(expected));
    // The application that read the secret, for each login.
    let journal = emulator.azure().journal();
    let reads = journal.iter().filter(|entry| entry.kind == Kind::Get && entry.status == Some(200));
    let readers: Vec<_> = reads.map(|entry| (entry.client_id.clone().unwrap(), entry.service.clone())).collect();
    let expected: Vec<_> =
        granted.iter().map(|(_, number, vault)| (application(*number), (*vault).to_owned())).collect();
    assert_eq!(readers, expected);
    // Each vault has challenged a client that had no token, and the binding's token came through
    // the proxy.
    for (vault, ..) in VAULTS {
        assert!(emulator.azure().counters(vault).get(Kind::Challenge) >= 1, "{vault}");
    }
    assert_eq!(emulator.azure().counters("token-proxy").get(Kind::Token), 1);
}

fn sha1_hex(material: &Material) -> String {
    use base64::Engine as _;
    let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(material.thumbprint("-sha1"));
    hex::encode_upper(digest.unwrap())
}
