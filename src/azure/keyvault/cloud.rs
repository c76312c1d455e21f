//! Pure. The Azure clouds: the authority that issues tokens, and the domain of the vaults.
//!
//! Reads no file: `cloud_files` brings the description of a custom cloud, with the proof that it is
//! the administrator's. The token's scope is not here, since each vault names it in its challenge.

use serde_json::{Map, Value};
use url::Url;

use super::administrator_file::AdministratorFile;
use super::names::VaultName;

/// The name of each custom cloud.
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

/// A built-in Azure cloud, or one that a file of the administrator describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    authority: String,
    vault_suffix: String,
    resource: CloudResource,
}

/// The resource for which a cloud's vaults may require a token, beside parent domains of the vault.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CloudResource {
    pub(super) host: String,
    /// Whether the administrator's file describes the cloud, so that another host can be named.
    pub(super) of_file: bool,
}

/// Why a cloud cannot be used, and the fix; the caller adds the parameter or file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// There is no cloud of this name.
    #[error(
        "there is no such cloud; give AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, AzureGermanCloud or AzureStackCloud"
    )]
    Unknown,
    /// A custom cloud without its file.
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
        /// An example of a value.
        example: &'static str,
    },
    /// A field's value cannot be used.
    #[error("{field} of the cloud's file {fault}; give one like {example:?}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What is wrong with its value.
        fault: &'static str,
        /// An example of a value.
        example: &'static str,
    },
}

impl Cloud {
    /// The built-in cloud of this name, in any case (docs/reference/azure-provider.md#clouds).
    ///
    /// # Errors
    /// [`CloudError::NeedsFile`] for AzureStackCloud, [`CloudError::Unknown`] for an unknown name.
    pub fn named(name: &str) -> Result<Cloud, CloudError> {
        if name.eq_ignore_ascii_case(CUSTOM) {
            return Err(CloudError::NeedsFile);
        }
        let (_, authority, suffix) =
            PUBLIC_CLOUDS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).ok_or(CloudError::Unknown)?;
        Ok(Cloud {
            authority: (*authority).to_owned(),
            vault_suffix: (*suffix).to_owned(),
            resource: CloudResource { host: (*suffix).to_owned(), of_file: false },
        })
    }

    /// Whether this is the name of a custom cloud, see [`CloudFiles`](super::CloudFiles).
    pub fn is_custom(name: &str) -> bool {
        name.eq_ignore_ascii_case(CUSTOM)
    }

    /// A custom cloud from its environment file
    /// (docs/reference/azure-provider.md#custom-cloud-file).
    ///
    /// Field names match in any case and unknown fields are ignored, as in upstream's reader. A
    /// byte-order mark before the text and a dot before the suffix are accepted. The default of
    /// `keyVaultEndpoint` is the suffix.
    ///
    /// # Errors
    /// The first field that is missing or cannot be used: an endpoint that is not https, or has a
    /// port or a user; a suffix that is not a domain.
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
        let host = match text(&fields, RESOURCE_FIELD, resource)? {
            Some(value) => endpoint(value, RESOURCE_FIELD, resource)?,
            None => vault_suffix.clone(),
        };
        Ok(Cloud { authority, vault_suffix, resource: CloudResource { host, of_file: true } })
    }

    /// The host that issues tokens, by https on port 443.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The domain of the vaults, without a leading dot.
    pub fn vault_suffix(&self) -> &str {
        &self.vault_suffix
    }

    pub(super) fn resource(&self) -> &CloudResource {
        &self.resource
    }
}

impl VaultName {
    /// The vault's host in `cloud`, in lower case: `<name>.<suffix>`
    /// (docs/reference/azure-provider.md#clouds).
    pub fn host(&self, cloud: &Cloud) -> String {
        format!("{}.{}", self.as_str().to_ascii_lowercase(), cloud.vault_suffix)
    }
}

/// `None` if the field is missing, null or blank.
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

/// The host of an https endpoint. The path is ignored: an audience may have one, and that of AD FS
/// ends in `adfs`, for which the tenant stands.
fn endpoint(value: &str, field: &'static str, example: &'static str) -> Result<String, CloudError> {
    let invalid = |fault| CloudError::Invalid { field, fault, example };
    let url = Url::parse(value).map_err(|_| invalid("is not a URL"))?;
    if url.scheme() != "https" {
        return Err(invalid("does not start with https://"));
    }
    if url.port().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("must not have a port or a user"));
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
    // The URL parser reads a host that ends in a number as an address.
    let host = format!("vault.{domain}");
    match Url::parse(&format!("https://{host}/")).ok().and_then(|url| url.domain().map(str::to_owned)) {
        Some(parsed) if parsed == host => Ok(domain),
        Some(_) | None => Err(invalid("is not a domain name")),
    }
}
