//! Query strings and forms.

use std::collections::BTreeMap;

/// Parses `a=b&c=d`; the last value of a repeated key counts.
pub(crate) fn parse_query(text: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}
