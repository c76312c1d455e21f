//! Pure. What a provider says, without what it was sent in confidence.
//!
//! Providers may quote anything in an error, and upstream passes it on to logs and events. Here every occurrence of a secret or
//! token of the request is replaced first, also in the forms that it has inside of JSON and of a URL.

use std::collections::BTreeMap;

use super::limits;
use super::request::TOKENS;
use crate::model::{ExposeSecret as _, SecretString};

/// What stands in place of a secret.
const STRIPPED: &str = "***stripped***";

/// The shortest text that is looked for; shorter ones are in every sentence, and no secrets.
const SHORTEST: usize = 4;

/// The secrets and tokens of one request. What is looked for is found out only when a provider has said something.
pub(super) struct Scrub<'a> {
    context: &'a BTreeMap<String, String>,
    secrets: &'a BTreeMap<String, SecretString>,
}

impl<'a> Scrub<'a> {
    /// What must not be told of a request with this context and these secrets.
    pub(super) fn of(context: &'a BTreeMap<String, String>, secrets: &'a BTreeMap<String, SecretString>) -> Scrub<'a> {
        Scrub { context, secrets }
    }

    /// A provider's text for people: without secrets, on one line, and of a sensible length.
    pub(super) fn clean(&self, said: &str) -> String {
        self.clean_to(limits::SAID, said)
    }

    /// The same, cut at a length of its own.
    pub(super) fn clean_to(&self, limit: usize, said: &str) -> String {
        let mut text = said.to_owned();
        for hidden in self.hidden() {
            if text.contains(&hidden) {
                text = text.replace(&hidden, STRIPPED);
            }
        }
        let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        line.take(limit).collect()
    }

    /// Every form of every value, the longest first, so that a part of one does not hide the rest.
    fn hidden(&self) -> Vec<String> {
        let tokens = self.context.get(TOKENS).map(String::as_str);
        // Whose secret it is, is none, and cures name it.
        let confidential = self.secrets.iter().filter(|(key, _)| !key.eq_ignore_ascii_case("clientid"));
        let values = confidential.map(|(_, secret)| secret.expose_secret()).chain(tokens);
        let mut found: Vec<String> = Vec::new();
        for value in values {
            // Tokens stand in an object by audience, each with its own text.
            if let Ok(object) = serde_json::from_str::<serde_json::Value>(value) {
                texts(&object, &mut found);
            }
            // A key of several lines may be quoted line by line.
            found.extend(value.lines().map(|line| line.trim().to_owned()));
            let quoted = serde_json::Value::from(value).to_string();
            found.push(quoted.trim_matches('"').to_owned());
            // As Go's encoder writes JSON, and as a URL has it.
            let gos = quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
            found.push(gos.trim_matches('"').to_owned());
            found.extend([percent_encoded(value, "+"), percent_encoded(value, "%20")]);
            found.push(value.to_owned());
        }
        found.retain(|text| text.len() >= SHORTEST);
        found.sort_by_key(|text| std::cmp::Reverse(text.len()));
        found
    }
}

/// As Go escapes a value in a URL: in its query a space is `+`, elsewhere `%20`.
fn percent_encoded(value: &str, space: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b' ' => text.push_str(space),
            b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn texts(value: &serde_json::Value, found: &mut Vec<String>) {
    let inner: Vec<&serde_json::Value> = match value {
        // When a token expires is no secret, but who would miss it.
        serde_json::Value::String(text) => return found.push(text.clone()),
        serde_json::Value::Object(fields) => fields.values().collect(),
        serde_json::Value::Array(items) => items.iter().collect(),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => return,
    };
    inner.into_iter().for_each(|inner| texts(inner, found));
}
