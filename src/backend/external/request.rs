//! Pure. What a provider is asked: class, volume context and secrets as the protocol's JSON texts.
//!
//! As upstream's driver builds it (docs/reference/csi-driver.md#mount-request). The request holds
//! tokens and secrets; it has no `Debug`.

use std::collections::BTreeMap;

use keyvault_csi_proto::provider::{MountRequest, ObjectVersion};
use serde_json::{Map, Value};

use super::ask::Ask;
use crate::model::ExposeSecret as _;

/// Where the service account's tokens stand, in the context or among the secrets
/// (docs/reference/csi-driver.md#service-account-tokens).
pub(super) const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// 0644 as a decimal JSON number: the mode of files that a provider gives none.
const PERMISSION: &str = "420";

/// The request for a volume.
pub(super) fn build(ask: &Ask<'_>) -> MountRequest {
    let mut attributes: BTreeMap<&str, &str> = BTreeMap::new();
    // What the pod's author wrote into the volume goes over the class: a contract, however odd.
    for (key, value) in ask.class.parameters.iter().chain(ask.context) {
        attributes.insert(key, value);
    }
    if let Some(tokens) = ask.secrets.get(TOKENS).map(|tokens| tokens.expose_secret()).filter(|text| !text.is_empty()) {
        attributes.insert(TOKENS, tokens);
    }
    let secrets = ask.secrets.iter().map(|(key, value)| (key.as_str(), value.expose_secret()));
    let held = ask.held.iter();
    let held = held.map(|held| ObjectVersion { id: held.id.clone(), version: held.version.clone() });
    MountRequest {
        attributes: object(attributes.into_iter()).to_string(),
        // Not `{}`: what Go's encoder makes of a map that is not there, and what providers were written against.
        secrets: if ask.secrets.is_empty() { Value::Null } else { object(secrets) }.to_string(),
        target_path: ask.target.to_owned(),
        permission: PERMISSION.to_owned(),
        current_object_version: held.collect(),
    }
}

fn object<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    Value::Object(pairs.map(|(key, value)| (key.to_owned(), value.into())).collect::<Map<_, _>>())
}
