//! A publish of a volume that is mounted already: it delivers credentials, and always succeeds.
//!
//! An error would make the kubelet unmount the volume (kubernetes/kubernetes#121271). Credentials
//! that the built-in provider would refuse at a first publish are therefore dropped here, and the
//! log has the reason. Tokens for other providers are passed on unchecked.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::error::Error;
use super::locks::{Epoch, TargetLock};
use super::request::PublishRequest;
use super::volumes::Volumes;
use crate::backend::CallerFault;

/// How long a republish may look up the provider of a class.
const CLASS_TIMEOUT: Duration = Duration::from_secs(2);

impl Volumes {
    /// Stores the credentials that a call delivers for a mounted volume.
    pub(super) async fn renew_credentials(&self, request: &PublishRequest, target: &Arc<TargetLock>, epoch: Epoch) {
        let fault = self.fault_of(request).await;
        if let Some(fault) = &fault {
            warn!(pod = %request.caller.pod, target = %request.target, err = %fault,
                "a call for a mounted volume: its tokens are dropped, and the volume keeps its content");
        }
        let Some(registry) = &self.registry else { return };
        match fault {
            None => registry.renew_credentials(request, target, epoch),
            Some(CallerFault::Token(_)) => {
                let caller = request.caller.clone().without_tokens();
                registry.renew_credentials(&PublishRequest { caller, ..request.clone() }, target, epoch);
            }
            // Neither class nor identity of this call can be trusted, so nothing is stored.
            Some(CallerFault::OtherPod(_)) => {}
        }
    }

    /// Why the built-in provider cannot use the tokens of a call.
    async fn fault_of(&self, request: &PublishRequest) -> Option<CallerFault> {
        let fault = self.backends.fault_of(&request.caller, request.target.as_str())?;
        // If the class is unknown, its provider may be the built-in one.
        let Ok(reference) = &request.class else { return Some(fault) };
        let looked = timeout_at(Instant::now() + CLASS_TIMEOUT, self.classes.get(reference)).await;
        let external = matches!(looked, Ok(Ok(class)) if !self.backends.is_built_in(&class));
        (!external).then_some(fault)
    }

    /// The error of a call whose context names another pod than its target path, if there is a
    /// built-in provider.
    pub(super) fn other_pod(&self, request: &PublishRequest) -> Option<Error> {
        self.backends.check_pod(&request.caller, request.target.as_str()).err().map(Error::from)
    }
}
