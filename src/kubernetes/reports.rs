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

/// What is to be said about a volume.
struct What<'a> {
    versions: Option<&'a [ObjectVersion]>,
    failure: Option<(Reason, String)>,
    /// Whether something was said before.
    there: bool,
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
        self.write(pod, class, target, What { versions: Some(versions), failure: None, there: false });
    }

    /// A volume was refreshed, and holds these versions now or after a failure again.
    pub fn refreshed(&self, pod: &PodRef, class: &ClassRef, target: &str, versions: &[ObjectVersion]) {
        self.events.published(pod);
        self.write(pod, class, target, What { versions: Some(versions), failure: None, there: true });
    }

    /// A volume could not be refreshed, for another reason than before; `error` must hold no secret. Says whether there is
    /// room to tell that.
    pub fn refresh_failed(&self, pod: &PodRef, class: &ClassRef, target: &str, reason: Reason, error: &str) -> bool {
        let told = self.events.refresh_failed(pod, reason, error);
        if told {
            let failure = Some((reason, events::cut(error)));
            self.write(pod, class, target, What { versions: None, failure, there: true });
        }
        told
    }

    fn write(&self, pod: &PodRef, class: &ClassRef, target: &str, what: What<'_>) {
        let What { versions, failure, there } = what;
        // Without the UID nobody would ever delete the object.
        if pod.uid.is_empty() {
            return;
        }
        self.statuses.write(Wanted {
            pod: pod.clone(),
            class: class.name.clone(),
            target: target.to_owned(),
            objects: versions.map(pod_status::objects),
            failure,
            there,
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
