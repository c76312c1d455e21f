//! Descriptors under attack: connections to one tenant's vaults
//! leave enough descriptors for its neighbours.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Kind};
use keyvault_csi_e2e::driver::{DriverSetup, wait_for};
use keyvault_csi_e2e::kubelet::Volume;
use libtest_mimic::Trial;

use crate::harness::{Node, SPARE_VAULTS, Vault, class_manifest, harness, spare_vault};

trials! { "descriptors":
    the_soft_limit_is_raised_to_the_hard_one,
    a_tenants_hanging_vaults_take_no_descriptor_of_a_neighbour,
    names_that_no_server_answers_take_no_descriptor_of_a_neighbour,
    idle_connections_of_many_vaults_are_closed,
}

/// The attack in full size: 1,500 vaults of one tenant.
pub(crate) fn soak() -> Vec<Trial> {
    let big = || {
        let mut setup = harness().release_setup();
        setup.descriptors = Some([1_024, 8_192]);
        hold_open(setup, &silent(1_500), 1, Duration::from_secs(100))
    };
    vec![crate::trial("descriptors::soak_fifteen_hundred_unknown_vaults", big).with_ignored_flag(true)]
}

/// The limits of /proc/<pid>/limits: soft and hard.
fn limits(node: &Node) -> Result<[u64; 2]> {
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.id()))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit")?;
    let mut words = line.split_whitespace().map(str::parse);
    let mut next = || Ok::<u64, anyhow::Error>(words.next().context("no number")??);
    Ok([next()?, next()?])
}

fn open_descriptors(node: &Node) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", node.id()))?.count())
}

fn the_soft_limit_is_raised_to_the_hard_one() -> Result<()> {
    let mut setup = harness().setup();
    setup.descriptors = Some([300, 2_000]);
    let node = Node::start(setup)?;
    assert_eq!(limits(&node)?, [2_000, 2_000]);
    ensure!(!node.log().contains("few files"), "{}", node.log());
    let mut setup = harness().setup();
    setup.descriptors = Some([100, 200]);
    let node = Node::start(setup)?;
    ensure!(node.log().contains("LimitNOFILE") && node.log().contains("limit=\"200\""), "{}", node.log());
    Ok(())
}

/// Writes a class with these objects of a vault.
fn class(node: &Node, namespace: &str, name: &str, vault: &Vault, objects: &[String]) -> Result<()> {
    let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
    let mut parameters = vault.parameters(&objects);
    if vault.suffix == "vault.usgovcloudapi.net" {
        parameters.insert("cloudName".to_owned(), "AzureUSGovernmentCloud".to_owned());
    }
    let manifest = class_manifest(namespace, name, Some("azure"), &parameters);
    node.manifest(&format!("{namespace}-{name}.yaml"), &manifest)
}

/// Vaults whose DNS queries the harness's name server does not answer: each lookup holds its
/// sockets until it times out.
fn silent(count: usize) -> Vec<Vault> {
    let vault = harness().vault();
    (0..count).map(|number| Vault { name: format!("silent-{number}"), ..vault.clone() }).collect()
}

/// Has a tenant hold connections open: one volume for each of its vaults, with this number of
/// objects. Meanwhile a neighbour's publish, the probe and the metrics must be served.
fn hold_open(setup: DriverSetup, vaults: &[Vault], objects: usize, patience: Duration) -> Result<()> {
    let node = Node::start(setup)?;
    let neighbour = harness().vault();
    let value = neighbour.set("password");
    class(&node, "neighbour", "good", &neighbour, &["password".to_owned()])?;
    let volumes: Vec<Volume> = (0..)
        .zip(vaults)
        .map(|(number, vault): (usize, _)| {
            let name = format!("c-{number}");
            let objects: Vec<String> = (0..objects).map(|at| format!("o-{number}-{at}")).collect();
            class(&node, "attacker", &name, vault, &objects)?;
            Ok(Volume::of_class("attacker", "web", &name)
                .with_service_principal(&vault.client_id, &vault.client_secret))
        })
        .collect::<Result<_>>()?;
    let finished = AtomicUsize::new(0);
    let (most, slowest) = std::thread::scope(|scope| {
        for volume in &volumes {
            scope.spawn(|| {
                // Fails, or ends with the test.
                let _ = node.kubelet.publish_within(volume, patience);
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }
        // Each call has a connection of its own, as with kubelets.
        let under_way = || Ok(open_descriptors(&node)? >= vaults.len());
        wait_for("the attack is under way", Duration::from_secs(30), under_way)?;
        let (mut most, mut slowest) = (0, Duration::ZERO);
        for round in 0..5 {
            let volume = Volume::of_class("neighbour", "web", "good")
                .with_service_principal(&neighbour.client_id, &neighbour.client_secret);
            let began = Instant::now();
            let target = node.publish(&volume).with_context(|| format!("round {round}"))?;
            slowest = slowest.max(began.elapsed());
            assert_eq!(fs::read_to_string(target.join("password"))?, value);
            node.kubelet.unpublish(&volume)?;
            assert_eq!(node.health("/healthz")?, (200, "ok\n".to_owned()));
            node.metrics()?;
            most = most.max(open_descriptors(&node)?);
        }
        ensure!(
            finished.load(Ordering::Relaxed) < vaults.len(),
            "the attack was over before the neighbour's publishes"
        );
        Ok((most, slowest))
    })?;
    let [_, hard] = limits(&node)?;
    ensure!((most as u64) < hard, "{most} of {hard} descriptors were open");
    ensure!(slowest < patience, "the slowest of the neighbour's publishes took {slowest:?}");
    ensure!(!node.log().contains("os error 24"), "EMFILE in: {}", node.log());
    Ok(())
}

/// Many vaults with a hanging connection each: a client library may send all requests to one vault
/// over one connection.
fn a_tenants_hanging_vaults_take_no_descriptor_of_a_neighbour() -> Result<()> {
    let mut setup = harness().setup();
    setup.descriptors = Some([128, 512]);
    let login = harness().vault_in_cloud("vault.usgovcloudapi.net");
    let hostile: Vec<Vault> =
        (0..SPARE_VAULTS).map(|number| Vault { name: spare_vault(number), ..login.clone() }).collect();
    for vault in &hostile {
        harness().azure().add_fault(Fault::new(Action::Hang).host(&vault.name));
    }
    hold_open(setup, &hostile, 16, Duration::from_secs(20))?;
    let hanging: u64 = hostile.iter().map(|vault| vault.counters().get(Kind::Challenge)).sum();
    // One fetch for each vault, until the namespace has used its share:
    // half of a twelfth of the limit.
    ensure!(hanging >= 21, "{hanging} requests hang");
    Ok(())
}

fn names_that_no_server_answers_take_no_descriptor_of_a_neighbour() -> Result<()> {
    let mut setup = harness().setup();
    setup.descriptors = Some([128, 512]);
    hold_open(setup, &silent(90), 16, Duration::from_secs(20))
}

fn idle_connections_of_many_vaults_are_closed() -> Result<()> {
    let mut setup = harness().setup();
    setup.descriptors = Some([256, 256]);
    let node = Node::start(setup)?;
    let value = harness().secret("shared");
    // The number of a tenant's vaults has no limit; each leaves an idle connection.
    for number in 0..120 {
        let vault = harness().vault();
        harness().azure().set_secret(&vault.name, "password", &value);
        let name = format!("c-{number}");
        class(&node, "attacker", &name, &vault, &["password".to_owned()])?;
        let volume =
            Volume::of_class("attacker", "web", &name).with_service_principal(&vault.client_id, &vault.client_secret);
        let target = node.publish(&volume)?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
        node.kubelet.unpublish(&volume)?;
        let open = open_descriptors(&node)?;
        // A twelfth of the limit may be idle; 40 are the process's own.
        ensure!(open < 256 / 12 + 40, "{open} descriptors are open after {number} vaults");
    }
    Ok(())
}
