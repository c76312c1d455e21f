//! Nothing leaks: looks at everything that the other tests left for every secret that they moved.
//!
//! Runs after them. Logs of every level, errors that callers got, metrics, and every file outside tmpfs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aho_corasick::AhoCorasick;
use anyhow::{Result, ensure};

use crate::harness::harness;

trials! { "leaks":
    the_search_finds_what_it_looks_for,
    no_secret_is_in_any_log_error_metric_or_file,
}

/// Where etcd keeps objects, Secrets among them.
const STORE: &str = "cluster/etcd";

/// How much of a secret tells it apart.
const TOLD_APART: usize = 48;

/// Searches text and all files below a folder, and says where something was found.
fn search(folder: &Path, texts: &[String], secrets: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // All at once, since there are thousands; the end of each is enough, and tells one token from another.
    let ends = secrets.iter().map(|secret| &secret.as_bytes()[secret.len().saturating_sub(TOLD_APART)..]);
    let searcher = AhoCorasick::new(ends)?;
    let mut look = |place: &str, content: &[u8]| {
        for found_at in searcher.find_overlapping_iter(content) {
            let secret = &secrets[found_at.pattern().as_usize()];
            found.push(format!("{place} holds a secret that begins with {secret:.12}"));
        }
    };
    for (number, text) in texts.iter().enumerate() {
        look(&format!("text {number}"), text.as_bytes());
    }
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            // A volume that is still published, and the store of the API server: there secrets belong.
            if fs::metadata(&path)?.dev() != fs::metadata(folder)?.dev() || path == folder.join(STORE) {
                continue;
            }
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        } else if kind.is_file() {
            look(&path.display().to_string(), &fs::read(&path)?);
        }
    }
    Ok(found)
}

/// The forms in which a secret could appear.
fn forms(secret: &str) -> Vec<String> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let decimal = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    // Base64 of a longer text that holds it depends on where in a group of three it begins.
    let bytes = secret.as_bytes();
    vec![secret.to_owned(), hex, decimal, base64(bytes), base64(&bytes[1..]), base64(&bytes[2..])]
}

/// Standard base64 of whole three-byte groups; what is left over may differ by what follows.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).flat_map(|group| {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift & 63) as usize]))
    });
    groups.collect()
}

fn the_search_finds_what_it_looks_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let forms = forms("planted-secret");
    for (number, form) in forms.iter().enumerate() {
        fs::create_dir_all(folder.path().join(format!("deep/{number}")))?;
        fs::write(folder.path().join(format!("deep/{number}/file")), format!("before{form}after"))?;
    }
    let found = search(folder.path(), &["a planted-secret in a text".to_owned()], &forms)?;
    ensure!(found.len() > forms.len(), "{found:?}");
    Ok(())
}

fn no_secret_is_in_any_log_error_metric_or_file() -> Result<()> {
    let secrets = harness().secrets.lock().map_err(|_| anyhow::anyhow!("a test panicked"))?.clone();
    let texts = harness().texts.lock().map_err(|_| anyhow::anyhow!("a test panicked"))?.clone();
    let tokens = harness().azure().issued_tokens();
    let all: Vec<String> = secrets.iter().chain(&tokens).flat_map(|secret| forms(secret)).collect();
    let found = search(harness().folder.path(), &texts, &all)?;
    ensure!(found.is_empty(), "{}", found.join("\n"));
    let nodes = fs::read_dir(harness().folder.path())?.filter_map(Result::ok);
    let logs = nodes.filter(|node| node.path().join("node.log").exists()).count();
    // When other tests were left out by name, there may be nothing to look at; but logs without secrets are odd.
    ensure!(logs == 0 || !secrets.is_empty(), "{logs} logs, but no secret to look for");
    Ok(())
}
