//! Durations as Go writes them: `90s`, `1h30m`, `250ms`.
//!
//! Pure. Flags, chart values and annotations of this ecosystem are written so
//! (docs/reference/csi-driver.md#flags); nothing here knows which of them is read, and negative
//! ones are not wanted by any of them.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not numbers with units.
    #[error("no duration: write numbers with units, like 90s, 2m or 1h30m (units: ns, us, ms, s, m, h)")]
    Malformed,
    /// It is more than can be counted.
    #[error("a duration of more than 292 years")]
    TooLong,
}

/// The longest duration that Go has, in nanoseconds.
const LONGEST: f64 = i64::MAX as f64;

/// Reads a duration as Go's `time.ParseDuration` does, negative ones apart.
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
        nanoseconds += number * unit_of(unit).ok_or(DurationError::Malformed)?;
        rest = after;
    }
    match unsigned.is_empty() {
        true => Err(DurationError::Malformed),
        false if nanoseconds > LONGEST => Err(DurationError::TooLong),
        false => Ok(Duration::from_nanos(nanoseconds as u64)),
    }
}

/// How many nanoseconds a unit has.
fn unit_of(unit: &str) -> Option<f64> {
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
