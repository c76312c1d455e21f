//! csi-sanity, the tests of the CSI specification by its authors, against the built driver: every
//! Identity and Node spec passes, and every skipped one is in a table, with the reason.
//!
//! `csi_relay` stands between the two, and says why. The volume is a pod's, with a secret of the
//! Azure emulator.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::{Value, json};
use tonic::Code;

use crate::csi_relay::{Contents, Destination, Relay};
use crate::harness::{Node, Vault, harness, mounts_on};

trials! { "csi_sanity":
    every_identity_and_node_spec_passes,
    a_driver_that_does_nothing_fails,
}

/// The specs that pass.
const PASSED: [&str; 13] = [
    "Identity Service GetPluginCapabilities should return appropriate capabilities",
    "Identity Service GetPluginInfo should return appropriate information",
    "Identity Service Probe should return appropriate information",
    "Node Service NodeGetCapabilities should return appropriate capabilities",
    "Node Service NodeGetInfo should return appropriate values",
    "Node Service NodePublishVolume should fail when no target path is provided",
    "Node Service NodePublishVolume should fail when no volume capability is provided",
    "Node Service NodePublishVolume should fail when no volume id is provided",
    "Node Service NodeUnpublishVolume should fail when no target path is provided",
    "Node Service NodeUnpublishVolume should fail when no volume id is provided",
    "Node Service NodeUnpublishVolume should remove target path",
    "Node Service should be idempotent",
    "Node Service should work",
];

/// The specs that pass also if every call is answered with an empty message: they check what is
/// there, and accept that nothing is.
const PASSED_BY_NOTHING: [&str; 3] = [PASSED[0], PASSED[2], PASSED[3]];

/// Specs that csi-sanity skips, since the driver does not claim the capability.
struct Skipped {
    group: &'static str,
    /// The message of csi-sanity.
    message: &'static str,
    /// Why the driver does not claim it.
    reason: &'static str,
    specs: &'static [&'static str],
}

const SKIPPED: [Skipped; 7] = [
    Skipped {
        group: "NodePublishVolume with single node multi writer capability",
        message: "Service does not have single node multi writer capability",
        reason: "volumes are read-only: no pod writes",
        specs: &[
            "should fail when volume with single node single writer access mode is already mounted at a different target path",
        ],
    },
    Skipped {
        group: "NodeStageVolume",
        message: "NodeStageVolume not supported",
        reason: "kubelets do not stage inline volumes",
        specs: &[
            "should fail when no volume id is provided",
            "should fail when no staging target path is provided",
            "should fail when no volume capability is provided",
        ],
    },
    Skipped {
        group: "NodeUnstageVolume",
        message: "NodeUnstageVolume not supported",
        reason: "kubelets do not stage inline volumes",
        specs: &["should fail when no volume id is provided", "should fail when no staging target path is provided"],
    },
    Skipped {
        group: "NodeGetVolumeStats",
        message: "NodeGetVolume not supported",
        reason: "a volume has a fixed size, and only the driver writes to it",
        specs: &[
            "should fail when no volume id is provided",
            "should fail when no volume path is provided",
            "should fail when volume is not found",
            "should fail when volume does not exist on the specified path",
        ],
    },
    Skipped {
        group: "NodeExpandVolume",
        message: "NodeExpandVolume not supported",
        reason: "inline volumes have no claim whose size could grow",
        specs: &[
            "should fail when no volume id is provided",
            "should fail when no volume path is provided",
            "should fail when volume is not found",
            "should work if node-expand is called after node-publish",
        ],
    },
    Skipped {
        group: "NodeGetVolumeHealth",
        message: "NodeGetVolumeHealth not supported",
        reason: "a tmpfs has no storage that could fail",
        specs: &["should fail when no volume id is provided", "should return health for a valid volume"],
    },
    Skipped {
        group: "NodeGetStorageHealth",
        message: "NodeGetStorageHealth not supported",
        reason: "a tmpfs has no storage that could fail",
        specs: &["should return appropriate response"],
    },
];

/// The specs that `--ginkgo.skip` leaves out: those of a controller, which a driver for inline
/// volumes does not have.
const LEFT_OUT: &str = r"\[(Controller Server|GroupController Server|GroupController VolumeGroupSnapshots)\]";

fn every_identity_and_node_spec_passes() -> Result<()> {
    let fixture = Fixture::new()?;
    let password = fixture.vault.set("password");
    let relay = fixture.relay(&Destination::Driver(fixture.node.setup().socket()))?;
    let run = fixture.run(&relay)?;
    ensure!(run.succeeded && run.failed.is_empty(), "{}\n{}", run.output, fixture.node.log());
    assert_eq!(
        run.passed,
        names(&PASSED),
        "the specs that pass are others; change the table if csi-sanity has new ones"
    );
    assert_eq!(run.skipped, skipped(), "csi-sanity skips other specs: name each in the table, with the reason");
    run.show_closing_line()?;

    let record = relay.record();
    // Each spec with a volume creates one; "should be idempotent" publishes its own ten times.
    for (method, answered, refused) in [
        ("/csi.v1.Controller/CreateVolume", 3, 0),
        ("/csi.v1.Controller/DeleteVolume", 3, 0),
        ("/csi.v1.Node/NodePublishVolume", 12, 3),
        ("/csi.v1.Node/NodeUnpublishVolume", 4, 2),
    ] {
        let counted = [Code::Ok, Code::InvalidArgument].map(|code| record.count(method, code));
        assert_eq!(counted, [answered, refused], "{method}: {:?}", record.calls);
    }
    let published = Contents::from([("password".to_owned(), password.into_bytes())]);
    ensure!(record.published == vec![Some(published); 12], "a publish that succeeded did not fill the volume");
    let metrics = fixture.node.metrics()?;
    let counters =
        ["node_publish_total", "node_publish_error_total", "node_unpublish_total", "node_unpublish_error_total"];
    assert_eq!(counters.map(|name| total(&metrics, name)), [12, 3, 4, 2], "{counters:?} of the driver:\n{metrics}");
    let target = fixture.folder().join("target");
    ensure!(mounts_on(&target)?.is_empty() && !fixture.folder().exists(), "{} is left", fixture.folder().display());
    Ok(())
}

/// The specs find mistakes: a driver that answers every call with an empty message passes only
/// those that accept it.
fn a_driver_that_does_nothing_fails() -> Result<()> {
    let fixture = Fixture::new()?;
    let run = fixture.run(&fixture.relay(&Destination::Nowhere)?)?;
    ensure!(!run.succeeded, "{}", run.output);
    assert_eq!(run.passed, names(&PASSED_BY_NOTHING), "{}", run.output);
    assert_eq!(run.failed, &names(&PASSED) - &names(&PASSED_BY_NOTHING), "{}", run.output);
    Ok(())
}

/// A driver with a class, and the volume of a pod that mounts it.
struct Fixture {
    node: Node,
    vault: Vault,
    volume: Volume,
}

impl Fixture {
    fn new() -> Result<Fixture> {
        let (node, vault) = (harness().node()?, harness().vault());
        node.class("demo", &vault.parameters(&["password"]))?;
        let volume = vault.volume("demo");
        Ok(Fixture { node, vault, volume })
    }

    fn relay(&self, destination: &Destination) -> Result<Relay> {
        Relay::start(&self.node.setup().folder, destination, &self.volume)
    }

    /// The directory of the volume, as a kubelet names it. csi-sanity creates and removes it, and
    /// the name of its target is `target` instead of a kubelet's `mount`.
    fn folder(&self) -> PathBuf {
        self.node.kubelet.target(&self.volume).parent().expect("a target is below its volume").to_owned()
    }

    /// Runs csi-sanity.
    fn run(&self, relay: &Relay) -> Result<Run> {
        let folder = self.folder();
        fs::create_dir_all(folder.parent().context("no parent")?)?;
        // Not below the harness's folder, where `leaks` finds each file with a secret.
        let files = tempfile::tempdir()?;
        let (secrets, report) = (files.path().join("secrets.yaml"), files.path().join("report.json"));
        fs::write(&secrets, json!({ "NodePublishVolumeSecret": self.volume.secrets }).to_string())?;
        let output = Command::new(program()?)
            .arg(format!("--csi.endpoint=unix://{}", relay.socket.display()))
            .arg(format!("--csi.mountdir={}", folder.display()))
            .arg("--csi.stagingdir=")
            .arg(format!("--csi.secrets={}", secrets.display()))
            .arg(format!("--ginkgo.skip={LEFT_OUT}"))
            .arg(format!("--ginkgo.json-report={}", report.display()))
            // Its calls have no deadline, but the whole run does.
            .args(["--ginkgo.timeout=2m", "--ginkgo.grace-period=5s", "--ginkgo.no-color", "--ginkgo.seed=1"])
            .output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        harness().remember(&text);
        let report = fs::read_to_string(&report).with_context(|| format!("csi-sanity wrote no report:\n{text}"))?;
        Run::parse(output.status.success(), text, &report)
    }
}

/// The outcome of a run, by names of specs.
#[derive(Debug, Default)]
struct Run {
    succeeded: bool,
    output: String,
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// With csi-sanity's message.
    skipped: BTreeSet<(String, String)>,
}

impl Run {
    /// Parses Ginkgo's report.
    fn parse(succeeded: bool, output: String, report: &str) -> Result<Run> {
        let report: Value = serde_json::from_str(report)?;
        let specs = report[0]["SpecReports"].as_array().context("a report without specs")?;
        let mut run = Run { succeeded, output, ..Run::default() };
        for spec in specs {
            let name = name(spec)?;
            let message = spec["Failure"]["Message"].as_str().unwrap_or_default();
            let is_new = match spec["State"].as_str().unwrap_or_default() {
                "passed" => run.passed.insert(name.clone()),
                "failed" | "timedout" | "panicked" | "interrupted" | "aborted" => run.failed.insert(name.clone()),
                "skipped" | "pending" if is_left_out(&name) => true,
                "skipped" => run.skipped.insert((name.clone(), message.to_owned())),
                state => bail!("{name} is {state}"),
            };
            ensure!(is_new, "two specs are called {name}");
        }
        Ok(run)
    }

    fn show_closing_line(&self) -> Result<()> {
        let line = self.output.lines().find(|line| line.contains(" Passed | ")).context("no closing line")?;
        ensure!(line.contains(&format!(" {} Passed | 0 Failed | ", PASSED.len())), "{line}");
        Ok(writeln!(std::io::stdout(), "csi-sanity: {line}")?)
    }
}

/// The name of a spec: the texts of its groups, then its own.
fn name(spec: &Value) -> Result<String> {
    let groups = spec["ContainerHierarchyTexts"].as_array().context("a spec without groups")?;
    let texts = groups.iter().chain([&spec["LeafNodeText"]]);
    let texts: Option<Vec<&str>> = texts.map(Value::as_str).collect();
    Ok(texts.context("a spec without a name")?.join(" "))
}

/// Whether [`LEFT_OUT`] matches.
fn is_left_out(name: &str) -> bool {
    let words = LEFT_OUT.trim_start_matches(r"\[(").trim_end_matches(r")\]");
    words.split('|').any(|word| name.contains(&format!("[{word}]")))
}

fn names(specs: &[&str]) -> BTreeSet<String> {
    specs.iter().map(|&name| name.to_owned()).collect()
}

/// The table of skipped specs as a run shows them.
fn skipped() -> BTreeSet<(String, String)> {
    let specs = SKIPPED.iter().flat_map(|skipped| {
        assert!(!skipped.reason.is_empty(), "{} has no reason", skipped.group);
        let name = move |spec| (format!("Node Service {} {spec}", skipped.group), skipped.message.to_owned());
        skipped.specs.iter().map(name)
    });
    specs.collect()
}

/// The sum of a counter's series.
fn total(metrics: &str, name: &str) -> usize {
    let series = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok()).sum()
}

/// The built csi-sanity.
fn program() -> Result<PathBuf> {
    let tools = std::env::var_os("KEYVAULT_CSI_TOOLS")
        .context("KEYVAULT_CSI_TOOLS is not set: run `make test`, or set it to the output of `e2e/tools`")?;
    let program = Path::new(&tools).join("bin/csi-sanity");
    let mode = fs::metadata(&program).map(|metadata| metadata.permissions().mode());
    ensure!(mode.is_ok_and(|mode| mode & 0o111 != 0), "{} is missing: run `e2e/tools csi-sanity`", program.display());
    Ok(program)
}
