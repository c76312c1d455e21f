//! Group, version and plural of each kind that we read or write.

use kube::core::ApiResource;

/// The API group that we share with upstream.
pub(super) const GROUP: &str = "secrets-store.csi.x-k8s.io";

pub(super) fn classes() -> ApiResource {
    shared("SecretProviderClass", "secretproviderclasses")
}

pub(super) fn pod_statuses() -> ApiResource {
    shared("SecretProviderClassPodStatus", "secretproviderclasspodstatuses")
}

pub(super) fn pods() -> ApiResource {
    core("Pod", "pods")
}

pub(super) fn nodes() -> ApiResource {
    core("Node", "nodes")
}

pub(super) fn events() -> ApiResource {
    core("Event", "events")
}

fn shared(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{GROUP}/v1"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn core(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}
