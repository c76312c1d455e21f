//! Durations in Go's syntax: `90s`, `1h30m`, `250ms`.
//!
//! Pure. Flags, chart values and annotations use this syntax (docs/reference/csi-driver.md#flags).
//! Negative durations are an error, because none of these settings accepts one.

use std::time::Duration;

/// Completes "VALUE is …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not numbers with units.
    #[error("not a duration: write numbers with units, such as 90s, 2m or 1h30m (units: ns, us, ms, s, m, h)")]
    Malformed,
    /// More than Go's `time.Duration` can hold.
    #[error("longer than 292 years")]
    TooLong,
}

/// The longest duration in Go, in nanoseconds.
const MAX_NANOSECONDS: f64 = i64::MAX as f64;

/// Parses a duration as Go's `time.ParseDuration` does, except that a negative one is an error.
///
/// # Errors
/// [`DurationError`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut nanoseconds) = (unsigned, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(DurationError::Malformed)?;
        let (number, after) = rest.split_at(end);
        if !number.contains(|c: char| c.is_ascii_digit()) {
            return Err(DurationError::Malformed);
        }
        let number: f64 = number.parse().map_err(|_| DurationError::Malformed)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        nanoseconds += number * nanoseconds_per(unit).ok_or(DurationError::Malformed)?;
        rest = after;
    }
    match unsigned.is_empty() {
        true => Err(DurationError::Malformed),
        false if nanoseconds > MAX_NANOSECONDS => Err(DurationError::TooLong),
        false => Ok(Duration::from_nanos(nanoseconds as u64)),
    }
}

fn nanoseconds_per(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1.0),
        "us" | "µs" | "μs" => Some(1e3),
        "ms" => Some(1e6),
        "s" => Some(1e9),
        "m" => Some(60e9),
        "h" => Some(3600e9),
        _ => None,
    }
}
