//! One vault, opened by one credential for one fetch.
//!
//! Gets objects by name and gives them out in our own terms; renders nothing and shares nothing between identities. What it takes
//! to get in is in `session`; the content goes on to `provider`.
//!
//! # Guarantees
//! However many calls start at once, one token is fetched for them. A token that the vault refuses is replaced once, for all of them.

use std::sync::{Arc, Mutex, PoisonError};

use azure_security_keyvault_secrets::ResourceExt as _;
use azure_security_keyvault_secrets::models::{Secret, SecretClientGetSecretOptions};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use super::challenge::ObjectType;
use super::error::Error;
use super::names::{ObjectName, ObjectVersionId};
use super::retry;
use super::session::{Access, Session};
use super::transport::{from_sdk, not_azure};
use crate::model::{Reason, SecretString};

/// How many sessions one vault makes: one, and one more when the first one's token is refused (spec/azure-provider.md §6).
const SESSIONS: u32 = 2;

/// The longest version id that is taken over from an answer. Key Vault's own have 32 characters.
const LONGEST_VERSION: usize = 64;

/// One vault, opened by [`Vaults::open`](super::Vaults::open). Cheap to clone; all clones share one token.
///
/// Meant for one fetch: it ends at its deadline, and when no token could be got, every further call has the same error.
#[derive(Clone)]
pub struct Vault {
    access: Arc<Access>,
    session: Arc<Mutex<Option<Opening>>>,
}

/// A session that is being opened, or is open; everybody who waits for it gets the same result.
struct Opening {
    number: u32,
    session: Shared<BoxFuture<'static, Result<Arc<Session>, Error>>>,
}

/// A secret as Key Vault holds it.
#[derive(Debug)]
pub struct VaultSecret {
    /// Its value, whatever it is.
    pub value: SecretString,
    /// Its version: a concrete one, also where the newest was asked for.
    pub version: String,
    /// What its owner says the value is.
    pub content_type: Option<String>,
    /// Whether it is the private side of a certificate (spec/azure-provider.md §4.2).
    pub certificate_backed: bool,
}

impl Vault {
    pub(super) fn new(access: Access) -> Vault {
        Vault { access: Arc::new(access), session: Arc::default() }
    }

    /// The vault's host.
    pub fn host(&self) -> &str {
        &self.access.host
    }

    /// Gets a secret: the given version, or the newest (spec/azure-provider.md §4.1).
    ///
    /// May be called any number of times at once; how many is wise is the caller's decision. Returns by the vault's deadline.
    /// An answer may be up to 1 MiB large.
    ///
    /// # Errors
    /// See [`Error`] and its [`reason`](Error::reason). Faults of the service and the network are reported after several tries.
    pub async fn secret(&self, name: &ObjectName, version: Option<&ObjectVersionId>) -> Result<VaultSecret, Error> {
        let path = format!("/secrets/{name}/{}", version.map(ObjectVersionId::as_str).unwrap_or_default());
        let session = self.session(&path, None).await?;
        let result = self.get_secret(&session, name, version).await;
        if session.number < SESSIONS && matches!(&result, Err(error) if error.reason() == Reason::Unauthorized) {
            let session = self.session(&path, Some(session.number)).await?;
            return self.get_secret(&session, name, version).await;
        }
        result
    }

    /// The session that everybody uses; a new one when there is none, or when it is the one whose token was refused.
    fn session(&self, path: &str, refused: Option<u32>) -> Shared<BoxFuture<'static, Result<Arc<Session>, Error>>> {
        let mut opening = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match opening.as_ref() {
            Some(open) if refused != Some(open.number) => return open.session.clone(),
            Some(open) => open.number + 1,
            None => 1,
        };
        if refused.is_some() {
            // The token may be refused because the vault wants another one by now.
            self.access.challenges.forget(&self.access.host, ObjectType::Secret);
        }
        let session = self.access.clone().session(number, path.to_owned()).boxed().shared();
        *opening = Some(Opening { number, session: session.clone() });
        session
    }

    async fn get_secret(
        &self,
        session: &Session,
        name: &ObjectName,
        version: Option<&ObjectVersionId>,
    ) -> Result<VaultSecret, Error> {
        let Access { deadline, limits, host, .. } = &*self.access;
        let place = self.access.key_vault(ObjectType::Secret.collection());
        retry::until(*deadline, *limits, host, || async {
            let version = version.map(|version| version.as_str().to_owned());
            let options = SecretClientGetSecretOptions { secret_version: version, ..Default::default() };
            let response = session.secrets.get_secret(name.as_str(), Some(options)).await;
            let secret = response.and_then(|response| response.into_model());
            let secret = secret.map_err(|error| from_sdk(&error, place))?;
            take(secret, name).map_err(|what| not_azure(place, what))
        })
        .await
    }
}

/// Moves the SDK's secret into our own; says what is wrong when it is not the one that was asked for.
fn take(secret: Secret, name: &ObjectName) -> Result<VaultSecret, &'static str> {
    let id = secret.resource_id().map_err(|_| "the secret has no id")?;
    if !id.name.eq_ignore_ascii_case(name.as_str()) {
        return Err("the secret is another than the one that was asked for");
    }
    let plain = |text: &String| {
        (1..=LONGEST_VERSION).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    Ok(VaultSecret {
        version: id.version.filter(plain).ok_or("the secret's id names no version")?,
        value: secret.value.ok_or("the secret has no value")?.into(),
        content_type: secret.content_type,
        certificate_backed: secret.kid.is_some_and(|kid| !kid.is_empty()),
    })
}
