//! The caller of a mount: the pod whose volume is filled, and what its call brings.
//!
//! `node::csi` and `node::plugin` make a [`Caller`] once from each request. Credentials and tokens
//! are in the redacting type from then on; [`Caller::exposed_attributes`] and
//! [`Caller::exposed_secrets`] are the only functions that give them back as they were sent.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

use super::names::{InvalidName, Namespace, ResourceName, Uid};
use super::pod::PodRef;
use super::tokens::{SentTokens, TOKENS, TokensByAudience, TokensError};

/// The keys of a volume context that have a meaning for the driver.
pub mod attribute {
    /// The prefix of the keys that the kubelet writes.
    pub const KUBELET_PREFIX: &str = "csi.storage.k8s.io/";
    /// The pod's name.
    pub const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
    /// The pod's namespace.
    pub const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
    /// The pod's UID.
    pub const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
    /// The name of the pod's service account.
    pub const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";
    /// The name of the SecretProviderClass.
    pub const CLASS: &str = "secretProviderClass";
}

/// The caller of a mount.
///
/// The kubelet writes the pod's part of the attributes if the CSIDriver object has `podInfoOnMount`
/// and `tokenRequests`; otherwise the pod's author can.
#[derive(Clone)]
pub struct Caller {
    /// The pod.
    pub pod: PodRef,
    /// The pod's service account; `None` if the call does not name it.
    pub service_account: Option<ResourceName>,
    attributes: BTreeMap<String, String>,
    credentials: BTreeMap<String, SecretString>,
    sent: SentTokens,
    tokens: Result<TokensByAudience, TokensError>,
}

/// Why the attributes of a call do not name a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodInfoError {
    /// The key is missing, or its value is empty.
    Missing(&'static str),
    /// The value is not a name.
    Invalid {
        /// The key.
        key: &'static str,
        /// The rule that the value breaks.
        source: InvalidName,
    },
}

impl Caller {
    /// Parses the attributes and secrets of a call.
    ///
    /// # Errors
    /// Name or namespace of the pod are missing, or a name is invalid. Tokens are never an error.
    pub fn parse(
        attributes: BTreeMap<String, String>,
        secrets: BTreeMap<String, SecretString>,
    ) -> Result<Caller, PodInfoError> {
        let text = |key: &str| attributes.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let required = |key: &'static str| text(key).ok_or(PodInfoError::Missing(key));
        let invalid = |key: &'static str| move |source| PodInfoError::Invalid { key, source };
        let (name, namespace) = (required(attribute::POD_NAME)?, required(attribute::POD_NAMESPACE)?);
        let service_account = text(attribute::SERVICE_ACCOUNT).map(ResourceName::new).transpose();
        let service_account = service_account.map_err(invalid(attribute::SERVICE_ACCOUNT))?;
        let pod = PodRef {
            name: ResourceName::new(name).map_err(invalid(attribute::POD_NAME))?,
            namespace: Namespace::new(namespace).map_err(invalid(attribute::POD_NAMESPACE))?,
            uid: match text(attribute::POD_UID) {
                Some(uid) => Uid::new(uid).map_err(invalid(attribute::POD_UID))?.into(),
                None => String::new(),
            },
        };
        Ok(Caller::new(pod, service_account, attributes, secrets))
    }

    /// A caller with these attributes and secrets, tokens included.
    pub fn new(
        pod: PodRef,
        service_account: Option<ResourceName>,
        mut attributes: BTreeMap<String, String>,
        mut secrets: BTreeMap<String, SecretString>,
    ) -> Caller {
        let sent = SentTokens::take(&mut attributes, &mut secrets);
        let tokens = TokensByAudience::parse(&sent);
        Caller { pod, service_account, attributes, credentials: secrets, sent, tokens }
    }

    /// The same caller with these tokens and no others.
    pub fn with_tokens(self, sent: SentTokens) -> Caller {
        Caller { tokens: TokensByAudience::parse(&sent), sent, ..self }
    }

    /// The same caller without tokens.
    pub fn without_tokens(self) -> Caller {
        self.with_tokens(SentTokens::default())
    }

    /// The attributes without tokens: the volume context, or what another driver made of it and of
    /// the class's parameters.
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }

    /// The data of the Secret that the volume's `nodePublishSecretRef` names; empty without one.
    pub fn credentials(&self) -> &BTreeMap<String, SecretString> {
        &self.credentials
    }

    /// The tokens of the pod's service account.
    ///
    /// # Errors
    /// None were sent, or they are unreadable.
    pub fn tokens(&self) -> Result<&TokensByAudience, TokensError> {
        self.tokens.as_ref().map_err(|error| *error)
    }

    /// The tokens as they were sent.
    pub fn sent_tokens(&self) -> &SentTokens {
        &self.sent
    }

    /// The attributes for an external provider, with the tokens: those among the secrets if not
    /// empty.
    pub fn exposed_attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let in_secrets = self.sent.in_secrets().filter(|text| !text.expose_secret().is_empty());
        let tokens = in_secrets.or(self.sent.in_attributes()).map(|text| (TOKENS, text.expose_secret()));
        self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).chain(tokens)
    }

    /// The secrets for an external provider: credentials and tokens, as they were sent.
    pub fn exposed_secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        let tokens = self.sent.in_secrets().map(|text| (TOKENS, text.expose_secret()));
        self.credentials.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).chain(tokens)
    }
}

/// Shows neither attributes nor credentials: a pod's author may have put a secret into both.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Caller { pod, service_account, .. } = self;
        f.debug_struct("Caller").field("pod", pod).field("service_account", service_account).finish_non_exhaustive()
    }
}
