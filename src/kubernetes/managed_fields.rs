//! The managed fields of a Secret: which field manager set which key, and by which operation.
//!
//! Pure. A server-side apply removes only what its own field manager applied before. Keys from an
//! Update, ours at the creation or upstream's, would never be removed, so
//! [`ManagedFields::taken_over`] records them as applied by us. `crate::secret` decides when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value, json};

/// Who writes a Secret: the field manager, and the label that marks the Secret as a driver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretManager {
    /// The field manager of the content. Each owner reference has its own, named after this one.
    pub field_manager: &'static str,
    /// Key and value of the label; a Secret without it is never written.
    pub label: (&'static str, &'static str),
}

/// A map of a Secret whose keys have field managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyedField {
    /// `data`
    Data,
    /// `metadata.labels`
    Labels,
    /// `metadata.annotations`
    Annotations,
}

/// Who set a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// A driver, ours or upstream's, by an Update: our apply does not remove it.
    Updated,
    /// We, by an Apply.
    Applied,
    /// Another field manager.
    Foreign,
}

/// The managed fields of a Secret.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ManagedFields(Vec<Value>);

impl ManagedFields {
    pub(super) fn new(entries: &[ManagedFieldsEntry]) -> ManagedFields {
        ManagedFields(entries.iter().filter_map(|entry| serde_json::to_value(entry).ok()).collect())
    }

    pub(crate) fn entries(&self) -> &[Value] {
        &self.0
    }

    /// Who set a key that the Secret has.
    pub fn ownership(&self, manager: &SecretManager, field: KeyedField, key: &str) -> Ownership {
        let sets =
            |entry: &&Value| entry.pointer(field.path()).is_some_and(|keys| keys.get(format!("f:{key}")).is_some());
        let (mut updated, mut applied) = (false, false);
        for entry in self.0.iter().filter(sets) {
            updated |= is_driver_update(manager, entry);
            applied |= is_our_apply(manager, entry);
        }
        match (updated, applied) {
            (true, _) => Ownership::Updated,
            (false, true) => Ownership::Applied,
            (false, false) => Ownership::Foreign,
        }
    }

    /// The same, with everything from drivers' Updates recorded as applied by us. Owner references
    /// keep their field managers.
    pub fn taken_over(&self, manager: &SecretManager) -> ManagedFields {
        let mut applied = Value::Object(Map::new());
        let mut entries = Vec::new();
        for entry in &self.0 {
            let fields = entry.get("fieldsV1").cloned().unwrap_or_default();
            if is_driver_update(manager, entry) {
                let (owners, rest) = split(fields);
                merge(&mut applied, rest);
                if let Some(owners) = owners {
                    let mut left = entry.clone();
                    left["fieldsV1"] = owners;
                    entries.push(left);
                }
            } else if is_our_apply(manager, entry) {
                merge(&mut applied, fields);
            } else {
                entries.push(entry.clone());
            }
        }
        entries.push(json!({
            "manager": manager.field_manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": applied,
        }));
        ManagedFields(entries)
    }
}

impl KeyedField {
    fn path(self) -> &'static str {
        match self {
            KeyedField::Data => "/fieldsV1/f:data",
            KeyedField::Labels => "/fieldsV1/f:metadata/f:labels",
            KeyedField::Annotations => "/fieldsV1/f:metadata/f:annotations",
        }
    }
}

/// Whether the entry is a driver's Update: ours, or that of the manager that set the label.
fn is_driver_update(manager: &SecretManager, entry: &Value) -> bool {
    let labels = entry.pointer(KeyedField::Labels.path());
    let labelled = labels.is_some_and(|labels| labels.get(format!("f:{}", manager.label.0)).is_some());
    entry["operation"] == "Update" && (entry["manager"] == manager.field_manager || labelled)
}

fn is_our_apply(manager: &SecretManager, entry: &Value) -> bool {
    entry["operation"] == "Apply" && entry["manager"] == manager.field_manager
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
