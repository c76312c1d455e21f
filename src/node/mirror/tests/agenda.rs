//! When a class's Secrets are looked at.

use std::time::{Duration, Instant};

use super::super::agenda::{Agenda, Ending, Look};
use crate::model::{ClassRef, PodRef};

const INTERVAL: Duration = Duration::from_secs(300);

fn named(name: &str) -> (ClassRef, PodRef) {
    let class = ClassRef { namespace: "ns".parse().unwrap(), name: name.parse().unwrap() };
    (
        class,
        PodRef {
            namespace: "ns".parse().unwrap(),
            name: format!("pod-{name}").parse().unwrap(),
            uid: format!("uid-{name}"),
        },
    )
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn news_are_due_at_once_and_what_is_done_after_the_interval() {
    let (start, (class, pod)) = (Instant::now(), named("a"));
    let mut agenda = Agenda::new(INTERVAL);
    assert!(agenda.uses(&class, &pod, start));
    assert_eq!(agenda.next_due(), Some(start));
    let task = agenda.take(start).unwrap();
    assert_eq!((task.look, task.pods.into_iter().collect::<Vec<_>>()), (Look::Check, vec![pod.clone()]));
    // It runs: not again at the same time, but again afterwards when something changes meanwhile.
    agenda.touch(&class, start);
    assert_eq!((agenda.take(start), agenda.next_due()), (None, None));
    agenda.ended(&class, &Ending::Done, start, 0.5);
    assert_eq!(agenda.take(start).unwrap().look, Look::News);
    agenda.ended(&class, &Ending::Done, start, 0.0);
    // News do not put the look at the Secrets themselves off.
    assert_eq!(agenda.next_due(), Some(after(start, 300)));
    assert_eq!(agenda.take(after(start, 299)), None);
    assert_eq!(agenda.take(after(start, 300)).unwrap().look, Look::Check);
    agenda.ended(&class, &Ending::Done, after(start, 300), 0.0);
    assert_eq!(agenda.next_due(), Some(after(start, 570)));
}

#[test]
fn news_every_minute_leave_room_for_a_look_at_the_secrets() {
    let (start, (class, pod)) = (Instant::now(), named("a"));
    let mut agenda = Agenda::new(INTERVAL);
    agenda.uses(&class, &pod, start);
    let looks = (0..12).map(|minute| {
        let now = after(start, 60 * minute);
        agenda.touch(&class, now);
        let look = agenda.take(now).unwrap().look;
        agenda.ended(&class, &Ending::Done, now, 0.5);
        look
    });
    let checks: Vec<usize> = looks.enumerate().filter(|(_, look)| *look == Look::Check).map(|(at, _)| at).collect();
    assert_eq!(checks, [0, 5, 10]);
}

#[test]
fn failures_pause_longer_and_longer_up_to_the_interval() {
    let (start, (class, pod)) = (Instant::now(), named("a"));
    let mut agenda = Agenda::new(INTERVAL);
    agenda.uses(&class, &pod, start);
    for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
        agenda.take(after(start, 100_000)).unwrap();
        agenda.ended(&class, &Ending::Failed, start, 0.5);
        assert_eq!(agenda.next_due(), Some(after(start, pause)));
    }
    // News come at once also then, and look at the Secret itself.
    agenda.touch(&class, start);
    assert_eq!(agenda.take(start).unwrap().look, Look::Check);
    agenda.ended(&class, &Ending::Done, start, 0.5);
    assert_eq!(agenda.next_due(), Some(after(start, 300)));
}

#[test]
fn a_class_without_secrets_waits_for_news_and_one_without_pods_is_forgotten() {
    let (start, (class, pod)) = (Instant::now(), named("a"));
    let mut agenda = Agenda::new(INTERVAL);
    agenda.uses(&class, &pod, start);
    agenda.take(start).unwrap();
    agenda.ended(&class, &Ending::NothingToDo, start, 0.5);
    assert_eq!(agenda.next_due(), None);
    agenda.touch(&class, start);
    assert!(agenda.take(start).is_some());
    assert_eq!(agenda.uses_of("ns", "pod-a"), [(class.clone(), pod.clone())]);
    agenda.gone(&class, &pod);
    assert!(agenda.knows(&class));
    agenda.ended(&class, &Ending::Done, start, 0.5);
    assert!(!agenda.knows(&class) && agenda.next_due().is_none());
}

#[test]
fn memory_is_bounded() {
    let (start, (class, _)) = (Instant::now(), named("a"));
    let mut agenda = Agenda::new(INTERVAL);
    let pod = |number: usize| PodRef {
        namespace: "ns".parse().unwrap(),
        name: format!("p{number}").parse().unwrap(),
        uid: format!("u{number}"),
    };
    assert!((0..4096).all(|number| agenda.uses(&class, &pod(number), start)));
    assert!(!agenda.uses(&class, &pod(4096), start));
    agenda.gone(&class, &pod(7));
    assert!(agenda.uses(&class, &pod(4096), start));
}
