//! Manifests of users of upstream's driver, unchanged except for vault, tenant and identity.

use anyhow::{Result, ensure};

use crate::fixture::{AUDIENCE, Fixture, azure, issuer};
use crate::kubectl::{exec, ready};
use crate::release;

trials! { "user_manifests":
    a_service_principal_reads_its_secret,
    workload_identity_with_the_clusters_own_tokens,
    a_managed_identity_of_the_node,
}

fn a_service_principal_reads_its_secret() -> Result<()> {
    let fixture = Fixture::new("principal")?;
    let value = fixture.set("DemoSecret");
    fixture.credentials()?;
    fixture.apply(include_str!("user_manifests/003-secretproviderclass.yaml"))?;
    fixture.apply(include_str!("user_manifests/003-pod.yaml"))?;
    let pod = "busybox-secrets-store-inline";
    ready(&fixture.namespace, pod)?;
    assert_eq!(exec(&fixture.namespace, pod, &["ls", "/mnt/secrets-store"])?, "DemoSecret\n");
    assert_eq!(exec(&fixture.namespace, pod, &["cat", "/mnt/secrets-store/DemoSecret"])?, value);
    Ok(())
}

/// Creates the user's pod with workload identity; the fixture's vault must have `secret1` and
/// `key1`.
pub(crate) fn start_workload_identity(fixture: &Fixture) -> Result<&'static str> {
    // The emulator refuses other service accounts, also those of the namespace.
    let subject = format!("system:serviceaccount:{}:workload-identity-sa", fixture.namespace);
    azure().add_federated_credential(&fixture.tenant, &fixture.client_id, &issuer()?, &subject, AUDIENCE);
    fixture.apply(include_str!("user_manifests/004-workload-identity-serviceaccount.yaml"))?;
    fixture.apply(include_str!("user_manifests/004-workload-identity-secretproviderclass.yaml"))?;
    fixture.apply(include_str!("user_manifests/004-workload-identity-pod.yaml"))?;
    let pod = "busybox-secrets-store-inline-wi";
    ready(&fixture.namespace, pod)?;
    Ok(pod)
}

fn workload_identity_with_the_clusters_own_tokens() -> Result<()> {
    let fixture = Fixture::new("workload")?;
    let value = fixture.set("secret1");
    fixture.set_key("key1");
    release::tokens_are_among_secrets()?;
    let pod = start_workload_identity(&fixture)?;
    assert_eq!(exec(&fixture.namespace, pod, &["cat", "/mnt/secrets-store/secret1"])?, value);
    let key = exec(&fixture.namespace, pod, &["cat", "/mnt/secrets-store/key1"])?;
    ensure!(key.starts_with("-----BEGIN PUBLIC KEY-----"), "{key}");
    Ok(())
}

/// Creates the user's pod with a managed identity; the fixture's vault must have `secret1` and
/// `key1`.
pub(crate) fn start_managed_identity(fixture: &Fixture) -> Result<&'static str> {
    azure().add_managed_identity(&fixture.tenant, &fixture.client_id);
    fixture.apply(include_str!("user_manifests/004-managed-identity-secretproviderclass.yaml"))?;
    fixture.apply(include_str!("user_manifests/004-managed-identity-pod.yaml"))?;
    let pod = "busybox-secrets-store-inline-user-msi";
    ready(&fixture.namespace, pod)?;
    Ok(pod)
}

fn a_managed_identity_of_the_node() -> Result<()> {
    let fixture = Fixture::new("managed")?;
    let value = fixture.set("secret1");
    fixture.set_key("key1");
    let pod = start_managed_identity(&fixture)?;
    assert_eq!(exec(&fixture.namespace, pod, &["cat", "/mnt/secrets-store/secret1"])?, value);
    Ok(())
}
