//! Takes the start-up taint off the own node, once the kubelet knows the driver.
//!
//! Nodes are created with the taint by whoever makes them, so that no pod that mounts secrets is scheduled where it could
//! not start yet. Asks the API server once, and again with growing pauses until it has answered; never puts a taint back.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::client::Connection;
use super::error::Failure;
use super::objects::Objects;
use crate::model::ResourceName;

/// How long one request may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The first and the longest pause between tries.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(30)];

/// Removes all taints with the key `taint` from the node `node`; returns when none is left, however long that takes.
pub async fn remove_startup_taint(connection: Connection, node: &ResourceName, taint: &str) {
    let [first, longest] = PAUSES;
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(longest)
        .without_max_times()
        .with_jitter()
        .build();
    let objects = Objects::cluster_wide(&connection, &nodes());
    let mut told = false;
    loop {
        let tried =
            timeout(ANSWER, remove(&objects, node, taint)).await.unwrap_or_else(|_| Err(Failure::timeout(ANSWER)));
        match tried {
            Ok(true) => return info!(%node, taint, "the start-up taint is off the node"),
            Ok(false) => return debug!(%node, taint, "the node has no start-up taint"),
            // Somebody else changed the taints meanwhile.
            Err(Failure::Conflict) => {}
            Err(failure) if failure.is_final() => {
                return warn!(%node, taint, err = %failure, "the start-up taint stays: the API server refuses the request");
            }
            Err(failure) if told => debug!(%node, err = %failure, "still cannot take the start-up taint off the node"),
            Err(failure) => {
                warn!(%node, taint, err = %failure,
                    "cannot take the start-up taint off the node; the driver needs get and patch on nodes (ClusterRole secrets-store-csi-driver-startup-taint-role); it is tried again");
                told = true;
            }
        }
        sleep(pauses.next().unwrap_or(longest).min(longest)).await;
    }
}

/// One try; false when there was nothing to remove.
async fn remove(objects: &Objects, node: &ResourceName, taint: &str) -> Result<bool, Failure> {
    let object = objects.get(node).await?;
    let Some(taints) = object.data.pointer("/spec/taints") else { return Ok(false) };
    let Some(left) = without(taints, taint) else { return Ok(false) };
    // The version guards what others do to the taints at the same time: a list is replaced as a whole.
    let change = json!({
        "metadata": { "resourceVersion": object.metadata.resource_version },
        "spec": { "taints": left },
    });
    objects.merge(node, change).await?;
    Ok(true)
}

/// The taints that are left without those of this key; `None` when there is none of it.
pub(super) fn without(taints: &Value, key: &str) -> Option<Value> {
    let taints = taints.as_array()?;
    let left: Vec<&Value> = taints.iter().filter(|taint| taint["key"] != key).collect();
    (left.len() < taints.len()).then(|| json!(left))
}

fn nodes() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        plural: "nodes".to_owned(),
    }
}
