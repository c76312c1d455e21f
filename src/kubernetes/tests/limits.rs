//! Which failures become events.

use std::time::{Duration, Instant};

use super::*;
use crate::kubernetes::event_limits::{AGAIN, About, BURST, Limits, OTHER_TEXT, REMEMBERED, Verdict};

const FIRST: Verdict = Verdict::Create { count: 1, since: Duration::ZERO };

fn about(pod: &str) -> About {
    (pod.to_owned(), Reason::Forbidden.to_string())
}

#[test]
fn a_repetition_is_counted_and_told_rarely() {
    let start = Instant::now();
    let mut limits = Limits::new(start);
    assert_eq!(limits.judge(&about("a"), "no", start), FIRST);
    for second in 1..AGAIN.as_secs() {
        let now = start + Duration::from_secs(second);
        assert_eq!(limits.judge(&about("a"), "no", now), Verdict::Suppress);
    }
    let again = limits.judge(&about("a"), "no", start + AGAIN);
    assert_eq!(again, Verdict::Create { count: 1801, since: AGAIN });
    assert_eq!(limits.judge(&about("a"), "no", start + AGAIN), Verdict::Suppress);
    let later = limits.judge(&about("a"), "no", start + 2 * AGAIN);
    assert_eq!(later, Verdict::Create { count: 1803, since: 2 * AGAIN });
}

#[test]
fn another_text_another_reason_another_pod_are_news() {
    let start = Instant::now();
    let mut limits = Limits::new(start);
    assert_eq!(limits.judge(&about("a"), "no", start), FIRST);
    assert_eq!(limits.judge(&about("a"), "never", start), Verdict::Suppress);
    assert_eq!(limits.judge(&about("a"), "never", start + OTHER_TEXT), FIRST);
    assert_eq!(limits.judge(&("a".into(), Reason::Timeout.to_string()), "no", start), FIRST);
    assert_eq!(limits.judge(&about("b"), "no", start), FIRST);
    limits.forget("b");
    assert_eq!(limits.judge(&about("b"), "no", start), FIRST);
}

#[test]
fn memory_and_rate_are_bounded() {
    let start = Instant::now();
    let mut limits = Limits::new(start);
    let told = |limits: &mut Limits, from: usize, now| {
        let pods = (from..from + 1000).map(|pod| about(&format!("p{pod}")));
        pods.filter(|about| limits.judge(about, "no", now) == FIRST).count()
    };
    assert_eq!(told(&mut limits, 0, start), BURST as usize);
    assert_eq!(told(&mut limits, 1000, start + Duration::from_secs(5)), 10);
    for hour in 1..40 {
        told(&mut limits, 10_000 * hour, start + Duration::from_secs(3600 * hour as u64));
    }
    assert!(format!("{limits:?}").matches("Told {").count() <= REMEMBERED);
}

#[test]
fn texts_are_cut_between_characters_and_reasons_are_words() {
    let text = "€".repeat(2000);
    let cut = crate::kubernetes::events::cut(&text);
    assert!(cut.len() <= 1024 && cut.len() > 1015 && cut.ends_with(" ..."), "{}", cut.len());
    assert_eq!(crate::kubernetes::events::cut("short"), "short");
    for reason in Reason::ALL {
        let word = crate::kubernetes::events::event_reason(*reason);
        assert!(word.starts_with("FailedMount") && word.len() <= 128 && word.chars().all(|c| c.is_ascii_alphabetic()));
    }
}
