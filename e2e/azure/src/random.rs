//! Random identifiers: versions, request ids, token signatures.

/// 16 random bytes as lower-case hexadecimal, the form of a Key Vault version.
pub(crate) fn hex_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// A random identifier in the 8-4-4-4-12 form that Azure uses for request and trace ids.
pub(crate) fn guid() -> String {
    let id = hex_id();
    format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..])
}
