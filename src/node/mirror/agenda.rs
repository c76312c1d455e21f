//! Which pods use which class on this node, and when a class's Secrets are to be looked at.
//!
//! Pure: the time is an argument. What changed is due at once, what is as it should be after the interval, what failed
//! after a pause that grows. `mod` asks what is due and tells how it ended.
//!
//! # Guarantees
//! A class is never looked at twice at once. At most [`USERS`] uses are remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::{ClassRef, PodRef};

/// The most pods, counted for each class, that are remembered; a multiple of what a node may run.
const USERS: usize = 4096;
/// The first pause after a failure; it doubles up to the interval.
const PAUSE: Duration = Duration::from_secs(5);

/// Why a class's Secrets are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// Something changed on this node: what was seen last is taken for granted.
    News,
    /// It is time: somebody may have changed or deleted a Secret.
    Check,
}

/// What is to be done when.
#[derive(Debug)]
pub(super) struct Agenda {
    interval: Duration,
    classes: BTreeMap<ClassRef, Item>,
    users: usize,
}

#[derive(Debug, Default)]
struct Item {
    pods: BTreeSet<PodRef>,
    due: Option<(Instant, Look)>,
    /// When the Secrets themselves are to be looked at next, however much news comes until then.
    check: Option<Instant>,
    running: bool,
    failures: u32,
}

/// A class whose Secrets are to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// The class.
    pub(super) class: ClassRef,
    /// The pods that use it.
    pub(super) pods: BTreeSet<PodRef>,
    /// Why.
    pub(super) look: Look,
}

/// How a look ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// All is as it should be.
    Done,
    /// The class asks for no Secrets.
    NothingToDo,
    /// Something is not as it should be.
    Failed,
}

impl Agenda {
    /// Nothing to do; what is as it should be is looked at again after `interval`.
    pub(super) fn new(interval: Duration) -> Agenda {
        Agenda { interval, classes: BTreeMap::new(), users: 0 }
    }

    /// A pod uses a class; says whether there is room to remember it.
    pub(super) fn uses(&mut self, class: &ClassRef, pod: &PodRef, now: Instant) -> bool {
        let known = self.classes.get(class).is_some_and(|item| item.pods.contains(pod));
        if !known && self.users >= USERS {
            return false;
        }
        let item = self.classes.entry(class.clone()).or_default();
        if !known {
            item.pods.insert(pod.clone());
            self.users += 1;
            // A new pod waits for its Secrets: whether they are there is not taken for granted.
            item.due(now, Look::Check);
        } else {
            item.due(now, Look::News);
        }
        true
    }

    /// Something about a class changed.
    pub(super) fn touch(&mut self, class: &ClassRef, now: Instant) {
        if let Some(item) = self.classes.get_mut(class) {
            item.due(now, Look::News);
        }
    }

    /// Something about every class may have changed.
    pub(super) fn touch_all(&mut self, now: Instant) {
        self.classes.values_mut().for_each(|item| item.due(now, Look::News));
    }

    /// The uses of pods of this namespace and name.
    pub(super) fn uses_of(&self, namespace: &str, name: &str) -> Vec<(ClassRef, PodRef)> {
        let of = self.classes.iter().filter(|(class, _)| class.namespace == namespace);
        let uses = of.flat_map(|(class, item)| item.pods.iter().map(move |pod| (class, pod)));
        uses.filter(|(_, pod)| pod.name == name).map(|(class, pod)| (class.clone(), pod.clone())).collect()
    }

    /// A pod has gone, or never used the class; a class without pods is forgotten.
    pub(super) fn gone(&mut self, class: &ClassRef, pod: &PodRef) {
        let Some(item) = self.classes.get_mut(class) else { return };
        if item.pods.remove(pod) {
            self.users -= 1;
        }
        if item.pods.is_empty() && !item.running {
            self.classes.remove(class);
        }
    }

    /// Whether any pod here uses the class.
    pub(super) fn knows(&self, class: &ClassRef) -> bool {
        self.classes.contains_key(class)
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = self.classes.values().filter(|item| !item.running);
        waiting.filter_map(|item| item.due.map(|(at, _)| at)).min()
    }

    /// Takes what is due; it counts as running until [`Agenda::ended`].
    pub(super) fn take(&mut self, now: Instant) -> Option<Task> {
        let due = |item: &&mut Item| !item.running && item.due.is_some_and(|(at, _)| at <= now);
        let (class, item) = self.classes.iter_mut().filter(|(_, item)| due(item)).min_by_key(|(_, item)| item.due)?;
        let (_, mut look) = item.due.take()?;
        if item.check.is_some_and(|at| at <= now) {
            look = Look::Check;
        }
        if look == Look::Check {
            item.check = None;
        }
        item.running = true;
        Some(Task { class: class.clone(), pods: item.pods.clone(), look })
    }

    /// A look has ended; `jitter` lies between 0 and 1 and spreads the next one.
    pub(super) fn ended(&mut self, class: &ClassRef, ending: &Ending, now: Instant, jitter: f64) {
        let Some(item) = self.classes.get_mut(class) else { return };
        item.running = false;
        let after = match ending {
            Ending::Done => {
                item.failures = 0;
                Some(self.interval)
            }
            Ending::NothingToDo => None,
            Ending::Failed => {
                item.failures = item.failures.saturating_add(1);
                Some(PAUSE.saturating_mul(1 << item.failures.saturating_sub(1).min(16)).min(self.interval))
            }
        };
        // Between 90 and 110 percent, so that nodes that started together do not stay together.
        let spread = |after: Duration| after.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0));
        // What came in between is due already, and looks harder if this failed.
        let at = match ending {
            Ending::Done => after.map(|after| *item.check.get_or_insert(now + spread(after))),
            Ending::NothingToDo | Ending::Failed => after.map(|after| now + spread(after)),
        };
        let look = at.map(|at| (at, Look::Check));
        item.due = match (item.due, look) {
            (Some(news), Some(_)) if *ending == Ending::Failed => Some((news.0, Look::Check)),
            (news @ Some(_), _) => news,
            (None, look) => look,
        };
        if item.pods.is_empty() {
            self.classes.remove(class);
        }
    }
}

impl Item {
    fn due(&mut self, now: Instant, look: Look) {
        let harder = match self.due {
            // One that is due anyway may be the harder look.
            Some((at, due)) if at <= now => look.max(due),
            Some(_) | None if self.failures > 0 => Look::Check,
            Some(_) | None => look,
        };
        self.due = Some((self.due.map_or(now, |(at, _)| at.min(now)), harder));
    }
}
