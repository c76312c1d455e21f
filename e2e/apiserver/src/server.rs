//! An etcd and the API servers on it.
//!
//! No controller runs. All processes exit with this one.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use keyvault_csi_e2e::driver::wait_for;
use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::account::{Account, User};
use crate::audit::{Call, call};
use crate::files::{client_of, kubeconfig, write_files};
use crate::processes::{self, run, running, tail};
use crate::resources::resource;

/// The timeout of a server's start; a busy machine needs most of it.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The port of the first server.
pub const PORT: u16 = 6443;

/// An etcd with its API servers.
pub struct Server {
    folder: PathBuf,
    assets: PathBuf,
    client: Client,
    runtime: Runtime,
}

impl Server {
    /// Starts etcd and a server on [`PORT`], and installs our CRDs.
    ///
    /// # Errors
    /// The programs do not exist, or are not ready in time.
    pub fn start(folder: &Path, accounts: &[Account]) -> Result<Server> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).context(
            "KUBEBUILDER_ASSETS is not set: run `make test`, which builds kube-apiserver and etcd once, or set it to a \
             directory that has them",
        )?;
        for program in ["etcd", "kube-apiserver"] {
            ensure!(assets.join(program).exists(), "{} has no {program}", assets.display());
        }
        fs::create_dir_all(folder)?;
        write_files(folder, accounts)?;
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
        fs::write(&admin, kubeconfig(folder, PORT, "admin")?)?;
        let client = client_of(&runtime, &admin)?;
        let server = Server { folder: folder.to_owned(), assets, client, runtime };
        server.serve(PORT)?;
        server.install()?;
        Ok(server)
    }

    /// A user with a kubeconfig for the server on this port.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn user(&self, name: &str, port: u16) -> Result<User> {
        let file = self.folder.join(format!("{name}-{port}.kubeconfig"));
        fs::write(&file, kubeconfig(&self.folder, port, name)?)?;
        Ok(User { name: name.to_owned(), kubeconfig: file, port })
    }

    /// Starts an API server on this port, and returns its process id. All servers share the etcd.
    pub fn serve(&self, port: u16) -> Result<u32> {
        self.serve_with(port, &[])
    }

    /// [`Server::serve`] with additional flags.
    pub fn serve_with(&self, port: u16, more: &[&str]) -> Result<u32> {
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
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--audit-policy-file={}", file("audit.yaml")),
            format!("--audit-log-path={}", file(&format!("audit-{port}.log"))),
            "--profiling=false".to_owned(),
        ];
        let log = self.folder.join(format!("apiserver-{port}.log"));
        let flags = flags.into_iter().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
        let id = run(&self.assets.join("kube-apiserver"), flags, &log)?;
        let admin = self.folder.join(format!("admin-{port}.kubeconfig"));
        fs::write(&admin, kubeconfig(&self.folder, port, "admin")?)?;
        let client = client_of(&self.runtime, &admin)?;
        let ready = wait_for("the API server is ready", START_TIMEOUT, || {
            if !running(id) {
                bail!("the API server exited");
            }
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(self.runtime.block_on(client.request_text(request)).is_ok())
        });
        ready.with_context(|| tail(&log))?;
        Ok(id)
    }

    /// Kills a server, as a crash does.
    pub fn kill(&self, id: u32) -> Result<()> {
        processes::kill(id)
    }

    /// Installs the CRDs of `manifests/crds`.
    fn install(&self) -> Result<()> {
        let definitions = ("CustomResourceDefinition", "customresourcedefinitions");
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds"))? {
            let definition: Value = serde_saphyr::from_str(&fs::read_to_string(entry?.path())?)?;
            self.create(definitions, None, definition)?;
        }
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(definitions));
        wait_for("the CRDs are established", START_TIMEOUT, || {
            let all = self.runtime.block_on(api.list(&ListParams::default()))?;
            let established = all.items.iter().filter(|definition| {
                let conditions = definition.data.pointer("/status/conditions").and_then(Value::as_array);
                conditions.is_some_and(|all| {
                    all.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True")
                })
            });
            Ok(established.count() == 2)
        })
    }

    /// Creates an object.
    pub fn create(&self, kind: (&str, &str), namespace: Option<&str>, object: Value) -> Result<DynamicObject> {
        let mut object = object;
        object["apiVersion"] = resource(kind).api_version.into();
        object["kind"] = kind.0.into();
        let object: DynamicObject = serde_json::from_value(object)?;
        Ok(self.runtime.block_on(self.api(kind, namespace).create(&PostParams::default(), &object))?)
    }

    /// A client for a kind, in one namespace or in all.
    pub fn api(&self, kind: (&str, &str), namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource(kind)),
            None => Api::all_with(self.client.clone(), &resource(kind)),
        }
    }

    /// The administrator's client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs a call of a client to completion.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The object with this name, if it exists.
    pub fn get(&self, kind: (&str, &str), namespace: &str, name: &str) -> Result<Option<DynamicObject>> {
        Ok(self.runtime.block_on(self.api(kind, Some(namespace)).get_opt(name))?)
    }

    /// All objects of a kind in a namespace.
    pub fn list(&self, kind: (&str, &str), namespace: &str) -> Result<Vec<DynamicObject>> {
        Ok(self.runtime.block_on(self.api(kind, Some(namespace)).list(&ListParams::default()))?.items)
    }

    /// The calls of a user to the server on [`PORT`] so far, in order. The log has our kinds, and
    /// those of Kubernetes that the driver uses.
    pub fn calls(&self, user: &User) -> Result<Vec<Call>> {
        // A watch is logged at its start, and every other call at its end.
        let counts = |line: &Value| {
            line["stage"] == if line["verb"] == "watch" { "RequestReceived" } else { "ResponseComplete" }
        };
        let lines = self.audited(user, PORT).into_iter().filter(counts);
        Ok(lines.map(|line| call(&line)).collect())
    }

    /// The calls that the server of the user's kubeconfig authorized, in order, also those that
    /// failed later.
    ///
    /// A watch counts from its start: an API server may log its response with the first event.
    pub fn allowed(&self, user: &User) -> Vec<Call> {
        let lines = self.audited(user, user.port);
        let refused = |line: &Value| matches!(call(line).code, 401 | 403);
        let refused: HashSet<&Value> = lines.iter().filter(|line| refused(line)).map(|line| &line["auditID"]).collect();
        let counts = |line: &&Value| {
            let stage = if line["verb"] == "watch" { "RequestReceived" } else { "ResponseComplete" };
            line["stage"] == stage && !refused.contains(&line["auditID"])
        };
        lines.iter().filter(counts).map(call).collect()
    }

    /// The lines of a user in a server's audit log.
    fn audited(&self, user: &User, port: u16) -> Vec<Value> {
        // The file does not exist before the first line.
        let log = fs::read_to_string(self.folder.join(format!("audit-{port}.log"))).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line.pointer("/user/username").is_some_and(|name| *name == user.name)).collect()
    }

    /// A client with a user's credentials.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub fn client_as(&self, user: &User) -> Result<Client> {
        client_of(&self.runtime, &user.kubeconfig)
    }

    /// The number of a user's calls with this verb to this resource.
    pub fn count(&self, user: &User, verb: &str, resource: &str) -> Result<usize> {
        let calls = self.calls(user)?;
        Ok(calls.iter().filter(|call| call.verb == verb && call.resource == resource).count())
    }
}
