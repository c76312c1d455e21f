//! Lists in pages, for secrets, keys and certificates.
//!
//! A page continues after a key of the store. The `$skiptoken` of `nextLink` has that key in the
//! form of the real service.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::KeyVaultError;
use crate::limits::PAGE_SIZE;
use crate::object::{Object, Page, Store, Version};
use crate::request::parsed::ParsedRequest;
use crate::response::BufferedResponse;
use crate::vault::Vault;

/// The part of a list that a request asks for.
pub(super) struct PageRequest {
    after: Option<String>,
    pub(super) size: usize,
}

impl PageRequest {
    pub(super) fn read(request: &ParsedRequest, vault: &Vault) -> Result<PageRequest, KeyVaultError> {
        let after = match request.query.get("$skiptoken") {
            None => None,
            Some(token) => Some(read_skip_token(token).ok_or_else(|| KeyVaultError::bad_field("Invalid skiptoken."))?),
        };
        let wanted = match request.query.get("maxresults") {
            None => PAGE_SIZE,
            Some(number) => number
                .parse()
                .ok()
                .filter(|number| (1..=PAGE_SIZE).contains(number))
                .ok_or_else(|| KeyVaultError::bad_field("maxresults must be between 1 and 25 inclusive."))?,
        };
        Ok(PageRequest { after, size: wanted.min(vault.page_size) })
    }

    /// The key after which the page begins.
    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }
}

/// A page of a store's objects; `item` encodes the newest version of each.
pub(super) fn list<C>(
    request: &ParsedRequest,
    vault: &Vault,
    store: &Store<C>,
    item: fn(&Vault, &Object<C>) -> Option<Value>,
) -> Result<BufferedResponse, KeyVaultError> {
    let page_request = PageRequest::read(request, vault)?;
    let page = store.page(page_request.after(), page_request.size);
    Ok(list_page(request, page.items.iter().filter_map(|object| item(vault, object)).collect(), &page))
}

/// A page of the versions of one object, encoded by `version`.
pub(super) fn list_versions<C>(
    request: &ParsedRequest,
    vault: &Vault,
    store: &Store<C>,
    name: &str,
    version: fn(&Vault, &str, &Version<C>) -> Value,
) -> Result<BufferedResponse, KeyVaultError> {
    let page_request = PageRequest::read(request, vault)?;
    let page = store.version_page(name, page_request.after(), page_request.size);
    Ok(list_page(request, page.items.iter().map(|found| version(vault, name, found)).collect(), &page))
}

/// A page with `nextLink`, which has the port, as that of the real service.
pub(super) fn list_page<T>(request: &ParsedRequest, items: Vec<Value>, page: &Page<'_, T>) -> BufferedResponse {
    let next = page.next.as_deref().map(|after| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for key in ["api-version", "maxresults"] {
            if let Some(value) = request.query.get(key) {
                query.append_pair(key, value);
            }
        }
        let port = request.port.unwrap_or(443);
        let path = request.path.trim_end_matches('/');
        let token = skip_token(after);
        format!("https://{}:{port}{path}?{}&$skiptoken={token}", request.host, query.finish())
    });
    BufferedResponse::json(StatusCode::OK, &json!({ "value": items, "nextLink": next }))
}

fn skip_token(after: &str) -> String {
    let marker = json!({ "NextMarker": after, "TargetLocation": 0 });
    URL_SAFE_NO_PAD.encode(marker.to_string())
}

/// The inverse of [`skip_token`].
fn read_skip_token(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Marker {
        #[serde(rename = "NextMarker")]
        next: String,
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    serde_json::from_slice::<Marker>(&bytes).ok().map(|marker| marker.next)
}
