//! A damaged CA bundle: at the start the driver exits with an error, later it continues with the
//! last good bundle.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use keyvault_csi_e2e::driver::{DriverSetup, wait_for};

use crate::harness::{Node, harness};

trials! { "bundles":
    a_damaged_bundle_at_the_start_is_an_error_that_names_it,
    a_bundle_that_is_damaged_in_part_serves_with_the_rest,
    a_bundle_that_is_damaged_while_running_changes_nothing,
}

const PATIENCE: Duration = Duration::from_secs(30);

/// A driver with a CA bundle of its own, and the content of a good one.
fn with_bundle() -> Result<(DriverSetup, PathBuf, Vec<u8>)> {
    let mut setup = harness().setup();
    let bundle = setup.folder.join("bundle.pem");
    let good = fs::read(&setup.ca)?;
    setup.ca.clone_from(&bundle);
    Ok((setup, bundle, good))
}

/// Ways in which a file gets damaged: truncated, overwritten, emptied, or replaced.
fn damages(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let end = good.len() - 40;
    let mut flipped = good.to_vec();
    // In the middle of the base64, so that the lines around it stay intact.
    flipped[good.len() / 2] = b'!';
    let mut other_content = good.to_vec();
    let at = good.len() / 2;
    // Valid base64 that is not DER.
    other_content[at - 8..at].fill(b'A');
    vec![
        ("empty", Vec::new()),
        ("truncated at its end", good[..end].to_vec()),
        ("truncated in the middle", good[..good.len() / 2].to_vec()),
        ("only the first line", b"-----BEGIN CERTIFICATE-----\n".to_vec()),
        ("a character that is not base64", flipped),
        ("zeros, as after a power cut", vec![0; good.len()]),
        ("random bytes", (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("text", b"<html>404 not found</html>\n".repeat(1_000)),
        ("a certificate of nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
        ("ten megabytes of begins", b"-----BEGIN CERTIFICATE-----\n".repeat(400_000)),
    ]
}

fn a_damaged_bundle_at_the_start_is_an_error_that_names_it() -> Result<()> {
    let (_, _, good) = with_bundle()?;
    for (name, content) in damages(&good) {
        let (setup, bundle, _) = with_bundle()?;
        fs::write(&bundle, content)?;
        match setup.clone().start() {
            Ok(_) => bail!("{name}: the driver starts"),
            Err(error) => {
                let text = format!("{error:#}");
                for word in ["the process exited", "CA certificates", "SSL_CERT_FILE"] {
                    ensure!(text.contains(word), "{name}: {word:?} is missing in: {text}");
                }
                ensure!(!text.contains("panicked") && text.len() < 16 << 10, "{name}: {text}");
            }
        }
        // With a repaired bundle, the driver starts in the same folder.
        fs::write(&bundle, &good)?;
        setup.start().with_context(|| format!("after: {name}"))?;
    }
    for name in ["missing", "a directory"] {
        let (setup, bundle, _) = with_bundle()?;
        if name == "a directory" {
            fs::create_dir(&bundle)?;
        }
        let text =
            setup.start().err().map(|error| format!("{error:#}")).with_context(|| format!("{name}: it starts"))?;
        ensure!(text.contains("the process exited") && text.contains("SSL_CERT_FILE"), "{name}: {text}");
    }
    Ok(())
}

fn a_bundle_that_is_damaged_in_part_serves_with_the_rest() -> Result<()> {
    let (setup, bundle, good) = with_bundle()?;
    fs::write(&bundle, [&good, &good[..good.len() / 2]].concat())?;
    let (node, vault) = (Node::start(setup)?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    node.publish(&vault.volume("demo"))?;
    ensure!(node.log().contains("some CA certificates cannot be read"), "{}", node.log());
    Ok(())
}

fn a_bundle_that_is_damaged_while_running_changes_nothing() -> Result<()> {
    let (setup, bundle, good) = with_bundle()?;
    fs::write(&bundle, &good)?;
    let (node, vault) = (Node::start(setup)?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    node.publish(&vault.volume("demo"))?;
    let warnings =
        || node.log().matches("the CA certificates have changed and cannot be used; the old ones stay").count();
    // The driver notices each within five seconds, and handles all alike:
    // every third one is enough.
    for (name, content) in damages(&good).into_iter().step_by(3) {
        let before = warnings();
        // In place, as an editor or a full disk damages a file.
        fs::write(&bundle, content)?;
        // The driver checks the files every five seconds, when it has a request.
        wait_for(&format!("the driver notices: {name}"), PATIENCE, || {
            node.publish(&vault.volume("demo")).with_context(|| name.to_owned())?;
            Ok(warnings() > before)
        })?;
        ensure!(warnings() == before + 1, "{name}: {} warnings", warnings() - before);
    }
    fs::remove_file(&bundle)?;
    node.publish(&vault.volume("demo"))?;
    // The driver reads a repaired bundle, here with one more certificate.
    let more = rcgen::generate_simple_self_signed(vec!["one.more".to_owned()])?.cert.pem();
    fs::write(&bundle, [&good, more.as_bytes()].concat())?;
    wait_for("the driver reads the repaired bundle", PATIENCE, || {
        node.publish(&vault.volume("demo"))?;
        Ok(node.log().contains("the CA certificates have changed and were read again"))
    })
}
