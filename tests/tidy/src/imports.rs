//! Which modules a Rust file names: `crate::…` and `super::…` paths, with their braces expanded.
//!
//! Reads text, not syntax: comments and string literals are blanked first, and inline test modules
//! are left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::File;

/// A path that a file names, from the root of its crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
}

/// The module of a file below `root`: `src/a/mod.rs` is `a`, `src/lib.rs` is the empty path.
pub(crate) fn module(path: &str, root: &str) -> Vec<String> {
    let below = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/').trim_end_matches(".rs");
    let mut parts: Vec<String> = below.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}

/// All paths of the own crate that a file names.
pub(crate) fn of(file: &File, root: &str) -> Vec<Import> {
    let code = code(&file.text);
    let own = module(&file.path, root);
    let mut found = Vec::new();
    for (start, keyword) in ["crate::", "super::", "self::"].iter().flat_map(|word| code.match_indices(word)) {
        let free = |c: char| !c.is_alphanumeric() && c != '_' && c != ':' && c != '$';
        if !code[..start].chars().next_back().is_none_or(free) {
            continue;
        }
        let line = code[..start].matches('\n').count() + 1;
        let (mut base, mut rest) = match keyword {
            "crate::" => (Vec::new(), &code[start + keyword.len()..]),
            "self::" => (own.clone(), &code[start + keyword.len()..]),
            _ => (own[..own.len().saturating_sub(1)].to_vec(), &code[start + keyword.len()..]),
        };
        while let Some(above) = rest.strip_prefix("super::") {
            base.pop();
            rest = above;
        }
        for tail in tails(rest) {
            found.push(Import { line, path: base.iter().cloned().chain(tail).collect() });
        }
    }
    found
}

/// What can follow: names joined by `::`, and at the end possibly braces with more of the same.
fn tails(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(list) = text.strip_prefix('{') {
        return items(list).into_iter().flat_map(tails).collect();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name == "self" {
        return vec![Vec::new()];
    }
    match rest.strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => {
            tails(rest).into_iter().map(|tail| std::iter::once(name.to_owned()).chain(tail).collect()).collect()
        }
        _ => vec![vec![name.to_owned()]],
    }
}

/// The items of a braced list whose opening brace is gone.
fn items(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

/// The text with comments and inline test modules blanked; line numbers stay.
pub(crate) fn code(text: &str) -> String {
    let mut lines = Vec::new();
    let (mut test, mut skipping) = (false, false);
    for line in text.lines() {
        let kept = line.split("//").next().unwrap_or_default();
        if skipping {
            skipping = line != "}";
            lines.push("");
            continue;
        }
        if test && line.starts_with("mod ") && line.ends_with('{') {
            skipping = true;
            lines.push("");
            continue;
        }
        test = line.trim() == "#[cfg(test)]";
        lines.push(kept);
    }
    lines.join("\n")
}

/// The circles among files: each as one line that names its files and one import of each.
///
/// A folder's `mod.rs` and its files may name each other: the one declares the others. What a
/// `mod.rs` passes on with `pub use` counts as the file that it comes from.
pub(crate) fn circles(files: &[&File], root: &str) -> Vec<String> {
    let by_module: BTreeMap<Vec<String>, usize> =
        files.iter().enumerate().map(|(at, file)| (module(&file.path, root), at)).collect();
    let passed_on: Vec<BTreeMap<String, Vec<String>>> = files.iter().map(|file| re_exports(file, root)).collect();
    let mut edges: Vec<BTreeMap<usize, Vec<String>>> = vec![BTreeMap::new(); files.len()];
    for (from, file) in files.iter().enumerate() {
        for import in of(file, root) {
            let mut path = import.path;
            // A name that is passed on, up to a few times.
            for _ in 0..4 {
                let Some((at, rest)) = resolve(&by_module, &path) else { break };
                let Some(target) = rest.first().and_then(|name| passed_on[at].get(name)) else { break };
                path = target.iter().cloned().chain(rest[1..].iter().cloned()).collect();
            }
            let Some((to, _)) = resolve(&by_module, &path) else { continue };
            let (own, other) = (module(&file.path, root), module(&files[to].path, root));
            let family = own.starts_with(&other) || other.starts_with(&own);
            if to != from && !family {
                edges[from].entry(to).or_default().push(path.join("::"));
            }
        }
    }
    components(&edges)
        .into_iter()
        .map(|circle| {
            let ties = circle.iter().map(|from| {
                let to = edges[*from].iter().find(|(to, _)| circle.contains(to));
                to.map_or(String::new(), |(_, names)| format!("{} takes {}", files[*from].path, names[0]))
            });
            format!("a circle of {} files: {}", circle.len(), ties.collect::<Vec<_>>().join("; "))
        })
        .collect()
}

/// The file of the longest prefix of a path, and what is left of the path.
fn resolve<'a>(by_module: &BTreeMap<Vec<String>, usize>, path: &'a [String]) -> Option<(usize, &'a [String])> {
    (0..=path.len()).rev().find_map(|end| by_module.get(&path[..end]).map(|at| (*at, &path[end..])))
}

/// What a file passes on: each name, with the path that it comes from.
fn re_exports(file: &File, root: &str) -> BTreeMap<String, Vec<String>> {
    let own = module(&file.path, root);
    let code = code(&file.text);
    let mut found = BTreeMap::new();
    for statement in code.split(';') {
        let Some(at) = statement.find("use ") else { continue };
        let (before, tree) = (statement[..at].trim(), statement[at + 4..].trim());
        if !before.ends_with("pub") && !before.ends_with(')') {
            continue;
        }
        for tail in tails(tree.strip_prefix("self::").unwrap_or(tree)) {
            if let Some(name) = tail.last() {
                let path = match tail.first().map(String::as_str) {
                    Some("crate") => tail[1..].to_vec(),
                    Some("super") => continue,
                    _ => own.iter().cloned().chain(tail.clone()).collect(),
                };
                found.insert(name.clone(), path);
            }
        }
    }
    found
}

/// The strongly connected components of more than one node (Kosaraju's algorithm, by reachability:
/// the graphs are small).
fn components(edges: &[BTreeMap<usize, Vec<String>>]) -> Vec<BTreeSet<usize>> {
    let reach = |from: usize| {
        let (mut seen, mut pending) = (BTreeSet::new(), vec![from]);
        while let Some(at) = pending.pop() {
            pending.extend(edges[at].keys().filter(|to| seen.insert(**to)));
        }
        seen
    };
    let reached: Vec<BTreeSet<usize>> = (0..edges.len()).map(reach).collect();
    let mut found: BTreeSet<BTreeSet<usize>> = BTreeSet::new();
    for (at, seen) in reached.iter().enumerate() {
        let circle: BTreeSet<usize> = seen.iter().copied().filter(|to| reached[*to].contains(&at)).collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

#[test]
fn paths_are_read_with_their_braces() {
    let text = "use crate::a::{b, c::{d, e}};\nuse super::{f::G, self};\nfn x() { crate::h::i::<T>(); mycrate::y(); }\n// crate::no";
    let file = File { path: "src/m/n.rs".to_owned(), text: text.to_owned() };
    let mut paths: Vec<_> = of(&file, "src").into_iter().map(|import| (import.line, import.path.join("::"))).collect();
    paths.sort();
    assert_eq!(
        paths,
        [(1, "a::b"), (1, "a::c::d"), (1, "a::c::e"), (2, "m"), (2, "m::f::G"), (3, "h::i")]
            .map(|(line, path)| (line, path.to_owned()))
    );
}

#[test]
fn a_planted_circle_is_found() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let files = [
        file("src/a/mod.rs", "mod b;\nmod c;\npub use b::{B, Other};"),
        file("src/a/b.rs", "use super::c::C;"),
        file("src/a/c.rs", "use crate::a::B;"),
        file("src/d.rs", "use crate::a::B;"),
    ];
    let found = circles(&files.iter().collect::<Vec<_>>(), "src");
    assert_eq!(found, ["a circle of 2 files: src/a/b.rs takes a::c::C; src/a/c.rs takes a::b::B"]);
}
