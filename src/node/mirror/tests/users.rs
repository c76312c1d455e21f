//! Which pods use which class.

use super::super::users::{Added, Users};
use crate::model::{ClassRef, PodRef};

fn class() -> ClassRef {
    ClassRef { namespace: "ns".parse().unwrap(), name: "a".parse().unwrap() }
}

fn pod(number: usize) -> PodRef {
    PodRef { namespace: "ns".parse().unwrap(), name: format!("p{number}").parse().unwrap(), uid: format!("u{number}") }
}

#[test]
fn a_class_has_users_until_its_last_pod_is_removed() {
    let mut users = Users::default();
    assert_eq!((users.add(&class(), &pod(1)), users.add(&class(), &pod(1))), (Added::New, Added::Known));
    assert_eq!(users.pods(&class()).into_iter().collect::<Vec<_>>(), [pod(1)]);
    assert_eq!(users.of_pod("ns", "p1"), [(class(), pod(1))]);
    assert!(users.of_pod("ns", "p2").is_empty() && users.of_pod("other", "p1").is_empty());
    users.remove(&class(), &pod(2));
    assert!(users.has_users(&class()));
    users.remove(&class(), &pod(1));
    assert!(!users.has_users(&class()) && users.pods(&class()).is_empty());
}

#[test]
fn memory_is_bounded() {
    let mut users = Users::default();
    assert!((0..4096).all(|number| users.add(&class(), &pod(number)) == Added::New));
    assert_eq!(users.add(&class(), &pod(4096)), Added::LimitReached);
    users.remove(&class(), &pod(7));
    assert_eq!(users.add(&class(), &pod(4096)), Added::New);
}
