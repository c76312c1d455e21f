//! Access to one vault with one identity: the scope that the vault requires, and a token for it.
//!
//! Uses a new SDK credential for each token request, as the SDK's would resend a revoked token
//! until it expires. Which identities share a token is decided in `tokens`; requests go through
//! `transport`.

use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential};
use azure_core::http::{ClientOptions, HttpClient, RetryOptions, Transport};
use azure_core::time::OffsetDateTime;
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};
use futures::FutureExt as _;
use reqwest::header::HeaderValue;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::assertion::{Assertion, AssertionCache};
use super::challenge::{ChallengeCache, ChallengeRequest, Scope};
use super::cloud::Cloud;
use super::endpoint::{Endpoint, Service};
use super::error::Error;
use super::fetch_permits::NamespacePermits;
use super::http::Http;
use super::identity::{Credential, Identity};
use super::imds::{IMDS, Imds, ManagedIdentityCredential};
use super::key_pair::{KeyFault, KeyPair};
use super::names::TenantId;
use super::object_cache::ObjectCache;
use super::object_type::ObjectType;
use super::retry::{self, RetryLimits};
use super::single_flight::FetchRequest;
use super::token_proxy::TokenProxy;
use super::tokens::{Refused, Token, TokenCache, usable_for};
use super::transport::{ADFS_PATH, EntraTransport, TokenEndpoint, VaultTransport, from_sdk};
use super::vault_queue::VaultQueue;
use crate::compute::Compute;
use crate::model::{ExposeSecret as _, Reason, SecretString};
use crate::server::metrics::FetchMetrics;

/// How many more tries the metadata service gets: it may be unavailable for 70 s
/// (docs/reference/azure-provider.md#metadata-service).
const IMDS_EXTRA_TRIES: u32 = 8;

/// One vault, one credential, and the caches and limits that they use.
pub(super) struct Session {
    pub(super) http: Http,
    pub(super) imds: Imds,
    pub(super) token_proxy: TokenProxy,
    pub(super) challenges: ChallengeCache,
    pub(super) tokens: TokenCache,
    pub(super) assertions: AssertionCache,
    pub(super) objects: ObjectCache,
    pub(super) queue: VaultQueue,
    /// Of the pod's namespace.
    pub(super) permits: NamespacePermits,
    pub(super) metrics: FetchMetrics,
    pub(super) compute: Compute,
    pub(super) limits: RetryLimits,
    pub(super) cloud: Cloud,
    pub(super) host: String,
    pub(super) identity: Identity,
    pub(super) tenant: TenantId,
    pub(super) credential: Credential,
    pub(super) deadline: Instant,
    /// If set, a cached object counts only if it was requested after this.
    pub(super) since: Option<Instant>,
}

type SdkCredential = Arc<dyn TokenCredential>;

/// How the tries of one token request prove their identity.
enum Proof {
    /// One credential object for all tries, which may count them.
    Reused(SdkCredential),
    /// Each try signs an assertion of its own.
    Signed(Arc<KeyPair>),
}

impl Session {
    /// Checks the credential, and offers its token to other sessions of the identity. Sends
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Credential`] if a part of it is empty or cannot be used.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.sdk_credential(None)?;
        if let Some(account) = self.credential.service_account() {
            self.assertions.offer(self.identity, account);
        }
        Ok(())
    }

    /// A token for objects of this type, with its scope: cached, or fetched for all callers of this
    /// identity. `path` is that of any object.
    ///
    /// # Errors
    /// Those of a request to the vault without a token, and those of the token request; after the
    /// retries.
    pub(super) async fn token(
        self: &Arc<Self>,
        object_type: ObjectType,
        path: &str,
    ) -> Result<(Scope, Arc<Token>), Error> {
        let scope = retry::until(self.deadline, self.limits, &self.host, || {
            let request = ChallengeRequest {
                http: self.http.clone(),
                queue: self.queue.clone(),
                permits: self.permits.clone(),
                host: self.host.clone(),
                resource: self.cloud.resource().clone(),
                path: path.to_owned(),
                deadline: self.deadline,
            };
            self.challenges.scope(object_type, request)
        })
        .await?;
        let request = FetchRequest {
            key: (self.identity, scope.clone()),
            proof: self.proof(),
            deadline: self.deadline,
            priority: self.queue.priority().clone(),
            permits: self.permits.clone(),
            host: self.token_source().host,
        };
        let fetch = || {
            let (session, scope) = (self.clone(), scope.clone());
            async move { session.fetch_token(&scope).await }.boxed()
        };
        let token = self.tokens.token(request, fetch).await?;
        Ok((scope, token))
    }

    /// Drops a token that the vault refused; returns whether another one is or may be available.
    pub(super) fn refuse(&self, object_type: ObjectType, scope: &Scope, token: &Arc<Token>) -> bool {
        match self.tokens.refuse((self.identity, scope.clone()), token) {
            Refused::Dropped => {
                // The vault may have refused it because it requires another scope now.
                self.challenges.forget(&self.host, object_type, self.cloud.resource());
                true
            }
            Refused::Replaced => true,
            Refused::Kept => false,
        }
    }

    /// The transport for the vault's objects of one type, with this token.
    pub(super) fn transport(&self, object_type: ObjectType, token: Arc<Token>) -> VaultTransport {
        VaultTransport {
            http: self.http.clone(),
            queue: self.queue.clone(),
            host: self.host.clone(),
            object_type,
            token,
            client_id: self.credential.client_id(),
            deadline: self.deadline,
        }
    }

    /// The vault, for errors and logs.
    pub(super) fn vault_endpoint(&self, operation: &'static str) -> Endpoint<'_> {
        Endpoint { service: Service::KeyVault, host: &self.host, operation }
    }

    /// Fetches a token: first with the identity's assertion that expires last, then with the
    /// session's own.
    async fn fetch_token(&self, scope: &Scope) -> Result<Arc<Token>, Error> {
        if let Some(account) = self.credential.service_account()
            && let Some(latest) = self.assertions.latest(self.identity)
            && latest.0.expose_secret() != account.token().expose_secret()
        {
            let result = self.request_token(scope, Some(&latest)).await;
            match &result {
                Err(error) if error.reason() == Reason::CredentialsRejected => {
                    self.assertions.forget(self.identity, &latest);
                }
                // Our own token may succeed whatever the error is.
                Err(_) if Instant::now() < self.deadline => {}
                Ok(_) | Err(_) => return result,
            }
        }
        self.request_token(scope, None).await
    }

    async fn request_token(&self, scope: &Scope, assertion: Option<&Assertion>) -> Result<Arc<Token>, Error> {
        let proof = match &self.credential {
            Credential::ClientCertificate { certificate, namespace, .. } => {
                Proof::Signed(certificate.open(&self.compute, namespace, self.deadline).await?)
            }
            Credential::ClientSecret { .. }
            | Credential::WorkloadIdentity { .. }
            | Credential::IdentityBinding { .. }
            | Credential::ManagedIdentity { .. } => Proof::Reused(self.sdk_credential(assertion)?),
        };
        let source = self.token_source();
        let extra = if source.service == Service::Imds { IMDS_EXTRA_TRIES } else { 0 };
        let limits = RetryLimits { max_tries: self.limits.max_tries + extra, ..self.limits };
        let token = retry::until(self.deadline, limits, source.host, || async {
            let credential = match &proof {
                Proof::Reused(credential) => credential.clone(),
                Proof::Signed(pair) => self.sdk_credential(Some(&self.signed_assertion(pair.clone()).await?))?,
            };
            let token = credential.get_token(&[scope.as_str()], None).await;
            token.map_err(|error| from_sdk(&error, source))
        })
        .await;
        let token = token.map_err(|error| self.with_expiration(error))?;
        self.checked(&token).map(Arc::new)
    }

    /// Adds to a refusal that the certificate has expired. It is sent all the same, as the node's
    /// clock may be wrong.
    fn with_expiration(&self, error: Error) -> Error {
        let Credential::ClientCertificate { certificate, .. } = &self.credential else {
            return error;
        };
        let not_after = certificate.facts().not_after.and_then(|end| OffsetDateTime::from_unix_timestamp(end).ok());
        match not_after.filter(|end| *end < OffsetDateTime::now_utc()) {
            Some(end) if error.reason() == Reason::CredentialsRejected => {
                Error::CertificateExpired { date: end.date().to_string(), last: Box::new(error) }
            }
            Some(_) | None => error,
        }
    }

    fn checked(&self, token: &AccessToken) -> Result<Token, Error> {
        // From a response without a token, the SDK makes an empty one.
        let text = Some(token.token.secret()).filter(|text| !text.is_empty());
        let bearer = text.map(|text| format!("Bearer {text}")).filter(|text| HeaderValue::from_str(text).is_ok());
        let bearer = bearer.ok_or_else(|| Error::unexpected(self.token_source(), "the answer holds no token"))?;
        let lifetime = Duration::try_from(token.expires_on - OffsetDateTime::now_utc()).unwrap_or_default();
        // No token is valid for longer than those of managed identities: a day.
        let lifetime = lifetime.min(Duration::from_secs(24 * 60 * 60));
        Ok(Token { bearer: bearer.into(), until: Instant::now() + usable_for(lifetime) })
    }

    /// Distinguishes credentials of one identity: only their service account tokens can differ.
    pub(super) fn proof(&self) -> [u8; 32] {
        match self.credential.service_account() {
            Some(account) => Sha256::digest(account.token().expose_secret()).into(),
            None => [0; 32],
        }
    }

    /// The SDK's credential for one token request, with `assertion` in place of the session's own.
    fn sdk_credential(&self, assertion: Option<&Assertion>) -> Result<SdkCredential, Error> {
        let credential = match &self.credential {
            Credential::ClientSecret { client_id, client_secret } => {
                if client_id.is_empty() || client_secret.expose_secret().is_empty() {
                    return Err(Error::Credential("the client id or the client secret is empty"));
                }
                let secret = Secret::new(client_secret.expose_secret().to_owned());
                let options = ClientSecretCredentialOptions { client_options: self.entra_options() };
                ClientSecretCredential::new(self.tenant.as_str(), client_id.clone(), secret, Some(options))
                    .map(|credential| credential as SdkCredential)
            }
            Credential::ClientCertificate { client_id, .. } => {
                if client_id.is_empty() {
                    return Err(Error::Credential("the client id is empty"));
                }
                // `check` has no assertion yet: each try signs its own.
                self.assertion_credential(
                    client_id,
                    assertion.cloned().unwrap_or_else(|| Assertion(SecretString::default())),
                )
            }
            Credential::WorkloadIdentity { client_id, account }
            | Credential::IdentityBinding { client_id, account } => {
                if client_id.is_empty() {
                    return Err(Error::Credential("the client id is empty"));
                }
                self.assertion_credential(
                    client_id,
                    assertion.cloned().unwrap_or_else(|| Assertion(account.token().clone())),
                )
            }
            Credential::ManagedIdentity { client_id } => {
                if client_id.as_ref().is_some_and(String::is_empty) {
                    return Err(Error::Credential("the managed identity's client id is empty"));
                }
                let (imds, shown_client_id) = (self.imds.clone(), self.credential.client_id());
                let credential = ManagedIdentityCredential::new(imds, client_id.clone(), shown_client_id);
                Ok(Arc::new(credential) as SdkCredential)
            }
        };
        credential.map_err(|error| from_sdk(&error, self.token_source()))
    }

    /// An assertion signed by the certificate's key. Signing with a large key takes some
    /// milliseconds, for which it must not block a thread of the runtime.
    async fn signed_assertion(&self, pair: Arc<KeyPair>) -> Result<Assertion, Error> {
        let (client_id, now) = (self.credential.id().to_owned(), OffsetDateTime::now_utc().unix_timestamp());
        let audience = format!("https://{}{}", self.cloud.authority(), self.token_endpoint_path());
        let signed = tokio::task::spawn_blocking(move || pair.sign(&client_id, &audience, now)).await;
        let signed = signed.unwrap_or(Err(KeyFault::Unfit("the thread that signs with it ended unexpectedly")));
        Ok(Assertion(signed?))
    }

    fn assertion_credential(
        &self,
        client_id: &str,
        assertion: impl ClientAssertion + 'static,
    ) -> azure_core::Result<SdkCredential> {
        let options = ClientAssertionCredentialOptions { client_options: self.entra_options() };
        let (tenant, client_id) = (self.tenant.as_str().to_owned(), client_id.to_owned());
        ClientAssertionCredential::new(tenant, client_id, assertion, Some(options)).map(|made| made as SdkCredential)
    }

    fn entra_options(&self) -> ClientOptions {
        let authority = self.cloud.authority();
        let transport = EntraTransport {
            http: self.http.clone(),
            authority: authority.to_owned(),
            path: self.token_path(),
            token_endpoint: if matches!(self.credential, Credential::IdentityBinding { .. }) {
                TokenEndpoint::TokenProxy(self.token_proxy.clone())
            } else if self.tenant.is_adfs() {
                TokenEndpoint::Adfs
            } else {
                TokenEndpoint::EntraId
            },
            client_id: self.credential.client_id(),
        };
        let mut custom = CustomConfiguration::default();
        custom.authority_host = format!("https://{authority}/");
        ClientOptions { cloud: Some(Arc::new(CloudConfiguration::from(custom))), ..client_options(Arc::new(transport)) }
    }

    fn token_endpoint_path(&self) -> String {
        if self.tenant.is_adfs() { ADFS_PATH.to_owned() } else { self.token_path() }
    }

    /// The path that the SDK asks for.
    fn token_path(&self) -> String {
        format!("/{}/oauth2/v2.0/token", self.tenant)
    }

    /// The service that issues this credential's tokens.
    fn token_source(&self) -> Endpoint<'_> {
        match &self.credential {
            Credential::ClientSecret { .. }
            | Credential::ClientCertificate { .. }
            | Credential::WorkloadIdentity { .. } => {
                Endpoint { service: Service::EntraId, host: self.cloud.authority(), operation: "token" }
            }
            Credential::IdentityBinding { .. } => {
                Endpoint { service: Service::TokenProxy, host: self.token_proxy.host(), operation: "token" }
            }
            Credential::ManagedIdentity { .. } => Endpoint { service: Service::Imds, host: IMDS, operation: "token" },
        }
    }
}

/// Our transport, and no retries of the SDK's own, since those sleep as long as a server asks.
pub(super) fn client_options(transport: Arc<dyn HttpClient>) -> ClientOptions {
    ClientOptions {
        transport: Some(Transport::new(transport)),
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}
