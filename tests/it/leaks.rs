//! Searches the logs of every level, errors, metrics and files that the other tests left for their
//! secrets.
//!
//! Runs after all other tests, and skips files in tmpfs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aho_corasick::AhoCorasick;
use anyhow::{Result, ensure};

use crate::harness::harness;

trials! { "leaks":
    the_search_finds_planted_secrets,
    no_secret_is_in_any_log_error_metric_or_file,
}

/// Where etcd keeps objects, Secrets among them.
const STORE: &str = "cluster/etcd";

/// So many bytes at the end of a secret distinguish it from others.
const DISTINCT: usize = 48;

/// Searches texts and all files below a folder, and returns where each secret was found.
fn search(folder: &Path, texts: &[String], secrets: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // All at once, since there are thousands. Tokens differ at the end only.
    let ends = secrets.iter().map(|secret| &secret.as_bytes()[secret.len().saturating_sub(DISTINCT)..]);
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
            // Published volumes and the API server's store are the right places for secrets.
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

/// Returns the forms in which a secret could appear.
fn forms(secret: &str) -> Vec<String> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let decimal = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    // In base64 of a longer text the form depends on the secret's offset in a group of three bytes.
    let bytes = secret.as_bytes();
    vec![secret.to_owned(), hex, decimal, base64(bytes), base64(&bytes[1..]), base64(&bytes[2..])]
}

/// Returns standard base64 of whole three-byte groups; the form of the rest depends on the next
/// bytes.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).flat_map(|group| {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift & 63) as usize]))
    });
    groups.collect()
}

fn the_search_finds_planted_secrets() -> Result<()> {
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
    // With a filter on the command line there may be no logs; but logs without secrets are a
    // mistake of the harness.
    ensure!(logs == 0 || !secrets.is_empty(), "{logs} logs, but no secret to search for");
    Ok(())
}
