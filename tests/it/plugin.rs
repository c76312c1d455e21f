//! Our provider under upstream's driver: what a Mount brings, by each identity, and what a driver is told when it fails.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Kind, Permission};
use keyvault_csi::grpc::reason;
use keyvault_csi::model::Reason;
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use keyvault_csi_e2e::provider::{ProviderProcess, UpstreamDriver};
use keyvault_csi_proto::provider::{MountRequest, MountResponse, ObjectVersion};
use serde_json::json;
use tonic::{Code, Status};

use crate::harness::{Vault, harness};

trials! { "plugin":
    a_mount_brings_files_and_versions_in_the_order_of_the_class,
    a_service_account_logs_in_wherever_its_tokens_stand,
    the_nodes_own_identity_needs_no_secrets,
    mounts_at_once_share_their_requests,
    a_fetch_outlives_the_driver_that_asked_for_it,
    every_failure_is_unknown_and_says_what_to_do,
    a_vault_that_hangs_is_told_within_the_drivers_deadline,
    requests_that_no_driver_sends_are_refused_without_their_values,
    an_answer_that_drivers_would_refuse_is_not_sent,
}

/// What a driver has left of the kubelet's two minutes.
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

    /// What the driver sends for a pod with the service principal, for a class with these objects.
    pub(crate) fn request(&self, objects: &str) -> MountRequest {
        UpstreamDriver::request(&self.vault.parameters_of(objects), &self.vault.volume("demo"))
    }

    /// Sends it; what comes back as an error is remembered.
    pub(crate) fn mount(&self, request: &MountRequest) -> Result<MountResponse, Status> {
        self.driver.mount(request, DEADLINE).inspect_err(|status| harness().remember(&format!("{status:?}")))
    }

    fn refused(&self, request: &MountRequest) -> Result<Status> {
        self.mount(request).err().context("the mount succeeded")
    }
}

/// The `objects` text of these, given as `type name more`.
pub(crate) fn objects(objects: &[(&str, &str, &str)]) -> String {
    objects.iter().fold("array:\n".to_owned(), |text, (kind, name, more)| {
        let more: String = more.split_terminator(';').map(|line| format!("    {line}\n")).collect();
        format!("{text}  - |\n    objectName: {name}\n    objectType: {kind}\n{more}")
    })
}

/// Path, mode and content of each file, sorted by path.
fn files(answer: &MountResponse) -> BTreeMap<&str, (i32, &str)> {
    answer
        .files
        .iter()
        .map(|file| (file.path.as_str(), (file.mode, std::str::from_utf8(&file.contents).unwrap_or("not UTF-8"))))
        .collect()
}

fn a_mount_brings_files_and_versions_in_the_order_of_the_class() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let (second, first) = (fixture.vault.set("b-second"), fixture.vault.set("a-first"));
    let older = fixture.vault.set("history");
    let newer = fixture.vault.set("history");
    let mut request = fixture.request(&objects(&[
        ("secret", "b-second", "objectAlias: deep/B;filePermission: 0400"),
        ("secret", "a-first", ""),
        ("secret", "history", "objectVersionHistory: 2"),
    ]));
    // A driver before 1.6 says what the volume holds; it is given everything all the same.
    request.current_object_version = vec![ObjectVersion { id: "secret/a-first".to_owned(), version: "x".to_owned() }];
    let answer = fixture.mount(&request)?;
    ensure!(answer.error.is_none());
    let files = files(&answer);
    assert_eq!(files.len(), 4);
    assert_eq!(files["deep/B"], (0o400, second.as_str()));
    assert_eq!(files["a-first"], (0o644, first.as_str()));
    let mut history = [files["history/0"].1, files["history/1"].1];
    let mut wanted = [older.as_str(), newer.as_str()];
    // Versions of one second have no order of their own.
    history.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(history, wanted);
    let ids: Vec<&str> = answer.object_version.iter().map(|version| version.id.as_str()).collect();
    assert_eq!(ids, ["secret/b-second", "secret/a-first", "secret/history/0", "secret/history/1"]);
    ensure!(answer.object_version.iter().all(|version| version.version.len() == 32), "{:?}", answer.object_version);
    // What the driver says is the mode of files that have none of their own.
    request.permission = "288".to_owned();
    assert_eq!(self::files(&fixture.mount(&request)?)["a-first"].0, 0o440);
    Ok(())
}

fn a_service_account_logs_in_wherever_its_tokens_stand() -> Result<()> {
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
    // Before Kubernetes 1.35 the kubelet sends them in the volume context, since then among the secrets.
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
    check(&fixture.refused(&bare)?, Reason::CredentialsMissing, &["tokenRequests", AUDIENCE])?;
    // A pod's author who writes another's token into the volume context gets nothing.
    before.service_account = "other".to_owned();
    let stolen = fixture.refused(&UpstreamDriver::request(&parameters, &before))?;
    ensure!(stolen.code() == Code::Unknown && !stolen.message().contains(&token), "{stolen}");
    Ok(())
}

fn the_nodes_own_identity_needs_no_secrets() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let value = fixture.vault.set("password");
    // Not the system's: that is one for all tests.
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

fn mounts_at_once_share_their_requests() -> Result<()> {
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
            let answer = call.join().map_err(|_| anyhow::anyhow!("the call panicked"))??;
            ensure!(answer.files.len() == 10, "{} files", answer.files.len());
        }
        Ok(())
    })?;
    assert_eq!((fixture.vault.counters().get(Kind::Challenge), fixture.vault.counters().get(Kind::Get)), (1, 10));
    assert_eq!(fixture.vault.entra().get(Kind::Token), 1);
    Ok(())
}

/// A driver that goes away, as at its own deadline, leaves what others wait for, and the next call finds it.
fn a_fetch_outlives_the_driver_that_asked_for_it() -> Result<()> {
    let fixture = Fixture::new(&["--freshness-window=60s"])?;
    fixture.vault.set("password");
    let slow = Fault::new(Action::latency(Duration::from_secs(1))).host(&fixture.vault.name).kind(Kind::Get);
    harness().azure().add_fault(slow);
    let request = fixture.request(&objects(&[("secret", "password", "")]));
    fixture.driver.mount_and_cancel(&request, Duration::from_millis(500));
    wait_for("the fetch ends", Duration::from_secs(10), || Ok(fixture.provider.log().contains("objects fetched")))?;
    harness().azure().reset_counters(&fixture.vault.name);
    fixture.mount(&request)?;
    assert_eq!(fixture.vault.counters().total(), 0, "it was fetched again");
    Ok(())
}

fn check(status: &Status, wanted: Reason, words: &[&str]) -> Result<()> {
    ensure!(status.code() == Code::Unknown, "{status}");
    ensure!(status.message().starts_with("failed to mount objects, error: "), "{status}");
    ensure!(status.message().ends_with(&format!(" ({wanted})")), "{wanted} is not at the end of: {status}");
    let (read, text) = reason(status).context("no reason in the metadata")?;
    ensure!(read == wanted && !text.ends_with(&format!("({wanted})")) && !text.starts_with("failed"), "{read}: {text}");
    for word in words {
        ensure!(text.contains(word), "{word:?} is missing in: {text}");
    }
    Ok(())
}

fn every_failure_is_unknown_and_says_what_to_do() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let vault = &fixture.vault;
    vault.set("password");
    let good = objects(&[("secret", "password", "")]);
    let class = "SecretProviderClass default/demo";
    let missing = fixture.request(&objects(&[("secret", "password", ""), ("secret", "missing", "")]));
    check(&fixture.refused(&missing)?, Reason::ObjectNotFound, &[class, "secret/missing"])?;
    let wrong = fixture.request("- objectName: password");
    check(&fixture.refused(&wrong)?, Reason::ClassInvalid, &[class, "objects", "array"])?;
    check(&fixture.refused(&fixture.request("array:\n"))?, Reason::ClassInvalid, &[class, "lists no object"])?;
    let bare = UpstreamDriver::request(&vault.parameters_of(&good), &Volume::of_class("default", "web", "demo"));
    check(&fixture.refused(&bare)?, Reason::CredentialsMissing, &[class, "nodePublishSecretRef"])?;
    let mut stranger = vault.clone();
    stranger.client_secret = harness().secret("wrong");
    let stranger = UpstreamDriver::request(&vault.parameters_of(&good), &stranger.volume("demo"));
    check(&fixture.refused(&stranger)?, Reason::CredentialsRejected, &[class, "AADSTS7000215"])?;
    let forbidding = Fault::new(Action::status(403)).host(&vault.name).kind(Kind::Get);
    harness().azure().add_fault(forbidding);
    check(&fixture.refused(&fixture.request(&good))?, Reason::Forbidden, &[class])?;
    harness().azure().clear_faults(&vault.name);
    fixture.mount(&fixture.request(&good))?;
    let log = fixture.provider.log();
    for word in ["mount failed", "reason=\"Forbidden\"", "pod=\"default/web\"", "objects fetched"] {
        ensure!(log.contains(word), "{word:?} is missing in:\n{log}");
    }
    Ok(())
}

fn a_vault_that_hangs_is_told_within_the_drivers_deadline() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    fixture.vault.set("password");
    let hang = Fault::new(Action::latency(Duration::from_secs(60))).host(&fixture.vault.name).kind(Kind::Get);
    harness().azure().add_fault(hang);
    let request = fixture.request(&objects(&[("secret", "password", "")]));
    let status = fixture.driver.mount(&request, Duration::from_secs(3)).err().context("the mount succeeded")?;
    harness().azure().clear_faults(&fixture.vault.name);
    check(&status, Reason::Timeout, &["SecretProviderClass default/demo", &fixture.vault.name])
}

fn requests_that_no_driver_sends_are_refused_without_their_values() -> Result<()> {
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
        check(&fixture.refused(&request)?, Reason::InvalidRequest, &[word])?;
    }
    assert_eq!(fixture.vault.counters().total() + fixture.vault.entra().total(), 0, "nothing was asked of Azure");
    Ok(())
}

/// Files of three pages each: below the limit of a volume, and beyond that of an answer with names and versions.
fn an_answer_that_drivers_would_refuse_is_not_sent() -> Result<()> {
    let fixture = Fixture::new(&["--freshness-window=60s"])?;
    let secret = harness().secret("large");
    harness().azure().set_secret(&fixture.vault.name, "large", &format!("{secret:x<12288}"));
    let aliases: Vec<String> = (0..341).map(|number| format!("objectAlias: file-{number}")).collect();
    let request = |count: usize| {
        let list: Vec<_> = aliases[..count].iter().map(|alias| ("secret", "large", alias.as_str())).collect();
        fixture.request(&objects(&list))
    };
    assert_eq!(fixture.mount(&request(335))?.files.len(), 335);
    let words = ["SecretProviderClass default/demo", "drivers take 4194304", "spread the objects over several classes"];
    check(&fixture.refused(&request(341))?, Reason::TooLarge, &words)
}
