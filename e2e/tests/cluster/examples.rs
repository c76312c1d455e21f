//! The examples of `manifests/examples`, applied as they are: only vault, tenant, client ID and
//! namespace are filled in, and their pods become Ready.
//!
//! `identity-binding.yaml` requires the API server of AKS: `tests/it/identity_binding.rs` publishes
//! its volume through the emulator's token proxy.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::CertificateMaterial;

use crate::fixture::{AUDIENCE, Fixture, azure, issuer};
use crate::kubectl::{apply, checkout, condition, exec, get, kubectl, ready, wait_for};
use crate::rotation;

trials! { "examples":
    service_principal,
    service_principal_certificate,
    workload_identity,
    managed_identity_user_assigned,
    managed_identity_system_assigned,
    rotation_follows_the_vault,
    environment_comes_from_the_vault,
    tls_for_an_ingress,
}

/// Applies an example in the fixture's namespace.
fn example(fixture: &Fixture, name: &str) -> Result<()> {
    let path = checkout().join("manifests/examples").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let filled = [
        ("demo-vault", fixture.vault.as_str()),
        ("contoso.example", &fixture.tenant),
        ("00000000-0000-0000-0000-000000000000", &fixture.client_id),
        ("namespace: default", &format!("namespace: {}", fixture.namespace)),
    ]
    .into_iter()
    .fold(text, |text, (placeholder, value)| text.replace(placeholder, value));
    apply(&fixture.namespace, &filled)
}

/// Lets the service account of an example log in as the application.
fn federate(fixture: &Fixture, account: &str) -> Result<()> {
    let subject = format!("system:serviceaccount:{}:{account}", fixture.namespace);
    azure().add_federated_credential(&fixture.tenant, &fixture.client_id, &issuer()?, &subject, AUDIENCE);
    Ok(())
}

/// Waits until a Deployment has its pods.
fn available(fixture: &Fixture, deployment: &str) -> Result<()> {
    wait_for(&format!("Deployment {deployment}"), || {
        Ok(get(&fixture.namespace, "deployment", deployment)?.is_some_and(|found| condition(&found, "Available")))
    })
}

fn openssl(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("openssl").args(arguments).output().context("openssl cannot be run")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Writes `key.pem` and `certificate.pem`.
fn certificate(folder: &Path) -> Result<(String, String)> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=web.example.com"];
    openssl(&[&request[..], &["-keyout", &key, "-out", &certificate]].concat())?;
    Ok((key, certificate))
}

fn service_principal() -> Result<()> {
    let fixture = Fixture::new("example-principal")?;
    let value = fixture.set("database-password");
    fixture.set("api-token");
    azure().set_secret(&fixture.vault, "keystore", "AAEC");
    let literals = [("clientid", &fixture.client_id), ("clientsecret", &fixture.client_secret)];
    let literals = literals.map(|(key, value)| format!("--from-literal={key}={value}"));
    let create = ["create", "secret", "generic", "demo-credentials", "--namespace", &fixture.namespace];
    kubectl(&[&create[..], &literals.each_ref().map(String::as_str)].concat())?;
    example(&fixture, "service-principal.yaml")?;
    ready(&fixture.namespace, "web-1")?;
    assert_eq!(exec(&fixture.namespace, "web-1", &["cat", "/mnt/secrets/db/password"])?, value);
    assert_eq!(
        exec(&fixture.namespace, "web-1", &["od", "-An", "-tx1", "/mnt/secrets/keystore.bin"])?.trim(),
        "00 01 02"
    );
    Ok(())
}

fn service_principal_certificate() -> Result<()> {
    let fixture = Fixture::new("example-certificate")?;
    let value = fixture.set("database-password");
    let folder = tempfile::tempdir()?;
    let (key, certificate) = certificate(folder.path())?;
    let der = openssl(&["x509", "-in", &certificate, "-outform", "DER"])?;
    azure().add_client_certificate(&fixture.tenant, &fixture.client_id, &der);
    let name = "demo-certificate";
    let (certificate, key) = (format!("--cert={certificate}"), format!("--key={key}"));
    kubectl(&["create", "secret", "tls", name, "--namespace", &fixture.namespace, &certificate, &key])?;
    let patch = format!("{{\"stringData\": {{\"clientid\": \"{}\"}}}}", fixture.client_id);
    kubectl(&["patch", "secret", name, "--namespace", &fixture.namespace, "--patch", &patch])?;
    example(&fixture, "service-principal-certificate.yaml")?;
    ready(&fixture.namespace, "service-principal-certificate")?;
    mounted(&fixture, "service-principal-certificate", "database-password", &value)
}

/// Checks a file of an example's pod.
fn mounted(fixture: &Fixture, pod: &str, file: &str, value: &str) -> Result<()> {
    assert_eq!(exec(&fixture.namespace, pod, &["cat", &format!("/mnt/secrets/{file}")])?, value);
    Ok(())
}

fn workload_identity() -> Result<()> {
    let fixture = Fixture::new("example-workload")?;
    let value = fixture.set("database-password");
    fixture.set_key("signing-key");
    federate(&fixture, "workload-identity")?;
    example(&fixture, "workload-identity.yaml")?;
    ready(&fixture.namespace, "workload-identity")?;
    mounted(&fixture, "workload-identity", "database-password", &value)
}

fn managed_identity_user_assigned() -> Result<()> {
    let fixture = Fixture::new("example-user-assigned")?;
    let value = fixture.set("database-password");
    azure().add_managed_identity(&fixture.tenant, &fixture.client_id);
    example(&fixture, "managed-identity-user-assigned.yaml")?;
    ready(&fixture.namespace, "managed-identity-user-assigned")?;
    mounted(&fixture, "managed-identity-user-assigned", "database-password", &value)
}

fn managed_identity_system_assigned() -> Result<()> {
    let fixture = Fixture::new("example-system-assigned")?;
    let value = fixture.set("database-password");
    azure().add_system_identity(&fixture.tenant, &fixture.client_id);
    example(&fixture, "managed-identity-system-assigned.yaml")?;
    ready(&fixture.namespace, "managed-identity-system-assigned")?;
    mounted(&fixture, "managed-identity-system-assigned", "database-password", &value)
}

fn rotation_follows_the_vault() -> Result<()> {
    let fixture = rotation::fixture("example-rotation")?;
    fixture.set("api-token");
    federate(&fixture, "rotation")?;
    example(&fixture, "rotation.yaml")?;
    ready(&fixture.namespace, "rotation")?;
    let lines = || -> Result<usize> {
        Ok(kubectl(&["logs", "rotation", "--namespace", &fixture.namespace])?.matches("files of").count())
    };
    // A pod without a readiness probe is Ready before its program has read the first set.
    wait_for("a line for the first set of files", || Ok(lines()? == 1))?;
    let value = fixture.change("api-token");
    // As the example says: at once, instead of after the class's interval.
    let annotate = ["annotate", "secretproviderclass", "rotation", "keyvault-csi/refresh=now", "--overwrite"];
    kubectl(&[&annotate[..], &["--namespace", &fixture.namespace]].concat())?;
    wait_for("the new value", || {
        Ok(exec(&fixture.namespace, "rotation", &["cat", "/mnt/secrets/api-token"])? == value)
    })?;
    wait_for("a line for the next set of files", || Ok(lines()? >= 2))
}

fn environment_comes_from_the_vault() -> Result<()> {
    let fixture = rotation::fixture("example-environment")?;
    fixture.set("database-password");
    federate(&fixture, "environment")?;
    example(&fixture, "environment.yaml")?;
    available(&fixture, "environment")?;
    let logs = || kubectl(&["logs", "deployment/environment", "--namespace", &fixture.namespace]);
    wait_for("the variable", || Ok(logs()?.contains("DATABASE_PASSWORD is set")))
}

fn tls_for_an_ingress() -> Result<()> {
    let fixture = rotation::fixture("example-tls")?;
    let folder = tempfile::tempdir()?;
    let (key, certificate) = certificate(folder.path())?;
    let pem = [certificate, key].map(std::fs::read_to_string).into_iter().collect::<Result<String, _>>()?;
    azure().set_certificate(&fixture.vault, "web-certificate", &CertificateMaterial::from_pem(&pem)?);
    federate(&fixture, "tls")?;
    example(&fixture, "tls.yaml")?;
    available(&fixture, "web")?;
    wait_for("the Secret web-tls", || Ok(get(&fixture.namespace, "secret", "web-tls")?.is_some()))?;
    let secret = get(&fixture.namespace, "secret", "web-tls")?.context("the Secret vanished")?;
    ensure!(
        secret["type"] == "kubernetes.io/tls" && secret["metadata"]["labels"]["app"] == "web",
        "{}",
        secret["type"]
    );
    Ok(())
}
