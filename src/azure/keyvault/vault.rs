//! One vault, opened with one credential for one fetch: gets objects by name.
//!
//! Returns them in our own types, and renders nothing. Identities share nothing. `session` has the
//! tokens.
//!
//! # Guarantees
//! Concurrent calls share one token request. A token that the vault refuses is replaced once, for
//! all of them.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_security_keyvault_secrets::models::SecretClientGetSecretOptions;
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use bytes::Bytes;
use tokio::time::Instant;
use url::Url;

use super::error::Error;
use super::identity::Identity;
use super::names::{ObjectName, ObjectVersionId};
use super::object_cache::{ObjectFetches, ObjectKey, Size};
use super::object_type::{API_VERSION, ObjectType};
use super::objects::{self, VaultCertificate, VaultKey, VaultSecret, VersionInfo};
use super::retry;
use super::session::{Session, client_options};
use super::single_flight::FetchRequest;
use super::tokens::Token;
use super::transport::from_sdk;
use crate::model::Reason;

/// How many pages of a list are read; Key Vault puts 25 versions on a page.
const MAX_PAGES: usize = 100;
/// How many versions of an object are read.
const MAX_VERSIONS: usize = 2_500;

/// One vault, opened by [`Vaults::open`](super::Vaults::open). Cheap to clone.
///
/// For one fetch, until its deadline.
#[derive(Clone)]
pub struct Vault {
    session: Arc<Session>,
    client: Arc<Mutex<Option<Client>>>,
}

/// The SDK's client for secrets, with the token that it uses.
type Client = (Arc<Token>, Arc<SecretClient>);

impl Vault {
    pub(super) fn new(session: Arc<Session>) -> Vault {
        Vault { session, client: Arc::default() }
    }

    /// The identity of its credential.
    pub fn identity(&self) -> Identity {
        self.session.identity
    }

    /// The vault's host.
    pub fn host(&self) -> &str {
        &self.session.host
    }

    /// Gets a secret: the given version, or the newest
    /// (docs/reference/azure-provider.md#vault-requests).
    ///
    /// The caller limits the concurrent calls. Returns by the deadline. A response may have 1 MiB.
    ///
    /// # Errors
    /// See [`Error`] and its [`reason`](Error::reason). Transient errors are returned after several
    /// tries.
    pub async fn secret(
        &self,
        name: &ObjectName,
        version: Option<&ObjectVersionId>,
    ) -> Result<Arc<VaultSecret>, Error> {
        let fetch = || {
            let (vault, name, version) = (self.clone(), name.clone(), version.cloned());
            async move { vault.get_secret(&name, version.as_ref()).await }
        };
        self.shared(&self.session.objects.secrets, ObjectType::Secret, name, version, fetch).await
    }

    async fn get_secret(&self, name: &ObjectName, version: Option<&ObjectVersionId>) -> Result<VaultSecret, Error> {
        let endpoint = self.session.vault_endpoint(ObjectType::Secret.collection());
        let get = |token: Arc<Token>| async move {
            let client = self.secret_client(token)?;
            self.retried(|| async {
                let version = version.map(|version| version.as_str().to_owned());
                let options = SecretClientGetSecretOptions { secret_version: version, ..Default::default() };
                let response = client.get_secret(name.as_str(), Some(options)).await;
                let secret = response.and_then(|response| response.into_model());
                let secret = secret.map_err(|error| from_sdk(&error, endpoint))?;
                objects::secret(secret, name).map_err(|fault| Error::unexpected(endpoint, fault))
            })
            .await
        };
        self.with_token(ObjectType::Secret, &object_path(ObjectType::Secret, name, version), get).await
    }

    /// Gets the public half of a key: the given version, or the newest
    /// (docs/reference/azure-provider.md#keys).
    ///
    /// # Errors
    /// As [`secret`](Vault::secret).
    pub async fn key(&self, name: &ObjectName, version: Option<&ObjectVersionId>) -> Result<Arc<VaultKey>, Error> {
        let fetch = || self.clone().object(ObjectType::Key, name.clone(), version.cloned(), objects::key);
        self.shared(&self.session.objects.keys, ObjectType::Key, name, version, fetch).await
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
        let object_type = ObjectType::Certificate;
        let fetch = || self.clone().object(object_type, name.clone(), version.cloned(), objects::certificate);
        self.shared(&self.session.objects.certificates, object_type, name, version, fetch).await
    }

    /// Lists the versions of an object, in the vault's order and the disabled ones too
    /// (docs/reference/azure-provider.md#versions).
    ///
    /// # Errors
    /// As [`secret`](Vault::secret); [`Error::OutOfBounds`] if the next page is elsewhere,
    /// [`Error::TooManyVersions`] if there are more than 2,500 versions or 100 pages.
    pub async fn versions(&self, object_type: ObjectType, name: &ObjectName) -> Result<Arc<Vec<VersionInfo>>, Error> {
        let fetch = || {
            let (vault, name) = (self.clone(), name.clone());
            async move { vault.list_versions(object_type, &name).await }
        };
        self.shared(&self.session.objects.versions, object_type, name, None, fetch).await
    }

    async fn list_versions(&self, object_type: ObjectType, name: &ObjectName) -> Result<Vec<VersionInfo>, Error> {
        let path = format!("/{}/{name}/versions", object_type.collection());
        let endpoint = self.session.vault_endpoint(object_type.collection());
        let first = self.url(object_type, &path)?;
        let (mut all, mut next) = (Vec::new(), Some(first.clone()));
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else {
                return Ok(all);
            };
            let body = self.get(object_type, &path, &url).await?;
            let (page, link) =
                objects::versions(&body, object_type, name).map_err(|fault| Error::unexpected(endpoint, fault))?;
            all.extend(page);
            if all.len() > MAX_VERSIONS {
                break;
            }
            next = link.map(|link| follow(&url, &link, &first)).transpose()?;
        }
        match next {
            None if all.len() <= MAX_VERSIONS => Ok(all),
            None | Some(_) => Err(Error::TooManyVersions { host: self.host().to_owned(), limit: MAX_VERSIONS }),
        }
    }

    /// A cached object of this identity, or the result of `fetch`, which is shared and counted.
    async fn shared<T: Size + Send + Sync + 'static, F>(
        &self,
        objects: &ObjectFetches<T>,
        object_type: ObjectType,
        name: &ObjectName,
        version: Option<&ObjectVersionId>,
        fetch: impl Fn() -> F,
    ) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let session = &self.session;
        let request = FetchRequest {
            key: ObjectKey {
                identity: session.identity,
                host: session.host.clone(),
                object_type,
                name: name.as_str().to_ascii_lowercase(),
                version: version.map(|version| version.as_str().to_owned()),
            },
            proof: session.proof(),
            deadline: session.deadline,
            priority: session.queue.priority().clone(),
            permits: session.permits.clone(),
            host: &session.host,
        };
        let counted = || {
            let (metrics, started, fetching) = (session.metrics.clone(), Instant::now(), fetch());
            async move {
                let result = fetching.await;
                let outcome = result.as_ref().map(|_| ()).map_err(Error::reason);
                metrics.fetched(object_type.as_str(), outcome, started.elapsed());
                result
            }
        };
        session.objects.get(objects, request, session.since, counted).await
    }

    async fn object<T>(
        self,
        object_type: ObjectType,
        name: ObjectName,
        version: Option<ObjectVersionId>,
        read: fn(&[u8], &ObjectName) -> Result<T, &'static str>,
    ) -> Result<T, Error> {
        let path = object_path(object_type, &name, version.as_ref());
        let body = self.get(object_type, &path, &self.url(object_type, &path)?).await?;
        read(&body, &name)
            .map_err(|fault| Error::unexpected(self.session.vault_endpoint(object_type.collection()), fault))
    }

    async fn get(&self, object_type: ObjectType, path: &str, url: &Url) -> Result<Bytes, Error> {
        let get = |token: Arc<Token>| async move {
            let transport = self.session.transport(object_type, token);
            self.retried(|| transport.get(url.clone())).await
        };
        self.with_token(object_type, path, get).await
    }

    /// Sends a request with a token, and again with another one if the vault refuses the first
    /// (docs/reference/azure-provider.md#http).
    async fn with_token<T, F>(
        &self,
        object_type: ObjectType,
        path: &str,
        get: impl Fn(Arc<Token>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (scope, token) = self.session.token(object_type, path).await?;
        let result = get(token.clone()).await;
        let refused = matches!(&result, Err(error) if error.reason() == Reason::Unauthorized);
        if refused && self.session.refuse(object_type, &scope, &token) {
            let (scope, token) = self.session.token(object_type, path).await?;
            let result = get(token.clone()).await;
            if matches!(&result, Err(error) if error.reason() == Reason::Unauthorized) {
                self.session.refuse(object_type, &scope, &token);
            }
            return result;
        }
        result
    }

    async fn retried<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Session { deadline, limits, host, .. } = &*self.session;
        retry::until(*deadline, *limits, host, attempt).await
    }

    fn url(&self, object_type: ObjectType, path: &str) -> Result<Url, Error> {
        Url::parse(&format!("https://{}{path}?api-version={API_VERSION}", self.host())).map_err(|_| {
            Error::unexpected(self.session.vault_endpoint(object_type.collection()), "its name is not a host name")
        })
    }

    /// The SDK's client with this token: the cached one or a new one.
    fn secret_client(&self, token: Arc<Token>) -> Result<Arc<SecretClient>, Error> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = client.as_ref().filter(|(used, _)| Arc::ptr_eq(used, &token)) {
            return Ok(client.clone());
        }
        let transport = self.session.transport(ObjectType::Secret, token.clone());
        let options = SecretClientOptions {
            api_version: API_VERSION.to_owned(),
            client_options: client_options(Arc::new(transport)),
            ..SecretClientOptions::default()
        };
        let new = SecretClient::new(&format!("https://{}/", self.host()), Arc::new(NoToken), Some(options))
            .map_err(|error| from_sdk(&error, self.session.vault_endpoint("client")))?;
        let new = Arc::new(new);
        *client = Some((token, new.clone()));
        Ok(new)
    }
}

fn object_path(object_type: ObjectType, name: &ObjectName, version: Option<&ObjectVersionId>) -> String {
    format!("/{}/{name}/{}", object_type.collection(), version.map(ObjectVersionId::as_str).unwrap_or_default())
}

/// The URL of the next page, which must have the path of the first: a hostile response could
/// redirect the token.
fn follow(page: &Url, link: &str, first: &Url) -> Result<Url, Error> {
    let same = |next: &Url| next.origin() == first.origin() && next.path().eq_ignore_ascii_case(first.path());
    let next = page.join(link).ok().filter(same);
    next.ok_or_else(|| Error::OutOfBounds {
        expected: format!("{}{}", first.host_str().unwrap_or_default(), first.path()),
    })
}

/// The credential that the SDK's client demands, and never asks for a token.
///
/// The SDK asks for one after a 401, but our transport reports none, and adds the token itself just
/// before sending. So the SDK cannot send a token elsewhere or keep a revoked one, and concurrent
/// first requests cannot clear each other's token, as they can in its bearer policy, where each 401
/// drops the token that they all share.
#[derive(Debug)]
struct NoToken;

#[async_trait]
impl TokenCredential for NoToken {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        Err(azure_core::Error::with_message(ErrorKind::Credential, "the transport adds the token"))
    }
}
