//! Decides which warnings become events: the first of a kind at once, repetitions seldom.
//!
//! Pure: the time is an argument. The kubelet repeats a failing publish after 0.6 s, 1.1 s, 2 s and
//! so on, and sends an event of its own each time; ours say more, so that few are enough.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long an equal event is only counted. An API server deletes events after an hour, so that one
/// always exists.
pub(super) const AGAIN: Duration = Duration::from_secs(1800);
/// How long an event with the same reason and another message is only counted.
pub(super) const OTHER_MESSAGE: Duration = Duration::from_secs(30);
/// How many combinations of object and reason are remembered.
pub(super) const REMEMBERED: usize = 512;
/// The rate limit, a token bucket: this many events at once, and [`RATE`] a second after that.
pub(super) const BURST: f64 = 50.0;
const RATE: f64 = 2.0;

/// The object's UID, or its name if the UID is unknown; and the event's reason with its subject.
pub(super) type About = (String, String);

/// The decision about a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Create an event. Always a new one: to raise the count of an old one would require the right
    /// to change events.
    Send {
        /// How often it happened so far.
        count: u32,
        /// How long ago it happened first.
        since: Duration,
    },
    /// Send nothing: it is a repetition.
    Suppress,
    /// Send nothing now: the rate limit is reached.
    Later,
}

#[derive(Debug)]
struct Sent {
    message: String,
    count: u32,
    first: Instant,
    last: Instant,
}

/// The events that were sent.
#[derive(Debug)]
pub(super) struct EventLimits {
    sent: HashMap<About, Sent>,
    tokens: f64,
    filled: Instant,
}

impl EventLimits {
    pub(super) fn new(now: Instant) -> EventLimits {
        EventLimits { sent: HashMap::new(), tokens: BURST, filled: now }
    }

    /// Decides about one warning, and counts it.
    pub(super) fn judge(&mut self, about: &About, message: &str, now: Instant) -> Verdict {
        let (count, first) = match self.sent.get_mut(about) {
            None => (1, now),
            Some(sent) => {
                sent.count = sent.count.saturating_add(1);
                let since = now.saturating_duration_since(sent.last);
                match sent.message == message {
                    true if since >= AGAIN => (sent.count, sent.first),
                    false if since >= OTHER_MESSAGE => (1, now),
                    true | false => return Verdict::Suppress,
                }
            }
        };
        if !self.take_token(now) {
            return Verdict::Later;
        }
        self.make_room(about);
        self.sent.insert(about.clone(), Sent { message: message.to_owned(), count, first, last: now });
        Verdict::Send { count, since: now.saturating_duration_since(first) }
    }

    /// Forgets the events about an object.
    pub(super) fn forget(&mut self, object: &str) {
        self.sent.retain(|(about, _), _| about != object);
    }

    fn make_room(&mut self, about: &About) {
        if self.sent.len() < REMEMBERED || self.sent.contains_key(about) {
            return;
        }
        let oldest = self.sent.iter().min_by_key(|(_, sent)| sent.last).map(|(about, _)| about.clone());
        oldest.map(|oldest| self.sent.remove(&oldest));
    }

    fn take_token(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * RATE).min(BURST);
        self.filled = now;
        let free = self.tokens >= 1.0;
        if free {
            self.tokens -= 1.0;
        }
        free
    }
}
