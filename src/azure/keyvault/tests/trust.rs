//! Which CA certificates count. The variables belong to a process, so that each case runs in a process of its own.

use std::process::{Command, Output};
use std::time::Duration;

use super::super::http::Http;
use super::super::trust::Renewed;
use super::super::{Error, Vaults, http};
use super::server::{Azure, LOGIN, QUICK, VAULT, open, options, with_imds};
use super::{Reason, get};

fn with_http(client: Http) -> Vaults {
    with_imds(client, ([127, 0, 0, 1], 1).into(), QUICK, options())
}

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
    let address = azure.address();
    let client = move |roots| {
        let client = http::builder("x").no_proxy().resolve(VAULT, address).resolve(LOGIN, address);
        http::built(client.tls_certs_only(roots))
    };
    let vaults = with_http(Http::renewed(Renewed::new(Box::new(client), 100).unwrap(), QUICK.exchange, false));
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
    assert!(text.contains("no CA certificates") && text.contains("SSL_CERT_FILE"), "{text}");
}

/// The bundle as a link, as volumes of Kubernetes have it, and as a folder.
#[tokio::test]
async fn a_bundle_that_changes_is_read_again() {
    const TEST: &str = "a_bundle_that_changes_is_read_again";
    if std::env::var_os(CASE).is_none() {
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            let folder = tempfile::tempdir().unwrap();
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &format!("keyvault::tests::trust::{TEST}"), "--nocapture"])
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
    // Moves the link to another file, or to a folder with one file.
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
    let wanted = current.clone();
    let client = move |roots| {
        let address = *wanted.lock().unwrap();
        http::built(http::builder("x").no_proxy().resolve(VAULT, address).resolve(LOGIN, address).tls_certs_only(roots))
    };
    let renewed = Renewed::new(Box::new(client), 100).unwrap();
    let vaults = with_http(Http::renewed(renewed.clone(), QUICK.exchange, false));
    let first = renewed.current().await;
    get(&open(&vaults, "myvault", Duration::from_secs(60)), "db").await.unwrap();
    // An empty or a damaged bundle changes nothing, however often it is looked at.
    for (number, content) in [(2, String::new()), (3, format!("{}-----BEGIN CERTIFICATE-----\nAA", old.bundle()))] {
        publish(number, &content);
        assert!(renewed.newer(&first).await.is_none(), "{number}");
    }
    // The servers change with their authority; the client is made for the new ones.
    *current.lock().unwrap() = new.address();
    publish(4, new.bundle());
    let second = renewed.newer(&first).await.expect("the new authority counts");
    assert!(second.generation == first.generation + 1 && renewed.newer(&second).await.is_none());
    get(&open(&vaults, "other", Duration::from_secs(60)), "db").await.unwrap_err();
    get(&open(&vaults, "myvault", Duration::from_secs(60)), "db").await.unwrap();
    assert!(new.count(super::Kind::Get) > 0);
}
