//! Which CA certificates are trusted. The variables belong to a process, so each case runs in a
//! process of its own.

use std::process::{Command, Output};
use std::time::Duration;

use super::super::http::Http;
use super::super::reloading_client::ReloadingClient;
use super::super::{Error, Vaults, client};
use super::server::{Azure, LOGIN, QUICK, VAULT, open, options, with_imds};
use super::{Reason, get};

fn with_http(client: Http) -> Vaults {
    with_imds(client, ([127, 0, 0, 1], 1).into(), QUICK, options())
}

/// The path of a test without the crate, as the test binary names it.
fn name_of(test: &str) -> String {
    let (_, module) = module_path!().split_once("::").unwrap();
    format!("{module}::{test}")
}

/// Set in the process that runs one case.
const CASE: &str = "KEYVAULT_CSI_TEST_CASE";

/// Runs the test of this name alone, in another process, with SSL_CERT_FILE pointing to `bundle`.
fn run(test: &str, bundle: &std::path::Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name_of(test), "--nocapture"])
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
    let address = azure.address();
    let client = move |certificates| {
        let client = client::builder("x").no_proxy().resolve(VAULT, address).resolve(LOGIN, address);
        client::build(client.tls_certs_only(certificates))
    };
    let vaults =
        with_http(Http::reloading(ReloadingClient::new(Box::new(client), 100).unwrap(), QUICK.request_timeout, false));
    get(&open(&vaults, "myvault", Duration::from_secs(60)), "db").await.unwrap();
}

#[test]
fn without_any_ca_certificate_the_start_fails_with_the_fix() {
    if std::env::var_os(CASE).is_none() {
        let output = run("without_any_ca_certificate_the_start_fails_with_the_fix", "/no/such/bundle".as_ref());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let error = Vaults::new(options()).unwrap_err();
    assert!(matches!(error, Error::Client(_)) && error.reason() == Reason::TlsUntrusted, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("no CA certificates") && text.contains("SSL_CERT_FILE"), "{text}");
}

/// The bundle as a link, as in volumes of Kubernetes, and as a folder.
#[tokio::test]
async fn a_bundle_that_changes_is_read_again() {
    const TEST: &str = "a_bundle_that_changes_is_read_again";
    if std::env::var_os(CASE).is_none() {
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            let folder = tempfile::tempdir().unwrap();
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &name_of(TEST), "--nocapture"])
                .env_remove("SSL_CERT_FILE")
                .env_remove("SSL_CERT_DIR")
                .envs([(CASE, folder.path().as_os_str()), (variable, folder.path().join("bundle").as_os_str())])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{variable}: {text}");
        }
        return;
    }
    let folder = std::path::PathBuf::from(std::env::var_os(CASE).unwrap());
    let is_folder = std::env::var_os("SSL_CERT_DIR").is_some();
    // Points the link to another file, or to a folder with one file.
    let publish = |number: u32, content: &str| {
        let (target, link) = (folder.join(number.to_string()), folder.join("new"));
        if is_folder {
            std::fs::create_dir(&target).unwrap();
            std::fs::write(target.join("ca.pem"), content).unwrap();
        } else {
            std::fs::write(&target, content).unwrap();
        }
        std::os::unix::fs::symlink(&target, &link).unwrap();
        std::fs::rename(&link, folder.join("bundle")).unwrap();
    };
    let (old, new) = (Azure::well().await, Azure::well().await);
    publish(1, old.bundle());
    let current = std::sync::Arc::new(std::sync::Mutex::new(old.address()));
    let address_now = current.clone();
    let client = move |certificates| {
        let address = *address_now.lock().unwrap();
        client::build(
            client::builder("x")
                .no_proxy()
                .resolve(VAULT, address)
                .resolve(LOGIN, address)
                .tls_certs_only(certificates),
        )
    };
    let reloading = ReloadingClient::new(Box::new(client), 100).unwrap();
    let vaults = with_http(Http::reloading(reloading.clone(), QUICK.request_timeout, false));
    let first = reloading.current().await;
    get(&open(&vaults, "myvault", Duration::from_secs(60)), "db").await.unwrap();
    // An empty or a damaged bundle changes nothing, however often it is checked.
    for (number, content) in [(2, String::new()), (3, format!("{}-----BEGIN CERTIFICATE-----\nAA", old.bundle()))] {
        publish(number, &content);
        assert!(reloading.newer(&first).await.is_none(), "{number}");
    }
    // The server changes with its authority; the client is built for the new one.
    *current.lock().unwrap() = new.address();
    publish(4, new.bundle());
    let second = reloading.newer(&first).await.expect("the new authority is trusted");
    assert!(second.generation == first.generation + 1 && reloading.newer(&second).await.is_none());
    get(&open(&vaults, "other", Duration::from_secs(60)), "db").await.unwrap_err();
    get(&open(&vaults, "myvault", Duration::from_secs(60)), "db").await.unwrap();
    assert!(new.count(super::Kind::Get) > 0);
}
