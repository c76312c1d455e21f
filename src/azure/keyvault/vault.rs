//! One vault, opened by one credential for one fetch.
//!
//! Gets objects by name and gives them out in our own terms; renders nothing and shares nothing between identities. What it takes
//! to get in is in `session`; the content goes on to `provider`.
//!
//! # Guarantees
//! However many calls start at once, one token is fetched for them. A token that the vault refuses is replaced once, for all of them.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_security_keyvault_secrets::models::SecretClientGetSecretOptions;
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use bytes::Bytes;
use tokio::time::Instant;
use url::Url;

use super::challenge::{API_VERSION, ObjectType};
use super::error::Error;
use super::flight::Wanted;
use super::identity::Identity;
use super::names::{ObjectName, ObjectVersionId};
use super::objects::{self, VaultCertificate, VaultKey, VersionInfo};
use super::recent::{Key, Objects, Size};
use super::retry;
use super::session::{Access, client_options};
use super::tokens::Token;
use super::transport::{from_sdk, not_azure};
use crate::model::{Reason, SecretString};

/// The limits of lists.
mod limits {
    /// How many pages of a list are read; Key Vault puts 25 versions on one.
    pub(super) const PAGES: usize = 100;
    /// How many versions of an object are read.
    pub(super) const VERSIONS: usize = 2_500;
}

/// One vault, opened by [`Vaults::open`](super::Vaults::open). Cheap to clone.
///
/// Meant for one fetch: it ends at its deadline.
#[derive(Clone)]
pub struct Vault {
    access: Arc<Access>,
    /// The SDK's client for secrets, with the token that it uses.
    client: Arc<Mutex<Option<Client>>>,
}

/// The SDK's client, with the token that it uses.
type Client = (Arc<Token>, Arc<SecretClient>);

/// A secret as Key Vault holds it.
#[derive(Debug)]
pub struct VaultSecret {
    /// Its value, whatever it is.
    pub value: SecretString,
    /// Its version: a concrete one, also where the newest was asked for.
    pub version: String,
    /// What its owner says the value is.
    pub content_type: Option<String>,
    /// When it expires, in seconds since 1970, if the vault says so.
    pub expires: Option<i64>,
    /// Whether it is the private side of a certificate
    /// (docs/reference/azure-provider.md#certificate-secrets).
    pub certificate_backed: bool,
}

impl Vault {
    pub(super) fn new(access: Arc<Access>) -> Vault {
        Vault { access, client: Arc::default() }
    }

    /// Who asks it.
    pub fn identity(&self) -> Identity {
        self.access.identity
    }

    /// The vault's host.
    pub fn host(&self) -> &str {
        &self.access.host
    }

    /// Gets a secret: the given version, or the newest
    /// (docs/reference/azure-provider.md#vault-requests).
    ///
    /// May be called any number of times at once; how many is wise is the caller's decision. Returns by the vault's deadline.
    /// An answer may be up to 1 MiB large.
    ///
    /// # Errors
    /// See [`Error`] and its [`reason`](Error::reason). Faults of the service and the network are reported after several tries.
    pub async fn secret(
        &self,
        name: &ObjectName,
        version: Option<&ObjectVersionId>,
    ) -> Result<Arc<VaultSecret>, Error> {
        let fetch = || {
            let (vault, name, version) = (self.clone(), name.clone(), version.cloned());
            async move { vault.get_secret(&name, version.as_ref()).await }
        };
        self.shared(&self.access.recent.secrets, ObjectType::Secret, name, version, fetch).await
    }

    async fn get_secret(&self, name: &ObjectName, version: Option<&ObjectVersionId>) -> Result<VaultSecret, Error> {
        let place = self.access.key_vault(ObjectType::Secret.collection());
        let get = |token: Arc<Token>| async move {
            let client = self.secret_client(token)?;
            self.tried(|| async {
                let version = version.map(|version| version.as_str().to_owned());
                let options = SecretClientGetSecretOptions { secret_version: version, ..Default::default() };
                let response = client.get_secret(name.as_str(), Some(options)).await;
                let secret = response.and_then(|response| response.into_model());
                let secret = secret.map_err(|error| from_sdk(&error, place))?;
                objects::secret(secret, name).map_err(|what| not_azure(place, what))
            })
            .await
        };
        self.let_in(ObjectType::Secret, &object_path(ObjectType::Secret, name, version), get).await
    }

    /// Gets the public half of a key: the given version, or the newest
    /// (docs/reference/azure-provider.md#keys).
    ///
    /// # Errors
    /// As [`secret`](Vault::secret).
    pub async fn key(&self, name: &ObjectName, version: Option<&ObjectVersionId>) -> Result<Arc<VaultKey>, Error> {
        let fetch = || self.clone().object(ObjectType::Key, name.clone(), version.cloned(), objects::key);
        self.shared(&self.access.recent.keys, ObjectType::Key, name, version, fetch).await
    }

    /// Gets a certificate without its key: the given version, or the newest
    /// (docs/reference/azure-provider.md#certificates).
    ///
    /// # Errors
    /// As [`secret`](Vault::secret).
    pub async fn certificate(
        &self,
        name: &ObjectName,
        version: Option<&ObjectVersionId>,
    ) -> Result<Arc<VaultCertificate>, Error> {
        let kind = ObjectType::Certificate;
        let fetch = || self.clone().object(kind, name.clone(), version.cloned(), objects::certificate);
        self.shared(&self.access.recent.certificates, kind, name, version, fetch).await
    }

    /// Lists the versions of an object, in the vault's order and the disabled ones too
    /// (docs/reference/azure-provider.md#versions).
    ///
    /// # Errors
    /// As [`secret`](Vault::secret); [`Error::LeftVault`] when the list goes on elsewhere, [`Error::TooManyVersions`] when it is
    /// longer than 2,500 versions or 100 pages.
    pub async fn versions(&self, kind: ObjectType, name: &ObjectName) -> Result<Arc<Vec<VersionInfo>>, Error> {
        let fetch = || {
            let (vault, name) = (self.clone(), name.clone());
            async move { vault.list_versions(kind, &name).await }
        };
        self.shared(&self.access.recent.versions, kind, name, None, fetch).await
    }

    async fn list_versions(&self, kind: ObjectType, name: &ObjectName) -> Result<Vec<VersionInfo>, Error> {
        let path = format!("/{}/{name}/versions", kind.collection());
        let place = self.access.key_vault(kind.collection());
        let first = self.url(kind, &path)?;
        let (mut all, mut next) = (Vec::new(), Some(first.clone()));
        for _ in 0..limits::PAGES {
            let Some(url) = next.take() else {
                return Ok(all);
            };
            let body = self.get(kind, &path, &url).await?;
            let (page, link) = objects::versions(&body, kind, name).map_err(|what| not_azure(place, what))?;
            all.extend(page);
            if all.len() > limits::VERSIONS {
                break;
            }
            next = link.map(|link| follow(&url, &link, &first)).transpose()?;
        }
        match next {
            None if all.len() <= limits::VERSIONS => Ok(all),
            None | Some(_) => Err(Error::TooManyVersions { host: self.host().to_owned(), limit: limits::VERSIONS }),
        }
    }

    /// What others of this identity have just got, or what `fetch` brings for all of them; every fetch is counted.
    async fn shared<T: Size + Send + Sync + 'static, F>(
        &self,
        objects: &Objects<T>,
        kind: ObjectType,
        name: &ObjectName,
        version: Option<&ObjectVersionId>,
        fetch: impl Fn() -> F,
    ) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let access = &self.access;
        let wanted = Wanted {
            key: Key {
                identity: access.identity,
                host: access.host.clone(),
                kind,
                name: name.as_str().to_ascii_lowercase(),
                version: version.map(|version| version.as_str().to_owned()),
            },
            proof: access.proof(),
            deadline: access.deadline,
            rank: access.lane.rank().clone(),
            claim: access.claim.clone(),
            host: &access.host,
        };
        let counted = || {
            let (metrics, started, fetching) = (access.metrics.clone(), Instant::now(), fetch());
            async move {
                let result = fetching.await;
                let outcome = result.as_ref().map(|_| ()).map_err(Error::reason);
                metrics.fetched(kind.as_str(), outcome, started.elapsed());
                result
            }
        };
        access.recent.get(objects, wanted, access.since, counted).await
    }

    async fn object<T>(
        self,
        kind: ObjectType,
        name: ObjectName,
        version: Option<ObjectVersionId>,
        read: fn(&[u8], &ObjectName) -> Result<T, &'static str>,
    ) -> Result<T, Error> {
        let path = object_path(kind, &name, version.as_ref());
        let body = self.get(kind, &path, &self.url(kind, &path)?).await?;
        read(&body, &name).map_err(|what| not_azure(self.access.key_vault(kind.collection()), what))
    }

    async fn get(&self, kind: ObjectType, path: &str, url: &Url) -> Result<Bytes, Error> {
        let get = |token: Arc<Token>| async move {
            let transport = self.access.transport(kind, token);
            self.tried(|| transport.get(url.clone())).await
        };
        self.let_in(kind, path, get).await
    }

    /// Makes a request with a token, and once more with another one when the vault refuses the
    /// first (docs/reference/azure-provider.md#http).
    async fn let_in<T, F>(&self, kind: ObjectType, path: &str, get: impl Fn(Arc<Token>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (scope, token) = self.access.token(kind, path).await?;
        let result = get(token.clone()).await;
        let refused = matches!(&result, Err(error) if error.reason() == Reason::Unauthorized);
        if refused && self.access.refuse(kind, &scope, &token) {
            let (scope, token) = self.access.token(kind, path).await?;
            let result = get(token.clone()).await;
            if matches!(&result, Err(error) if error.reason() == Reason::Unauthorized) {
                self.access.refuse(kind, &scope, &token);
            }
            return result;
        }
        result
    }

    async fn tried<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Access { deadline, limits, host, .. } = &*self.access;
        retry::until(*deadline, *limits, host, attempt).await
    }

    fn url(&self, kind: ObjectType, path: &str) -> Result<Url, Error> {
        Url::parse(&format!("https://{}{path}?api-version={API_VERSION}", self.host()))
            .map_err(|_| not_azure(self.access.key_vault(kind.collection()), "its name is no host"))
    }

    /// The SDK's client with this token: the one that is there, or a new one.
    fn secret_client(&self, token: Arc<Token>) -> Result<Arc<SecretClient>, Error> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = client.as_ref().filter(|(used, _)| Arc::ptr_eq(used, &token)) {
            return Ok(client.clone());
        }
        let transport = self.access.transport(ObjectType::Secret, token.clone());
        let options = SecretClientOptions {
            api_version: API_VERSION.to_owned(),
            client_options: client_options(Arc::new(transport)),
            ..SecretClientOptions::default()
        };
        let made = SecretClient::new(&format!("https://{}/", self.host()), Arc::new(NoToken), Some(options))
            .map_err(|error| from_sdk(&error, self.access.key_vault("client")))?;
        let made = Arc::new(made);
        *client = Some((token, made.clone()));
        Ok(made)
    }
}

fn object_path(kind: ObjectType, name: &ObjectName, version: Option<&ObjectVersionId>) -> String {
    format!("/{}/{name}/{}", kind.collection(), version.map(ObjectVersionId::as_str).unwrap_or_default())
}

/// Where a list goes on, which may be only where it began: a hostile answer would take the token elsewhere.
fn follow(page: &Url, link: &str, first: &Url) -> Result<Url, Error> {
    let same = |next: &Url| next.origin() == first.origin() && next.path().eq_ignore_ascii_case(first.path());
    let next = page.join(link).ok().filter(same);
    next.ok_or_else(|| Error::LeftVault {
        expected: format!("{}{}", first.host_str().unwrap_or_default(), first.path()),
    })
}

/// The credential that the SDK's client demands, and never asks.
///
/// The SDK would fetch a token after a 401, but our transport hands it none and puts the token on itself, at the last moment before
/// sending. So the SDK cannot take a token elsewhere, cannot keep a revoked one, and concurrent first requests cannot clear each
/// other's, as they may in its bearer policy, where every 401 drops the token that all of them share.
#[derive(Debug)]
struct NoToken;

#[async_trait]
impl TokenCredential for NoToken {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        Err(azure_core::Error::with_message(ErrorKind::Credential, "the transport puts the token on"))
    }
}
