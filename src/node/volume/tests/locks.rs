use std::time::Duration;

use tokio::time::Instant;

use crate::node::volume::TargetPath;
use crate::node::volume::locks::Locks;

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

#[tokio::test]
async fn a_target_has_one_writer_and_other_targets_are_not_blocked() {
    let (locks, a, b) = (Locks::default(), TargetPath::new("/t/a").unwrap(), TargetPath::new("/t/b").unwrap());
    let first = locks.get(&a);
    let guard = first.lock(soon()).await.unwrap();
    assert!(locks.get(&a).lock(soon()).await.is_none());
    assert!(locks.get(&b).lock(soon()).await.is_some());
    drop(guard);
    assert!(locks.get(&a).lock(soon()).await.is_some());
}

#[tokio::test]
async fn a_publish_that_began_before_an_unpublish_notices_it() {
    let (locks, path) = (Locks::default(), TargetPath::new("/t/a").unwrap());
    let publishing = locks.get(&path);
    let epoch = publishing.epoch();
    locks.get(&path).record_unpublish();
    assert_ne!(publishing.epoch(), epoch);
}
