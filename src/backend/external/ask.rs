//! One volume's content from another provider: asked for, interpreted, and told of.
//!
//! Writes nothing and holds no lock. `request` says what is asked, `call` makes the call, `reply` says what the answer means.

use keyvault_csi_proto::provider::MountRequest;
use prost::Message as _;
use tokio::time::Instant;
use tracing::info;

use super::call::{Call, Failure};
use super::error::{Error, Fault};
use super::redact::Redactor;
use super::socket::ProviderName;
use super::{External, limits, reply, request};
use crate::model::limits::PAYLOAD;
use crate::model::{Caller, Class, ClassRef, ObjectVersion, Payload};

/// What fits into a Kubernetes Secret, and so into an etcd value: above it, a mirrored Secret cannot hold the volume.
const LARGE: usize = 1 << 20;

/// What one mount, or one refresh, asks for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The class.
    pub class: &'a Class,
    /// The pod, and what was sent for it; its attributes override the class's parameters.
    pub caller: &'a Caller,
    /// The target path.
    pub target: &'a str,
    /// What the volume holds, as far as that is known.
    pub held: &'a [ObjectVersion],
    /// When the fetch must have ended.
    pub deadline: Instant,
}

/// A request of which everything is known that can be known without the provider.
pub struct Prepared<'a> {
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
    pub fn prepare<'a>(&'a self, ask: Ask<'a>) -> Result<Prepared<'a>, Error> {
        let (class, provider) = (&ask.class.reference, &ask.class.provider);
        let shown = || provider.chars().take(limits::SHOWN).collect();
        let name =
            ProviderName::new(provider).ok_or_else(|| Error::Name { class: class.clone(), provider: shown() })?;
        let (request, redactor) = (request::build(&ask), Redactor::new(&ask.class.parameters, ask.caller));
        Ok(Prepared { external: self, class, name, request, redactor, deadline: ask.deadline })
    }
}

impl Prepared<'_> {
    /// Has the provider fetch everything that the class asks for.
    ///
    /// # Errors
    /// The provider is not there, does not answer in time, fails, or answers what is no volume's content.
    pub async fn fetch(&self) -> Result<Payload, Error> {
        let Prepared { external, name, deadline, .. } = self;
        let options = &external.options;
        let call = Call {
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
