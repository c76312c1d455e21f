//! Outside crates: each has one home, so that a change of a library touches one folder.

use crate::tree::{self, File};
use crate::{imports, layers};

/// Each outside crate of the product, and the areas that may name it. An empty list: it is used
/// everywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("anyhow", &["cmd", "node::csi", "node::plugin", "server"]),
    ("async_trait", &[]),
    ("axum", &["server::admin"]),
    ("azure_core", &["azure::keyvault"]),
    ("azure_identity", &["azure::keyvault"]),
    ("azure_security_keyvault_secrets", &["azure::keyvault"]),
    ("backon", &["azure::keyvault"]),
    ("base64", &["azure::keyvault", "formats"]),
    ("bytes", &["azure::keyvault", "server::grpc"]),
    ("cbc", &["formats"]),
    ("clap", &["cmd"]),
    ("der", &["formats"]),
    ("des", &["formats"]),
    ("futures", &[]),
    ("h2_authority", &["server::grpc"]),
    ("hex", &["azure::keyvault", "formats", "kubernetes"]),
    ("hickory_resolver", &["azure::keyvault"]),
    ("hmac", &["formats"]),
    ("http", &["azure::keyvault", "kubernetes", "server"]),
    ("hyper", &["server"]),
    ("hyper_util", &["server"]),
    ("jiff", &[]),
    ("k8s_openapi", &["kubernetes"]),
    ("keyvault_csi_proto", &["backend::external", "node::csi", "node::plugin", "server::grpc"]),
    ("kube", &["kubernetes"]),
    ("libc", &["platform"]),
    ("openssl_probe", &["azure::keyvault"]),
    ("pkcs12", &["formats"]),
    ("pkcs5", &["formats"]),
    ("pkcs8", &["formats"]),
    ("prometheus_client", &["server::metrics"]),
    ("prost", &["backend::external", "node::csi", "node::plugin", "server::grpc"]),
    ("rc2", &["formats"]),
    ("reqwest", &["azure::keyvault"]),
    ("ring", &["azure::keyvault"]),
    ("rustix", &["platform"]),
    ("rustls", &["azure::keyvault"]),
    ("rustls_native_certs", &["azure::keyvault"]),
    ("sec1", &["formats"]),
    ("secrecy", &["model"]),
    ("serde", &[]),
    ("serde_json", &[]),
    ("serde_saphyr", &["formats"]),
    ("sha1", &["formats"]),
    ("sha2", &[]),
    ("spki", &["formats"]),
    ("thiserror", &[]),
    ("tokio", &[]),
    ("tokio_stream", &["server::grpc"]),
    ("tokio_util", &["cmd", "kubernetes", "node::csi", "node::plugin", "server"]),
    ("tonic", &["backend::external", "node::csi", "node::plugin", "server::grpc"]),
    ("tonic_prost", &["backend::external", "node::csi", "node::plugin", "server::grpc"]),
    ("tower", &["azure::keyvault", "server"]),
    ("tracing", &[]),
    ("tracing_subscriber", &["server::telemetry"]),
    ("url", &["azure::keyvault"]),
    ("x509_cert", &["formats"]),
    ("zeroize", &[]),
    ("zeroizing_alloc", &["main"]),
];

/// What only these files may name: the doors through which names of tenants reach the API server,
/// and the proof that a cloud's file is the administrator's.
const DOORS: &[(&str, &[&str])] = &[
    ("Api::", &["src/kubernetes/objects.rs", "src/kubernetes/watch.rs"]),
    ("kube::Api", &["src/kubernetes/objects.rs", "src/kubernetes/watch.rs"]),
    ("/api/v1/", &["src/kubernetes/secrets.rs"]),
    ("AdministratorFile(", &["src/azure/keyvault/administrator_file.rs"]),
];

/// Whether a line names this crate: `name::` that is not the tail of a longer path or word.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let free = |c: char| !c.is_alphanumeric() && c != '_' && c != ':';
        code[..at].chars().next_back().is_none_or(free) && code[at + name.len()..].starts_with("::")
    })
}

fn violations(file: &File) -> Vec<String> {
    let module = imports::module(&file.path, "src").join("::");
    let own = layers::area(&module).unwrap_or("lib");
    let imported = imports::of(file, "src");
    let own_module = |name: &str| {
        imported.iter().any(|import| import.path.len() > 1 && import.path.last().is_some_and(|last| last == name))
    };
    let mut found = Vec::new();
    for (number, line) in imports::code(&file.text).lines().enumerate() {
        for (name, homes) in HOMES.iter().filter(|(_, homes)| !homes.is_empty()) {
            let inside = |home: &&str| own == *home || own.strip_prefix(*home).is_some_and(|r| r.starts_with("::"));
            // A module of ours may have a crate's name: `formats::pkcs12`.
            if names(line, name) && !own_module(name) && !homes.iter().any(inside) {
                let homes = homes.join(", ");
                found.push(format!("{}:{}: {name} is at home in {homes} only", file.path, number + 1));
            }
        }
        for (door, files) in DOORS {
            if line.contains(door) && !files.contains(&file.path.as_str()) {
                found.push(format!("{}:{}: {door} belongs into {} only", file.path, number + 1, files.join(", ")));
            }
        }
    }
    found
}

#[test]
fn outside_crates_stay_at_home() {
    let sources = tree::sources(&["src/"]);
    crate::report(&sources.iter().filter(|file| !tree::is_test(&file.path)).flat_map(violations).collect::<Vec<_>>());
}

#[test]
fn every_dependency_has_a_row() {
    let manifest = tree::files().into_iter().find(|file| file.path == "Cargo.toml").expect("Cargo.toml");
    let section = manifest.text.split("\n[dependencies]\n").nth(1).expect("dependencies");
    let section = section.split("\n[").next().unwrap_or_default();
    let listed = section.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty());
    let listed: Vec<String> = listed.map(|name| name.replace('-', "_")).collect();
    let mut found: Vec<String> = Vec::new();
    found.extend(
        listed
            .iter()
            .filter(|name| !HOMES.iter().any(|(known, _)| known == name))
            .map(|name| format!("Cargo.toml: {name} has no row in HOMES (tests/tidy/src/crates.rs)")),
    );
    found.extend(
        HOMES
            .iter()
            .filter(|(known, _)| !listed.iter().any(|name| name == known))
            .map(|(known, _)| format!("tests/tidy/src/crates.rs: {known} is not a dependency any more")),
    );
    crate::report(&found);
}

#[test]
fn planted_violations_are_found() {
    for (path, text, expected) in [
        ("src/azure/provider/a.rs", "use reqwest::Client;", "reqwest is at home in azure::keyvault only"),
        (
            "src/model/a.rs",
            "fn f() -> tonic::Status {}",
            "tonic is at home in backend::external, node::csi, node::plugin, server::grpc only",
        ),
        (
            "src/kubernetes/a.rs",
            "let api = Api::namespaced(c, n);",
            "Api:: belongs into src/kubernetes/objects.rs, src/kubernetes/watch.rs only",
        ),
    ] {
        let found = violations(&File { path: path.to_owned(), text: text.to_owned() });
        assert_eq!(found, [format!("{path}:1: {expected}")]);
    }
    let fine = "use crate::formats::pkcs12;\nfn f(x: my_reqwest::X) -> pkcs12::Archive {}";
    let fine = File { path: "src/azure/provider/a.rs".to_owned(), text: fine.to_owned() };
    assert_eq!(violations(&fine), [""; 0]);
}
