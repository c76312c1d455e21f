//! A real kube-apiserver with etcd: started once, for the first test that needs it;
//! each test has a namespace.
//!
//! The programs come from KUBEBUILDER_ASSETS, as in kubebuilder's envtest; `make test` sets it.
//! Each driver has a user of its own, so that the audit log separates the requests of the drivers.

mod empty;
mod rights;

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
pub(crate) use empty::{EmptyServer, empty_server};
use keyvault_csi_apiserver::{Account, PORT, Server};
pub(crate) use keyvault_csi_apiserver::{CLASSES, STATUSES, User, resource, stop};
use keyvault_csi_e2e::driver::{DriverSetup, wait_for};
use kube::Api;
use kube::api::PostParams;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::harness::{Node, Vault, harness};

/// How long the server may take to be ready; on a busy machine it needs most of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Users for drivers. The server reads their tokens when it starts.
const USERS: usize = 500;

static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();

/// An API server without controllers, scheduler and kubelets.
pub(crate) struct Cluster {
    server: Server,
    next: AtomicUsize,
}

impl Deref for Cluster {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// The RBAC rights of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// The rights that the shipped manifests grant by default.
    All,
    None,
    /// Only `get` on classes.
    GetOnly,
    /// The rights with syncSecret.enabled.
    Sync,
    /// The rights with enableSecretRotation.
    Rotation,
    /// Those of `Sync` without the rights on Secrets.
    AllButSecrets,
}

impl Rights {
    const EACH: [Rights; 6] =
        [Rights::All, Rights::None, Rights::GetOnly, Rights::Sync, Rights::Rotation, Rights::AllButSecrets];

    /// The group of the users with these rights.
    fn group(self) -> &'static str {
        match self {
            Rights::All => "all",
            Rights::None => "none",
            Rights::GetOnly => "get-only",
            Rights::AllButSecrets => "all-but-secrets",
            Rights::Sync => "sync",
            Rights::Rotation => "rotation",
        }
    }

    fn user(self, number: usize) -> String {
        format!("{}-{number:02}", self.group())
    }
}

/// Waits until the driver watches classes.
pub(crate) fn wait_for_watch(node: &Node) -> Result<()> {
    wait_for("the driver watches", PATIENCE, || Ok(node.log().contains("\"watching secretproviderclasses\"")))
}

/// The cluster; started at the first call.
pub(crate) fn cluster() -> Result<&'static Cluster> {
    let cluster = CLUSTER.get_or_init(|| Cluster::start().map_err(|error| format!("{error:#}")));
    cluster.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

impl Cluster {
    fn start() -> Result<Cluster> {
        let accounts = Rights::EACH.iter().flat_map(|rights| {
            (0..USERS).map(|number| Account { name: rights.user(number), group: rights.group().to_owned() })
        });
        let server = Server::start(&harness().folder.path().join("cluster"), &accounts.collect::<Vec<_>>())?;
        let cluster = Cluster { server, next: AtomicUsize::new(0) };
        rights::grant(&cluster)?;
        Ok(cluster)
    }

    /// Grants a user more rights, by a ClusterRole of its own; returns when they are effective.
    pub(crate) fn allow(&self, user: &User, label: &str, rules: Value) -> Result<()> {
        let metadata = json!({ "name": format!("{}-{label}", user.name) });
        let last = rules.as_array().and_then(|rules| rules.last().cloned());
        self.create(("ClusterRole", "clusterroles"), None, json!({ "metadata": metadata, "rules": rules }))?;
        let binding = json!({
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": metadata["name"] },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.name }],
        });
        self.create(("ClusterRoleBinding", "clusterrolebindings"), None, binding)?;
        last.map_or(Ok(()), |rule| self.wait_until_granted(user, &rule))
    }

    /// Waits until the user's API server grants a rule: each server learns of roles by watches.
    fn wait_until_granted(&self, user: &User, rule: &Value) -> Result<()> {
        let first =
            |key: &str| rule.pointer(&format!("/{key}/0")).and_then(Value::as_str).unwrap_or_default().to_owned();
        let resources = first("resources");
        let (name, subresource) = resources.split_once('/').unwrap_or((&resources, ""));
        let review: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": { "resourceAttributes": {
                "group": first("apiGroups"), "resource": name, "subresource": subresource,
                "name": first("resourceNames"), "verb": first("verbs"),
            } },
        }))?;
        let kind = resource(("SelfSubjectAccessReview", "selfsubjectaccessreviews"));
        let reviews: Api<DynamicObject> = Api::all_with(self.server.client_as(user)?, &kind);
        wait_for("the rights are effective", PATIENCE, || {
            let reviewed = self.server.block_on(reviews.create(&PostParams::default(), &review))?;
            Ok(reviewed.data.pointer("/status/allowed") == Some(&Value::Bool(true)))
        })
    }

    /// A user that no other driver has.
    pub(crate) fn user(&self, rights: Rights) -> Result<User> {
        self.user_at(rights, PORT)
    }

    /// The same, with a kubeconfig for this port.
    pub(crate) fn user_at(&self, rights: Rights, port: u16) -> Result<User> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        ensure!(number < USERS, "raise USERS");
        self.server.user(&rights.user(number), port)
    }

    /// A namespace that no other test has.
    pub(crate) fn namespace(&self) -> Result<String> {
        let name = format!("ns-{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.create(("Namespace", "namespaces"), None, json!({ "metadata": { "name": name } }))?;
        Ok(name)
    }

    /// A driver that watches this cluster.
    pub(crate) fn setup(&self, user: &User) -> DriverSetup {
        let mut setup = harness().setup();
        setup.kubeconfig = Some(user.kubeconfig.clone());
        setup
    }

    /// A running driver with all rights, and its user.
    pub(crate) fn node(&self) -> Result<(Node, User)> {
        let user = self.user(Rights::All)?;
        Ok((Node::start(self.setup(&user))?, user))
    }

    /// Creates a class that mounts these secrets of a vault.
    pub(crate) fn class(&self, namespace: &str, name: &str, vault: &Vault, secrets: &[&str]) -> Result<()> {
        let spec = json!({ "provider": "azure", "parameters": vault.parameters(secrets) });
        self.create(CLASSES, Some(namespace), json!({ "metadata": { "name": name }, "spec": spec }))?;
        Ok(())
    }

    /// Writes an object into etcd that the API server would refuse.
    pub(crate) fn write_to_etcd(&self, namespace: &str, name: &str, object: &Value) -> Result<()> {
        let key = format!("/registry/secrets-store.csi.x-k8s.io/secretproviderclasses/{namespace}/{name}");
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let body = json!({ "key": encode(key.as_bytes()), "value": encode(object.to_string().as_bytes()) }).to_string();
        let response = post("127.0.0.1:2379", "/v3/kv/put", &body)?;
        ensure!(response.contains(" 200 "), "etcd answers: {response}");
        Ok(())
    }
}

fn post(address: &str, path: &str, body: &str) -> Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}
