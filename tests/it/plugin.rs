//! Our provider behind upstream's driver: the result of a Mount with each identity, and its error
//! when it fails.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Kind, Permission};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use keyvault_csi_e2e::provider::{ProviderProcess, UpstreamDriver};
use keyvault_csi_proto::provider::{MountRequest, MountResponse, ObjectVersion};
use serde_json::json;
use tonic::{Code, Status};

use crate::harness::{Vault, harness};

trials! { "plugin":
    a_mount_returns_files_and_versions_in_the_order_of_the_class,
    a_service_account_logs_in_with_tokens_in_attributes_or_secrets,
    the_nodes_own_identity_needs_no_secrets,
    concurrent_mounts_share_requests,
    a_fetch_outlives_the_call_that_started_it,
    every_failure_has_the_code_unknown_and_a_fix,
    a_hanging_vault_is_reported_within_the_drivers_deadline,
    malformed_requests_are_refused_without_their_values,
    a_response_too_large_for_drivers_is_not_sent,
}

/// What remains of the kubelet's two minutes when a driver calls its provider.
const DEADLINE: Duration = Duration::from_secs(115);
const AUDIENCE: &str = "api://AzureADTokenExchange";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// A provider with a driver, and a vault.
pub(crate) struct Fixture {
    pub(crate) provider: ProviderProcess,
    pub(crate) driver: UpstreamDriver,
    pub(crate) vault: Vault,
}

impl Fixture {
    pub(crate) fn new(flags: &[&str]) -> Result<Fixture> {
        let mut setup = harness().provider_setup();
        setup.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let provider = setup.start()?;
        let driver = UpstreamDriver::connect(&provider.setup().socket())?;
        Ok(Fixture { provider, driver, vault: harness().vault() })
    }

    /// Returns the driver's request for a pod with the service principal and a class with these
    /// objects.
    pub(crate) fn request(&self, objects: &str) -> MountRequest {
        UpstreamDriver::request(&self.vault.parameters_of(objects), &self.vault.volume("demo"))
    }

    /// Sends a request, and keeps its error for the search for leaks.
    pub(crate) fn mount(&self, request: &MountRequest) -> Result<MountResponse, Status> {
        self.driver.mount(request, DEADLINE).inspect_err(|status| harness().remember(&format!("{status:?}")))
    }

    fn refused(&self, request: &MountRequest) -> Result<Status> {
        self.mount(request).err().context("the mount succeeded")
    }
}

/// Returns the parameter `objects` for these objects: type, name, and more fields, separated by
/// `;`.
pub(crate) fn objects(objects: &[(&str, &str, &str)]) -> String {
    objects.iter().fold("array:\n".to_owned(), |text, (kind, name, more)| {
        let more: String = more.split_terminator(';').map(|line| format!("    {line}\n")).collect();
        format!("{text}  - |\n    objectName: {name}\n    objectType: {kind}\n{more}")
    })
}

/// Returns mode and content of each file by path.
fn files(response: &MountResponse) -> BTreeMap<&str, (i32, &str)> {
    response
        .files
        .iter()
        .map(|file| (file.path.as_str(), (file.mode, std::str::from_utf8(&file.contents).unwrap_or("not UTF-8"))))
        .collect()
}

fn a_mount_returns_files_and_versions_in_the_order_of_the_class() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let (second, first) = (fixture.vault.set("b-second"), fixture.vault.set("a-first"));
    let older = fixture.vault.set("history");
    let newer = fixture.vault.set("history");
    let mut request = fixture.request(&objects(&[
        ("secret", "b-second", "objectAlias: deep/B;filePermission: 0400"),
        ("secret", "a-first", ""),
        ("secret", "history", "objectVersionHistory: 2"),
    ]));
    // A driver before 1.6 sends the versions in the volume; it gets all files all the same.
    request.current_object_version = vec![ObjectVersion { id: "secret/a-first".to_owned(), version: "x".to_owned() }];
    let response = fixture.mount(&request)?;
    ensure!(response.error.is_none());
    let files = files(&response);
    assert_eq!(files.len(), 4);
    assert_eq!(files["deep/B"], (0o400, second.as_str()));
    assert_eq!(files["a-first"], (0o644, first.as_str()));
    let mut history = [files["history/0"].1, files["history/1"].1];
    let mut wanted = [older.as_str(), newer.as_str()];
    // The order of versions of the same second is undefined.
    history.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(history, wanted);
    let ids: Vec<&str> = response.object_version.iter().map(|version| version.id.as_str()).collect();
    assert_eq!(ids, ["secret/b-second", "secret/a-first", "secret/history/0", "secret/history/1"]);
    ensure!(response.object_version.iter().all(|version| version.version.len() == 32), "{:?}", response.object_version);
    // The driver's `permission` is the mode of files without one of their own.
    request.permission = "288".to_owned();
    assert_eq!(self::files(&fixture.mount(&request)?)["a-first"].0, 0o440);
    Ok(())
}

fn a_service_account_logs_in_with_tokens_in_attributes_or_secrets() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let (vault, value) = (&fixture.vault, fixture.vault.set("password"));
    let issuer_url = format!("https://issuer.{}/", vault.tenant);
    let issuer = harness().azure().add_issuer(&issuer_url);
    let (client, subject) = ("eeeeeeee-0000-4000-8000-000000000001", "system:serviceaccount:default:default");
    harness().azure().add_federated_credential(&vault.tenant, client, &issuer_url, subject, AUDIENCE);
    harness().azure().grant(&vault.name, client, &[Permission::Get]);
    let token = issuer.token(subject, AUDIENCE, Duration::from_secs(3600), json!({}));
    harness().secrets.lock().unwrap().push(token.clone());
    let tokens = json!({AUDIENCE: {"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"}}).to_string();
    let mut parameters = vault.parameters(&["password"]);
    parameters.insert("clientID".to_owned(), client.to_owned());
    // Before Kubernetes 1.35 the kubelet sends tokens in the volume context, since then among the
    // secrets.
    let (mut before, mut since) =
        (Volume::of_class("default", "web", "demo"), Volume::of_class("default", "web", "demo"));
    before.attributes.insert(TOKENS.to_owned(), tokens.clone());
    since.secrets.insert(TOKENS.to_owned(), tokens);
    for volume in [&before, &since] {
        let request = UpstreamDriver::request(&parameters, volume);
        ensure!(request.attributes.contains(TOKENS) && (request.secrets == "null") == volume.secrets.is_empty());
        assert_eq!(files(&fixture.mount(&request)?)["password"].1, value);
    }
    assert_eq!(vault.entra().get(Kind::Token), 1, "one identity");
    let bare = UpstreamDriver::request(&parameters, &Volume::of_class("default", "web", "demo"));
    check(&fixture.refused(&bare)?, "CredentialsMissing", &["tokenRequests", AUDIENCE])?;
    // A token of another service account in the volume context is refused.
    before.service_account = "other".to_owned();
    let stolen = fixture.refused(&UpstreamDriver::request(&parameters, &before))?;
    ensure!(stolen.code() == Code::Unknown && !stolen.message().contains(&token), "{stolen}");
    Ok(())
}

fn the_nodes_own_identity_needs_no_secrets() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let value = fixture.vault.set("password");
    // A user-assigned identity, since all tests share the system-assigned one.
    let client = "cccccccc-0000-4000-8000-000000000077";
    harness().azure().add_managed_identity(&fixture.vault.tenant, client);
    harness().azure().grant(&fixture.vault.name, client, &[Permission::Get]);
    let mut parameters = fixture.vault.parameters(&["password"]);
    parameters.insert("useVMManagedIdentity".to_owned(), "true".to_owned());
    parameters.insert("userAssignedIdentityID".to_owned(), client.to_owned());
    let request = UpstreamDriver::request(&parameters, &Volume::of_class("default", "web", "demo"));
    assert_eq!(request.secrets, "null");
    assert_eq!(files(&fixture.mount(&request)?)["password"].1, value);
    Ok(())
}

fn concurrent_mounts_share_requests() -> Result<()> {
    let fixture = Fixture::new(&["--freshness-window=10s"])?;
    let names: Vec<String> = (0..10).map(|number| format!("object-{number}")).collect();
    for name in &names {
        fixture.vault.set(name);
    }
    let list: Vec<_> = names.iter().map(|name| ("secret", name.as_str(), "")).collect();
    let slow = Fault::new(Action::latency(Duration::from_millis(200))).host(&fixture.vault.name).kind(Kind::Get);
    harness().azure().add_fault(slow);
    let text = objects(&list);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(|| fixture.mount(&fixture.request(&text)))).collect();
        for call in calls {
            let response = call.join().map_err(|_| anyhow::anyhow!("the call panicked"))??;
            ensure!(response.files.len() == 10, "{} files", response.files.len());
        }
        Ok(())
    })?;
    assert_eq!((fixture.vault.counters().get(Kind::Challenge), fixture.vault.counters().get(Kind::Get)), (1, 10));
    assert_eq!(fixture.vault.entra().get(Kind::Token), 1);
    Ok(())
}

/// When a driver cancels its call, as at its deadline, the fetch continues, and the next call gets
/// its result.
fn a_fetch_outlives_the_call_that_started_it() -> Result<()> {
    let fixture = Fixture::new(&["--freshness-window=60s"])?;
    fixture.vault.set("password");
    let slow = Fault::new(Action::latency(Duration::from_secs(1))).host(&fixture.vault.name).kind(Kind::Get);
    harness().azure().add_fault(slow);
    let request = fixture.request(&objects(&[("secret", "password", "")]));
    fixture.driver.mount_and_cancel(&request, Duration::from_millis(500));
    wait_for("the fetch finishes", Duration::from_secs(10), || Ok(fixture.provider.log().contains("objects fetched")))?;
    harness().azure().reset_counters(&fixture.vault.name);
    fixture.mount(&request)?;
    assert_eq!(fixture.vault.counters().total(), 0, "the object was fetched again");
    Ok(())
}

/// What each error of upstream's provider begins with
/// (docs/reference/azure-provider.md#mount-answer).
const OPENING: &str = "failed to mount objects, error: ";

/// The Reason in a status's metadata, and the message without the opening and the Reason.
fn reason(status: &Status) -> Option<(&str, &str)> {
    let reason = status.metadata().get("keyvault-csi-reason")?.to_str().ok()?;
    let text = status.message().strip_prefix(OPENING)?.strip_suffix(&format!(" ({reason})"))?;
    Some((reason, text))
}

fn check(status: &Status, wanted: &str, words: &[&str]) -> Result<()> {
    ensure!(status.code() == Code::Unknown, "{status}");
    ensure!(status.message().starts_with(OPENING), "{status}");
    ensure!(status.message().ends_with(&format!(" ({wanted})")), "{wanted} is not at the end of: {status}");
    let (read, text) = reason(status).context("no reason in the metadata")?;
    ensure!(read == wanted && !text.ends_with(&format!("({wanted})")) && !text.starts_with("failed"), "{read}: {text}");
    for word in words {
        ensure!(text.contains(word), "{word:?} is missing in: {text}");
    }
    Ok(())
}

fn every_failure_has_the_code_unknown_and_a_fix() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let vault = &fixture.vault;
    vault.set("password");
    let good = objects(&[("secret", "password", "")]);
    let class = "SecretProviderClass default/demo";
    let missing = fixture.request(&objects(&[("secret", "password", ""), ("secret", "missing", "")]));
    check(&fixture.refused(&missing)?, "ObjectNotFound", &[class, "secret/missing"])?;
    let wrong = fixture.request("- objectName: password");
    check(&fixture.refused(&wrong)?, "ClassInvalid", &[class, "objects", "array"])?;
    check(&fixture.refused(&fixture.request("array:\n"))?, "ClassInvalid", &[class, "lists no object"])?;
    let bare = UpstreamDriver::request(&vault.parameters_of(&good), &Volume::of_class("default", "web", "demo"));
    check(&fixture.refused(&bare)?, "CredentialsMissing", &[class, "nodePublishSecretRef"])?;
    let mut stranger = vault.clone();
    stranger.client_secret = harness().secret("wrong");
    let stranger = UpstreamDriver::request(&vault.parameters_of(&good), &stranger.volume("demo"));
    check(&fixture.refused(&stranger)?, "CredentialsRejected", &[class, "AADSTS7000215"])?;
    let forbidding = Fault::new(Action::status(403)).host(&vault.name).kind(Kind::Get);
    harness().azure().add_fault(forbidding);
    check(&fixture.refused(&fixture.request(&good))?, "Forbidden", &[class])?;
    harness().azure().clear_faults(&vault.name);
    fixture.mount(&fixture.request(&good))?;
    let log = fixture.provider.log();
    for word in ["mount failed", "reason=\"Forbidden\"", "pod=\"default/web\"", "objects fetched"] {
        ensure!(log.contains(word), "{word:?} is missing in:\n{log}");
    }
    Ok(())
}

fn a_hanging_vault_is_reported_within_the_drivers_deadline() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    fixture.vault.set("password");
    let hang = Fault::new(Action::latency(Duration::from_secs(60))).host(&fixture.vault.name).kind(Kind::Get);
    harness().azure().add_fault(hang);
    let request = fixture.request(&objects(&[("secret", "password", "")]));
    let status = fixture.driver.mount(&request, Duration::from_secs(3)).err().context("the mount succeeded")?;
    harness().azure().clear_faults(&fixture.vault.name);
    check(&status, "Timeout", &["SecretProviderClass default/demo", &fixture.vault.name])
}

fn malformed_requests_are_refused_without_their_values() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let good = fixture.request(&objects(&[("secret", "password", "")]));
    let hidden = harness().secret("unreadable");
    type Spoil = fn(&mut MountRequest, &str);
    let cases: [(Spoil, &str); 8] = [
        (|request, _| *request = MountRequest::default(), "attributes is not a JSON object of strings"),
        (|request, hidden| request.attributes = format!("{{\"a\": [\"{hidden}\"]}}"), "attributes is not"),
        (|request, hidden| request.attributes = format!("{{\"a\": \"{hidden}"), "attributes is not"),
        (|request, _| request.secrets.clear(), "secrets is not a JSON object of strings or null"),
        (|request, hidden| request.secrets = format!("{{\"{hidden}\": 5}}"), "secrets is not"),
        (|request, hidden| request.secrets = format!("\"{hidden}\""), "secrets is not"),
        (|request, hidden| request.permission = hidden.to_owned(), "permission is not a decimal number"),
        (|request, _| request.attributes = "{}".to_owned(), "csi.storage.k8s.io/pod.name is missing"),
    ];
    for (spoil, word) in cases {
        let mut request = good.clone();
        spoil(&mut request, &hidden);
        check(&fixture.refused(&request)?, "InvalidRequest", &[word])?;
    }
    assert_eq!(fixture.vault.counters().total() + fixture.vault.entra().total(), 0, "Azure got a request");
    Ok(())
}

/// Files of three pages each: within the limit of a volume, but above that of a response with names
/// and versions.
fn a_response_too_large_for_drivers_is_not_sent() -> Result<()> {
    let fixture = Fixture::new(&["--freshness-window=60s"])?;
    let secret = harness().secret("large");
    harness().azure().set_secret(&fixture.vault.name, "large", &format!("{secret:x<12288}"));
    let aliases: Vec<String> = (0..341).map(|number| format!("objectAlias: file-{number}")).collect();
    let request = |count: usize| {
        let list: Vec<_> = aliases[..count].iter().map(|alias| ("secret", "large", alias.as_str())).collect();
        fixture.request(&objects(&list))
    };
    assert_eq!(fixture.mount(&request(335))?.files.len(), 335);
    let words =
        ["SecretProviderClass default/demo", "drivers accept 4194304", "spread the objects over several classes"];
    check(&fixture.refused(&request(341))?, "TooLarge", &words)
}
