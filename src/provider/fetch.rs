//! From a class and a pod's credentials to the complete content of a volume.
//!
//! Everything that can be known without the network is checked first; then the objects are fetched concurrently, and
//! the first failure ends the fetch. Control comes from `volume` and goes on to `keyvault`.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use tracing::warn;

use super::cloud_file::DefaultCloud;
use super::error::Error;
use super::login::credential;
use super::object::{ObjectSpec, ObjectType, Version};
use super::params::{Params, attributes};
use super::render::{Fetched as Value, FetchedSecret, Rendering, render};
use super::versions::{ListedVersion, newest};
use crate::formats::encoding::base64url;
use crate::formats::jwk::Jwk;
use crate::keyvault::{self, NameError, ObjectName, ObjectVersionId, TenantId, Vault, VaultName, Vaults, VersionInfo};
use crate::model::{Class, ExposeSecret as _, ObjectVersion, Payload, PayloadError, SecretFile, SecretString, limits};

/// How many objects of one class are fetched at once (design decision 7).
const CONCURRENCY: usize = 16;

/// The built-in Azure provider. Cheap to clone; all clones share connections and what was learned about vaults.
#[derive(Debug, Clone)]
pub struct Azure {
    vaults: Vaults,
    default_cloud: DefaultCloud,
    rendering: Rendering,
}

/// What one mount asks for.
///
/// Not printable: the context may hold tokens.
#[derive(Clone, Copy)]
pub struct Fetch<'a> {
    /// The class.
    pub class: &'a Class,
    /// The pod's volume context, which overlays the class's parameters.
    pub context: &'a BTreeMap<String, String>,
    /// The data of the volume's nodePublishSecretRef.
    pub secrets: &'a BTreeMap<String, SecretString>,
    /// When the fetch must have ended.
    pub deadline: Instant,
}

impl Azure {
    /// A provider whose classes live in `default_cloud` unless they say otherwise.
    pub fn new(vaults: Vaults, default_cloud: DefaultCloud, rendering: Rendering) -> Azure {
        Azure { vaults, default_cloud, rendering }
    }

    /// Fetches everything that the class asks for; holds no lock and writes nothing.
    ///
    /// # Errors
    /// All mistakes of the class at once, missing credentials, or the first object that cannot be had.
    pub async fn fetch(&self, fetch: Fetch<'_>) -> Result<Payload, Error> {
        let class = &fetch.class.reference;
        let mistakes = |mistakes| Error::Mistakes { class: class.clone(), mistakes };
        let params = Params::parse(&attributes(fetch.class, fetch.context)).map_err(mistakes)?;
        let vault = self.open(&params, fetch).await?;
        let objects = params.objects.iter().enumerate();
        let calls: Vec<_> = objects.map(|(at, spec)| self.one(&vault, at, spec, fetch, &params.vault)).collect();
        // Unordered, so that the first failure is told at once instead of after slower neighbours.
        let mut arriving = stream::iter(calls).buffer_unordered(CONCURRENCY);
        let (mut fetched, mut bytes) = (Vec::new(), 0);
        while let Some(one) = arriving.try_next().await? {
            // Counted as it comes, so that many large objects never lie in memory together.
            bytes += one.files.iter().map(|file| file.content.expose_secret().len()).sum::<usize>();
            if bytes > limits::PAYLOAD {
                return Err(Error::Payload { class: class.clone(), source: PayloadError::TooLarge { bytes } });
            }
            fetched.push(one);
        }
        collect(fetched).map_err(|source| Error::Payload { class: class.clone(), source })
    }

    async fn open(&self, params: &Params, fetch: Fetch<'_>) -> Result<Vault, Error> {
        let class = &fetch.class.reference;
        // In the order of spec/azure-provider.md §2.1: what the class says comes before what the pod brings.
        let name = |field, source: NameError| Error::Name { class: class.clone(), field, source };
        let vault = VaultName::new(&params.vault).map_err(|source| name("keyvaultName", source))?;
        let tenant = TenantId::new(&params.tenant).map_err(|source| name("tenantID", source))?;
        let cloud = self.default_cloud.resolve(&params.cloud, fetch.deadline).await;
        let cloud = cloud.map_err(|source| Error::Cloud { class: class.clone(), source })?;
        // An archive with a certificate may ask for a second of computing, in which this thread can serve nobody else.
        let credential = tokio::task::block_in_place(|| credential(params, class, fetch.context, fetch.secrets))?;
        self.vaults.open(&cloud, &vault, &tenant, credential, fetch.deadline).map_err(|source| Error::Vault {
            class: class.clone(),
            object: None,
            source,
        })
    }

    /// One object: its newest or pinned version, or as many of its versions as the class wants.
    async fn one(
        &self,
        vault: &Vault,
        at: usize,
        spec: &ObjectSpec,
        fetch: Fetch<'_>,
        vault_name: &str,
    ) -> Result<Fetched, Error> {
        let class = || fetch.class.reference.clone();
        let object = ObjectName::new(&spec.name).map_err(|source| Error::Name {
            class: class(),
            field: "objectName",
            source,
        })?;
        let vaults = |source| Error::Vault { class: class(), object: Some(spec.version_id(None)), source };
        let mut one = Fetched { at, files: Vec::new(), versions: Vec::new() };
        if spec.wants_history() {
            let listed = vault.versions(kind(spec.object_type), &object).await.map_err(vaults)?;
            let listed: Vec<ListedVersion> = listed.iter().map(listed_version).collect();
            let wanted = newest(spec, &listed).map_err(|source| Error::Versions { class: class(), source })?;
            for (index, version) in wanted.iter().enumerate() {
                self.version(vault, spec, &object, (Some(index), Some(version)), fetch, vault_name, &mut one).await?;
            }
        } else {
            let pinned = match &spec.version {
                Version::Latest => None,
                Version::Pinned(version) => Some(version),
            };
            self.version(vault, spec, &object, (None, pinned), fetch, vault_name, &mut one).await?;
        }
        Ok(one)
    }

    /// Fetches and renders one version; `place` is its index in a history and its id, if a certain one is wanted.
    #[allow(clippy::too_many_arguments)] // All of them are of this one object; a struct would only repeat their names.
    async fn version(
        &self,
        vault: &Vault,
        spec: &ObjectSpec,
        object: &ObjectName,
        place: (Option<usize>, Option<&String>),
        fetch: Fetch<'_>,
        vault_name: &str,
        one: &mut Fetched,
    ) -> Result<(), Error> {
        let class = || fetch.class.reference.clone();
        let (index, version) = place;
        let id = spec.version_id(index);
        let version = version
            .map(|version| ObjectVersionId::new(version))
            .transpose()
            .map_err(|source| Error::Name { class: class(), field: "objectVersion", source })?;
        let vaults = |source| Error::Vault { class: class(), object: Some(id.clone()), source };
        let (rendered, version) = match spec.object_type {
            ObjectType::Secret => {
                let secret = vault.secret(object, version.as_ref()).await.map_err(vaults)?;
                let value = Value::Secret(FetchedSecret {
                    value: &secret.value,
                    content_type: secret.content_type.as_deref(),
                    certificate_backed: secret.certificate_backed,
                });
                // An archive may ask for a second of computing, in which this thread can serve nobody else.
                let rendered = match secret.certificate_backed {
                    true => tokio::task::block_in_place(|| render(spec, index, value, &self.rendering)),
                    false => render(spec, index, value, &self.rendering),
                };
                (rendered, secret.version.clone())
            }
            ObjectType::Key => {
                let key = vault.key(object, version.as_ref()).await.map_err(vaults)?;
                let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| base64url(bytes));
                let (n, e, x, y) = (text(&key.n), text(&key.e), text(&key.x), text(&key.y));
                let jwk = Jwk {
                    kty: Some(&key.kty),
                    n: n.as_deref(),
                    e: e.as_deref(),
                    crv: key.crv.as_deref(),
                    x: x.as_deref(),
                    y: y.as_deref(),
                };
                (render(spec, index, Value::Key(jwk), &self.rendering), key.version.clone())
            }
            ObjectType::Certificate => {
                let certificate = vault.certificate(object, version.as_ref()).await.map_err(vaults)?;
                let rendered = render(spec, index, Value::Certificate(&certificate.der), &self.rendering);
                (rendered, certificate.version.clone())
            }
        };
        let rendered =
            rendered.map_err(|source| Error::Render { class: class(), vault: vault_name.to_owned(), source })?;
        for warning in &rendered.warnings {
            warn!(class = %fetch.class.reference, vault = vault_name, %warning, "an object was rendered otherwise");
        }
        one.files.extend(rendered.files);
        one.versions.push(ObjectVersion { id, version });
        Ok(())
    }
}

fn kind(object_type: ObjectType) -> keyvault::ObjectType {
    match object_type {
        ObjectType::Secret => keyvault::ObjectType::Secret,
        ObjectType::Key => keyvault::ObjectType::Key,
        ObjectType::Certificate => keyvault::ObjectType::Certificate,
    }
}

fn listed_version(listed: &VersionInfo) -> ListedVersion {
    let VersionInfo { version, enabled, created, has_attributes } = listed;
    ListedVersion { id: version.clone(), has_attributes: *has_attributes, enabled: *enabled, created: *created }
}

/// One object, with its place in the class.
struct Fetched {
    at: usize,
    files: Vec<SecretFile>,
    versions: Vec<ObjectVersion>,
}

fn collect(mut fetched: Vec<Fetched>) -> Result<Payload, PayloadError> {
    fetched.sort_by_key(|one| one.at);
    let (files, versions): (Vec<_>, Vec<_>) = fetched.into_iter().map(|one| (one.files, one.versions)).unzip();
    Payload::new(files.into_iter().flatten().collect(), versions.into_iter().flatten().collect())
}
