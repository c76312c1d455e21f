//! The fixture of each test: a namespace, and a vault in the emulator that all tests share.
//!
//! The emulator verifies the cluster's tokens with the keys that its API server publishes. Tests do
//! not clean up: the cluster is deleted after them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Azure, Emulator, Jwk, Options, Permission};
use serde_json::Value;

use crate::kubectl::{apply, get, kubectl, text, wait_for};
use crate::{environment, name_server};

static EMULATOR: OnceLock<Emulator> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) const AUDIENCE: &str = "api://AzureADTokenExchange";
/// The public half of an RSA key.
const KEY: (&str, &str) = ("wJ0GkH9m0qFQp0z5s0v3oX2sQYw", "AQAB");

/// Starts the emulator and the name server.
pub(crate) fn start() -> Result<()> {
    let emulator = Emulator::start(Options {
        listen: (environment::azure()?, 443).into(),
        admin: None,
        dns_names: Vec::new(),
        imds: environment::imds()?.map(|address| (address, 80).into()),
        base_latency: Duration::ZERO,
    })?;
    name_server::serve(environment::name_server()?, environment::azure()?)?;
    emulator.azure().set_issuer_keys(&issuer()?, &kubectl(&["get", "--raw", "/openid/v1/jwks"])?);
    ensure!(EMULATOR.set(emulator).is_ok(), "started twice");
    Ok(())
}

/// Waits for the default service account of a new namespace, without which pods are refused.
pub(crate) fn wait_for_service_account(namespace: &str) -> Result<()> {
    wait_for("the default service account", || Ok(get(namespace, "serviceaccount", "default")?.is_some()))
}

/// The issuer of the API server's tokens.
pub(crate) fn issuer() -> Result<String> {
    let document: Value = serde_json::from_str(&kubectl(&["get", "--raw", "/.well-known/openid-configuration"])?)?;
    text(&document, "/issuer")
}

pub(crate) fn azure() -> Azure {
    EMULATOR.get().map(Emulator::azure).unwrap_or_else(|| panic!("main starts the emulator"))
}

pub(crate) fn ca_pem() -> &'static str {
    EMULATOR.get().map(Emulator::ca_pem).unwrap_or_else(|| panic!("main starts the emulator"))
}

/// A namespace, a tenant, a vault, and an application with access to it.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) namespace: String,
    pub(crate) vault: String,
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

impl Fixture {
    /// A new fixture; the application has a client secret.
    pub(crate) fn new(about: &str) -> Result<Fixture> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let fixture = Fixture {
            // With the process id, since the cluster can have namespaces of another run.
            namespace: format!("{about}-{}-{number:02}", std::process::id()),
            vault: format!("e2e-{number:02}"),
            tenant: format!("tenant-{number:02}.example"),
            client_id: format!("00000000-0000-4000-9000-{number:012}"),
            client_secret: format!("client-secret-{number:02}"),
        };
        let azure = azure();
        azure.add_tenant(&fixture.tenant);
        azure.add_client(&fixture.tenant, &fixture.client_id, &fixture.client_secret);
        azure.add_vault(&fixture.vault, "vault.azure.net", &fixture.tenant);
        azure.grant(&fixture.vault, &fixture.client_id, &[Permission::Get]);
        kubectl(&["create", "namespace", &fixture.namespace])?;
        wait_for_service_account(&fixture.namespace)?;
        Ok(fixture)
    }

    /// Sets a secret, and returns its value.
    pub(crate) fn set(&self, name: &str) -> String {
        let value = format!("value of {name} in {}", self.vault);
        azure().set_secret(&self.vault, name, &value);
        value
    }

    /// Sets a secret to another value, and returns it.
    pub(crate) fn change(&self, name: &str) -> String {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let value = format!("value {number} of {name} in {}", self.vault);
        azure().set_secret(&self.vault, name, &value);
        value
    }

    /// Grants the application the permission to list.
    pub(crate) fn grant_list(&self) {
        azure().grant(&self.vault, &self.client_id, &[Permission::List]);
    }

    /// Revokes the application's permission to read the vault.
    pub(crate) fn revoke_get(&self) {
        azure().revoke_grant(&self.vault, &self.client_id, &[Permission::Get]);
    }

    /// Grants the application the permission to read the vault.
    pub(crate) fn grant_get(&self) {
        azure().grant(&self.vault, &self.client_id, &[Permission::Get]);
    }

    /// Sets a key.
    pub(crate) fn set_key(&self, name: &str) {
        azure().set_key(&self.vault, name, Jwk::rsa(KEY.0, KEY.1));
    }

    /// Creates the Secret with the application's credentials by the user's script.
    pub(crate) fn credentials(&self) -> Result<()> {
        let script = include_str!("user_manifests/003-credentials.sh");
        let filled = self.fill(script).replace("<client-secret>", &self.client_secret);
        for line in filled.lines() {
            let words: Vec<String> = line.split(' ').map(|word| word.replace('"', "")).collect();
            let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
            ensure!(arguments.first() == Some(&"kubectl"), "not a kubectl command: {line}");
            arguments.extend(["--namespace", &self.namespace]);
            kubectl(&arguments[1..])?;
        }
        Ok(())
    }

    /// Applies a manifest in the namespace, with the placeholders of the users' manifests filled
    /// in.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        apply(&self.namespace, &self.fill(manifest))
    }

    fn fill(&self, text: &str) -> String {
        let account = "workload-identity-sa";
        [
            ("<key-vault-name>", self.vault.as_str()),
            ("${KEYVAULT_NAME}", &self.vault),
            ("<tenant-Id>", &self.tenant),
            ("<tenant-id>", &self.tenant),
            ("${IDENTITY_TENANT}", &self.tenant),
            ("<client-id>", &self.client_id),
            ("${USER_ASSIGNED_CLIENT_ID}", &self.client_id),
            ("${SERVICE_ACCOUNT_NAME}", account),
            ("${SERVICE_ACCOUNT_NAMESPACE}", &self.namespace),
        ]
        .into_iter()
        .fold(text.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
    }

    /// Creates a class with these secrets.
    pub(crate) fn class(&self, name: &str, secrets: &[&str]) -> Result<()> {
        self.apply(&self.class_of("v1", name, secrets))
    }

    /// The manifest of a class with these secrets, in this version of the API.
    pub(crate) fn class_of(&self, version: &str, name: &str, secrets: &[&str]) -> String {
        let entries = secrets
            .iter()
            .map(|secret| format!("        - |\n          objectName: {secret}\n          objectType: secret\n"));
        format!(
            "apiVersion: secrets-store.csi.x-k8s.io/{version}
kind: SecretProviderClass
metadata: {{name: {name}}}
spec:
  provider: azure
  parameters:
    keyvaultName: {}
    tenantId: {}
    objects: |
      array:
{}",
            self.vault,
            self.tenant,
            entries.collect::<String>()
        )
    }

    /// Creates a pod that mounts classes below /mnt, each under its name, and runs a shell script.
    pub(crate) fn pod(&self, name: &str, classes: &[&str], script: &str) -> Result<()> {
        self.pod_with(name, classes, script, &Value::Null)
    }

    /// [`Fixture::pod`] with a security context.
    pub(crate) fn pod_with(&self, name: &str, classes: &[&str], script: &str, security: &Value) -> Result<()> {
        let volume = |class: &&str| {
            serde_json::json!({"name": class, "csi": {
                "driver": "secrets-store.csi.k8s.io",
                "readOnly": true,
                "volumeAttributes": {"secretProviderClass": class},
                "nodePublishSecretRef": {"name": "secrets-store-creds"},
            }})
        };
        let mount =
            |class: &&str| serde_json::json!({"name": class, "mountPath": format!("/mnt/{class}"), "readOnly": true});
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "restartPolicy": "Never",
            "securityContext": security,
            "terminationGracePeriodSeconds": 1,
            "volumes": classes.iter().map(volume).collect::<Vec<_>>(),
            "containers": [{
                "name": "main",
                "image": "registry.k8s.io/e2e-test-images/busybox:1.29-4",
                "command": ["sh", "-c", script],
                "volumeMounts": classes.iter().map(mount).collect::<Vec<_>>(),
            }],
        }});
        self.apply(&pod.to_string())
    }

    /// The UID of a pod.
    pub(crate) fn uid(&self, pod: &str) -> Result<String> {
        let pod = get(&self.namespace, "pod", pod)?.context("no pod")?;
        text(&pod, "/metadata/uid")
    }
}
