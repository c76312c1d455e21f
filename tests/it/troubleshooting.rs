//! Causes each symptom of docs/troubleshooting.md, and checks the text of the pod's event.
//!
//! Rows about the driver's registration, sync to Kubernetes Secrets and the Arc agent are not
//! errors of a publish.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Access, Action, Fault, Issuer, Kind, Permission};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::json;

use crate::harness::{Node, Vault, harness};

trials! { "troubleshooting":
    each_symptom_is_reported_with_cause_and_fix,
    each_federation_error_is_reported_with_cause_and_fix,
}

const AUDIENCE: &str = "api://AzureADTokenExchange";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
const SUBJECT: &str = "system:serviceaccount:default:default";

/// A driver and a vault for the rows of the table.
struct Table {
    node: Node,
    vault: Vault,
}

impl Table {
    /// Publishes with changed parameters, and checks that the error has these words.
    fn row(&self, symptom: &str, changes: &[(&str, &str)], volume: &Volume, words: &[&str]) -> Result<()> {
        let mut parameters = self.vault.parameters(&["password"]);
        parameters.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.node.class("demo", &parameters)?;
        let status = self.node.refused_within(volume, Duration::from_secs(5))?;
        for word in words {
            ensure!(status.message().contains(word), "{symptom}: {word:?} is missing in: {status}");
        }
        Ok(())
    }

    fn object(&self, symptom: &str, object: &str, words: &[&str]) -> Result<()> {
        let objects = format!("array:\n  - |\n    {}\n", object.replace('\n', "\n    "));
        self.row(symptom, &[("objects", &objects)], &self.vault.volume("demo"), words)
    }

    /// Sets the vault's response to every request for a secret.
    fn respond(&self, status: u16, code: &str, inner: &str) {
        let body = json!({"error": {"code": code, "message": "m", "innererror": {"code": inner}}}).to_string();
        let action = Action::Body { status, content_type: "application/json".to_owned(), body };
        harness().azure().clear_faults(&self.vault.name);
        harness().azure().add_fault(Fault::new(action).host(&self.vault.name).kind(Kind::Get));
    }
}

fn each_symptom_is_reported_with_cause_and_fix() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    let azure = harness().azure();
    let table = Table { node, vault: vault.clone() };
    let pod = vault.volume("demo");
    let bare = Volume::of_class("default", "web", "demo");

    table.row(
        "nmi response failed",
        &[("usePodIdentity", "true")],
        &pod,
        &["retired", "use workload identity", "ClassInvalid"],
    )?;
    table.row(
        "nodePublishSecretRef",
        &[],
        &bare,
        &["no clientID", "kubectl create secret generic", "CredentialsMissing"],
    )?;
    let binding = [("useAzureTokenProxy", "true"), ("clientID", "00000000-0000-4000-9000-00000000bbbb")];
    let (audience, url) = ("api://AKSIdentityBinding", format!("https://binding.{}/", vault.tenant));
    let token = harness().azure().add_issuer(&url).token(SUBJECT, audience, Duration::from_secs(3600), json!({}));
    harness().secrets.lock().unwrap().push(token.clone());
    let mut with_tokens = bare.clone();
    with_tokens.attributes.insert(TOKENS.to_owned(), json!({ audience: {"token": token} }).to_string());
    table.row("proxy transport", &binding, &with_tokens, &["token proxy", "--sni-name", "IdentityUnavailable"])?;
    table.row(
        "tokens for the binding",
        &binding,
        &bare,
        &["tokens not found", "api://AKSIdentityBinding", "tokenRequests"],
    )?;
    service_principal(&table)?;
    vault_responses(&table)?;
    objects(&table)?;
    // A vault of another cloud than the class's is not in that cloud's domain.
    table.row(
        "wrong cloud",
        &[("cloudName", "AzureChinaCloud")],
        &pod,
        &["vault.azure.cn", "check keyvaultName and cloudName"],
    )?;
    table.row(
        "provider not found",
        &[("keyvaultName", "no-such-vault")],
        &pod,
        &["DNS", "private DNS zone", "VaultNotFound"],
    )?;
    azure.set_access(&vault.name, Access::Rbac);
    azure.revoke_grant(&vault.name, &vault.client_id, &[Permission::Get]);
    table.row("no role", &[], &pod, &["Forbidden", &vault.client_id, "Key Vault Secrets User"])?;
    azure.expire_client_secret(&vault.tenant, &vault.client_id);
    azure.expire_tokens(&vault.client_id);
    // Another driver, which has no token of it yet.
    let table = Table { node: harness().node()?, vault };
    table.row("AADSTS7000222", &[], &pod, &["AADSTS7000222", "has expired; create a new one", "CredentialsRejected"])
}

fn service_principal(table: &Table) -> Result<()> {
    let vault = &table.vault;
    let mut wrong = vault.clone();
    wrong.client_secret = harness().secret("wrong");
    table.row(
        "AADSTS7000215",
        &[],
        &wrong.volume("demo"),
        &["AADSTS7000215", "secret's value, not its id", "CredentialsRejected"],
    )?;
    wrong.client_id = "99999999-0000-4000-9000-000000000000".to_owned();
    table.row(
        "AADSTS700016",
        &[],
        &wrong.volume("demo"),
        &["AADSTS700016", "check clientid and tenantID", "CredentialsRejected"],
    )?;
    table.row(
        "AADSTS90002",
        &[("tenantID", "no-such.example")],
        &vault.volume("demo"),
        &["AADSTS90002", "check tenantID and cloudName", "TenantNotFound"],
    )
}

fn vault_responses(table: &Table) -> Result<()> {
    let (azure, vault) = (harness().azure(), &table.vault);
    let pod = vault.volume("demo");
    for (status, code, inner, words) in [
        (
            403,
            "Forbidden",
            "ForbiddenByPolicy",
            &["add an access policy", "to list them for objectVersionHistory", "Forbidden"][..],
        ),
        (403, "Forbidden", "ForbiddenByRbac", &["Key Vault Secrets User", "Forbidden"]),
        (403, "Forbidden", "ForbiddenByConnection", &["network rules", "private endpoint", "Forbidden"]),
        (403, "Forbidden", "SecretDisabled", &["enable it", "ObjectDisabled"]),
        (429, "Throttled", "", &["too many requests", "rotationPollInterval", "Throttled"]),
    ] {
        table.respond(status, code, inner);
        table.row(inner, &[], &pod, words)?;
    }
    azure.clear_faults(&vault.name);
    azure.add_fault(Fault::new(Action::Hang).host(&vault.name).kind(Kind::Get));
    table.row("context deadline exceeded", &[], &pod, &["no answer from", &vault.host(), "firewall", "Timeout"])?;
    azure.clear_faults(&vault.name);
    Ok(())
}

fn objects(table: &Table) -> Result<()> {
    for (kind, code) in [("secret", "SecretNotFound"), ("key", "KeyNotFound"), ("cert", "CertificateNotFound")] {
        let object = format!("objectName: missing\nobjectType: {kind}");
        table.object(code, &object, &[code, "check the object's type, name and version", "ObjectNotFound"])?;
    }
    table.object(
        "illegal base64 data",
        "objectName: password\nobjectType: secret\nobjectEncoding: base64",
        &["secret/password", "not base64", "ObjectInvalid"],
    )?;
    table.object(
        "file mode 0",
        "objectName: password\nobjectType: secret\nfilePermission: 384",
        &["filePermission", "quote", "ClassInvalid"],
    )
}

fn each_federation_error_is_reported_with_cause_and_fix() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    let azure = harness().azure();
    let client = format!("{}e", &vault.client_id[..vault.client_id.len() - 1]);
    let urls = ["known", "unknown"].map(|name| format!("https://{name}.{}/", vault.tenant));
    let [known, unknown]: [Issuer; 2] = urls.clone().map(|url| azure.add_issuer(&url));
    azure.add_application(&vault.tenant, &client);
    let table = Table { node, vault: vault.clone() };
    let class = [("clientID", client.as_str())];
    let pod = |issuer: &Issuer, audience: &str, lifetime: Duration| {
        let token = issuer.token(SUBJECT, audience, lifetime, json!({}));
        harness().secrets.lock().unwrap().push(token.clone());
        let mut volume = Volume::of_class("default", "web", "demo");
        volume.attributes.insert(TOKENS.to_owned(), json!({AUDIENCE: {"token": token}}).to_string());
        volume
    };
    let hour = Duration::from_secs(3600);
    table.row(
        "none",
        &class,
        &pod(&known, AUDIENCE, hour),
        &["AADSTS70025", "no federated credential at all", "CredentialsRejected"],
    )?;
    let other = "system:serviceaccount:default:another";
    azure.add_federated_credential(&vault.tenant, &client, &urls[0], other, AUDIENCE);
    for (issuer, audience, words) in [
        (&unknown, AUDIENCE, ["AADSTS700211", "OIDC issuer URL"]),
        (&known, "api://other", ["AADSTS700212", "set it to api://AzureADTokenExchange"]),
        (&known, AUDIENCE, ["AADSTS700213", "set its subject to system:serviceaccount:"]),
    ] {
        table.row(words[0], &class, &pod(issuer, audience, hour), &[words[0], words[1], "CredentialsRejected"])?;
    }
    let bare = Volume::of_class("default", "web", "demo");
    table.row(
        "no tokens",
        &class,
        &bare,
        &["service account tokens not found", "tokenRequests", AUDIENCE, "CredentialsMissing"],
    )?;
    let mut others = bare.clone();
    others.attributes.insert(TOKENS.to_owned(), json!({"other": {"token": "x"}}).to_string());
    table.row(
        "no audience",
        &class,
        &others,
        &["token for audience", AUDIENCE, "tokenRequests", "CredentialsMissing"],
    )?;
    let nothing: BTreeMap<String, String> = BTreeMap::new();
    ensure!(bare.secrets == nothing, "the pod has a service principal");
    azure.counters(&vault.tenant).get(Kind::Token).checked_sub(4).context("four requests at least").map(|_| ())
}
