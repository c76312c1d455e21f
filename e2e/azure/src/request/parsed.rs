//! An HTTP request, parsed: its service and operation, and the headers and parameters that matter.
//!
//! Decides nothing about access and looks up nothing but host names.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use super::endpoint::{self, API_SERVER_NAMES, Endpoint};
use super::entra::{ADFS, EntraOperation};
use super::imds::ImdsOperation;
use super::keyvault::VaultOperation;
use crate::clouds::{Clouds, PUBLIC_LOGIN_HOST};
use crate::form::parse_query;
use crate::record::Kind;

#[derive(Debug)]
pub(crate) struct ParsedRequest {
    pub(crate) method: Method,
    /// Lower case, without a port.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    /// The `Authorization` header as sent.
    pub(crate) authorization: Option<String>,
    pub(crate) client_request_id: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// The `Metadata` header.
    pub(crate) metadata: Option<String>,
    /// Whether the request has `X-Forwarded-For`.
    pub(crate) forwarded: bool,
    pub(crate) endpoint: Endpoint,
    pub(crate) service: Service,
    pub(crate) body: Bytes,
}

/// The service of a request, with its operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Service {
    /// A login host.
    Entra {
        /// The tenant in the path; empty if there is none.
        tenant: String,
        operation: EntraOperation,
    },
    /// The metadata service.
    Imds { operation: ImdsOperation },
    /// A host of the form `name.suffix`.
    Vault {
        /// The first label of the host.
        name: String,
        /// The rest of the host.
        suffix: String,
        operation: VaultOperation,
    },
    /// Any other host.
    Unknown,
}

impl ParsedRequest {
    /// Parses the head; the caller sets the body later.
    pub(crate) fn read(head: &Parts, clouds: &Clouds, endpoint: Endpoint) -> ParsedRequest {
        let authority = authority(head);
        let (mut host, mut port) = split_port(&authority);
        if endpoint.is_token_proxy() && API_SERVER_NAMES.contains(&host.as_str()) {
            // Microsoft's SDKs for Python and JavaScript keep the host of the proxy's URL, where
            // that for Go names Entra ID.
            (host, port) = (PUBLIC_LOGIN_HOST.to_owned(), None);
        }
        let path = head.uri.path().to_owned();
        let query = parse_query(head.uri.query().unwrap_or_default());
        let service = match &endpoint {
            Endpoint::Azure => service(&host, &head.method, &segments(&path), &query, clouds),
            Endpoint::Imds => {
                let segments = segments(&path);
                let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
                Service::Imds { operation: ImdsOperation::parse(&head.method, &segments) }
            }
            // The proxy serves login hosts below its path prefix, and nothing else.
            Endpoint::TokenProxy { path: prefix } if clouds.of_login_host(&host).is_some() => {
                match below_prefix(&path, prefix) {
                    Some(rest) => service(&host, &head.method, &segments(rest), &query, clouds),
                    None => Service::Unknown,
                }
            }
            Endpoint::TokenProxy { .. } | Endpoint::ApiServer => Service::Unknown,
        };
        ParsedRequest {
            method: head.method.clone(),
            port,
            path,
            query,
            authorization: text_header(&head.headers, AUTHORIZATION.as_str()),
            user_agent: text_header(&head.headers, "user-agent"),
            client_request_id: text_header(&head.headers, "client-request-id"),
            metadata: text_header(&head.headers, "metadata"),
            forwarded: head.headers.contains_key("x-forwarded-for"),
            endpoint,
            service,
            body: Bytes::new(),
            host,
        }
    }

    /// The bearer token, if the header has one.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.authorization.as_deref()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// The client id and secret of basic authentication, which RFC 6749 encodes like a form.
    pub(crate) fn basic(&self) -> Option<(String, String)> {
        let (scheme, encoded) = self.authorization.as_deref()?.split_once(' ')?;
        let decoded = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        let part = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        Some((part(id), part(secret)))
    }

    pub(crate) fn is_adfs(&self) -> bool {
        matches!(&self.service, Service::Entra { tenant, .. } if tenant == ADFS)
    }

    /// The name under which this request is counted and faulted: the vault, the tenant or the
    /// endpoint.
    pub(crate) fn service_name(&self) -> String {
        match &self.endpoint {
            Endpoint::TokenProxy { .. } => return endpoint::TOKEN_PROXY.to_owned(),
            Endpoint::ApiServer => return endpoint::API_SERVER.to_owned(),
            Endpoint::Azure | Endpoint::Imds => {}
        }
        match &self.service {
            Service::Imds { .. } => endpoint::IMDS.to_owned(),
            Service::Entra { tenant, .. } => tenant.clone(),
            Service::Vault { name, .. } => name.clone(),
            Service::Unknown => {
                let label = self.host.split('.').next();
                label.unwrap_or_default().to_owned()
            }
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match &self.service {
            Service::Entra { operation, .. } => operation.kind(),
            Service::Imds { operation } => operation.kind(),
            Service::Vault { .. } if self.authorization.is_none() => Kind::Challenge,
            Service::Vault { operation, .. } => operation.kind(),
            Service::Unknown => Kind::Other,
        }
    }

    /// The name of the object in a vault.
    pub(crate) fn object(&self) -> Option<&str> {
        match &self.service {
            Service::Vault { operation, .. } => operation.object(),
            Service::Entra { .. } | Service::Imds { .. } | Service::Unknown => None,
        }
    }
}

/// The path without a proxy's prefix.
fn below_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix.trim_end_matches('/')).filter(|rest| rest.starts_with('/'))
}

/// HTTP/2 puts the host into the URI, HTTP/1.1 into a header.
fn authority(head: &Parts) -> String {
    match head.uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => text_header(&head.headers, HOST.as_str()).unwrap_or_default(),
    }
}

fn split_port(authority: &str) -> (String, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (authority, None),
    };
    (host.to_ascii_lowercase(), port)
}

fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The segments of a path, percent-decoded. A last empty one is dropped: clients request the newest
/// version as `/secrets/name/`.
fn segments(path: &str) -> Vec<String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
}

fn service(
    host: &str,
    method: &Method,
    segments: &[String],
    query: &BTreeMap<String, String>,
    clouds: &Clouds,
) -> Service {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if clouds.of_login_host(host).is_some() {
        let (tenant, operation) = EntraOperation::parse(method, &segments, query);
        return Service::Entra { tenant, operation };
    }
    match clouds.split_vault_host(host) {
        Some((name, suffix)) => Service::Vault {
            name: name.to_owned(),
            suffix: suffix.to_owned(),
            operation: VaultOperation::parse(method, &segments),
        },
        None => Service::Unknown,
    }
}
