//! The architecture, held: who may import whom, which outside crate has which home, and how long a file may be.
//!
//! Reads the sources as text; a violation is told with file and line. ARCHITECTURE.md gives the reasons.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

trials! { "tidy":
    the_sources_keep_the_rules,
    planted_violations_are_found,
}

/// Each module, and what it may import of ours. A module that is not listed is a violation.
const DIRECTION: &[(&str, &[&str])] = &[
    ("main", &["cmd"]),
    ("lib", &[]),
    (
        "cmd",
        &[
            "admin",
            "classes",
            "compute",
            "csi",
            "external",
            "formats",
            "k8s",
            "keyvault",
            "metrics",
            "mirror",
            "model",
            "platform",
            "plugin",
            "provider",
            "telemetry",
            "volume",
        ],
    ),
    ("admin", &["csi", "metrics", "plugin"]),
    ("csi", &["grpc", "metrics", "model", "platform", "telemetry", "volume"]),
    ("plugin", &["grpc", "metrics", "model", "provider", "telemetry"]),
    ("mirror", &["compute", "formats", "k8s", "metrics", "model", "news", "platform", "telemetry", "volume"]),
    ("volume", &["classes", "external", "k8s", "metrics", "model", "news", "platform", "provider"]),
    ("external", &["grpc", "metrics", "model", "platform", "telemetry"]),
    ("grpc", &["model", "platform", "telemetry"]),
    ("provider", &["compute", "formats", "keyvault", "model", "platform"]),
    ("keyvault", &["compute", "formats", "metrics", "model", "platform"]),
    ("classes", &["formats", "k8s", "model", "news"]),
    ("k8s", &["formats", "model", "news"]),
    ("compute", &["formats", "metrics", "model", "platform"]),
    ("model", &["formats"]),
    ("formats", &[]),
    ("platform", &[]),
    ("metrics", &["model"]),
    ("news", &[]),
    ("telemetry", &[]),
];

/// Each outside crate that has a home, and its homes.
const HOMES: &[(&str, &[&str])] = &[
    ("kube", &["k8s"]),
    ("k8s_openapi", &["k8s"]),
    ("tonic", &["csi", "external", "grpc", "plugin"]),
    ("tonic_prost", &["csi", "external", "grpc", "plugin"]),
    ("prost", &["csi", "external", "grpc", "plugin"]),
    ("keyvault_csi_proto", &["csi", "external", "grpc", "plugin"]),
    ("loona_hpack", &["grpc"]),
    ("azure_core", &["keyvault"]),
    ("azure_identity", &["keyvault"]),
    ("azure_security_keyvault_secrets", &["keyvault"]),
    ("reqwest", &["keyvault"]),
    ("hickory_resolver", &["keyvault"]),
    ("ring", &["keyvault"]),
    ("rustls_native_certs", &["keyvault"]),
    ("openssl_probe", &["keyvault"]),
    ("rustls", &["keyvault"]),
    ("rustix", &["platform"]),
    ("libc", &["platform"]),
    ("serde_saphyr", &["formats"]),
    ("base64", &["formats", "keyvault"]),
    ("hex", &["formats", "k8s", "keyvault"]),
    ("cbc", &["formats"]),
    ("der", &["formats"]),
    ("des", &["formats"]),
    ("hmac", &["formats"]),
    ("pkcs5", &["formats"]),
    ("pkcs8", &["formats"]),
    ("rc2", &["formats"]),
    ("sec1", &["formats"]),
    ("sha1", &["formats"]),
    ("spki", &["formats"]),
    ("x509_cert", &["formats"]),
    ("axum", &["admin"]),
    ("prometheus_client", &["metrics"]),
    ("tracing_subscriber", &["telemetry"]),
    ("clap", &["cmd"]),
    ("hyper", &["admin", "grpc"]),
    ("anyhow", &["cmd", "csi", "plugin", "telemetry"]),
    ("zeroizing_alloc", &["main"]),
];

/// What only these files may name: the doors through which names of tenants reach the API server, and the proof that a
/// cloud's file is the administrator's.
const DOORS: &[(&str, &[&str])] = &[
    ("Api::", &["k8s/objects.rs", "k8s/watch.rs"]),
    ("kube::Api", &["k8s/objects.rs", "k8s/watch.rs"]),
    ("/api/v1/", &["k8s/secrets.rs"]),
    ("AdministratorFile(", &["keyvault/cloud_files.rs"]),
];

/// Modules without I/O and without async.
const PURE: &[&str] = &["model", "formats"];

/// The longest file, tests and generated code apart.
const LINES: usize = 400;

/// One source file: its path below `src`, its module, its text.
struct Source {
    path: String,
    module: String,
    text: String,
}

fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder)? {
            let path: PathBuf = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root)?.to_string_lossy().into_owned();
                let module = below.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
                sources.push(Source { path: below, module, text: fs::read_to_string(&path)? });
            }
        }
    }
    Ok(sources)
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Everything that breaks a rule, as `file:line: what`.
fn violations(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let test = is_test(&source.path);
    let lines: Vec<&str> = source.text.lines().collect();
    let mut report = |line: usize, what: String| found.push(format!("src/{}:{}: {what}", source.path, line + 1));
    if !test && !source.text.starts_with("//! ") {
        report(0, "no module documentation".to_owned());
    }
    if lines.len() > LINES {
        report(LINES, format!("{} lines; at most {LINES} are allowed", lines.len()));
    }
    let Some((_, allowed)) = DIRECTION.iter().find(|(module, _)| *module == source.module) else {
        report(0, format!("module {} has no place in the direction of imports", source.module));
        return found;
    };
    let header: String = lines.iter().take_while(|line| line.starts_with("//!")).copied().collect();
    let pure = PURE.contains(&source.module.as_str()) || header.contains("Pure");
    for (number, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // A braced list that is broken over lines counts where it begins.
        let whole = match code.ends_with("crate::{") {
            true => lines[number..].iter().take_while(|line| !line.contains('}')).copied().collect::<String>() + "}",
            false => code.to_owned(),
        };
        for module in imported(&whole) {
            if module != source.module && !allowed.contains(&module) && !test {
                report(number, format!("{} may not import {module}", source.module));
            }
        }
        for (name, homes) in HOMES {
            if names_crate(code, name) && !homes.contains(&source.module.as_str()) && !test {
                report(number, format!("{name} is at home in {} only", homes.join(", ")));
            }
        }
        for (door, files) in DOORS {
            if code.contains(door) && !files.contains(&source.path.as_str()) && !test {
                report(number, format!("{door} belongs into {} only", files.join(", ")));
            }
        }
        if pure
            && !test
            && ["async ", "std::fs", "std::net", "tokio::fs", "tokio::net"].iter().any(|word| code.contains(word))
        {
            report(number, "a pure file does no I/O and is never async".to_owned());
        }
        if source.module != "platform"
            && (code.contains("cfg(target_os") || code.contains("cfg(windows") || code.contains("cfg(unix"))
        {
            report(number, "only platform looks at the operating system".to_owned());
        }
    }
    found
}

/// Our modules that a line names after `crate::`, also in a braced list on one line.
fn imported(code: &str) -> Vec<&str> {
    let mut modules = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                modules.extend(list.split(',').map(|item| word(item.trim())));
            }
            None => modules.push(word(rest)),
        }
    }
    modules.retain(|module| DIRECTION.iter().any(|(known, _)| known == module));
    modules
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Whether a line names this crate: `name::` that is not the tail of a longer path or word.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let free = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
        free && code[at + name.len()..].starts_with("::")
    })
}

fn the_sources_keep_the_rules() -> Result<()> {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))?;
    ensure!(sources.len() > 50, "only {} sources were found", sources.len());
    let found: Vec<String> = sources.iter().flat_map(violations).collect();
    ensure!(found.is_empty(), "\n{}", found.join("\n"));
    for (folder, most) in [("tests/it", 500), ("e2e/src", LINES), ("e2e/azure/src", LINES)] {
        for source in self::sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))? {
            let lines = source.text.lines().count();
            ensure!(lines <= most, "{folder}/{}: {lines} lines; at most {most} are allowed", source.path);
        }
    }
    Ok(())
}

fn planted_violations_are_found() -> Result<()> {
    let long = format!("//! Doc.\n{}", "\n".repeat(LINES));
    for (path, text, expected) in [
        ("model/a.rs", "//! Doc.\nuse crate::volume::Error;", "src/model/a.rs:2: model may not import volume"),
        ("volume/a.rs", "//! Doc.\n\nuse crate::{csi, model};", "src/volume/a.rs:3: volume may not import csi"),
        ("volume/a.rs", "//! Doc.\nuse crate::{\n    csi,\n};", "src/volume/a.rs:2: volume may not import csi"),
        (
            "volume/a.rs",
            "//! Doc.\nfn f() -> tonic::Status {}",
            "src/volume/a.rs:2: tonic is at home in csi, external, grpc, plugin only",
        ),
        ("provider/a.rs", "//! Doc.\nuse reqwest::Client;", "src/provider/a.rs:2: reqwest is at home in keyvault only"),
        ("model/a.rs", "use x;", "src/model/a.rs:1: no module documentation"),
        ("model/a.rs", "//! Doc.\nasync fn f() {}", "src/model/a.rs:2: a pure file does no I/O and is never async"),
        ("volume/a.rs", "//! Pure.\nuse std::fs;", "src/volume/a.rs:2: a pure file does no I/O and is never async"),
        ("csi/a.rs", "//! Doc.\n#[cfg(windows)]", "src/csi/a.rs:2: only platform looks at the operating system"),
        (
            "k8s/a.rs",
            "//! Doc.\nlet api = Api::namespaced_with(c, n, r);",
            "src/k8s/a.rs:2: Api:: belongs into k8s/objects.rs, k8s/watch.rs only",
        ),
        ("util/a.rs", "//! Doc.", "src/util/a.rs:1: module util has no place in the direction of imports"),
        ("csi/a.rs", &long, "src/csi/a.rs:401: 401 lines; at most 400 are allowed"),
    ] {
        let module = path.split('/').next().unwrap_or_default().to_owned();
        let found = violations(&Source { path: path.to_owned(), module, text: text.to_owned() });
        assert_eq!(found, [expected]);
    }
    let fine = "//! Doc.\nuse crate::model::Reason; // crate::csi would be wrong\nfn f(x: my_tonic::X) {}";
    let fine = Source { path: "volume/a.rs".to_owned(), module: "volume".to_owned(), text: fine.to_owned() };
    assert_eq!(violations(&fine), [""; 0]);
    Ok(())
}
