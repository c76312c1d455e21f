//! From a class and a pod's credentials to the complete content of a volume.
//!
//! Everything that can be known without the network is checked first; then the objects are fetched concurrently, and
//! the first failure ends the fetch. Control comes from `volume` and goes on to `keyvault`.

use std::collections::BTreeMap;

use futures::stream::{FuturesUnordered, TryStreamExt as _};
use tokio::time::Instant;

use super::certificate_login::CertificateLogins;
use super::cloud_file::DefaultCloud;
use super::conversion::{Conversions, Converter, HeldFiles};
use super::error::Error;
use super::login::{Login, login};
use super::object::ObjectSpec;
use super::object_fetch::{FetchedObject, ObjectFetch};
use super::params::{Params, attributes};
use super::render::Rendering;
use super::service_account::check_pod;
use crate::azure::keyvault::{FetchContext, Identity, NameError, Purpose, TenantId, Vault, VaultName, Vaults};
use crate::compute::Compute;
use crate::model::{Class, ClassRef, ExposeSecret as _, FileMode, Payload, PayloadError, SecretString, limits};

/// How many objects of one class are fetched at once (docs/decisions.md#d7).
const CONCURRENCY: usize = 16;

/// The built-in Azure provider. Cheap to clone; all clones share connections and what was learned about vaults.
#[derive(Debug, Clone)]
pub struct Azure {
    vaults: Vaults,
    default_cloud: DefaultCloud,
    rendering: Rendering,
    logins: CertificateLogins,
    conversions: Conversions,
}

/// What one mount, or one refresh, asks for.
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
    /// The volume's target path, which names the pod where it is a kubelet's; nothing is done there.
    pub target: &'a str,
    /// What the volume holds of earlier fetches, which is not computed again.
    pub held: Option<&'a dyn HeldFiles>,
    /// What it is for.
    pub purpose: Purpose,
    /// When the fetch must have ended.
    pub deadline: Instant,
}

/// A fetch of which everything is known that can be known without the network.
pub struct Prepared<'a> {
    rendering: &'a Rendering,
    conversions: &'a Conversions,
    held: Option<&'a dyn HeldFiles>,
    deadline: Instant,
    class: &'a ClassRef,
    params: Params,
    vault: Vault,
}

impl Azure {
    /// A provider whose classes live in `default_cloud` unless they say otherwise, and which has `compute` read
    /// certificates.
    pub fn new(vaults: Vaults, default_cloud: DefaultCloud, rendering: Rendering, compute: Compute) -> Azure {
        let logins = CertificateLogins::new(compute.clone());
        Azure { vaults, default_cloud, rendering, logins, conversions: Conversions::new(compute) }
    }

    /// The number of vaults to which requests are paused: by their Retry-After, and by an open circuit.
    pub fn backoff_counts(&self) -> [usize; 2] {
        self.vaults.backoff_counts()
    }

    /// The same provider, with another mode for files that have none of their own.
    pub fn with_default_mode(&self, default_mode: FileMode) -> Azure {
        Azure { rendering: Rendering { default_mode, ..self.rendering }, ..self.clone() }
    }

    /// Checks all that can be checked without the network, and says by that who will ask.
    ///
    /// # Errors
    /// A context of another pod, all mistakes of the class at once, or missing credentials.
    pub async fn prepare<'a>(&'a self, fetch: Fetch<'a>) -> Result<Prepared<'a>, Error> {
        check_pod(fetch.context, fetch.target)?;
        let class = &fetch.class.reference;
        let mistakes = |mistakes| Error::Mistakes { class: class.clone(), mistakes };
        let params = Params::parse(&attributes(fetch.class, fetch.context)).map_err(mistakes)?;
        let vault = self.open(&params, fetch).await?;
        let Azure { rendering, conversions, .. } = self;
        let Fetch { held, deadline, .. } = fetch;
        Ok(Prepared { rendering, conversions, held, deadline, class, params, vault })
    }

    async fn open(&self, params: &Params, fetch: Fetch<'_>) -> Result<Vault, Error> {
        let class = &fetch.class.reference;
        // In the order of docs/reference/azure-provider.md#order-of-checks: what the class says
        // comes before what the pod brings.
        let name = |field, source: NameError| Error::Name { class: class.clone(), field, source };
        let vault = VaultName::new(&params.vault).map_err(|source| name("keyvaultName", source))?;
        let tenant = TenantId::new(&params.tenant).map_err(|source| name("tenantID", source))?;
        let cloud = self.default_cloud.resolve(&params.cloud, fetch.deadline).await;
        let cloud = cloud.map_err(|source| Error::Cloud { class: class.clone(), source })?;
        let credential = match login(params, class, fetch.context, fetch.secrets)? {
            Login::Credential(credential) => credential,
            Login::Certificate { client_id, proof } => {
                self.logins.credential((params, class), client_id, proof, fetch.deadline).await?
            }
        };
        let context = FetchContext { namespace: &class.namespace, purpose: fetch.purpose, deadline: fetch.deadline };
        self.vaults.open(context, &cloud, &vault, &tenant, credential).map_err(|source| Error::Vault {
            class: class.clone(),
            object: None,
            source,
        })
    }
}

impl Prepared<'_> {
    /// Who asks. Two fetches of one class and equal attributes by one identity bring the same.
    pub fn identity(&self) -> Identity {
        self.vault.identity()
    }

    /// Fetches everything that the class asks for; holds no lock and writes nothing.
    ///
    /// # Errors
    /// The first object that cannot be had.
    pub async fn fetch(&self) -> Result<Payload, Error> {
        let class = self.class;
        // Unordered, so that the first failure is told at once instead of after slower neighbours. Made when their turn comes: each
        // is large.
        let (mut waiting, mut arriving) = (self.params.objects.iter().enumerate(), FuturesUnordered::new());
        let (mut fetched, mut bytes) = (Vec::new(), 0);
        loop {
            arriving.extend(waiting.by_ref().take(CONCURRENCY - arriving.len()).map(|(at, spec)| self.one(at, spec)));
            let Some(one) = arriving.try_next().await? else { break };
            // Counted as it comes, so that many large objects never lie in memory together.
            bytes += one.object.files.iter().map(|file| file.content.expose_secret().len()).sum::<usize>();
            if bytes > limits::PAYLOAD {
                let source = PayloadError::TooLarge { bytes, limit: limits::PAYLOAD };
                return Err(Error::Payload { class: class.clone(), source });
            }
            fetched.push(one);
        }
        collect(fetched).map_err(|source| Error::Payload { class: class.clone(), source })
    }

    async fn one(&self, at: usize, spec: &ObjectSpec) -> Result<Fetched, Error> {
        let Prepared { rendering, conversions, held, deadline, class, params, vault } = self;
        let (held, deadline) = (*held, *deadline);
        let converter = Converter { conversions, rendering, class, vault_name: &params.vault, held, deadline };
        let object = ObjectFetch { converter, class, vault, vault_name: &params.vault, spec };
        Ok(Fetched { at, object: object.fetch().await? })
    }
}

/// One object, with its place in the class.
struct Fetched {
    at: usize,
    object: FetchedObject,
}

fn collect(mut fetched: Vec<Fetched>) -> Result<Payload, PayloadError> {
    fetched.sort_by_key(|one| one.at);
    let expires = fetched.iter().filter_map(|one| one.object.expires).min();
    let (mut files, mut versions, mut conversions) = (Vec::new(), Vec::new(), Vec::new());
    for FetchedObject { files: some, versions: theirs, conversions: converted, .. } in
        fetched.into_iter().map(|one| one.object)
    {
        files.extend(some);
        versions.extend(theirs);
        conversions.extend(converted);
    }
    Ok(Payload::new(files, versions)?.expiring(expires).converting(conversions))
}
