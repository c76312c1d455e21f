//! Which failures become events: the first of a kind at once, its repetitions rarely.
//!
//! Pure: the time is an argument. The kubelet calls a failing publish again after 0.6 s, 1.1 s, 2 s and so on, and tells
//! of each with an event of its own; ours say more, so that few suffice. `events` sends what passes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long an equal event is only counted. A server forgets events after an hour, so that one of them is always there.
pub(super) const AGAIN: Duration = Duration::from_secs(1800);
/// How long one of the same reason with another text is only counted.
pub(super) const OTHER_TEXT: Duration = Duration::from_secs(30);
/// How many pods and reasons are remembered.
pub(super) const REMEMBERED: usize = 512;
/// How many events may come at once, and how many a second after that.
pub(super) const BURST: f64 = 50.0;
const RATE: f64 = 2.0;

/// What an event is about: the pod's UID, or its name where there is none, and the event's reason with what it concerns.
pub(super) type About = (String, String);

/// What is to be done about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Make an event. A new one each time: raising the count of an old one would ask for the right to change events.
    Create {
        /// How often it happened by now.
        count: u32,
        /// How long ago it happened first.
        since: Duration,
    },
    /// Tell nobody: it was told.
    Suppress,
    /// Tell nobody now: too much is told already.
    Later,
}

#[derive(Debug)]
struct Told {
    text: String,
    count: u32,
    first: Instant,
    sent: Instant,
}

/// What was told when.
#[derive(Debug)]
pub(super) struct Limits {
    told: HashMap<About, Told>,
    tokens: f64,
    filled: Instant,
}

impl Limits {
    pub(super) fn new(now: Instant) -> Limits {
        Limits { told: HashMap::new(), tokens: BURST, filled: now }
    }

    /// Judges one failure.
    pub(super) fn judge(&mut self, about: &About, text: &str, now: Instant) -> Verdict {
        let (count, first) = match self.told.get_mut(about) {
            None => (1, now),
            Some(told) => {
                told.count = told.count.saturating_add(1);
                let since = now.saturating_duration_since(told.sent);
                match told.text == text {
                    true if since >= AGAIN => (told.count, told.first),
                    false if since >= OTHER_TEXT => (1, now),
                    true | false => return Verdict::Suppress,
                }
            }
        };
        if !self.take(now) {
            return Verdict::Later;
        }
        self.make_room(about);
        self.told.insert(about.clone(), Told { text: text.to_owned(), count, first, sent: now });
        Verdict::Create { count, since: now.saturating_duration_since(first) }
    }

    /// Forgets what was told about a pod that has its volume now.
    pub(super) fn forget(&mut self, pod: &str) {
        self.told.retain(|(about, _), _| about != pod);
    }

    fn make_room(&mut self, about: &About) {
        if self.told.len() < REMEMBERED || self.told.contains_key(about) {
            return;
        }
        let oldest = self.told.iter().min_by_key(|(_, told)| told.sent).map(|(about, _)| about.clone());
        oldest.map(|oldest| self.told.remove(&oldest));
    }

    fn take(&mut self, now: Instant) -> bool {
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
