//! The `spec` of a SecretProviderClass, and the mistakes in its structure.
//!
//! Pure. A class that the API server would refuse becomes a message that names the field and the
//! fix, so that one bad class never hides others. The CRD's schema is generated from these types.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// How much of a key messages show, in characters.
const SHOWN: usize = 64;

/// The `spec` of a SecretProviderClass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ClassSpec {
    /// The provider that fetches the objects: azure, or the name of another provider's socket.
    pub provider: String,
    /// Parameters of the provider.
    pub parameters: BTreeMap<String, String>,
    /// Kubernetes Secrets that mirror the mounted files.
    pub secret_objects: Vec<SecretObject>,
}

/// One Kubernetes Secret that a class asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SecretObject {
    /// Name of the Secret.
    pub secret_name: String,
    /// Type of the Secret, such as Opaque or kubernetes.io/tls.
    pub r#type: String,
    /// Labels of the Secret.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Secret.
    pub annotations: BTreeMap<String, String>,
    /// Its keys, and the files that are their values.
    pub data: Vec<SecretObjectData>,
}

/// One key of the Secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SecretObjectData {
    /// Path of the mounted file below the mount: the object's alias, or its name.
    pub object_name: String,
    /// Key in the Secret.
    pub key: String,
}

impl ClassSpec {
    /// Parses a `spec`; every field may be unset.
    ///
    /// # Errors
    /// The mistake, with the field and the fix, and without any value.
    pub fn read(spec: Option<&Value>) -> Result<ClassSpec, String> {
        let empty = Map::new();
        let spec = match spec {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(spec)) => spec,
            Some(other) => return Err(format!("spec is {}, not a mapping", shape(other))),
        };
        let provider = match spec.get("provider") {
            None | Some(Value::Null) => String::new(),
            Some(value) => text("spec.provider", value)?,
        };
        let parameters = match spec.get("parameters") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(Value::Object(parameters)) => {
                let pair = |(key, value): (&String, &Value)| {
                    Ok((key.clone(), text(&format!("spec.parameters.{}", cut(key)), value)?))
                };
                parameters.iter().map(pair).collect::<Result<_, String>>()?
            }
            Some(other) => return Err(format!("spec.parameters is {}, not a mapping", shape(other))),
        };
        let secret_objects = match spec.get("secretObjects") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(objects)) => objects.iter().enumerate().map(secret_object).collect::<Result<_, _>>()?,
            Some(other) => return Err(format!("spec.secretObjects is {}, not a list", shape(other))),
        };
        Ok(ClassSpec { provider, parameters, secret_objects })
    }
}

fn secret_object((at, value): (usize, &Value)) -> Result<SecretObject, String> {
    // The library's own text would quote the value.
    SecretObject::deserialize(without_nulls(value)).map_err(|_| {
        format!("spec.secretObjects[{at}] does not have the shape of the CRD: `kubectl explain secretproviderclass.spec.secretObjects` shows it")
    })
}

/// An unset field may be written as null, as Go's decoders allow.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Accepts only text, as the API server does, so that a class from a file works there, too.
fn text(field: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Err(format!("{field} is {}, not text: put it in quotes", shape(value))),
        Value::Null => Err(format!("{field} is null, not text: write \"\" or leave it out")),
        Value::Array(_) | Value::Object(_) => {
            Err(format!("{field} is {}, not text: put a | behind the colon", shape(value)))
        }
    }
}

/// A key as messages show it.
pub(crate) fn cut(key: &str) -> String {
    key.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

/// The type of a value.
pub(crate) fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
