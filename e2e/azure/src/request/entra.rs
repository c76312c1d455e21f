//! Which operation of Entra ID or AD FS a method and a path name, and the tenant.

use std::collections::BTreeMap;

use hyper::Method;
use url::Url;

use crate::record::Kind;

/// The tenant in the paths of AD FS.
pub(crate) const ADFS: &str = "adfs";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntraOperation {
    Discovery,
    Configuration,
    Token(TokenEndpoint),
    /// A token endpoint, with a method other than POST.
    TokenWithoutPost,
    Unknown,
}

/// The token endpoints. They differ in how a request names the resource, and in their responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenEndpoint {
    V1,
    V2,
    AdFs,
}

impl EntraOperation {
    /// The tenant, in lower case, and the operation.
    pub(crate) fn parse(
        method: &Method,
        segments: &[&str],
        query: &BTreeMap<String, String>,
    ) -> (String, EntraOperation) {
        let get = method == Method::GET;
        let token = |endpoint| match *method {
            Method::POST => EntraOperation::Token(endpoint),
            _ => EntraOperation::TokenWithoutPost,
        };
        let (tenant, request) = match segments {
            ["common", "discovery", "instance"] if get => (requested_tenant(query), EntraOperation::Discovery),
            [tenant, "v2.0", ".well-known", "openid-configuration"] if get => {
                ((*tenant).to_owned(), EntraOperation::Configuration)
            }
            [ADFS, "oauth2", "token"] => (ADFS.to_owned(), token(TokenEndpoint::AdFs)),
            [ADFS, ".well-known", "openid-configuration"] if get => (ADFS.to_owned(), EntraOperation::Configuration),
            [ADFS, ..] => (ADFS.to_owned(), EntraOperation::Unknown),
            [tenant, "oauth2", "token"] => ((*tenant).to_owned(), token(TokenEndpoint::V1)),
            [tenant, "oauth2", "v2.0", "token"] => ((*tenant).to_owned(), token(TokenEndpoint::V2)),
            [tenant, ..] => ((*tenant).to_owned(), EntraOperation::Unknown),
            [] => (String::new(), EntraOperation::Unknown),
        };
        (tenant.to_ascii_lowercase(), request)
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            EntraOperation::Discovery => Kind::Discovery,
            EntraOperation::Configuration => Kind::OpenidConfiguration,
            EntraOperation::Token(_) => Kind::Token,
            EntraOperation::TokenWithoutPost | EntraOperation::Unknown => Kind::Other,
        }
    }
}

/// The tenant in the `authorization_endpoint` of a request for instance discovery, or `common`.
pub(crate) fn requested_tenant(query: &BTreeMap<String, String>) -> String {
    let endpoint = requested_endpoint(query);
    let tenant = endpoint.as_ref().and_then(Url::path_segments).and_then(|mut segments| segments.next());
    tenant.filter(|tenant| !tenant.is_empty()).unwrap_or("common").to_owned()
}

/// The `authorization_endpoint` of a request for instance discovery.
pub(crate) fn requested_endpoint(query: &BTreeMap<String, String>) -> Option<Url> {
    Url::parse(query.get("authorization_endpoint")?).ok()
}
