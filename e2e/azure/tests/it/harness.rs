//! An emulator with one tenant, one client and one vault, and an HTTPS client for it.
//!
//! Every test starts its own emulator, so tests do not affect each other. The client trusts the
//! emulator's CA only, and does not follow redirects.

use std::time::{Duration, Instant};

use azure_emulator::{Azure, Emulator, Options, Permission};
use reqwest::blocking::{Client, ClientBuilder, RequestBuilder};
use reqwest::{Certificate, Method};
use serde_json::Value;

pub(crate) const TENANT: &str = "11111111-aaaa-4bbb-8ccc-000000000001";
pub(crate) const CLIENT: &str = "22222222-aaaa-4bbb-8ccc-000000000002";
pub(crate) const SECRET: &str = "a-client-secret";
pub(crate) const VAULT: &str = "first-vault";
pub(crate) const LOGIN: &str = "https://login.microsoftonline.com";
pub(crate) const HOST: &str = "https://first-vault.vault.azure.net";
pub(crate) const SCOPE: &str = "https://vault.azure.net/.default";

/// The timeout of a condition, far more than it needs.
const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Fixture {
    pub(crate) emulator: Emulator,
    pub(crate) azure: Azure,
    pub(crate) http: Client,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {self:?}")).to_str().unwrap()
    }

    /// Key Vault's error code, inner code and message.
    pub(crate) fn vault_error(&self) -> (String, String, String) {
        let document = self.json();
        let error = &document["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&error["code"]), text(&error["innererror"]["code"]), text(&error["message"]))
    }
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::with_names(&[])
    }

    /// With a custom cloud.
    pub(crate) fn with_names(dns_names: &[&str]) -> Fixture {
        let dns_names = dns_names.iter().map(|&name| name.to_owned()).collect();
        let admin = Some("127.0.0.1:0".parse().unwrap());
        let emulator = Emulator::start(Options { dns_names, admin, ..Options::loopback() }).unwrap();
        let azure = emulator.azure();
        azure.add_tenant(TENANT);
        azure.add_client(TENANT, CLIENT, SECRET);
        azure.add_vault(VAULT, "vault.azure.net", TENANT);
        azure.grant(VAULT, CLIENT, &Permission::ALL);
        let http = client(&emulator).build().unwrap();
        Fixture { emulator, azure, http }
    }

    pub(crate) fn send(&self, request: RequestBuilder) -> Reply {
        reply(request).unwrap()
    }

    pub(crate) fn token_request(&self, login: &str, tenant: &str, form: &[(&str, &str)]) -> Reply {
        self.send(self.http.post(format!("{login}/{tenant}/oauth2/v2.0/token")).form(form))
    }

    pub(crate) fn token(&self) -> String {
        self.token_for(SCOPE)
    }

    pub(crate) fn token_for(&self, scope: &str) -> String {
        let reply = self.token_request(LOGIN, TENANT, &form(CLIENT, SECRET, scope));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// A request to the vault with a token, and with an API version unless the path has a query.
    pub(crate) fn vault(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Reply {
        let query = if path.contains('?') { "" } else { "?api-version=7.6" };
        let request = self.http.request(method, format!("{HOST}{path}{query}")).bearer_auth(token);
        self.send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> Reply {
        self.vault(Method::GET, path, token, None)
    }
}

/// A client that resolves all names of the tests to the emulator.
pub(crate) fn client(emulator: &Emulator) -> ClientBuilder {
    // An error means that another test of the process installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
    let names = [
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.stack.test",
        "first-vault.vault.azure.net",
        "second-vault.vault.azure.net",
        "gov-vault.vault.usgovcloudapi.net",
        "stack-vault.vault.stack.test",
    ];
    let builder = Client::builder()
        .tls_certs_only([ca])
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(30));
    names.iter().fold(builder, |builder, name| builder.resolve(name, emulator.address()))
}

pub(crate) fn reply(request: RequestBuilder) -> reqwest::Result<Reply> {
    let response = request.send()?;
    Ok(Reply { status: response.status().as_u16(), headers: response.headers().clone(), text: response.text()? })
}

pub(crate) fn form<'a>(client: &'a str, secret: &'a str, scope: &'a str) -> [(&'static str, &'a str); 4] {
    [("grant_type", "client_credentials"), ("client_id", client), ("client_secret", secret), ("scope", scope)]
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < end, "not within {TIMEOUT:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
