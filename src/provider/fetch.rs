//! From a class and a pod's credentials to the complete content of a volume.
//!
//! Everything that can be known without the network is checked first; then the objects are fetched concurrently, and
//! the first failure ends the fetch. Control comes from `volume` and goes on to `keyvault`.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use tracing::warn;

use super::cloud_file::DefaultCloud;
use super::credentials::service_principal;
use super::error::Error;
use super::mistake::Mistakes;
use super::object::{ObjectSpec, Version};
use super::params::{Params, attributes, unsupported_yet};
use super::render::{Fetched as Value, FetchedSecret, Rendering, render};
use crate::keyvault::{Credential, NameError, ObjectName, ObjectVersionId, TenantId, Vault, VaultName, Vaults};
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
        if let Some(missing) = Mistakes::new(unsupported_yet(&params)) {
            return Err(mistakes(missing));
        }
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
        let principal = service_principal(fetch.secrets).map_err(|source| Error::Credentials {
            class: class.clone(),
            vault: params.vault.clone(),
            source,
            near_misses: params.near_misses.clone(),
        })?;
        let credential =
            Credential::ClientSecret { client_id: principal.client_id, client_secret: principal.client_secret };
        self.vaults.open(&cloud, &vault, &tenant, credential, fetch.deadline).map_err(|source| Error::Vault {
            class: class.clone(),
            object: None,
            source,
        })
    }

    async fn one(
        &self,
        vault: &Vault,
        at: usize,
        spec: &ObjectSpec,
        fetch: Fetch<'_>,
        vault_name: &str,
    ) -> Result<Fetched, Error> {
        let class = || fetch.class.reference.clone();
        let name = |field, source: NameError| Error::Name { class: class(), field, source };
        let object = ObjectName::new(&spec.name).map_err(|source| name("objectName", source))?;
        let version = match &spec.version {
            Version::Latest => None,
            Version::Pinned(version) => {
                Some(ObjectVersionId::new(version).map_err(|source| name("objectVersion", source))?)
            }
        };
        let secret = vault.secret(&object, version.as_ref()).await.map_err(|source| Error::Vault {
            class: class(),
            object: Some(spec.version_id(None)),
            source,
        })?;
        let value = Value::Secret(FetchedSecret {
            value: &secret.value,
            content_type: secret.content_type.as_deref(),
            certificate_backed: secret.certificate_backed,
        });
        // An archive may ask for a second of computing, in which this thread can serve nobody else.
        let rendered = match secret.certificate_backed {
            true => tokio::task::block_in_place(|| render(spec, None, value, &self.rendering)),
            false => render(spec, None, value, &self.rendering),
        };
        let rendered =
            rendered.map_err(|source| Error::Render { class: class(), vault: vault_name.to_owned(), source })?;
        for warning in &rendered.warnings {
            warn!(class = %fetch.class.reference, vault = vault_name, %warning, "an object was rendered otherwise");
        }
        let version = ObjectVersion { id: spec.version_id(None), version: secret.version };
        Ok(Fetched { at, files: rendered.files, version })
    }
}

/// One object, with its place in the class.
struct Fetched {
    at: usize,
    files: Vec<SecretFile>,
    version: ObjectVersion,
}

fn collect(mut fetched: Vec<Fetched>) -> Result<Payload, PayloadError> {
    fetched.sort_by_key(|one| one.at);
    let (files, versions): (Vec<_>, Vec<_>) = fetched.into_iter().map(|one| (one.files, one.version)).unzip();
    Payload::new(files.into_iter().flatten().collect(), versions)
}
