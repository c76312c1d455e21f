//! The order of jobs, cancelled and late jobs, and the result cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fair_queue::{self, FairQueue};
use super::{Compute, Error, ResultCache, result_cache};
use crate::formats::pkcs12::Work;
use crate::server::metrics::{Exposition, FetchMetrics, Format};

const LONG: Duration = Duration::from_secs(60);

fn compute() -> Compute {
    Compute::new(FetchMetrics::register(&mut Exposition::new())).unwrap()
}

fn deadline() -> Instant {
    Instant::now() + LONG
}

/// Runs a job that ends when the test sends on the channel.
fn blocked(compute: &Compute, namespace: &'static str) -> (std::sync::mpsc::Sender<()>, oneshot::Receiver<()>) {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = oneshot::channel();
    let compute = compute.clone();
    tokio::spawn(async move {
        let job = move |_: &mut Work| {
            begun.send(()).unwrap();
            ended.recv_timeout(LONG).unwrap();
        };
        compute.run(namespace, deadline(), || job).await.unwrap();
    });
    (end, begins)
}

/// Waits until this many jobs are queued.
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
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "another job runs");
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

/// The order in which waiters get the permit, if each job takes this many milliseconds.
fn order(waiting: &[(&'static str, u64)]) -> Vec<&'static str> {
    let mut queue = FairQueue::default();
    assert!(queue.try_acquire() && !queue.try_acquire());
    for (namespace, milliseconds) in waiting {
        queue.enqueue(&Arc::from(*namespace), (*namespace, *milliseconds), |_| false).unwrap();
    }
    let mut order = Vec::new();
    while let Some((namespace, milliseconds)) = queue.next() {
        order.push(namespace);
        queue.record_usage(&Arc::from(namespace), Duration::from_millis(milliseconds));
    }
    assert!(queue.try_acquire(), "the permit is free");
    order
}

#[test]
fn a_namespace_does_not_wait_behind_a_hundred_jobs_of_another() {
    let large = [("large", 200); 100];
    // One job of the large namespace runs first; then all ten small jobs run before its second one.
    let order = order(&[&large[..], &[("small", 2); 10]].concat());
    assert_eq!(order[..12], [&["large"][..], &["small"; 10], &["large"]].concat());
    // Namespaces with equal demand get equal shares.
    let order = self::order(&[[("a", 200); 50], [("b", 200); 50], [("c", 200); 50]].concat());
    for three in order.chunks(3) {
        assert_eq!(three, ["a", "b", "c"]);
    }
}

#[test]
fn past_usage_neither_delays_a_namespace_nor_takes_memory() {
    let mut queue = FairQueue::default();
    let (old, new): (Arc<str>, Arc<str>) = ("old".into(), "new".into());
    queue.try_acquire();
    queue.record_usage(&old, Duration::from_secs(1_000));
    for number in 0..100 {
        queue.enqueue(&Arc::from(format!("other-{number}")), "other", |_| false).unwrap();
    }
    while queue.next().is_some() {}
    queue.try_acquire();
    queue.record_usage(&new, Duration::from_secs(1));
    queue.enqueue(&new, "new", |_| false).unwrap();
    queue.enqueue(&old, "old", |_| false).unwrap();
    assert_eq!((queue.next(), queue.next()), (Some("new"), Some("old")));
    assert_eq!(queue.next(), None);
    assert!(queue.namespaces() <= 1, "{}", queue.namespaces());
}

#[test]
fn queues_are_bounded_and_cancelled_waiters_make_room() {
    let (mut queue, a, b) = (FairQueue::default(), Arc::from("a"), Arc::from("b"));
    for number in 0..fair_queue::PER_NAMESPACE {
        queue.enqueue(&a, number, |_| false).unwrap();
    }
    assert_eq!(queue.enqueue(&a, 0, |_| false), Err(fair_queue::PER_NAMESPACE));
    queue.enqueue(&b, 0, |_| false).unwrap();
    queue.enqueue(&a, 0, |number| number % 2 == 0).unwrap();
    assert_eq!(queue.waiting(), fair_queue::PER_NAMESPACE / 2 + 1);
    // Each namespace has reserved places, however many namespaces are full.
    let attacker = |queue: &mut FairQueue<usize>, name: &str| {
        let name = Arc::from(name);
        (0..fair_queue::PER_NAMESPACE).filter(|number| queue.enqueue(&name, *number, |_| false).is_ok()).count()
    };
    let admitted: Vec<usize> = (0..6).map(|number| attacker(&mut queue, &format!("n-{number}"))).collect();
    assert_eq!((admitted[0], admitted[5]), (fair_queue::PER_NAMESPACE, fair_queue::RESERVED));
    assert_eq!(attacker(&mut queue, "victim"), fair_queue::RESERVED);
}

#[tokio::test]
async fn a_job_whose_caller_was_cancelled_does_not_run() {
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
    // The permit is free: the next job runs at once.
    compute.run("c", deadline(), || |_: &mut Work| ()).await.unwrap();
}

#[tokio::test]
async fn a_job_does_not_run_after_its_deadline_and_the_error_names_the_namespace() {
    let mut exposition = Exposition::new();
    let compute = Compute::new(FetchMetrics::register(&mut exposition)).unwrap();
    let (end, begins) = blocked(&compute, "a");
    begins.await.unwrap();
    let soon = Instant::now() + Duration::from_millis(20);
    let late: Result<(), Error> = compute.run("shop", soon, || |_: &mut Work| panic!("it runs")).await;
    let error = late.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }) && error.to_string().contains("namespace shop"), "{error}");
    end.send(()).unwrap();
    compute.run("c", deadline(), || |_: &mut Work| ()).await.unwrap();
    let text = exposition.encode(Format::Classic).unwrap();
    assert!(text.contains("cause=\"deadline\"} 1"), "{text}");
}

#[tokio::test]
async fn a_job_that_panics_releases_the_permit() {
    let compute = compute();
    let lost: Result<(), Error> = compute.run("a", deadline(), || |_: &mut Work| panic!("on purpose")).await;
    assert_eq!(lost.unwrap_err(), Error::Thread);
    assert_eq!(compute.run("a", deadline(), || |_: &mut Work| 7).await, Ok(7));
}

#[test]
fn the_cache_is_bounded_and_no_namespace_evicts_results_of_another() {
    let cache = ResultCache::default();
    let input = |number: usize| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    };
    cache.put("victim", input(0), 0);
    for number in 0..3 * result_cache::PER_NAMESPACE {
        cache.put("attacker", input(number), number);
        // A used result stays.
        assert_eq!(cache.get("attacker", &input(0)), Some(0));
    }
    let known = (0..3 * result_cache::PER_NAMESPACE).filter(|number| cache.get("attacker", &input(*number)).is_some());
    assert_eq!(known.count(), result_cache::PER_NAMESPACE);
    assert_eq!(cache.get("attacker", &input(1)), None);
    for namespace in 0..2 * result_cache::TOTAL / result_cache::PER_NAMESPACE {
        (0..result_cache::PER_NAMESPACE).for_each(|number| cache.put(&format!("n-{namespace}"), input(number), number));
    }
    assert_eq!((cache.len(), cache.get("victim", &input(0))), (result_cache::TOTAL, Some(0)));
}
