//! Sends warning events about objects in the background.
//!
//! The text is an error's own, which is written for the object's owner and contains no secret. One
//! task sends; a failure to send is logged and has no other effect. `event_limits` decides which
//! events are sent.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::core::DynamicObject;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::client::Connection;
use super::error::RequestError;
use super::event_limits::{EventLimits, Verdict};
use super::names;
use super::objects::Objects;
use super::resources;
use crate::model::{Namespace, PodRef, ResourceName};
use crate::queue::warn_once::WarnOnce;

/// The longest message of an event in bytes; the newer events API rejects longer ones.
const MESSAGE: usize = 1024;
/// The most events that wait to be sent.
const PENDING: usize = 256;
/// The deadline of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log warns that events cannot be sent.
const WARN_PERIOD: Duration = Duration::from_secs(600);

/// The object that an event is about.
#[derive(Debug, Clone)]
pub(super) struct ObjectRef {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespace: Namespace,
    pub(super) name: ResourceName,
    /// Empty if unknown.
    pub(super) uid: String,
}

impl ObjectRef {
    /// Distinguishes objects; one with the same name may follow a deleted one.
    fn identity(&self) -> &str {
        if self.uid.is_empty() { &self.name } else { &self.uid }
    }
}

impl From<&PodRef> for ObjectRef {
    fn from(pod: &PodRef) -> ObjectRef {
        let PodRef { namespace, name, uid } = pod.clone();
        ObjectRef { api_version: "v1", kind: "Pod", namespace, name, uid }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Sends events. Cheap to clone; all clones share limits and queue.
#[derive(Debug, Clone)]
pub(super) struct Events {
    limits: Arc<Mutex<EventLimits>>,
    queue: mpsc::Sender<Event>,
}

/// One event to send.
#[derive(Debug)]
struct Event {
    object: ObjectRef,
    reason: String,
    message: String,
    /// How often it happened so far.
    count: u32,
    /// How long ago it happened first.
    since: Duration,
}

/// The sender, as events name it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) component: String,
    pub(super) node: String,
}

impl Events {
    /// Starts the sending task, which ends with the last clone. Must run inside a runtime.
    pub(super) fn start(connection: Connection, source: Source) -> Events {
        let (queue, waiting) = mpsc::channel(PENDING);
        tokio::spawn(send_all(connection, source, waiting));
        Events { limits: Arc::new(Mutex::new(EventLimits::new(Instant::now()))), queue }
    }

    /// Sends a warning unless it repeats an earlier one; `subject` distinguishes several warnings
    /// with one reason about one object. Returns false if there is no room for the event now.
    pub(super) fn warn(&self, object: &ObjectRef, reason: String, subject: &str, message: &str) -> bool {
        let message = cut(message);
        let about = (object.identity().to_owned(), format!("{reason} {subject}"));
        let (count, since) = match self.limits().judge(&about, &message, Instant::now()) {
            Verdict::Send { count, since } => (count, since),
            Verdict::Suppress => return true,
            Verdict::Later => return false,
        };
        let event = Event { object: object.clone(), reason, message, count, since };
        let queued = self.queue.try_send(event).is_ok();
        if !queued {
            debug!(%object, "an event is dropped: too many are pending");
        }
        queued
    }

    /// The object has recovered: its next warning is not a repetition.
    pub(super) fn forget(&self, object: &ObjectRef) {
        self.limits().forget(object.identity());
    }

    fn limits(&self) -> MutexGuard<'_, EventLimits> {
        // After a panic, at worst one event is sent twice.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send_all(connection: Connection, source: Source, mut waiting: mpsc::Receiver<Event>) {
    let mut failing = WarnOnce::again_after(WARN_PERIOD);
    while let Some(event) = waiting.recv().await {
        let sent = timeout(REQUEST_TIMEOUT, send(&connection, &source, &event)).await;
        let Err(error) = sent.unwrap_or_else(|_| Err(RequestError::timeout(REQUEST_TIMEOUT))) else { continue };
        if failing.should_warn((), Instant::now()) {
            warn!(object = %event.object, err = %error,
                "cannot send an event; the driver needs create on events (ClusterRole secretproviderclasses-role)");
        } else {
            debug!(object = %event.object, err = %error, "cannot send an event");
        }
    }
}

async fn send(connection: &Connection, source: &Source, event: &Event) -> Result<(), RequestError> {
    let objects = Objects::within(connection, &event.object.namespace, &resources::events());
    objects.create(&event_object(source, event, jiff::Timestamp::now())?).await.map(drop)
}

fn event_object(source: &Source, event: &Event, now: jiff::Timestamp) -> Result<DynamicObject, RequestError> {
    let object = &event.object;
    let name = names::event_name(&object.name, &format!("{} {now} {}", event.reason, event.message))?;
    let first = now.checked_sub(event.since).unwrap_or(now);
    let mut involved = json!({
        "apiVersion": object.api_version, "kind": object.kind,
        "namespace": object.namespace.as_str(), "name": object.name.as_str(),
    });
    if !object.uid.is_empty() {
        involved["uid"] = object.uid.as_str().into();
    }
    let mut created = DynamicObject::new(&name, &resources::events());
    created.metadata.namespace = Some(object.namespace.to_string());
    created.data = json!({
        "involvedObject": involved,
        "reason": event.reason,
        "message": event.message,
        "type": "Warning",
        "source": { "component": source.component, "host": source.node },
        "reportingComponent": source.component,
        "reportingInstance": source.node.chars().take(128).collect::<String>(),
        "count": event.count,
        "firstTimestamp": seconds(first),
        "lastTimestamp": seconds(now),
    });
    Ok(created)
}

/// At most [`MESSAGE`] bytes.
pub(super) fn cut(text: &str) -> String {
    const MORE: &str = " ...";
    if text.len() <= MESSAGE {
        return text.to_owned();
    }
    let end = (0..=MESSAGE - MORE.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{MORE}", &text[..end])
}

/// The time in the API server's format: RFC 3339, whole seconds.
pub(super) fn timestamp() -> String {
    seconds(jiff::Timestamp::now())
}

fn seconds(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
