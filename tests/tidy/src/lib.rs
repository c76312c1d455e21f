//! Checks of the repository as text: direction of imports, homes of outside crates, shape and
//! language of files, references, and that every integration test runs.
//!
//! Reports each violation with file and line. It builds without the product, so that it runs in
//! seconds.
#![cfg(test)]

mod crates;
mod imports;
mod language;
mod layers;
mod references;
mod registered;
mod shape;
mod tree;

/// Fails with all violations, one a line.
fn report(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}
