//! Lists in pages: which part is asked for, and where the next one is.
//!
//! The same for secrets, keys and certificates. A page continues after a key of the store, which the
//! marker in the address carries in the form that the real service has.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::KeyVaultError;
use crate::answer::Answer;
use crate::call::Call;
use crate::object::{Object, Page, Store, Version};
use crate::vault::Vault;
use crate::world::PAGE_SIZE;

/// Which part of a list is asked for.
pub(super) struct PageRequest {
    after: Option<String>,
    pub(super) size: usize,
}

impl PageRequest {
    /// Reads the query.
    pub(super) fn read(call: &Call, vault: &Vault) -> Result<PageRequest, KeyVaultError> {
        let after = match call.query.get("$skiptoken") {
            None => None,
            Some(token) => Some(read_skip_token(token).ok_or_else(|| KeyVaultError::bad_field("Invalid skiptoken."))?),
        };
        let wanted = match call.query.get("maxresults") {
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

/// A page of a store's objects, each as `item` words its newest version.
pub(super) fn list<C>(
    call: &Call,
    vault: &Vault,
    store: &Store<C>,
    item: fn(&Vault, &Object<C>) -> Option<Value>,
) -> Result<Answer, KeyVaultError> {
    let request = PageRequest::read(call, vault)?;
    let page = store.page(request.after(), request.size);
    Ok(list_page(call, page.items.iter().filter_map(|object| item(vault, object)).collect(), &page))
}

/// A page of the versions of one object, each as `version` words it.
pub(super) fn list_versions<C>(
    call: &Call,
    vault: &Vault,
    store: &Store<C>,
    name: &str,
    version: fn(&Vault, &str, &Version<C>) -> Value,
) -> Result<Answer, KeyVaultError> {
    let request = PageRequest::read(call, vault)?;
    let page = store.version_page(name, request.after(), request.size);
    Ok(list_page(call, page.items.iter().map(|found| version(vault, name, found)).collect(), &page))
}

/// A page with the address of the next one, which names the port as the real service does.
pub(super) fn list_page<T>(call: &Call, items: Vec<Value>, page: &Page<'_, T>) -> Answer {
    let next = page.next.as_deref().map(|after| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for key in ["api-version", "maxresults"] {
            if let Some(value) = call.query.get(key) {
                query.append_pair(key, value);
            }
        }
        let port = call.port.unwrap_or(443);
        let path = call.path.trim_end_matches('/');
        let token = skip_token(after);
        format!("https://{}:{port}{path}?{}&$skiptoken={token}", call.host, query.finish())
    });
    Answer::json(StatusCode::OK, &json!({ "value": items, "nextLink": next }))
}

/// The opaque marker in a `nextLink`.
fn skip_token(after: &str) -> String {
    let marker = json!({ "NextMarker": after, "TargetLocation": 0 });
    URL_SAFE_NO_PAD.encode(marker.to_string())
}

/// The key in a marker made by [`skip_token`].
fn read_skip_token(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Marker {
        #[serde(rename = "NextMarker")]
        next: String,
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    serde_json::from_slice::<Marker>(&bytes).ok().map(|marker| marker.next)
}
