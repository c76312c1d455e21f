//! From secretObjects and files to Secrets (docs/reference/csi-driver.md#secretobjects).

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::desired::{DesiredContent, Files, OpenedFiles, build, file_names, files_to_open, secret_name};
use super::super::mistake::Mistake;
use super::super::tls;
use super::bytes;
use crate::formats::pkcs12::Work;
use crate::model::{ExposeSecret as _, Reason, SecretBytes, SecretObject};

fn files(pairs: &[(&str, &[u8])]) -> Files {
    Files { names: pairs.iter().map(|(name, _)| (*name).to_owned()).collect(), contents: bytes(pairs) }
}

/// The content that a secretObject asks for, with its files taken apart.
pub(super) fn built(object: &SecretObject, files: &Files) -> Result<DesiredContent, Mistake> {
    let found = files_to_open(object).filter_map(|name| Some((name.to_owned(), files.contents.get(name)?)));
    let open = |content: &SecretBytes| Arc::new(tls::open(content.expose_secret(), &mut Work::default()));
    let opened: OpenedFiles = found.map(|(name, content)| (name, open(content))).collect();
    secret_name(object)?;
    build(object, files, &opened)
}

fn first(object: Value, pairs: &[(&str, &[u8])]) -> Result<DesiredContent, Mistake> {
    built(&super::object(&object), &files(pairs))
}

fn object(r#type: &str, data: &[(&str, &str)]) -> Value {
    let data: Vec<Value> = data.iter().map(|(name, key)| json!({ "objectName": name, "key": key })).collect();
    json!({ "secretName": "web", "type": r#type, "data": data })
}

fn value<'a>(desired: &'a DesiredContent, key: &str) -> &'a [u8] {
    desired.data[key].expose_secret()
}

#[test]
fn names_keys_and_types_are_trimmed_and_content_is_not() {
    let object = json!({
        "secretName": "  web ", "type": "   ", "labels": { "l": "v" }, "annotations": { "a": "v" },
        "data": [{ "objectName": "obj1     ", "key": "   file1" }, { "objectName": "nested/bar/0", "key": "b" }],
    });
    let secret = first(object.clone(), &[("obj1", b" x\n\xff"), ("nested/bar/0", b"y"), ("more", b"")]).unwrap();
    assert_eq!(secret.r#type.as_str(), "Opaque");
    assert_eq!((value(&secret, "file1"), value(&secret, "b")), (&b" x\n\xff"[..], &b"y"[..]));
    assert_eq!(secret.labels.len() + secret.annotations.len(), 2);
    let named = file_names(&[super::object(&object)]);
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["nested/bar/0", "obj1"]);
    assert_eq!(
        first(
            json!({ "secretName": "web", "type": "custom/type", "data": [{ "objectName": "a", "key": "k" }] }),
            &[("a", b"")]
        )
        .unwrap()
        .r#type,
        "custom/type"
    );
}

#[test]
fn a_mistake_names_field_and_fix_and_no_value() {
    let data = json!([{ "objectName": "a", "key": "k" }]);
    for (wrong, expected) in [
        (json!({ "data": data }), "secretName is empty: name the Secret"),
        (json!({ "secretName": "../nodes", "data": data }), "secretName is not a valid Secret name"),
        (json!({ "secretName": "Web", "data": data }), "use lower-case letters"),
        (json!({ "secretName": "web" }), "data is empty"),
        (json!({ "secretName": "web", "data": [{ "key": "k" }] }), "data[0].objectName is empty"),
        (json!({ "secretName": "web", "data": [{ "objectName": "a", "key": " " }] }), "data[0].key is empty"),
        (
            json!({ "secretName": "web", "data": [{ "objectName": "a", "key": "a b" }] }),
            "data[0].key \"a b\" is not a valid Secret key",
        ),
        (
            json!({ "secretName": "web", "data": [{ "objectName": "absent", "key": "k" }] }),
            "data[0].objectName: file matching objectName absent not found in the pod; the volume has a, b/0",
        ),
        (
            object("kubernetes.io/tls", &[("a", "ca.cert")]),
            "type kubernetes.io/tls needs the key tls.crt: add it to data",
        ),
        (object("kubernetes.io/basic-auth", &[("a", "user")]), "needs the key username or password"),
        (object("kubernetes.io/ssh-auth", &[("a", "key")]), "needs the key ssh-privatekey"),
        (object("kubernetes.io/dockercfg", &[("a", ".dockerconfigjson")]), "needs the key .dockercfg"),
        (
            object("kubernetes.io/dockerconfigjson", &[("a", ".dockerconfigjson")]),
            "needs the file a to be a JSON object",
        ),
        (
            object("kubernetes.io/tls", &[("a", "tls.crt")]),
            "data[0]: tls.crt from file a: the file is neither PEM nor a PKCS#12 archive",
        ),
    ] {
        let mistake = first(wrong, &[("a", b"hunter2"), ("b/0", b"hunter2")]).unwrap_err();
        let text = mistake.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(matches!(mistake.reason(), Reason::ClassInvalid | Reason::ObjectInvalid));
    }
}

#[test]
fn types_with_rules_are_accepted_if_their_keys_exist() {
    let json = br#"{"auths":{"r.example":{"auth":"eDp5"}}}"#;
    for (r#type, data) in [
        ("kubernetes.io/dockerconfigjson", &[("a", ".dockerconfigjson")][..]),
        ("kubernetes.io/dockercfg", &[("a", ".dockercfg")]),
        ("kubernetes.io/basic-auth", &[("a", "password")]),
        ("kubernetes.io/ssh-auth", &[("a", "ssh-privatekey")]),
        ("bootstrap.kubernetes.io/token", &[("a", "token-id")]),
    ] {
        let secret = first(object(r#type, data), &[("a", json)]).unwrap();
        assert_eq!(value(&secret, data[0].1), json, "{}", r#type);
    }
}

#[test]
fn the_size_of_a_secret_is_limited() {
    let half = vec![b'x'; 1 << 19];
    let data = object("Opaque", &[("a", "k"), ("b", "l")]);
    assert!(first(data.clone(), &[("a", &half), ("b", &half)]).is_ok());
    let more = [&half[..], b"x"].concat();
    let mistake = first(data, &[("a", &half), ("b", &more)]).unwrap_err();
    assert_eq!(mistake.reason(), Reason::TooLarge);
    assert!(mistake.to_string().contains("1048577 bytes"), "{mistake}");
}

#[test]
fn long_lists_and_odd_names_are_cut() {
    let names: Vec<String> = (0..500).map(|number| format!("file-{number:03}")).collect();
    let pairs: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let text = first(object("Opaque", &[("no\nsuch", "k")]), &pairs).unwrap_err().to_string();
    assert!(text.contains("no\\nsuch") && text.contains("file-019 and 480 more") && text.len() < 500, "{text}");
}
