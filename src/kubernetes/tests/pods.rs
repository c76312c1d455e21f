use serde_json::json;

use super::super::pod_object;

#[test]
fn a_pod_is_trimmed_to_identity_and_owners() {
    let metadata = serde_json::from_value(json!({
        "namespace": "shop", "name": "web-1", "uid": "u-1", "labels": { "app": "web" },
        "annotations": { "keyvault-csi/refresh": "now", "other/note": "long" },
        "managedFields": [{ "manager": "kubelet" }],
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u-2", "controller": true,
            "blockOwnerDeletion": true,
        }, { "apiVersion": "v1", "kind": "ConfigMap", "name": "forged", "uid": "u&dryRun=All&x=" }],
    }));
    let pod = pod_object::read(metadata.unwrap()).unwrap();
    assert_eq!(
        (pod.reference.to_string(), pod.reference.uid.as_str(), pod.terminating),
        ("shop/web-1".into(), "u-1", false)
    );
    assert_eq!(pod.annotations.into_iter().collect::<Vec<_>>(), [("keyvault-csi/refresh".into(), "now".into())]);
    let [owner] = &pod.owners[..] else { panic!("{:?}", pod.owners) };
    assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("ReplicaSet", "u-2", true));
}

/// The table of upstream (docs/reference/csi-driver.md#pod-volumes, pod volume match).
#[test]
fn volumes_of_other_drivers_are_skipped() {
    let csi = |name: &str, driver: &str, attributes: serde_json::Value| json!({ "name": name, "csi": { "driver": driver, "volumeAttributes": attributes } });
    let pod = json!({ "spec": { "volumes": [
        { "name": "plain", "emptyDir": {} },
        csi("foreign", "other.example", json!({ "secretProviderClass": "demo" })),
        csi("bare", "ours.example", json!({})),
        csi("first", "ours.example", json!({ "secretProviderClass": "demo" })),
        csi("second", "ours.example", json!({ "secretProviderClass": "other" })),
    ] } });
    let volumes: Vec<_> = pod_object::volumes(&pod, "ours.example").into_iter().collect();
    assert_eq!(volumes, [("first".into(), "demo".into()), ("second".into(), "other".into())]);
    assert!(pod_object::volumes(&json!({}), "ours.example").is_empty());
}
