//! Replays recorded publish and unpublish calls of real kubelets against the driver.
//!
//! `fixtures/kubelet` has the recordings of the oldest and the newest kubelet that `e2e/cluster`
//! builds; `docs/reference/kubelet.md` explains them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use azure_emulator::Permission;
use keyvault_csi_e2e::kubelet::DEADLINE;
use keyvault_csi_proto::csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode};
use keyvault_csi_proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use serde_json::Value;
use tonic::Code;

use crate::harness::{Node, Vault, class_manifest, harness, mounts_on};

trials! { "kubelets":
    recorded_requests_of_kubelet_1_30_are_answered,
    recorded_requests_of_kubelet_1_37_are_answered,
}

/// The service principal in the recorded nodePublishSecretRef.
const RECORDED: (&str, &str) = ("demo-client-id", "demo-client-secret");

fn recorded_requests_of_kubelet_1_30_are_answered() -> Result<()> {
    replay("v1.30.14", (25, 24))
}

fn recorded_requests_of_kubelet_1_37_are_answered() -> Result<()> {
    replay("v1.37.2", (30, 29))
}

enum Call {
    Publish(Box<NodePublishVolumeRequest>),
    Unpublish(NodeUnpublishVolumeRequest),
}

/// The numbers are those of publishes and unpublishes in the recordings, so that no call is skipped
/// unnoticed.
fn replay(version: &str, expected: (usize, usize)) -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    let azure = harness().azure();
    azure.add_client(&vault.tenant, RECORDED.0, RECORDED.1);
    azure.grant(&vault.name, RECORDED.0, &[Permission::Get]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/kubelet").join(version);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let (mut published, mut unpublished, mut succeeded) = (0, 0, 0);
    for file in files {
        let recording: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        let mut calls = Vec::new();
        collect(&recording, &node.setup().kubelet_root(), &mut calls)?;
        write_classes(&node, &vault, &calls)?;
        for call in calls {
            match call {
                Call::Publish(request) => {
                    published += 1;
                    succeeded += usize::from(
                        replay_publish(&node, &vault, *request).with_context(|| file.display().to_string())?,
                    );
                }
                Call::Unpublish(request) => {
                    unpublished += 1;
                    replay_unpublish(&node, request).with_context(|| file.display().to_string())?;
                }
            }
        }
    }
    assert_eq!((published, unpublished), expected);
    ensure!(succeeded > 0, "no unchanged recorded request succeeded");
    Ok(())
}

fn replay_publish(node: &Node, vault: &Vault, request: NodePublishVolumeRequest) -> Result<bool> {
    let target = PathBuf::from(&request.target_path);
    // Before the call, the kubelet makes all directories but the target.
    fs::create_dir_all(target.parent().context("a target has a parent")?)?;
    let pod_info = ["csi.storage.k8s.io/pod.name", "csi.storage.k8s.io/pod.namespace"];
    let informed = pod_info.iter().all(|key| request.volume_context.contains_key(*key));
    let grouped = request
        .volume_capability
        .as_ref()
        .is_some_and(|capability| format!("{capability:?}").contains("group: \"2000\""));
    if grouped && !has_groups()? {
        // A user namespace of an unprivileged user has one group only; the driver then fails with
        // that cause, since pods could not read the files.
        return replay_without_group(node, vault, request, &target).map(|()| false);
    }
    let expected = if !informed || !request.readonly {
        Some((Code::InvalidArgument, if informed { "readOnly" } else { "podInfoOnMount" }))
    } else if request.secrets.contains_key("clientid") || !mounts_on(&target)?.is_empty() {
        None
    } else {
        Some((Code::Unknown, "nodePublishSecretRef"))
    };
    let sent = node.kubelet.send(request.clone(), DEADLINE);
    match (expected, sent) {
        (None, Ok(())) => check_volume(&request, &target)?,
        (Some((code, word)), Err(status)) => {
            ensure!(status.code() == code && status.message().contains(word), "{status}");
            // After a final error the kubelet removes the directories, which must be empty.
            ensure!(mounts_on(&target)?.is_empty() && !target.exists(), "a mount or a target is left after {status}");
        }
        (expected, sent) => bail!("expected {expected:?}, got {sent:?}"),
    }
    if informed {
        let mut completed = request;
        completed.readonly = true;
        completed.secrets.insert("clientid".to_owned(), vault.client_id.clone());
        completed.secrets.insert("clientsecret".to_owned(), vault.client_secret.clone());
        // Twice: a kubelet that was restarted publishes every volume again
        // (docs/reference/kubelet.md#restarts).
        for _ in 0..2 {
            node.kubelet.send(completed.clone(), DEADLINE)?;
            check_volume(&completed, &target)?;
        }
    }
    Ok(expected.is_none())
}

/// Whether other groups than the caller's own exist, as they do outside of a one-user namespace.
fn has_groups() -> Result<bool> {
    Ok(fs::read_to_string("/proc/self/gid_map")?.contains("4294967295"))
}

fn replay_without_group(
    node: &Node,
    vault: &Vault,
    mut request: NodePublishVolumeRequest,
    target: &Path,
) -> Result<()> {
    request.readonly = true;
    request.secrets.insert("clientid".to_owned(), vault.client_id.clone());
    request.secrets.insert("clientsecret".to_owned(), vault.client_secret.clone());
    let status = node.kubelet.send(request, DEADLINE).err().context("a group that does not exist")?;
    ensure!(status.code() == Code::Internal && !target.exists(), "{status}");
    Ok(())
}

fn check_volume(request: &NodePublishVolumeRequest, target: &Path) -> Result<()> {
    assert_eq!(mounts_on(target)?.len(), 1);
    let found = fs::metadata(target.join("password"))?;
    let group = match request.volume_capability.as_ref().and_then(|capability| capability.access_type.as_ref()) {
        Some(AccessType::Mount(mount)) => mount.volume_mount_group.parse().ok(),
        Some(AccessType::Block(_)) | None => None,
    };
    if let Some(group) = group {
        ensure!(has_groups()?, "the group does not exist here, yet the publish succeeded");
        assert_eq!((found.gid(), found.permissions().mode() & 0o7777), (group, 0o644));
    }
    Ok(())
}

fn replay_unpublish(node: &Node, request: NodeUnpublishVolumeRequest) -> Result<()> {
    let target = PathBuf::from(&request.target_path);
    for _ in 0..2 {
        node.kubelet.send_unpublish(request.clone())?;
        ensure!(mounts_on(&target)?.is_empty() && !target.exists(), "{} is left", target.display());
    }
    Ok(())
}

fn write_classes(node: &Node, vault: &Vault, calls: &[Call]) -> Result<()> {
    let mut classes = BTreeSet::new();
    for call in calls {
        if let Call::Publish(request) = call {
            let of = |key: &str| request.volume_context.get(key).cloned().unwrap_or_default();
            classes.insert((of("csi.storage.k8s.io/pod.namespace"), of("secretProviderClass")));
        }
    }
    for (namespace, class) in classes {
        let text = class_manifest(&namespace, &class, Some("azure"), &vault.parameters(&["password"]));
        node.manifest(&format!("{namespace}.{class}.yaml"), &text)?;
    }
    Ok(())
}

/// The recorded calls that have a request, in order.
fn collect(value: &Value, root: &Path, calls: &mut Vec<Call>) -> Result<()> {
    match value {
        Value::Object(fields) => {
            let request = fields.get("request").filter(|request| request.get("target_path").is_some());
            if let (Some(method), Some(request)) = (fields.get("method").and_then(Value::as_str), request) {
                if method.ends_with("/NodePublishVolume") {
                    calls.push(Call::Publish(Box::new(publish_request(request, root)?)));
                } else if method.ends_with("/NodeUnpublishVolume") {
                    calls.push(Call::Unpublish(NodeUnpublishVolumeRequest {
                        volume_id: text(request, "volume_id")?,
                        target_path: text(request, "target_path")?.replace("<kubelet-root>", &root.to_string_lossy()),
                    }));
                }
            }
            fields.values().try_for_each(|inner| collect(inner, root, calls))
        }
        Value::Array(items) => items.iter().try_for_each(|inner| collect(inner, root, calls)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn publish_request(request: &Value, root: &Path) -> Result<NodePublishVolumeRequest> {
    let mount = &request["volume_capability"]["mount"];
    let mode = text(&request["volume_capability"]["access_mode"], "mode")?;
    let mode = access_mode::Mode::from_str_name(&mode).context("an unknown access mode")?;
    let access_type = AccessType::Mount(MountVolume {
        fs_type: text(mount, "fs_type")?,
        mount_flags: serde_json::from_value(mount["mount_flags"].clone())?,
        volume_mount_group: mount["volume_mount_group"].as_str().unwrap_or_default().to_owned(),
    });
    Ok(NodePublishVolumeRequest {
        volume_id: text(request, "volume_id")?,
        publish_context: map(request, "publish_context")?,
        staging_target_path: text(request, "staging_target_path")?,
        target_path: text(request, "target_path")?.replace("<kubelet-root>", &root.to_string_lossy()),
        volume_capability: Some(VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access_type),
        }),
        readonly: request["readonly"].as_bool().context("no readonly")?,
        secrets: map(request, "secrets")?,
        volume_context: map(request, "volume_context")?,
    })
}

fn text(value: &Value, field: &str) -> Result<String> {
    Ok(value[field].as_str().with_context(|| format!("no {field}"))?.to_owned())
}

fn map(value: &Value, field: &str) -> Result<HashMap<String, String>> {
    let sorted: BTreeMap<String, String> = serde_json::from_value(value[field].clone())?;
    Ok(sorted.into_iter().collect())
}
