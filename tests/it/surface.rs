//! The driver's interfaces: sockets, registration, capabilities, health, metrics, logs, flags,
//! signals.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Kind};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::{Kubelet, connect};
use keyvault_csi_proto::csi::identity_client::IdentityClient;
use keyvault_csi_proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, ProbeRequest,
};
use nix::sys::signal::Signal;

use crate::harness::{Node, harness};

trials! { "surface":
    sockets_are_private,
    a_stale_socket_is_replaced_and_a_live_one_refused,
    the_registration_says_what_the_kubelet_needs,
    a_refused_registration_is_offered_again,
    the_driver_declares_its_capabilities,
    health_and_readiness_report_the_actual_state,
    metrics_have_upstreams_names,
    logs_are_text_or_json,
    open_calls_finish_after_sigterm,
    signals_end_the_driver_and_remove_its_sockets,
    silent_connections_block_nothing,
    a_predecessor_does_not_remove_its_successors_socket,
    bad_flags_say_what_to_do,
    a_grpc_client_may_send_any_authority,
}

fn sockets_are_private() -> Result<()> {
    let node = harness().node()?;
    for socket in [node.setup().socket(), node.setup().registration_socket()] {
        assert_eq!(fs::metadata(socket)?.permissions().mode() & 0o777, 0o600);
    }
    Ok(())
}

fn a_stale_socket_is_replaced_and_a_live_one_refused() -> Result<()> {
    let node = harness().node()?;
    let output = node.setup().command().output()?;
    ensure!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(text.contains("another process is listening"), "{text}");
    // The second process must not remove the first one's socket.
    ensure!(UnixStream::connect(node.setup().socket()).is_ok());
    let setup = node.driver.kill()?;
    ensure!(setup.socket().exists(), "a killed process leaves its sockets");
    Node::start(setup)?;
    Ok(())
}

fn the_registration_says_what_the_kubelet_needs() -> Result<()> {
    let node = harness().node()?;
    let info = node.kubelet.register(&node.setup().registration_socket())?;
    assert_eq!(info.r#type, "CSIPlugin");
    assert_eq!(info.name, "secrets-store.csi.k8s.io");
    assert_eq!(info.endpoint, "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock");
    assert_eq!(info.supported_versions, ["1.0.0"]);
    Ok(())
}

fn a_refused_registration_is_offered_again() -> Result<()> {
    let node = harness().node()?;
    let socket = node.setup().registration_socket();
    node.kubelet.reject_registration(&socket, "no such driver wanted")?;
    let (status, body) = node.health("/readyz")?;
    assert_eq!(status, 503);
    ensure!(body.contains("no such driver wanted"), "{body}");
    wait_for("the refused socket is removed", Duration::from_secs(5), || Ok(!socket.exists()))?;
    wait_for("a new socket", Duration::from_secs(10), || Ok(UnixStream::connect(&socket).is_ok()))?;
    node.kubelet.register(&socket)?;
    assert_eq!(node.health("/readyz")?.0, 200);
    Ok(())
}

fn the_driver_declares_its_capabilities() -> Result<()> {
    let node = harness().node()?;
    let (mut client, runtime) = node.kubelet.node()?;
    runtime.block_on(async {
        let info = client.node_get_info(NodeGetInfoRequest {}).await?.into_inner();
        assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("node-1", 0));
        let claimed = client.node_get_capabilities(NodeGetCapabilitiesRequest {}).await?.into_inner();
        let text = format!("{claimed:?}");
        ensure!(claimed.capabilities.len() == 1 && text.contains("VolumeMountGroup"), "{text}");
        let mut identity = IdentityClient::new(connect(&node.setup().socket()).await?);
        let info = identity.get_plugin_info(GetPluginInfoRequest {}).await?.into_inner();
        assert_eq!(info.name, "secrets-store.csi.k8s.io");
        assert_eq!(info.vendor_version, env!("CARGO_PKG_VERSION"));
        assert_eq!(identity.probe(ProbeRequest {}).await?.into_inner().ready, Some(true));
        let plugin = identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await?.into_inner();
        ensure!(plugin.capabilities.is_empty());
        Ok(())
    })
}

fn health_and_readiness_report_the_actual_state() -> Result<()> {
    let node = harness().node()?;
    assert_eq!(node.health("/healthz")?, (200, "ok\n".to_owned()));
    let (status, body) = node.health("/readyz")?;
    ensure!(status == 503 && body.contains("not registered"), "{status} {body}");
    node.kubelet.register(&node.setup().registration_socket())?;
    assert_eq!(node.health("/readyz")?.0, 200);
    // The health check calls the socket: without it, the driver is not healthy.
    fs::remove_file(node.setup().socket())?;
    wait_for("the health check fails", Duration::from_secs(10), || {
        Ok(node.health("/healthz").is_ok_and(|(status, body)| status == 503 && body.contains("csi.sock")))
    })?;
    assert_eq!(node.health("/debug/pprof/")?.0, 404);
    Ok(())
}

fn metrics_have_upstreams_names() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    ensure!(!node.metrics()?.contains("node_publish_total{"), "a series before its first event");
    let volume = vault.volume("demo");
    node.publish(&volume)?;
    node.publish(&volume)?;
    node.refused(&vault.volume("absent"))?;
    node.kubelet.unpublish(&volume)?;
    let text = node.metrics()?;
    harness().remember(&text);
    let scope =
        "otel_scope_name=\"sigs.k8s.io/secrets-store-csi-driver\",otel_scope_version=\"\",otel_scope_schema_url=\"\"";
    for series in [
        format!("node_publish_total{{{scope},os_type=\"linux\",provider=\"azure\"}} 1"),
        format!("node_publish_total{{{scope},os_type=\"linux\",provider=\"\"}} 1"),
        format!(
            "node_publish_error_total{{{scope},os_type=\"linux\",provider=\"\",error_type=\"SecretProviderClassNotFound\",reason=\"ClassNotFound\"}} 1"
        ),
        format!("node_unpublish_total{{{scope},os_type=\"linux\"}} 1"),
    ] {
        ensure!(text.contains(&series), "{series} is missing in:\n{text}");
    }
    ensure!(text.contains("target_info{"), "{text}");
    Ok(())
}

fn logs_are_text_or_json() -> Result<()> {
    let vault = harness().vault();
    let run = |flags: &[&str]| -> Result<String> {
        let mut setup = harness().setup();
        setup.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let node = Node::start(setup)?;
        node.refused(&vault.volume("absent"))?;
        Ok(node.log())
    };
    let text = run(&[])?;
    let line = text.lines().find(|line| line.contains("publish failed")).context("no line")?;
    ensure!(line.starts_with('W') && line.contains("node.rs:") && line.contains("] \"publish failed\""), "{line}");
    ensure!(line.contains(" pod=\"default/web\"") && line.contains(" reason=\"ClassNotFound\""), "{line}");
    ensure!(!text.contains("node publish volume"), "debug events at verbosity 0");
    let json = run(&["--log-format-json", "-v=5"])?;
    let mut seen = false;
    for line in json.lines() {
        let object: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        for key in ["level", "timestamp", "caller", "message"] {
            ensure!(object[key].is_string(), "{key} is missing in {line}");
        }
        seen |= object["message"] == "publish failed" && object["error"].is_string() && object["pod"] == "default/web";
    }
    ensure!(seen && json.contains("node publish volume"), "{json}");
    Ok(())
}

fn open_calls_finish_after_sigterm() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let slow = Fault::new(Action::latency(Duration::from_secs(1))).host(&vault.name).kind(Kind::Get);
    harness().azure().add_fault(slow);
    let volume = vault.volume("demo");
    let Node { driver, kubelet, .. } = node;
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| kubelet.publish(&volume));
        wait_for("the request to the vault", Duration::from_secs(5), || Ok(vault.counters().get(Kind::Get) == 1))?;
        let status = driver.terminate()?;
        ensure!(status.success(), "{status}");
        publishing.join().map_err(|_| anyhow::anyhow!("the publish panicked"))?.map_err(anyhow::Error::from)
    })?;
    ensure!(published.join("password").exists(), "mounts stay when the driver ends");
    rustix::mount::unmount(&published, rustix::mount::UnmountFlags::empty())?;
    Ok(())
}

fn signals_end_the_driver_and_remove_its_sockets() -> Result<()> {
    let node = harness().node()?;
    let (socket, registration) = (node.setup().socket(), node.setup().registration_socket());
    node.signal(Signal::SIGINT)?;
    let status = node.driver.terminate()?;
    ensure!(status.success(), "{status}");
    ensure!(!socket.exists() && !registration.exists(), "a socket remains, and the kubelet would keep using it");
    Ok(())
}

fn silent_connections_block_nothing() -> Result<()> {
    let node = harness().node()?;
    let _silent =
        [UnixStream::connect(node.setup().socket())?, UnixStream::connect(node.setup().registration_socket())?];
    let mut halves = Vec::new();
    for port in [8095, 9808] {
        for _ in 0..40 {
            let mut half = std::net::TcpStream::connect((node.setup().address.as_str(), port))?;
            half.write_all(b"GET /metr")?;
            halves.push(half);
        }
    }
    // Other clients wait at most for the time limit of a connection.
    wait_for("a response", Duration::from_secs(20), || {
        Ok(node.health("/healthz").is_ok_and(|answer| answer.0 == 200))
    })?;
    // A refused registration is offered again although a connection is open.
    node.kubelet.reject_registration(&node.setup().registration_socket(), "later")?;
    wait_for("a registration", Duration::from_secs(10), || {
        Ok(node.kubelet.register(&node.setup().registration_socket()).is_ok())
    })?;
    let began = Instant::now();
    ensure!(node.driver.terminate()?.success());
    ensure!(began.elapsed() < Duration::from_secs(5), "it took {:?} to stop", began.elapsed());
    Ok(())
}

fn a_predecessor_does_not_remove_its_successors_socket() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let hang = Fault::new(Action::latency(Duration::from_secs(2))).host(&vault.name).kind(Kind::Get).times(1);
    harness().azure().add_fault(hang);
    let volume = vault.volume("demo");
    let mut setup = node.setup().clone();
    setup.address = harness().setup().address;
    let Node { driver, kubelet, .. } = node;
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| kubelet.publish(&volume));
        wait_for("the request to the vault", Duration::from_secs(5), || Ok(vault.counters().get(Kind::Get) == 1))?;
        driver.signal(Signal::SIGTERM)?;
        // The second driver starts with the same sockets while the first one still finishes its
        // call.
        wait_for("the first stops listening", Duration::from_secs(5), || Ok(!setup.socket().exists()))?;
        let successor = Node::start(setup.clone())?;
        publishing.join().map_err(|_| anyhow::anyhow!("the publish panicked"))??;
        ensure!(driver.terminate()?.success());
        ensure!(setup.socket().exists() && setup.registration_socket().exists(), "a successor's socket was removed");
        successor.publish(&vault.volume("demo"))?;
        Ok(())
    })
}

fn bad_flags_say_what_to_do() -> Result<()> {
    let binary = env!("CARGO_BIN_EXE_keyvault-csi");
    let manifests = format!("--manifests={}", harness().folder.path().display());
    for (flags, words) in [
        (&["--endpoint=tcp://127.0.0.1:1"][..], &["tcp is not served"][..]),
        (&["--endpoint=unix://"], &["unix://"]),
        (&["--endpoint=fake.sock"], &["unix://"]),
        (&["--drivername=../escape"], &["domain-like name"]),
        (&["--metrics-addr=nonsense"], &["ADDRESS:PORT"]),
        (&["--registration-dir=/tmp"], &["--kubelet-registration-path"]),
        (&["--cloud-name=AzureCloud1", "--endpoint=unix:///tmp/kv-unused/csi.sock"], &["AzureCloud1"]),
        (&["--manifests=/no/such/folder", "--endpoint=unix:///tmp/kv-unused/csi.sock"], &["/no/such/folder"]),
    ] {
        let given = flags.iter().any(|flag| flag.starts_with("--manifests"));
        let output = Command::new(binary)
            .arg("node")
            .args(flags)
            .args((!given).then_some(&manifests))
            .env_clear()
            .env("SSL_CERT_FILE", &harness().ca)
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{flags:?} was accepted");
        for word in words {
            ensure!(text.contains(word), "{flags:?}: {word:?} is missing in: {text}");
        }
    }
    let version = Command::new(binary).arg("--version").output()?;
    ensure!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    Ok(())
}

/// A client with another gRPC library sends every `:authority` that kubelets have sent: the path of
/// the socket, unencoded or percent-encoded, and `localhost`.
fn a_grpc_client_may_send_any_authority() -> Result<()> {
    let node = harness().node()?;
    let python = std::env::var_os("KEYVAULT_CSI_PYTHON")
        .context("KEYVAULT_CSI_PYTHON is not set: run `make test`, which makes a Python with grpcio")?;
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/python/authority.py"))
        .arg(node.setup().socket())
        .arg(node.setup().registration_socket())
        .output()?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{text}\n{errors}");
    ensure!(text.lines().filter(|line| line.starts_with("ok ")).count() == 8, "{text}");
    // The driver still serves clients after all of them.
    Kubelet::new(&node.setup().kubelet_root(), &node.setup().socket())?
        .register(&node.setup().registration_socket())?;
    Ok(())
}
