//! The OpenAPI document of this interface, written by hand beside this file. A test compares its paths and methods with the table of
//! routes, so neither can change alone.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// The document as it is served.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /openapi.json`
pub(crate) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
