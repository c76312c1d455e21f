//! A call for a volume that is mounted already: it brings credentials, and is a success whatever it brings.
//!
//! An error would make the kubelet take the mount away (kubernetes/kubernetes#121271). So what the built-in provider would refuse at a
//! first publish is dropped here, and the log says why. Other providers' tokens are passed on as they are.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::error::Error;
use super::locks::{Epoch, Target};
use super::request::PublishRequest;
use super::volumes::Volumes;
use crate::azure::provider::{CallFault, OtherPod, TOKENS, check_pod, fault_of};

/// How long it may take to find out who fills the volumes of a class.
const PATIENCE: Duration = Duration::from_secs(2);

impl Volumes {
    /// Takes what a call brings for a volume of ours that is there.
    pub(super) async fn feed(&self, request: &PublishRequest, target: &Arc<Target>, epoch: Epoch) {
        let fault = self.fault_of(request).await;
        if let Some(fault) = &fault {
            warn!(pod = %request.pod, target = %request.target, err = %fault,
                "a call for a mounted volume: its tokens are dropped, and the volume keeps what it holds");
        }
        let Some(registry) = &self.rotation else { return };
        match fault {
            None => registry.feed(request, target, epoch),
            Some(CallFault::Token(_)) => registry.feed(&request.without_tokens(), target, epoch),
            // Nothing in it is to be believed: neither the class nor the identity by which the volume would be refreshed.
            Some(CallFault::OtherPod(_)) => {}
        }
    }

    /// What keeps the built-in provider from using the tokens of a call.
    async fn fault_of(&self, request: &PublishRequest) -> Option<CallFault> {
        if !self.sources.has_built_in() {
            return None;
        }
        let fault = fault_of(&request.context, &request.secrets, request.target.as_str())?;
        // A class that cannot be had may be the built-in provider's.
        let Ok(reference) = &request.class else { return Some(fault) };
        let looked = timeout_at(Instant::now() + PATIENCE, self.classes.get(reference)).await;
        let others = matches!(looked, Ok(Ok(class)) if !self.sources.is_built_in(&class));
        (!others).then_some(fault)
    }

    /// The refusal of a call that speaks of another pod than the one whose volume it is, where this program fills volumes.
    pub(super) fn other_pod(&self, request: &PublishRequest) -> Option<Error> {
        let checked = check_pod(&request.context, request.target.as_str());
        let refusal = |other: OtherPod| Error::Provider(other.into());
        checked.err().filter(|_| self.sources.has_built_in()).map(refusal)
    }
}

impl PublishRequest {
    /// The same request without tokens.
    fn without_tokens(&self) -> PublishRequest {
        let (mut context, mut secrets) = (self.context.clone(), self.secrets.clone());
        context.remove(TOKENS);
        secrets.remove(TOKENS);
        PublishRequest {
            target: self.target.clone(),
            pod: self.pod.clone(),
            class: self.class.clone(),
            context,
            secrets,
            group: self.group,
            read_only: self.read_only,
            deadline: self.deadline,
        }
    }
}
