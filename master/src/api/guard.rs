//! Who may pass: judges a request by where it came from and the token it shows. Decides nothing about what is asked. The surprise: the
//! open reads of a loopback listener look at the `Host` header too; otherwise any page in a browser on this machine could read
//! through a name that it lets point to 127.0.0.1.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::token::Role;

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The socket in the data directory: only its owner can open it. The user id is for the record.
    Local { uid: u32 },
    /// TCP.
    Tcp { loopback: bool },
}

/// Whoever asks, once known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// For journal and log.
    pub(crate) author: String,
    /// The token that must go on to hold while a stream is open.
    pub(crate) token: Option<String>,
}

/// Judges one request, which needs a role at least.
pub(crate) fn judge(api: &Api, origin: Origin, uri: &Uri, headers: &HeaderMap, role: Role) -> Result<Caller, ApiError> {
    if let Origin::Local { uid } = origin {
        return Ok(Caller { author: format!("local user {uid}"), token: None });
    }
    let refuse = |error: ApiError| {
        api.counts.refused.fetch_add(1, Ordering::Relaxed);
        Err(error)
    };
    let Some(shown) = headers.get(AUTHORIZATION) else {
        let open = role == Role::Read && api.open_reads && origin == (Origin::Tcp { loopback: true });
        if open && names_this_machine(uri, headers) {
            return Ok(Caller { author: "anybody on this machine".to_owned(), token: None });
        }
        return refuse(ApiError::unauthorized(
            "send `Authorization: Bearer TOKEN`; `perigee-master token create --role read` makes one",
        ));
    };
    let text = shown.to_str().ok().and_then(|text| text.split_once(' '));
    let token = text
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, text)| api.tokens.find(text.trim()));
    match token {
        None => refuse(ApiError::unauthorized("this token is not known or was revoked")),
        Some(token) if token.role < role => refuse(ApiError::forbidden(format!(
            "this token has the role {}; this needs {}",
            token.role.as_str(),
            role.as_str()
        ))),
        Some(token) => Ok(Caller { author: token.name, token: Some(token.id) }),
    }
}

/// Whether the request was made to a name that can only mean this machine.
fn names_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    let Some(host) = named.or_else(|| uri.authority().map(|authority| authority.as_str())) else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The layer before every handler: nobody passes who was not judged.
pub(crate) async fn pass(State((api, role)): State<(Arc<Api>, Role)>, mut request: Request, next: Next) -> Response {
    // A request without an origin cannot come from our listeners: it gets the least rights there are.
    let origin = request.extensions().get::<Origin>().copied().unwrap_or(Origin::Tcp { loopback: false });
    match judge(&api, origin, request.uri(), request.headers(), role) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_open() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            names_this_machine(&Uri::from_static("/"), &headers)
        };
        for host in ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8080", "[::1]"] {
            assert!(named(host), "{host}");
        }
        for host in
            ["example.org", "127.0.0.1.example.org:8080", "192.0.2.1:8080", "[2001:db8::1]:80", "localhost.example"]
        {
            assert!(!named(host), "{host}");
        }
        assert!(!names_this_machine(&Uri::from_static("/"), &HeaderMap::new()));
    }
}
