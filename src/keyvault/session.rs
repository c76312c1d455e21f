//! From a credential to a client of one vault: what the vault wants, a token of that kind, the SDK's client around it.
//!
//! Makes one token request with one credential object, as the SDK's own would resend a revoked token until it expires. Who shares a
//! session, and when a new one is made, is decided in `vault`; requests go through `transport`.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::{ClientOptions, HttpClient, RetryOptions, Transport};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use futures::FutureExt as _;
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::challenge::{self, Challenges, ObjectType};
use super::cloud::Cloud;
use super::error::{Error, Service};
use super::http::{Http, Place};
use super::names::{TenantId, is_client_id};
use super::retry::{self, Limits};
use super::transport::{EntraTransport, VaultTransport, from_sdk, not_azure};
use crate::model::{ExposeSecret as _, SecretString};

/// Who asks the vault.
pub enum Credential {
    /// A service principal with a client secret (spec/azure-provider.md §5.3).
    ClientSecret {
        /// The application's id.
        client_id: String,
        /// The application's secret.
        client_secret: SecretString,
    },
}

impl Credential {
    /// The client id, when it has the form of one; see [`is_client_id`].
    fn client_id(&self) -> Option<String> {
        match self {
            Credential::ClientSecret { client_id, .. } => is_client_id(client_id).then(|| client_id.clone()),
        }
    }
}

/// Shows no secret, and an id only when it has the form of one.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::ClientSecret { .. } => {
                f.debug_struct("ClientSecret").field("client_id", &self.client_id()).finish_non_exhaustive()
            }
        }
    }
}

/// All that it takes to get into one vault.
pub(super) struct Access {
    pub(super) http: Http,
    pub(super) challenges: Challenges,
    pub(super) limits: Limits,
    pub(super) cloud: Cloud,
    pub(super) host: String,
    pub(super) tenant: TenantId,
    pub(super) credential: Credential,
    pub(super) deadline: Instant,
}

/// One token, and the SDK's client that uses it.
pub(super) struct Session {
    /// Which session of its vault it is, counted from 1.
    pub(super) number: u32,
    /// The client for secrets.
    pub(super) secrets: SecretClient,
}

impl Access {
    /// Makes the credential object that a session uses once.
    ///
    /// # Errors
    /// [`Error::Credential`] when id or secret is empty. Nothing is sent.
    pub(super) fn token_credential(&self) -> Result<Arc<dyn TokenCredential>, Error> {
        let authority = self.cloud.authority();
        let transport = EntraTransport {
            http: self.http.clone(),
            authority: authority.to_owned(),
            path: format!("/{}/oauth2/v2.0/token", self.tenant),
            client_id: self.credential.client_id(),
        };
        let mut custom = CustomConfiguration::default();
        custom.authority_host = format!("https://{authority}/");
        let options = ClientOptions {
            cloud: Some(Arc::new(CloudConfiguration::from(custom))),
            ..client_options(Arc::new(transport))
        };
        match &self.credential {
            Credential::ClientSecret { client_id, client_secret } => {
                if client_id.is_empty() || client_secret.expose_secret().is_empty() {
                    return Err(Error::Credential("the client id or the client secret is empty"));
                }
                let secret = Secret::new(client_secret.expose_secret().to_owned());
                let options = ClientSecretCredentialOptions { client_options: options };
                ClientSecretCredential::new(self.tenant.as_str(), client_id.clone(), secret, Some(options))
                    .map(|credential| credential as Arc<dyn TokenCredential>)
                    .map_err(|error| from_sdk(&error, self.entra_id()))
            }
        }
    }

    /// Gets a token and makes a client of it. `path` is that of the object that is wanted first.
    ///
    /// # Errors
    /// What the vault answers to a request without a token, and what Entra ID answers; after the usual tries.
    pub(super) async fn session(self: Arc<Self>, number: u32, path: String) -> Result<Arc<Session>, Error> {
        let scope = retry::until(self.deadline, self.limits, &self.host, || {
            let asked = (self.http.clone(), self.host.clone(), self.cloud.resource_host().to_owned(), path.clone());
            self.challenges.scope(&self.host, ObjectType::Secret, move || {
                let (http, host, resource_host, path) = asked;
                challenge::ask(http, host, resource_host, path).boxed()
            })
        })
        .await?;
        let credential = self.token_credential()?;
        let token = retry::until(self.deadline, self.limits, self.cloud.authority(), || async {
            let token = credential.get_token(&[scope.as_str()], None).await;
            token.map_err(|error| from_sdk(&error, self.entra_id()))
        })
        .await?;
        let secrets = self.secret_client(self.bearer(&token)?)?;
        Ok(Arc::new(Session { number, secrets }))
    }

    fn bearer(&self, token: &AccessToken) -> Result<HeaderValue, Error> {
        // The SDK takes an answer without a token for one with an empty token.
        let text = Some(token.token.secret()).filter(|text| !text.is_empty());
        let value = text.and_then(|text| HeaderValue::from_str(&format!("Bearer {text}")).ok());
        let mut value = value.ok_or_else(|| not_azure(self.entra_id(), "the answer holds no token"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn secret_client(&self, bearer: HeaderValue) -> Result<SecretClient, Error> {
        let transport = VaultTransport {
            http: self.http.clone(),
            host: self.host.clone(),
            kind: ObjectType::Secret,
            bearer,
            client_id: self.credential.client_id(),
        };
        let options = SecretClientOptions {
            api_version: challenge::API_VERSION.to_owned(),
            client_options: client_options(Arc::new(transport)),
            ..SecretClientOptions::default()
        };
        SecretClient::new(&format!("https://{}/", self.host), Arc::new(NoToken), Some(options))
            .map_err(|error| from_sdk(&error, self.key_vault("client")))
    }

    /// The vault, for errors and logs.
    pub(super) fn key_vault(&self, what: &'static str) -> Place<'_> {
        Place { service: Service::KeyVault, host: &self.host, what }
    }

    fn entra_id(&self) -> Place<'_> {
        Place { service: Service::EntraId, host: self.cloud.authority(), what: "token" }
    }
}

/// The SDK's options: our transport, and no tries of its own, since those sleep as long as a server asks.
fn client_options(transport: Arc<dyn HttpClient>) -> ClientOptions {
    ClientOptions {
        transport: Some(Transport::new(transport)),
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
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
