//! Hostile classes: the driver refuses YAML that is too large, too deep or refers to itself,
//! quickly and in little memory, and its error names the class.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::json;

use crate::apiserver::{CLASSES, cluster};
use crate::harness::{Node, Vault, harness};
use crate::hostile::{Neighbour, Peak};

trials! { "hostile_classes":
    ten_thousand_objects_are_refused_without_a_request,
    yaml_bombs_are_refused,
    an_object_that_is_a_bomb_is_refused,
    the_largest_class_that_the_api_server_accepts_is_refused,
}

/// How many MiB one class may cost while the driver reads it:
/// several copies of its text, and the result.
const MEMORY: u64 = 48;
/// How long reading one class may take, in a debug build and on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Close to the largest API object, in bytes: etcd's limit is 1.5 MiB.
const LARGEST: usize = 1_400_000;

/// Publishes a volume whose class must be refused without a request to Azure;
/// returns the error text.
fn refused(node: &Node, vault: &Vault, volume: &Volume) -> Result<String> {
    let text = refused_for(node, volume)?;
    ensure!(vault.counters().total() + vault.entra().total() == 0, "the driver sent requests: {text}");
    Ok(text)
}

fn refused_for(node: &Node, volume: &Volume) -> Result<String> {
    let (peak, began) = (Peak::of(node.id())?, Instant::now());
    let status = node.refused_within(volume, PATIENCE * 2)?;
    ensure!(began.elapsed() < PATIENCE, "took {:?}", began.elapsed());
    peak.at_most(MEMORY)?;
    let text = status.message().to_owned();
    ensure!(text.len() < 16 << 10, "the text is {} bytes long", text.len());
    Ok(text)
}

/// The `objects` of a class with this number of secrets.
fn objects(count: usize) -> String {
    (0..count).fold("array:\n".to_owned(), |mut text, number| {
        // Writing to a String cannot fail.
        let _ = write!(text, "  - |\n    objectName: s{number}\n    objectType: secret\n");
        text
    })
}

fn ten_thousand_objects_are_refused_without_a_request() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let neighbour = Neighbour::new(&node)?;
    node.class("demo", &vault.parameters_of(&objects(10_000)))?;
    let text = refused(&node, &vault, &vault.volume("demo"))?;
    ensure!(text.contains("default/demo: objects lists 10000 objects; at most 500"), "{text}");
    neighbour.is_served(&node)
}

/// Texts that cost a naive YAML parser unbounded memory or time, by name.
fn bombs() -> Vec<(&'static str, String)> {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut merges = "a0: &a0 {k0: x, k1: x, k2: x, k3: x}\n".to_owned();
    for level in 1..30 {
        let row = vec![format!("*a{}", level - 1); 9].join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(laughs, "a{level}: &a{level} [{row}]");
        let _ = writeln!(merges, "a{level}: &a{level} {{<<: [{row}]}}");
    }
    let indented: String = (0..1_300).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let anchors: String = (0..40_000).map(|number| format!("k{number}: &n{number} x\n")).collect();
    let keys: String = (0..80_000).map(|number| format!("k{number}: x\n")).collect();
    vec![
        ("aliases of aliases", laughs + "array: *a29\n"),
        ("merges of merges", merges + "array: *a29\n"),
        ("an alias to itself", "array: &a [*a, *a]\n".to_owned()),
        ("lists in lists", "[".repeat(1_000_000)),
        ("lists in lists, closed", "[".repeat(500_000) + &"]".repeat(500_000)),
        ("mappings in mappings", "{a: ".repeat(250_000)),
        ("block lists in block lists", "- ".repeat(500_000)),
        ("block mappings in block mappings", indented),
        ("complex keys", "? ".repeat(500_000)),
        ("anchors", anchors),
        ("keys", keys),
        ("items", "array:\n".to_owned() + &"- a\n".repeat(250_000)),
        ("one text", format!("array:\n- {}\n", "x".repeat(1_000_000))),
        ("one quoted text", format!("array: \"{}", "\\u0041".repeat(170_000))),
        ("documents", "---\n".repeat(250_000)),
        ("comments", "#\n".repeat(500_000)),
        ("tags", "!".repeat(1_000_000)),
        ("blanks", " ".repeat(1_000_000)),
        ("tabs", "\t".repeat(1_000_000)),
        ("no line end at all, 1.4 MB", "a".repeat(LARGEST)),
        ("1.4 MB of objects", objects(LARGEST / 50)),
    ]
}

/// A volume with this `objects` attribute, which overrides the class's parameter and has no limit
/// of the API server's.
fn with_objects(vault: &Vault, text: &str) -> Volume {
    let mut volume = vault.volume("demo");
    volume.attributes.insert("objects".to_owned(), text.to_owned());
    volume
}

fn yaml_bombs_are_refused() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let neighbour = Neighbour::new(&node)?;
    node.class("demo", &vault.parameters(&["password"]))?;
    for (name, text) in bombs() {
        let text = refused(&node, &vault, &with_objects(&vault, &text)).with_context(|| name.to_owned())?;
        ensure!(text.contains("default/demo: objects ") || text.contains("default/demo: object 1: "), "{name}: {text}");
        neighbour.is_served(&node).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// The same bombs in the text of one object, which is YAML within YAML.
fn an_object_that_is_a_bomb_is_refused() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let neighbour = Neighbour::new(&node)?;
    node.class("demo", &vault.parameters(&["password"]))?;
    for (name, bomb) in bombs() {
        // Quoted, since a bomb may have any character.
        let object = serde_json::to_string(&format!("objectName: a\nobjectType: secret\n{bomb}"))?;
        let volume = with_objects(&vault, &format!("array:\n  - {object}\n"));
        match name {
            // Valid YAML: the vault does not have the object.
            "comments" | "blanks" | "documents" | "keys" | "anchors" | "one text" => {
                let (peak, began) = (Peak::of(node.id())?, Instant::now());
                node.refused_within(&volume, PATIENCE * 2)?;
                ensure!(began.elapsed() < PATIENCE, "{name} took {:?}", began.elapsed());
                peak.at_most(MEMORY).with_context(|| name.to_owned())?;
            }
            _ => {
                let before = vault.counters().total();
                let text = refused_for(&node, &volume).with_context(|| name.to_owned())?;
                ensure!(vault.counters().total() == before, "{name}: the driver sent requests to the vault: {text}");
            }
        }
        neighbour.is_served(&node).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn the_largest_class_that_the_api_server_accepts_is_refused() -> Result<()> {
    let cluster = cluster()?;
    let (node, _) = cluster.node()?;
    crate::apiserver::wait_for_watch(&node)?;
    let (vault, namespace) = (harness().vault(), cluster.namespace()?);
    let mut parameters = vault.parameters_of(&objects(LARGEST / 50));
    let length = parameters["objects"].len();
    ensure!((1_300_000..1_500_000).contains(&length), "{length} bytes");
    for name in ["demo", "again"] {
        let spec = json!({ "provider": "azure", "parameters": parameters });
        cluster.create(CLASSES, Some(&namespace), json!({ "metadata": { "name": name }, "spec": spec }))?;
        let mut volume = vault.volume(name);
        volume.namespace.clone_from(&namespace);
        let text = refused(&node, &vault, &volume)?;
        ensure!(text.contains("at most 1048576 are read") && text.contains(name), "{text}");
        // The next class is as large, with one object and a long comment.
        let comment = format!("#{}\n", "-".repeat(60));
        let text =
            format!("array:\n  - |\n    objectName: a\n    objectType: secret\n{}", comment.repeat(LARGEST / 62));
        parameters.insert("objects".to_owned(), text);
    }
    let own = harness().vault();
    own.set("password");
    cluster.class(&namespace, "neighbour", &own, &["password"])?;
    let mut volume = own.volume("neighbour");
    volume.namespace = namespace;
    Ok(node.publish(&volume).map(drop)?)
}
