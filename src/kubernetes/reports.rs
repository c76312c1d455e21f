//! Reports about volumes to the cluster: a status for each published volume, events for failures.
//!
//! Never waits: everything is sent in the background. Without a cluster, `node::volume` has no
//! `Reports`.

use std::time::Duration;

use super::client::Connection;
use super::events::{self, Events, Source};
use super::pod_status::{self, DesiredStatus};
use super::status_writer::StatusWriter;
use crate::model::{ClassRef, ObjectVersion, PodRef, Reason};

/// The reason of upstream's event about Secrets (docs/reference/csi-driver.md#secret-events).
const FAILED_SECRET: &str = "FailedToCreateSecret";

/// This node, as its reports name it.
#[derive(Debug, Clone)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// The driver's name.
    pub driver: String,
}

/// The change to a volume's status.
struct StatusUpdate<'a> {
    /// `None` keeps the versions in the status.
    versions: Option<&'a [ObjectVersion]>,
    failure: Option<(Reason, String)>,
    /// Whether the status object should exist already.
    exists: bool,
}

/// Reports about volumes. Cheap to clone; all clones share queues and limits.
#[derive(Debug, Clone)]
pub struct Reports {
    node: String,
    events: Events,
    statuses: StatusWriter,
}

impl Reports {
    /// Reports of this node. Must run inside a runtime.
    pub fn start(connection: Connection, node: Node) -> Reports {
        let Node { name, driver } = node;
        let source = Source { component: driver, node: name.clone() };
        let events = Events::start(connection.clone(), source);
        Reports { node: name, events, statuses: StatusWriter::new(connection) }
    }

    /// The volume is published, with these object versions.
    pub fn published(&self, pod: &PodRef, class: &ClassRef, target: &str, versions: &[ObjectVersion]) {
        self.events.forget(&pod.into());
        self.write(pod, class, target, StatusUpdate { versions: Some(versions), failure: None, exists: false });
    }

    /// The volume was refreshed: its versions changed, or the last refresh had failed.
    pub fn refreshed(&self, pod: &PodRef, class: &ClassRef, target: &str, versions: &[ObjectVersion]) {
        self.events.forget(&pod.into());
        self.write(pod, class, target, StatusUpdate { versions: Some(versions), failure: None, exists: true });
    }

    /// A refresh failed, with another reason than the last one; `error` must contain no secret.
    /// Returns false if the event has to wait, and nothing was reported.
    pub fn refresh_failed(&self, pod: &PodRef, class: &ClassRef, target: &str, reason: Reason, error: &str) -> bool {
        let text = format!("the volume keeps what it holds, since it cannot be refreshed: {error} ({reason})");
        let reported = self.events.warn(&pod.into(), format!("FailedRefresh{reason}"), "", &text);
        if reported {
            let failure = Some((reason, events::cut(error)));
            self.write(pod, class, target, StatusUpdate { versions: None, failure, exists: true });
        }
        reported
    }

    fn write(&self, pod: &PodRef, class: &ClassRef, target: &str, update: StatusUpdate<'_>) {
        let StatusUpdate { versions, failure, exists } = update;
        // Without the UID there is no owner, and the object would never be deleted.
        if pod.uid.is_empty() {
            return;
        }
        self.statuses.write(DesiredStatus {
            pod: pod.clone(),
            class: class.name.clone(),
            target: target.to_owned(),
            objects: versions.map(pod_status::objects),
            failure,
            exists,
            node: self.node.clone(),
            now: events::timestamp(),
        });
    }

    /// A publish failed; `error` must contain no secret.
    pub fn failed(&self, pod: &PodRef, reason: Reason, error: &str) {
        // The kubelet repeats the call within a second, and reports its outcome.
        if reason != Reason::Busy {
            self.events.warn(&pod.into(), mount_event_reason(reason), "", &format!("{error} ({reason})"));
        }
    }

    /// Secrets are not what a class asks for; `error` must contain no secret.
    pub fn secret_failed(&self, pod: &PodRef, class: &ClassRef, reason: Reason, error: &str) {
        self.events.warn(&pod.into(), FAILED_SECRET.to_owned(), &class.name, &format!("{error} ({reason})"));
    }

    /// The volume was unpublished. Its status is garbage-collected with the pod.
    pub fn unpublished(&self, target: &str) {
        self.statuses.forget(target);
    }

    /// Waits until all statuses are written, at most for `limit`.
    pub async fn settle(&self, limit: Duration) {
        self.statuses.settle(limit).await;
    }
}

/// The event's reason; it begins like the kubelet's own `FailedMount`, by which people filter.
pub(super) fn mount_event_reason(reason: Reason) -> String {
    // Not "FailedMountMountFailed".
    if reason == Reason::MountFailed { "FailedMount".to_owned() } else { format!("FailedMount{reason}") }
}
