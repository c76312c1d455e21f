//! What it takes to get into one vault: what the vault wants, and a token of that kind.
//!
//! Makes each token request with a credential object of its own, as the SDK's would resend a revoked token until it expires. Who
//! shares a token is decided in `tokens`; requests go through `transport`. Control goes back to `vault`.

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

use super::assertion::{Assertions, Federated};
use super::binding::TokenProxy;
use super::budget::Lane;
use super::challenge::{Challenges, ObjectType, Question, Scope};
use super::cloud::Cloud;
use super::error::{Error, Service};
use super::flight::Wanted;
use super::http::{Http, Place};
use super::identity::{Credential, Identity};
use super::imds::{IMDS, Imds, NodeIdentity};
use super::key_pair::{KeyFault, KeyPair};
use super::names::TenantId;
use super::places::Claim;
use super::recent::Recent;
use super::retry::{self, Limits};
use super::tokens::{Refused, Token, Tokens, usable};
use super::transport::{ADFS_PATH, EntraTransport, Route, VaultTransport, from_sdk, not_azure};
use crate::compute::Compute;
use crate::model::{ExposeSecret as _, Reason, SecretString};
use crate::server::metrics::Metrics;

/// How many tries more the metadata service gets: it may be away for 70 s
/// (docs/reference/azure-provider.md#metadata-service).
const IMDS_TRIES: u32 = 8;

/// All that it takes to get into one vault.
pub(super) struct Access {
    pub(super) http: Http,
    pub(super) imds: Imds,
    pub(super) token_proxy: TokenProxy,
    pub(super) challenges: Challenges,
    pub(super) tokens: Tokens,
    pub(super) assertions: Assertions,
    pub(super) recent: Recent,
    pub(super) lane: Lane,
    /// The places for the fetches of the pod's namespace.
    pub(super) claim: Claim,
    pub(super) metrics: Metrics,
    pub(super) compute: Compute,
    pub(super) limits: Limits,
    pub(super) cloud: Cloud,
    pub(super) host: String,
    pub(super) identity: Identity,
    pub(super) tenant: TenantId,
    pub(super) credential: Credential,
    pub(super) deadline: Instant,
    /// Since when an object must have been asked for; else the window decides what is fresh.
    pub(super) since: Option<Instant>,
}

type SdkCredential = Arc<dyn TokenCredential>;

/// What the tries of one token request prove their identity with.
enum Proof {
    /// The same, which may keep count of the tries.
    Same(SdkCredential),
    /// An assertion that is signed for each.
    Signed(Arc<KeyPair>),
}

impl Access {
    /// Finds fault with the credential, and remembers what others of its identity may use. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::Credential`] when a part of it is empty or does not fit.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.token_credential(None)?;
        if let Some(account) = self.credential.service_account() {
            self.assertions.remember(self.identity, account);
        }
        Ok(())
    }

    /// A token for objects of `kind`, with its scope: known, or fetched for everybody of this identity. `path` is any object's.
    ///
    /// # Errors
    /// What the vault answers to a request without a token, and what Entra ID answers; after the usual tries.
    pub(super) async fn token(self: &Arc<Self>, kind: ObjectType, path: &str) -> Result<(Scope, Arc<Token>), Error> {
        let scope = retry::until(self.deadline, self.limits, &self.host, || {
            let question = Question {
                http: self.http.clone(),
                lane: self.lane.clone(),
                claim: self.claim.clone(),
                host: self.host.clone(),
                resource_host: self.cloud.resource_host().to_owned(),
                path: path.to_owned(),
                deadline: self.deadline,
            };
            self.challenges.scope(kind, question)
        })
        .await?;
        let wanted = Wanted {
            key: (self.identity, scope.clone()),
            proof: self.proof(),
            deadline: self.deadline,
            rank: self.lane.rank().clone(),
            claim: self.claim.clone(),
            host: self.source().host,
        };
        let fetch = || {
            let (access, scope) = (self.clone(), scope.clone());
            async move { access.fetch(&scope).await }.boxed()
        };
        let token = self.tokens.token(wanted, fetch).await?;
        Ok((scope, token))
    }

    /// Takes back a token that the vault refused; says whether there is, or may be, another one.
    pub(super) fn refuse(&self, kind: ObjectType, scope: &Scope, token: &Arc<Token>) -> bool {
        match self.tokens.refuse((self.identity, scope.clone()), token) {
            Refused::Dropped => {
                // The token may be refused because the vault wants another one by now.
                self.challenges.forget(&self.host, kind, self.cloud.resource_host());
                true
            }
            Refused::Replaced => true,
            Refused::Kept => false,
        }
    }

    /// The way to the vault's objects of one type, with this token.
    pub(super) fn transport(&self, kind: ObjectType, token: Arc<Token>) -> VaultTransport {
        let client_id = self.credential.client_id();
        VaultTransport {
            http: self.http.clone(),
            lane: self.lane.clone(),
            host: self.host.clone(),
            kind,
            token,
            client_id,
            deadline: self.deadline,
        }
    }

    /// The vault, for errors and logs.
    pub(super) fn key_vault(&self, what: &'static str) -> Place<'_> {
        Place { service: Service::KeyVault, host: &self.host, what }
    }

    /// Fetches a token; with the freshest assertion of the identity first, and with one's own when that one is refused.
    async fn fetch(&self, scope: &Scope) -> Result<Arc<Token>, Error> {
        if let Some(account) = self.credential.service_account()
            && let Some(fresh) = self.assertions.freshest(self.identity)
            && fresh.0.expose_secret() != account.token().expose_secret()
        {
            let result = self.request(scope, Some(&fresh)).await;
            match &result {
                Err(error) if error.reason() == Reason::CredentialsRejected => {
                    self.assertions.forget(self.identity, &fresh);
                }
                // Whatever it was, one's own token is worth a try while there is time.
                Err(_) if Instant::now() < self.deadline => {}
                Ok(_) | Err(_) => return result,
            }
        }
        self.request(scope, None).await
    }

    async fn request(&self, scope: &Scope, assertion: Option<&Federated>) -> Result<Arc<Token>, Error> {
        let proof = match &self.credential {
            Credential::ClientCertificate { certificate, namespace, .. } => {
                Proof::Signed(certificate.open(&self.compute, namespace, self.deadline).await?)
            }
            Credential::ClientSecret { .. }
            | Credential::WorkloadIdentity { .. }
            | Credential::IdentityBinding { .. }
            | Credential::ManagedIdentity { .. } => Proof::Same(self.token_credential(assertion)?),
        };
        let source = self.source();
        let more = if source.service == Service::Imds { IMDS_TRIES } else { 0 };
        let limits = Limits { tries: self.limits.tries + more, ..self.limits };
        let token = retry::until(self.deadline, limits, source.host, || async {
            let credential = match &proof {
                Proof::Same(credential) => credential.clone(),
                Proof::Signed(pair) => self.token_credential(Some(&self.signed(pair.clone()).await?))?,
            };
            let token = credential.get_token(&[scope.as_str()], None).await;
            token.map_err(|error| from_sdk(&error, source))
        })
        .await;
        let token = token.map_err(|error| self.explained(error))?;
        self.usable(&token).map(Arc::new)
    }

    /// Adds to a refusal that the certificate has ended. It was tried all the same, since the node's clock may be wrong.
    fn explained(&self, error: Error) -> Error {
        let Credential::ClientCertificate { certificate, .. } = &self.credential else {
            return error;
        };
        let ended = certificate.facts().not_after.and_then(|end| OffsetDateTime::from_unix_timestamp(end).ok());
        match ended.filter(|end| *end < OffsetDateTime::now_utc()) {
            Some(end) if error.reason() == Reason::CredentialsRejected => {
                Error::CertificateEnded { ended: end.date().to_string(), last: Box::new(error) }
            }
            Some(_) | None => error,
        }
    }

    fn usable(&self, token: &AccessToken) -> Result<Token, Error> {
        // The SDK takes an answer without a token for one with an empty token.
        let text = Some(token.token.secret()).filter(|text| !text.is_empty());
        let bearer = text.map(|text| format!("Bearer {text}")).filter(|text| HeaderValue::from_str(text).is_ok());
        let bearer = bearer.ok_or_else(|| not_azure(self.source(), "the answer holds no token"))?;
        let life = Duration::try_from(token.expires_on - OffsetDateTime::now_utc()).unwrap_or_default();
        // A longer life than a day is the managed identities'.
        let life = life.min(Duration::from_secs(24 * 60 * 60));
        Ok(Token { bearer: bearer.into(), until: Instant::now() + usable(life) })
    }

    /// What tells this credential from others of its identity: only service account tokens may differ.
    pub(super) fn proof(&self) -> [u8; 32] {
        match self.credential.service_account() {
            Some(account) => Sha256::digest(account.token().expose_secret()).into(),
            None => [0; 32],
        }
    }

    /// Makes the credential object that one token request uses; `assertion` in place of one's own.
    fn token_credential(&self, assertion: Option<&Federated>) -> Result<SdkCredential, Error> {
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
                // Signed anew for each try; before the first one there is only the client id to look at.
                self.asserted(client_id, assertion.cloned().unwrap_or_else(|| Federated(SecretString::default())))
            }
            Credential::WorkloadIdentity { client_id, account }
            | Credential::IdentityBinding { client_id, account } => {
                if client_id.is_empty() {
                    return Err(Error::Credential("the client id is empty"));
                }
                self.asserted(client_id, assertion.cloned().unwrap_or_else(|| Federated(account.token().clone())))
            }
            Credential::ManagedIdentity { client_id } => {
                if client_id.as_ref().is_some_and(String::is_empty) {
                    return Err(Error::Credential("the managed identity's client id is empty"));
                }
                let (imds, shown) = (self.imds.clone(), self.credential.client_id());
                Ok(Arc::new(NodeIdentity::new(imds, client_id.clone(), shown)) as SdkCredential)
            }
        };
        credential.map_err(|error| from_sdk(&error, self.source()))
    }

    /// An assertion that the certificate's key signs: some milliseconds with a large key, in which a runtime's thread
    /// serves nobody.
    async fn signed(&self, pair: Arc<KeyPair>) -> Result<Federated, Error> {
        let (client_id, now) = (self.credential.id().to_owned(), OffsetDateTime::now_utc().unix_timestamp());
        let audience = format!("https://{}{}", self.cloud.authority(), self.token_endpoint());
        let signed = tokio::task::spawn_blocking(move || pair.sign(&client_id, &audience, now)).await;
        let signed = signed.unwrap_or(Err(KeyFault::Unfit("the thread that signs with it ended unexpectedly")));
        Ok(Federated(signed?))
    }

    fn asserted(
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
            route: if matches!(self.credential, Credential::IdentityBinding { .. }) {
                Route::TokenProxy(self.token_proxy.clone())
            } else if self.tenant.is_adfs() {
                Route::Adfs
            } else {
                Route::EntraId
            },
            client_id: self.credential.client_id(),
        };
        let mut custom = CustomConfiguration::default();
        custom.authority_host = format!("https://{authority}/");
        ClientOptions { cloud: Some(Arc::new(CloudConfiguration::from(custom))), ..client_options(Arc::new(transport)) }
    }

    /// The path of the authority's token endpoint.
    fn token_endpoint(&self) -> String {
        if self.tenant.is_adfs() { ADFS_PATH.to_owned() } else { self.token_path() }
    }

    /// The path that the SDK knows.
    fn token_path(&self) -> String {
        format!("/{}/oauth2/v2.0/token", self.tenant)
    }

    /// Who gives out this credential's tokens.
    fn source(&self) -> Place<'_> {
        match &self.credential {
            Credential::ClientSecret { .. }
            | Credential::ClientCertificate { .. }
            | Credential::WorkloadIdentity { .. } => {
                Place { service: Service::EntraId, host: self.cloud.authority(), what: "token" }
            }
            Credential::IdentityBinding { .. } => {
                Place { service: Service::TokenProxy, host: self.token_proxy.host(), what: "token" }
            }
            Credential::ManagedIdentity { .. } => Place { service: Service::Imds, host: IMDS, what: "token" },
        }
    }
}

/// The SDK's options: our transport, and no tries of its own, since those sleep as long as a server asks.
pub(super) fn client_options(transport: Arc<dyn HttpClient>) -> ClientOptions {
    ClientOptions {
        transport: Some(Transport::new(transport)),
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}
