use std::collections::BTreeSet;
use std::time::Duration;

use keyvault_csi_proto::csi::volume_capability::{AccessType, BlockVolume, MountVolume};
use keyvault_csi_proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use tokio::time::Instant;
use tonic::Code;

use super::request::{InvalidRequest, publish, unpublish};
use super::status::code;
use crate::model::Reason;
use crate::node::volume::Group;
use crate::server::grpc::parse_timeout;

fn capability(group: &str) -> Option<VolumeCapability> {
    let mount = MountVolume { volume_mount_group: group.to_owned(), ..MountVolume::default() };
    Some(VolumeCapability { access_mode: None, access_type: Some(AccessType::Mount(mount)) })
}

fn good() -> NodePublishVolumeRequest {
    let context = [
        ("secretProviderClass", "demo"),
        ("csi.storage.k8s.io/pod.name", "web"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", "1-2-3"),
    ];
    NodePublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v/mount".to_owned(),
        volume_capability: capability(""),
        readonly: true,
        volume_context: context.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..NodePublishVolumeRequest::default()
    }
}

/// The order of upstream's checks (docs/reference/csi-driver.md#publish-checks): an empty request
/// fails the first, and each repair uncovers the next.
#[test]
fn requests_are_checked_in_upstreams_order() {
    let mut request = NodePublishVolumeRequest::default();
    let refused = |request: &NodePublishVolumeRequest| publish(request.clone(), Instant::now()).unwrap_err();
    assert_eq!(refused(&request), InvalidRequest::CapabilityMissing);
    request.volume_capability = capability("");
    assert_eq!(refused(&request), InvalidRequest::VolumeIdMissing);
    request.volume_id = good().volume_id;
    assert_eq!(refused(&request), InvalidRequest::TargetPathMissing);
    request.target_path = good().target_path;
    assert_eq!(refused(&request), InvalidRequest::ContextMissing);
    request.volume_context = [("secretProviderClass".to_owned(), "demo".to_owned())].into();
    assert_eq!(refused(&request), InvalidRequest::PodInfoMissing("csi.storage.k8s.io/pod.name"));
    request.volume_context = good().volume_context;
    let accepted = publish(request, Instant::now()).unwrap();
    assert!(!accepted.read_only);
    assert_eq!(accepted.caller.pod.to_string(), "shop/web");
    assert_eq!(accepted.class.unwrap().to_string(), "shop/demo");
}

#[test]
fn a_mount_group_is_a_number() {
    let with = |group: &str| {
        publish(NodePublishVolumeRequest { volume_capability: capability(group), ..good() }, Instant::now())
            .map(|request| request.group)
    };
    assert_eq!(with("").unwrap(), None);
    assert_eq!(with("2000").unwrap(), Some(Group(2000)));
    for bad in ["staff", "-1", "+5", "4294967295", "4294967296", " 1"] {
        assert_eq!(with(bad).unwrap_err(), InvalidRequest::Group, "{bad}");
    }
    let block = AccessType::Block(BlockVolume {});
    let block = Some(VolumeCapability { access_mode: None, access_type: Some(block) });
    let refused = publish(NodePublishVolumeRequest { volume_capability: block, ..good() }, Instant::now());
    assert_eq!(refused.unwrap_err(), InvalidRequest::Block);
}

#[test]
fn an_unpublish_needs_id_and_path() {
    let request = |id: &str, path: &str| {
        unpublish(&NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path: path.to_owned() })
    };
    assert_eq!(request("", "").unwrap_err(), InvalidRequest::VolumeIdMissing);
    assert_eq!(request("1", "").unwrap_err(), InvalidRequest::TargetPathMissing);
    assert!(matches!(request("1", "a/b").unwrap_err(), InvalidRequest::TargetPath(_)));
    assert_eq!(request("1", "/a/b").unwrap().to_string(), "/a/b");
}

#[test]
fn a_checked_request_prints_no_secret() {
    let mut request = good();
    request.secrets.insert("clientsecret".to_owned(), "hunter2".to_owned());
    request.volume_context.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), "hunter3".to_owned());
    let text = format!("{:?}", publish(request, Instant::now()).unwrap());
    assert!(text.contains("shop") && !text.contains("hunter"), "{text}");
}

/// docs/decisions.md#d8: these codes mean other things to a kubelet than an error of ours
/// (docs/reference/kubelet.md#error-codes).
#[test]
fn no_reason_has_a_code_that_misleads_the_kubelet() {
    let codes: BTreeSet<i32> = Reason::ALL.iter().map(|reason| code(*reason) as i32).collect();
    let allowed = [Code::InvalidArgument, Code::Internal, Code::Aborted, Code::Unknown];
    assert_eq!(codes, allowed.map(|code| code as i32).into());
    let aborted: Vec<_> = Reason::ALL.iter().filter(|reason| code(**reason) == Code::Aborted).collect();
    assert_eq!(aborted, [&Reason::Busy]);
}

#[test]
fn grpc_timeouts_are_read_in_every_unit() {
    // Kubelets send the first two units (docs/reference/kubelet.md#deadlines).
    for (header, expected) in [
        ("119996m", Some(Duration::from_millis(119_996))),
        ("999982u", Some(Duration::from_micros(999_982))),
        ("2H", Some(Duration::from_secs(7200))),
        ("3M", Some(Duration::from_secs(180))),
        ("4S", Some(Duration::from_secs(4))),
        ("5n", Some(Duration::from_nanos(5))),
        ("", None),
        ("S", None),
        ("123456789S", None),
        ("-1S", None),
        ("1é", None),
        ("10", None),
    ] {
        assert_eq!(parse_timeout(header), expected, "{header}");
    }
}
