//! Microsoft's SDKs for Python against the emulator: clients that share no code with it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use azure_emulator::{Emulator, Kind, Options, Permission};
use serde_json::Value;

use crate::harness::{CLIENT, Fixture, SECRET, TENANT, VAULT};
use crate::material::Material;

#[test]
fn the_sdk_for_secrets_works_with_the_emulator() {
    let python = std::env::var("KEYVAULT_CSI_PYTHON")
        .expect("KEYVAULT_CSI_PYTHON must name a Python with tests/requirements.txt installed: run `make test`");
    let fixture = Fixture::new();
    fixture.azure.set_page_size(VAULT, 3);
    fixture.azure.add_vault("second-vault", "vault.azure.net", TENANT);
    fixture.azure.grant("second-vault", CLIENT, &[Permission::List]);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, fixture.emulator.ca_pem()).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = Command::new(python)
        .arg(tests.join("python_sdk.py"))
        .arg(fixture.emulator.address().port().to_string())
        .args([TENANT, CLIENT, SECRET, VAULT, "second-vault"])
        .env("REQUESTS_CA_BUNDLE", &ca)
        .env("SSL_CERT_FILE", &ca)
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // The requests of the script, page by page.
    let counters = fixture.azure.counters(VAULT);
    assert_eq!(counters.get(Kind::Set), 12, "{counters:?}");
    assert_eq!(counters.get(Kind::List), 3);
    assert_eq!(counters.get(Kind::ListVersions), 2);
    assert_eq!(counters.get(Kind::Update), 1);
    assert_eq!(counters.get(Kind::Purge), 1);
    assert!(counters.get(Kind::Challenge) >= 1);
    assert!(fixture.azure.counters(TENANT).get(Kind::Token) >= 2);
}

#[test]
fn the_sdks_for_keys_certificates_and_identities_work_with_the_emulator() {
    const APP: &str = "44444444-aaaa-4bbb-8ccc-000000000004";
    const MACHINE: &str = "77777777-aaaa-4bbb-8ccc-000000000007";
    const ISSUER: &str = "https://oidc.example/cluster/";
    const SUBJECT: &str = "system:serviceaccount:shop:web";
    const AUDIENCE: &str = "api://AzureADTokenExchange";
    let python = std::env::var("KEYVAULT_CSI_PYTHON")
        .expect("KEYVAULT_CSI_PYTHON must name a Python with tests/requirements.txt installed: run `make test`");
    let imds = Some("127.0.0.1:0".parse().unwrap());
    let emulator = Emulator::start(Options { imds, ..Options::loopback() }).unwrap();
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
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    file("ca.pem", emulator.ca_pem().as_bytes());
    file("assertion", assertion.as_bytes());
    file("client.pem", client.pem().as_bytes());
    file("cert.pem", material.pem().as_bytes());
    file("cert.der", &material.der());
    file("cert.pfx", &material.pfx("pass", &[]));
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let ca = folder.path().join("ca.pem");
    let output = Command::new(python)
        .arg(tests.join("python_sdk_objects.py"))
        .arg(emulator.address().port().to_string())
        .args([TENANT, VAULT, APP])
        .arg(folder.path())
        .env("REQUESTS_CA_BUNDLE", &ca)
        .env("SSL_CERT_FILE", &ca)
        .env("NO_PROXY", "*")
        .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("http://{}", emulator.imds_address().unwrap()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let counters = azure.counters(VAULT);
    assert_eq!(counters.get(Kind::KeyImport), 5, "{counters:?}");
    assert_eq!(counters.get(Kind::KeyListVersions), 2, "five versions in pages of three");
    assert_eq!(counters.get(Kind::CertificateImport), 3);
    assert_eq!(counters.get(Kind::CertificateGet), 3);
    assert!(azure.counters(TENANT).get(Kind::Token) >= 3);
    assert!(azure.counters("imds").get(Kind::Token) >= 2);
}
