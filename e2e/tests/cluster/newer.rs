//! What only newer versions of Kubernetes can run. On older ones it is listed as ignored, and counts as nothing.

use anyhow::Result;
use libtest_mimic::Trial;

use crate::kubectl::{exec, kubectl, ready, server_minor};
use crate::scene::Scene;

/// Minor version, name, test.
type Newer = (u32, &'static str, fn() -> Result<()>);

const TRIALS: &[Newer] = &[
    (26, "newer::a_pod_without_root_reads_by_its_fs_group", a_pod_without_root_reads_by_its_fs_group),
    (35, "newer::tokens_come_apart_from_the_volumes_attributes", tokens_come_apart_from_the_volumes_attributes),
];

pub(crate) fn trials(list_only: bool) -> Result<Vec<Trial>> {
    let minor = if list_only { 0 } else { server_minor()? };
    let trial = |(needed, name, test): &Newer| {
        let test = *test;
        Trial::test(*name, move || test().map_err(|error| format!("{error:#}").into()))
            .with_kind(format!("Kubernetes 1.{needed}"))
            .with_ignored_flag(minor < *needed)
    };
    Ok(TRIALS.iter().map(trial).collect())
}

fn a_pod_without_root_reads_by_its_fs_group() -> Result<()> {
    let scene = Scene::new("group")?;
    let value = scene.set("a");
    scene.credentials()?;
    scene.class("demo", &["a"])?;
    scene.pod_with(
        "web",
        &["demo"],
        "sleep 10000",
        &serde_json::json!({"runAsUser": 65534, "runAsGroup": 65534, "fsGroup": 2000}),
    )?;
    ready(&scene.namespace, "web")?;
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    assert_eq!(exec(&scene.namespace, "web", &["stat", "-L", "-c", "%g", "/mnt/demo/a"])?, "2000\n");
    Ok(())
}

fn tokens_come_apart_from_the_volumes_attributes() -> Result<()> {
    let set = kubectl(&[
        "get",
        "csidriver",
        "secrets-store.csi.k8s.io",
        "--output=jsonpath={.spec.serviceAccountTokenInSecrets}",
    ])?;
    assert_eq!(set, "true");
    crate::seeds::workload_identity_with_the_clusters_own_tokens()
}
