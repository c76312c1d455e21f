//! What the kubelet brings for a volume, kept in memory until it brings it anew
//! (docs/decisions.md#d2).
//!
//! The context without what differs from pod to pod, the Secret's data, and the service account's tokens; equal ones are kept
//! once for all volumes. Nothing here is printable. Control comes from `registry`.
//!
//! # Guarantees
//! Secrets and tokens are in the redacting type and wiped when the last volume lets go of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::super::layout::Digest;
use super::super::publish::PublishRequest;
use crate::model::{Caller, ExposeSecret as _, PodRef, ResourceName, SecretString, SentTokens, attribute};

/// What differs from pod to pod, and is known of the pod anyway.
const OF_POD: [&str; 2] = [attribute::POD_NAME, attribute::POD_UID];

/// A volume context that many volumes may have.
pub(super) struct Context {
    values: BTreeMap<String, String>,
    service_account: Option<ResourceName>,
    digest: Digest,
    /// The digest of what the pod's author wrote, which overlays the class's parameters.
    attributes: Digest,
}

/// The data of a Secret that many volumes may have.
pub(super) struct Secrets {
    values: BTreeMap<String, SecretString>,
    digest: Digest,
}

/// What a pod's credentials are made of, as they came last.
#[derive(Clone)]
struct Credentials {
    secrets: Arc<Secrets>,
    tokens: SentTokens,
}

/// What the kubelet brought for one volume. Cheap to clone.
#[derive(Clone)]
pub(super) struct Feed {
    context: Arc<Context>,
    /// `None` once they were not renewed for too long.
    credentials: Option<Credentials>,
    /// When they came.
    pub(super) received: Instant,
}

/// What is kept once for all who have the same.
#[derive(Default)]
pub(super) struct Store {
    contexts: HashMap<Digest, Weak<Context>>,
    secrets: HashMap<Digest, Weak<Secrets>>,
}

impl Feed {
    /// Takes what a request brings.
    pub(super) fn of(request: &PublishRequest, store: &mut Store, now: Instant) -> Feed {
        let caller = &request.caller;
        let credentials =
            Some(Credentials { secrets: store.secrets(caller.credentials()), tokens: caller.sent_tokens().clone() });
        Feed { context: store.context(caller), credentials, received: now }
    }

    /// What the pod's author wrote into the volume's attributes.
    pub(super) fn attributes(&self) -> Digest {
        self.context.attributes
    }

    /// Whether both stand for the same identity and the same attributes, whatever the tokens.
    pub(super) fn is_like(&self, other: &Feed) -> bool {
        let secrets = |feed: &Feed| feed.credentials.as_ref().map(|credentials| credentials.secrets.digest);
        self.context.digest == other.context.digest && secrets(self) == secrets(other)
    }

    /// Whether there are credentials.
    pub(super) fn is_live(&self) -> bool {
        self.credentials.is_some()
    }

    /// Whether both have the same tokens, or none.
    pub(super) fn has_tokens_of(&self, other: &Feed) -> bool {
        fn tokens(feed: &Feed) -> Option<&str> {
            Some(feed.credentials.as_ref()?.tokens.text()?.expose_secret())
        }
        tokens(self) == tokens(other)
    }

    /// Drops secrets and tokens, and keeps what is not secret.
    pub(super) fn drop_credentials(&mut self) {
        // A pod that brings none has nothing to lose.
        self.credentials
            .take_if(|credentials| !credentials.tokens.is_empty() || !credentials.secrets.values.is_empty());
    }

    /// This pod as the caller of a fetch.
    pub(super) fn caller(&self, pod: &PodRef) -> Caller {
        let mut attributes = self.context.values.clone();
        for (key, value) in [(attribute::POD_NAME, pod.name.as_str()), (attribute::POD_UID, &pod.uid)] {
            if !value.is_empty() {
                attributes.insert(key.to_owned(), value.to_owned());
            }
        }
        let (secrets, tokens) = match &self.credentials {
            Some(Credentials { secrets, tokens }) => (secrets.values.clone(), tokens.clone()),
            None => (BTreeMap::new(), SentTokens::default()),
        };
        Caller::new(pod.clone(), self.context.service_account.clone(), attributes, secrets).with_tokens(tokens)
    }
}

impl Store {
    fn context(&mut self, caller: &Caller) -> Arc<Context> {
        let shared = || caller.attributes().iter().filter(|(key, _)| !OF_POD.contains(&key.as_str()));
        let digest = digest(shared().map(|(key, value)| (key.as_str(), value.as_str())));
        if let Some(known) = self.contexts.get(&digest).and_then(Weak::upgrade) {
            return known;
        }
        let chosen = shared().filter(|(key, _)| !key.starts_with(attribute::KUBELET_PREFIX));
        let attributes = self::digest(chosen.map(|(key, value)| (key.as_str(), value.as_str())));
        let values = shared().map(|(key, value)| (key.clone(), value.clone())).collect();
        let service_account = caller.service_account.clone();
        let made = Arc::new(Context { values, service_account, digest, attributes });
        self.contexts.retain(|_, known| known.strong_count() > 0);
        self.contexts.insert(digest, Arc::downgrade(&made));
        made
    }

    fn secrets(&mut self, secrets: &BTreeMap<String, SecretString>) -> Arc<Secrets> {
        let digest = digest(secrets.iter().map(|(key, value)| (key.as_str(), value.expose_secret())));
        if let Some(known) = self.secrets.get(&digest).and_then(Weak::upgrade) {
            return known;
        }
        let made = Arc::new(Secrets { values: secrets.clone(), digest });
        self.secrets.retain(|_, known| known.strong_count() > 0);
        self.secrets.insert(digest, Arc::downgrade(&made));
        made
    }
}

fn digest<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Digest {
    let mut digest = Sha256::new();
    for part in pairs.flat_map(|(key, value)| [key, value]) {
        // The length in front keeps neighbours apart.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
