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
use super::super::request::PublishRequest;
use crate::model::{ExposeSecret as _, PodRef, SecretString};

/// What the keys begin with that the kubelet writes itself.
const KUBELET: &str = "csi.storage.k8s.io/";
/// The tokens, in the context or among the secrets
/// (docs/reference/csi-driver.md#service-account-tokens).
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
/// What differs from pod to pod, and is known of the pod anyway.
const OF_POD: [&str; 2] = [POD_NAME, POD_UID];
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";

/// A volume context that many volumes may have.
pub(super) struct Context {
    values: BTreeMap<String, String>,
    digest: Digest,
    /// The digest of what the pod's author wrote, which overlays the class's parameters.
    attributes: Digest,
}

/// The data of a Secret that many volumes may have.
pub(super) struct Secrets {
    values: BTreeMap<String, SecretString>,
    digest: Digest,
}

/// Tokens, and where the kubelet puts them.
#[derive(Clone)]
enum Tokens {
    InContext(Arc<SecretString>),
    InSecrets(Arc<SecretString>),
}

/// What a pod's credentials are made of, as they came last.
#[derive(Clone)]
struct Credentials {
    secrets: Arc<Secrets>,
    tokens: Option<Tokens>,
}

/// What the kubelet brought for one volume. Cheap to clone.
#[derive(Clone)]
pub(in crate::node) struct Feed {
    context: Arc<Context>,
    /// `None` once they were not renewed for too long.
    credentials: Option<Credentials>,
    /// When they came.
    pub(in crate::node) received: Instant,
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
        let in_secrets = request.secrets.get(TOKENS).map(|tokens| Tokens::InSecrets(Arc::new(tokens.clone())));
        let in_context = || {
            let tokens = request.context.get(TOKENS)?;
            Some(Tokens::InContext(Arc::new(SecretString::from(tokens.as_str()))))
        };
        let tokens = in_secrets.or_else(in_context);
        let credentials = Some(Credentials { secrets: store.secrets(&request.secrets), tokens });
        Feed { context: store.context(&request.context), credentials, received: now }
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
    pub(in crate::node) fn is_live(&self) -> bool {
        self.credentials.is_some()
    }

    /// Whether both have the same tokens, or none.
    pub(in crate::node) fn has_tokens_of(&self, other: &Feed) -> bool {
        fn tokens(feed: &Feed) -> Option<&str> {
            match feed.credentials.as_ref()?.tokens.as_ref()? {
                Tokens::InContext(tokens) | Tokens::InSecrets(tokens) => Some(tokens.expose_secret()),
            }
        }
        tokens(self) == tokens(other)
    }

    /// Drops secrets and tokens, and keeps what is not secret.
    pub(super) fn drop_credentials(&mut self) {
        // A pod that brings none has nothing to lose.
        self.credentials.take_if(|credentials| credentials.tokens.is_some() || !credentials.secrets.values.is_empty());
    }

    /// Context and secrets of this pod as a fetch wants them.
    pub(in crate::node) fn opened(&self, pod: &PodRef) -> (BTreeMap<String, String>, BTreeMap<String, SecretString>) {
        let mut context = self.context.values.clone();
        for (key, value) in [(POD_NAME, pod.name.as_str()), (POD_UID, &pod.uid)] {
            if !value.is_empty() {
                context.insert(key.to_owned(), value.to_owned());
            }
        }
        let Some(Credentials { secrets, tokens }) = &self.credentials else {
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
        // The length in front keeps neighbours apart.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
