//! Words that keep a reader out: each pattern has a reason, and stands nowhere in the repository
//! but here. `docs/glossary.md` has the words to use instead.

use regex::Regex;

use crate::tree;

/// A pattern, and what to write instead.
const PATTERNS: &[(&str, &str)] = &[
    (r"(?i)\b(no|some|any)body\b", "name the actor: the caller, a task, a client, a user"),
    (r"(?i)\bwhoever\b", "name the actor"),
    (r"(?i)\bwho leads\b", "the leader"),
    (r"(?i)\bwhat there is\b", "name the thing"),
    (r"(?i)\bwhat (was|is) told\b", "name the thing, and an active verb"),
    (r"(?i)\b(is|was|are|were) told\b", "an active verb: receives, learns, is notified"),
    (r"\btells\b", "says, reports, notifies, shows"),
    (r"\bhears\b", "receives"),
    (r"(?i)\bwants\b", "needs, asks for, requires"),
    (r"(?i)\bis of (no )?use\b", "is useful, has no effect"),
    (r"(?i)\bgoes round\b", "loops, is repeated"),
    (r"(?i)\bcomes in the middle\b", "say the value"),
    (r"(?i)\bhas ended\b", "ends, completes, is done"),
    (
        r"(?i)\b(is|are) no (boolean|number|directory|tmpfs|address|name|key|certificate|base64|json|yaml)\b",
        "is not a ...",
    ),
    (r"(?i)\bended on\b", "expired on"),
    (r"(?i)\bleft alone\b", "is not changed; requests to HOST are paused"),
    (r"\bControl (goes|comes)\b", "go to references shows it"),
    (r"(?i)\bfares?\b", "outcome"),
    (r"(?i)\bhurry\b", "run now"),
    (r"(?i)\bpublish_untold\b|\blanded\b", "the field's word"),
    (r"(?i)\bin the way\b|\bin its way\b", "say what blocks what"),
    (r"(?i)\bcomes? up now\b", "is due"),
    (r"(?i)\bby (himself|themselves)\b", "name the actor"),
];

/// Files that may contain them: this list, texts of others, and an image with the Unix user
/// `nobody`.
const EXEMPT: &[&str] = &[
    "tests/tidy/",
    "LICENSE",
    "Cargo.lock",
    "docs/performance.svg",
    "e2e/cluster/images",
    "e2e/tests/cluster/user_manifests/",
    "tests/it/fixtures/",
];

#[test]
fn the_words_are_the_fields() {
    let patterns: Vec<(Regex, &str)> =
        PATTERNS.iter().map(|(pattern, instead)| (Regex::new(pattern).expect("a pattern"), *instead)).collect();
    let mut found = Vec::new();
    for file in tree::files().iter().filter(|file| !EXEMPT.iter().any(|path| file.path.starts_with(path))) {
        for (number, line) in file.text.lines().enumerate() {
            // A plain use of the words.
            let line = &line.replace("there is no ", "").replace("There is no ", "");
            for (pattern, instead) in &patterns {
                if let Some(word) = pattern.find(line) {
                    found.push(format!("{}:{}: \"{}\": {instead}", file.path, number + 1, word.as_str()));
                }
            }
        }
    }
    crate::report(&found);
}

#[test]
fn the_patterns_find_what_they_are_for() {
    for (text, expected) in [
        ("Who leads is always the same", 1),
        ("tells what there is", 2),
        ("is no boolean", 1),
        ("is no longer there", 0),
        ("the retold story", 0),
    ] {
        let count =
            PATTERNS.iter().filter(|(pattern, _)| Regex::new(pattern).expect("a pattern").is_match(text)).count();
        assert_eq!(count, expected, "{text}");
    }
}
