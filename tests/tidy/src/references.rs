//! References: every page, section and file that code and docs name must exist in the repository.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::tree::{self, File};

/// The anchors of a Markdown page: its headings in GitHub's form, and explicit ones.
fn anchors(text: &str) -> BTreeSet<String> {
    let explicit = Regex::new(r#"<a (?:id|name)="([^"]+)">"#).expect("a pattern");
    let mut found: BTreeSet<String> = explicit.captures_iter(text).map(|found| found[1].to_owned()).collect();
    let (mut fenced, mut seen) = (false, BTreeMap::<String, usize>::new());
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let anchor = anchor(title.trim());
        let times = seen.entry(anchor.clone()).or_default();
        found.insert(if *times == 0 { anchor } else { format!("{anchor}-{times}") });
        *times += 1;
    }
    found
}

/// The anchor that GitHub gives a heading: lower case, blanks as hyphens, without punctuation.
fn anchor(title: &str) -> String {
    let kept = title.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Where a relative path leads, from the folder of a file.
fn join(file: &str, target: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn links_of_the_docs_lead_somewhere() {
    let files = tree::files();
    let link = Regex::new(r"\[[^\]]*\]\(([^)\s]+)\)").expect("a pattern");
    let pages: BTreeMap<&str, BTreeSet<String>> = files
        .iter()
        .filter(|file| file.path.ends_with(".md"))
        .map(|file| (file.path.as_str(), anchors(&file.text)))
        .collect();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (number, line) in file.text.lines().enumerate() {
            for captured in link.captures_iter(line) {
                let target = &captured[1];
                if target.contains("://") || target.starts_with("mailto:") {
                    // Outside links: their form only.
                    if !target.starts_with("https://") && !target.starts_with("http://localhost") {
                        found.push(format!("{}:{}: {target} is not https", file.path, number + 1));
                    }
                    continue;
                }
                let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path = if path.is_empty() { file.path.clone() } else { join(&file.path, path) };
                if !tree::root().join(&path).exists() {
                    found.push(format!("{}:{}: {path} does not exist", file.path, number + 1));
                } else if !anchor.is_empty() && pages.get(path.as_str()).is_some_and(|known| !known.contains(anchor)) {
                    found.push(format!("{}:{}: {path} has no section #{anchor}", file.path, number + 1));
                }
            }
        }
    }
    crate::report(&found);
}

#[test]
fn pages_that_code_names_exist() {
    let files = tree::files();
    let named = Regex::new(r"\b((?:docs|manifests)/[A-Za-z0-9_./-]+\.(?:md|yaml)|[A-Z]{4,}\.md)(?:#([A-Za-z0-9_-]+))?")
        .expect("a pattern");
    let pages: BTreeMap<&str, &File> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.path.ends_with(".md") && !file.path.starts_with("tests/tidy/")) {
        for (number, line) in file.text.lines().enumerate() {
            for captured in named.captures_iter(line) {
                let place = || format!("{}:{}", file.path, number + 1);
                match (pages.get(&captured[1]), captured.get(2)) {
                    (None, _) if !tree::root().join(&captured[1]).exists() => {
                        found.push(format!("{}: {} does not exist", place(), &captured[1]));
                    }
                    (Some(page), Some(anchor)) if !anchors(&page.text).contains(anchor.as_str()) => {
                        found.push(format!("{}: {} has no section #{}", place(), &captured[1], anchor.as_str()));
                    }
                    _ => {}
                }
            }
        }
    }
    crate::report(&found);
}

#[test]
fn paths_that_pages_name_exist() {
    let path = Regex::new(r"`((?:src|tests|e2e|crates|proto|manifests|docs)/[A-Za-z0-9_./-]+)`").expect("a pattern");
    // ARCHITECTURE.md names files of src without the folder and the extension:
    // `node/volume/publish`.
    let module = Regex::new(
        r"`((?:cmd|node|azure|backend|secret|classes|compute|kubernetes|server|queue|formats|model|platform)/[a-z0-9_/]+)`",
    )
    .expect("a pattern");
    let mut found = Vec::new();
    for file in tree::files().iter().filter(|file| file.path.ends_with(".md")) {
        for (number, line) in file.text.lines().enumerate() {
            let missing_path = |name: &&str| !tree::root().join(name).exists();
            let missing_module = |name: &&str| {
                ![format!("src/{name}.rs"), format!("src/{name}")].iter().any(|path| tree::root().join(path).exists())
            };
            let paths = path.captures_iter(line).filter_map(|c| c.get(1)).map(|m| m.as_str()).filter(missing_path);
            let modules = module.captures_iter(line).filter_map(|c| c.get(1)).map(|m| m.as_str());
            for name in paths.chain(modules.filter(missing_module)) {
                found.push(format!("{}:{}: {name} does not exist", file.path, number + 1));
            }
        }
    }
    crate::report(&found);
}

#[test]
fn nothing_cites_papers_that_are_not_here() {
    let outside = Regex::new(r"\bspec/[a-z-]+\.md|\bshared/|[Dd]esign decisions? \d|\(design §").expect("a pattern");
    let mut found = Vec::new();
    for file in tree::files().iter().filter(|file| !file.path.starts_with("tests/tidy/")) {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(cited) = outside.find(line) {
                found.push(format!("{}:{}: cites {}", file.path, number + 1, cited.as_str()));
            }
        }
    }
    crate::report(&found);
}

#[test]
fn anchors_are_githubs() {
    let page = "# Über uns: a `b`\n```\n# no\n```\n## Same\n## Same\n<a id=\"d6\"></a>\n";
    let expected = ["über-uns-a-b", "same", "same-1", "d6"].map(str::to_owned);
    assert_eq!(anchors(page), expected.into());
    assert_eq!(join("docs/reference/a.md", "../b.md"), "docs/b.md");
}
