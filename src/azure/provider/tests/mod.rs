mod certificates;
mod classes;
mod client_certificates;
mod logins;
mod objects;
mod parameters;
mod rendering;
mod service_accounts;
mod versions;

use std::collections::BTreeMap;

use super::*;

/// The parameters of a class that is right; tests change one thing.
fn good() -> BTreeMap<String, String> {
    map(&[
        ("keyvaultName", "testkv"),
        ("tenantID", "11111111-2222-3333-4444-555555555555"),
        ("objects", "array:\n  - |\n    objectName: secret1\n    objectType: secret\n"),
    ])
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Parses the good class with `changes`; an empty value takes the parameter away.
fn with(changes: &[(&str, &str)]) -> Result<Params, Mistakes> {
    let mut attributes = good();
    attributes.extend(map(changes));
    attributes.retain(|_, value| !value.is_empty());
    Params::parse(&attributes)
}

/// The text of all mistakes.
fn mistakes(changes: &[(&str, &str)]) -> String {
    with(changes).expect_err("the class should be refused").to_string()
}

/// Parses one object given as YAML lines.
fn object(lines: &str) -> Result<ObjectSpec, Vec<Mistake>> {
    super::object::parse(1, Some(lines))
}

/// The only mistake of an object, without its label.
fn mistake(lines: &str) -> String {
    let all = object(lines).expect_err("the object should be refused");
    assert_eq!(all.len(), 1, "{all:?}");
    Mistake { object: None, ..all[0].clone() }.to_string()
}

/// A good secret with more lines.
fn secret(more: &str) -> String {
    format!("objectName: secret1\nobjectType: secret\n{more}\n")
}
