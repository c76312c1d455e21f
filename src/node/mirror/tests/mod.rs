mod agenda;
mod desired;
mod files;
mod plan;
mod tls;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::{Class, ClassRef, ClassSpec, SecretBytes};

/// A class with these secretObjects, as the API server has them.
fn class(secret_objects: &Value) -> Class {
    let spec = serde_json::json!({ "provider": "azure", "secretObjects": secret_objects });
    let reference = ClassRef { namespace: "shop".parse().unwrap(), name: "demo".parse().unwrap() };
    Class::new(reference, ClassSpec::read(Some(&spec)).unwrap())
}

fn bytes(pairs: &[(&str, &[u8])]) -> BTreeMap<String, SecretBytes> {
    pairs.iter().map(|(name, content)| ((*name).to_owned(), SecretBytes::from(content.to_vec()))).collect()
}
