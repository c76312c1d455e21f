mod desired;
mod plan;
mod tls;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::{ClassSpec, SecretBytes, SecretObject};

/// A secretObject as it stands in a class.
fn object(object: &Value) -> SecretObject {
    let spec = serde_json::json!({ "provider": "azure", "secretObjects": [object] });
    ClassSpec::read(Some(&spec)).unwrap().secret_objects.remove(0)
}

fn bytes(pairs: &[(&str, &[u8])]) -> BTreeMap<String, SecretBytes> {
    pairs.iter().map(|(name, content)| ((*name).to_owned(), SecretBytes::from(content.to_vec()))).collect()
}
