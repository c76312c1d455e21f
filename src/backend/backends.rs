//! Chooses the backend of a class: the built-in provider for `azure`, an external provider for
//! every other name.
//!
//! The only place that distinguishes the two (docs/decisions.md#d11). Preparing a fetch determines
//! its identity without the network; fetching writes nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use super::external::{External, ExternalFetch};
use super::payload::whole_payload;
use crate::azure::provider::{self, Azure, AzureFetch, CallerFault, HeldFiles};
use crate::model::{Caller, Class, Fetch, ObjectVersion, Payload, Purpose};

/// The deadline of an external provider for a refresh.
const REFRESH: Duration = Duration::from_secs(30);

/// The name of the provider that can be built in.
const AZURE: &str = "azure";

/// Both backends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Backends {
    /// `None`: classes of `azure` have an external provider, too.
    azure: Option<Azure>,
    external: External,
}

/// What a volume holds of earlier fetches, as far as it is known.
#[derive(Clone, Copy, Default)]
pub struct Held<'a> {
    /// The object versions, which are sent to external providers.
    pub versions: &'a [ObjectVersion],
    /// The files, which the built-in provider does not convert again.
    pub files: Option<&'a dyn HeldFiles>,
}

/// The identity of a fetch. Two volumes may share a fetch of equal class and attributes only if
/// their identities are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FetchIdentity {
    /// An identity of Entra ID.
    Azure(provider::Identity),
    /// The volume with this target path. The identity that an external provider uses is unknown
    /// here, so volumes share nothing.
    Volume(String),
}

/// A fetch that passed every check that needs no network.
pub enum PreparedFetch<'a> {
    /// By the built-in provider.
    Azure(AzureFetch<'a>),
    /// By an external provider.
    External {
        /// The call.
        fetch: ExternalFetch<'a>,
        /// The volume's target path.
        target: &'a str,
    },
}

impl Backends {
    /// Backends of which `azure`, if there is one, fills classes of provider `azure`, and
    /// `external` all others.
    pub fn new(azure: Option<Azure>, external: External) -> Backends {
        Backends { azure, external }
    }

    /// Whether the built-in provider fills the volumes of a class.
    pub fn is_built_in(&self, class: &Class) -> bool {
        self.azure.is_some() && class.provider == AZURE
    }

    /// How many vaults get no requests at present: because of a Retry-After, and because of
    /// failures.
    pub fn backoff_counts(&self) -> [usize; 2] {
        self.azure.as_ref().map_or([0; 2], Azure::backoff_counts)
    }

    /// Checks that a caller's attributes are of the pod in whose directory the volume is. Without a
    /// built-in provider, that is left to the external one.
    ///
    /// # Errors
    /// The target path names another pod.
    pub fn check_pod(&self, caller: &Caller, target: &str) -> Result<(), Error> {
        match self.azure {
            Some(_) => Ok(provider::check_pod(caller, target).map_err(provider::Error::from)?),
            None => Ok(()),
        }
    }

    /// Why the built-in provider would refuse a caller or its tokens, whichever identity a class
    /// chooses.
    pub fn fault_of(&self, caller: &Caller, target: &str) -> Option<CallerFault> {
        self.azure.as_ref().and_then(|_| provider::fault_of(caller, target))
    }

    /// Checks everything that needs no network.
    ///
    /// # Errors
    /// Mistakes of the class, or missing credentials.
    pub async fn prepare<'a>(&'a self, fetch: Fetch<'a>, held: Held<'a>) -> Result<PreparedFetch<'a>, Error> {
        match &self.azure {
            Some(azure) if self.is_built_in(fetch.class) => {
                Ok(PreparedFetch::Azure(azure.prepare(fetch, held.files).await?))
            }
            Some(_) | None => {
                let deadline = match fetch.purpose {
                    Purpose::Mount => fetch.deadline,
                    // A published volume can wait for the next cycle; a provider that hangs must
                    // not delay the others.
                    Purpose::Refresh => fetch.deadline.min(Instant::now() + REFRESH),
                };
                let target = fetch.target;
                let fetch = self.external.prepare(Fetch { deadline, ..fetch }, held.versions)?;
                Ok(PreparedFetch::External { fetch, target })
            }
        }
    }
}

impl PreparedFetch<'_> {
    /// The identity of the fetch.
    pub fn identity(&self) -> FetchIdentity {
        match self {
            PreparedFetch::Azure(fetch) => FetchIdentity::Azure(fetch.identity()),
            PreparedFetch::External { target, .. } => FetchIdentity::Volume((*target).to_owned()),
        }
    }

    /// Fetches the whole content of the volume.
    ///
    /// # Errors
    /// The first object that fails.
    pub async fn payload(&self) -> Result<Payload, Error> {
        match self {
            PreparedFetch::Azure(fetch) => whole_payload(fetch).await,
            PreparedFetch::External { fetch, .. } => Ok(fetch.payload().await?),
        }
    }
}

impl FetchIdentity {
    /// Whether it is one volume's alone.
    pub fn is_of_volume(&self) -> bool {
        match self {
            FetchIdentity::Azure(_) => false,
            FetchIdentity::Volume(_) => true,
        }
    }
}
