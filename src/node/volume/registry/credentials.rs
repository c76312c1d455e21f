//! The credentials that the kubelet delivers for a volume, kept in memory until the next delivery
//! (docs/decisions.md#d2).
//!
//! Volume contexts (without the keys that differ from pod to pod) and Secrets that are equal are
//! kept once for all volumes. No type here has `Debug`.
//!
//! # Guarantees
//! Secrets and tokens are in the redacting type; they are wiped when the last volume drops them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::super::layout::Digest;
use super::super::request::PublishRequest;
use crate::model::{Caller, ExposeSecret as _, PodRef, ResourceName, SecretString, SentTokens, attribute};

/// The keys that differ from pod to pod; their values come from the [`PodRef`].
const OF_POD: [&str; 2] = [attribute::POD_NAME, attribute::POD_UID];

/// A volume context, shared by volumes with an equal one.
pub(super) struct Context {
    values: BTreeMap<String, String>,
    service_account: Option<ResourceName>,
    digest: Digest,
    /// Of the attributes that the pod's author wrote; they override parameters of the class.
    attributes: Digest,
}

/// The data of a Secret, shared by volumes with equal data.
pub(super) struct Secrets {
    values: BTreeMap<String, SecretString>,
    digest: Digest,
}

/// The parts that are dropped when the kubelet no longer renews them.
#[derive(Clone)]
struct Renewable {
    secrets: Arc<Secrets>,
    tokens: SentTokens,
}

/// The context and the credentials that the kubelet delivered last for one volume. Cheap to clone.
#[derive(Clone)]
pub(in crate::node) struct Credentials {
    context: Arc<Context>,
    /// `None` after their lifetime without a renewal.
    renewable: Option<Renewable>,
    /// When they were delivered.
    pub(in crate::node) received: Instant,
}

/// The contexts and Secrets in use, by digest.
#[derive(Default)]
pub(super) struct Store {
    contexts: HashMap<Digest, Weak<Context>>,
    secrets: HashMap<Digest, Weak<Secrets>>,
}

impl Credentials {
    pub(super) fn of(request: &PublishRequest, store: &mut Store, now: Instant) -> Credentials {
        let caller = &request.caller;
        let (secrets, tokens) = (store.secrets(caller.credentials()), caller.sent_tokens().clone());
        Credentials { context: store.context(caller), renewable: Some(Renewable { secrets, tokens }), received: now }
    }

    /// Of the volume attributes that the pod's author wrote.
    pub(super) fn attributes(&self) -> Digest {
        self.context.attributes
    }

    /// Whether context and Secret are equal. Tokens are not compared: they differ at each renewal.
    pub(super) fn is_same_identity(&self, other: &Credentials) -> bool {
        let secrets = |of: &Credentials| of.renewable.as_ref().map(|renewable| renewable.secrets.digest);
        self.context.digest == other.context.digest && secrets(self) == secrets(other)
    }

    /// Whether the kubelet still renews them.
    pub(in crate::node) fn is_live(&self) -> bool {
        self.renewable.is_some()
    }

    /// Whether both have the same tokens, or none.
    pub(in crate::node) fn has_tokens_of(&self, other: &Credentials) -> bool {
        fn tokens(of: &Credentials) -> Option<&str> {
            Some(of.renewable.as_ref()?.tokens.text()?.expose_secret())
        }
        tokens(self) == tokens(other)
    }

    /// Drops secrets and tokens; the context stays.
    pub(super) fn expire(&mut self) {
        // A pod without any (managed identity) stays live.
        self.renewable.take_if(|renewable| !renewable.tokens.is_empty() || !renewable.secrets.values.is_empty());
    }

    /// This pod as the caller of a fetch.
    pub(in crate::node) fn caller(&self, pod: &PodRef) -> Caller {
        let mut attributes = self.context.values.clone();
        for (key, value) in [(attribute::POD_NAME, pod.name.as_str()), (attribute::POD_UID, &pod.uid)] {
            if !value.is_empty() {
                attributes.insert(key.to_owned(), value.to_owned());
            }
        }
        let (secrets, tokens) = match &self.renewable {
            Some(Renewable { secrets, tokens }) => (secrets.values.clone(), tokens.clone()),
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
        let made = Arc::new(Context { values, service_account: caller.service_account.clone(), digest, attributes });
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
        // With its length in front, no part runs into the next one.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
