//! Which warnings become events.

use std::time::{Duration, Instant};

use super::*;
use crate::kubernetes::event_limits::{AGAIN, About, BURST, EventLimits, OTHER_MESSAGE, REMEMBERED, Verdict};

const FIRST: Verdict = Verdict::Send { count: 1, since: Duration::ZERO };

fn about(pod: &str) -> About {
    (pod.to_owned(), Reason::Forbidden.to_string())
}

#[test]
fn repetitions_are_counted_and_seldom_sent() {
    let start = Instant::now();
    let mut limits = EventLimits::new(start);
    assert_eq!(limits.judge(&about("a"), "no", start), FIRST);
    for second in 1..AGAIN.as_secs() {
        let now = start + Duration::from_secs(second);
        assert_eq!(limits.judge(&about("a"), "no", now), Verdict::Suppress);
    }
    let again = limits.judge(&about("a"), "no", start + AGAIN);
    assert_eq!(again, Verdict::Send { count: 1801, since: AGAIN });
    assert_eq!(limits.judge(&about("a"), "no", start + AGAIN), Verdict::Suppress);
    let later = limits.judge(&about("a"), "no", start + 2 * AGAIN);
    assert_eq!(later, Verdict::Send { count: 1803, since: 2 * AGAIN });
}

#[test]
fn another_message_reason_or_pod_is_no_repetition() {
    let start = Instant::now();
    let mut limits = EventLimits::new(start);
    assert_eq!(limits.judge(&about("a"), "no", start), FIRST);
    assert_eq!(limits.judge(&about("a"), "never", start), Verdict::Suppress);
    assert_eq!(limits.judge(&about("a"), "never", start + OTHER_MESSAGE), FIRST);
    assert_eq!(limits.judge(&("a".into(), Reason::Timeout.to_string()), "no", start), FIRST);
    assert_eq!(limits.judge(&about("b"), "no", start), FIRST);
    limits.forget("b");
    assert_eq!(limits.judge(&about("b"), "no", start), FIRST);
}

#[test]
fn memory_and_rate_are_bounded() {
    let start = Instant::now();
    let mut limits = EventLimits::new(start);
    let sent = |limits: &mut EventLimits, from: usize, now| {
        let pods = (from..from + 1000).map(|pod| about(&format!("p{pod}")));
        pods.filter(|about| limits.judge(about, "no", now) == FIRST).count()
    };
    assert_eq!(sent(&mut limits, 0, start), BURST as usize);
    assert_eq!(sent(&mut limits, 1000, start + Duration::from_secs(5)), 10);
    for hour in 1..40 {
        sent(&mut limits, 10_000 * hour, start + Duration::from_secs(3600 * hour as u64));
    }
    assert!(format!("{limits:?}").matches("Sent {").count() <= REMEMBERED);
}

#[test]
fn texts_are_cut_between_characters_and_reasons_are_words() {
    let text = "€".repeat(2000);
    let cut = crate::kubernetes::events::cut(&text);
    assert!(cut.len() <= 1024 && cut.len() > 1015 && cut.ends_with(" ..."), "{}", cut.len());
    assert_eq!(crate::kubernetes::events::cut("short"), "short");
    for reason in Reason::ALL {
        let word = crate::kubernetes::reports::mount_event_reason(*reason);
        assert!(word.starts_with("FailedMount") && word.len() <= 128 && word.chars().all(|c| c.is_ascii_alphabetic()));
    }
}
