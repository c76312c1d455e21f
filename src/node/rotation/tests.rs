//! The loop's bookkeeping, without a vault and without a disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Running, unix_seconds};
use crate::node::volume::registry::tests::{INTERVAL, tracking_one_volume};

#[tokio::test]
async fn a_cycle_that_panics_returns_its_permit_and_runs_again() {
    let registry = Arc::new(tracking_one_volume());
    let (permits, later) = (Arc::new(Semaphore::new(1)), Instant::now() + INTERVAL);
    let running = Running::next(&registry, &permits, later).unwrap();
    assert!(Running::next(&registry, &permits, later + INTERVAL).is_none(), "it runs");
    let item = running.item.clone();
    let ended = tokio::spawn(async move {
        let _running = running;
        panic!("a cycle failed");
    });
    assert!(ended.await.unwrap_err().is_panic());
    let again = Running::next(&registry, &permits, later + 2 * INTERVAL).unwrap();
    assert_eq!(again.item, item);
}

#[test]
fn an_age_becomes_a_time_by_the_wall_clock_of_the_report() {
    let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
    assert_eq!(unix_seconds(Duration::from_millis(1_500), now), 1_799_999_998.5);
    let set = jiff::Timestamp::from_second(1_900_000_000).unwrap();
    assert_eq!(unix_seconds(Duration::from_secs(100), set), 1_899_999_900.0, "a clock that was set");
}
