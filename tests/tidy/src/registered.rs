//! Every module of integration tests is run: one that lists tests and that no program names is dead
//! code.

use crate::tree;

#[test]
fn every_integration_test_runs() {
    let folders = ["tests/it", "e2e/tests/cluster"];
    let sources = tree::sources(&["tests/it/", "e2e/tests/cluster/"]);
    let mut found = Vec::new();
    for folder in folders {
        for file in sources.iter().filter(|file| file.path.starts_with(&format!("{folder}/"))) {
            let name = file.path.trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
            if !file.text.contains("trials! {") || name == "main" {
                continue;
            }
            let uses = [format!("{name}::trials()"), format!("{name}::TESTS")];
            if !sources.iter().any(|file| uses.iter().any(|text| file.text.contains(text.as_str()))) {
                found.push(format!("{}: its tests do not run: add {name}::trials() to {folder}/main.rs", file.path));
            }
        }
    }
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    crate::report(&found);
}
