//! Classes from a real API server: found at once, watched,
//! and available again after each kind of failure.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::apiserver::{CLASSES, Rights, cluster, wait_for_watch};
use crate::harness::{Node, Vault, harness};

trials! { "cluster_classes":
    a_class_is_found_as_soon_as_it_is_created,
    a_changed_class_takes_effect_and_a_deleted_one_is_gone,
    a_class_in_another_namespace_is_not_found_and_only_the_log_says_where_it_is,
    a_malformed_object_hides_no_other_and_its_own_publish_says_what_is_wrong,
    a_long_list_is_read_in_pages_and_completely,
    a_driver_without_the_right_to_list_gets_each_class,
    a_driver_without_rights_names_what_to_grant,
    an_api_server_that_starts_late_and_restarts_is_watched,
    a_server_that_refuses_every_connection_is_retried_with_backoff,
    without_manifests_and_credentials_the_driver_says_what_is_missing,
    a_kubeconfig_that_cannot_be_read_is_an_error,
}

const PATIENCE: Duration = Duration::from_secs(60);

fn volume(vault: &Vault, namespace: &str, class: &str) -> Volume {
    Volume { namespace: namespace.to_owned(), ..vault.volume(class) }
}

fn a_class_is_found_as_soon_as_it_is_created() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    let value = vault.set("password");
    let (node, user) = cluster.node()?;
    wait_for_watch(&node)?;
    let namespace = cluster.namespace()?;
    for class in 0..10 {
        let class = format!("c{class}");
        cluster.class(&namespace, &class, &vault, &["password"])?;
        let target = node.publish(&volume(&vault, &namespace, &class))?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    // The driver does not GET a class that its watch cache has. A GET of an absent class marks a
    // position in the audit log.
    let gets = |absent: usize| -> Result<usize> {
        node.refused(&volume(&vault, &namespace, "absent"))?;
        wait_for("the mark is in the log", PATIENCE, || {
            Ok(cluster.calls(&user)?.iter().filter(|call| call.code == 404).count() == absent)
        })?;
        Ok(cluster.count(&user, "get", CLASSES.1)? - absent)
    };
    let before = gets(1)?;
    node.publish(&volume(&vault, &namespace, "c0"))?;
    assert_eq!(gets(2)?, before);
    assert_eq!(cluster.count(&user, "list", CLASSES.1)?, 1);
    Ok(())
}

fn a_changed_class_takes_effect_and_a_deleted_one_is_gone() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("first");
    vault.set("second");
    let (node, _) = cluster.node()?;
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["first"])?;
    wait_for_watch(&node)?;
    let api = cluster.api(CLASSES, Some(&namespace));
    let change = json!({ "spec": { "parameters": vault.parameters(&["second"]) } });
    cluster.block_on(api.patch("demo", &PatchParams::default(), &Patch::Merge(change)))?;
    wait_for("the change is seen", PATIENCE, || {
        let target = node.publish(&volume(&vault, &namespace, "demo"))?;
        Ok(target.join("second").exists() && !target.join("first").exists())
    })?;
    cluster.block_on(api.delete("demo", &DeleteParams::default()))?;
    wait_for("the class is gone", PATIENCE, || {
        Ok(node
            .publish(&volume(&vault, &namespace, "demo"))
            .is_err_and(|status| status.message().contains("not found")))
    })
}

fn a_class_in_another_namespace_is_not_found_and_only_the_log_says_where_it_is() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("password");
    let (node, _) = cluster.node()?;
    let (there, here) = (cluster.namespace()?, cluster.namespace()?);
    // No other test uses this name: the log lists only the first few namespaces.
    cluster.class(&there, "strayed", &vault, &["password"])?;
    wait_for_watch(&node)?;
    wait_for("the log names the other namespace", PATIENCE, || {
        let status = node.refused(&volume(&vault, &here, "strayed"))?;
        let text = status.message();
        ensure!(text.contains(&format!("failed to get secretproviderclass {here}/strayed: not found")), "{text}");
        ensure!(!text.contains(&there), "{text}");
        Ok(node.log().contains(&format!("in namespace {there}")))
    })
}

fn a_malformed_object_hides_no_other_and_its_own_publish_says_what_is_wrong() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("password");
    let namespace = cluster.namespace()?;
    let malformed = |name: &str, spec: serde_json::Value| {
        json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": 1,
                          "creationTimestamp": "2026-11-22T05:00:00Z" },
            "spec": spec,
        })
    };
    let spec = json!({ "provider": "azure", "parameters": { "keyvaultName": 5 } });
    cluster.write_to_etcd(&namespace, "listed", &malformed("listed", spec))?;
    let (node, user) = cluster.node()?;
    wait_for_watch(&node)?;
    cluster.write_to_etcd(&namespace, "watched", &malformed("watched", json!({ "provider": ["azure"] })))?;
    cluster.class(&namespace, "good", &vault, &["password"])?;
    let status = node.refused(&volume(&vault, &namespace, "listed"))?;
    for word in [&format!("{namespace}/listed"), "spec.parameters.keyvaultName is a number", "ClassInvalid"] {
        ensure!(status.message().contains(word), "{status}");
    }
    let status = node.refused(&volume(&vault, &namespace, "watched"))?;
    ensure!(status.message().contains("spec.provider is a list"), "{status}");
    node.publish(&volume(&vault, &namespace, "good"))?;
    // The watch that delivered the malformed objects continues.
    cluster.class(&namespace, "later", &vault, &["password"])?;
    node.publish(&volume(&vault, &namespace, "later"))?;
    assert_eq!(cluster.count(&user, "list", CLASSES.1)?, 1);
    Ok(())
}

fn a_long_list_is_read_in_pages_and_completely() -> Result<()> {
    const MANY: usize = 230;
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("password");
    let namespace = cluster.namespace()?;
    for number in 0..MANY {
        cluster.class(&namespace, &format!("c{number}"), &vault, &["password"])?;
    }
    let (node, user) = cluster.node()?;
    wait_for_watch(&node)?;
    for number in [0, MANY / 2, MANY - 1] {
        node.publish(&volume(&vault, &namespace, &format!("c{number}")))?;
    }
    assert_eq!(cluster.count(&user, "get", CLASSES.1)?, 0, "a page was lost");
    ensure!(cluster.count(&user, "list", CLASSES.1)? >= 3);
    Ok(())
}

fn a_driver_without_the_right_to_list_gets_each_class() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("password");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["password"])?;
    let user = cluster.user(Rights::GetOnly)?;
    let node = Node::start(cluster.setup(&user))?;
    node.publish(&volume(&vault, &namespace, "demo"))?;
    wait_for("the driver gets the class", PATIENCE, || Ok(cluster.count(&user, "get", CLASSES.1)? >= 1))?;
    wait_for("the log says what to grant", PATIENCE, || {
        Ok(node.log().contains("ClusterRole secretproviderclasses-role"))
    })?;
    // Without the rights on statuses and events, the volume is mounted all the same.
    wait_for("the log names the rights on statuses", PATIENCE, || {
        Ok(node.log().contains("secretproviderclasspodstatuses of"))
    })
}

fn a_driver_without_rights_names_what_to_grant() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["password"])?;
    let user = cluster.user(Rights::None)?;
    let node = Node::start(cluster.setup(&user))?;
    let status = node.refused(&volume(&vault, &namespace, "demo"))?;
    let class = format!("failed to get secretproviderclass {namespace}/demo");
    for word in [class.as_str(), "forbidden", "get, list and watch on secretproviderclasses", "ApiServerForbidden"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    Ok(())
}

fn an_api_server_that_starts_late_and_restarts_is_watched() -> Result<()> {
    const PORT: u16 = 6444;
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("first");
    vault.set("second");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["first"])?;
    let user = cluster.user_at(Rights::All, PORT)?;
    // Without an API server the driver registers all the same, and a publish names the cause.
    let node = Node::start(cluster.setup(&user))?;
    node.kubelet.register(&node.setup().registration_socket())?;
    let status = node.refused(&volume(&vault, &namespace, "demo"))?;
    ensure!(status.message().contains("ApiServerUnavailable") && status.message().contains("refused"), "{status}");
    let server = cluster.serve(PORT)?;
    node.publish(&volume(&vault, &namespace, "demo"))?;
    let times = |words: &str| node.log().matches(words).count();
    wait_for("the driver watches", PATIENCE, || Ok(times("secretproviderclasses are watched again") >= 1))?;
    // After a crash of the server, the driver uses the class from its cache. A server that starts
    // refuses requests at first, so the log may have such a warning already.
    let warnings = times("cannot watch secretproviderclasses");
    cluster.kill(server)?;
    wait_for("the driver notices", PATIENCE, || Ok(times("cannot watch secretproviderclasses") > warnings))?;
    node.publish(&volume(&vault, &namespace, "demo"))?;
    // A change during the outage takes effect at the first publish after it.
    let change = json!({ "spec": { "parameters": vault.parameters(&["second"]) } });
    let api = cluster.api(CLASSES, Some(&namespace));
    cluster.block_on(api.patch("demo", &PatchParams::default(), &Patch::Merge(change)))?;
    let server = cluster.serve(PORT)?;
    let target = node.publish(&volume(&vault, &namespace, "demo"))?;
    ensure!(target.join("second").exists(), "the publish used the cached class although the server was back");
    // The longest backoff, and the longest time for which an unready server may hold a request.
    wait_for("the driver watches again", 2 * PATIENCE, || Ok(times("secretproviderclasses are watched again") >= 2))?;
    let target = node.publish(&volume(&vault, &namespace, "demo"))?;
    ensure!(target.join("second").exists(), "the watch missed the change during the outage");
    cluster.kill(server)
}

/// A proxy in front of the API server that counts connections,
/// and closes them at once while it is shut.
struct Gate {
    open: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Gate {
    fn new(port: u16) -> Result<Gate> {
        let gate = Gate { open: Arc::new(AtomicBool::new(false)), connections: Arc::default() };
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let (open, connections) = (Arc::clone(&gate.open), Arc::clone(&gate.connections));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                if let (true, Ok(server)) = (open.load(Ordering::Relaxed), TcpStream::connect("127.0.0.1:6443")) {
                    pump(&client, &server);
                    pump(&server, &client);
                }
            }
        });
        Ok(gate)
    }
}

fn pump(from: &TcpStream, to: &TcpStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    std::thread::spawn(move || {
        let mut buffer = [0; 16384];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

fn a_server_that_refuses_every_connection_is_retried_with_backoff() -> Result<()> {
    const PORT: u16 = 6445;
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("password");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["password"])?;
    let gate = Gate::new(PORT)?;
    let user = cluster.user_at(Rights::All, PORT)?;
    let node = Node::start(cluster.setup(&user))?;
    let began = Instant::now();
    wait_for("the driver has tried five times", PATIENCE, || Ok(gate.connections.load(Ordering::Relaxed) >= 5))?;
    // The backoff between five attempts is at least 0.5, 1, 2 and 4 s.
    ensure!(began.elapsed() >= Duration::from_secs(5), "five attempts within {:?}", began.elapsed());
    let warnings = node.log().matches("cannot watch secretproviderclasses").count();
    assert_eq!(warnings, 1, "the log has a warning for each attempt");
    gate.open.store(true, Ordering::Relaxed);
    node.publish(&volume(&vault, &namespace, "demo"))?;
    wait_for_watch(&node)
}

fn without_manifests_and_credentials_the_driver_says_what_is_missing() -> Result<()> {
    let setup = harness().setup();
    fs::create_dir_all(&setup.folder)?;
    let output = std::process::Command::new(&setup.binary)
        .args(["node", &format!("--endpoint=unix://{}", setup.socket().display())])
        .env_clear()
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success());
    for word in ["--manifests", "--kubeconfig", "KUBECONFIG", "service account"] {
        ensure!(text.contains(word), "{word:?} is missing in: {text}");
    }
    Ok(())
}

fn a_kubeconfig_that_cannot_be_read_is_an_error() -> Result<()> {
    let mut setup = harness().setup();
    let file = setup.folder.join("none.kubeconfig");
    setup.kubeconfig = Some(file.clone());
    let error = setup.start().err().context("the driver started")?;
    ensure!(format!("{error:#}").contains(&format!("the kubeconfig {} cannot be used", file.display())), "{error:#}");
    Ok(())
}
