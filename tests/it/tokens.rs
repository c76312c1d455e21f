//! Forged tokens in a tenant's volume attributes never give a pod another pod's cached objects.
//!
//! A tenant writes `volumeAttributes`. Where the CSIDriver object has no `podInfoOnMount` or no
//! `tokenRequests`, the kubelet does not overwrite keys of `csi.storage.k8s.io` there, so these
//! tests send forged contexts.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use azure_emulator::{Issuer, Kind, Permission};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::{DEADLINE, Volume};
use keyvault_csi_e2e::provider::UpstreamDriver;
use keyvault_csi_proto::csi::NodePublishVolumeRequest;
use serde_json::json;
use tonic::{Code, Status};

use crate::apiserver::cluster;
use crate::external_fixture;
use crate::harness::{Node, Vault, harness, mounts_on};
use crate::plugin;
use crate::rotation::{metric, rotating};

trials! { "tokens":
    a_token_that_is_not_the_pods_own_reaches_no_cache,
    an_expired_token_misses_the_cache_and_entra_id_judges_it,
    a_token_of_another_audience_misses_the_cache,
    a_context_with_another_pods_uid_is_refused,
    an_external_provider_gets_its_tokens_unchecked,
    a_mounted_volume_keeps_its_files_after_a_call_with_bad_tokens,
    a_call_with_a_bad_token_drops_the_good_one,
    a_call_with_another_pods_uid_changes_nothing_of_a_mounted_volume,
    behind_another_driver_foreign_tokens_are_refused,
    a_pod_named_by_a_forged_context_gets_no_event,
}

const WORKLOAD: &str = "api://AzureADTokenExchange";
const BINDING: &str = "api://AKSIdentityBinding";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
const UID: &str = "csi.storage.k8s.io/pod.uid";
const SUBJECT: &str = "system:serviceaccount:default:default";
const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(60);

/// A vault that the service account `default/default` may read, and the issuer of its tokens.
struct Victim {
    vault: Vault,
    issuer: Issuer,
    client: String,
    value: String,
}

impl Victim {
    fn new() -> Victim {
        let vault = harness().vault();
        let value = vault.set("password");
        let url = format!("https://issuer.{}/", vault.tenant);
        let issuer = harness().azure().add_issuer(&url);
        let client = format!("{}f", &vault.client_id[..vault.client_id.len() - 1]);
        harness().azure().add_federated_credential(&vault.tenant, &client, &url, SUBJECT, WORKLOAD);
        harness().azure().grant(&vault.name, &client, &[Permission::Get]);
        Victim { vault, issuer, client, value }
    }

    /// Writes the victim's class `demo`.
    fn class(&self, node: &Node) -> Result<()> {
        let mut parameters = self.vault.parameters(&["password"]);
        parameters.insert("clientID".to_owned(), self.client.clone());
        node.class("demo", &parameters)
    }

    fn token(&self, subject: &str, audience: &str, lifetime: Duration) -> String {
        let token = self.issuer.token(subject, audience, lifetime, json!({}));
        harness().secrets.lock().unwrap().push(token.clone());
        token
    }

    /// Returns a pod of the victim's service account, with its token.
    fn pod(&self) -> Volume {
        with_token(&Volume::of_class("default", "web", "demo"), &self.token(SUBJECT, WORKLOAD, HOUR))
    }

    /// Returns the numbers of requests to Entra ID and to the vault so far.
    fn requests(&self) -> [u64; 2] {
        [self.vault.entra().get(Kind::Token), self.vault.counters().total()]
    }
}

/// Starts a driver that caches everything that the victim's pod got.
fn caching() -> Result<Node> {
    let mut setup = harness().setup();
    setup.flags = ["-v=10", "--freshness-window=10m"].map(str::to_owned).into();
    Node::start(setup)
}

fn tokens(token: &str) -> String {
    json!({ WORKLOAD: {"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"} }).to_string()
}

fn with_token(volume: &Volume, token: &str) -> Volume {
    let mut volume = volume.clone();
    volume.attributes.insert(TOKENS.to_owned(), tokens(token));
    volume
}

/// Returns a JWT with these claims and without a valid signature.
fn unsigned(claims: &str) -> String {
    format!("{}.{}.{}", BASE64.encode(r#"{"alg":"RS256"}"#), BASE64.encode(claims), BASE64.encode("signature"))
}

/// Sends a publish with a forged context, after the kubelet has made the directories.
fn send(node: &Node, volume: &Volume, forge: impl FnOnce(&mut HashMap<String, String>)) -> Result<Result<(), Status>> {
    node.kubelet.prepare(volume)?;
    let mut request: NodePublishVolumeRequest = node.kubelet.publish_request(volume);
    forge(&mut request.volume_context);
    let sent = node.kubelet.send(request, DEADLINE);
    Ok(sent.inspect_err(|status| harness().remember(status.message())))
}

/// Checks that a publish was refused and left no mount, and returns its status.
fn refused(node: &Node, volume: &Volume, sent: Result<(), Status>, what: &str) -> Result<Status> {
    let target = node.kubelet.target(volume);
    ensure!(mounts_on(&target)?.is_empty() && !target.exists(), "{what}: a mount or a target is left");
    sent.err().ok_or_else(|| anyhow::anyhow!("{what}: the publish succeeded"))
}

fn a_token_that_is_not_the_pods_own_reaches_no_cache() -> Result<()> {
    let (node, victim) = (caching()?, Victim::new());
    victim.class(&node)?;
    node.publish(&victim.pod())?;
    let requests = victim.requests();
    let good = victim.token(SUBJECT, WORKLOAD, HOUR);
    for (what, token) in forged_tokens(&victim, &good)? {
        let volume = Volume::of_class("default", "web", "demo");
        let context = send(&node, &with_token(&volume, &token), |_| {})?;
        let mut secrets = Volume::of_class("default", "web", "demo");
        secrets.secrets.insert(TOKENS.to_owned(), tokens(&token));
        // The kubelet's tokens among the secrets take precedence over the tenant's in the context.
        let beside = send(&node, &with_token(&secrets, &good), |_| {})?;
        for (volume, sent) in [(volume, context), (secrets, beside)] {
            let status = refused(&node, &volume, sent, what)?;
            let text = status.message();
            ensure!(
                text.contains("serviceAccount.tokens") && text.ends_with("(CredentialsMissing)"),
                "{what}: {status}"
            );
            ensure!(status.message().len() < 1000 && !status.message().contains(&token), "{what}: {status}");
        }
        ensure!(victim.requests() == requests, "{what}: Azure got a request");
    }
    // The JSON around the token may be malformed, too.
    for text in
        ["{", "[]", "null", r#"{"api://AzureADTokenExchange":"x"}"#, r#"{"api://AzureADTokenExchange":{"token":[]}}"#]
    {
        let mut volume = Volume::of_class("default", "web", "demo");
        volume.attributes.insert(TOKENS.to_owned(), text.to_owned());
        let sent = send(&node, &volume, |_| {})?;
        refused(&node, &volume, sent, text)?;
        ensure!(victim.requests() == requests, "{text}: Azure got a request");
    }
    // The pod's own token still hits the cache.
    let target = node.publish(&victim.pod())?;
    assert_eq!(fs::read_to_string(target.join("password"))?, victim.value);
    assert_eq!(victim.requests(), requests);
    Ok(())
}

/// Returns texts that are not a token of the victim's service account, each with its description.
fn forged_tokens(victim: &Victim, good: &str) -> Result<Vec<(&'static str, String)>> {
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { anyhow::bail!("not a JWT") };
    let claims = |sub: &str| unsigned(&format!(r#"{{"sub":{sub},"aud":["{WORKLOAD}"],"exp":4000000000}}"#));
    let own = format!("\"{SUBJECT}\"");
    let padded = BASE64.encode(format!(r#"{{"sub":{own},"exp":4000000000}} "#));
    ensure!(padded.len() % 4 != 0, "the padding would be empty");
    Ok(vec![
        ("a text", "garbage".to_owned()),
        ("blanks", "   ".to_owned()),
        ("dots", "..".to_owned()),
        ("one part", payload.to_owned()),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("no header", format!(".{payload}.{signature}")),
        ("no signature", format!("{header}.{payload}.")),
        ("a header that is not JSON", format!("{}.{payload}.{signature}", BASE64.encode("RS256"))),
        ("a header that is a list", format!("{}.{payload}.{signature}", BASE64.encode("[]"))),
        ("a payload that is not JSON", format!("{header}.{}.{signature}", BASE64.encode("sub"))),
        ("a payload that is a list", unsigned(&format!("[{own}]"))),
        ("a payload that is a text", unsigned(&own)),
        ("a payload that is null", unsigned("null")),
        ("padding", format!("{header}.{padded}{}.{signature}", "=".repeat(4 - padded.len() % 4))),
        ("blanks around", format!(" {good}")),
        ("a line break at the end", format!("{good}\n")),
        ("no subject", unsigned(r#"{"exp":4000000000}"#)),
        ("a subject that is null", claims("null")),
        ("a subject that is a list", claims(&format!("[{own}]"))),
        ("two subjects", unsigned(&format!(r#"{{"sub":"x","sub":{own},"exp":4000000000}}"#))),
        ("two subjects the other way", unsigned(&format!(r#"{{"sub":{own},"sub":"x","exp":4000000000}}"#))),
        ("another service account", victim.token("system:serviceaccount:default:other", WORKLOAD, HOUR)),
        ("another namespace", victim.token("system:serviceaccount:other:default", WORKLOAD, HOUR)),
        ("another case", claims(r#""system:serviceaccount:default:Default""#)),
        ("a longer name", claims(r#""system:serviceaccount:default:default-2""#)),
        ("a blank behind the name", claims(r#""system:serviceaccount:default:default ""#)),
        ("a person", claims(r#""default""#)),
        ("an expiration that is a text", unsigned(&format!(r#"{{"sub":{own},"exp":"4000000000"}}"#))),
        ("an audience that is a number", unsigned(&format!(r#"{{"sub":{own},"aud":1,"exp":4000000000}}"#))),
        ("a megabyte", unsigned(&format!(r#"{{"sub":{own},"exp":4000000000,"x":"{}"}}"#, "x".repeat(1 << 20)))),
        ("nested lists", unsigned(&format!(r#"{{"sub":{own},"exp":4000000000,"x":{}}}"#, "[".repeat(10_000)))),
    ])
}

fn an_expired_token_misses_the_cache_and_entra_id_judges_it() -> Result<()> {
    let (node, victim) = (caching()?, Victim::new());
    victim.class(&node)?;
    node.publish(&victim.pod())?;
    let [token_requests, vault_requests] = victim.requests();
    let expired = with_token(&victim.pod(), &victim.token(SUBJECT, WORKLOAD, Duration::ZERO));
    for number in 1..=2 {
        let status = node.refused(&expired)?;
        for word in ["AADSTS700024", "node's clock", "(CredentialsRejected)"] {
            ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
        }
        assert_eq!(
            victim.requests(),
            [token_requests + number, vault_requests],
            "Entra ID gets each token, and the vault no request"
        );
    }
    // A token without an expiration counts as expired.
    let endless = victim.issuer.token(SUBJECT, WORKLOAD, HOUR, json!({ "exp": null }));
    harness().secrets.lock().unwrap().push(endless.clone());
    node.refused(&with_token(&victim.pod(), &endless))?;
    assert_eq!(victim.requests(), [token_requests + 3, vault_requests]);
    node.publish(&victim.pod())?;
    assert_eq!(victim.requests(), [token_requests + 3, vault_requests], "the victim's token is still cached");
    Ok(())
}

fn a_token_of_another_audience_misses_the_cache() -> Result<()> {
    let (node, victim) = (caching()?, Victim::new());
    victim.class(&node)?;
    node.publish(&victim.pod())?;
    let [token_requests, vault_requests] = victim.requests();
    let status = node.refused(&with_token(&victim.pod(), &victim.token(SUBJECT, BINDING, HOUR)))?;
    ensure!(status.message().contains("AADSTS700212"), "{status}");
    assert_eq!(victim.requests(), [token_requests + 1, vault_requests]);
    Ok(())
}

/// The attacker knows the victim's namespace, service account and class, and makes an unsigned
/// token. It cannot know the UID that its own pod will have.
fn a_context_with_another_pods_uid_is_refused() -> Result<()> {
    let (node, victim) = (caching()?, Victim::new());
    victim.class(&node)?;
    let pod = victim.pod();
    node.publish(&pod)?;
    let requests = victim.requests();
    let forged = unsigned(&format!(r#"{{"sub":"{SUBJECT}","aud":["{WORKLOAD}"],"exp":4000000000}}"#));
    let system = "bbbbbbbb-0000-4000-8000-000000000014";
    harness().azure().add_system_identity(&victim.vault.tenant, system);
    harness().azure().grant(&victim.vault.name, system, &[Permission::Get]);
    let mut parameters = victim.vault.parameters(&["password"]);
    parameters.insert("useVMManagedIdentity".to_owned(), "true".to_owned());
    node.class("managed", &parameters)?;
    node.class("principal", &victim.vault.parameters(&["password"]))?;
    for (class, what, uid) in ["demo", "managed", "principal", "missing"].into_iter().flat_map(|class| {
        [
            (class, "the victim's", Some(pod.uid.clone())),
            (class, "none", None),
            (class, "an empty one", Some(String::new())),
            (class, "a part of it", Some("00000000".to_owned())),
        ]
    }) {
        let volume = with_token(&Volume::of_class("default", "web", class), &forged)
            .with_service_principal(&victim.vault.client_id, &victim.vault.client_secret);
        let sent = send(&node, &volume, |context| match uid {
            Some(uid) => drop(context.insert(UID.to_owned(), uid)),
            None => drop(context.remove(UID)),
        })?;
        let status = refused(&node, &volume, sent, &format!("{class}, {what}"))?;
        // A missing class gives the same error, so that the attacker does not learn which classes
        // exist.
        ensure!(status.code() == Code::InvalidArgument, "{class}, {what}: {status}");
        for word in ["pod.uid", "podInfoOnMount", "(InvalidRequest)"] {
            ensure!(status.message().contains(word), "{class}, {what}: {word:?} is missing in: {status}");
        }
    }
    assert_eq!(victim.requests(), requests);
    // A target path without a pod's UID is not checked.
    let volume = victim.pod();
    let target = node.setup().folder.join("elsewhere");
    let mut request = node.kubelet.publish_request(&volume);
    request.target_path = target.display().to_string();
    request.volume_context.remove(UID);
    node.kubelet.send(request, DEADLINE)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, victim.value);
    Ok(())
}

fn an_external_provider_gets_its_tokens_unchecked() -> Result<()> {
    let (node, provider) = external_fixture::driver_and_provider(&[])?;
    let value = external_fixture::set_secret(&provider, "foo", "v1")?;
    external_fixture::class(&node, "demo", &["objectName: foo, objectVersion: v1"], "")?;
    let volume = with_token(&external_fixture::volume("demo"), "garbage");
    send(&node, &volume, |context| drop(context.insert(UID.to_owned(), "another".to_owned())))??;
    ensure!(!value.is_empty() && mounts_on(&node.kubelet.target(&volume))?.len() == 1);
    ensure!(
        external_fixture::last_request(&provider)?.audiences == [WORKLOAD],
        "the provider gets its tokens unchanged"
    );
    Ok(())
}

fn a_mounted_volume_keeps_its_files_after_a_call_with_bad_tokens() -> Result<()> {
    let (node, victim) = (caching()?, Victim::new());
    victim.class(&node)?;
    let pod = victim.pod();
    let target = node.publish(&pod)?;
    let requests = victim.requests();
    let other = victim.token("system:serviceaccount:default:other", WORKLOAD, HOUR);
    for (token, uid, words) in [
        ("garbage", pod.uid.as_str(), "not a well-formed JWT"),
        (&other, &pod.uid, "another service account"),
        ("garbage", "another", "pod.uid"),
    ] {
        let logged = node.log().len();
        send(&node, &with_token(&pod, token), |context| drop(context.insert(UID.to_owned(), uid.to_owned())))??;
        assert_eq!(fs::read_to_string(target.join("password"))?, victim.value);
        let log = node.log()[logged..].to_owned();
        ensure!(log.contains("tokens are dropped") && log.contains(words), "{words:?} is missing in: {log}");
    }
    assert_eq!(victim.requests(), requests);
    Ok(())
}

fn a_call_with_a_bad_token_drops_the_good_one() -> Result<()> {
    let (node, victim) = (rotating("200ms", &[])?, Victim::new());
    victim.class(&node)?;
    let pod = victim.pod();
    let target = node.publish(&pod)?;
    let failures = |reason: &str| {
        let reason = format!("reason=\"{reason}\"");
        metric(&node, "rotation_reconcile_error_total", &[reason.as_str()])
    };
    send(&node, &with_token(&pod, "garbage"), |_| {})??;
    // From here on the driver has no token, neither the bad one nor the one before it.
    let before = failures("CredentialsMissing")?;
    wait_for("two cycles without a token", PATIENCE, || Ok(failures("CredentialsMissing")? >= before + 2.0))?;
    let requests = victim.requests();
    let newer = victim.vault.set("password");
    let before = failures("CredentialsMissing")?;
    wait_for("two more cycles", PATIENCE, || Ok(failures("CredentialsMissing")? >= before + 2.0))?;
    assert_eq!(victim.requests(), requests, "a request without a token");
    assert_eq!(failures("CredentialsRejected")?, 0.0, "Entra ID got a bad token");
    assert_eq!(fs::read_to_string(target.join("password"))?, victim.value);
    node.publish(&with_token(&pod, &victim.token(SUBJECT, WORKLOAD, HOUR)))?;
    wait_for("the new value with a good token", PATIENCE, || Ok(fs::read_to_string(target.join("password"))? == newer))
}

/// After a forged call for a mounted volume, with the victim's class and an unsigned token of it,
/// no refresh writes the victim's objects into that volume.
fn a_call_with_another_pods_uid_changes_nothing_of_a_mounted_volume() -> Result<()> {
    let (node, victim) = (rotating("200ms", &[])?, Victim::new());
    victim.class(&node)?;
    // The victim's objects are cached for all volumes with the same fetch key.
    let theirs = victim.pod();
    node.publish(&theirs)?;
    let held = "the attacker's own";
    harness().azure().set_secret(&victim.vault.name, "other", held);
    node.class("own", &victim.vault.parameters(&["other"]))?;
    let own = victim.vault.volume("own");
    let target = node.publish(&own)?;
    let mut forged = with_token(&own, &unsigned(&format!(r#"{{"sub":"{SUBJECT}","exp":4000000000}}"#)));
    forged.attributes.insert("secretProviderClass".to_owned(), "demo".to_owned());
    let cycles = || metric(&node, "rotation_reconcile_total", &[]);
    for uid in ["", "another", theirs.uid.as_str()] {
        send(&node, &forged, |context| drop(context.insert(UID.to_owned(), uid.to_owned())))??;
        let before = cycles()?;
        // Two cycles of the victim's volume and two of the attacker's.
        wait_for("some cycles", PATIENCE, || Ok(target.join("password").exists() || cycles()? >= before + 4.0))?;
        ensure!(!target.join("password").exists(), "the victim's content is there");
        assert_eq!(fs::read_to_string(target.join("other"))?, held);
    }
    Ok(())
}

fn behind_another_driver_foreign_tokens_are_refused() -> Result<()> {
    let (fixture, victim) = (plugin::Fixture::new(&["--freshness-window=10m"])?, Victim::new());
    let mut parameters = victim.vault.parameters(&["password"]);
    parameters.insert("clientID".to_owned(), victim.client.clone());
    let pod = victim.pod();
    fixture.mount(&UpstreamDriver::request(&parameters, &pod))?;
    let requests = victim.requests();
    let forged = unsigned(&format!(r#"{{"sub":"{SUBJECT}","exp":4000000000}}"#));
    for (token, uid, words) in [
        ("garbage", pod.uid.as_str(), "not a well-formed JWT"),
        (&forged, "another", "pod.uid"),
        (&forged, "", "pod.uid"),
    ] {
        let mut request = UpstreamDriver::request(&parameters, &with_token(&pod, token));
        request.attributes = request.attributes.replace(&pod.uid, uid);
        let status = fixture.mount(&request).err().ok_or_else(|| anyhow::anyhow!("{words}: the mount succeeded"))?;
        ensure!(status.message().contains(words) && !status.message().contains(token), "{status}");
        assert_eq!(victim.requests(), requests, "{words}");
    }
    // Without a target path there is no UID to compare with.
    let mut request = UpstreamDriver::request(&parameters, &pod);
    request.target_path = String::new();
    request.attributes = request.attributes.replace(&pod.uid, "another");
    fixture.mount(&request)?;
    Ok(())
}

fn a_pod_named_by_a_forged_context_gets_no_event() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    let namespace = cluster.namespace()?;
    let (node, _) = cluster.node()?;
    let volume = |pod: &str| Volume { namespace: namespace.clone(), pod: pod.to_owned(), ..vault.volume("missing") };
    let victim = volume("victim");
    let sent = send(&node, &volume("victim"), |context| drop(context.insert(UID.to_owned(), victim.uid.clone())))?;
    ensure!(
        sent.err().is_some_and(|status| status.message().contains("pod.uid")),
        "it was not refused as another pod's"
    );
    // Events are sent in order, so a later event shows that there was none for the victim.
    node.refused(&volume("next"))?;
    let events = ("Event", "events");
    wait_for("the next event", PATIENCE, || Ok(!cluster.list(events, &namespace)?.is_empty()))?;
    let events = cluster.list(events, &namespace)?;
    let pods: Vec<_> = events.iter().map(|event| event.data["involvedObject"]["name"].clone()).collect();
    assert_eq!(pods, [json!("next")]);
    Ok(())
}
