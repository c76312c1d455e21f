//! Names, statuses and classes as objects, without a server.

use kube::core::DynamicObject;
use serde_json::json;

use super::*;
use crate::kubernetes::class_object;
use crate::kubernetes::names::{distinct_status_name, event_name, node_label, status_name};
use crate::kubernetes::pod_status::{DesiredStatus, Object, StatusUpdate};

fn desired(target: &str, version: &str) -> DesiredStatus {
    let object = |id: &str| Object { id: id.into(), version: version.into() };
    DesiredStatus {
        pod: pod("web"),
        class: "class".parse().unwrap(),
        target: target.into(),
        objects: Some(vec![object("secret/a"), object("secret/b")]),
        failure: None,
        exists: false,
        node: "node-1".into(),
        now: "2026-11-22T05:00:00Z".into(),
    }
}

fn replaced(update: StatusUpdate) -> DynamicObject {
    let StatusUpdate::Replace(object) = update else { panic!("{update:?}") };
    *object
}

/// As a server with upstream's CRD stores it.
fn pruned(mut object: DynamicObject) -> DynamicObject {
    let status = object.data["status"].as_object_mut().unwrap();
    status.retain(|key, _| {
        ["podName", "secretProviderClassName", "mounted", "targetPath", "objects"].contains(&key.as_str())
    });
    object
}

#[test]
fn short_names_are_upstreams() {
    assert_eq!(status_name(&pod("web"), "class").unwrap(), "web-ns-class");
    assert_eq!(node_label("node-1"), "node-1");
    let long = "x".repeat(63);
    assert_eq!(node_label(&long), long);
}

#[test]
fn long_names_are_cut_and_get_a_digest() {
    let exact = pod(&"p".repeat(200));
    assert_eq!(status_name(&exact, &"c".repeat(49)).unwrap().len(), 253);
    let longer = status_name(&exact, &"c".repeat(50)).unwrap();
    assert_eq!(longer.len(), 253);
    assert_ne!(longer, status_name(&exact, &("c".repeat(49) + "d")).unwrap());
    assert_eq!(longer, status_name(&exact, &"c".repeat(50)).unwrap());
    let dotted = pod(&("a".repeat(235) + ".b"));
    let name = status_name(&dotted, &"c".repeat(50)).unwrap();
    assert!(name.starts_with(&("a".repeat(235) + "-")), "{name}");
    let label = node_label(&format!("ip-10-0-0-1.{}", "internal.".repeat(12)));
    assert!(label.len() <= 63 && label.starts_with("ip-10-0-0-1.internal"), "{label}");
    assert!(event_name(&exact.name, "x").unwrap().len() <= 253);
}

#[test]
fn pods_with_the_same_plain_name_get_distinct_names() {
    let (one, two) = (pod("x"), pod("x-ns"));
    assert_eq!(status_name(&one, "ns-y"), status_name(&two, "y"));
    assert_ne!(distinct_status_name(&one, "ns-y"), distinct_status_name(&two, "y"));
}

#[test]
fn a_new_status_is_upstreams_object() {
    let object = desired("/t/1", "v1").new_object(&"web-ns-class".parse().unwrap());
    let value = serde_json::to_value(&object).unwrap();
    assert_eq!(
        value,
        json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1",
            "kind": "SecretProviderClassPodStatus",
            "metadata": {
                "name": "web-ns-class",
                "namespace": "ns",
                "labels": { "internal.secrets-store.csi.k8s.io/node-name": "node-1" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "uid-web" }],
            },
            "status": {
                "podName": "web",
                "secretProviderClassName": "class",
                "mounted": true,
                "targetPath": "/t/1",
                "objects": [{ "id": "secret/a", "version": "v1" }, { "id": "secret/b", "version": "v1" }],
                "lastChanged": "2026-11-22T05:00:00Z",
            },
        })
    );
}

#[test]
fn an_equal_status_is_not_written_even_if_fields_were_pruned() {
    let stored = desired("/t/1", "v1").new_object(&"web-ns-class".parse().unwrap());
    let later = DesiredStatus { now: "2027-01-01T00:00:00Z".into(), ..desired("/t/1", "v1") };
    assert_eq!(later.update(stored.clone(), false), StatusUpdate::None);
    assert_eq!(later.update(pruned(stored.clone()), true), StatusUpdate::None);
    assert_eq!(later.update(pruned(stored.clone()), false), StatusUpdate::None);
    let new = replaced(desired("/t/1", "v2").update(stored, false));
    assert_eq!(new.data["status"]["objects"][0]["version"], "v2");
}

#[test]
fn another_node_or_another_pod_with_the_name_takes_the_status_over() {
    let mut stored = desired("/t/1", "v1").new_object(&"web-ns-class".parse().unwrap());
    stored.metadata.resource_version = Some("7".into());
    stored.metadata.labels.as_mut().unwrap().insert("mine".into(), "kept".into());
    let moved = DesiredStatus { node: "node-2".into(), ..desired("/t/1", "v1") };
    let new = replaced(moved.update(stored.clone(), true));
    let labels = new.metadata.labels.unwrap();
    assert_eq!(labels["internal.secrets-store.csi.k8s.io/node-name"], "node-2");
    assert_eq!(labels["mine"], "kept");
    assert_eq!(new.metadata.resource_version.as_deref(), Some("7"));
    let mut successor = desired("/t/2", "v1");
    successor.pod.uid = "other".into();
    let new = replaced(successor.update(stored, false));
    let owners = new.metadata.owner_references.unwrap();
    assert_eq!((owners.len(), owners[0].uid.as_str()), (1, "other"));
    assert_eq!(new.data["status"]["targetPath"], "/t/2");
    assert!(new.data["status"].get("targetPaths").is_none());
}

#[test]
fn two_volumes_of_one_class_share_the_status() {
    let first = desired("/t/1", "v1").new_object(&"web-ns-class".parse().unwrap());
    let both = replaced(desired("/t/0", "v1").update(first.clone(), false));
    assert_eq!(both.data["status"]["targetPath"], "/t/1");
    assert_eq!(both.data["status"]["targetPaths"], json!(["/t/0", "/t/1"]));
    for target in ["/t/0", "/t/1"] {
        assert_eq!(desired(target, "v1").update(both.clone(), false), StatusUpdate::None);
        assert_eq!(desired(target, "v1").update(pruned(first.clone()), true), StatusUpdate::None);
    }
}

#[test]
fn malformed_objects_are_replaced_or_skipped() {
    let bare: DynamicObject = serde_json::from_value(json!({ "metadata": { "name": "web-ns-class" } })).unwrap();
    let new = replaced(desired("/t/1", "v1").update(bare, false));
    assert_eq!(new.metadata.labels.unwrap().len(), 1);
    let odd = json!({ "metadata": { "name": "n" }, "status": { "objects": "none", "podName": 5 } });
    replaced(desired("/t/1", "v1").update(serde_json::from_value(odd).unwrap(), false));
    let other = json!({ "metadata": { "name": "n" }, "status": { "podName": "other" } });
    assert_eq!(desired("/t/1", "v1").update(serde_json::from_value(other).unwrap(), false), StatusUpdate::NameTaken);
    let terminating = json!({ "metadata": { "name": "n", "deletionTimestamp": "2026-11-22T05:00:00Z" } });
    assert_eq!(
        desired("/t/1", "v1").update(serde_json::from_value(terminating).unwrap(), false),
        StatusUpdate::Terminating
    );
}

/// No API server has such an object; we must not build requests from such names.
#[test]
fn objects_with_invalid_names_are_skipped() {
    for name in ["../../pods/x", "a?watch=true", "a#b", "a%2f..", "A", "", &"a".repeat(254)] {
        let object = json!({ "metadata": { "name": name, "namespace": "ns" }, "spec": {} });
        assert!(class_object::read(serde_json::from_value(object).unwrap()).is_none(), "{name}");
        let metadata = json!({ "name": "web-ns-class", "namespace": "ns", "uid": "u" });
        for status in [
            json!({ "podName": name, "secretProviderClassName": "c" }),
            json!({ "podName": "p", "secretProviderClassName": name }),
        ] {
            let object = json!({ "metadata": metadata, "status": status });
            assert!(crate::kubernetes::statuses::read(serde_json::from_value(object).unwrap()).is_none(), "{name}");
        }
    }
}

#[test]
fn a_class_is_trimmed_and_a_malformed_one_becomes_an_error() {
    let object = json!({
        "metadata": {
            "name": "c", "namespace": "ns", "resourceVersion": "9",
            "annotations": { "keyvault-csi/x": "1", "other/y": "2" },
        },
        "spec": {
            "provider": "azure",
            "parameters": { "keyvaultName": "kv" },
            "secretObjects": [{ "secretName": "s", "type": "Opaque", "labels": null, "data": [{ "objectName": "o", "key": "k" }] }],
        },
    });
    let (reference, class) = class_object::read(serde_json::from_value(object).unwrap()).unwrap();
    let class = class.unwrap();
    assert_eq!(reference, ClassRef { namespace: "ns".parse().unwrap(), name: "c".parse().unwrap() });
    assert_eq!((class.provider.as_str(), class.version.as_str()), ("azure", "9"));
    assert_eq!(class.annotations.keys().collect::<Vec<_>>(), ["keyvault-csi/x"]);
    assert_eq!(class.secret_objects[0].data[0].key, "k");
    for (spec, said) in [
        (json!({ "parameters": { "keyvaultName": 5 } }), "spec.parameters.keyvaultName is a number"),
        (json!({ "provider": [] }), "spec.provider is a list"),
        (json!("text"), "spec is text, not a mapping"),
        (json!({ "secretObjects": [{ "secretName": 5 }] }), "spec.secretObjects[0]"),
    ] {
        let object = json!({ "metadata": { "name": "c", "namespace": "ns" }, "spec": spec });
        let why = class_object::read(serde_json::from_value(object).unwrap()).unwrap().1.unwrap_err();
        assert!(why.contains(said), "{why}");
    }
}
