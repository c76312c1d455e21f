//! The parameters of a class: from strings to checked [`Params`].
//!
//! Pure. Finds all mistakes of a class at once, before anything is fetched; reads no file and no
//! token. Rules and order are those of docs/reference/azure-provider.md#parameters.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::limits::OBJECTS;
use super::mistake::{Mistake, Mistakes, NearMiss, PARAMETERS, invalid_character, near_misses, shown, with_hint};
use super::object::{self, ObjectSpec};
use crate::azure::keyvault::CloudFileName;
use crate::formats::yaml;
use crate::model::{self, Class};

/// The clouds that a class can name (docs/reference/azure-provider.md#clouds).
const CLOUDS: &[&str] =
    &["AzurePublicCloud", "AzureUSGovernmentCloud", "AzureChinaCloud", "AzureGermanCloud", STACK_CLOUD];

/// The parameter that names the file of a custom cloud. Only the class can set it, since the file
/// decides where tokens are sent.
pub const CLOUD_FILE: &str = "cloudEnvFileName";

/// The cloud whose addresses are in a file.
const STACK_CLOUD: &str = "AzureStackCloud";

/// Where the vault lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudChoice {
    /// The class names no cloud: the cloud of this process, with this file if that is the custom
    /// one. The text is not checked, since it has no meaning in any other cloud.
    Default(Option<String>),
    /// One of the known clouds, in its canonical spelling. `AzureStackCloud` here means that the
    /// class names no file.
    Named(String),
    /// `AzureStackCloud` with the addresses in this file; `keyvault::CloudFiles` decides whether it
    /// may be read.
    File(CloudFileName),
}

/// Which identity logs in (docs/reference/azure-provider.md#identities).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityMode {
    /// Client id and secret from `nodePublishSecretRef`.
    ServicePrincipal,
    /// The pod's service account token, exchanged for this client.
    WorkloadIdentity {
        /// The client id of the application or managed identity.
        client_id: String,
    },
    /// The node's managed identity.
    ManagedIdentity {
        /// The user-assigned identity; `None` for the system-assigned one.
        client_id: Option<String>,
    },
    /// The AKS token proxy.
    IdentityBinding {
        /// The client id of the managed identity.
        client_id: String,
    },
}

/// The checked parameters of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// The vault's name: 3 to 24 ASCII letters, digits and `-`, in the case of the class.
    pub vault: String,
    /// The tenant's id or domain, or `adfs`: ASCII letters, digits, `.` and `-`.
    pub tenant: String,
    /// Where the vault lives.
    pub cloud: CloudChoice,
    /// Which identity logs in.
    pub identity: IdentityMode,
    /// The objects, 1 to [`limits::OBJECTS`](super::limits::OBJECTS), whose files fit into one
    /// volume.
    pub objects: Vec<ObjectSpec>,
    /// Ignored keys that look misspelt, for the errors that they may have caused.
    pub near_misses: Vec<NearMiss>,
}

/// The class's parameters overlaid by the pod's volume context, as upstream's driver builds them.
///
/// So a pod's author can override any parameter but [`CLOUD_FILE`]
/// (docs/reference/azure-provider.md#parameters). Has no tokens: [`Caller`](model::Caller) keeps
/// them apart.
pub fn attributes(class: &Class, volume_context: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut merged = class.parameters.clone();
    let overriding = volume_context.iter().filter(|(key, _)| *key != CLOUD_FILE);
    merged.extend(overriding.map(|(key, value)| (key.clone(), value.clone())));
    merged
}

impl Params {
    /// Parses the attributes of a mount; unknown ones are ignored.
    ///
    /// # Errors
    /// Every mistake, in the order of docs/reference/azure-provider.md#order-of-checks.
    pub fn parse(attributes: &BTreeMap<String, String>) -> Result<Params, Mistakes> {
        let given = Given { attributes, near: near_misses(attributes, PARAMETERS) };
        let mut mistakes = Vec::new();
        let identity = given.identity(&mut mistakes);
        let vault = given.vault(&mut mistakes);
        let tenant = given.tenant(&mut mistakes);
        let cloud = given.cloud(&mut mistakes);
        let client_id = given.client_id(&identity, &mut mistakes);
        let objects = given.objects(&mut mistakes);
        check_vault_name(vault, &mut mistakes);
        if let Some(mistakes) = Mistakes::new(mistakes) {
            return Err(mistakes);
        }
        Ok(Params {
            vault: vault.to_owned(),
            tenant: tenant.to_owned(),
            cloud,
            identity: identity.with(client_id, given.value("userAssignedIdentityID")),
            objects,
            near_misses: given.near,
        })
    }
}

/// The identity mode that the flags select.
enum Flags {
    None,
    ManagedIdentity,
    IdentityBinding,
}

impl Flags {
    fn with(self, client_id: &str, user_assigned: &str) -> IdentityMode {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match self {
            Flags::ManagedIdentity => IdentityMode::ManagedIdentity { client_id: text(user_assigned) },
            Flags::IdentityBinding => IdentityMode::IdentityBinding { client_id: client_id.to_owned() },
            Flags::None => match text(client_id) {
                Some(client_id) => IdentityMode::WorkloadIdentity { client_id },
                None => IdentityMode::ServicePrincipal,
            },
        }
    }
}

/// The attributes, and the keys that look misspelt.
struct Given<'a> {
    attributes: &'a BTreeMap<String, String>,
    near: Vec<NearMiss>,
}

impl<'a> Given<'a> {
    fn value(&self, key: &str) -> &'a str {
        self.attributes.get(key).map_or("", |value| value.trim())
    }

    fn missing(&self, field: &'static str, fix: &str) -> Mistake {
        Mistake::new(field, "is not set", with_hint(fix, field, &self.near))
    }

    fn identity(&self, mistakes: &mut Vec<Mistake>) -> Flags {
        let mut flag = |key: &'static str| {
            let text = self.value(key);
            parse_bool(text).unwrap_or_else(|| {
                let wrong = format!("{} is not a boolean", shown(text));
                mistakes.push(Mistake::new(key, wrong, "use \"true\" or \"false\""));
                false
            })
        };
        let flags = (flag("usePodIdentity"), flag("useVMManagedIdentity"), flag("useAzureTokenProxy"));
        match flags {
            (false, false, false) => Flags::None,
            (true, false, false) => {
                let wrong =
                    "is true, but pod identity (aad-pod-identity) has been retired by Azure and is not supported";
                let fix = "use workload identity: remove usePodIdentity, set clientID to the identity's client id, and give \
                           the identity a federated credential for the pod's service account";
                mistakes.push(Mistake::new("usePodIdentity", wrong, fix));
                Flags::None
            }
            (false, true, false) => Flags::ManagedIdentity,
            (false, false, true) => Flags::IdentityBinding,
            (pod, vm, proxy) => {
                let all = [(pod, "usePodIdentity"), (vm, "useVMManagedIdentity"), (proxy, "useAzureTokenProxy")];
                let mut names = all.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
                let first = names.next().unwrap_or_default();
                let others = names.collect::<Vec<_>>().join(" and ");
                let wrong = format!("is true, but so is {others}");
                mistakes.push(Mistake::new(first, wrong, "choose only one identity mode"));
                Flags::None
            }
        }
    }

    fn vault(&self, mistakes: &mut Vec<Mistake>) -> &'a str {
        let vault = self.value("keyvaultName");
        if vault.is_empty() {
            mistakes.push(self.missing("keyvaultName", "add the name of the vault"));
        }
        vault
    }

    /// `tenantID`, or where that is empty the older spelling.
    fn tenant(&self, mistakes: &mut Vec<Mistake>) -> &'a str {
        let (field, tenant) = match (self.value("tenantID"), self.value("tenantId")) {
            ("", "") => ("tenantID", ""),
            ("", older) => ("tenantId", older),
            (tenant, _) => ("tenantID", tenant),
        };
        let fix = "use the id or the domain of the vault's Entra tenant";
        if tenant.is_empty() {
            mistakes.push(self.missing(field, fix));
        } else if let Some(wrong) = invalid_character(tenant, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) {
            mistakes.push(Mistake::new(field, wrong, fix));
        }
        tenant
    }

    fn cloud(&self, mistakes: &mut Vec<Mistake>) -> CloudChoice {
        let name = self.value("cloudName");
        let file = self.value(CLOUD_FILE);
        if name.is_empty() {
            return CloudChoice::Default((!file.is_empty()).then(|| file.to_owned()));
        }
        let Some(known) = CLOUDS.iter().find(|known| known.eq_ignore_ascii_case(name)) else {
            let wrong = format!("{} is not a cloud", shown(name));
            mistakes.push(Mistake::new(
                "cloudName",
                wrong,
                format!("use one of {}, or leave it out", CLOUDS.join(", ")),
            ));
            return CloudChoice::Default(None);
        };
        if *known != STACK_CLOUD || file.is_empty() {
            return CloudChoice::Named((*known).to_owned());
        }
        let Some(file) = CloudFileName::new(file) else {
            let wrong = format!("{} is not the name of a file", shown(file));
            let fix = "name a file in the folder of the driver's --cloud-files-dir, or leave it out for the file of its --cloud-file \
                       (AZURE_ENVIRONMENT_FILEPATH)";
            mistakes.push(Mistake::new(CLOUD_FILE, wrong, fix));
            return CloudChoice::Default(None);
        };
        CloudChoice::File(file)
    }

    fn client_id(&self, flags: &Flags, mistakes: &mut Vec<Mistake>) -> &'a str {
        let client_id = self.value("clientID");
        match flags {
            Flags::IdentityBinding if client_id.is_empty() => {
                mistakes
                    .push(self.missing("clientID", "useAzureTokenProxy needs the client id of the managed identity"));
            }
            Flags::IdentityBinding | Flags::None | Flags::ManagedIdentity => {}
        }
        client_id
    }

    fn objects(&self, mistakes: &mut Vec<Mistake>) -> Vec<ObjectSpec> {
        let text = self.value("objects");
        let fix = "add `array:` and below it one `- |` with objectName and objectType for each object";
        if text.is_empty() {
            mistakes.push(self.missing("objects", fix));
            return Vec::new();
        }
        let items = match yaml::from_str::<Objects>(text) {
            Ok(objects) => objects.and_then(|objects| objects.array).unwrap_or_default(),
            Err(error) => {
                mistakes.push(misshapen(text, &error));
                return Vec::new();
            }
        };
        if items.is_empty() {
            let wrong = "lists no object, and the pod would get an empty volume";
            mistakes.push(Mistake::new("objects", wrong, fix));
        }
        if items.len() > OBJECTS {
            let wrong = format!("lists {} objects; at most {OBJECTS} are possible", items.len());
            mistakes.push(Mistake::new("objects", wrong, "spread them over several classes"));
            return Vec::new();
        }
        let outcomes = items.iter().enumerate().map(|(at, item)| object::parse(at + 1, item.as_deref()));
        let (specs, faults): (Vec<_>, Vec<_>) = outcomes.partition(Result::is_ok);
        mistakes.extend(faults.into_iter().filter_map(Result::err).flatten());
        let specs: Vec<ObjectSpec> = specs.into_iter().flatten().collect();
        check_files(&specs, mistakes);
        specs
    }
}

/// The outer layout of `objects`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Objects {
    array: Option<Vec<Option<String>>>,
}

/// Exactly the words of Go's `strconv.ParseBool`; an empty text is false.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Names the wrong shape if it is one that people often write.
fn misshapen(text: &str, error: &yaml::Error) -> Mistake {
    use serde_json::Value;
    let fix = "write `array:` and below it one `- |` for each object, with its fields indented as text";
    let wrong = match yaml::from_str::<Value>(text) {
        Ok(Some(Value::Array(_))) => "is a list without the key array".to_owned(),
        Ok(Some(Value::Object(outer))) => match outer.get("array") {
            Some(Value::Array(items)) if items.iter().any(Value::is_object) => {
                let at = items.iter().position(Value::is_object).unwrap_or_default();
                format!("has an item that is a mapping and not text (object {}: `-` without `|`)", at + 1)
            }
            Some(_) | None => format!("cannot be read as YAML, {error}"),
        },
        Ok(Some(Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null)) => "is not a mapping".to_owned(),
        Ok(None) | Err(_) => format!("cannot be read as YAML, {error}"),
    };
    Mistake::new("objects", wrong, fix)
}

/// Finds two objects of one file before the fetch.
fn check_files(specs: &[ObjectSpec], mistakes: &mut Vec<Mistake>) {
    if specs.is_empty() {
        return;
    }
    if let Err(error) = model::check_names(specs.iter().map(|spec| &spec.file)) {
        mistakes.push(Mistake::new("objects", "cannot be mounted side by side", error.to_string()));
    }
}

fn check_vault_name(vault: &str, mistakes: &mut Vec<Mistake>) {
    let fix = "use the vault's name, not its address: 3 to 24 ASCII letters, digits and '-'";
    if vault.is_empty() {
        return;
    }
    if let Some(wrong) = invalid_character(vault, |c| c.is_ascii_alphanumeric() || c == '-') {
        mistakes.push(Mistake::new("keyvaultName", wrong, fix));
    } else if !(3..=24).contains(&vault.len()) {
        mistakes.push(Mistake::new(
            "keyvaultName",
            format!("{} is {} characters long", shown(vault), vault.len()),
            fix,
        ));
    }
}
