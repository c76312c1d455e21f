use std::time::Duration;

use tokio::time::Instant;

use crate::node::volume::TargetPath;
use crate::node::volume::locks::Locks;

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

#[tokio::test]
async fn one_writer_for_a_target_and_others_go_on() {
    let (locks, a, b) = (Locks::default(), TargetPath::new("/t/a").unwrap(), TargetPath::new("/t/b").unwrap());
    let first = locks.target(&a);
    let writing = first.lock(soon()).await.unwrap();
    assert!(locks.target(&a).lock(soon()).await.is_none());
    assert!(locks.target(&b).lock(soon()).await.is_some());
    drop(writing);
    assert!(locks.target(&a).lock(soon()).await.is_some());
}

#[tokio::test]
async fn an_unpublish_is_seen_by_those_who_began_before() {
    let (locks, path) = (Locks::default(), TargetPath::new("/t/a").unwrap());
    let publishing = locks.target(&path);
    let epoch = publishing.epoch();
    locks.target(&path).unpublished();
    assert_ne!(publishing.epoch(), epoch);
}
