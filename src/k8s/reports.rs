//! What the cluster is told about volumes: a status for each that is published, an event for each failure that is news.
//!
//! Returns at once: everything is sent in the background. Control comes from `volume`; without a cluster there is nobody
//! to tell, and `volume` has no `Reports`.

use std::time::Duration;

use super::client::Connection;
use super::events::{self, Events, Source};
use super::pod_status::{self, Wanted};
use super::status_writer::StatusWriter;
use crate::model::{ClassRef, ObjectVersion, PodRef, Reason};

/// This node, as its reports name it.
#[derive(Debug, Clone)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// The driver's name.
    pub driver: String,
}

/// Tells the cluster about volumes. Cheap to clone; all clones share queues and limits.
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

    /// A volume is published and holds these versions.
    pub fn published(&self, pod: &PodRef, class: &ClassRef, target: &str, versions: &[ObjectVersion]) {
        self.events.published(pod);
        // Without the UID nobody would ever delete the object.
        if pod.uid.is_empty() {
            return;
        }
        self.statuses.write(Wanted {
            pod: pod.clone(),
            class: class.name.clone(),
            target: target.to_owned(),
            objects: pod_status::objects(versions),
            node: self.node.clone(),
            now: events::timestamp(),
        });
    }

    /// A publish failed; `error` must hold no secret.
    pub fn failed(&self, pod: &PodRef, reason: Reason, error: &str) {
        self.events.failed(pod, reason, error);
    }

    /// Secrets that a class asks for are not what they should be; `error` must hold no secret.
    pub fn secret_failed(&self, pod: &PodRef, class: &ClassRef, reason: Reason, error: &str) {
        self.events.secret_failed(pod, class, reason, error);
    }

    /// A volume is gone. Its status goes with the pod, by garbage collection.
    pub fn unpublished(&self, target: &str) {
        self.statuses.forget(target);
    }

    /// Gives what is still to be written until `limit` to be so.
    pub async fn settle(&self, limit: Duration) {
        self.statuses.settle(limit).await;
    }
}
