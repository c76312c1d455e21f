//! From a class and a caller to a result for each object of the class.
//!
//! Everything that needs no network is checked first; then the objects are fetched concurrently.
//! Whether a volume may lack one of them is the caller's decision.

use futures::stream::{self, Stream, StreamExt as _};
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
use crate::azure::keyvault::{FetchContext, Identity, NameError, TenantId, Vault, VaultName, Vaults};
use crate::compute::Compute;
use crate::model::{ClassRef, Fetch, FileMode};

/// How many objects of one class are fetched at once (docs/decisions.md#d7).
const CONCURRENCY: usize = 16;

/// The built-in Azure provider. Cheap to clone; all clones share connections and caches.
#[derive(Debug, Clone)]
pub struct Azure {
    vaults: Vaults,
    default_cloud: DefaultCloud,
    rendering: Rendering,
    logins: CertificateLogins,
    conversions: Conversions,
}

/// A fetch that passed every check that needs no network.
pub struct AzureFetch<'a> {
    rendering: &'a Rendering,
    conversions: &'a Conversions,
    held: Option<&'a dyn HeldFiles>,
    deadline: Instant,
    class: &'a ClassRef,
    params: Params,
    vault: Vault,
}

impl Azure {
    /// A provider for classes of `default_cloud`, unless a class names its own cloud. Certificates
    /// are read by `compute`.
    pub fn new(vaults: Vaults, default_cloud: DefaultCloud, rendering: Rendering, compute: Compute) -> Azure {
        let logins = CertificateLogins::new(compute.clone());
        Azure { vaults, default_cloud, rendering, logins, conversions: Conversions::new(compute) }
    }

    /// The number of vaults to which requests are paused: by their Retry-After, and by an open
    /// circuit.
    pub fn backoff_counts(&self) -> [usize; 2] {
        self.vaults.backoff_counts()
    }

    /// The same provider with another default mode of files.
    pub fn with_default_mode(&self, default_mode: FileMode) -> Azure {
        Azure { rendering: Rendering { default_mode, ..self.rendering }, ..self.clone() }
    }

    /// Checks everything that needs no network, and determines the identity of the fetch. `held`
    /// are the files of the volume, which are not converted again.
    ///
    /// # Errors
    /// A context of another pod, all mistakes of the class at once, or missing credentials.
    pub async fn prepare<'a>(
        &'a self,
        fetch: Fetch<'a>,
        held: Option<&'a dyn HeldFiles>,
    ) -> Result<AzureFetch<'a>, Error> {
        check_pod(fetch.caller, fetch.target)?;
        let class = &fetch.class.reference;
        let mistakes = |mistakes| Error::Mistakes { class: class.clone(), mistakes };
        let params = Params::parse(&attributes(fetch.class, fetch.caller.attributes())).map_err(mistakes)?;
        let vault = self.open(&params, fetch).await?;
        let Azure { rendering, conversions, .. } = self;
        Ok(AzureFetch { rendering, conversions, held, deadline: fetch.deadline, class, params, vault })
    }

    async fn open(&self, params: &Params, fetch: Fetch<'_>) -> Result<Vault, Error> {
        let class = &fetch.class.reference;
        // Mistakes of the class come before those of the pod
        // (docs/reference/azure-provider.md#order-of-checks).
        let name = |field, source: NameError| Error::Name { class: class.clone(), field, source };
        let vault = VaultName::new(&params.vault).map_err(|source| name("keyvaultName", source))?;
        let tenant = TenantId::new(&params.tenant).map_err(|source| name("tenantID", source))?;
        let cloud = self.default_cloud.resolve(&params.cloud, fetch.deadline).await;
        let cloud = cloud.map_err(|source| Error::Cloud { class: class.clone(), source })?;
        let credential = match login(params, class, fetch.caller)? {
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

/// The result of fetching one object of a class.
pub struct ObjectResult<'a> {
    /// The place of the object in the class, counted from 0.
    pub place: usize,
    /// The object.
    pub object: &'a ObjectSpec,
    /// Its files, or why there are none.
    pub result: Result<FetchedObject, Error>,
}

impl AzureFetch<'_> {
    /// The class.
    pub fn class(&self) -> &ClassRef {
        self.class
    }

    /// The identity of the fetch. Two fetches of one class and equal attributes with one identity
    /// have the same results.
    pub fn identity(&self) -> Identity {
        self.vault.identity()
    }

    /// Fetches the objects of the class, some at a time, and yields each as it arrives. Dropping
    /// the stream cancels the requests that are still running; those of later objects are never
    /// sent.
    pub fn objects(&self) -> impl Stream<Item = ObjectResult<'_>> {
        let objects = stream::iter(self.params.objects.iter().enumerate());
        objects.map(|(place, object)| self.object(place, object)).buffer_unordered(CONCURRENCY)
    }

    async fn object<'a>(&'a self, place: usize, object: &'a ObjectSpec) -> ObjectResult<'a> {
        let AzureFetch { rendering, conversions, held, deadline, class, params, vault } = self;
        let (held, deadline) = (*held, *deadline);
        let converter = Converter { conversions, rendering, class, vault_name: &params.vault, held, deadline };
        let fetch = ObjectFetch { converter, class, vault, vault_name: &params.vault, spec: object };
        ObjectResult { place, object, result: fetch.fetch().await }
    }
}
