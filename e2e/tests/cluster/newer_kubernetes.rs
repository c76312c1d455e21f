//! Tests that need a newer version of Kubernetes; on older ones they are listed as ignored.

use anyhow::Result;
use libtest_mimic::Trial;

use crate::fixture::Fixture;
use crate::kubectl::{exec, kubectl, ready, server_minor};

/// Least minor version, name, test.
type VersionedTest = (u32, &'static str, fn() -> Result<()>);

const TRIALS: &[VersionedTest] = &[
    (26, "newer_kubernetes::a_pod_without_root_reads_by_its_fs_group", a_pod_without_root_reads_by_its_fs_group),
    (
        35,
        "newer_kubernetes::tokens_are_separate_from_the_volumes_attributes",
        tokens_are_separate_from_the_volumes_attributes,
    ),
];

pub(crate) fn trials(list_only: bool) -> Result<Vec<Trial>> {
    let minor = if list_only { 0 } else { server_minor()? };
    let trial = |(needed, name, test): &VersionedTest| {
        let test = *test;
        Trial::test(*name, move || test().map_err(|error| format!("{error:#}").into()))
            .with_kind(format!("Kubernetes 1.{needed}"))
            .with_ignored_flag(minor < *needed)
    };
    Ok(TRIALS.iter().map(trial).collect())
}

fn a_pod_without_root_reads_by_its_fs_group() -> Result<()> {
    let fixture = Fixture::new("group")?;
    let value = fixture.set("a");
    fixture.credentials()?;
    fixture.class("demo", &["a"])?;
    fixture.pod_with(
        "web",
        &["demo"],
        "sleep 10000",
        &serde_json::json!({"runAsUser": 65534, "runAsGroup": 65534, "fsGroup": 2000}),
    )?;
    ready(&fixture.namespace, "web")?;
    assert_eq!(exec(&fixture.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    assert_eq!(exec(&fixture.namespace, "web", &["stat", "-L", "-c", "%g", "/mnt/demo/a"])?, "2000\n");
    Ok(())
}

fn tokens_are_separate_from_the_volumes_attributes() -> Result<()> {
    let set = kubectl(&[
        "get",
        "csidriver",
        "secrets-store.csi.k8s.io",
        "--output=jsonpath={.spec.serviceAccountTokenInSecrets}",
    ])?;
    assert_eq!(set, "true");
    crate::user_manifests::workload_identity_with_the_clusters_own_tokens()
}
