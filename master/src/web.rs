//! The web client as it was built into this program: its files by path, with what a browser needs to keep them. Knows no check, no
//! API and no right: the client's files tell nothing about an installation. The surprise: there may be none, because a master builds
//! without them.

use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// The built client; empty when it was not there at compile time.
#[derive(rust_embed::RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Client;

/// The client's first page.
pub(crate) const INDEX: &str = "index.html";
/// Names of these files hold a digest of their content, so that they never change.
const UNCHANGING: &str = "assets/";

/// A file of the client; `None` if it has none of this name.
pub(crate) fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let file = Client::get(path)?;
    let digest: String = file.metadata.sha256_hash().iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{digest}\"");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = Bytes::from(file.data.into_owned());
        ([(CONTENT_TYPE, file.metadata.mimetype())], body).into_response()
    };
    let cache = if path.starts_with(UNCHANGING) { "public, max-age=31536000, immutable" } else { "no-cache" };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    Some(response)
}
