//! What the kubelet's calls, classes and pods make due, without a vault and without a disk.

mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::REST;
use super::{LastWrite, Member, PodSeen, Registry, RotationOptions, Summary, WorkItem};
use crate::model::{Class, ClassRef, ClassSpec, ExposeSecret as _, INTERVAL_ANNOTATION, PodRef, Reason};
use crate::node::volume::locks::Locks;
use crate::node::volume::{Identity, PublishRequest, TargetPath};
use crate::platform::clock;

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
pub(in crate::node) const INTERVAL: Duration = Duration::from_secs(120);
const REPUBLISH: Duration = Duration::from_secs(90);
/// A machine that is not suspended, and a test that does not last long.
const BOOT: Duration = Duration::from_secs(1_000);
const WROTE: LastWrite =
    LastWrite { content: [1; 32], versions: [2; 32], expires: Some(1_800_000_000), conversions: None, held: None };

fn request(number: usize, secret: &str) -> PublishRequest {
    let pairs = [
        ("csi.storage.k8s.io/pod.name", format!("web-{number}")),
        ("csi.storage.k8s.io/pod.uid", format!("uid-{number}")),
        ("csi.storage.k8s.io/pod.namespace", "default".to_owned()),
        ("csi.storage.k8s.io/serviceAccount.name", "default".to_owned()),
        ("secretProviderClass", "demo".to_owned()),
        (TOKENS, format!("token-{number}")),
    ];
    PublishRequest {
        target: TargetPath::new(&format!("/pods/{number}/mount")).unwrap(),
        pod: pod(number),
        class: Ok(class("vault").reference),
        context: pairs.map(|(key, value)| (key.to_owned(), value)).into(),
        secrets: BTreeMap::from([("clientsecret".to_owned(), secret.to_owned().into())]),
        group: None,
        read_only: true,
        deadline: Instant::now(),
    }
}

fn pod(number: usize) -> PodRef {
    PodRef {
        namespace: "default".parse().unwrap(),
        name: format!("web-{number}").parse().unwrap(),
        uid: format!("uid-{number}"),
    }
}

fn class(vault: &str) -> Class {
    let reference = ClassRef { namespace: "default".parse().unwrap(), name: "demo".parse().unwrap() };
    let parameters = BTreeMap::from([("keyvaultName".to_owned(), vault.to_owned())]);
    Class::new(reference, ClassSpec { provider: "azure".into(), parameters, ..ClassSpec::default() })
}

fn identity(of: &str) -> Identity {
    use crate::azure::keyvault::{Cloud, Credential, TenantId};
    let credential = Credential::ManagedIdentity { client_id: Some(of.to_owned()) };
    Identity::Azure(credential.identity(&TenantId::new("tenant").unwrap(), &Cloud::named("AzurePublicCloud").unwrap()))
}

fn registry() -> Registry {
    Registry::new(RotationOptions { interval: INTERVAL, republish: REPUBLISH })
}

/// Takes a request as one that was published.
fn published(registry: &Registry, locks: &Locks, request: &PublishRequest, class: &Arc<Class>) {
    let lock = locks.target(&request.target);
    registry.published(request, (&lock, lock.epoch()), (class, identity("one")), WROTE);
}

fn feed(registry: &Registry, locks: &Locks, request: &PublishRequest) {
    let lock = locks.target(&request.target);
    registry.feed(request, &lock, lock.epoch());
}

/// A registry with one published volume, whose fetch is due within [`INTERVAL`].
pub(in crate::node) fn tracking_one_volume() -> Registry {
    let registry = registry();
    published(&registry, &Locks::default(), &request(1, "secret"), &Arc::new(class("v")));
    registry
}

/// Everything that is due then.
fn due(registry: &Registry, at: Instant) -> Vec<WorkItem> {
    std::iter::from_fn(|| registry.take(at)).collect()
}

fn members(registry: &Registry, units: &[WorkItem]) -> Vec<Member> {
    let fetches = units.iter().filter_map(|unit| match unit {
        WorkItem::Fetch(key) => Some(registry.members(key)),
        WorkItem::Plan(_) => None,
    });
    fetches.flatten().collect()
}

fn planned(registry: &Registry, class: &Class) -> Vec<WorkItem> {
    let seen = registry.saw(&class.reference, Some(class.clone())).expect("nothing waits to be planned");
    let plan: Vec<_> = registry.unplanned(&class.reference).into_iter().map(|one| (one, identity("one"))).collect();
    registry.plan(&seen, &plan);
    registry.ended(&WorkItem::Plan(class.reference.clone()));
    due(registry, Instant::now())
}

#[test]
fn a_hundred_volumes_of_one_identity_are_one_fetch_with_the_freshest_credentials_first() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    for number in 0..100 {
        published(&registry, &locks, &request(number, "secret"), &class);
    }
    feed(&registry, &locks, &request(7, "secret"));
    assert_eq!(due(&registry, Instant::now()), [], "what was published now is fresh");
    let units = due(&registry, Instant::now() + INTERVAL);
    assert!(matches!(units[..], [WorkItem::Fetch(_)]), "{units:?}");
    let members = members(&registry, &units);
    assert_eq!(members.len(), 100);
    assert_eq!(members[0].volume.pod.name, "web-7");
    let (context, secrets) = members[0].feed.opened(&pod(1));
    assert_eq!(context[TOKENS], "token-7");
    assert_eq!(context["csi.storage.k8s.io/serviceAccount.name"], "default");
    assert_eq!(secrets["clientsecret"].expose_secret(), "secret");
    assert!(members.iter().all(|member| member.last_write == Some(WROTE)));
}

#[test]
fn a_call_that_brings_another_secret_makes_its_volume_due_and_a_token_does_not() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "old"), &class);
    published(&registry, &locks, &request(2, "old"), &class);
    let mut renewed = request(1, "old");
    renewed.context.insert(TOKENS.to_owned(), "another".to_owned());
    feed(&registry, &locks, &renewed);
    assert_eq!(due(&registry, Instant::now()), []);
    feed(&registry, &locks, &request(1, "new"));
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(class.reference.clone())]);
    assert_eq!(registry.unplanned(&class.reference).len(), 1);
    let units = planned(&registry, &class);
    assert!(matches!(units[..], [WorkItem::Fetch(_)]), "at once: {units:?}");
}

#[test]
fn a_volume_that_nobody_knows_is_planned_and_fetched_within_the_interval() {
    let (registry, locks, class) = (registry(), Locks::default(), class("v"));
    feed(&registry, &locks, &request(1, "secret"));
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(class.reference.clone())]);
    assert_eq!(planned(&registry, &class), [], "after a restart not everything is due at once");
    let units = due(&registry, Instant::now() + INTERVAL);
    assert_eq!(members(&registry, &units)[0].last_write, None, "the disk has to be read");
}

#[test]
fn a_class_that_asks_for_something_else_makes_its_volumes_due_and_any_other_change_does_not() {
    let (registry, locks, old) = (registry(), Locks::default(), Arc::new(class("old")));
    published(&registry, &locks, &request(1, "secret"), &old);
    let units = due(&registry, Instant::now() + INTERVAL);
    let [WorkItem::Fetch(key)] = &units[..] else { panic!("{units:?}") };
    let volume = registry.members(key)[0].volume.clone();
    let relabelled = Class { version: "2".into(), ..class("old") };
    let seen = registry.saw(&old.reference, Some(relabelled)).unwrap();
    assert!(Arc::ptr_eq(&seen, &old) && registry.wants(&volume, key, &old));
    assert!(registry.saw(&old.reference, Some(class("new"))).is_none());
    assert!(!registry.wants(&volume, key, &old), "what was fetched for the old class is not written");
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(old.reference.clone())]);
    registry.ended(&units[0]);
    assert!(matches!(planned(&registry, &class("new"))[..], [WorkItem::Fetch(_)]));
}

#[test]
fn a_class_that_comes_back_makes_its_volumes_due() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let units = due(&registry, Instant::now() + INTERVAL);
    let volume = members(&registry, &units)[0].volume.clone();
    assert!(registry.saw(&class.reference, None).is_none());
    assert!(registry.fares(&volume, Some(Reason::ClassNotFound)), "news");
    assert!(!registry.fares(&volume, Some(Reason::ClassNotFound)), "told");
    registry.untold(&volume);
    assert!(registry.fares(&volume, Some(Reason::ClassNotFound)), "it could not be told");
    assert!(registry.saw(&class.reference, Some(Class::clone(&class))).is_none());
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(class.reference.clone())]);
    assert!(registry.fares(&volume, None));
}

#[test]
fn credentials_are_dropped_after_three_periods_and_the_volume_stays() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let units = due(&registry, Instant::now() + INTERVAL);
    let (now, boot) = (Instant::now() + 3 * REPUBLISH, clock::since_boot() + 3 * REPUBLISH);
    registry.sweep(now - Duration::from_secs(1), boot - Duration::from_secs(1));
    assert!(members(&registry, &units)[0].feed.is_live());
    let Summary { volumes, failing, oldest_success, next_expiration } = registry.sweep(now, boot);
    assert_eq!((volumes, failing, next_expiration), (1, 0, WROTE.expires));
    assert!(oldest_success >= Some(3 * REPUBLISH - Duration::from_secs(1)));
    let member = members(&registry, &units).remove(0);
    let (context, secrets) = member.feed.opened(&pod(1));
    assert!(!member.feed.is_live() && secrets.is_empty() && !context.contains_key(TOKENS));
    feed(&registry, &locks, &request(1, "secret"));
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(class.reference.clone())]);
}

#[test]
fn a_fetch_grows_older_while_the_machine_is_suspended() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let hour = Duration::from_secs(3_600);
    let asleep = clock::since_boot() + hour;
    assert!(registry.sweep(Instant::now(), asleep).oldest_success >= Some(hour), "the other clock stood still");
    registry.forget(&request(1, "secret").target);
    assert_eq!(registry.sweep(Instant::now(), asleep).oldest_success, None, "at once, not after the interval");
}

#[test]
fn after_a_pause_credentials_are_kept_for_one_period_more() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let units = due(&registry, Instant::now() + INTERVAL);
    registry.sweep(Instant::now(), BOOT);
    let (woke, boot) = (Instant::now() + 10 * REPUBLISH, BOOT + 10 * REPUBLISH);
    registry.sweep(woke, boot);
    let second = Duration::from_secs(1);
    for passed in 1..REPUBLISH.as_secs() {
        let passed = second * u32::try_from(passed).unwrap();
        registry.sweep(woke + passed, boot + passed);
    }
    assert!(members(&registry, &units)[0].feed.is_live());
    registry.sweep(woke + REPUBLISH, boot + REPUBLISH);
    assert!(!members(&registry, &units)[0].feed.is_live(), "the kubelet has stopped calling");
}

#[test]
fn what_fails_after_a_pause_is_not_told_before_it_was_tried_again() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let units = due(&registry, Instant::now() + INTERVAL);
    let volume = members(&registry, &units)[0].volume.clone();
    let began = Instant::now();
    assert!(!registry.excuses(&units[0], began, &volume), "nothing was paused");
    // As far as the registry can tell, the process was last seen running long ago.
    registry.sweep(Instant::now(), Duration::ZERO);
    assert!(registry.excuses(&units[0], began, &volume), "it was under way");
    let later = Instant::now() + INTERVAL;
    registry.ended(&units[0]);
    assert_eq!(due(&registry, later + REST), units, "it runs again at once, not only after its interval");
    assert!(registry.excuses(&units[0], later, &volume), "it used what the kubelet brought before");
    registry.ended(&units[0]);
    feed(&registry, &locks, &request(1, "secret"));
    assert_eq!(due(&registry, later + 3 * REST), units, "with what the kubelet brings now");
    assert!(!registry.excuses(&units[0], later + INTERVAL, &volume));
}

#[test]
fn pods_that_end_are_left_out_until_the_kubelet_calls_again() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let units = due(&registry, Instant::now() + INTERVAL);
    let volume = registry.pods(false).remove(0);
    registry.saw_pod(&volume, PodSeen::Running(None));
    assert!(registry.pods(false).is_empty());
    registry.ended(&units[0]);
    assert_eq!(due(&registry, Instant::now()), []);
    registry.saw_pod(&volume, PodSeen::Running(Some("1".to_owned())));
    // The clock of this test is ahead: it was fetched then.
    assert_eq!(due(&registry, Instant::now() + INTERVAL + REST), units, "it asks");
    registry.saw_pod(&volume, PodSeen::Ending);
    assert_eq!(members(&registry, &units).len(), 0);
    feed(&registry, &locks, &request(1, "secret"));
    assert_eq!(members(&registry, &units).len(), 1);
}

#[test]
fn what_is_unpublished_is_forgotten_with_its_fetch_and_its_class() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let units = due(&registry, Instant::now() + INTERVAL);
    registry.forget(&request(1, "secret").target);
    assert_eq!(
        registry
            .members(match &units[0] {
                WorkItem::Fetch(key) => key,
                WorkItem::Plan(_) => panic!("{units:?}"),
            })
            .len(),
        0
    );
    registry.ended(&units[0]);
    assert_eq!((registry.next(), registry.classes()), (None, vec![]));
    let empty = Summary { volumes: 0, failing: 0, oldest_success: None, next_expiration: None };
    assert_eq!(registry.sweep(Instant::now(), BOOT), empty);
}

#[test]
fn a_class_may_ask_for_an_interval_of_its_own() {
    let (registry, locks, mut class) = (registry(), Locks::default(), class("v"));
    class.annotations.insert(INTERVAL_ANNOTATION.to_owned(), "30m".to_owned());
    published(&registry, &locks, &request(1, "secret"), &Arc::new(class.clone()));
    assert_eq!(registry.interval(&class.reference), Duration::from_secs(1_800));
    class.annotations.insert(INTERVAL_ANNOTATION.to_owned(), "1ms".to_owned());
    assert_eq!(class.rotation_interval(), Some(crate::model::SHORTEST_INTERVAL));
    class.annotations.insert(INTERVAL_ANNOTATION.to_owned(), "often".to_owned());
    assert_eq!(class.rotation_interval(), None);
    assert!(class.rotation_interval_mistake().is_some_and(|text| text.contains("90s")));
}
