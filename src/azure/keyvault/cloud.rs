//! Pure. The Azure clouds: where to get a token, and under which domain the vaults are.
//!
//! Reads no file: `cloud_files` hands over a custom cloud's description, and with it the proof that it is the
//! administrator's. The token's scope is not here, since every vault names it itself in its challenge. Control goes on
//! to `vaults`.

use serde_json::{Map, Value};
use url::Url;

use super::cloud_files::AdministratorFile;
use super::names::VaultName;

/// The name under which every custom cloud goes.
const CUSTOM: &str = "AzureStackCloud";

/// The field of a custom cloud's file that holds the authority.
const AUTHORITY_FIELD: &str = "activeDirectoryEndpoint";
/// The field of a custom cloud's file that holds the resource of its vaults.
const RESOURCE_FIELD: &str = "keyVaultEndpoint";
/// The field of a custom cloud's file that holds the domain of its vaults.
const SUFFIX_FIELD: &str = "keyVaultDNSSuffix";

/// Name, authority and vault domain of the public clouds (docs/reference/azure-provider.md#clouds).
const PUBLIC_CLOUDS: [(&str, &str, &str); 4] = [
    ("AzurePublicCloud", "login.microsoftonline.com", "vault.azure.net"),
    ("AzureUSGovernmentCloud", "login.microsoftonline.us", "vault.usgovcloudapi.net"),
    ("AzureChinaCloud", "login.chinacloudapi.cn", "vault.azure.cn"),
    ("AzureGermanCloud", "login.microsoftonline.de", "vault.microsoftazure.de"),
];

/// One Azure cloud: a built-in one, or one of a file that the administrator put there; there is no third way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    authority: String,
    vault_suffix: String,
    resource_host: String,
}

/// Why a cloud cannot be used; says what is wrong and what to do, the caller adds which parameter or file it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// There is no cloud of this name.
    #[error(
        "there is no such cloud; give AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, AzureGermanCloud or AzureStackCloud"
    )]
    Unknown,
    /// The custom cloud was named where its file was not given.
    #[error("AzureStackCloud needs a file that describes it; give cloudEnvFileName or AZURE_ENVIRONMENT_FILEPATH")]
    NeedsFile,
    /// The file is not a JSON object. The parser's own text is left out, as it may quote the file.
    #[error("the cloud's file is not a JSON object (line {line}, column {column})")]
    NotJson {
        /// The line where parsing stopped.
        line: usize,
        /// The column where parsing stopped.
        column: usize,
    },
    /// A field is missing or empty.
    #[error("the cloud's file lacks {field}; add it, for example {example:?}")]
    Missing {
        /// The field's name.
        field: &'static str,
        /// What its value looks like.
        example: &'static str,
    },
    /// A field's value cannot be used.
    #[error("{field} of the cloud's file {fault}; it looks like {example:?}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What is wrong with its value.
        fault: &'static str,
        /// What its value looks like.
        example: &'static str,
    },
}

impl Cloud {
    /// The cloud of this name, in any case; one of five (docs/reference/azure-provider.md#clouds).
    ///
    /// # Errors
    /// [`CloudError::NeedsFile`] for AzureStackCloud, [`CloudError::Unknown`] for a name that is none of the five.
    pub fn named(name: &str) -> Result<Cloud, CloudError> {
        if name.eq_ignore_ascii_case(CUSTOM) {
            return Err(CloudError::NeedsFile);
        }
        let (_, authority, suffix) =
            PUBLIC_CLOUDS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).ok_or(CloudError::Unknown)?;
        Ok(Cloud {
            authority: (*authority).to_owned(),
            vault_suffix: (*suffix).to_owned(),
            resource_host: (*suffix).to_owned(),
        })
    }

    /// Whether this name stands for a cloud that its file describes, see [`CloudFiles`](super::CloudFiles).
    pub fn is_custom(name: &str) -> bool {
        name.eq_ignore_ascii_case(CUSTOM)
    }

    /// A custom cloud from its environment file
    /// (docs/reference/azure-provider.md#custom-cloud-file).
    ///
    /// Field names match in any case and unknown fields are ignored, as upstream's reader does. A byte-order mark before the
    /// text and a dot before the suffix are tolerated. `keyVaultEndpoint` may be missing; the suffix then stands for it.
    ///
    /// # Errors
    /// The first field that is missing or cannot be used: an endpoint that is not https, or that has a port, a user or a path
    /// where none is possible; a suffix that is not a domain.
    pub(super) fn of_file(file: &AdministratorFile) -> Result<Cloud, CloudError> {
        let bytes = file.bytes();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let fields: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| CloudError::NotJson { line: error.line(), column: error.column() })?;
        let login = "https://login.local.azurestack.external/";
        let authority = text(&fields, AUTHORITY_FIELD, login)?
            .ok_or(CloudError::Missing { field: AUTHORITY_FIELD, example: login })
            .and_then(|value| endpoint(value, AUTHORITY_FIELD, login))?;
        let domain = "vault.local.azurestack.external";
        let vault_suffix = text(&fields, SUFFIX_FIELD, domain)?
            .ok_or(CloudError::Missing { field: SUFFIX_FIELD, example: domain })
            .and_then(suffix)?;
        let resource = "https://vault.local.azurestack.external";
        let resource_host = match text(&fields, RESOURCE_FIELD, resource)? {
            Some(value) => endpoint(value, RESOURCE_FIELD, resource)?,
            None => vault_suffix.clone(),
        };
        Ok(Cloud { authority, vault_suffix, resource_host })
    }

    /// The host that gives out tokens; always reached by https on port 443.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The domain under which the vaults are, without a leading dot.
    pub fn vault_suffix(&self) -> &str {
        &self.vault_suffix
    }

    /// The host of the resource that this cloud's vaults may ask a token for, beside any parent domain of the vault.
    pub(super) fn resource_host(&self) -> &str {
        &self.resource_host
    }
}

impl VaultName {
    /// The vault's host in `cloud`, in lower case: `<name>.<suffix>`
    /// (docs/reference/azure-provider.md#clouds).
    pub fn host(&self, cloud: &Cloud) -> String {
        format!("{}.{}", self.as_str().to_ascii_lowercase(), cloud.vault_suffix)
    }
}

/// The text of a field; `None` when it is missing, null or blank.
fn text<'a>(
    fields: &'a Map<String, Value>,
    field: &'static str,
    example: &'static str,
) -> Result<Option<&'a str>, CloudError> {
    match fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(field)).map(|(_, value)| value) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        Some(_) => Err(CloudError::Invalid { field, fault: "is not a text", example }),
    }
}

/// The host of an https endpoint. Its path is not looked at: an audience may have one, and the authority of AD FS ends in
/// `adfs`, which the tenant says.
fn endpoint(value: &str, field: &'static str, example: &'static str) -> Result<String, CloudError> {
    let invalid = |fault| CloudError::Invalid { field, fault, example };
    let url = Url::parse(value).map_err(|_| invalid("is not a URL"))?;
    if url.scheme() != "https" {
        return Err(invalid("does not start with https://"));
    }
    if url.port().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("names a port or a user, which is not possible"));
    }
    url.domain().map(str::to_owned).ok_or_else(|| invalid("has no host name"))
}

fn suffix(value: &str) -> Result<String, CloudError> {
    let invalid =
        |fault| CloudError::Invalid { field: SUFFIX_FIELD, fault, example: "vault.local.azurestack.external" };
    let domain = value.strip_prefix('.').unwrap_or(value).to_ascii_lowercase();
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !domain.split('.').all(label) {
        return Err(invalid("is not a domain name"));
    }
    // The URL parser takes a host with a number at its end for an address.
    let host = format!("vault.{domain}");
    match Url::parse(&format!("https://{host}/")).ok().and_then(|url| url.domain().map(str::to_owned)) {
        Some(parsed) if parsed == host => Ok(domain),
        Some(_) | None => Err(invalid("is not a domain name")),
    }
}
