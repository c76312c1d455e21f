//! docs/security.md: every promise in its tables names a test that exists.
//!
//! A table of promises has the head `| promise | test |`. The second cell of a row has, each in
//! backticks, one or more of: `module::name` for a test in a `trials!` of `tests/it` or
//! `e2e/tests/cluster`; or the path of a source file, followed by the names of tests in it.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

trials! { "security_page":
    every_promise_names_an_existing_test,
    planted_promises_without_a_test_are_found,
}

const PAGE: &str = "docs/security.md";

/// The names that a row may use: tests that print `module::name`, and functions in the text of a
/// source file.
struct Sources {
    printed: Vec<String>,
    read: fn(&str) -> Option<String>,
}

fn every_promise_names_an_existing_test() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut printed = Vec::new();
    for folder in ["tests/it", "e2e/tests/cluster"] {
        for entry in fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                printed.extend(listed(&fs::read_to_string(&path)?));
            }
        }
    }
    ensure!(printed.len() > 200, "only {} tests were found", printed.len());
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok();
    let page = fs::read_to_string(root.join(PAGE))?;
    let (rows, faults) = check(&page, &Sources { printed, read });
    ensure!(faults.is_empty(), "\n{}", faults.join("\n"));
    ensure!(rows >= 10, "only {rows} promises were found");
    Ok(())
}

/// Returns the printed names of a file's tests: those of its `trials!`, and those of single
/// `Trial`s.
fn listed(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some((_, list)) = text.split_once("\ntrials! { \"") {
        let (module, rest) = list.split_once("\":").unwrap_or_default();
        let names = rest.split("\n}").next().unwrap_or_default().split(',').map(str::trim);
        found.extend(names.filter(|name| !name.is_empty()).map(|name| format!("{module}::{name}")));
    }
    for start in ["Trial::test(\"", "crate::trial(\""] {
        let made = text.match_indices(start).filter_map(|(at, start)| text[at + start.len()..].split('"').next());
        found.extend(made.map(str::to_owned));
    }
    found
}

/// Returns the number of promises on the page, and their mistakes, as `file:line: mistake`.
fn check(page: &str, sources: &Sources) -> (usize, Vec<String>) {
    let (mut rows, mut faults, mut inside) = (0, Vec::new(), false);
    for (number, line) in page.lines().enumerate() {
        let cells = cells(line);
        if cells.first().is_none_or(|first| first.starts_with("---")) {
            inside &= !cells.is_empty();
            continue;
        }
        if !inside {
            // The head of a table; other tables than those of promises are skipped.
            inside = cells == ["promise", "test"];
            continue;
        }
        rows += 1;
        let wrong = match &cells[..] {
            [promise, tests] if !promise.is_empty() => missing(tests, sources),
            _ => Some("a promise has two cells".to_owned()),
        };
        faults.extend(wrong.map(|wrong| format!("{PAGE}:{}: {wrong}", number + 1)));
    }
    (rows, faults)
}

/// Returns the cells of a table's row; none if the line is not a row.
fn cells(line: &str) -> Vec<&str> {
    let row = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|'));
    row.map(|row| row.split('|').map(str::trim).collect()).unwrap_or_default()
}

/// Returns the mistake in a cell: a name that does not exist, or no name at all.
fn missing(cell: &str, sources: &Sources) -> Option<String> {
    // Every second piece is between backticks.
    let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    let mut file: Option<(&str, String)> = None;
    let mut tests = 0;
    for name in named {
        if name.contains('/') {
            let Some(text) = (sources.read)(name) else { return Some(format!("there is no file {name}")) };
            file = Some((name, text));
            continue;
        }
        tests += 1;
        let there = match &file {
            Some((_, text)) => ["fn ", "def "].iter().any(|word| defines(text, word, name)),
            None => sources.printed.iter().any(|printed| printed == name),
        };
        if !there {
            let place = file.as_ref().map_or("trials!", |(path, _)| path);
            return Some(format!("there is no test {name} in {place}"));
        }
    }
    (tests == 0).then(|| "no test is named in backticks".to_owned())
}

/// Whether a function of this name begins in a text.
fn defines(text: &str, word: &str, name: &str) -> bool {
    text.match_indices(&format!("{word}{name}")).any(|(at, start)| text[at + start.len()..].starts_with('('))
}

fn planted_promises_without_a_test_are_found() -> Result<()> {
    let listed = listed(
        "//! Doc.\n\ntrials! { \"m\":\n    a_test,\n    another,\n}\n\nfn x() { Trial::test(\"m::by_hand\", y); }\n",
    );
    assert_eq!(listed, ["m::a_test", "m::another", "m::by_hand"]);
    let read = |path: &str| (path == "src/a/tests.rs").then(|| "fn in_the_file() {}\ndef of_python():\n".to_owned());
    let sources = Sources { printed: listed, read };
    let head = "# Page\n\n| threat | answer |\n|---|---|\n| anything | goes |\n\n| promise | test |\n|---|---|\n";
    for (row, expected) in [
        ("| one | `m::a_test` |", None),
        ("| two | `m::a_test`, `m::another` |", None),
        ("| by hand | `m::by_hand` (in `make soak`) |", Some("make soak")),
        ("| by hand | `m::by_hand` |", None),
        ("| a file | `src/a/tests.rs` `in_the_file` |", None),
        ("| both | `m::a_test`; `src/a/tests.rs` `in_the_file`, `of_python` |", None),
        ("| gone | `m::gone` |", Some("there is no test m::gone in trials!")),
        ("| one of two | `m::a_test`, `m::gone` |", Some("m::gone")),
        ("| no module | `a_test` |", Some("there is no test a_test")),
        ("| no file | `src/b/tests.rs` `in_the_file` |", Some("there is no file src/b/tests.rs")),
        ("| not there | `src/a/tests.rs` `gone` |", Some("there is no test gone in src/a/tests.rs")),
        ("| a part | `src/a/tests.rs` `in_the` |", Some("there is no test in_the")),
        ("| only a file | `src/a/tests.rs` |", Some("no test is named")),
        ("| nothing | we are careful |", Some("no test is named")),
        ("| three | `m::a_test` | cells |", Some("two cells")),
    ] {
        let (rows, faults) = check(&format!("{head}{row}\n"), &sources);
        ensure!(rows == 1, "{row}: {rows} rows");
        match expected {
            None => ensure!(faults.is_empty(), "{row}: {faults:?}"),
            Some(words) => ensure!(
                faults.len() == 1 && faults[0].starts_with("docs/security.md:9: ") && faults[0].contains(words),
                "{row}: {faults:?}"
            ),
        }
    }
    // A table of promises ends with the first line that is not a row.
    let (rows, faults) =
        check(&format!("{head}\n| the attacker has | and gets |\n|---|---|\n| a pod | nothing |\n"), &sources);
    ensure!((rows, faults.len()) == (0, 0), "{rows} rows, {faults:?}");
    Ok(())
}
