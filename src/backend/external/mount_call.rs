//! One Mount call on a provider's socket, retried as upstream's driver does
//! (docs/reference/csi-driver.md#provider-sockets).
//!
//! Only a call that did not reach the provider, or that it did not complete, is retried; a fetch
//! may be made twice. Always returns before the caller's deadline.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use keyvault_csi_proto::provider::csi_driver_provider_client::CsiDriverProviderClient;
use keyvault_csi_proto::provider::{MountRequest, MountResponse};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Status};
use tracing::debug;

use super::connect::Search;
use super::error::ProviderFault;
use super::limits;
use super::redact::Redactor;
use super::socket::ProviderName;
use crate::model::Reason;
use crate::server::grpc::reason;

/// How often a call is tried at most.
const TRIES: u32 = 3;
/// The pause before the second try, and the factor by which each further pause grows.
const PAUSE: (Duration, f64) = (Duration::from_secs(1), 1.1);
/// An error this close to the deadline counts as a timeout.
const NEAR: Duration = Duration::from_millis(20);

/// A call and its limits.
pub(super) struct MountCall<'a> {
    pub(super) name: &'a ProviderName,
    pub(super) directories: &'a [PathBuf],
    pub(super) largest_reply: usize,
    pub(super) deadline: Instant,
    pub(super) redactor: &'a Redactor<'a>,
}

/// Why a call failed.
pub(super) enum CallFailure {
    ProviderFault(ProviderFault),
    /// The error of `keyvault-csi provider`.
    Ours(Reason, String),
}

impl From<ProviderFault> for CallFailure {
    fn from(fault: ProviderFault) -> CallFailure {
        CallFailure::ProviderFault(fault)
    }
}

impl MountCall<'_> {
    /// Makes the call; runs `discovered` each time that the provider accepts a connection.
    pub(super) async fn mount(
        &self,
        request: &MountRequest,
        discovered: impl Fn(),
    ) -> Result<MountResponse, CallFailure> {
        let began = Instant::now();
        let MountCall { name, directories, deadline, .. } = *self;
        let mut search = Search { name, directories, deadline, discovered: false };
        let mut pause = PAUSE.0;
        for tried in 1.. {
            let channel = search.connect().await?;
            discovered();
            let mut client = CsiDriverProviderClient::new(channel)
                .max_decoding_message_size(self.largest_reply)
                .max_encoding_message_size(usize::MAX);
            let mut message = Request::new(request.clone());
            message.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let status = match timeout_at(deadline, client.mount(message)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) if Instant::now() + NEAR < deadline => status,
                Ok(Err(_)) | Err(_) => return Err(ProviderFault::Slow(began.elapsed()).into()),
            };
            if tried >= TRIES || !is_transient(&status) || Instant::now() + pause >= deadline {
                return Err(self.failure(&status));
            }
            debug!(provider = %name, code = ?status.code(), tried, "retrying the call");
            sleep(pause).await;
            pause = pause.mul_f64(PAUSE.1);
        }
        Err(ProviderFault::Slow(began.elapsed()).into())
    }

    pub(super) fn failure(&self, status: &Status) -> CallFailure {
        if let Some((reason, text)) = reason(status) {
            return CallFailure::Ours(reason, self.redactor.redact_to(limits::OWN_MESSAGE, text));
        }
        let message = status.message();
        // The first is tonic's own text, the second that of a provider that relays to another one.
        let ours = status.code() == Code::OutOfRange && message.contains("message length too large");
        let relayed = status.code() == Code::ResourceExhausted
            && message.contains("received message larger than max")
            && !message.contains("on current machine");
        if ours || relayed {
            return ProviderFault::TooLarge(self.largest_reply).into();
        }
        ProviderFault::Call { code: format!("{:?}", status.code()), message: self.redactor.redact(message) }.into()
    }
}

/// Whether a retry may succeed: the provider says so, or the connection broke.
pub(super) fn is_transient(status: &Status) -> bool {
    // A status from the wire has no source; one with a source is the transport's.
    status.code() == Code::Unavailable || status.source().is_some()
}
