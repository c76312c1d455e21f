//! Parses the YAML of classes and manifests, within small limits.
//!
//! The only module that uses the YAML library. It gives no key a meaning; its errors contain
//! positions and key names, but no values.
//!
//! The upstream provider uses Go's yaml.v3 (docs/reference/azure-provider.md#yaml-scalars). This
//! file hides where the library differs: only the first document counts, `017` is octal, and
//! comments are neither counted nor kept.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::AliasLimits;
use serde_saphyr::{Budget, Options};

/// The limits of one YAML text.
pub mod limits {
    /// The length of a text in bytes. An object in etcd cannot be larger than 1.5 MiB.
    pub const INPUT: usize = 1 << 20;
    /// The values in one text: one for ten bytes of the longest text.
    pub const NODES: usize = 100_000;
    /// The nesting. A manifest's own keys need four levels.
    pub const DEPTH: usize = 48;
    /// The anchors, and the aliases. Users share a few blocks; YAML bombs share many.
    pub const ALIASES: usize = 100;
    /// The values that aliases may add to a text.
    pub const ALIAS_NODES: usize = 10_000;
    /// The documents in one text.
    pub const DOCUMENTS: usize = 10_000;
    /// How much of a duplicate key an error shows, in characters.
    pub const SHOWN_KEY: usize = 64;
}

/// Why a text is not the expected YAML: positions and key names, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    line: u64,
    column: u64,
    message: String,
}

impl Error {
    /// Counted from 1; 0 if the error belongs to no line.
    pub fn line(&self) -> u64 {
        self.line
    }

    fn without_position(message: String) -> Error {
        Error { line: 0, column: 0, message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}, column {}: {}", self.column, self.message),
        }
    }
}

impl std::error::Error for Error {}

/// Reads the first document of `text`; `None` when it is empty, null or only comments.
///
/// Ignores later documents, as upstream does. A `String` accepts the source text of any scalar
/// (`0755`, `1e5` and `true` stay as written), an `Option` accepts null as `None`, and a duplicate
/// key is an error.
///
/// # Errors
/// The text is not YAML, does not have the shape of `T`, or exceeds [`limits`].
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<Option<T>, Error> {
    check_size(text)?;
    let mut first = None;
    let outcome = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |document| {
        first = Option::<T>::deserialize(document)?;
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(first),
        // The library parses the first document, and fails only at the start of the second, which
        // is to be ignored.
        Err(serde_saphyr::Error::MultipleDocuments { .. }) => Ok(first),
        Err(error) => Err(translate(&error)),
    }
}

/// Reads every document of `text` except empty ones.
///
/// # Errors
/// The text is not YAML or exceeds [`limits`]. One malformed document fails the whole text.
pub fn documents(text: &str) -> Result<Vec<serde_json::Value>, Error> {
    check_size(text)?;
    serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| translate(&error))
}

/// The value of an integer field, or a phrase that says what the value is instead.
///
/// The phrase lets the caller report it together with the other mistakes of an object. yaml.v3's
/// rules: integral floats are integers, quoted numbers are not
/// (docs/reference/azure-provider.md#yaml-scalars).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integer(pub Result<i32, &'static str>);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Integer, D::Error> {
        deserializer.deserialize_any(IntegerVisitor)
    }
}

struct IntegerVisitor;

const OUT_OF_RANGE: &str = "is a number outside of -2147483648 to 2147483647";

impl<'de> Visitor<'de> for IntegerVisitor {
    type Value = Integer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E>(self, value: i64) -> Result<Integer, E> {
        Ok(Integer(i32::try_from(value).map_err(|_| OUT_OF_RANGE)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Integer, E> {
        Ok(Integer(i32::try_from(value).map_err(|_| OUT_OF_RANGE)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Integer, E> {
        if value.fract() != 0.0 || !value.is_finite() {
            return Ok(Integer(Err("is not a whole number")));
        }
        if value < f64::from(i32::MIN) || value > f64::from(i32::MAX) {
            return Ok(Integer(Err(OUT_OF_RANGE)));
        }
        // The value is in range and whole, so the conversion is exact.
        Ok(Integer(Ok(value as i32)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Integer, E> {
        Ok(Integer(Err("is a boolean, not a number")))
    }

    fn visit_str<E>(self, text: &str) -> Result<Integer, E> {
        let number = text.trim().parse::<f64>().is_ok();
        Ok(Integer(Err(if number { "is a number in quotes" } else { "is text, not a number" })))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Integer, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Integer(Err("is a list, not a number")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Integer, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Integer(Err("is a mapping, not a number")))
    }
}

fn check_size(text: &str) -> Result<(), Error> {
    if text.len() > limits::INPUT {
        return Err(Error::without_position(format!(
            "the text is {} bytes long; at most {} are read",
            text.len(),
            limits::INPUT
        )));
    }
    Ok(())
}

fn options() -> Options {
    let mut budget = Budget::default();
    budget.max_events = 2 * limits::NODES;
    budget.max_nodes = limits::NODES;
    budget.max_depth = limits::DEPTH;
    budget.flow_nesting_limit = limits::DEPTH;
    budget.max_aliases = limits::ALIASES;
    budget.max_anchors = limits::ALIASES;
    budget.max_merge_keys = limits::ALIASES;
    budget.max_recorded_anchor_events = limits::ALIAS_NODES;
    budget.max_recorded_anchor_bytes = limits::INPUT;
    budget.max_documents = limits::DOCUMENTS;
    budget.max_total_scalar_bytes = 2 * limits::INPUT;
    let mut aliases = AliasLimits::default();
    aliases.max_total_replayed_events = limits::ALIAS_NODES;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.alias_limits = aliases;
    // yaml.v3 reads 017 as fifteen; by default the library reads a float.
    options.legacy_octal_numbers = true;
    // A snippet would put a part of the text into an error.
    options.with_snippet = false;
    // By default a block of more than 32 comment lines is refused.
    options.emit_comments = false;
    options
}

fn translate(error: &serde_saphyr::Error) -> Error {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    Error { line, column, message: message(error) }
}

/// A message without values: the library's own texts suggest settings, or quote the value.
fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    if let E::AliasError { error, .. } | E::WithSnippet { error, .. } = error {
        return message(error);
    }
    if let E::DuplicateMappingKey { key, .. } = error {
        let key: String = key.iter().flat_map(|key| key.chars()).take(limits::SHOWN_KEY).collect();
        return format!("the key {key:?} occurs twice");
    }
    if let E::Unexpected { expected, .. } = error {
        return format!("expected {expected}");
    }
    // The scanner's texts are fixed sentences about syntax, with at most the one unexpected
    // character.
    if let E::ExternalMessage { msg, .. } = error {
        return msg.clone();
    }
    if matches!(
        error,
        E::Budget { .. }
            | E::AliasReplayLimitExceeded { .. }
            | E::AliasExpansionLimitExceeded { .. }
            | E::AliasReplayStackDepthExceeded { .. }
    ) {
        return "the text is too large, too deep or uses too many aliases".to_owned();
    }
    if matches!(error, E::UnknownAnchor { .. }) {
        return "the alias has no anchor".to_owned();
    }
    if matches!(error, E::TaggedScalarCannotDeserializeIntoString { .. }) {
        return "the value has a tag of another type; write it without the tag".to_owned();
    }
    "the text is not YAML of the expected shape".to_owned()
}
