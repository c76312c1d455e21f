//! Which CA certificates count. The variables belong to a process, so that each case runs in a process of its own.

use std::process::{Command, Output};
use std::time::Duration;

use super::super::{Error, Vaults, http};
use super::server::{Azure, LOGIN, QUICK, VAULT, open, options, with_client};
use super::{Reason, get};

/// Set in the process that plays one case.
const CASE: &str = "KEYVAULT_CSI_TEST_CASE";

/// Runs the test of this name alone, in another process, with SSL_CERT_FILE pointing to `bundle`.
fn run(test: &str, bundle: &std::path::Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("keyvault::tests::trust::{test}"), "--nocapture"])
        .env(CASE, "1")
        .env("SSL_CERT_FILE", bundle)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_bundle_named_by_ssl_cert_file_is_trusted() {
    if std::env::var_os(CASE).is_none() {
        let dir = tempfile::tempdir().unwrap();
        let output = run("a_bundle_named_by_ssl_cert_file_is_trusted", &dir.path().join("ca.pem"));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let azure = Azure::well().await;
    std::fs::write(std::env::var("SSL_CERT_FILE").unwrap(), azure.bundle()).unwrap();
    let client = http::builder("x").no_proxy().resolve(VAULT, azure.address()).resolve(LOGIN, azure.address());
    let vaults = with_client(client, QUICK);
    get(&open(&vaults, "myvault", Duration::from_secs(60)), "db").await.unwrap();
}

#[test]
fn without_any_ca_certificate_the_start_says_what_to_do() {
    if std::env::var_os(CASE).is_none() {
        let output = run("without_any_ca_certificate_the_start_says_what_to_do", "/no/such/bundle".as_ref());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let error = Vaults::new(options()).unwrap_err();
    assert!(matches!(error, Error::Client(_)) && error.reason() == Reason::TlsUntrusted, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("No CA certificates") && text.contains("SSL_CERT_FILE"), "{text}");
}
