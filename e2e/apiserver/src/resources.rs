//! The kinds of objects that the tests use.

use kube::core::ApiResource;

/// SecretProviderClass: kind and plural.
pub const CLASSES: (&str, &str) = ("SecretProviderClass", "secretproviderclasses");
/// SecretProviderClassPodStatus: kind and plural.
pub const STATUSES: (&str, &str) = ("SecretProviderClassPodStatus", "secretproviderclasspodstatuses");

/// The API resource of a kind and plural.
pub fn resource(kind: (&str, &str)) -> ApiResource {
    let (group, version) = match kind.0 {
        "Namespace" | "ConfigMap" | "Event" | "Node" | "Pod" | "Secret" => ("", "v1"),
        "ReplicaSet" | "StatefulSet" => ("apps", "v1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        "SelfSubjectAccessReview" => ("authorization.k8s.io", "v1"),
        "ClusterRole" | "ClusterRoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        _ => ("secrets-store.csi.x-k8s.io", "v1"),
    };
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.0.to_owned(),
        plural: kind.1.to_owned(),
    }
}
