//! Events on pods whose volume cannot be published or refreshed, or whose Secrets cannot be written.
//!
//! The text is the error's own, which is written for the pod's owner and holds no secret. Sent in the background by one
//! task: a failure to send is logged once in a while and hurts nobody. `event_limits` decides what is sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::core::{ApiResource, DynamicObject};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::client::Connection;
use super::error::Failure;
use super::event_limits::{Limits, Verdict};
use super::names;
use super::objects::Objects;
use crate::model::{ClassRef, PodRef, Reason};

/// The longest text of an event in bytes; the newer events API refuses longer ones.
const TEXT: usize = 1024;
/// The most events that wait to be sent.
const PENDING: usize = 256;
/// How long one request may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How often the log says that events cannot be sent.
const TELL: Duration = Duration::from_secs(600);

/// The reason of upstream's event about Secrets (docs/reference/csi-driver.md#secret-events).
const FAILED_SECRET: &str = "FailedToCreateSecret";

/// Sends events. Cheap to clone; all clones share limits and queue.
#[derive(Debug, Clone)]
pub(super) struct Events {
    limits: Arc<Mutex<Limits>>,
    queue: mpsc::Sender<Event>,
}

/// One event to send.
#[derive(Debug)]
struct Event {
    pod: PodRef,
    /// The event's own reason.
    reason: String,
    text: String,
    /// How often it happened by now.
    count: u32,
    /// How long ago it happened first.
    since: Duration,
}

/// Who sends.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) component: String,
    pub(super) node: String,
}

impl Events {
    /// Starts the sending task, which ends when the last clone is dropped. Must run inside a runtime.
    pub(super) fn start(connection: Connection, source: Source) -> Events {
        let (queue, waiting) = mpsc::channel(PENDING);
        tokio::spawn(send_all(connection, source, waiting));
        Events { limits: Arc::new(Mutex::new(Limits::new(Instant::now()))), queue }
    }

    /// Tells of a failed publish, if that is news.
    pub(super) fn failed(&self, pod: &PodRef, reason: Reason, error: &str) {
        // The kubelet calls again within a second, and only that outcome means anything.
        if reason != Reason::Busy {
            self.tell(pod, event_reason(reason), "", &format!("{error} ({reason})"));
        }
    }

    /// Tells of a failed refresh; says whether there was room.
    pub(super) fn refresh_failed(&self, pod: &PodRef, reason: Reason, error: &str) -> bool {
        let text = format!("the volume keeps what it holds, since it cannot be refreshed: {error} ({reason})");
        self.tell(pod, format!("FailedRefresh{reason}"), "", &text)
    }

    /// Tells of Secrets that are not what a class asks for, if that is news.
    pub(super) fn secret_failed(&self, pod: &PodRef, class: &ClassRef, reason: Reason, error: &str) {
        self.tell(pod, FAILED_SECRET.to_owned(), &class.name, &format!("{error} ({reason})"));
    }

    /// Sends an event if it is news; `about` tells what one pod may have several of. Says whether there was room.
    fn tell(&self, pod: &PodRef, reason: String, about: &str, text: &str) -> bool {
        let text = cut(text);
        let about = (identity(pod).to_owned(), format!("{reason} {about}"));
        let (count, since) = match self.limits().judge(&about, &text, Instant::now()) {
            Verdict::Create { count, since } => (count, since),
            Verdict::Suppress => return true,
            Verdict::Later => return false,
        };
        let event = Event { pod: pod.clone(), reason, text, count, since };
        let queued = self.queue.try_send(event).is_ok();
        if !queued {
            debug!(%pod, "an event is dropped: too many wait");
        }
        queued
    }

    /// Notes that the pod has its volume: the next failure is news again.
    pub(super) fn published(&self, pod: &PodRef) {
        self.limits().forget(identity(pod));
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        // What is left behind by a thread that died is at worst one event too many.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send_all(connection: Connection, source: Source, mut waiting: mpsc::Receiver<Event>) {
    let mut told: Option<Instant> = None;
    while let Some(event) = waiting.recv().await {
        let sent = timeout(ANSWER, send(&connection, &source, &event)).await;
        let Err(failure) = sent.unwrap_or_else(|_| Err(Failure::timeout(ANSWER))) else { continue };
        if told.is_none_or(|told| told.elapsed() >= TELL) {
            warn!(pod = %event.pod, err = %failure,
                "cannot send an event; the driver needs create on events (ClusterRole secretproviderclasses-role)");
            told = Some(Instant::now());
        } else {
            debug!(pod = %event.pod, err = %failure, "cannot send an event");
        }
    }
}

async fn send(connection: &Connection, source: &Source, event: &Event) -> Result<(), Failure> {
    let objects = Objects::within(connection, &event.pod.namespace, &resource());
    objects.create(&object(source, event, jiff::Timestamp::now())?).await.map(drop)
}

fn object(source: &Source, event: &Event, now: jiff::Timestamp) -> Result<DynamicObject, Failure> {
    let name = names::event_name(&event.pod, &format!("{} {now} {}", event.reason, event.text))?;
    let first = now.checked_sub(event.since).unwrap_or(now);
    let mut object = DynamicObject::new(&name, &resource());
    object.metadata.namespace = Some(event.pod.namespace.to_string());
    let pod = &event.pod;
    let mut involved = json!({
        "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace.as_str(), "name": pod.name.as_str(),
    });
    if !pod.uid.is_empty() {
        involved["uid"] = pod.uid.as_str().into();
    }
    object.data = json!({
        "involvedObject": involved,
        "reason": event.reason,
        "message": event.text,
        "type": "Warning",
        "source": { "component": source.component, "host": source.node },
        "reportingComponent": source.component,
        "reportingInstance": source.node.chars().take(128).collect::<String>(),
        "count": event.count,
        "firstTimestamp": seconds(first),
        "lastTimestamp": seconds(now),
    });
    Ok(object)
}

/// The reason of the event: what people filter by begins as the kubelet's own `FailedMount` does.
pub(super) fn event_reason(reason: Reason) -> String {
    // "FailedMountMountFailed" would say it twice.
    if reason == Reason::MountFailed { "FailedMount".to_owned() } else { format!("FailedMount{reason}") }
}

/// What tells one pod from the next; a pod of the same name may follow it.
fn identity(pod: &PodRef) -> &str {
    if pod.uid.is_empty() { &pod.name } else { &pod.uid }
}

/// At most [`TEXT`] bytes.
pub(super) fn cut(text: &str) -> String {
    const MORE: &str = " ...";
    if text.len() <= TEXT {
        return text.to_owned();
    }
    let end = (0..=TEXT - MORE.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{MORE}", &text[..end])
}

fn resource() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Event".to_owned(),
        plural: "events".to_owned(),
    }
}

/// The time as the API server writes it: RFC 3339, whole seconds.
pub(super) fn timestamp() -> String {
    seconds(jiff::Timestamp::now())
}

fn seconds(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
