//! A real kube-apiserver with its etcd, started once for all tests that ask for it; each test has a namespace.
//!
//! The programs come from KUBEBUILDER_ASSETS, the convention of the ecosystem; `make test` sets it. Every driver has a
//! user of its own, so that the audit log tells its requests from everybody else's.

mod files;
mod processes;
mod rights;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use keyvault_csi_e2e::driver::{Setup, wait_for};
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(crate) use self::processes::stop;
pub(crate) use self::rights::shipped;

use self::files::{client_of, kubeconfig, user_name, write_files};
use self::processes::{run, running, tail};
use crate::lab::{Node, Vault, lab};

/// How long a server may take to be ready; a busy machine needs most of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Users for drivers; tokens must be known before the server starts.
const USERS: usize = 300;

static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
/// The cluster, as far as there is one: an API server, and nobody who acts on it.
pub(crate) struct Cluster {
    folder: PathBuf,
    assets: PathBuf,
    client: Client,
    runtime: Runtime,
    next: AtomicUsize,
}

/// What a driver may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Everything that upstream's ClusterRole secretproviderclasses-role grants.
    All,
    /// Nothing.
    None,
    /// Classes one by one, and nothing else.
    GetOnly,
    /// What the shipped manifests grant with syncSecret.enabled.
    Sync,
    /// What the shipped manifests grant with enableSecretRotation.
    Rotation,
    /// The same without the rights on Secrets.
    AllButSecrets,
}

/// A user with a kubeconfig.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) kubeconfig: PathBuf,
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) verb: String,
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) code: u64,
}

/// Waits until a driver watches classes.
pub(crate) fn watching(node: &Node) -> Result<()> {
    wait_for("the driver watches", PATIENCE, || Ok(node.log().contains("\"watching secretproviderclasses\"")))
}

/// The cluster; started at the first call.
pub(crate) fn cluster() -> Result<&'static Cluster> {
    let cluster = CLUSTER.get_or_init(|| Cluster::start().map_err(|error| format!("{error:#}")));
    cluster.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

pub(crate) const CLASSES: (&str, &str) = ("SecretProviderClass", "secretproviderclasses");
pub(crate) const STATUSES: (&str, &str) = ("SecretProviderClassPodStatus", "secretproviderclasspodstatuses");

pub(crate) fn resource(kind: (&str, &str)) -> ApiResource {
    let (group, version) = match kind.0 {
        "Namespace" | "Event" | "Node" | "Pod" | "Secret" => ("", "v1"),
        "ReplicaSet" | "StatefulSet" => ("apps", "v1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
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

impl Cluster {
    fn start() -> Result<Cluster> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).context(
            "KUBEBUILDER_ASSETS is not set: run `make test`, which builds kube-apiserver and etcd once, or set it to a \
             directory that has them",
        )?;
        for program in ["etcd", "kube-apiserver"] {
            ensure!(assets.join(program).exists(), "{} has no {program}", assets.display());
        }
        let folder = lab().folder.path().join("cluster");
        fs::create_dir_all(&folder)?;
        write_files(&folder)?;
        let etcd = [
            "--name=it",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
        ];
        let etcd = etcd.map(str::to_owned).into_iter().chain([
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--initial-cluster=it=http://127.0.0.1:2380".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--data-dir={}", folder.join("etcd").display()),
        ]);
        run(&assets.join("etcd"), etcd.collect(), &folder.join("etcd.log"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let admin = folder.join("admin.kubeconfig");
        fs::write(&admin, kubeconfig(&folder, 6443, "admin")?)?;
        let client = client_of(&runtime, &admin)?;
        let cluster = Cluster { folder, assets, client, runtime, next: AtomicUsize::new(0) };
        cluster.serve(6443)?;
        cluster.install()?;
        Ok(cluster)
    }

    /// Starts an API server on this port; all of them share the etcd. Returns its process id.
    pub(crate) fn serve(&self, port: u16) -> Result<u32> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let flags = [
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--audit-policy-file={}", file("audit.yaml")),
            format!("--audit-log-path={}", file(&format!("audit-{port}.log"))),
            "--profiling=false".to_owned(),
        ];
        let log = self.folder.join(format!("apiserver-{port}.log"));
        let id = run(&self.assets.join("kube-apiserver"), flags.to_vec(), &log)?;
        let admin = self.folder.join(format!("admin-{port}.kubeconfig"));
        fs::write(&admin, kubeconfig(&self.folder, port, "admin")?)?;
        let client = client_of(&self.runtime, &admin)?;
        let ready = wait_for("the API server is ready", PATIENCE, || {
            if !running(id) {
                bail!("the API server ended");
            }
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(self.runtime.block_on(client.request_text(request)).is_ok())
        });
        ready.with_context(|| tail(&log))?;
        Ok(id)
    }

    /// Ends a server at once, as a crash would.
    pub(crate) fn kill(&self, id: u32) -> Result<()> {
        processes::kill(id)
    }

    /// Installs the CRDs of `manifests/crds`, and the rights of drivers.
    fn install(&self) -> Result<()> {
        let definitions = ("CustomResourceDefinition", "customresourcedefinitions");
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds"))? {
            let definition: Value = serde_saphyr::from_str(&fs::read_to_string(entry?.path())?)?;
            self.create(definitions, None, definition)?;
        }
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(definitions));
        wait_for("the CRDs are established", PATIENCE, || {
            let all = self.runtime.block_on(api.list(&ListParams::default()))?;
            let established = all.items.iter().filter(|definition| {
                let conditions = definition.data.pointer("/status/conditions").and_then(Value::as_array);
                conditions
                    .is_some_and(|all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True"))
            });
            Ok(established.count() == 2)
        })?;
        rights::grant(self)
    }

    /// Grants a user more, under a name of its own.
    pub(crate) fn allow(&self, user: &User, about: &str, rules: Value) -> Result<()> {
        let metadata = json!({ "name": format!("{}-{about}", user.name) });
        self.create(("ClusterRole", "clusterroles"), None, json!({ "metadata": metadata, "rules": rules }))?;
        let binding = json!({
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": metadata["name"] },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.name }],
        });
        self.create(("ClusterRoleBinding", "clusterrolebindings"), None, binding)?;
        Ok(())
    }

    /// A user that nobody else is.
    pub(crate) fn user(&self, rights: Rights) -> Result<User> {
        self.user_at(rights, 6443)
    }

    /// A user whose kubeconfig leads to this port.
    pub(crate) fn user_at(&self, rights: Rights, port: u16) -> Result<User> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        ensure!(number < USERS, "raise USERS");
        let name = user_name(rights, number);
        let file = self.folder.join(format!("{name}-{port}.kubeconfig"));
        fs::write(&file, kubeconfig(&self.folder, port, &name)?)?;
        Ok(User { name, kubeconfig: file })
    }

    /// A namespace that nobody else has.
    pub(crate) fn namespace(&self) -> Result<String> {
        let name = format!("ns-{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.create(("Namespace", "namespaces"), None, json!({ "metadata": { "name": name } }))?;
        Ok(name)
    }

    /// A driver that takes its classes from this cluster.
    pub(crate) fn setup(&self, user: &User) -> Setup {
        let mut setup = lab().setup();
        setup.kubeconfig = Some(user.kubeconfig.clone());
        setup
    }

    /// A driver with all rights, and its user.
    pub(crate) fn node(&self) -> Result<(Node, User)> {
        let user = self.user(Rights::All)?;
        Ok((Node::start(self.setup(&user))?, user))
    }

    /// Creates an object.
    pub(crate) fn create(&self, kind: (&str, &str), namespace: Option<&str>, object: Value) -> Result<DynamicObject> {
        let mut object = object;
        object["apiVersion"] = resource(kind).api_version.into();
        object["kind"] = kind.0.into();
        let object: DynamicObject = serde_json::from_value(object)?;
        Ok(self.runtime.block_on(self.api(kind, namespace).create(&PostParams::default(), &object))?)
    }

    /// Creates a class that mounts these secrets of a vault.
    pub(crate) fn class(&self, namespace: &str, name: &str, vault: &Vault, secrets: &[&str]) -> Result<()> {
        let spec = json!({ "provider": "azure", "parameters": vault.parameters(secrets) });
        self.create(CLASSES, Some(namespace), json!({ "metadata": { "name": name }, "spec": spec }))?;
        Ok(())
    }

    pub(crate) fn api(&self, kind: (&str, &str), namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource(kind)),
            None => Api::all_with(self.client.clone(), &resource(kind)),
        }
    }

    /// The administrator's client.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The object of this name, if there is one.
    pub(crate) fn get(&self, kind: (&str, &str), namespace: &str, name: &str) -> Result<Option<DynamicObject>> {
        Ok(self.runtime.block_on(self.api(kind, Some(namespace)).get_opt(name))?)
    }

    /// All objects of a kind in a namespace.
    pub(crate) fn list(&self, kind: (&str, &str), namespace: &str) -> Result<Vec<DynamicObject>> {
        Ok(self.runtime.block_on(self.api(kind, Some(namespace)).list(&ListParams::default()))?.items)
    }

    /// What a user asked of the main server so far, in order. Only our kinds and events are in the log.
    pub(crate) fn calls(&self, user: &User) -> Result<Vec<Call>> {
        // It appears with its first line.
        let log = fs::read_to_string(self.folder.join("audit-6443.log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |line: &Value, path: &str| line.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        // A watch is told of at its beginning, every other call at its end.
        let counts = |line: &Value| {
            line["stage"] == if line["verb"] == "watch" { "RequestReceived" } else { "ResponseComplete" }
        };
        let mine = lines.filter(|line| text(line, "/user/username") == user.name && counts(line));
        Ok(mine
            .map(|line| Call {
                verb: text(&line, "/verb"),
                resource: text(&line, "/objectRef/resource"),
                namespace: text(&line, "/objectRef/namespace"),
                code: line.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
            })
            .collect())
    }

    /// How often a user made calls of this verb about this kind of thing.
    pub(crate) fn count(&self, user: &User, verb: &str, resource: &str) -> Result<usize> {
        let calls = self.calls(user)?;
        Ok(calls.iter().filter(|call| call.verb == verb && call.resource == resource).count())
    }

    /// Writes an object past the API server, as no server would take it.
    pub(crate) fn write_past(&self, namespace: &str, name: &str, object: &Value) -> Result<()> {
        let key = format!("/registry/secrets-store.csi.x-k8s.io/secretproviderclasses/{namespace}/{name}");
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let body = json!({ "key": encode(key.as_bytes()), "value": encode(object.to_string().as_bytes()) }).to_string();
        let answer = post("127.0.0.1:2379", "/v3/kv/put", &body)?;
        ensure!(answer.contains(" 200 "), "etcd answers: {answer}");
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
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
