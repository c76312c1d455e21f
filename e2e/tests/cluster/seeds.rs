//! The users' own manifests, letter by letter but for vault, tenant and identity: what works with upstream's driver works.

use anyhow::{Result, ensure};

use crate::kubectl::{exec, ready};
use crate::scene::{AUDIENCE, Scene, azure, issuer};

trials! { "seeds":
    a_service_principal_reads_its_secret,
    workload_identity_with_the_clusters_own_tokens,
    a_managed_identity_of_the_node,
}

fn a_service_principal_reads_its_secret() -> Result<()> {
    let scene = Scene::new("principal")?;
    let value = scene.set("DemoSecret");
    scene.credentials()?;
    scene.apply(include_str!("seeds/003-secretproviderclass.yaml"))?;
    scene.apply(include_str!("seeds/003-pod.yaml"))?;
    let pod = "busybox-secrets-store-inline";
    ready(&scene.namespace, pod)?;
    assert_eq!(exec(&scene.namespace, pod, &["ls", "/mnt/secrets-store"])?, "DemoSecret\n");
    assert_eq!(exec(&scene.namespace, pod, &["cat", "/mnt/secrets-store/DemoSecret"])?, value);
    Ok(())
}

/// Starts the users' pod with workload identity; the scene's vault needs `secret1` and `key1`.
pub(crate) fn start_workload_identity(scene: &Scene) -> Result<&'static str> {
    // Whoever else asks for this application, be it another account of the namespace, is refused by the emulator.
    let subject = format!("system:serviceaccount:{}:workload-identity-sa", scene.namespace);
    azure().add_federated_credential(&scene.tenant, &scene.client_id, &issuer()?, &subject, AUDIENCE);
    scene.apply(include_str!("seeds/004-workload-identity-serviceaccount.yaml"))?;
    scene.apply(include_str!("seeds/004-workload-identity-secretproviderclass.yaml"))?;
    scene.apply(include_str!("seeds/004-workload-identity-pod.yaml"))?;
    let pod = "busybox-secrets-store-inline-wi";
    ready(&scene.namespace, pod)?;
    Ok(pod)
}

pub(crate) fn workload_identity_with_the_clusters_own_tokens() -> Result<()> {
    let scene = Scene::new("workload")?;
    let value = scene.set("secret1");
    scene.set_key("key1");
    let pod = start_workload_identity(&scene)?;
    assert_eq!(exec(&scene.namespace, pod, &["cat", "/mnt/secrets-store/secret1"])?, value);
    let key = exec(&scene.namespace, pod, &["cat", "/mnt/secrets-store/key1"])?;
    ensure!(key.starts_with("-----BEGIN PUBLIC KEY-----"), "{key}");
    Ok(())
}

/// Starts the users' pod with a managed identity; the scene's vault needs `secret1` and `key1`.
pub(crate) fn start_managed_identity(scene: &Scene) -> Result<&'static str> {
    azure().add_managed_identity(&scene.tenant, &scene.client_id);
    scene.apply(include_str!("seeds/004-managed-identity-secretproviderclass.yaml"))?;
    scene.apply(include_str!("seeds/004-managed-identity-pod.yaml"))?;
    let pod = "busybox-secrets-store-inline-user-msi";
    ready(&scene.namespace, pod)?;
    Ok(pod)
}

fn a_managed_identity_of_the_node() -> Result<()> {
    let scene = Scene::new("managed")?;
    let value = scene.set("secret1");
    scene.set_key("key1");
    let pod = start_managed_identity(&scene)?;
    assert_eq!(exec(&scene.namespace, pod, &["cat", "/mnt/secrets-store/secret1"])?, value);
    Ok(())
}
