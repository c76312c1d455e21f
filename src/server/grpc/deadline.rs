//! How long a call may take: the client's timeout, up to our own. Pure.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Request;

/// Our deadline for a call: below the kubelet's two minutes, so that the pod's event has the real
/// cause.
const DEADLINE: Duration = Duration::from_secs(110);

/// The part of the client's timeout that is reserved for the response to reach it.
const MARGIN: Duration = Duration::from_secs(2);

/// The earlier of our deadline and the client's, less the time that the response needs.
pub(crate) fn deadline<T>(request: &Request<T>, now: Instant) -> Instant {
    let header = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
    let callers = header.and_then(parse_timeout).map(|all| all.saturating_sub(MARGIN.min(all / 10)));
    now + callers.unwrap_or(DEADLINE).min(DEADLINE)
}

/// Reads a `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
pub(crate) fn parse_timeout(header: &str) -> Option<Duration> {
    let unit = header.chars().last().filter(char::is_ascii)?;
    let digits = header.get(..header.len() - 1).filter(|digits| (1..=8).contains(&digits.len()))?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 3600)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}
