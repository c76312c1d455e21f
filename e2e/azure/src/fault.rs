//! Faults: which request is to go wrong, how often, and in what way.
//!
//! Pure: it decides from the request's place, kind and object which actions apply and counts them.
//! It changes no answer itself; `sabotage` does, with what [`FaultBook::strike`] returns.
//!
//! # Guarantees
//!
//! Rules are tried in the order they were added. Every [`Action::Latency`] that matches adds up;
//! the first other action that matches wins, and the rules after it do not count this request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::Kind;

/// A rule: requests that match it are answered wrongly on purpose.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The vault's name or the tenant; `None` matches all.
    #[serde(default)]
    pub host: Option<String>,
    /// The kind of request; `None` matches all.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// The object's name; `None` matches all, also requests without an object.
    #[serde(default)]
    pub object: Option<String>,
    /// So many matching requests pass unharmed first.
    #[serde(default)]
    pub skip: u64,
    /// So many requests are hit after that; `None` means all.
    #[serde(default)]
    pub times: Option<u64>,
    /// What happens to a request that is hit.
    pub action: Action,
}

/// What happens to a request that a [`Fault`] hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The answer comes later, and is otherwise right.
    Latency {
        /// The delay in milliseconds.
        milliseconds: u64,
    },
    /// This status with the error body that the real service would send.
    Status {
        /// The HTTP status.
        status: u16,
        /// The value of `Retry-After`, sent as it stands: seconds, a date, or nonsense.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// No answer until the client goes away.
    Hang,
    /// The connection is closed without an answer.
    Cut,
    /// The right answer, of which only the first half of the body arrives.
    Truncate,
    /// The right answer under another content type.
    ContentType {
        /// The value of `Content-Type`.
        content_type: String,
    },
    /// 200 with a body that begins as JSON and is this long.
    HugeBody {
        /// The number of bytes.
        bytes: u64,
    },
    /// 200 with a body in gzip that unpacks to JSON of this length, about a thousand times as long as what is sent.
    GzipBomb {
        /// The number of bytes when unpacked.
        bytes: u64,
    },
    /// The right answer behind header fields of this length together.
    HugeHead {
        /// The number of bytes.
        bytes: u64,
    },
    /// A list page whose `nextLink` is this address; other answers stay as they are.
    NextLink {
        /// The address, as a rule of a foreign host.
        url: String,
    },
    /// A redirect.
    Redirect {
        /// 302 or 307, as a rule.
        status: u16,
        /// The value of `Location`.
        url: String,
    },
    /// This answer, whatever was asked.
    Body {
        /// The HTTP status.
        status: u16,
        /// The value of `Content-Type`.
        content_type: String,
        /// The body as it stands.
        body: String,
    },
}

impl Fault {
    /// A rule that hits every request to every place with `action`.
    pub fn new(action: Action) -> Fault {
        Fault { host: None, kind: None, object: None, skip: 0, times: None, action }
    }

    /// Only requests to this vault or tenant.
    #[must_use]
    pub fn host(mut self, vault_or_tenant: &str) -> Fault {
        self.host = Some(vault_or_tenant.to_owned());
        self
    }

    /// Only requests of this kind.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Fault {
        self.kind = Some(kind);
        self
    }

    /// Only requests for the object of this name.
    #[must_use]
    pub fn object(mut self, name: &str) -> Fault {
        self.object = Some(name.to_owned());
        self
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub fn skip(mut self, count: u64) -> Fault {
        self.skip = count;
        self
    }

    /// Ends after `count` hits.
    #[must_use]
    pub fn times(mut self, count: u64) -> Fault {
        self.times = Some(count);
        self
    }
}

impl Action {
    /// A delay.
    pub fn latency(delay: Duration) -> Action {
        Action::Latency { milliseconds: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX) }
    }

    /// An HTTP status with the service's own error body.
    pub fn status(status: u16) -> Action {
        Action::Status { status, retry_after: None }
    }

    /// An HTTP status with `Retry-After` in seconds.
    pub fn status_retry_after(status: u16, seconds: u64) -> Action {
        Action::Status { status, retry_after: Some(seconds.to_string()) }
    }
}

/// Whether HTTP allows what the fault is to send.
pub(crate) fn check(fault: &Fault) -> Result<(), String> {
    match &fault.action {
        Action::Status { status, .. } | Action::Redirect { status, .. } | Action::Body { status, .. }
            if !(200..=599).contains(status) =>
        {
            Err(status.to_string())
        }
        Action::Latency { .. }
        | Action::Status { .. }
        | Action::Hang
        | Action::Cut
        | Action::Truncate
        | Action::ContentType { .. }
        | Action::HugeBody { .. }
        | Action::GzipBomb { .. }
        | Action::HugeHead { .. }
        | Action::NextLink { .. }
        | Action::Redirect { .. }
        | Action::Body { .. } => Ok(()),
    }
}

/// What the rules have in store for one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Strike {
    /// How long to wait first.
    pub(crate) delay: Duration,
    /// What to do instead of, or to, the right answer.
    pub(crate) action: Option<Action>,
}

/// The rules in force, with their counts.
#[derive(Debug, Default)]
pub(crate) struct FaultBook {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    seen: u64,
}

impl FaultBook {
    /// Adds a rule behind those already there.
    pub(crate) fn add(&mut self, fault: Fault) {
        self.rules.push(Rule { fault, seen: 0 });
    }

    /// Removes the rules of one vault or tenant, or all rules.
    pub(crate) fn clear(&mut self, host: Option<&str>) {
        self.rules.retain(|rule| match host {
            None => false,
            Some(host) => !same(rule.fault.host.as_deref(), host),
        });
    }

    /// The rules in force, in the order they are tried.
    pub(crate) fn list(&self) -> Vec<Fault> {
        self.rules.iter().map(|rule| rule.fault.clone()).collect()
    }

    /// Counts a request and says what is to happen to it.
    pub(crate) fn strike(&mut self, host: &str, kind: Kind, object: Option<&str>) -> Strike {
        let mut strike = Strike::default();
        for rule in &mut self.rules {
            if !rule.fault.matches(host, kind, object) || !rule.count() {
                continue;
            }
            if let Action::Latency { milliseconds } = rule.fault.action {
                strike.delay = strike.delay.saturating_add(Duration::from_millis(milliseconds));
            } else {
                strike.action = Some(rule.fault.action.clone());
                break;
            }
        }
        strike
    }
}

impl Rule {
    /// Counts one matching request; true if it is to be hit.
    fn count(&mut self) -> bool {
        let number = self.seen;
        self.seen = self.seen.saturating_add(1);
        let end = self.fault.times.map(|times| self.fault.skip.saturating_add(times));
        number >= self.fault.skip && end.is_none_or(|end| number < end)
    }
}

impl Fault {
    fn matches(&self, host: &str, kind: Kind, object: Option<&str>) -> bool {
        self.host.as_deref().is_none_or(|want| want.eq_ignore_ascii_case(host))
            && self.kind.is_none_or(|want| want == kind)
            && self.object.as_deref().is_none_or(|want| same(object, want))
    }
}

fn same(name: Option<&str>, other: &str) -> bool {
    name.is_some_and(|name| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strike(book: &mut FaultBook) -> Strike {
        book.strike("a-vault", Kind::Get, Some("thing"))
    }

    #[test]
    fn the_first_action_wins_and_latencies_before_it_add_up() {
        let mut book = FaultBook::default();
        let latency = || Fault::new(Action::Latency { milliseconds: 5 });
        book.add(latency());
        book.add(latency());
        book.add(Fault::new(Action::Cut).times(1));
        book.add(latency());
        book.add(Fault::new(Action::Hang));
        let first = Strike { delay: Duration::from_millis(10), action: Some(Action::Cut) };
        assert_eq!(strike(&mut book), first);
        let second = Strike { delay: Duration::from_millis(15), action: Some(Action::Hang) };
        assert_eq!(strike(&mut book), second);
    }

    #[test]
    fn an_end_beyond_all_numbers_is_no_end() {
        let mut book = FaultBook::default();
        book.add(Fault::new(Action::Cut).skip(1).times(u64::MAX));
        assert_eq!(strike(&mut book).action, None);
        assert_eq!(strike(&mut book).action, Some(Action::Cut));
    }

    #[test]
    fn each_part_of_a_rule_must_match() {
        let rules = [
            Fault::new(Action::Cut).host("another"),
            Fault::new(Action::Cut).kind(Kind::List),
            Fault::new(Action::Cut).object("other"),
            Fault::new(Action::Cut).times(0),
        ];
        let mut book = FaultBook::default();
        for rule in rules {
            book.add(rule);
        }
        assert_eq!(strike(&mut book), Strike::default());
        book.add(Fault::new(Action::Cut).host("A-Vault").kind(Kind::Get).object("Thing"));
        assert_eq!(strike(&mut book).action, Some(Action::Cut));
    }
}
