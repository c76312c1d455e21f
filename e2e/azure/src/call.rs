//! A request as a value: where it goes, what it asks, who says to send it.
//!
//! Decides nothing about access and looks up nothing but host names.
//! `dispatch` reads a [`Call`] from each HTTP request and then asks `entra` or `keyvault`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use crate::clouds::Clouds;
use crate::keyvault::Operation;
use crate::record::Kind;
use crate::{entra, imds, proxy};

/// A request, taken apart.
#[derive(Debug)]
pub(crate) struct Call {
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
    /// Whether the request says that it passed a proxy.
    pub(crate) forwarded: bool,
    pub(crate) door: Door,
    pub(crate) place: Place,
    pub(crate) body: Bytes,
}

/// Which socket a request came in by, and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Door {
    /// Entra ID and Key Vault, told apart by the host.
    Azure,
    /// The metadata service, whatever the host.
    Imds,
    /// A token proxy of a cluster, with the path that its requests begin with.
    TokenProxy { path: Arc<str> },
    /// The API server beside a token proxy, which has a certificate and nothing else.
    ApiServer,
}

impl Door {
    /// Whether requests have come through a token proxy.
    pub(crate) fn is_token_proxy(&self) -> bool {
        matches!(self, Door::TokenProxy { .. })
    }
}

/// The service that a host and path belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A login host.
    Entra {
        /// The tenant in the path; empty if there is none.
        tenant: String,
        /// What is asked.
        request: entra::Request,
    },
    /// The metadata service.
    Imds {
        /// What is asked.
        request: imds::Request,
    },
    /// A host of the form `name.suffix`.
    Vault {
        /// The first label of the host.
        name: String,
        /// The rest of the host.
        suffix: String,
        /// What is asked.
        operation: Operation,
    },
    /// Any other host.
    Nowhere,
}

impl Call {
    /// Takes a request apart; the body is filled in later.
    pub(crate) fn read(head: &Parts, clouds: &Clouds, door: Door) -> Call {
        let authority = authority(head);
        let (host, port) = split_port(&authority);
        let path = head.uri.path().to_owned();
        let query = parse_query(head.uri.query().unwrap_or_default());
        let place = match &door {
            Door::Azure => place(&host, &head.method, &segments(&path), &query, clouds),
            Door::Imds => {
                let segments = segments(&path);
                let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
                Place::Imds { request: imds::Request::parse(&head.method, &segments) }
            }
            // The proxy knows the login hosts, and nothing beside what follows its own path.
            Door::TokenProxy { path: own } if clouds.of_login_host(&host).is_some() => match behind(&path, own) {
                Some(rest) => place(&host, &head.method, &segments(rest), &query, clouds),
                None => Place::Nowhere,
            },
            Door::TokenProxy { .. } | Door::ApiServer => Place::Nowhere,
        };
        Call {
            method: head.method.clone(),
            port,
            path,
            query,
            authorization: text_header(&head.headers, AUTHORIZATION.as_str()),
            user_agent: text_header(&head.headers, "user-agent"),
            client_request_id: text_header(&head.headers, "client-request-id"),
            metadata: text_header(&head.headers, "metadata"),
            forwarded: head.headers.contains_key("x-forwarded-for"),
            door,
            place,
            body: Bytes::new(),
            host,
        }
    }

    /// The bearer token, if the header holds one.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.authorization.as_deref()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Whether this is a request to AD FS.
    pub(crate) fn place_is_adfs(&self) -> bool {
        matches!(&self.place, Place::Entra { tenant, .. } if tenant == entra::ADFS)
    }

    /// The name under which this request is counted and faulted: the vault, the tenant or the door.
    pub(crate) fn place_name(&self) -> String {
        match &self.door {
            Door::TokenProxy { .. } => return proxy::PLACE.to_owned(),
            Door::ApiServer => return proxy::API_SERVER.to_owned(),
            Door::Azure | Door::Imds => {}
        }
        match &self.place {
            Place::Imds { .. } => imds::PLACE.to_owned(),
            Place::Entra { tenant, .. } => tenant.clone(),
            Place::Vault { name, .. } => name.clone(),
            Place::Nowhere => {
                let label = self.host.split('.').next();
                label.unwrap_or_default().to_owned()
            }
        }
    }

    /// What the request asks for.
    pub(crate) fn kind(&self) -> Kind {
        match &self.place {
            Place::Entra { request, .. } => request.kind(),
            Place::Imds { request } => request.kind(),
            Place::Vault { .. } if self.authorization.is_none() => Kind::Challenge,
            Place::Vault { operation, .. } => operation.kind(),
            Place::Nowhere => Kind::Other,
        }
    }

    /// The object that the request is about.
    pub(crate) fn object(&self) -> Option<&str> {
        match &self.place {
            Place::Vault { operation, .. } => operation.object(),
            Place::Entra { .. } | Place::Imds { .. } | Place::Nowhere => None,
        }
    }
}

/// Parses `a=b&c=d`, as queries and forms have it; of a repeated key the last one counts.
pub(crate) fn parse_query(text: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

/// What of a path comes after a proxy's own, with its slash.
fn behind<'p>(path: &'p str, own: &str) -> Option<&'p str> {
    path.strip_prefix(own.trim_end_matches('/')).filter(|rest| rest.starts_with('/'))
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

/// The path's parts, percent-decoded. A last empty part is dropped, since clients ask for the
/// newest version as `/secrets/name/`.
fn segments(path: &str) -> Vec<String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
}

fn place(host: &str, method: &Method, segments: &[String], query: &BTreeMap<String, String>, clouds: &Clouds) -> Place {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if clouds.of_login_host(host).is_some() {
        let (tenant, request) = entra::Request::parse(method, &segments, query);
        return Place::Entra { tenant, request };
    }
    match clouds.split_vault_host(host) {
        Some((name, suffix)) => Place::Vault {
            name: name.to_owned(),
            suffix: suffix.to_owned(),
            operation: Operation::parse(method, &segments),
        },
        None => Place::Nowhere,
    }
}
