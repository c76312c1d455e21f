//! Fault rules: which requests fail, how often, and in what way.
//!
//! Pure: [`FaultRules::apply`] selects by the service, kind and object of a request, and counts;
//! `fault_injection` carries the selected action out.
//!
//! # Guarantees
//!
//! Rules are tried in the order in which they were added. All matching [`Action::Latency`] add up;
//! the first other action that matches wins, and the rules after it do not count the request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::Kind;

/// A fault rule: requests that match get a wrong response on purpose.
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
    /// The number of matching requests that pass first.
    #[serde(default)]
    pub skip: u64,
    /// The number of requests that are hit after that; `None` for all.
    #[serde(default)]
    pub times: Option<u64>,
    /// The fault.
    pub action: Action,
}

/// The fault of a request that a rule hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The correct response, later.
    Latency {
        /// The delay in milliseconds.
        milliseconds: u64,
    },
    /// This status with the error body that the real service sends.
    Status {
        /// The HTTP status.
        status: u16,
        /// The value of `Retry-After`, sent as it is: seconds, a date, or invalid.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// No response until the client disconnects.
    Hang,
    /// The connection is closed without a response.
    Cut,
    /// The correct response with only the first half of its body.
    Truncate,
    /// The correct response with another content type.
    ContentType {
        /// The value of `Content-Type`.
        content_type: String,
    },
    /// 200 with a body of this length that begins as JSON.
    HugeBody {
        /// The number of bytes.
        bytes: u64,
    },
    /// 200 with a body in gzip that decompresses to JSON of this length, about a thousand times the
    /// length that is sent.
    GzipBomb {
        /// The number of bytes after decompression.
        bytes: u64,
    },
    /// The correct response after header fields of this total length.
    HugeHead {
        /// The number of bytes.
        bytes: u64,
    },
    /// A list page with this `nextLink`; other responses do not change.
    NextLink {
        /// The address, usually on another host.
        url: String,
    },
    /// A redirect.
    Redirect {
        /// Usually 302 or 307.
        status: u16,
        /// The value of `Location`.
        url: String,
    },
    /// This response to any request.
    Body {
        /// The HTTP status.
        status: u16,
        /// The value of `Content-Type`.
        content_type: String,
        /// The body.
        body: String,
    },
}

impl Fault {
    /// A rule that hits every request to every service with `action`.
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

    /// Hits at most `count` requests.
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

/// Checks the status of a fault; the error is the status.
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

/// The faults of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultEffect {
    /// The delay before the response.
    pub(crate) delay: Duration,
    /// The fault besides the delay.
    pub(crate) action: Option<Action>,
}

/// The rules, with their counts.
#[derive(Debug, Default)]
pub(crate) struct FaultRules {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    seen: u64,
}

impl FaultRules {
    /// Appends a rule.
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

    /// The rules in the order in which they are tried.
    pub(crate) fn list(&self) -> Vec<Fault> {
        self.rules.iter().map(|rule| rule.fault.clone()).collect()
    }

    /// Counts a request and returns its faults.
    pub(crate) fn apply(&mut self, host: &str, kind: Kind, object: Option<&str>) -> FaultEffect {
        let mut effect = FaultEffect::default();
        for rule in &mut self.rules {
            if !rule.fault.matches(host, kind, object) || !rule.count() {
                continue;
            }
            if let Action::Latency { milliseconds } = rule.fault.action {
                effect.delay = effect.delay.saturating_add(Duration::from_millis(milliseconds));
            } else {
                effect.action = Some(rule.fault.action.clone());
                break;
            }
        }
        effect
    }
}

impl Rule {
    /// Counts a matching request; true if the rule hits it.
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

    fn effect(rules: &mut FaultRules) -> FaultEffect {
        rules.apply("a-vault", Kind::Get, Some("thing"))
    }

    #[test]
    fn the_first_action_wins_and_latencies_before_it_add_up() {
        let mut rules = FaultRules::default();
        let latency = || Fault::new(Action::Latency { milliseconds: 5 });
        rules.add(latency());
        rules.add(latency());
        rules.add(Fault::new(Action::Cut).times(1));
        rules.add(latency());
        rules.add(Fault::new(Action::Hang));
        let first = FaultEffect { delay: Duration::from_millis(10), action: Some(Action::Cut) };
        assert_eq!(effect(&mut rules), first);
        let second = FaultEffect { delay: Duration::from_millis(15), action: Some(Action::Hang) };
        assert_eq!(effect(&mut rules), second);
    }

    #[test]
    fn a_limit_that_overflows_is_no_limit() {
        let mut rules = FaultRules::default();
        rules.add(Fault::new(Action::Cut).skip(1).times(u64::MAX));
        assert_eq!(effect(&mut rules).action, None);
        assert_eq!(effect(&mut rules).action, Some(Action::Cut));
    }

    #[test]
    fn each_part_of_a_rule_must_match() {
        let each = [
            Fault::new(Action::Cut).host("another"),
            Fault::new(Action::Cut).kind(Kind::List),
            Fault::new(Action::Cut).object("other"),
            Fault::new(Action::Cut).times(0),
        ];
        let mut rules = FaultRules::default();
        for rule in each {
            rules.add(rule);
        }
        assert_eq!(effect(&mut rules), FaultEffect::default());
        rules.add(Fault::new(Action::Cut).host("A-Vault").kind(Kind::Get).object("Thing"));
        assert_eq!(effect(&mut rules).action, Some(Action::Cut));
    }
}
