//! What the handlers of the admin API share: the state, bodies, responses and errors.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::azure::handle::Azure;
use crate::error::SetupError;

pub(super) type AdminResult = Result<Response, AdminError>;

#[derive(Debug)]
pub(super) enum AdminError {
    EmulatorState(SetupError),
    Body(serde_json::Error),
}

/// Parses a body of any declared type, so that `curl -d` needs no header.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, AdminError> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(AdminError::Body)
}

pub(super) fn json_response(document: &impl Serialize) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    match serde_json::to_string(document) {
        Ok(text) => (json, text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

impl From<SetupError> for AdminError {
    fn from(error: SetupError) -> AdminError {
        AdminError::EmulatorState(error)
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            AdminError::Body(error) => {
                let text = format!("the body is not valid for this call: {error}");
                (StatusCode::BAD_REQUEST, text)
            }
            AdminError::EmulatorState(error) => {
                let status = match error {
                    SetupError::UnknownTenant(_)
                    | SetupError::UnknownClient { .. }
                    | SetupError::UnknownVault(_)
                    | SetupError::UnknownSecret(_)
                    | SetupError::UnknownIssuer(_) => StatusCode::NOT_FOUND,
                    SetupError::NoRandomness => StatusCode::INTERNAL_SERVER_ERROR,
                    SetupError::WrongState { .. } => StatusCode::CONFLICT,
                    SetupError::Invalid { .. } => StatusCode::BAD_REQUEST,
                };
                (status, error.to_string())
            }
        };
        (status, json_response(&json!({ "error": text }))).into_response()
    }
}

pub(super) type AzureState = State<Azure>;
