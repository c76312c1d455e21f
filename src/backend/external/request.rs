//! Pure. Builds the request for a provider: class, volume context and secrets as the protocol's
//! JSON texts.
//!
//! Built as upstream's driver does (docs/reference/csi-driver.md#mount-request). The request has
//! tokens and secrets in plain text: never log it.

use keyvault_csi_proto::provider::{self, MountRequest};
use serde_json::{Map, Value};

use crate::model::{Fetch, ObjectVersion};

/// 0644 as a decimal JSON number: the mode of files for which a provider sets none.
const PERMISSION: &str = "420";

/// The request for a volume.
pub(super) fn build(fetch: &Fetch<'_>, held: &[ObjectVersion]) -> MountRequest {
    let parameters = fetch.class.parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    // The pod's attributes override the class's parameters: upstream's contract.
    let attributes = parameters.chain(fetch.caller.exposed_attributes());
    let mut secrets = fetch.caller.exposed_secrets().peekable();
    let held = held.iter().map(|held| provider::ObjectVersion { id: held.id.clone(), version: held.version.clone() });
    MountRequest {
        attributes: object(attributes).to_string(),
        // Not `{}`: Go's encoder writes null for a nil map, and providers expect it.
        secrets: if secrets.peek().is_none() { Value::Null } else { object(secrets) }.to_string(),
        target_path: fetch.target.to_owned(),
        permission: PERMISSION.to_owned(),
        current_object_version: held.collect(),
    }
}

fn object<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    Value::Object(pairs.map(|(key, value)| (key.to_owned(), value.into())).collect::<Map<_, _>>())
}
