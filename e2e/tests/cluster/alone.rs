//! What stops the driver or the kubelet, and what takes rights away: one test at a time, with no other beside it.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::{http_get, wait_for};
use serde_json::{Value, json};

use crate::kubectl::{PATIENCE, cluster, condition, event, exec, get, helm, kubectl, ready};
use crate::pods::status;
use crate::release::{self, NAMESPACE, RELEASE};
use crate::scene::Scene;

trials! { "alone":
    a_driver_that_is_deleted_is_soon_ready_again,
    an_upgrade_of_the_image_is_not_noticed_by_pods,
    a_kubelet_that_restarts_goes_on,
    a_pod_that_comes_before_the_driver_starts_with_it,
    every_right_of_the_role_is_needed,
}

/// What the driver itself may take of the time from its deletion until it is ready again.
const OWN_TIME: Duration = Duration::from_secs(2);
const ROLE: &str = "secretproviderclasses-role";

/// A pod that reads its file all the time, and ends with the first wrong answer.
struct Reader {
    scene: Scene,
}

impl Reader {
    fn start(about: &str) -> Result<Reader> {
        let scene = Scene::new(about)?;
        let value = scene.set("a");
        scene.credentials()?;
        scene.class("demo", &["a"])?;
        let script = format!(
            "reads=0; while :; do [ \"$(cat /mnt/demo/a)\" = '{value}' ] || exit 1; reads=$((reads + 1)); echo $reads > /tmp/reads; usleep 5000; done"
        );
        scene.pod("web", &["demo"], &script)?;
        ready(&scene.namespace, "web")?;
        let reader = Reader { scene };
        reader.goes_on()?;
        Ok(reader)
    }

    /// Waits until it has read another ten times; it never got a wrong answer so far.
    fn goes_on(&self) -> Result<()> {
        let before = self.reads()?;
        wait_for("the pod reads on", PATIENCE, || Ok(self.reads()? > before + 10))?;
        let pod = get(&self.scene.namespace, "pod", "web")?.context("no pod")?;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        Ok(())
    }

    fn reads(&self) -> Result<u64> {
        let read = exec(&self.scene.namespace, "web", &["cat", "/tmp/reads"])?;
        // Empty while it is being written.
        Ok(read.trim().parse().unwrap_or_default())
    }
}

fn a_driver_that_is_deleted_is_soon_ready_again() -> Result<()> {
    let reader = Reader::start("deleted")?;
    let old = process()?.context("no process of the driver is seen")?;
    let began = Instant::now();
    let name = release::kill()?;
    let mut seen = None;
    wait_for("the driver's process ends", PATIENCE, || Ok(process()? != Some(old)))?;
    let ended = began.elapsed();
    wait_for("its next process starts", PATIENCE, || {
        seen = process()?.filter(|new| *new != old);
        Ok(seen.is_some())
    })?;
    let started = began.elapsed();
    wait_for("it says that it is ready", PATIENCE, || Ok(says_ready()))?;
    let says = began.elapsed();
    wait_for("the driver's pod is Ready again", PATIENCE, || {
        Ok(release::pods()?.iter().any(|pod| pod["metadata"]["name"] != name.as_str() && condition(pod, "Ready")))
    })?;
    let ready = began.elapsed();
    // Between the two processes, the kubelet ends one pod and starts another.
    let own = ended + (says - started);
    tell(&format!(
        "driver deleted: process ended after {ended:.2?}, next one started after {started:.2?}, ready after {says:.2?}, its pod after {ready:.2?}: {own:.2?} without the cluster's part"
    ))?;
    ensure!(own <= OWN_TIME, "{own:.2?} without the cluster's part, more than {OWN_TIME:?}");
    reader.goes_on()
}

/// Whether `/readyz` of the driver on this node says so; the kubelet's probe asks once a second, and tells later.
fn says_ready() -> bool {
    http_get("127.0.0.1:9808", "/readyz").is_ok_and(|(status, _)| status == 200)
}

/// The driver's process on this node.
fn process() -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends meanwhile is not the one.
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments.starts_with(b"/keyvault-csi\0node\0") {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn an_upgrade_of_the_image_is_not_noticed_by_pods() -> Result<()> {
    let reader = Reader::start("upgrade")?;
    let old = release::pod()?;
    release::load("second")?;
    release::put("upgrade", "second")?;
    let pods = release::pods()?;
    ensure!(pods.iter().all(|pod| pod["metadata"]["name"] != old.as_str()), "{old} is still there");
    let image = pods[0]["spec"]["containers"][0]["image"].to_string();
    ensure!(image.contains(":second"), "{image}");
    reader.goes_on()?;
    // The new driver takes the old one's mount down.
    crate::kubectl::delete_pod(&reader.scene.namespace, "web")
}

fn a_kubelet_that_restarts_goes_on() -> Result<()> {
    let reader = Reader::start("kubelet")?;
    cluster(&["restart", "kubelet"])?;
    reader.goes_on()?;
    let after = Reader::start("kubelet")?;
    crate::kubectl::delete_pod(&reader.scene.namespace, "web")?;
    after.goes_on()
}

fn a_pod_that_comes_before_the_driver_starts_with_it() -> Result<()> {
    helm("uninstall", RELEASE, None)?;
    wait_for("the driver is gone", PATIENCE, || Ok(release::pods()?.is_empty()))?;
    let scene = Scene::new("early")?;
    let value = scene.set("a");
    scene.credentials()?;
    scene.class("demo", &["a"])?;
    scene.pod("web", &["demo"], "sleep 10000")?;
    // What more the kubelet says depends on its version: no CSIDriver object, or no driver of the name.
    event(&scene.namespace, "web", "FailedMount", &["secrets-store.csi.k8s.io"])?;
    release::put("install", "first")?;
    ready(&scene.namespace, "web")?;
    assert_eq!(exec(&scene.namespace, "web", &["cat", "/mnt/demo/a"])?, value);
    Ok(())
}

/// Takes each verb of the role away in turn, and looks for what does not work any more.
fn every_right_of_the_role_is_needed() -> Result<()> {
    let role = get("", "clusterrole", ROLE)?.context("no role")?;
    let rules = role["rules"].clone();
    let mut asked = Vec::new();
    for (index, rule) in rules.as_array().context("no rules")?.iter().enumerate() {
        for (number, verb) in rule["verbs"].as_array().context("no verbs")?.iter().enumerate() {
            let right = (rule["resources"][0].as_str().unwrap_or_default(), verb.as_str().unwrap_or_default());
            asked.push(right);
            let mut fewer = rules.clone();
            let verbs = fewer[index]["verbs"].as_array_mut().context("no verbs")?;
            verbs.remove(number);
            if verbs.is_empty() {
                // A rule without a verb is refused; this one allows nothing.
                verbs.push(json!("nothing"));
            }
            grant(&fewer)?;
            let missed = misses(right);
            grant(&rules)?;
            missed.with_context(|| format!("without {} {}", right.1, right.0))?;
        }
    }
    assert_eq!(asked.len(), 7, "{asked:?}");
    release::restart()
}

/// Makes these the role's rules, and waits until the API server judges by them.
fn grant(rules: &Value) -> Result<()> {
    kubectl(&["patch", "clusterrole", ROLE, "--type=merge", "--patch", &json!({ "rules": rules }).to_string()])?;
    let account = format!("system:serviceaccount:{NAMESPACE}:secrets-store-csi-driver");
    let words = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let wanted: Vec<(String, String)> = rules
        .as_array()
        .context("no rules")?
        .iter()
        .map(|rule| {
            let resource = format!("{}.{}", words(&rule["resources"]).join(""), words(&rule["apiGroups"]).join(""));
            (resource.trim_end_matches('.').to_owned(), format!("[{}]", words(&rule["verbs"]).join(" ")))
        })
        .collect();
    wait_for("the API server judges by the new rules", PATIENCE, || {
        // Columns: resource, other URLs, names, verbs.
        let listed = kubectl(&["auth", "can-i", "--list", "--as", &account, "--namespace", "default"])?;
        Ok(wanted.iter().all(|(resource, verbs)| {
            listed
                .lines()
                .any(|line| line.split_whitespace().next() == Some(resource) && line.trim_end().ends_with(verbs))
        }))
    })
}

/// Does what needs a right, and waits until the driver tells that it lacks it.
fn misses(right: (&str, &str)) -> Result<()> {
    let scene = Scene::new("rights")?;
    scene.set("a");
    scene.credentials()?;
    let logged = |words: &[&str]| {
        wait_for(&format!("a line with {words:?} in the driver's log"), PATIENCE, || {
            Ok(release::log()?.lines().any(|line| words.iter().all(|word| line.contains(word))))
        })
    };
    match right {
        ("secretproviderclasses", "get") => {
            scene.pod("web", &["absent"], "sleep 10000")?;
            event(&scene.namespace, "web", "FailedMount", &["absent", "forbidden"]).map(drop)
        }
        ("secretproviderclasses", _) => {
            release::restart()?;
            logged(&["cannot watch secretproviderclasses", "forbidden"])
        }
        ("events", "create") => {
            // The log tells of the first only, so that it must be a new one's.
            release::restart()?;
            scene.pod("web", &["absent"], "sleep 10000")?;
            logged(&["cannot send an event", "forbidden"])
        }
        ("secretproviderclasspodstatuses", verb) => {
            scene.class("demo", &["a"])?;
            if verb != "create" {
                // One of another node is there already, which is to be replaced.
                scene.apply(&stale(&scene))?;
            }
            scene.pod("web", &["demo"], "sleep 10000")?;
            ready(&scene.namespace, "web")?;
            logged(&["cannot write the SecretProviderClassPodStatus", &scene.namespace, "forbidden"])?;
            if verb == "create" {
                ensure!(
                    get(&scene.namespace, "secretproviderclasspodstatus", &format!("web-{}-demo", scene.namespace))?
                        .is_none()
                );
                return Ok(());
            }
            ensure!(status(&scene, "demo")?["status"]["targetPath"] == "/elsewhere", "it was replaced");
            Ok(())
        }
        other => anyhow::bail!("nobody has said what {other:?} is for"),
    }
}

fn stale(scene: &Scene) -> String {
    json!({
        "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClassPodStatus",
        "metadata": {"name": format!("web-{}-demo", scene.namespace)},
        "status": {"podName": "web", "secretProviderClassName": "demo", "mounted": true, "targetPath": "/elsewhere", "objects": []},
    })
    .to_string()
}

/// A figure for whoever reads the tests' output.
fn tell(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}")?;
    Ok(())
}
