//! Microsoft's SDKs for Python and MSAL against the emulator: clients that share no code with it.

use std::time::Duration;

use azure_emulator::{Kind, Permission};
use serde_json::Value;

use crate::harness::{CLIENT, SECRET, TENANT, VAULT};
use crate::material::Material;
use crate::sdk_machine::{Machine, assert_pinned};
use crate::sdk_reads::Objects;
use crate::{sdk_logins, sdk_reads};

const NAMES: &[&str] = &["login.microsoftonline.com", "first-vault.vault.azure.net", "second-vault.vault.azure.net"];

#[test]
fn each_way_of_logging_in_works_and_each_mistake_is_named() {
    Machine::run(sdk_logins::NAMES, |machine, emulator| {
        sdk_logins::set_up(machine, emulator);
        let report = machine.python("logins.py", &[]);
        assert_pinned(&report, "python/requirements.txt");
        sdk_logins::check(emulator, &report, &sdk_logins::PYTHON);
    });
}

#[test]
fn every_version_of_every_object_is_read_page_by_page() {
    Machine::run(sdk_reads::NAMES, |machine, emulator| {
        let objects = Objects::new(machine, emulator);
        let report = machine.python("reads.py", &[]);
        assert_pinned(&report, "python/requirements.txt");
        objects.check(emulator, &report);
    });
}

#[test]
fn the_sdk_changes_secrets() {
    Machine::run(NAMES, |machine, emulator| {
        let azure = emulator.azure();
        azure.add_tenant(TENANT);
        azure.add_client(TENANT, CLIENT, SECRET);
        azure.add_vault(VAULT, "vault.azure.net", TENANT);
        azure.grant(VAULT, CLIENT, &Permission::ALL);
        azure.set_page_size(VAULT, 3);
        azure.add_vault("second-vault", "vault.azure.net", TENANT);
        azure.grant("second-vault", CLIENT, &[Permission::List]);
        machine.python("change_secrets.py", &[TENANT, CLIENT, SECRET, VAULT, "second-vault"]);
        // The requests of the script, page by page.
        let counters = azure.counters(VAULT);
        assert_eq!(counters.get(Kind::Set), 12, "{counters:?}");
        assert_eq!(counters.get(Kind::List), 3);
        assert_eq!(counters.get(Kind::ListVersions), 2);
        assert_eq!(counters.get(Kind::Update), 1);
        assert_eq!(counters.get(Kind::Purge), 1);
    });
}

#[test]
fn the_sdks_change_keys_and_certificates() {
    const APP: &str = "44444444-aaaa-4bbb-8ccc-000000000004";
    const MACHINE: &str = "77777777-aaaa-4bbb-8ccc-000000000007";
    const ISSUER: &str = "https://oidc.example/cluster/";
    const SUBJECT: &str = "system:serviceaccount:shop:web";
    const AUDIENCE: &str = "api://AzureADTokenExchange";
    Machine::run(NAMES, |machine, emulator| {
        let azure = emulator.azure();
        azure.add_tenant(TENANT);
        azure.add_vault(VAULT, "vault.azure.net", TENANT);
        azure.set_page_size(VAULT, 3);
        azure.add_managed_identity(TENANT, MACHINE);
        azure.grant(VAULT, MACHINE, &Permission::ALL);
        azure.grant(VAULT, APP, &Permission::ALL);
        let (client, material) = (Material::rsa(), Material::rsa());
        azure.add_client_certificate(TENANT, APP, &client.der());
        azure.add_federated_credential(TENANT, APP, ISSUER, SUBJECT, AUDIENCE);
        let assertion = azure.add_issuer(ISSUER).token(SUBJECT, AUDIENCE, Duration::from_secs(600), Value::Null);
        machine.write("assertion", assertion);
        machine.write("client.pem", client.pem());
        machine.write("cert.pem", material.pem());
        machine.write("cert.der", material.der());
        machine.write("cert.pfx", material.pfx("pass", &[]));
        machine.python("change_objects.py", &[TENANT, VAULT, APP]);
        let counters = azure.counters(VAULT);
        assert_eq!(counters.get(Kind::KeyImport), 5, "{counters:?}");
        assert_eq!(counters.get(Kind::KeyListVersions), 2, "five versions in pages of three");
        assert_eq!(counters.get(Kind::CertificateImport), 3);
        assert_eq!(counters.get(Kind::CertificateGet), 3);
    });
}
