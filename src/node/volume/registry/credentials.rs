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
use crate::model::{ExposeSecret as _, PodRef, SecretString};

/// The prefix of the keys that the kubelet writes.
const KUBELET: &str = "csi.storage.k8s.io/";
/// The key of the service account's tokens, in the context or among the secrets
/// (docs/reference/csi-driver.md#service-account-tokens).
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
/// The keys that differ from pod to pod; their values come from the [`PodRef`].
const OF_POD: [&str; 2] = [POD_NAME, POD_UID];
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";

/// A volume context, shared by volumes with an equal one.
pub(super) struct Context {
    values: BTreeMap<String, String>,
    digest: Digest,
    /// Of the attributes that the pod's author wrote; they override parameters of the class.
    attributes: Digest,
}

/// The data of a Secret, shared by volumes with equal data.
pub(super) struct Secrets {
    values: BTreeMap<String, SecretString>,
    digest: Digest,
}

/// The tokens, and where the kubelet delivers them.
#[derive(Clone)]
enum Tokens {
    InContext(Arc<SecretString>),
    InSecrets(Arc<SecretString>),
}

/// The parts that are dropped when the kubelet no longer renews them.
#[derive(Clone)]
struct Renewable {
    secrets: Arc<Secrets>,
    tokens: Option<Tokens>,
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
        let in_secrets = request.secrets.get(TOKENS).map(|tokens| Tokens::InSecrets(Arc::new(tokens.clone())));
        let in_context = || {
            let tokens = request.context.get(TOKENS)?;
            Some(Tokens::InContext(Arc::new(SecretString::from(tokens.as_str()))))
        };
        let tokens = in_secrets.or_else(in_context);
        let renewable = Some(Renewable { secrets: store.secrets(&request.secrets), tokens });
        Credentials { context: store.context(&request.context), renewable, received: now }
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
            match of.renewable.as_ref()?.tokens.as_ref()? {
                Tokens::InContext(tokens) | Tokens::InSecrets(tokens) => Some(tokens.expose_secret()),
            }
        }
        tokens(self) == tokens(other)
    }

    /// Drops secrets and tokens; the context stays.
    pub(super) fn expire(&mut self) {
        // A pod without any (managed identity) stays live.
        self.renewable.take_if(|renewable| renewable.tokens.is_some() || !renewable.secrets.values.is_empty());
    }

    /// Context and secrets of this pod, as a fetch needs them.
    pub(in crate::node) fn opened(&self, pod: &PodRef) -> (BTreeMap<String, String>, BTreeMap<String, SecretString>) {
        let mut context = self.context.values.clone();
        for (key, value) in [(POD_NAME, pod.name.as_str()), (POD_UID, &pod.uid)] {
            if !value.is_empty() {
                context.insert(key.to_owned(), value.to_owned());
            }
        }
        let Some(Renewable { secrets, tokens }) = &self.renewable else {
            return (context, BTreeMap::new());
        };
        let mut secrets = secrets.values.clone();
        match tokens {
            Some(Tokens::InContext(tokens)) => {
                context.insert(TOKENS.to_owned(), tokens.expose_secret().to_owned());
            }
            Some(Tokens::InSecrets(tokens)) => {
                secrets.insert(TOKENS.to_owned(), SecretString::clone(tokens));
            }
            None => {}
        }
        (context, secrets)
    }
}

impl Store {
    fn context(&mut self, context: &BTreeMap<String, String>) -> Arc<Context> {
        let of_pod = |key: &str| key == TOKENS || OF_POD.contains(&key);
        let shared = || context.iter().filter(|(key, _)| !of_pod(key));
        let digest = digest(shared().map(|(key, value)| (key.as_str(), value.as_str())));
        if let Some(known) = self.contexts.get(&digest).and_then(Weak::upgrade) {
            return known;
        }
        let chosen = shared().filter(|(key, _)| !key.starts_with(KUBELET));
        let attributes = self::digest(chosen.map(|(key, value)| (key.as_str(), value.as_str())));
        let values = shared().map(|(key, value)| (key.clone(), value.clone())).collect();
        let made = Arc::new(Context { values, digest, attributes });
        self.contexts.retain(|_, known| known.strong_count() > 0);
        self.contexts.insert(digest, Arc::downgrade(&made));
        made
    }

    fn secrets(&mut self, secrets: &BTreeMap<String, SecretString>) -> Arc<Secrets> {
        let shared = || secrets.iter().filter(|(key, _)| *key != TOKENS);
        let digest = digest(shared().map(|(key, value)| (key.as_str(), value.expose_secret())));
        if let Some(known) = self.secrets.get(&digest).and_then(Weak::upgrade) {
            return known;
        }
        let values = shared().map(|(key, value)| (key.clone(), value.clone())).collect();
        let made = Arc::new(Secrets { values, digest });
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
