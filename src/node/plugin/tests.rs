use keyvault_csi_proto::provider::{MountRequest, ObjectVersion};

use super::request::{InvalidMount, Mount, mount};
use crate::model::{ExposeSecret as _, FileMode};

const POD: &str = r#"{"csi.storage.k8s.io/pod.name":"web","csi.storage.k8s.io/pod.namespace":"default","csi.storage.k8s.io/pod.uid":"u","secretProviderClass":"demo","keyvaultName":"kv"}"#;

fn request(attributes: &str, secrets: &str, permission: &str) -> MountRequest {
    MountRequest {
        attributes: attributes.to_owned(),
        secrets: secrets.to_owned(),
        target_path: "/target".to_owned(),
        permission: permission.to_owned(),
        current_object_version: vec![ObjectVersion { id: "secret/a".to_owned(), version: "1".to_owned() }],
    }
}

fn checked(attributes: &str, secrets: &str, permission: &str) -> Result<Mount, InvalidMount> {
    mount(&request(attributes, secrets, permission))
}

fn refused(attributes: &str, secrets: &str, permission: &str) -> String {
    checked(attributes, secrets, permission).err().expect("a refusal").to_string()
}

#[test]
fn requests_of_drivers_are_parsed() {
    let mount = checked(POD, r#"{"clientid":"c","clientsecret":"s\u003c"}"#, "420").unwrap();
    assert_eq!((mount.caller.pod.to_string().as_str(), mount.caller.pod.uid.as_str()), ("default/web", "u"));
    assert_eq!(mount.class.reference.to_string(), "default/demo");
    assert_eq!(mount.target, "/target");
    assert_eq!(mount.caller.attributes()["keyvaultName"], "kv");
    assert_eq!(mount.caller.credentials()["clientsecret"].expose_secret(), "s<");
    assert_eq!(mount.mode, FileMode::DEFAULT);
    assert!(
        checked(POD, "null", "420").unwrap().caller.credentials().is_empty(),
        "without nodePublishSecretRef drivers send null"
    );
    assert!(checked(POD, "{}", "420").unwrap().caller.credentials().is_empty());
    assert_eq!(checked(POD, "null", "256").unwrap().mode.bits(), 0o400);
    let with_null = POD.replace(r#""kv""#, "null");
    assert_eq!(checked(&with_null, "null", "420").unwrap().caller.attributes()["keyvaultName"], "", "as Go reads null");
}

#[test]
fn the_first_fault_in_upstreams_order_is_named_without_a_value() {
    for attributes in ["", "[]", "null", "5", r#"{"a":5}"#, r#"{"a":["secret"]}"#, r#"{"a":"secret""#] {
        let text = refused(attributes, "", "");
        assert!(text.starts_with("attributes is not a JSON object of strings: "), "{attributes}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    for secrets in ["", "[]", "5", r#"{"a":5}"#, r#"{"a":"secret"#] {
        let text = refused(POD, secrets, "");
        assert!(text.starts_with("secrets is not a JSON object of strings or null: "), "{secrets}: {text}");
        assert!(!text.contains("a\":"), "{text}");
    }
    for permission in ["", "\"420\"", "-1", "0644", "420.5", "512", "4294967296", "null", "rw-"] {
        assert!(refused("{}", "null", permission).starts_with("permission is not"), "{permission}");
    }
    assert!(refused("{}", "null", "420").starts_with("csi.storage.k8s.io/pod.name is missing"));
    let nameless = POD.replace(r#""default""#, r#""""#);
    assert!(refused(&nameless, "null", "420").starts_with("csi.storage.k8s.io/pod.namespace is missing"));
}
