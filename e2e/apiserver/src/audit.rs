//! The lines of the audit log.

use serde_json::Value;

/// A call in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `get`, `create`, …
    pub verb: String,
    /// The plural of the kind.
    pub resource: String,
    /// Empty for a call without one.
    pub namespace: String,
    /// Path and query.
    pub uri: String,
    /// The HTTP status code.
    pub code: u64,
}

pub(crate) fn call(line: &Value) -> Call {
    let text = |path: &str| line.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    Call {
        verb: text("/verb"),
        resource: text("/objectRef/resource"),
        namespace: text("/objectRef/namespace"),
        uri: text("/requestURI"),
        code: line.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
    }
}
