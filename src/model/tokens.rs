//! The tokens of a pod's service account, as the kubelet sends them for a volume.
//!
//! The JSON text has one of two places: among the CSI secrets (Kubernetes 1.35 and newer), or in
//! the volume context (docs/reference/csi-driver.md#service-account-tokens). A text that cannot be
//! read is an error only for a fetch that needs a token. Whether a token is genuine is not decided
//! here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

/// The key of the tokens, in both places.
pub const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// The longest JSON text that is parsed, in bytes: a hundred audiences of a kubelet's.
const LONGEST: usize = 256 << 10;

/// The tokens as they were sent. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SentTokens {
    in_secrets: Option<Arc<SecretString>>,
    in_attributes: Option<Arc<SecretString>>,
}

impl SentTokens {
    /// Moves the tokens out of a request's maps.
    pub(super) fn take(
        attributes: &mut BTreeMap<String, String>,
        secrets: &mut BTreeMap<String, SecretString>,
    ) -> SentTokens {
        SentTokens {
            in_secrets: secrets.remove(TOKENS).map(Arc::new),
            in_attributes: attributes.remove(TOKENS).map(|text| Arc::new(SecretString::from(text))),
        }
    }

    /// The text that counts: the one among the secrets, even an empty one.
    pub fn text(&self) -> Option<&SecretString> {
        self.in_secrets().or(self.in_attributes())
    }

    /// The text among the secrets.
    pub fn in_secrets(&self) -> Option<&SecretString> {
        self.in_secrets.as_deref()
    }

    /// The text in the volume context, where a pod's author can write it if the kubelet does not.
    pub fn in_attributes(&self) -> Option<&SecretString> {
        self.in_attributes.as_deref()
    }

    /// Whether none were sent.
    pub fn is_empty(&self) -> bool {
        self.text().is_none()
    }
}

/// Why there are no tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokensError {
    /// None were sent.
    NotSent,
    /// The text is not the kubelet's JSON, or is too long.
    Unreadable,
}

/// The tokens by audience; none of them is empty.
#[derive(Debug, Clone)]
pub struct TokensByAudience(BTreeMap<String, SecretString>);

impl TokensByAudience {
    pub(super) fn parse(sent: &SentTokens) -> Result<TokensByAudience, TokensError> {
        let text = sent.text().map(|text| text.expose_secret()).filter(|text| !text.trim().is_empty());
        let text = text.ok_or(TokensError::NotSent)?;
        if text.len() > LONGEST {
            return Err(TokensError::Unreadable);
        }
        let tokens: BTreeMap<String, Token> = serde_json::from_str(text).map_err(|_| TokensError::Unreadable)?;
        let tokens = tokens.into_iter().filter(|(_, Token { token })| !token.is_empty());
        Ok(TokensByAudience(tokens.map(|(audience, Token { token })| (audience, token.into())).collect()))
    }

    /// The token for this audience.
    pub fn get(&self, audience: &str) -> Option<&SecretString> {
        self.0.get(audience)
    }
}

/// One token, as the kubelet writes it.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
}

/// Never shows a token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}
