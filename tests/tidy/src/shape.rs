//! The shape of files: length, module docs, width of comments, purity, registered tests.

use regex::Regex;

use crate::tree::{self, File, is_test};

/// The longest source file, in lines.
const LINES: usize = 400;
/// The longest file of integration tests, in lines.
const TEST_LINES: usize = 500;
/// The widest comment, in columns.
const COMMENT: usize = 100;

/// The longest function, in lines: a screenful.
const FUNCTION: usize = 65;

const RUST: &[&str] = &["src/", "crates/", "e2e/", "tests/"];

fn violations(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let mut complain = |line: usize, what: String| found.push(format!("{}:{}: {what}", file.path, line + 1));
    let lines: Vec<&str> = file.text.lines().collect();
    let most = if file.path.starts_with("tests/") { TEST_LINES } else { LINES };
    if lines.len() > most {
        complain(most, format!("{} lines; at most {most} are allowed", lines.len()));
    }
    if !is_test(&file.path) && !file.text.starts_with("//! ") {
        complain(0, "no module documentation".to_owned());
    }
    let header: String = lines.iter().take_while(|line| line.starts_with("//!")).copied().collect();
    let pure = header.contains("Pure") || file.path.starts_with("src/model/") || file.path.starts_with("src/formats/");
    for (number, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        // A link cannot be wrapped.
        if text.starts_with("//") && line.chars().count() > COMMENT && !text.contains("://") {
            complain(number, format!("a comment of {} columns; at most {COMMENT} are allowed", line.chars().count()));
        }
        let code = line.split("//").next().unwrap_or_default();
        let io = ["async ", "std::fs", "std::net", "tokio::fs", "tokio::net"];
        if pure && !is_test(&file.path) && io.iter().any(|word| code.contains(word)) {
            complain(number, "a pure file does no I/O and is never async".to_owned());
        }
        let system = ["cfg(target_os", "cfg(windows", "cfg(unix"];
        if file.path.starts_with("src/")
            && !file.path.starts_with("src/platform/")
            && system.iter().any(|word| code.contains(word))
        {
            complain(number, "only platform looks at the operating system".to_owned());
        }
    }
    found.extend(long_functions(file));
    found
}

/// Functions end at the first line that closes a brace at their own indentation, as rustfmt writes
/// it.
fn long_functions(file: &File) -> Vec<String> {
    let head = Regex::new(r"^(\s*)(?:pub(?:\([a-z: ]+\))? )?(?:const )?(?:async )?fn (\w+)").expect("a pattern");
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(captured) = head.captures(line) else { continue };
        let end = format!("{}}}", &captured[1]);
        let length = lines[start..].iter().position(|line| *line == end).map_or(1, |last| last + 1);
        if length > FUNCTION && !line.ends_with(';') {
            let name = &captured[2];
            found.push(format!(
                "{}:{}: {name} has {length} lines; at most {FUNCTION} are allowed",
                file.path,
                start + 1
            ));
        }
    }
    found
}

#[test]
fn files_keep_their_shape() {
    crate::report(&tree::sources(RUST).iter().flat_map(violations).collect::<Vec<_>>());
}

#[test]
fn planted_violations_are_found() {
    let long = format!("//! Doc.\n{}", "\n".repeat(LINES));
    let tall = format!("//! Doc.\nfn tall() {{\n{}}}\n", "    x();\n".repeat(FUNCTION));
    let wide = format!("//! Doc.\n// {}", "x".repeat(COMMENT));
    for (path, text, expected) in [
        ("src/model/a.rs", "use x;", "src/model/a.rs:1: no module documentation"),
        ("src/model/a.rs", "//! Doc.\nasync fn f() {}", "src/model/a.rs:2: a pure file does no I/O and is never async"),
        ("src/node/a.rs", "//! Pure.\nuse std::fs;", "src/node/a.rs:2: a pure file does no I/O and is never async"),
        ("src/node/a.rs", "//! Doc.\n#[cfg(windows)]", "src/node/a.rs:2: only platform looks at the operating system"),
        ("src/node/a.rs", &long, "src/node/a.rs:401: 401 lines; at most 400 are allowed"),
        ("src/node/a.rs", &tall, "src/node/a.rs:2: tall has 67 lines; at most 65 are allowed"),
        ("src/node/a.rs", &wide, "src/node/a.rs:2: a comment of 103 columns; at most 100 are allowed"),
    ] {
        assert_eq!(violations(&File { path: path.to_owned(), text: text.to_owned() }), [expected]);
    }
}
