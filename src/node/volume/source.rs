//! Who fills volumes: the built-in provider for `azure`, and another program behind a socket for every other name.
//!
//! The one place that knows that there are two sides (docs/decisions.md#d11); `publish` and
//! `rotation` do not. Prepares, which says by whom a fetch would be made, and fetches; writes
//! nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use super::target::TargetPath;
use crate::azure::provider::{self, Azure, HeldFiles, Purpose};
use crate::backend::external::{self, Ask, External};
use crate::model::{Class, ObjectVersion, Payload, SecretString};

/// How long another program may take for a refresh.
const REFRESH: Duration = Duration::from_secs(30);

/// The name of the provider that can be built in.
const AZURE: &str = "azure";

/// Where content comes from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `None`: the name `azure` is as any other.
    azure: Option<Azure>,
    external: External,
}

/// What one mount, or one refresh, asks for.
///
/// Not printable: the context may hold tokens.
#[derive(Clone, Copy)]
pub(in crate::node) struct Fetch<'a> {
    /// The class, [checked](check).
    pub(in crate::node) class: &'a Class,
    /// The pod's volume context.
    pub(in crate::node) context: &'a BTreeMap<String, String>,
    /// The data of the volume's nodePublishSecretRef.
    pub(in crate::node) secrets: &'a BTreeMap<String, SecretString>,
    /// The volume.
    pub(in crate::node) target: &'a TargetPath,
    /// What the volume holds, as far as that is known.
    pub(in crate::node) held: &'a [ObjectVersion],
    /// The files that it holds, as far as what they came of is known.
    pub(in crate::node) files: Option<&'a dyn HeldFiles>,
    /// What it is for.
    pub(in crate::node) purpose: Purpose,
    /// When the fetch must have ended.
    pub(in crate::node) deadline: Instant,
}

/// By whom a fetch is made: what one brings may be given to another volume only if theirs are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::node) enum Identity {
    /// Whom Entra ID knows.
    Azure(provider::Identity),
    /// Only another program knows who asks, so that nothing is shared between volumes.
    Volume(TargetPath),
}

/// A fetch of which everything is known that can be known without the network.
pub(in crate::node) enum Prepared<'a> {
    Azure(provider::Prepared<'a>),
    External { prepared: external::Prepared<'a>, target: &'a TargetPath },
}

impl Sources {
    /// Volumes of the class's provider `azure` are filled by `azure`, if there is one, and all others by `external`.
    pub fn new(azure: Option<Azure>, external: External) -> Sources {
        Sources { azure, external }
    }

    /// Whether this program fills volumes at all.
    pub(in crate::node) fn has_built_in(&self) -> bool {
        self.azure.is_some()
    }

    /// Whether this program fills the volumes of a class.
    pub(in crate::node) fn is_built_in(&self, class: &Class) -> bool {
        self.has_built_in() && class.provider == AZURE
    }

    /// How many vaults are left alone at this moment: because they asked for that, and because they only fail.
    pub(in crate::node) fn restrained(&self) -> [usize; 2] {
        self.azure.as_ref().map_or([0; 2], Azure::restrained)
    }

    /// Checks all that can be checked without the network.
    pub(in crate::node) async fn prepare<'a>(&'a self, fetch: Fetch<'a>) -> Result<Prepared<'a>, Error> {
        let Fetch { class, context, secrets, target, held, files, purpose, deadline } = fetch;
        match &self.azure {
            Some(azure) if self.is_built_in(class) => {
                let target = target.as_str();
                let fetch = provider::Fetch { class, context, secrets, target, held: files, purpose, deadline };
                Ok(Prepared::Azure(azure.prepare(fetch).await?))
            }
            Some(_) | None => {
                // A volume that is there can wait for the next cycle; a provider that hangs must not keep others from theirs.
                let deadline = match purpose {
                    Purpose::Mount => deadline,
                    Purpose::Refresh => deadline.min(Instant::now() + REFRESH),
                };
                let ask = Ask { class, context, secrets, target: target.as_str(), held, deadline };
                Ok(Prepared::External { prepared: self.external.prepare(ask)?, target })
            }
        }
    }
}

impl Prepared<'_> {
    /// Who asks.
    pub(in crate::node) fn identity(&self) -> Identity {
        match self {
            Prepared::Azure(prepared) => Identity::Azure(prepared.identity()),
            Prepared::External { target, .. } => Identity::Volume((*target).clone()),
        }
    }

    /// Fetches everything that the class asks for; holds no lock and writes nothing.
    pub(in crate::node) async fn fetch(&self) -> Result<Payload, Error> {
        match self {
            Prepared::Azure(prepared) => Ok(prepared.fetch().await?),
            Prepared::External { prepared, .. } => Ok(prepared.fetch().await?),
        }
    }
}

impl Identity {
    /// Whether it is of one volume alone: another program knows who asks, and is told what the volume holds.
    pub(in crate::node) fn is_of_volume(&self) -> bool {
        match self {
            Identity::Azure(_) => false,
            Identity::Volume(_) => true,
        }
    }
}

/// What upstream checks of a class before it asks a provider, in its order
/// (docs/reference/csi-driver.md#publish-checks).
pub(in crate::node) fn check(class: &Class) -> Result<(), Error> {
    let reference = || class.reference.clone();
    match class.provider.as_str() {
        "" => Err(Error::ProviderUnset(reference())),
        _ if class.parameters.is_empty() => Err(Error::ParametersUnset(reference())),
        _ => Ok(()),
    }
}
