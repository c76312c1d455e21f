//! All or nothing: combines the results of a class's objects to the content of a volume.
//!
//! The only place that decides that a volume needs all of its objects. Stops at the first error,
//! which cancels the requests that are still running.

use std::pin::pin;

use futures::StreamExt as _;

use super::error::Error;
use crate::azure::provider::{AzureFetch, FetchedObject, ObjectResult};
use crate::model::{ExposeSecret as _, Payload, PayloadError, limits};

/// Fetches every object of a class of the built-in provider.
///
/// # Errors
/// The first object that fails, or objects that are too large or have the same file.
pub async fn whole_payload(fetch: &AzureFetch<'_>) -> Result<Payload, Error> {
    let failed = |source| Error::Payload { class: fetch.class().clone(), source };
    let mut objects = pin!(fetch.objects());
    let (mut fetched, mut bytes) = (Vec::new(), 0);
    while let Some(ObjectResult { place, result, .. }) = objects.next().await {
        let object = result?;
        // Counted on arrival, so that many large objects are never in memory together.
        bytes += object.files.iter().map(|file| file.content.expose_secret().len()).sum::<usize>();
        if bytes > limits::PAYLOAD {
            return Err(failed(PayloadError::TooLarge { bytes, limit: limits::PAYLOAD }));
        }
        fetched.push((place, object));
    }
    fetched.sort_by_key(|(place, _)| *place);
    payload(fetched.into_iter().map(|(_, object)| object).collect()).map_err(failed)
}

fn payload(objects: Vec<FetchedObject>) -> Result<Payload, PayloadError> {
    let expires = objects.iter().filter_map(|object| object.expires).min();
    let (mut files, mut versions, mut conversions) = (Vec::new(), Vec::new(), Vec::new());
    for object in objects {
        files.extend(object.files);
        versions.extend(object.versions);
        conversions.extend(object.conversions);
    }
    Ok(Payload::new(files, versions)?.expiring(expires).converting(conversions))
}
