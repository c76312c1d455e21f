//! Fetches one volume's content from an external provider.
//!
//! Writes nothing and holds no lock.

use keyvault_csi_proto::provider::MountRequest;
use prost::Message as _;
use tokio::time::Instant;
use tracing::info;

use super::error::{Error, ProviderFault};
use super::mount_call::{CallFailure, MountCall};
use super::redact::Redactor;
use super::socket::ProviderName;
use super::{External, limits, reply, request};
use crate::model::limits::PAYLOAD;
use crate::model::{ClassRef, Fetch, ObjectVersion, Payload};

/// The size of a Kubernetes Secret, and of an etcd value: a Secret cannot mirror a larger volume.
const LARGE: usize = 1 << 20;

/// A fetch that passed every check that needs no provider.
pub struct ExternalFetch<'a> {
    external: &'a External,
    class: &'a ClassRef,
    name: ProviderName,
    request: MountRequest,
    redactor: Redactor<'a>,
    deadline: Instant,
}

impl External {
    /// Checks everything that needs no provider. `held` are the object versions of the volume.
    ///
    /// # Errors
    /// An invalid provider name.
    pub fn prepare<'a>(&'a self, fetch: Fetch<'a>, held: &[ObjectVersion]) -> Result<ExternalFetch<'a>, Error> {
        let (class, provider) = (&fetch.class.reference, &fetch.class.provider);
        let shown = || provider.chars().take(limits::SHOWN).collect();
        let name =
            ProviderName::new(provider).ok_or_else(|| Error::Name { class: class.clone(), provider: shown() })?;
        let request = request::build(&fetch, held);
        let redactor = Redactor::new(&fetch.class.parameters, fetch.caller);
        Ok(ExternalFetch { external: self, class, name, request, redactor, deadline: fetch.deadline })
    }
}

impl ExternalFetch<'_> {
    /// Calls the provider, and interprets its reply.
    ///
    /// # Errors
    /// The provider is missing, does not answer in time, fails, or its reply is not a volume's
    /// content.
    pub async fn payload(&self) -> Result<Payload, Error> {
        let ExternalFetch { external, name, deadline, .. } = self;
        let options = &external.options;
        let call = MountCall {
            name,
            directories: &options.directories,
            largest_reply: options.largest_reply,
            deadline: *deadline,
            redactor: &self.redactor,
        };
        let discovered = || external.metrics.providers().discovered(name.as_str());
        let reply = match call.mount(&self.request, discovered).await {
            Ok(reply) => reply,
            Err(CallFailure::Ours(reason, text)) => return Err(Error::Ours { reason, text }),
            Err(CallFailure::ProviderFault(fault)) => return Err(self.failed(fault)),
        };
        let bytes = reply.encoded_len();
        if bytes > LARGE {
            info!(provider = %name, bytes, "a large reply: a Kubernetes Secret cannot hold all of it");
        }
        reply::interpret(reply, options.largest_reply.max(PAYLOAD), &self.redactor).map_err(|fault| self.failed(fault))
    }

    fn failed(&self, fault: ProviderFault) -> Error {
        Error::Provider { class: self.class.clone(), provider: self.name.to_string(), fault }
    }
}
