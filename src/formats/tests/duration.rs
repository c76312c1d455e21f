//! Durations in the syntax of flags.

use std::time::Duration;

use crate::formats::duration::{DurationError, parse};

#[test]
fn durations_are_parsed_as_in_go() {
    for (text, milliseconds) in [
        ("0", 0),
        ("+0", 0),
        ("0s", 0),
        ("90s", 90_000),
        ("2m", 120_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1_500),
        (".5m", 30_000),
        ("250ms", 250),
        ("1000us", 1),
        ("+1000µs", 1),
        ("2m30s500ms", 150_500),
    ] {
        assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
}

#[test]
fn malformed_and_overlong_durations_are_refused() {
    for text in ["", "+", "5", "s", "-1s", "1d", "1 s", ".s", "1.2.3s", "2M", "1h30"] {
        assert_eq!(parse(text), Err(DurationError::Malformed), "{text}");
    }
    assert_eq!(parse("3000000h"), Err(DurationError::TooLong));
}
