//! Tenants' PKCS#12 archives that need much computing: which pods wait, how often a key is derived,
//! and which archives are refused.
//!
//! The attacker has one namespace: pods with a Secret or a vault of their own. The attack is small
//! here; `soak` has a hundred archives of each kind, the release binary and the promised time
//! bounds.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{CertificateMaterial, Kind};
use base64::Engine as _;
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use libtest_mimic::Trial;

use crate::certificates::{CertifiedKey, openssl};
use crate::harness::{Node, Vault, class_manifest, harness};
use crate::mirror_fixture::{self, Fixture};
use crate::rotation::{PATIENCE, cycles, metric, rotating};

trials! { "key_derivation":
    expensive_archives_in_secrets_delay_neither_the_probe_nor_neighbours,
    expensive_archives_in_vaults_delay_neither_the_probe_nor_neighbours,
    an_archive_is_derived_again_only_for_a_new_token,
    a_quiet_cycle_derives_nothing,
    a_refresh_decodes_only_changed_archives,
    a_refused_archive_is_reported_with_its_fix_and_never_derived,
    after_a_restart_archives_are_read_again_and_nothing_fails,
    archives_of_a_deleted_pod_leave_the_queue,
    a_mirrored_archive_is_opened_once,
}

/// A test that runs for minutes.
pub(crate) fn soak() -> Vec<Trial> {
    let test = || a_hundred_of_each().map_err(|error: anyhow::Error| format!("{error:#}").into());
    vec![Trial::test("key_derivation::a_hundred_archives_below_and_above_the_ceiling", test).with_ignored_flag(true)]
}

/// Iterations just below and just above the ceiling of a million, in two derivations. `-iter` is
/// first, since it also turns on the MAC.
const BELOW: &str = "-iter 499000 -nomac -certpbe AES-256-CBC";
pub(crate) const ABOVE: &str = "-iter 500500 -nomac -certpbe AES-256-CBC";
/// OpenSSL's default: three derivations of 2,048 iterations.
pub(crate) const USUAL: &str = "";

/// Returns an archive of the key and certificate, in base64.
pub(crate) fn archive(made: &CertifiedKey, options: &str) -> Result<String> {
    let (key, certificate) = (made.path("key.pem"), made.path("cert.pem"));
    let fixed = ["pkcs12", "-export", "-inkey", &key, "-in", &certificate, "-passout", "pass:"];
    let der = openssl(&[&fixed[..], &options.split_whitespace().collect::<Vec<_>>()].concat())?;
    Ok(base64::engine::general_purpose::STANDARD.encode(der))
}

/// Returns the same archive in lines of another length: other bytes, which no cache has.
fn rewrapped(text: &str, number: usize) -> String {
    let lines: Vec<&str> =
        text.as_bytes().chunks(40 + number).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    lines.join("\n")
}

fn derivations(node: &Node) -> Result<f64> {
    metric(node, "key_derivations_total", &[])
}

/// A tenant with a namespace, a vault, and an application that logs in with archives.
pub(crate) struct Tenant {
    namespace: &'static str,
    pub(crate) vault: Vault,
    pub(crate) made: CertifiedKey,
}

impl Tenant {
    /// Creates a tenant whose class `demo` mounts the secret `password`.
    pub(crate) fn new(node: &Node, namespace: &'static str) -> Result<Tenant> {
        let (vault, made) = (harness().vault(), CertifiedKey::new(&["rsa:2048"])?);
        vault.set("password");
        let der = openssl(&["x509", "-in", &made.path("cert.pem"), "-outform", "DER"])?;
        harness().azure().add_client_certificate(&vault.tenant, &vault.client_id, &der);
        let tenant = Tenant { namespace, vault, made };
        tenant.class(node, "demo", &tenant.vault.parameters(&["password"]))?;
        Ok(tenant)
    }

    fn class(&self, node: &Node, name: &str, parameters: &std::collections::BTreeMap<String, String>) -> Result<()> {
        let manifest = class_manifest(self.namespace, name, Some("azure"), parameters);
        node.manifest(&format!("{}-{name}.yaml", self.namespace), &manifest)
    }

    /// Returns a pod that logs in with the application's secret.
    pub(crate) fn plain(&self, class: &str) -> Volume {
        Volume { namespace: self.namespace.to_owned(), ..self.vault.volume(class) }
    }

    /// Returns a pod that logs in with this archive.
    pub(crate) fn with_archive(&self, text: &str) -> Volume {
        let mut volume = Volume::of_class(self.namespace, "web", "demo");
        volume.secrets.insert("clientid".to_owned(), self.vault.client_id.clone());
        volume.secrets.insert("clientcertificate".to_owned(), text.to_owned());
        volume
    }

    /// Puts an archive into the vault, as the secret of a certificate.
    fn import(&self, name: &str, text: &str) -> Result<()> {
        let pem = CertificateMaterial::from_pem(&self.made.pem()?)?;
        let (secret_value, secret_content_type) = (text.to_owned(), "application/x-pkcs12".to_owned());
        harness().azure().set_certificate(
            &self.vault.name,
            name,
            &CertificateMaterial { secret_value, secret_content_type, ..pem },
        );
        Ok(())
    }

    /// Puts an archive into the vault, and returns a pod that mounts it.
    fn mounting(&self, node: &Node, name: &str, text: &str) -> Result<Volume> {
        self.import(name, text)?;
        self.class(node, name, &self.vault.parameters(&[name]))?;
        Ok(self.plain(name))
    }

    /// Returns pods with different archives in their Secrets, or in the vault.
    fn pods(&self, node: &Node, count: usize, options: &str, in_vault: bool) -> Result<Vec<Volume>> {
        let text = archive(&self.made, options)?;
        let kind = if options == BELOW { "below" } else { "above" };
        let pod = |number| match in_vault {
            false => Ok(self.with_archive(&rewrapped(&text, number))),
            true => self.mounting(node, &format!("{kind}-{number}"), &rewrapped(&text, number)),
        };
        (0..count).map(pod).collect()
    }
}

/// Times of probes and of a neighbour's publishes, alone and while a namespace publishes its
/// archives.
#[derive(Debug, Default)]
struct Times {
    probes: Vec<Duration>,
    /// Publishes with a client secret, alone and then under attack.
    alone: Vec<Duration>,
    plain: Vec<Duration>,
    /// The same with an archive of a few thousand iterations.
    alone_with_archive: Vec<Duration>,
    with_archive: Vec<Duration>,
    /// The smallest number of the attacker's publishes that finished during one publish of the
    /// neighbour with an archive.
    before: usize,
}

/// Returns the value that this share of the values does not exceed.
fn quantile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    sorted.get(((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or_default()
}

/// Publishes and unpublishes a neighbour's volume, and returns how long the publish took.
fn timed(node: &Node, volume: &Volume) -> Result<Duration> {
    let began = Instant::now();
    node.publish(volume).map_err(|status| anyhow::anyhow!("a neighbour's publish: {status}"))?;
    let took = began.elapsed();
    node.kubelet.unpublish(volume)?;
    Ok(took)
}

/// Measures again and again, at least once, while `running` is true.
fn repeated(running: impl Fn() -> bool, measure: impl Fn() -> Result<Duration>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while running() || times.is_empty() {
        times.push(measure()?);
    }
    Ok(times)
}

fn probe(node: &Node) -> Result<Duration> {
    let began = Instant::now();
    ensure!(node.health("/healthz")?.0 == 200, "the probe failed");
    Ok(began.elapsed())
}

/// Publishes all archives at once, and meanwhile probes and publishes for a neighbour, one after
/// the other.
fn attack(node: &Node, attacker: &Tenant, count: usize, in_vault: bool) -> Result<Times> {
    let neighbour = Tenant::new(node, "neighbour")?;
    let below = attacker.pods(node, count, BELOW, in_vault)?;
    let above = attacker.pods(node, count, ABOVE, in_vault)?;
    let usual = archive(&neighbour.made, USUAL)?;
    let with_archive = |number| timed(node, &neighbour.with_archive(&rewrapped(&usual, number)));
    let plain = || timed(node, &neighbour.plain("demo"));
    let mut times = Times { before: usize::MAX, ..Times::default() };
    node.publish(&neighbour.plain("demo"))?;
    for number in 0..20 {
        times.alone.push(plain()?);
        times.alone_with_archive.push(with_archive(number)?);
    }
    let (finished, all) = (AtomicUsize::new(0), 2 * count);
    let running = || finished.load(Ordering::SeqCst) < all;
    let publish = |volume: &Volume| {
        let published = node.publish(volume);
        finished.fetch_add(1, Ordering::SeqCst);
        published
    };
    std::thread::scope(|scope| {
        let publish = &publish;
        let calls = below.iter().chain(&above).map(|volume| scope.spawn(move || publish(volume)));
        let calls: Vec<_> = calls.collect();
        let probes = scope.spawn(|| repeated(running, || probe(node)));
        let publishes = scope.spawn(|| repeated(running, plain));
        // Archives above the ceiling are refused at once.
        wait_for("the first archives are refused", PATIENCE, || Ok(finished.load(Ordering::SeqCst) >= count))?;
        while running() || times.with_archive.is_empty() {
            let began = finished.load(Ordering::SeqCst);
            times.with_archive.push(with_archive(20 + times.with_archive.len())?);
            times.before = times.before.min(finished.load(Ordering::SeqCst) - began);
        }
        for (number, call) in calls.into_iter().enumerate() {
            let published = call.join().map_err(|_| anyhow::anyhow!("a call panicked"))?;
            match published {
                Ok(_) => ensure!(number < count, "an archive above the ceiling was read"),
                Err(status) => {
                    ensure!(number >= count && status.message().contains("at most 1000000"), "{number}: {status}");
                }
            }
        }
        let panicked = |_| anyhow::anyhow!("a thread panicked");
        times.probes = probes.join().map_err(panicked)??;
        times.plain = publishes.join().map_err(panicked)??;
        Ok(times)
    })
}

/// A small attack, with time bounds that a loaded machine and a debug build keep; it asserts orders
/// and counts.
fn small_attack(in_vault: bool) -> Result<()> {
    const COUNT: usize = 16;
    let node = harness().node()?;
    let attacker = Tenant::new(&node, "attacker")?;
    let times = attack(&node, &attacker, COUNT, in_vault)?;
    // Without turns the neighbour would wait for all of them. Its own publish takes as long as a
    // few archives.
    ensure!(
        times.before <= COUNT / 2,
        "each of the neighbour's publishes waited behind {} of the attacker's archives",
        times.before
    );
    let slowest = times.probes.iter().max().copied().unwrap_or_default();
    ensure!(slowest < Duration::from_secs(10), "a probe took {slowest:?}");
    // The neighbour's archives, and each of the attacker's once; none above the ceiling.
    let expected = COUNT + times.alone_with_archive.len() + times.with_archive.len();
    let iterations = metric(&node, "key_derivation_iterations_total", &[])?;
    assert_eq!(derivations(&node)?, expected as f64);
    assert_eq!(iterations, (COUNT * 998_000 + (expected - COUNT) * 3 * 2_048) as f64);
    assert_eq!(metric(&node, "key_derivations_refused_total", &["ceiling"])?, COUNT as f64);
    Ok(())
}

fn expensive_archives_in_secrets_delay_neither_the_probe_nor_neighbours() -> Result<()> {
    small_attack(false)
}

fn expensive_archives_in_vaults_delay_neither_the_probe_nor_neighbours() -> Result<()> {
    small_attack(true)
}

fn a_hundred_of_each() -> Result<()> {
    use std::io::Write as _;
    let binary =
        std::env::var_os("KEYVAULT_CSI_RELEASE").context("KEYVAULT_CSI_RELEASE is not set: run `make soak`")?;
    for in_vault in [false, true] {
        let mut setup = harness().setup();
        setup.binary = binary.clone().into();
        setup.flags = ["--enable-secret-rotation", "--rotation-poll-interval=2s"].map(str::to_owned).into();
        let node = Node::start(setup)?;
        let attacker = Tenant::new(&node, "attacker")?;
        let began = Instant::now();
        let times = attack(&node, &attacker, 100, in_vault)?;
        let summary = [
            ("probe", &times.probes),
            ("publish alone", &times.alone),
            ("publish", &times.plain),
            ("publish with archive alone", &times.alone_with_archive),
            ("publish with archive", &times.with_archive),
        ];
        for (what, values) in summary {
            let [median, p99, most] = [0.5, 0.99, 1.0].map(|share| quantile(values, share));
            let count = values.len();
            writeln!(std::io::stdout(), "{what}: {count} times, p50 {median:?}, p99 {p99:?}, most {most:?}")?;
        }
        writeln!(std::io::stdout(), "all archives (in the vault: {in_vault}) in {:?}", began.elapsed())?;
        ensure!(quantile(&times.probes, 1.0) < Duration::from_secs(1), "a probe took a second");
        for (alone, under_attack) in [(&times.alone, &times.plain), (&times.alone_with_archive, &times.with_archive)] {
            let [alone, under_attack] = [alone, under_attack].map(|values| quantile(values, 0.99));
            ensure!(under_attack < alone + Duration::from_secs(1), "p99 {under_attack:?}, alone {alone:?}");
        }
        wait_for_quiet_cycles(&node, "a hundred volumes are refreshed")?;
    }
    Ok(())
}

/// Waits for five cycles in which nothing is derived.
fn wait_for_quiet_cycles(node: &Node, what: &str) -> Result<()> {
    let (before, first) = (derivations(node)?, cycles(node)?);
    wait_for(what, PATIENCE, || Ok(cycles(node)? >= first + 5.0))?;
    assert_eq!(derivations(node)?, before);
    Ok(())
}

fn an_archive_is_derived_again_only_for_a_new_token() -> Result<()> {
    let node = harness().node()?;
    let tenant = Tenant::new(&node, "tenant")?;
    let text = archive(&tenant.made, USUAL)?;
    for _ in 0..3 {
        node.publish(&tenant.with_archive(&text))?;
    }
    assert_eq!((derivations(&node)?, tenant.vault.entra().get(Kind::Token)), (1.0, 1));
    // The vault refuses the token from now on: the key is read again for the next one.
    harness().azure().revoke_tokens(&tenant.vault.client_id);
    node.publish(&tenant.with_archive(&text))?;
    assert_eq!((derivations(&node)?, tenant.vault.entra().get(Kind::Token)), (2.0, 2));
    // With another password, or in another namespace, the same archive counts as another one. Only
    // the derivation shows that the password is wrong.
    let mut wrong = tenant.with_archive(&text);
    wrong.secrets.insert("clientcertificatepassword".to_owned(), harness().secret("wrong"));
    for _ in 0..3 {
        ensure!(node.refused(&wrong)?.message().contains("password is wrong"));
    }
    assert_eq!(derivations(&node)?, 3.0);
    let other = Tenant { namespace: "other", ..tenant };
    other.class(&node, "demo", &other.vault.parameters(&["password"]))?;
    node.publish(&other.with_archive(&text))?;
    assert_eq!(derivations(&node)?, 4.0);
    Ok(())
}

fn a_quiet_cycle_derives_nothing() -> Result<()> {
    let node = rotating("300ms", &["--freshness-window=0s"])?;
    let tenant = Tenant::new(&node, "tenant")?;
    let text = archive(&tenant.made, USUAL)?;
    for number in 0..5 {
        node.publish(&tenant.with_archive(&rewrapped(&text, number)))?;
        node.publish(&tenant.mounting(&node, &format!("archive-{number}"), &rewrapped(&text, number))?)?;
    }
    assert_eq!(derivations(&node)?, 10.0);
    wait_for_quiet_cycles(&node, "cycles")?;
    Ok(())
}

/// The identity of each volume is determined again, which takes longer than the limit for one plan.
fn after_a_restart_archives_are_read_again_and_nothing_fails() -> Result<()> {
    let node = rotating("1s", &[])?;
    let tenant = Tenant::new(&node, "tenant")?;
    let pods = tenant.pods(&node, 8, BELOW, false)?;
    std::thread::scope(|scope| {
        let calls: Vec<_> = pods.iter().map(|volume| scope.spawn(|| node.publish(volume))).collect();
        calls.into_iter().try_for_each(|call| {
            call.join().map_err(|_| anyhow::anyhow!("a call panicked"))?.map(drop).map_err(anyhow::Error::from)
        })
    })?;
    let node = Node::start(node.driver.kill()?)?;
    pods.iter().try_for_each(|volume| node.publish(volume).map(drop))?;
    let each = pods.len() as f64;
    let (mut seen, mut since) = (0.0, 0.0);
    wait_for("all are read again, and five cycles in a row derive nothing", PATIENCE, || {
        let (derived, cycle) = (derivations(&node)?, cycles(&node)?);
        if derived != seen {
            (seen, since) = (derived, cycle);
        }
        Ok(seen > each && cycle >= since + 5.0)
    })?;
    // Each archive once, and one of them again for the token, since all are one identity. A token
    // request that does not finish within its cycle, on a slow machine, reads the key again.
    ensure!(seen <= 2.0 * each, "{seen} derivations for {each} archives");
    assert_eq!(metric(&node, "rotation_reconcile_error_total", &[])?, 0.0);
    Ok(())
}

fn a_refresh_decodes_only_changed_archives() -> Result<()> {
    let node = rotating("300ms", &["--freshness-window=0s", "--write-cert-and-key-in-separate-files"])?;
    let tenant = Tenant::new(&node, "tenant")?;
    let text = archive(&tenant.made, USUAL)?;
    tenant.import("server", &text)?;
    let object = |name: &str, more: &str| format!("  - |\n    objectName: {name}\n    objectType: secret\n{more}");
    let objects = format!("array:\n{}{}", object("server", "    objectAlias: tls/server\n"), object("password", ""));
    tenant.class(&node, "demo", &tenant.vault.parameters_of(&objects))?;
    let targets = [node.publish(&tenant.plain("demo"))?, node.publish(&tenant.plain("demo"))?];
    let files = |target: &std::path::Path| -> Result<Vec<Vec<u8>>> {
        let read = ["tls/server", "tls/server.crt", "tls/server.key"].map(|name| fs::read(target.join(name)));
        Ok(read.into_iter().collect::<Result<_, _>>()?)
    };
    let (held, before) = (files(&targets[0])?, derivations(&node)?);
    assert_eq!(before, 2.0);
    // Another object of the class changes: the volume is written again, with the files that it has.
    let value = tenant.vault.set("password");
    for target in &targets {
        wait_for("the new value", PATIENCE, || Ok(fs::read_to_string(target.join("password"))? == value))?;
        ensure!(files(target)? == held, "the certificate's files changed");
    }
    assert_eq!(derivations(&node)?, before);
    wait_for_quiet_cycles(&node, "quiet cycles afterwards")?;
    // The archive itself changes: it is decoded once, for both volumes.
    let renewed = CertifiedKey::new(&["rsa:2048"])?;
    tenant.import("server", &archive(&renewed, USUAL)?)?;
    for target in &targets {
        wait_for("the new key", PATIENCE, || Ok(files(target)? != held))?;
        crate::certificates::ensure_key_pair(&target.join("tls/server.key"), &target.join("tls/server.crt"))?;
    }
    assert_eq!(derivations(&node)?, before + 1.0);
    // An archive above the ceiling is refused without a derivation, and the files stay.
    let held = files(&targets[0])?;
    tenant.import("server", &archive(&renewed, ABOVE)?)?;
    wait_for("the archive is refused", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_error_total", &["ObjectInvalid"])? >= 4.0)
    })?;
    ensure!(files(&targets[0])? == held && node.log().contains("at most 1000000"));
    assert_eq!(derivations(&node)?, before + 1.0);
    Ok(())
}

fn a_refused_archive_is_reported_with_its_fix_and_never_derived() -> Result<()> {
    let node = harness().node()?;
    let tenant = Tenant::new(&node, "tenant")?;
    let text = archive(&tenant.made, ABOVE)?;
    let in_vault = tenant.mounting(&node, "server", &text)?;
    let fix = "openssl pkcs12 -export -iter 2048";
    for (volume, words) in [
        (
            tenant.with_archive(&text),
            ["tenant/demo", "clientcertificate", "1001000 iterations", "at most 1000000", fix],
        ),
        (in_vault, ["tenant/server", "secret/server", "1001000 iterations", "at most 1000000", fix]),
    ] {
        for _ in 0..3 {
            let status = node.refused(&volume)?;
            for word in words {
                ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
            }
        }
    }
    assert_eq!(derivations(&node)?, 0.0);
    assert_eq!(metric(&node, "key_derivations_refused_total", &["ceiling"])?, 6.0);
    Ok(())
}

fn archives_of_a_deleted_pod_leave_the_queue() -> Result<()> {
    let node = harness().node()?;
    let tenant = Tenant::new(&node, "tenant")?;
    let pods = tenant.pods(&node, 20, BELOW, false)?;
    std::thread::scope(|scope| {
        let calls: Vec<_> = pods.iter().map(|volume| scope.spawn(|| node.publish(volume))).collect();
        wait_for("the first derivation", PATIENCE, || Ok(derivations(&node)? >= 1.0))?;
        for volume in &pods {
            node.kubelet.unpublish(volume)?;
        }
        let results = calls.into_iter().map(|call| call.join().map_err(|_| anyhow::anyhow!("a call panicked")));
        let unpublished = |result: &Result<_, tonic::Status>| matches!(result, Err(status) if status.message().contains("was unpublished while"));
        let results: Vec<_> = results.collect::<Result<_>>()?;
        let given_up = results.iter().filter(|result| unpublished(result)).count();
        ensure!(given_up >= 10, "only {given_up} publishes were given up");
        // The finished ones, and one that was running.
        ensure!(derivations(&node)? <= (pods.len() - given_up + 1) as f64, "{} were derived", derivations(&node)?);
        Ok(())
    })
}

fn a_mirrored_archive_is_opened_once() -> Result<()> {
    let fixture = Fixture::new()?;
    let made = CertifiedKey::new(&["rsa:2048"])?;
    let material = CertificateMaterial::from_pfx(&made.read("archive.pfx")?, "")?;
    harness().azure().set_certificate(&fixture.vault.name, "server", &material);
    let object = "array:\n  - |\n    objectName: server\n    objectType: secret\n    objectFormat: pfx\n";
    let tls = |name: &str| {
        let keys =
            ["tls.crt", "tls.key", "ca.crt"].map(|key| serde_json::json!({ "objectName": "server", "key": key }));
        serde_json::json!({ "secretName": name, "type": "kubernetes.io/tls", "data": keys })
    };
    fixture.class_of("demo", &fixture.vault.parameters_of(object), &serde_json::json!([tls("one"), tls("two")]))?;
    let (node, user) = fixture.node("a", &["--secret-check-interval=1s"])?;
    let pod = fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?;
    node.publish(&pod)?;
    for name in ["one", "two"] {
        let secret = fixture.there(name)?;
        let key = mirror_fixture::decoded(&secret, "tls.key").context("no key")?;
        ensure!(key.starts_with("-----BEGIN RSA PRIVATE KEY-----"), "another form of key");
    }
    // One archive, for six values of two Secrets; a resync without a change opens nothing.
    let before = derivations(&node)?;
    ensure!(before >= 1.0, "the derivation is not counted");
    let gets = fixture.cluster.count(&user, "get", "secrets")?;
    wait_for("some resyncs", PATIENCE, || Ok(fixture.cluster.count(&user, "get", "secrets")? >= gets + 6))?;
    assert_eq!(derivations(&node)?, before);
    // Another Secret of the same file.
    let more = serde_json::json!({ "spec": { "secretObjects": [tls("one"), tls("two"), tls("three")] } });
    fixture.change_class("demo", &more)?;
    fixture.there("three")?;
    assert_eq!(derivations(&node)?, before + 1.0);
    Ok(())
}
