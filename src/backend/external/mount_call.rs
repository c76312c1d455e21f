//! One Mount on a provider's socket, tried again as upstream's driver tries it
//! (docs/reference/csi-driver.md#provider-sockets).
//!
//! What can be tried again is a call that the provider was not there for, or did not end: it fetches, and a fetch may be made
//! twice. Ends before the caller's deadline, whatever the provider does.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use keyvault_csi_proto::provider::csi_driver_provider_client::CsiDriverProviderClient;
use keyvault_csi_proto::provider::{MountRequest, MountResponse};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Status};
use tracing::debug;

use super::connect::Search;
use super::error::Fault;
use super::limits;
use super::redact::Redactor;
use super::socket::ProviderName;
use crate::model::Reason;
use crate::server::grpc::reason;

/// How often a call is made at most.
const TRIES: u32 = 3;
/// The pause before the second try, and by how much each pause is longer than the one before.
const PAUSE: (Duration, f64) = (Duration::from_secs(1), 1.1);
/// How near to the deadline an end of our own making counts as the deadline's.
const NEAR: Duration = Duration::from_millis(20);

/// A call, and the limits that it is made under.
pub(super) struct MountCall<'a> {
    pub(super) name: &'a ProviderName,
    pub(super) directories: &'a [PathBuf],
    pub(super) largest_reply: usize,
    pub(super) deadline: Instant,
    pub(super) redactor: &'a Redactor<'a>,
}

/// How a call did not end well.
pub(super) enum Failure {
    Fault(Fault),
    /// Said by a provider that is ours.
    Ours(Reason, String),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

impl MountCall<'_> {
    /// Makes the call; `met` is told as soon as the provider was found.
    pub(super) async fn mount(&self, request: &MountRequest, met: impl Fn()) -> Result<MountResponse, Failure> {
        let began = Instant::now();
        let MountCall { name, directories, deadline, .. } = *self;
        let mut search = Search { name, directories, deadline, met: false };
        let mut pause = PAUSE.0;
        for tried in 1.. {
            let channel = search.connect().await?;
            met();
            let mut client = CsiDriverProviderClient::new(channel)
                .max_decoding_message_size(self.largest_reply)
                .max_encoding_message_size(usize::MAX);
            let mut message = Request::new(request.clone());
            message.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let status = match timeout_at(deadline, client.mount(message)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) if Instant::now() + NEAR < deadline => status,
                Ok(Err(_)) | Err(_) => return Err(Fault::Slow(began.elapsed()).into()),
            };
            if tried >= TRIES || !is_transient(&status) || Instant::now() + pause >= deadline {
                return Err(self.failure(&status));
            }
            debug!(provider = %name, code = ?status.code(), tried, "the call is made again");
            sleep(pause).await;
            pause = pause.mul_f64(PAUSE.1);
        }
        Err(Fault::Slow(began.elapsed()).into())
    }

    pub(super) fn failure(&self, status: &Status) -> Failure {
        if let Some((reason, text)) = reason(status) {
            return Failure::Ours(reason, self.redactor.redact_to(limits::SAID_BY_OURS, text));
        }
        let said = status.message();
        // The first is our own client's word for it, the second what a provider says that relays for another one.
        let ours = status.code() == Code::OutOfRange && said.contains("message length too large");
        let relayed = status.code() == Code::ResourceExhausted
            && said.contains("received message larger than max")
            && !said.contains("on current machine");
        if ours || relayed {
            return Fault::TooLarge(self.largest_reply).into();
        }
        Fault::Call { code: format!("{:?}", status.code()), said: self.redactor.redact(said) }.into()
    }
}

/// Whether the call may end otherwise the next time: the provider says so, or the connection broke under it.
pub(super) fn is_transient(status: &Status) -> bool {
    // What came over the wire has no source; what has one is the transport's.
    status.code() == Code::Unavailable || status.source().is_some()
}
