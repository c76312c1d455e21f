//! A call for a volume that is mounted already: it brings credentials, and is a success whatever it brings.
//!
//! An error would make the kubelet take the mount away (kubernetes/kubernetes#121271). So what the built-in provider would refuse at a
//! first publish is dropped here, and the log says why. Other providers' tokens are passed on as they are.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Volumes;
use super::error::Error;
use super::locks::{Epoch, Target};
use super::publish::PublishRequest;
use crate::backend::CallerFault;

/// How long it may take to find out who fills the volumes of a class.
const PATIENCE: Duration = Duration::from_secs(2);

impl Volumes {
    /// Takes what a call brings for a volume of ours that is there.
    pub(super) async fn feed(&self, request: &PublishRequest, target: &Arc<Target>, epoch: Epoch) {
        let fault = self.fault_of(request).await;
        if let Some(fault) = &fault {
            warn!(pod = %request.caller.pod, target = %request.target, err = %fault,
                "a call for a mounted volume: its tokens are dropped, and the volume keeps what it holds");
        }
        let Some(registry) = &self.rotation else { return };
        match fault {
            None => registry.feed(request, target, epoch),
            Some(CallerFault::Token(_)) => {
                let caller = request.caller.clone().without_tokens();
                registry.feed(&PublishRequest { caller, ..request.clone() }, target, epoch);
            }
            // Nothing in it is to be believed: neither the class nor the identity by which the volume would be refreshed.
            Some(CallerFault::OtherPod(_)) => {}
        }
    }

    /// What keeps the built-in provider from using the tokens of a call.
    async fn fault_of(&self, request: &PublishRequest) -> Option<CallerFault> {
        let fault = self.backends.fault_of(&request.caller, request.target.as_str())?;
        // A class that cannot be had may be the built-in provider's.
        let Ok(reference) = &request.class else { return Some(fault) };
        let looked = timeout_at(Instant::now() + PATIENCE, self.classes.get(reference)).await;
        let others = matches!(looked, Ok(Ok(class)) if !self.backends.is_built_in(&class));
        (!others).then_some(fault)
    }

    /// The refusal of a call that speaks of another pod than the one whose volume it is, where this program fills volumes.
    pub(super) fn other_pod(&self, request: &PublishRequest) -> Option<Error> {
        self.backends.check_pod(&request.caller, request.target.as_str()).err().map(Error::from)
    }
}
