//! The changes that are planned for a stored Secret.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::desired::Files;
use super::super::plan::{self, DesiredSecret, OwnerChange, Owners, Plan, Refusal};
use super::bytes;
use super::desired::built;
use crate::kubernetes::{SecretManager, SecretRef, StoredSecret};
use crate::model::Owner;

const AT: &str = "2026-11-22T10:00:00.5Z";
const NOW: &str = "2026-11-22T11:00:30Z";

const LABEL: (&str, &str) = ("secrets-store.csi.k8s.io/managed", "true");
const MANAGER: SecretManager = SecretManager { field_manager: "keyvault-csi", label: LABEL };

fn plan(desired: &DesiredSecret, stored: &StoredSecret, abandoned: bool, now: Timestamp) -> Result<Plan, Refusal> {
    plan::plan(&MANAGER, desired, stored, abandoned, now)
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn owner(name: &str, uid: &str) -> Owner {
    Owner {
        api_version: "apps/v1".into(),
        kind: "ReplicaSet".into(),
        name: name.into(),
        uid: uid.parse().unwrap(),
        controller: true,
    }
}

/// The Secret that the class `demo` asks for: key `k` with `new`, owned by `u-1`.
fn desired() -> DesiredSecret {
    let object = json!({ "secretName": "web", "labels": { "l": "v" }, "data": [{ "objectName": "a", "key": "k" }] });
    let files = Files { names: ["a".to_owned()].into(), contents: bytes(&[("a", b"new")]) };
    let content = built(&super::object(&object), &files).unwrap();
    let reference = SecretRef { namespace: "shop".parse().unwrap(), name: "web".parse().unwrap() };
    let owners = Owners::Shared(vec![owner("web", "u-1")]);
    DesiredSecret { reference, class: "demo".into(), content, content_time: time(AT), owners }
}

/// A Secret as we wrote it with an apply, changed by a merge of `change`; `null` removes.
fn stored(change: Value) -> StoredSecret {
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    if value.is_null() {
                        into.remove(&key);
                    } else {
                        merge(into.entry(key).or_insert(Value::Null), value);
                    }
                }
            }
            (into, from) => *into = from,
        }
    }
    let mut secret = json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "s-1", "resourceVersion": "7",
            "labels": { "l": "v", "secrets-store.csi.k8s.io/managed": "true" },
            "annotations": { "keyvault-csi/class": "demo", "keyvault-csi/content-time": AT },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u-1" }],
            "managedFields": [fields("keyvault-csi", "Apply", &["k"], &["l", "secrets-store.csi.k8s.io/managed"])],
        },
        "type": "Opaque", "data": { "k": "bmV3" },
    });
    merge(&mut secret, change);
    crate::kubernetes::read_secret(&secret.to_string()).unwrap()
}

/// A managed fields entry for keys of data and for labels.
fn fields(manager: &str, operation: &str, data: &[&str], labels: &[&str]) -> Value {
    let set = |keys: &[&str]| keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect::<serde_json::Map<_, _>>();
    json!({
        "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": { "f:data": set(data), "f:metadata": { "f:labels": set(labels) }, "f:type": {} },
    })
}

fn planned(change: Value) -> Result<Plan, Refusal> {
    plan(&desired(), &stored(change), false, time(NOW))
}

fn data(value: &str) -> Value {
    json!({ "data": { "k": value } })
}

#[test]
fn an_up_to_date_secret_is_not_changed() {
    assert_eq!(planned(json!({})), Ok(Plan::default()));
    // Foreign keys, another time alone, and another class with the same content are no differences.
    for harmless in [
        json!({ "data": { "theirs": "eA==" }, "metadata": { "labels": { "x": "y" }, "annotations": { "x": "y" } } }),
        json!({ "metadata": { "annotations": { "keyvault-csi/content-time": "2020-01-01T00:00:00Z" } } }),
        json!({ "metadata": { "annotations": { "keyvault-csi/class": "other" } } }),
        json!({ "metadata": { "annotations": null } }),
    ] {
        assert_eq!(planned(harmless.clone()), Ok(Plan::default()), "{harmless}");
    }
}

#[test]
fn a_secret_of_another_manager_type_or_class_is_refused() {
    let labels = |value: Value| json!({ "metadata": { "labels": { "secrets-store.csi.k8s.io/managed": value } } });
    for (change, refusal) in [
        (labels(Value::Null), Refusal::NotManaged { label: LABEL }),
        (labels("false".into()), Refusal::NotManaged { label: LABEL }),
        (json!({ "metadata": { "deletionTimestamp": "2026-11-22T10:00:00Z" } }), Refusal::Terminating),
        (json!({ "type": "custom" }), Refusal::OtherType { stored: "custom".into(), desired: "Opaque".into() }),
    ] {
        assert_eq!(planned(change), Err(refusal));
    }
    let mut theirs = data("b2xk");
    theirs["metadata"] = json!({ "annotations": { "keyvault-csi/class": "other" } });
    assert_eq!(planned(theirs.clone()), Err(Refusal::OtherClass("other".into())));
    assert_eq!(plan(&desired(), &stored(theirs), true, time(NOW)).unwrap().content, Some(time(AT)));
}

#[test]
fn other_content_is_written_unless_it_is_newer() {
    let old = planned(data("b2xk")).unwrap();
    assert_eq!((old.content, old.newer, old.take_over), (Some(time(AT)), false, None));
    let of = |at: &str| json!({ "metadata": { "annotations": { "keyvault-csi/content-time": at } }, "data": { "k": "b2xk" } });
    assert_eq!(planned(of("2026-11-22T10:00:00.4Z")).unwrap().content, Some(time(AT)));
    let newer = planned(of("2026-11-22T10:00:00.6Z")).unwrap();
    assert_eq!((newer.content, newer.newer), (None, true));
    // Unless a foreign field manager set the value.
    let mut tampered = of("2026-11-22T10:00:00.6Z");
    tampered["metadata"]["managedFields"] = json!([
        fields("keyvault-csi", "Apply", &[], &["l", "secrets-store.csi.k8s.io/managed"]),
        fields("kubectl-edit", "Update", &["k"], &[]),
    ]);
    assert_eq!(planned(tampered).unwrap().content, Some(time(AT)));
    // A label alone does not make the content older.
    let label = json!({ "metadata": { "labels": { "l": "x" }, "annotations": { "keyvault-csi/content-time": "2026-11-22T11:00:00Z" } } });
    assert_eq!(planned(label).unwrap().content, Some(time("2026-11-22T11:00:00Z")));
}

#[test]
fn keys_that_drivers_set_and_the_class_does_not_list_are_removed() {
    let gone = |entry: Value| json!({ "data": { "gone": "eA==" }, "metadata": { "managedFields": [entry] } });
    let labels = ["l", "secrets-store.csi.k8s.io/managed"];
    let applied = planned(gone(fields("keyvault-csi", "Apply", &["k", "gone"], &labels))).unwrap();
    assert_eq!((applied.content, applied.take_over), (Some(time(AT)), None));
    for manager in ["keyvault-csi", "csi-secrets-store"] {
        let mut entry = fields(manager, "Update", &["k", "gone"], &labels);
        entry["fieldsV1"]["f:metadata"]["f:ownerReferences"] = json!({ ".": {}, "k:{\"uid\":\"u-1\"}": {} });
        let taken = planned(gone(entry)).unwrap().take_over.expect(manager);
        let entries = serde_json::to_value(taken.entries()).unwrap();
        let owners = json!({ "f:metadata": { "f:ownerReferences": { ".": {}, "k:{\"uid\":\"u-1\"}": {} } } });
        assert_eq!((&entries[0]["manager"], &entries[0]["fieldsV1"]), (&json!(manager), &owners));
        let (ours, fields) = (&entries[1], &entries[1]["fieldsV1"]);
        assert_eq!((&ours["manager"], &ours["operation"]), (&json!("keyvault-csi"), &json!("Apply")));
        assert!(
            fields["f:data"]["f:gone"].is_object() && fields["f:metadata"]["f:ownerReferences"].is_null(),
            "{ours}"
        );
    }
    // A key that was added by hand stays.
    let by_hand =
        json!([fields("keyvault-csi", "Apply", &["k"], &labels), fields("kubectl-edit", "Update", &["gone"], &[])]);
    assert_eq!(
        planned(json!({ "data": { "gone": "eA==" }, "metadata": { "managedFields": by_hand } })),
        Ok(Plan::default())
    );
}

#[test]
fn owners_are_compared_by_uid() {
    let reference =
        |name: &str, uid: &str| json!({ "apiVersion": "apps/v1beta1", "kind": "ReplicaSet", "name": name, "uid": uid });
    let change = |owners: Value| planned(json!({ "metadata": { "ownerReferences": owners } })).unwrap().owners;
    assert_eq!(change(json!([reference("other", "u-2")])), OwnerChange::Add(vec![owner("web", "u-1")]));
    let OwnerChange::Replace(new) = change(json!([reference("web", "u-0"), reference("other", "u-2")])) else {
        panic!()
    };
    assert_eq!(new.iter().map(|owner| owner.uid.as_str()).collect::<Vec<_>>(), ["u-2", "u-1"]);
    let mut retained = desired();
    retained.owners = Owners::None;
    assert_eq!(plan(&retained, &stored(json!({})), false, time(NOW)).unwrap().owners, OwnerChange::Replace(Vec::new()));
    let without = stored(json!({ "metadata": { "ownerReferences": null } }));
    assert_eq!(plan(&retained, &without, false, time(NOW)).unwrap().owners, OwnerChange::Keep);
}

#[test]
fn a_digest_covers_everything_except_the_time() {
    let mut digests = vec![desired().digest()];
    let mut later = desired();
    later.content_time = time("2027-01-01T00:00:00Z");
    assert_eq!(later.digest(), digests[0]);
    let mut add = |change: &dyn Fn(&mut DesiredSecret)| {
        let mut changed = desired();
        change(&mut changed);
        digests.push(changed.digest());
    };
    add(&|desired| desired.class = "other".into());
    add(&|desired| desired.content.r#type = "custom".into());
    add(&|desired| desired.content.data = bytes(&[("k", b"newer")]));
    // The boundary between key and value moves.
    add(&|desired| desired.content.data = bytes(&[("kn", b"ew")]));
    add(&|desired| desired.content.annotations = std::mem::take(&mut desired.content.labels));
    add(&|desired| desired.owners = Owners::None);
    add(&|desired| desired.owners = Owners::Shared(vec![owner("web", "u-2")]));
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn the_content_time_of_another_class_is_ignored() {
    let mut theirs = data("b2xk");
    theirs["metadata"] = json!({ "annotations": { "keyvault-csi/class": "other", "keyvault-csi/content-time": "2100-01-01T00:00:00Z" } });
    let planned = plan(&desired(), &stored(theirs), true, time(NOW)).unwrap();
    assert_eq!((planned.content, planned.newer), (Some(time(AT)), false));
}

#[test]
fn content_with_other_keys_is_not_newer() {
    let of = |time: &str| json!({ "annotations": { "keyvault-csi/content-time": time } });
    let later = of("2026-11-22T10:00:30Z");
    let mut other_value = data("b2xk");
    other_value["metadata"] = later.clone();
    assert!(planned(other_value.clone()).unwrap().newer);
    // A time in the future comes from a wrong clock.
    other_value["metadata"] = of("2026-11-22T11:07:00Z");
    assert_eq!(planned(other_value).unwrap().content, Some(time(AT)));
    let key_is_gone = json!({ "data": { "k": null }, "metadata": later });
    let planned = planned(key_is_gone).unwrap();
    assert_eq!((planned.content, planned.newer), (Some(time(AT)), false));
}

#[test]
fn two_desired_owners_with_one_name_both_stay() {
    let mut desired = desired();
    desired.owners = Owners::Shared(vec![owner("web", "u-1"), owner("web", "u-2")]);
    assert_eq!(
        plan(&desired, &stored(json!({})), false, time(NOW)).unwrap().owners,
        OwnerChange::Add(vec![owner("web", "u-2")])
    );
}

#[test]
fn two_classes_with_the_same_content_do_not_replace_each_others_owners() {
    let mut retained = desired();
    retained.owners = Owners::None;
    let theirs = json!({ "metadata": { "annotations": { "keyvault-csi/class": "other" } } });
    assert_eq!(plan(&retained, &stored(theirs), false, time(NOW)).unwrap().owners, OwnerChange::Keep);
}
