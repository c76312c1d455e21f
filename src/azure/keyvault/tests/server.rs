//! A small Azure for tests: real HTTPS on loopback, as Entra ID and Key Vault under their real host
//! names.
//!
//! Answers with success unless a test's script says otherwise, and records the requests. Unlike the
//! emulator (`e2e/azure`) it checks nothing, so that a test sees each request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::super::http::Http;
use super::super::imds::Imds;
use super::super::retry::RetryLimits;
use super::super::token_proxy::{TokenProxy, TokenProxyOptions};
use super::super::{
    Cloud, ConnectionLimits, Credential, FetchContext, Options, Rate, TenantId, Vault, VaultName, Vaults, client,
};
use crate::compute::Compute;
use crate::model::Purpose;
use crate::server::metrics::{Exposition, FetchMetrics};

pub(super) const LOGIN: &str = "login.microsoftonline.com";
pub(super) const VAULT: &str = "myvault.vault.azure.net";
pub(super) const OTHER: &str = "other.vault.azure.net";
pub(super) const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";
pub(super) const CLIENT_SECRET: &str = "s3cr3t~of-the-client";
pub(super) const VERSION: &str = "0123456789abcdef0123456789abcdef";

/// What a request is for, as its method and headers show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Challenge,
    Get,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) host: String,
    pub(super) target: String,
    pub(super) head: String,
    pub(super) bearer: Option<String>,
    pub(super) body: String,
}

pub(super) enum Answer {
    /// Status, further headers, body; content type JSON unless the headers name one.
    Status(u16, &'static str, String),
    /// Chunks without a length, of this many bytes in all.
    Endless(usize),
    /// A part of a response, then the end of the connection.
    Cut,
    /// No response.
    Hang,
}

pub(super) fn status(status: u16, body: &str) -> Option<Answer> {
    Some(Answer::Status(status, "", body.to_owned()))
}

type Script = dyn Fn(&Request, usize) -> Option<Answer> + Send + Sync;

pub(super) struct Azure {
    address: SocketAddr,
    ca: reqwest::Certificate,
    bundle: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

pub(super) const QUICK: RetryLimits = RetryLimits {
    request_timeout: Duration::from_secs(10),
    max_tries: 6,
    min_delay: Duration::from_millis(1),
    max_delay: Duration::from_millis(4),
};

impl Azure {
    /// `script` may answer a request, which it gets with its number among those of its kind, from
    /// 1.
    pub(super) async fn start(script: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static) -> Azure {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (ca, bundle, acceptor) = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (log, script): (_, Arc<Script>) = (seen.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, log.clone(), script.clone()));
            }
        });
        Azure { address, ca, bundle, seen }
    }

    /// Without a script.
    pub(super) async fn well() -> Azure {
        Azure::start(|_, _| None).await
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its authority, as PEM.
    pub(super) fn bundle(&self) -> &str {
        &self.bundle
    }

    pub(super) fn client(&self) -> reqwest::ClientBuilder {
        client::builder("keyvault-csi/test")
            .no_proxy()
            .tls_certs_only([self.ca.clone()])
            .resolve(LOGIN, self.address)
            .resolve(VAULT, self.address)
            .resolve(OTHER, self.address)
            .resolve("unnamed.vault.azure.net", self.address)
    }

    pub(super) fn vaults(&self, limits: RetryLimits) -> Vaults {
        with_client(self.client(), limits)
    }

    pub(super) fn vault(&self) -> Vault {
        open(&self.vaults(QUICK), "myvault", Duration::from_secs(60))
    }

    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        self.seen().iter().filter(|request| request.kind == kind).count()
    }

    /// The numbers of challenges, tokens and gets.
    pub(super) fn counts(&self) -> [usize; 3] {
        [Kind::Challenge, Kind::Token, Kind::Get].map(|kind| self.count(kind))
    }
}

/// Without object cache, and with a metadata service that refuses connections.
pub(super) fn with_client(client: reqwest::ClientBuilder, limits: RetryLimits) -> Vaults {
    with_options(client, limits, options())
}

pub(super) fn with_options(client: reqwest::ClientBuilder, limits: RetryLimits, options: Options) -> Vaults {
    with_imds(Http::new(client, limits.request_timeout).unwrap(), ([127, 0, 0, 1], 1).into(), limits, options)
}

pub(super) fn with_imds(client: Http, address: SocketAddr, limits: RetryLimits, options: Options) -> Vaults {
    let imds = Http::direct(client::imds_builder("keyvault-csi/test"), limits.request_timeout).unwrap();
    let imds = Imds { http: imds, address };
    Vaults::with_clients(client, imds, limits, options).unwrap()
}

pub(super) fn token_proxy(url: &str, name: &str, authority: &str) -> TokenProxy {
    TokenProxy::new(
        TokenProxyOptions::new(url, name, authority.into()).unwrap(),
        "keyvault-csi/test",
        QUICK.request_timeout,
    )
}

/// Without object cache and rate limit.
pub(super) fn options() -> Options {
    let metrics = FetchMetrics::register(&mut Exposition::new());
    Options {
        compute: Compute::new(metrics.clone()).unwrap(),
        user_agent: "keyvault-csi/test".to_owned(),
        token_proxy: TokenProxyOptions::new("", "", "/no/such/file".into()).unwrap(),
        freshness: Duration::ZERO,
        rate: Rate { per_second: 0, burst: 0 },
        connections: ConnectionLimits { fetches: 1_000, idle: 1_000 },
        metrics,
    }
}

pub(super) fn open(vaults: &Vaults, name: &str, left: Duration) -> Vault {
    let credential = Credential::ClientSecret { client_id: CLIENT_ID.into(), client_secret: CLIENT_SECRET.into() };
    open_as(vaults, name, credential, left)
}

/// For a mount of a pod of this namespace.
pub(super) fn context(namespace: &str, left: Duration) -> FetchContext<'_> {
    FetchContext { namespace, purpose: Purpose::Mount, deadline: Instant::now() + left }
}

pub(super) fn open_as(vaults: &Vaults, name: &str, credential: Credential, left: Duration) -> Vault {
    let cloud = Cloud::named("AzurePublicCloud").unwrap();
    let (name, tenant) = (VaultName::new(name).unwrap(), TenantId::new("tenant-1").unwrap());
    vaults.open(context("default", left), &cloud, &name, &tenant, credential).unwrap()
}

fn certificates() -> (reqwest::Certificate, String, TlsAcceptor) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let names = [LOGIN, VAULT, OTHER].map(str::to_owned);
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], leaf_key.serialize_der().try_into().unwrap())
        .unwrap();
    (reqwest::Certificate::from_der(ca.der()).unwrap(), ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, seen: Arc<Mutex<Vec<Request>>>, script: Arc<Script>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.iter().filter(|other| other.kind == request.kind).count()
        };
        let answer = script(&request, number).unwrap_or_else(|| good(&request, number));
        let text = match answer {
            Answer::Status(status, headers, body) => {
                let kind = if headers.contains("content-type") { "" } else { "content-type: application/json\r\n" };
                format!("HTTP/1.1 {status} X\r\n{kind}{headers}content-length: {}\r\n\r\n{body}", body.len())
            }
            Answer::Endless(bytes) => {
                let chunks = format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(bytes / 1024);
                format!(
                    "HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
                )
            }
            Answer::Cut => {
                let text = "HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                return;
            }
            Answer::Hang => std::future::pending().await,
        };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

fn good(request: &Request, number: usize) -> Answer {
    let body = match request.kind {
        Kind::Challenge => return Answer::Status(401, CHALLENGE, "{}".into()),
        Kind::Token => format!(r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"token-{number}"}}"#),
        Kind::Get => {
            let name = request.target.split('/').nth(2).unwrap_or_default();
            secret(&request.host, name, &format!("value of {name}"))
        }
    };
    Answer::Status(200, "", body)
}

pub(super) fn secret(host: &str, name: &str, value: &str) -> String {
    format!(r#"{{"value":"{value}","id":"https://{host}/secrets/{name}/{VERSION}","attributes":{{"enabled":true}}}}"#)
}

/// The header of a 401.
const CHALLENGE: &str = concat!(
    r#"www-authenticate: Bearer authorization="https://login.microsoftonline.com/tenant", "#,
    "resource=\"https://vault.azure.net\"\r\n"
);

async fn read(stream: &mut BufReader<TlsStream<TcpStream>>) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line[name.len() + 1..].trim().to_owned())
    };
    let mut body = vec![0; header("content-length").map(|length| length.parse().unwrap()).unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    let mut line = head.split(' ');
    let (method, target) = (line.next()?.to_owned(), line.next()?.to_owned());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
    let kind = match (method.as_str(), &bearer) {
        ("POST", _) => Kind::Token,
        (_, None) => Kind::Challenge,
        (_, Some(_)) => Kind::Get,
    };
    let body = String::from_utf8(body).unwrap();
    Some(Request { kind, host: header("host")?, target, bearer, body, head })
}
