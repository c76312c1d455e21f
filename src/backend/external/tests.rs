//! Requests to a provider and the meaning of its replies, as tables:
//! docs/reference/csi-driver.md#mount-request, docs/reference/csi-driver.md#mount-reply,
//! docs/reference/csi-driver.md#provider-sockets and docs/reference/csi-driver.md#path-table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyvault_csi_proto::provider::{self, File, MountRequest, MountResponse};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::error::{Error, ProviderFault};
use super::mount_call::{CallFailure, MountCall, is_transient};
use super::redact::Redactor;
use super::{ProviderName, directories, reply, request};
use crate::model::tests::caller;
use crate::model::{Class, ClassRef, ClassSpec, Fetch, ObjectVersion, Payload, Purpose, Reason, TOKENS};

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn class() -> Class {
    let reference = ClassRef { namespace: "default".parse().unwrap(), name: "demo".parse().unwrap() };
    let parameters = strings(&[("objects", "of the class"), ("region", "r")]);
    Class::new(reference, ClassSpec { provider: "vault".into(), parameters, ..ClassSpec::default() })
}

fn built(context: &[(&str, &str)], secrets: &[(&str, &str)], held: &[ObjectVersion]) -> MountRequest {
    let (class, caller, deadline) = (class(), caller(context, secrets), Instant::now());
    let (target, purpose) = ("/pods/mount", Purpose::Mount);
    request::build(&Fetch { class: &class, caller: &caller, target, purpose, deadline }, held)
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_request_is_what_upstream_sends() {
    let request = built(&[("objects", "of the pod"), ("own", "\"<&>\n")], &[], &[]);
    assert_eq!(parsed(&request.attributes), json!({ "objects": "of the pod", "region": "r", "own": "\"<&>\n" }));
    assert_eq!((request.secrets.as_str(), request.permission.as_str()), ("null", "420"));
    assert_eq!(request.target_path, "/pods/mount");
    assert!(request.current_object_version.is_empty());
    let held = [ObjectVersion { id: "secret/a".into(), version: "1".into() }];
    let request = built(&[], &[("user", "u"), ("pass", "p")], &held);
    assert_eq!(parsed(&request.secrets), json!({ "user": "u", "pass": "p" }));
    assert_eq!(request.current_object_version.len(), 1);
    assert_eq!(request.current_object_version[0].version, "1");
}

#[test]
fn tokens_among_the_secrets_win_and_stay_there() {
    for (context, among, expected) in [
        (&[][..], &[][..], None),
        (&[(TOKENS, "context")], &[], Some("context")),
        (&[(TOKENS, "context")], &[(TOKENS, "secrets")], Some("secrets")),
        (&[(TOKENS, "context")], &[(TOKENS, "")], Some("context")),
    ] {
        let request = built(context, among, &[]);
        assert_eq!(parsed(&request.attributes)[TOKENS].as_str(), expected);
        assert_eq!(parsed(&request.secrets).get(TOKENS).is_some(), !among.is_empty());
    }
}

fn file(path: &str, mode: i32, contents: &str) -> File {
    File { path: path.to_owned(), mode, contents: contents.as_bytes().to_vec() }
}

fn version(id: &str, version: &str) -> provider::ObjectVersion {
    provider::ObjectVersion { id: id.to_owned(), version: version.to_owned() }
}

fn good(files: Vec<File>) -> MountResponse {
    MountResponse { object_version: vec![version("a", "1")], error: None, files }
}

fn interpreted(reply: MountResponse) -> Result<Payload, ProviderFault> {
    reply::interpret(reply, 8192, &Redactor::new(&BTreeMap::new(), &caller(&[], &[("pass", "hidden")])))
}

fn paths(payload: &Payload) -> Vec<(&str, u32)> {
    payload.files().iter().map(|file| (file.name.as_str(), file.mode.bits())).collect()
}

#[test]
fn a_reply_is_read_in_upstreams_order() {
    let coded = |code: &str, object_version| MountResponse {
        object_version,
        error: Some(provider::Error { code: code.to_owned() }),
        files: vec![file("f", 0, "x")],
    };
    let code = interpreted(coded("AuthenticationFailed", Vec::new())).unwrap_err();
    assert!(matches!(&code, ProviderFault::Code { code } if code == "AuthenticationFailed"), "{code}");
    assert!(matches!(interpreted(coded("", Vec::new())), Err(ProviderFault::NoVersions)));
    assert!(interpreted(coded("", vec![version("a", "1")])).is_ok());
    assert!(matches!(interpreted(MountResponse::default()), Err(ProviderFault::NoVersions)));
    assert!(matches!(interpreted(good(Vec::new())), Err(ProviderFault::NoFiles)));
    // The last of several wins.
    let mut reply = good(vec![file("f", 0o600, "old"), file("f", 0o640, "new")]);
    reply.object_version.push(version("a", "2"));
    let payload = interpreted(reply).unwrap();
    assert_eq!(paths(&payload), [("f", 0o640)]);
    assert_eq!(payload.versions(), [ObjectVersion { id: "a".into(), version: "2".into() }]);
}

#[test]
fn modes_are_permissions_only() {
    for (mode, expected) in
        [(0o666, 0o666), (0o444, 0o444), (0o644, 0o644), (0o777, 0o777), (0, 0o644), (0o104755, 0o755), (0o100000, 0)]
    {
        let payload = interpreted(good(vec![file("f", mode, "x")])).unwrap();
        assert_eq!(paths(&payload), [("f", expected)], "{mode:o}");
    }
    assert!(matches!(interpreted(good(vec![file("f", -1, "x")])), Err(ProviderFault::Mode { mode: -1, .. })));
}

#[test]
fn paths_are_those_that_upstream_takes() {
    let deep = "d/".repeat(15) + "f";
    for path in ["i/am/well/behaved.txt", "foo", "foo/bar", "foo\\bar", ".hidden", "a/..b", &"x".repeat(255), &deep] {
        assert!(interpreted(good(vec![file(path, 0, "x")])).is_ok(), "{path}");
    }
    let long = "abcdefghi/".repeat(409) + "abcdefg";
    let component = "x".repeat(256);
    for path in [
        &long,
        &component,
        "/dev/null",
        "..sneaky.txt",
        "hello/there/../../../../../../etc/passwd",
        "hello/../etc/x",
        "",
        "foo////bar",
        "./a",
        "a/",
        "..",
        // Upstream accepts these.
        ".",
        "a\0b",
        &format!("d/{deep}"),
    ] {
        let fault = interpreted(good(vec![file(path, 0, "x")])).unwrap_err();
        assert!(matches!(fault, ProviderFault::Path { .. }), "{path}: {fault}");
        assert_eq!(fault_reason(fault), Reason::ProviderReplyInvalid);
    }
    let both = interpreted(good(vec![file("a", 0, "x"), file("a/b", 0, "x")])).unwrap_err();
    assert!(both.to_string().contains("is a file and"), "{both}");
    let text = interpreted(good(vec![file("hidden", 0, "x"), file("hidden/b", 0, "x")])).unwrap_err().to_string();
    assert!(text.contains("is a file and") && !text.contains("hidden"), "{text}");
    let large = interpreted(good(vec![file("a", 0, "x"), file("b", 0, "x"), file("c", 0, "x")])).unwrap_err();
    assert!(large.to_string().contains("12288 bytes") && large.to_string().contains("8192"), "{large}");
    assert_eq!(fault_reason(large), Reason::TooLarge);
}

fn fault_reason(fault: ProviderFault) -> Reason {
    Error::Provider { class: class().reference, provider: "vault".to_owned(), fault }.reason()
}

#[test]
fn names_become_no_path() {
    for good in ["azure", "e2e-provider", "A_b-9", &"x".repeat(30)] {
        assert_eq!(ProviderName::new(good).unwrap().as_str(), good);
    }
    for bad in ["", "bad/provider/name", "..", "a.b", "a b", "ü", &"x".repeat(31)] {
        assert!(ProviderName::new(bad).is_none(), "{bad}");
    }
    let name = ProviderName::new("vault").unwrap();
    let searched = |additional: &str| name.sockets(&directories(additional, Path::new("/main")));
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(searched("/a,/b"), paths(&["/a/vault.sock", "/b/vault.sock", "/main/vault.sock"]));
    assert_eq!(searched(""), paths(&["/main/vault.sock"]));
    assert_eq!(searched("/main,,/main"), paths(&["/main/vault.sock"]));
}

fn failure(status: &Status) -> CallFailure {
    let (parameters, caller) = (BTreeMap::new(), caller(&[], &[]));
    let (name, redactor) = (ProviderName::new("vault").unwrap(), Redactor::new(&parameters, &caller));
    let deadline = Instant::now() + Duration::from_secs(1);
    MountCall { name: &name, directories: &[], largest_reply: 5, deadline, redactor: &redactor }.failure(status)
}

#[test]
fn a_size_limit_is_distinguished_from_other_refusals() {
    let too_large = |status: &Status| matches!(failure(status), CallFailure::ProviderFault(ProviderFault::TooLarge(5)));
    for (code, text, expected) in [
        (Code::Unknown, "plain", false),
        (Code::ResourceExhausted, "quota exceeded", false),
        (Code::ResourceExhausted, "grpc: received message larger than max on current machine", false),
        (Code::ResourceExhausted, "grpc: received message larger than max (6 vs. 5)", true),
        (Code::OutOfRange, "Error, decoded message length too large: found 6 bytes, the limit is: 5 bytes", true),
        (Code::OutOfRange, "no such range", false),
    ] {
        assert_eq!(too_large(&Status::new(code, text)), expected, "{text}");
    }
    assert!(ProviderFault::TooLarge(5).to_string().contains("--max-call-recv-msg-size"));
    assert!(is_transient(&Status::unavailable("x")) && !is_transient(&Status::unknown("x")));
}

#[test]
fn the_error_of_our_own_provider_is_passed_on() {
    let status = crate::server::grpc::failed(Reason::Forbidden, "class default/demo: vault kv refuses");
    let CallFailure::Ours(reason, text) = failure(&status) else { panic!("not ours") };
    let error = Error::Ours { reason, text };
    assert_eq!(
        (error.reason(), error.to_string().as_str()),
        (Reason::Forbidden, "class default/demo: vault kv refuses")
    );
}
