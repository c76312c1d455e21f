//! Who wrote which field of a Secret, by its managed fields, and how fields pass from one writer to another.
//!
//! Pure. A server-side apply removes only what its own writer applied before. What came by a plain write, ours at the
//! creation or upstream's, would stay for ever: it is moved to what we applied. `mirror` decides when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value, json};

use super::secrets::WRITER;

/// The label that says that a driver made a Secret (docs/reference/csi-driver.md#secret-label).
pub const MANAGED_LABEL: &str = "secrets-store.csi.k8s.io/managed";

/// A part of a Secret whose keys have writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its data.
    Data,
    /// Its labels.
    Labels,
    /// Its annotations.
    Annotations,
}

/// Who is responsible for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Responsible {
    /// Drivers, ours or upstream's, by a plain write: an apply does not remove it.
    Written,
    /// We, by an apply.
    Applied,
    /// Somebody else.
    Others,
}

/// The managed fields of a Secret.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Writers(Vec<Value>);

impl Writers {
    pub(super) fn new(entries: &[ManagedFieldsEntry]) -> Writers {
        Writers(entries.iter().filter_map(|entry| serde_json::to_value(entry).ok()).collect())
    }

    pub(crate) fn entries(&self) -> &[Value] {
        &self.0
    }

    /// Who is responsible for a key that is there.
    pub fn responsible(&self, part: Part, key: &str) -> Responsible {
        let owns =
            |entry: &&Value| entry.pointer(part.path()).is_some_and(|keys| keys.get(format!("f:{key}")).is_some());
        let mut owners = self.0.iter().filter(owns).peekable();
        if owners.peek().is_none() {
            return Responsible::Others;
        }
        let (mut written, mut applied) = (false, false);
        for entry in owners {
            written |= is_drivers(entry);
            applied |= is_applied(entry);
        }
        match (written, applied) {
            (true, _) => Responsible::Written,
            (false, true) => Responsible::Applied,
            (false, false) => Responsible::Others,
        }
    }

    /// The same with everything that drivers wrote plainly as if we had applied it; owner references stay where they are.
    pub fn taken_over(&self) -> Writers {
        let mut applied = Value::Object(Map::new());
        let mut entries = Vec::new();
        for entry in &self.0 {
            let fields = entry.get("fieldsV1").cloned().unwrap_or_default();
            if is_drivers(entry) {
                let (owners, rest) = split(fields);
                merge(&mut applied, rest);
                if let Some(owners) = owners {
                    let mut left = entry.clone();
                    left["fieldsV1"] = owners;
                    entries.push(left);
                }
            } else if is_applied(entry) {
                merge(&mut applied, fields);
            } else {
                entries.push(entry.clone());
            }
        }
        entries.push(json!({
            "manager": WRITER, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": applied,
        }));
        Writers(entries)
    }
}

impl Part {
    fn path(self) -> &'static str {
        match self {
            Part::Data => "/fieldsV1/f:data",
            Part::Labels => "/fieldsV1/f:metadata/f:labels",
            Part::Annotations => "/fieldsV1/f:metadata/f:annotations",
        }
    }
}

/// Whether a driver wrote this plainly: we, or whoever put the label on the Secret.
fn is_drivers(entry: &Value) -> bool {
    let labels = entry.pointer(Part::Labels.path());
    let labelled = labels.is_some_and(|labels| labels.get(format!("f:{MANAGED_LABEL}")).is_some());
    entry["operation"] == "Update" && (entry["manager"] == WRITER || labelled)
}

fn is_applied(entry: &Value) -> bool {
    entry["operation"] == "Apply" && entry["manager"] == WRITER
}

/// The owner references among fields, and the rest.
fn split(mut fields: Value) -> (Option<Value>, Value) {
    let metadata = fields.get_mut("f:metadata").and_then(Value::as_object_mut);
    let owners = metadata.and_then(|metadata| metadata.remove("f:ownerReferences"));
    (owners.map(|owners| json!({ "f:metadata": { "f:ownerReferences": owners } })), fields)
}

/// The union of two sets of fields.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        for (key, value) in from {
            merge(into.entry(key).or_insert_with(|| Value::Object(Map::new())), value);
        }
    }
}
