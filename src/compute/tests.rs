//! Who runs when, what does not run at all, and what is remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::turns::{self, Turns};
use super::{Compute, Error, Memory, memory};
use crate::formats::pkcs12::Work;
use crate::server::metrics::Metrics;

const LONG: Duration = Duration::from_secs(60);

fn compute() -> Compute {
    Compute::new(Metrics::new()).unwrap()
}

fn deadline() -> Instant {
    Instant::now() + LONG
}

/// Runs a job that does not end before it is told.
fn blocked(compute: &Compute, namespace: &'static str) -> (std::sync::mpsc::Sender<()>, oneshot::Receiver<()>) {
    let (end, told) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = oneshot::channel();
    let compute = compute.clone();
    tokio::spawn(async move {
        let job = move |_: &mut Work| {
            begun.send(()).unwrap();
            told.recv_timeout(LONG).unwrap();
        };
        compute.run(namespace, deadline(), || job).await.unwrap();
    });
    (end, begins)
}

/// How many wait.
async fn until_waiting(compute: &Compute, count: usize) {
    tokio::time::timeout(LONG, async {
        while compute.0.lock().waiting() < count {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_job_runs_at_a_time_in_a_thread_of_low_priority() {
    let (compute, running) = (compute(), Arc::new(AtomicUsize::new(0)));
    let jobs = (0..20).map(|number| {
        let (compute, running) = (compute.clone(), running.clone());
        async move {
            let job = move |work: &mut Work| {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "another one runs");
                let thread = std::thread::current().name().map(str::to_owned);
                assert_eq!((thread.as_deref(), work.spent()), (Some("key-derivation"), 0));
                running.fetch_sub(1, Ordering::SeqCst);
                number
            };
            compute.run(["a", "b", "c"][number % 3], deadline(), || job).await
        }
    });
    let done: Vec<usize> = futures::future::try_join_all(jobs).await.unwrap();
    assert_eq!(done, (0..20).collect::<Vec<_>>());
}

/// Whose turn comes when, if each job takes this long; from the first that waits to the last.
fn order(waiting: &[(&'static str, u64)]) -> Vec<&'static str> {
    let mut turns = Turns::default();
    assert!(turns.take() && !turns.take());
    for (namespace, milliseconds) in waiting {
        turns.wait(&Arc::from(*namespace), (*namespace, *milliseconds), |_| false).unwrap();
    }
    let mut order = Vec::new();
    while let Some((namespace, milliseconds)) = turns.next() {
        order.push(namespace);
        turns.used(&Arc::from(namespace), Duration::from_millis(milliseconds));
    }
    assert!(turns.take(), "the turn is given back");
    order
}

#[test]
fn a_namespace_does_not_wait_behind_anothers_hundred() {
    let large = [("large", 200); 100];
    // One job of the neighbour ran already when they came; then all ten come before its second one.
    let order = order(&[&large[..], &[("small", 2); 10]].concat());
    assert_eq!(order[..12], [&["large"][..], &["small"; 10], &["large"]].concat());
    // Those that ask for the same get the same.
    let order = self::order(&[[("a", 200); 50], [("b", 200); 50], [("c", 200); 50]].concat());
    for three in order.chunks(3) {
        assert_eq!(three, ["a", "b", "c"]);
    }
}

#[test]
fn what_was_used_in_the_past_is_not_held_against_a_namespace_and_takes_no_memory() {
    let mut turns = Turns::default();
    let (old, new): (Arc<str>, Arc<str>) = ("old".into(), "new".into());
    turns.take();
    turns.used(&old, Duration::from_secs(1_000));
    for number in 0..100 {
        turns.wait(&Arc::from(format!("other-{number}")), "other", |_| false).unwrap();
    }
    while turns.next().is_some() {}
    turns.take();
    turns.used(&new, Duration::from_secs(1));
    turns.wait(&new, "new", |_| false).unwrap();
    turns.wait(&old, "old", |_| false).unwrap();
    assert_eq!((turns.next(), turns.next()), (Some("new"), Some("old")));
    assert_eq!(turns.next(), None);
    assert!(turns.namespaces() <= 1, "{}", turns.namespaces());
}

#[test]
fn queues_are_bounded_and_those_that_are_gone_make_room() {
    let (mut turns, a, b) = (Turns::default(), Arc::from("a"), Arc::from("b"));
    for number in 0..turns::PER_NAMESPACE {
        turns.wait(&a, number, |_| false).unwrap();
    }
    assert_eq!(turns.wait(&a, 0, |_| false), Err(turns::PER_NAMESPACE));
    turns.wait(&b, 0, |_| false).unwrap();
    turns.wait(&a, 0, |number| number % 2 == 0).unwrap();
    assert_eq!(turns.waiting(), turns::PER_NAMESPACE / 2 + 1);
    // However many namespaces are full, others have places of their own.
    let attacker = |turns: &mut Turns<usize>, name: &str| {
        let name = Arc::from(name);
        (0..turns::PER_NAMESPACE).filter(|number| turns.wait(&name, *number, |_| false).is_ok()).count()
    };
    let admitted: Vec<usize> = (0..6).map(|number| attacker(&mut turns, &format!("n-{number}"))).collect();
    assert_eq!((admitted[0], admitted[5]), (turns::PER_NAMESPACE, turns::OWN));
    assert_eq!(attacker(&mut turns, "victim"), turns::OWN);
}

#[tokio::test]
async fn a_job_whose_requester_is_gone_does_not_run() {
    let (compute, ran) = (compute(), Arc::new(AtomicUsize::new(0)));
    let (end, begins) = blocked(&compute, "a");
    begins.await.unwrap();
    let waiting: Vec<_> = (0..100)
        .map(|number| {
            let (compute, ran) = (compute.clone(), ran.clone());
            tokio::spawn(async move {
                let job = move |_: &mut Work| ran.fetch_add(1, Ordering::SeqCst);
                compute.run(if number % 2 == 0 { "a" } else { "b" }, deadline(), || job).await
            })
        })
        .collect();
    until_waiting(&compute, 100).await;
    for (number, waits) in waiting.iter().enumerate() {
        if number != 50 {
            waits.abort();
        }
    }
    for (number, waits) in waiting.into_iter().enumerate() {
        if number != 50 {
            assert!(waits.await.unwrap_err().is_cancelled());
        } else {
            end.send(()).unwrap();
            waits.await.unwrap().unwrap();
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    // The turn was given back: the next job runs at once.
    compute.run("c", deadline(), || |_: &mut Work| ()).await.unwrap();
}

#[tokio::test]
async fn a_job_does_not_run_after_its_deadline_and_the_error_names_the_namespace() {
    let compute = compute();
    let (end, begins) = blocked(&compute, "a");
    begins.await.unwrap();
    let soon = Instant::now() + Duration::from_millis(20);
    let late: Result<(), Error> = compute.run("shop", soon, || |_: &mut Work| panic!("it runs")).await;
    let error = late.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }) && error.to_string().contains("namespace shop"), "{error}");
    end.send(()).unwrap();
    compute.run("c", deadline(), || |_: &mut Work| ()).await.unwrap();
    let text = compute.0.metrics.encode().unwrap();
    assert!(text.contains("cause=\"deadline\"} 1"), "{text}");
}

#[tokio::test]
async fn a_job_that_panics_gives_the_turn_back() {
    let compute = compute();
    let lost: Result<(), Error> = compute.run("a", deadline(), || |_: &mut Work| panic!("as asked")).await;
    assert_eq!(lost.unwrap_err(), Error::Thread);
    assert_eq!(compute.run("a", deadline(), || |_: &mut Work| 7).await, Ok(7));
}

#[test]
fn memory_is_bounded_and_no_namespace_pushes_out_anothers() {
    let kept = Memory::default();
    let input = |number: usize| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    };
    kept.put("victim", input(0), 0);
    for number in 0..3 * memory::PER_NAMESPACE {
        kept.put("attacker", input(number), number);
        // What is used stays.
        assert_eq!(kept.get("attacker", &input(0)), Some(0));
    }
    let known = (0..3 * memory::PER_NAMESPACE).filter(|number| kept.get("attacker", &input(*number)).is_some());
    assert_eq!(known.count(), memory::PER_NAMESPACE);
    assert_eq!(kept.get("attacker", &input(1)), None);
    for namespace in 0..2 * memory::IN_ALL / memory::PER_NAMESPACE {
        (0..memory::PER_NAMESPACE).for_each(|number| kept.put(&format!("n-{namespace}"), input(number), number));
    }
    assert_eq!((kept.len(), kept.get("victim", &input(0))), (memory::IN_ALL, Some(0)));
}
