//! The program: options, seed file, readiness line and exit.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use reqwest::Certificate;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::harness::{form, reply};

const SEED: &str = r#"{
    "tenants": [{ "id": "contoso.example", "clients": [{ "id": "an-app", "secret": "pass" }] }],
    "vaults": [{
        "name": "stack-vault", "suffix": "vault.stack.test", "tenant": "contoso.example",
        "grants": [{ "client": "an-app", "permissions": ["get"] }],
        "secrets": [{ "name": "thing", "value": "the-value", "attributes": { "tags": { "a": "b" } } }]
    }]
}"#;

/// A running program, killed on drop.
struct Running {
    child: Child,
    https: SocketAddr,
    admin: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_azure-emulator"))
}

fn start(arguments: &[&str]) -> Running {
    let mut child = program()
        // A separate address, so that no other test can bind the port after the program exits.
        .args(["--listen", "127.0.0.78:0", "--admin", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let rest = line.strip_prefix("azure-emulator ready: https on ").unwrap_or_else(|| panic!("{line:?}"));
    let (https, admin) = rest.trim_end().split_once(", admin ").unwrap();
    Running { child, https: https.parse().unwrap(), admin: admin.to_owned() }
}

fn fail(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = program().args(arguments).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

#[test]
fn a_seeded_program_serves_until_its_input_closes() {
    let folder = tempfile::tempdir().unwrap();
    let (seed, ca) = (folder.path().join("seed.json"), folder.path().join("ca.pem"));
    std::fs::write(&seed, SEED).unwrap();
    let names = ["--dns-name", "login.stack.test", "--dns-name", "*.vault.stack.test", "--until-stdin-closes"];
    let files = ["--seed", seed.to_str().unwrap(), "--ca-out", ca.to_str().unwrap()];
    let mut running = start(&[names.as_slice(), files.as_slice()].concat());
    let pem = std::fs::read_to_string(&ca).unwrap();
    assert!(!pem.contains("PRIVATE"), "keys are never written to disk");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder()
        .tls_certs_only([Certificate::from_pem(pem.as_bytes()).unwrap()])
        .no_proxy()
        .resolve("login.stack.test", running.https)
        .resolve("stack-vault.vault.stack.test", running.https)
        .build()
        .unwrap();
    let url = "https://login.stack.test/contoso.example/oauth2/v2.0/token";
    let form = form("an-app", "pass", "https://vault.stack.test/.default");
    let token = reply(http.post(url).form(&form)).unwrap().json()["access_token"].clone();
    let url = "https://stack-vault.vault.stack.test/secrets/thing?api-version=7.6";
    let document = reply(http.get(url).bearer_auth(token.as_str().unwrap())).unwrap().json();
    assert_eq!((&document["value"], &document["tags"]), (&json!("the-value"), &json!({ "a": "b" })));
    let health: Value = reply(http.get(format!("{}/health", running.admin))).unwrap().json();
    assert_eq!(health["status"], "ok");
    drop(running.child.stdin.take());
    assert!(running.child.wait().unwrap().success());
    assert!(TcpStream::connect(running.https).is_err());
}

#[test]
fn the_other_endpoints_are_in_the_readiness_line() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("cluster.pem");
    let endpoints = ["--imds", "127.0.0.1:0", "--token-proxy", "127.0.0.1:0", "--cluster-ca-out", ca.to_str().unwrap()];
    let running = start(&endpoints);
    let mut parts = running.admin.split(", ");
    let (admin, imds) = (parts.next().unwrap(), parts.next().unwrap().strip_prefix("imds ").unwrap());
    let proxy = parts.next().unwrap();
    let name = "token proxy aeaf29ip1hi5q38ebc3u4daum81u0unk52t5bg50j25234fmuj78g.ests.aks on 127.0.0.1:";
    assert!(proxy.starts_with(name), "{proxy}");
    assert!(std::fs::read_to_string(&ca).unwrap().contains("BEGIN CERTIFICATE"));
    let http = Client::builder().no_proxy().build().unwrap();
    let put = |path: &str, body: Value| reply(http.put(format!("{admin}{path}")).body(body.to_string())).unwrap();
    assert_eq!(put("/tenants/contoso.example", json!({})).status, 204);
    assert_eq!(put("/managed-identities/a-machine", json!({ "tenant": "contoso.example" })).status, 200);
    let query = [("api-version", "2018-02-01"), ("resource", "https://vault.azure.net")];
    let request = http.get(format!("{imds}/metadata/identity/oauth2/token")).query(&query);
    assert_eq!(reply(request.header("Metadata", "true")).unwrap().json()["client_id"], "a-machine");
    assert!(fail(&["--token-proxy", "127.0.0.1:0"]).contains("--cluster-ca-out"));
}

#[test]
fn the_program_exits_with_success_on_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let mut running = start(&[]);
        let id = running.child.id().to_string();
        assert!(Command::new("kill").args([signal, id.as_str()]).status().unwrap().success());
        assert!(running.child.wait().unwrap().success(), "{signal}");
    }
}

#[test]
fn the_program_exits_with_the_mistake_in_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let seed = folder.path().join("seed.json");
    let seed_path = seed.to_str().unwrap();
    let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let with_seed = [ports.as_slice(), &["--seed", seed_path]].concat();
    assert!(fail(&with_seed).contains("cannot read the seed file"));
    std::fs::write(&seed, r#"{ "vault": [] }"#).unwrap();
    assert!(fail(&with_seed).contains("unknown field `vault`"));
    std::fs::write(&seed, r#"{ "vaults": [{ "name": "abc", "tenant": "unknown" }] }"#).unwrap();
    assert!(fail(&with_seed).contains("no tenant \"unknown\""));
    assert!(fail(&["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"]).contains("no password"));
}

#[test]
fn the_help_names_every_option() {
    let output = program().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let options = [
        "--listen",
        "--admin",
        "--ca-out",
        "--dns-name",
        "--seed",
        "--latency",
        "--until-stdin-closes",
        "/etc/hosts",
        "--imds",
        "--token-proxy",
        "--cluster-id",
        "--cluster-ca-out",
    ];
    for option in options {
        assert!(help.contains(option), "{option} is missing in:\n{help}");
    }
}
