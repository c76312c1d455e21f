//! One volume's content from another provider: asked for, interpreted, and told of.
//!
//! Writes nothing and holds no lock. `request` says what is asked, `call` makes the call, `reply` says what the answer means.

use keyvault_csi_proto::provider::MountRequest;
use prost::Message as _;
use tokio::time::Instant;
use tracing::info;

use super::error::{Error, Fault};
use super::mount_call::{Failure, MountCall};
use super::redact::Redactor;
use super::socket::ProviderName;
use super::{External, limits, reply, request};
use crate::model::limits::PAYLOAD;
use crate::model::{ClassRef, Fetch, ObjectVersion, Payload};

/// What fits into a Kubernetes Secret, and so into an etcd value: above it, a mirrored Secret cannot hold the volume.
const LARGE: usize = 1 << 20;

/// A request of which everything is known that can be known without the provider.
pub struct ExternalFetch<'a> {
    external: &'a External,
    class: &'a ClassRef,
    name: ProviderName,
    request: MountRequest,
    redactor: Redactor<'a>,
    deadline: Instant,
}

impl External {
    /// Checks what can be checked without the provider.
    ///
    /// # Errors
    /// A name that no provider can have.
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
    /// Has the provider fetch everything that the class asks for.
    ///
    /// # Errors
    /// The provider is not there, does not answer in time, fails, or answers what is no volume's content.
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
        let met = || external.metrics.met(name.as_str());
        let reply = match call.mount(&self.request, met).await {
            Ok(reply) => reply,
            Err(Failure::Ours(reason, text)) => return Err(Error::Ours { reason, text }),
            Err(Failure::Fault(fault)) => return Err(self.failed(fault)),
        };
        let bytes = reply.encoded_len();
        if bytes > LARGE {
            info!(provider = %name, bytes, "a large reply: a Kubernetes Secret cannot hold all of it");
        }
        reply::interpret(reply, options.largest_reply.max(PAYLOAD), &self.redactor).map_err(|fault| self.failed(fault))
    }

    fn failed(&self, fault: Fault) -> Error {
        Error::Provider { class: self.class.clone(), provider: self.name.to_string(), fault }
    }
}
