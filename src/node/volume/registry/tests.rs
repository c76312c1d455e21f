//! What calls of the kubelet, classes and pods make due, without a vault and without a disk.

mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::MIN_DELAY;
use super::{LastWrite, Member, PodState, Registry, RotationOptions, Summary, WorkItem};
use crate::backend::FetchIdentity;
use crate::model::{
    Caller, Class, ClassRef, ClassSpec, ExposeSecret as _, INTERVAL_ANNOTATION, PodRef, Reason, TOKENS,
};
use crate::node::volume::locks::Locks;
use crate::node::volume::{PublishRequest, TargetPath};
use crate::platform::clock;

pub(in crate::node) const INTERVAL: Duration = Duration::from_secs(120);
const REPUBLISH: Duration = Duration::from_secs(90);
/// The time since boot, for tests in which no time passes.
const BOOT: Duration = Duration::from_secs(1_000);
const LAST_WRITE: LastWrite =
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
    let secrets = BTreeMap::from([("clientsecret".to_owned(), secret.to_owned().into())]);
    PublishRequest {
        target: TargetPath::new(&format!("/pods/{number}/mount")).unwrap(),
        caller: Caller::parse(pairs.map(|(key, value)| (key.to_owned(), value)).into(), secrets).unwrap(),
        class: Ok(class("vault").reference),
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

fn identity(of: &str) -> FetchIdentity {
    use crate::azure::keyvault::{Cloud, Credential, TenantId};
    let credential = Credential::ManagedIdentity { client_id: Some(of.to_owned()) };
    FetchIdentity::Azure(
        credential.identity(&TenantId::new("tenant").unwrap(), &Cloud::named("AzurePublicCloud").unwrap()),
    )
}

fn registry() -> Registry {
    Registry::new(RotationOptions { interval: INTERVAL, republish: REPUBLISH })
}

/// Registers a volume as published by this request.
fn published(registry: &Registry, locks: &Locks, request: &PublishRequest, class: &Arc<Class>) {
    let lock = locks.get(&request.target);
    registry.insert_published(request, (&lock, lock.epoch()), (class, identity("one")), LAST_WRITE);
}

fn renew(registry: &Registry, locks: &Locks, request: &PublishRequest) {
    let lock = locks.get(&request.target);
    registry.renew_credentials(request, &lock, lock.epoch());
}

/// A registry with one published volume, whose fetch is due within [`INTERVAL`].
pub(in crate::node) fn tracking_one_volume() -> Registry {
    let registry = registry();
    published(&registry, &Locks::default(), &request(1, "secret"), &Arc::new(class("v")));
    registry
}

/// All items that are due at this moment; they run.
fn due(registry: &Registry, at: Instant) -> Vec<WorkItem> {
    std::iter::from_fn(|| registry.take(at)).collect()
}

fn members(registry: &Registry, items: &[WorkItem]) -> Vec<Member> {
    let fetches = items.iter().filter_map(|item| match item {
        WorkItem::Fetch(key) => Some(registry.members(key)),
        WorkItem::Plan(_) => None,
    });
    fetches.flatten().collect()
}

fn planned(registry: &Registry, class: &Class) -> Vec<WorkItem> {
    let seen = registry.update_class(&class.reference, Some(class.clone())).expect("no volume is urgent");
    let plan: Vec<_> =
        registry.unplanned(&class.reference).into_iter().map(|member| (member, identity("one"))).collect();
    registry.plan(&seen, &plan);
    registry.finish(&WorkItem::Plan(class.reference.clone()));
    due(registry, Instant::now())
}

#[test]
fn a_hundred_volumes_of_one_identity_are_one_fetch_with_the_freshest_credentials_first() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    for number in 0..100 {
        published(&registry, &locks, &request(number, "secret"), &class);
    }
    renew(&registry, &locks, &request(7, "secret"));
    assert_eq!(due(&registry, Instant::now()), [], "a volume that was published now is fresh");
    let items = due(&registry, Instant::now() + INTERVAL);
    assert!(matches!(items[..], [WorkItem::Fetch(_)]), "{items:?}");
    let members = members(&registry, &items);
    assert_eq!(members.len(), 100);
    assert_eq!(members[0].volume.pod.name, "web-7");
    let caller = members[0].credentials.caller(&pod(1));
    assert_eq!(caller.sent_tokens().in_attributes().unwrap().expose_secret(), "token-7");
    assert_eq!(caller.service_account.as_ref().unwrap(), &"default");
    assert_eq!(caller.attributes()["csi.storage.k8s.io/serviceAccount.name"], "default");
    assert_eq!(caller.attributes()["csi.storage.k8s.io/pod.name"], "web-1");
    assert_eq!(caller.credentials()["clientsecret"].expose_secret(), "secret");
    assert!(members.iter().all(|member| member.last_write == Some(LAST_WRITE)));
}

#[test]
fn another_secret_makes_its_volume_due_and_another_token_does_not() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "old"), &class);
    published(&registry, &locks, &request(2, "old"), &class);
    let mut renewed = request(1, "old");
    renewed.caller = request(3, "old").caller;
    renewed.caller.pod = pod(1);
    renew(&registry, &locks, &renewed);
    assert_eq!(due(&registry, Instant::now()), []);
    renew(&registry, &locks, &request(1, "new"));
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(class.reference.clone())]);
    assert_eq!(registry.unplanned(&class.reference).len(), 1);
    let items = planned(&registry, &class);
    assert!(matches!(items[..], [WorkItem::Fetch(_)]), "at once: {items:?}");
}

#[test]
fn an_unknown_volume_is_planned_and_fetched_within_the_interval() {
    let (registry, locks, class) = (registry(), Locks::default(), class("v"));
    renew(&registry, &locks, &request(1, "secret"));
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(class.reference.clone())]);
    assert_eq!(planned(&registry, &class), [], "after a restart, not all volumes are due at once");
    let items = due(&registry, Instant::now() + INTERVAL);
    assert_eq!(members(&registry, &items)[0].last_write, None, "the volume has to be read");
}

#[test]
fn a_class_with_other_objects_makes_its_volumes_due_and_another_change_does_not() {
    let (registry, locks, old) = (registry(), Locks::default(), Arc::new(class("old")));
    published(&registry, &locks, &request(1, "secret"), &old);
    let items = due(&registry, Instant::now() + INTERVAL);
    let [WorkItem::Fetch(key)] = &items[..] else { panic!("{items:?}") };
    let volume = registry.members(key)[0].volume.clone();
    let relabelled = Class { version: "2".into(), ..class("old") };
    let seen = registry.update_class(&old.reference, Some(relabelled)).unwrap();
    assert!(Arc::ptr_eq(&seen, &old) && registry.is_current(&volume, key, &old));
    assert!(registry.update_class(&old.reference, Some(class("new"))).is_none());
    assert!(!registry.is_current(&volume, key, &old), "a payload of the old class is not written");
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(old.reference.clone())]);
    registry.finish(&items[0]);
    assert!(matches!(planned(&registry, &class("new"))[..], [WorkItem::Fetch(_)]));
}

#[test]
fn a_class_that_is_created_again_makes_its_volumes_due() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let items = due(&registry, Instant::now() + INTERVAL);
    let volume = members(&registry, &items)[0].volume.clone();
    assert!(registry.update_class(&class.reference, None).is_none());
    assert!(registry.record_outcome(&volume, Some(Reason::ClassNotFound)), "a new failure");
    assert!(!registry.record_outcome(&volume, Some(Reason::ClassNotFound)), "reported already");
    registry.record_unreported(&volume);
    assert!(registry.record_outcome(&volume, Some(Reason::ClassNotFound)), "the report failed");
    assert!(registry.update_class(&class.reference, Some(Class::clone(&class))).is_none());
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(class.reference.clone())]);
    assert!(registry.record_outcome(&volume, None));
}

#[test]
fn credentials_are_dropped_after_three_periods_and_the_volume_stays() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let items = due(&registry, Instant::now() + INTERVAL);
    let (now, boot) = (Instant::now() + 3 * REPUBLISH, clock::since_boot() + 3 * REPUBLISH);
    registry.sweep(now - Duration::from_secs(1), boot - Duration::from_secs(1));
    assert!(members(&registry, &items)[0].credentials.is_live());
    let Summary { volumes, failing, oldest_success, next_expiration } = registry.sweep(now, boot);
    assert_eq!((volumes, failing, next_expiration), (1, 0, LAST_WRITE.expires));
    assert!(oldest_success >= Some(3 * REPUBLISH - Duration::from_secs(1)));
    let member = members(&registry, &items).remove(0);
    let caller = member.credentials.caller(&pod(1));
    assert!(!member.credentials.is_live() && caller.credentials().is_empty() && caller.sent_tokens().is_empty());
    renew(&registry, &locks, &request(1, "secret"));
    assert_eq!(due(&registry, Instant::now()), [WorkItem::Plan(class.reference.clone())]);
}

#[test]
fn a_fetch_grows_older_while_the_machine_is_suspended() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let hour = Duration::from_secs(3_600);
    let asleep = clock::since_boot() + hour;
    assert!(registry.sweep(Instant::now(), asleep).oldest_success >= Some(hour), "the monotonic clock stood still");
    registry.remove(&request(1, "secret").target);
    assert_eq!(registry.sweep(Instant::now(), asleep).oldest_success, None, "at once, not after the interval");
}

#[test]
fn after_a_pause_credentials_are_kept_for_one_more_period() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let items = due(&registry, Instant::now() + INTERVAL);
    registry.sweep(Instant::now(), BOOT);
    let (woke, boot) = (Instant::now() + 10 * REPUBLISH, BOOT + 10 * REPUBLISH);
    registry.sweep(woke, boot);
    let second = Duration::from_secs(1);
    for passed in 1..REPUBLISH.as_secs() {
        let passed = second * u32::try_from(passed).unwrap();
        registry.sweep(woke + passed, boot + passed);
    }
    assert!(members(&registry, &items)[0].credentials.is_live());
    registry.sweep(woke + REPUBLISH, boot + REPUBLISH);
    assert!(!members(&registry, &items)[0].credentials.is_live(), "the kubelet no longer calls");
}

#[test]
fn a_failure_after_a_pause_is_reported_only_after_a_retry() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let items = due(&registry, Instant::now() + INTERVAL);
    let volume = members(&registry, &items)[0].volume.clone();
    let began = Instant::now();
    assert!(!registry.excuse(&items[0], began, &volume), "there was no pause");
    // To the registry, the process ran last long ago.
    registry.sweep(Instant::now(), Duration::ZERO);
    assert!(registry.excuse(&items[0], began, &volume), "it ran during the pause");
    let later = Instant::now() + INTERVAL;
    registry.finish(&items[0]);
    assert_eq!(due(&registry, later + MIN_DELAY), items, "it runs again at once, not after its interval");
    assert!(registry.excuse(&items[0], later, &volume), "it used credentials from before the pause");
    registry.finish(&items[0]);
    renew(&registry, &locks, &request(1, "secret"));
    assert_eq!(due(&registry, later + 3 * MIN_DELAY), items, "with new credentials");
    assert!(!registry.excuse(&items[0], later + INTERVAL, &volume));
}

#[test]
fn volumes_of_terminating_pods_are_left_out_until_the_kubelet_calls_again() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let items = due(&registry, Instant::now() + INTERVAL);
    let volume = registry.with_unknown_pod().remove(0);
    registry.update_pod(&volume, PodState::Running(None));
    assert!(registry.with_unknown_pod().is_empty());
    registry.finish(&items[0]);
    assert_eq!(due(&registry, Instant::now()), []);
    registry.update_pod(&volume, PodState::Running(Some("1".to_owned())));
    // The fetch ran at a later time of this test.
    assert_eq!(due(&registry, Instant::now() + INTERVAL + MIN_DELAY), items, "the annotation has another value");
    registry.update_pod(&volume, PodState::Terminating);
    assert_eq!(members(&registry, &items).len(), 0);
    renew(&registry, &locks, &request(1, "secret"));
    assert_eq!(members(&registry, &items).len(), 1);
}

#[test]
fn an_unpublished_volume_is_removed_with_its_fetch_and_its_class() {
    let (registry, locks, class) = (registry(), Locks::default(), Arc::new(class("v")));
    published(&registry, &locks, &request(1, "secret"), &class);
    let items = due(&registry, Instant::now() + INTERVAL);
    registry.remove(&request(1, "secret").target);
    assert_eq!(
        registry
            .members(match &items[0] {
                WorkItem::Fetch(key) => key,
                WorkItem::Plan(_) => panic!("{items:?}"),
            })
            .len(),
        0
    );
    registry.finish(&items[0]);
    assert_eq!((registry.next(), registry.classes()), (None, vec![]));
    let empty = Summary { volumes: 0, failing: 0, oldest_success: None, next_expiration: None };
    assert_eq!(registry.sweep(Instant::now(), BOOT), empty);
}

#[test]
fn a_class_may_have_an_interval_of_its_own() {
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
