//! Removes the start-up taint from this node once the driver is registered.
//!
//! The cluster's operator creates nodes with the taint, so that no pod that mounts secrets is
//! scheduled to a node before it can start there. Retries with backoff until the API server has
//! answered; never adds a taint.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::client::Connection;
use super::error::RequestError;
use super::objects::Objects;
use super::resources;
use crate::model::ResourceName;
use crate::queue::backoff::{Backoff, jitter};
use crate::queue::warn_once::WarnOnce;

/// The deadline of one try.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Between tries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// Removes all taints with the key `taint` from the node; retries until none is left.
pub async fn remove_startup_taint(connection: Connection, node: &ResourceName, taint: &str) {
    let objects = Objects::cluster_wide(&connection, &resources::nodes());
    let (mut backoff, mut failing) = (BACKOFF, WarnOnce::default());
    loop {
        let tried = timeout(REQUEST_TIMEOUT, remove(&objects, node, taint))
            .await
            .unwrap_or_else(|_| Err(RequestError::timeout(REQUEST_TIMEOUT)));
        match tried {
            Ok(true) => return info!(%node, taint, "start-up taint removed from the node"),
            Ok(false) => return debug!(%node, taint, "the node has no start-up taint"),
            // The node changed between read and write.
            Err(RequestError::Conflict) => {}
            Err(failure) if failure.is_final() => {
                return warn!(%node, taint, err = %failure, "the start-up taint stays: the API server refuses the request");
            }
            Err(failure) if failing.should_warn((), Instant::now()) => {
                warn!(%node, taint, err = %failure,
                    "cannot remove the start-up taint from the node; the driver needs get and patch on nodes (ClusterRole secrets-store-csi-driver-startup-taint-role); it is retried");
            }
            Err(failure) => debug!(%node, err = %failure, "still cannot remove the start-up taint from the node"),
        }
        sleep(backoff.next(jitter())).await;
    }
}

/// One try; false if the node has no such taint.
async fn remove(objects: &Objects, node: &ResourceName, taint: &str) -> Result<bool, RequestError> {
    let object = objects.get(node).await?;
    let Some(taints) = object.data.pointer("/spec/taints") else { return Ok(false) };
    let Some(left) = without(taints, taint) else { return Ok(false) };
    // The patch replaces the whole list: the resourceVersion guards against concurrent changes.
    let change = json!({
        "metadata": { "resourceVersion": object.metadata.resource_version },
        "spec": { "taints": left },
    });
    objects.merge(node, change).await?;
    Ok(true)
}

/// The taints without those with this key; `None` if there are none with it.
pub(super) fn without(taints: &Value, key: &str) -> Option<Value> {
    let taints = taints.as_array()?;
    let left: Vec<&Value> = taints.iter().filter(|taint| taint["key"] != key).collect();
    (left.len() < taints.len()).then(|| json!(left))
}
