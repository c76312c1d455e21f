//! The map of the product: each area, and the areas that it may import.
//!
//! `ARCHITECTURE.md` shows the same map to people; a test compares the two.

use crate::imports::{self, Import};
use crate::tree::{self, File};

/// An area, and what it may import besides itself. Areas below an allowed one are allowed, too.
pub(crate) const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cmd"]),
    (
        "cmd",
        &["azure", "backend", "classes", "compute", "formats", "kubernetes", "model", "node", "platform", "server"],
    ),
    ("node::csi", &["model", "node::volume", "platform", "queue", "server"]),
    ("node::plugin", &["azure::provider", "backend", "model", "server"]),
    ("node::mirror", &["compute", "kubernetes", "model", "node::volume", "platform", "queue", "secret", "server"]),
    (
        "node::rotation",
        &["backend", "classes", "kubernetes", "model", "node::volume", "platform", "queue", "server::metrics"],
    ),
    ("node::volume", &["backend", "classes", "kubernetes", "model", "platform", "queue", "server::metrics"]),
    ("backend", &["azure::provider", "backend::external", "model"]),
    ("backend::external", &["model", "platform", "queue", "server"]),
    ("azure::provider", &["azure::keyvault", "compute", "formats", "model", "platform"]),
    ("azure::keyvault", &["compute", "formats", "model", "platform", "server::metrics"]),
    ("secret", &["compute", "formats", "kubernetes", "model"]),
    ("classes", &["formats", "kubernetes", "model", "queue"]),
    ("kubernetes", &["formats", "model", "queue"]),
    ("compute", &["formats", "model", "platform", "server::metrics"]),
    ("server::admin", &["server::metrics"]),
    ("server::grpc", &["model", "platform", "server::telemetry"]),
    ("server::metrics", &["model"]),
    ("server::telemetry", &[]),
    ("queue", &["platform"]),
    ("model", &["formats"]),
    ("formats", &[]),
    ("platform", &[]),
];

/// The area of a path such as `node::volume::layout`; `None` for one that no row covers.
pub(crate) fn area(path: &str) -> Option<&'static str> {
    let covers = |area: &&str| path == *area || path.strip_prefix(*area).is_some_and(|rest| rest.starts_with("::"));
    LAYERS.iter().map(|(area, _)| *area).filter(covers).max_by_key(|area| area.len())
}

fn violations(file: &File) -> Vec<String> {
    let module = imports::module(&file.path, "src");
    let place = if module.is_empty() { "lib".to_owned() } else { module.join("::") };
    let container = LAYERS.iter().any(|(area, _)| area.starts_with(&format!("{place}::")));
    let Some(own) = area(&place) else {
        // The crate's root and folders that only declare areas import nothing.
        let imports = imports::of(file, "src");
        return match place == "lib" || container {
            true => {
                imports.iter().map(|import| complaint(file, import, "declares modules and imports nothing")).collect()
            }
            false => vec![format!("{}:1: module {place} has no row in LAYERS (tests/tidy/src/layers.rs)", file.path)],
        };
    };
    let allowed = LAYERS.iter().find(|(area, _)| *area == own).map_or(&[][..], |(_, allowed)| *allowed);
    let mut found = Vec::new();
    for import in imports::of(file, "src") {
        let path = import.path.join("::");
        // A path to a folder that only declares areas, or to something of the crate's root.
        let Some(other) = area(&path) else { continue };
        let below =
            |allowed: &&str| other == *allowed || other.strip_prefix(*allowed).is_some_and(|r| r.starts_with("::"));
        if other != own && !allowed.iter().any(below) {
            found.push(complaint(file, &import, &format!("{own} may not import {other}")));
        }
    }
    found
}

fn complaint(file: &File, import: &Import, what: &str) -> String {
    format!("{}:{}: {what}: {}", file.path, import.line, import.path.join("::"))
}

#[test]
fn imports_point_down() {
    let sources = tree::sources(&["src/"]);
    let product = sources.iter().filter(|file| !tree::is_test(&file.path));
    crate::report(&product.flat_map(violations).collect::<Vec<_>>());
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut found = Vec::new();
    let roots = [
        "src",
        "crates/h2-authority/src",
        "e2e/src",
        "e2e/azure/src",
        "e2e/apiserver/src",
        "e2e/bench/src",
        "e2e/tests/cluster",
        "tests/it",
        "tests/tidy/src",
    ];
    for root in roots {
        let sources = tree::sources(&[&format!("{root}/")]);
        assert!(!sources.is_empty(), "{root} has no sources");
        let tests = root == "tests/it" || root == "e2e/tests/cluster" || root == "tests/tidy/src";
        let product: Vec<&File> = sources.iter().filter(|file| tests || !tree::is_test(&file.path)).collect();
        found.extend(imports::circles(&product, root));
    }
    crate::report(&found);
}

#[test]
fn the_architecture_page_shows_the_same_map() {
    let page = tree::files().into_iter().find(|file| file.path == "ARCHITECTURE.md").expect("ARCHITECTURE.md");
    let section = page.text.split("\n### Layers\n").nth(1).expect("a heading Layers");
    let section = section.split("\n### ").next().unwrap_or_default();
    let names = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let shown: Vec<(Vec<String>, Vec<String>)> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            (names(cells.get(1).unwrap_or(&"")), names(cells.get(2).unwrap_or(&"")))
        })
        .collect();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let checked: Vec<_> = LAYERS.iter().map(|(area, allowed)| (owned(&[area]), owned(allowed))).collect();
    assert_eq!(shown, checked, "the table Layers in ARCHITECTURE.md differs from tests/tidy/src/layers.rs");
}

#[test]
fn every_area_exists() {
    let sources = tree::sources(&["src/"]);
    let modules: Vec<String> = sources.iter().map(|file| imports::module(&file.path, "src").join("::")).collect();
    for (name, _) in LAYERS {
        assert!(modules.iter().any(|module| area(module) == Some(name)), "no file belongs to the area {name}");
    }
}

#[test]
fn planted_violations_are_found() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    for (path, text, expected) in [
        (
            "src/model/a.rs",
            "use crate::node::volume::Error;",
            "src/model/a.rs:1: model may not import node::volume: node::volume::Error",
        ),
        (
            "src/node/volume/a.rs",
            "\nuse super::super::csi::Node;",
            "src/node/volume/a.rs:2: node::volume may not import node::csi: node::csi::Node",
        ),
        (
            "src/node/volume/a.rs",
            "use crate::{\n    node::csi::X,\n    model,\n};",
            "src/node/volume/a.rs:1: node::volume may not import node::csi: node::csi::X",
        ),
        ("src/util/a.rs", "", "src/util/a.rs:1: module util::a has no row in LAYERS (tests/tidy/src/layers.rs)"),
    ] {
        assert_eq!(violations(&file(path, text)), [expected]);
    }
    let fine = "use crate::model::Reason; // crate::node::csi would be wrong\nuse super::layout::{self, Step};";
    assert_eq!(violations(&file("src/node/volume/a.rs", fine)), [""; 0]);
}
