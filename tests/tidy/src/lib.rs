//! Checks of the repository as text: every reference of code and docs leads somewhere, and every integration test runs.
//!
//! Reports each violation with file and line. It builds without the product. `tests/it/tidy.rs` checks the direction of
//! imports.
#![cfg(test)]

mod references;
mod registered;
mod tree;

/// Fails with all violations, one a line.
fn report(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}
