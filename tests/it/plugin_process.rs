//! The provider as a process, compatible with upstream's: socket, health, metrics, flags, signals.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use azure_emulator::{Action, Fault, Kind};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::provider::UpstreamDriver;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::harness;
use crate::plugin::{Fixture, objects};

trials! { "plugin_process":
    version_and_health_are_answered_as_upstreams_provider_does,
    healthz_checks_the_socket,
    metrics_have_upstreams_names_and_bounded_labels,
    the_socket_is_private_and_replaces_a_stale_one_but_not_a_live_one,
    open_mounts_finish_after_sigterm,
    any_authority_is_served,
    upstreams_flags_are_accepted,
    bad_flags_say_what_to_do,
}

fn version_and_health_are_answered_as_upstreams_provider_does() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let version = fixture.driver.version()?;
    assert_eq!(version.version, "v1alpha1");
    assert_eq!(version.runtime_name, "secrets-store-csi-driver-provider-azure");
    assert_eq!(version.runtime_version, env!("CARGO_PKG_VERSION"));
    for service in ["", "liveness", "v1alpha1.CSIDriverProvider"] {
        assert_eq!(fixture.driver.health(service)?, "SERVING");
    }
    Ok(())
}

fn healthz_checks_the_socket() -> Result<()> {
    let fixture = Fixture::new(&["--healthz-path=/{health}", "--healthz-timeout", "500ms"])?;
    assert_eq!(fixture.provider.health("/{health}")?, (200, "ok\n".to_owned()));
    for path in ["/healthz", "/health", "/debug/pprof/"] {
        assert_eq!(fixture.provider.health(path)?.0, 404, "{path}");
    }
    fs::rename(fixture.provider.setup().socket(), fixture.provider.setup().folder.join("away"))?;
    let fails_with = |words: &'static [&'static str]| {
        wait_for(&format!("a health response with {words:?}"), Duration::from_secs(10), || {
            let (status, body) = fixture.provider.health("/{health}")?;
            Ok(status == 503 && words.iter().all(|word| body.contains(word)))
        })
    };
    fails_with(&["azure.sock"])?;
    // A listener that accepts connections and never responds.
    let silent = std::os::unix::net::UnixListener::bind(fixture.provider.setup().socket())?;
    fails_with(&["no answer", "500ms"])?;
    drop(silent);
    Ok(())
}

fn metrics_have_upstreams_names_and_bounded_labels() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    ensure!(!fixture.provider.metrics()?.contains("grpc_request_count{"), "a series before its first event");
    fixture.vault.set("password");
    fixture.mount(&fixture.request(&objects(&[("secret", "password", "")])))?;
    ensure!(fixture.mount(&fixture.request(&objects(&[("secret", "missing", "")]))).is_err());
    fixture.driver.version()?;
    assert_eq!(fixture.provider.health("/healthz")?.0, 200);
    let text = fixture.provider.metrics()?;
    harness().remember(&text);
    let service = "provider=\"azure\",os_type=\"linux\",service_name=\"csi-secrets-store-provider-azure\"";
    for (name, labels) in [
        ("grpc_request", "grpc_method=\"/v1alpha1.CSIDriverProvider/Mount\",grpc_code=\"OK\",grpc_message=\"\""),
        (
            "grpc_request",
            "grpc_method=\"/v1alpha1.CSIDriverProvider/Mount\",grpc_code=\"Unknown\",grpc_message=\"ObjectNotFound\"",
        ),
        ("grpc_request", "grpc_method=\"/v1alpha1.CSIDriverProvider/Version\",grpc_code=\"OK\",grpc_message=\"\""),
        ("grpc_request", "grpc_method=\"/grpc.health.v1.Health/Check\",grpc_code=\"OK\",grpc_message=\"\""),
        ("keyvault_request", "object_type=\"secret\",object_name=\"\",error=\"\""),
        ("keyvault_request", "object_type=\"secret\",object_name=\"\",error=\"ObjectNotFound\""),
    ] {
        let end = format!("{service},{labels}}} 1");
        let count = format!("{name}_count{{");
        let found = text.lines().any(|line| line.starts_with(&count) && line.ends_with(&end));
        ensure!(found, "{count} … {end} is missing in:\n{text}");
        for bound in ["0.1", "0.5", "30", "+Inf"] {
            let bucket = format!("le=\"{bound}\",");
            let found =
                text.lines().any(|line| line.starts_with(&format!("{name}_bucket{{")) && line.contains(&bucket));
            ensure!(found, "{name} has no bucket {bound}:\n{text}");
        }
    }
    ensure!(text.contains("target_info{"), "{text}");
    Ok(())
}

fn the_socket_is_private_and_replaces_a_stale_one_but_not_a_live_one() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let socket = fixture.provider.setup().socket();
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o600);
    let mut second = fixture.provider.setup().clone();
    second.ports = harness().provider_setup().ports;
    let output = second.command().output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && text.contains("another process is listening"), "{text}");
    assert_eq!(fixture.driver.health("")?, "SERVING", "the second process must not disturb the first");
    let setup = fixture.provider.kill()?;
    ensure!(socket.exists() && UnixStream::connect(&socket).is_err(), "a killed process leaves its socket");
    let provider = setup.start()?;
    // Drivers keep one connection, and reconnect to the same path.
    wait_for("the driver reconnects", Duration::from_secs(10), || Ok(fixture.driver.version().is_ok()))?;
    provider.signal(Signal::SIGINT)?;
    ensure!(provider.terminate()?.success());
    ensure!(!socket.exists(), "the socket remains, and drivers would wait for it");
    Ok(())
}

fn open_mounts_finish_after_sigterm() -> Result<()> {
    let Fixture { provider, driver, vault } = Fixture::new(&[])?;
    let value = vault.set("password");
    let slow = Fault::new(Action::latency(Duration::from_secs(1))).host(&vault.name).kind(Kind::Get);
    harness().azure().add_fault(slow);
    let request = UpstreamDriver::request(&vault.parameters(&["password"]), &vault.volume("demo"));
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| driver.mount(&request, Duration::from_secs(60)));
        wait_for("the request to the vault", Duration::from_secs(5), || Ok(vault.counters().get(Kind::Get) == 1))?;
        let status = provider.terminate()?;
        ensure!(status.success(), "{status}");
        let response = mounting.join().map_err(|_| anyhow::anyhow!("the mount panicked"))??;
        assert_eq!(response.files[0].contents, value.as_bytes());
        Ok(())
    })
}

/// Drivers before 1.6 send the socket's path as `:authority`.
fn any_authority_is_served() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let Some(python) = std::env::var_os("KEYVAULT_CSI_PYTHON") else {
        anyhow::bail!("KEYVAULT_CSI_PYTHON is not set: run `make test`, which makes a Python with grpcio");
    };
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/python/provider_authority.py"))
        .arg(fixture.provider.setup().socket())
        .output()?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{text}\n{errors}");
    ensure!(text.lines().filter(|line| line.starts_with("ok ")).count() == 3, "{text}");
    Ok(())
}

fn upstreams_flags_are_accepted() -> Result<()> {
    let fixture = Fixture::new(&[
        "-log-format-json",
        "--construct-pem-chain=true",
        "--write-cert-and-key-in-separate-files",
        "--cloud-name=azurepubliccloud",
        "--metrics-backend=prometheus",
        "--custom-user-agent",
        "team-a/1.0",
        "--enable-pprof",
        "-pprof-port=6060",
        "-logtostderr=true",
        "-stderrthreshold=2",
    ])?;
    fixture.vault.set("password");
    fixture.mount(&fixture.request(&objects(&[("secret", "password", "")])))?;
    let log = fixture.provider.log();
    for line in log.lines() {
        serde_json::from_str::<Value>(line).map_err(|_| anyhow::anyhow!("not JSON: {line}"))?;
    }
    ensure!(log.contains("there is no profiler") && log.contains("objects fetched"), "{log}");
    let journal = harness().azure().journal();
    let requests: Vec<_> = journal.iter().filter(|entry| entry.service == fixture.vault.name).collect();
    let named = |agent: &str| agent.contains("keyvault-csi/") && agent.ends_with(" team-a/1.0");
    for entry in &requests {
        ensure!(entry.user_agent.as_deref().is_some_and(named), "{entry:?}");
    }
    ensure!(!requests.is_empty(), "the vault got no request");
    let output = Command::new(env!("CARGO_BIN_EXE_keyvault-csi")).args(["provider", "-version"]).output()?;
    let version: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    ensure!(version["buildDate"].is_string() && output.status.success(), "{version}");
    Ok(())
}

fn bad_flags_say_what_to_do() -> Result<()> {
    for (flag, word) in [
        ("--endpoint=tcp://127.0.0.1:1", "tcp is not served"),
        ("--endpoint=unix://", "unix://"),
        ("--endpoint=", "unix://"),
        ("--endpoint=udp:///x", "unix://"),
        ("--cloud-name=AzureCloud1", "AzureCloud1"),
        ("--metrics-backend=OpenCensus", "Prometheus"),
        ("--healthz-path=healthz", "/healthz"),
        ("--healthz-timeout=0s", "above 0"),
        ("--healthz-port=65536", "65535"),
        ("--custom-user-agent=a\nb", "printable ASCII"),
        ("--nodeid=n", "--nodeid"),
    ] {
        let mut setup = harness().provider_setup();
        setup.flags.push(flag.to_owned());
        let output = setup.command().output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && text.contains(word), "{flag}: {word:?} is missing in: {text}");
    }
    // A port in use: upstream's provider continues, and its liveness probe then fails.
    let fixture = Fixture::new(&[])?;
    let mut second = harness().provider_setup();
    fs::create_dir_all(&second.providers)?;
    second.ports[0] = fixture.provider.setup().ports[0];
    let output = second.command().output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && text.contains("--healthz-port"), "{text}");
    Ok(())
}
