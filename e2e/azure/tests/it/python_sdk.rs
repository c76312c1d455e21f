//! Microsoft's own SDK for Python against the emulator: a witness who has not read our code.

use std::path::Path;
use std::process::Command;

use azure_emulator::{Kind, Permission};

use crate::harness::{CLIENT, SECRET, Scene, TENANT, VAULT};

#[test]
fn microsofts_sdk_works_through_the_emulator() {
    let python = std::env::var("KEYVAULT_CSI_PYTHON")
        .expect("KEYVAULT_CSI_PYTHON must name a Python with tests/requirements.txt installed: run `make test`");
    let scene = Scene::new();
    scene.azure.set_page_size(VAULT, 3);
    scene.azure.add_vault("second-vault", "vault.azure.net", TENANT);
    scene.azure.grant("second-vault", CLIENT, &[Permission::List]);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, scene.emulator.ca_pem()).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = Command::new(python)
        .arg(tests.join("python_sdk.py"))
        .arg(scene.emulator.address().port().to_string())
        .args([TENANT, CLIENT, SECRET, VAULT, "second-vault"])
        .env("REQUESTS_CA_BUNDLE", &ca)
        .env("SSL_CERT_FILE", &ca)
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // What the script says it did must have arrived here, page by page.
    let counters = scene.azure.counters(VAULT);
    assert_eq!(counters.get(Kind::Set), 12, "{counters:?}");
    assert_eq!(counters.get(Kind::List), 3);
    assert_eq!(counters.get(Kind::ListVersions), 2);
    assert_eq!(counters.get(Kind::Update), 1);
    assert_eq!(counters.get(Kind::Purge), 1);
    assert!(counters.get(Kind::Challenge) >= 1);
    assert!(scene.azure.counters(TENANT).get(Kind::Token) >= 2);
}
