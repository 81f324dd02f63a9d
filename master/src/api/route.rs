//! The table of routes: path, method, the role it needs, and who answers. It is the only way to a handler, and what the tests of
//! access and of the OpenAPI document go through.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use crate::api::error::ApiError;
use crate::api::guard;
use crate::api::token::Role;
use crate::api::{
    Api, action, command, document, event, fleet, list, metrics, object, order, page, stream, summary, waiting,
};
use crate::web;

/// Largest body that is read, in bytes; a larger one is refused with 413.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// What every path of the interface begins with.
pub(crate) const ROOT: &str = "/api/v1";
/// Only what this server itself serves may run or be shown, and nobody may frame it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     font-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

/// One line of the table.
pub(crate) struct Route {
    /// `GET` or `POST`.
    pub(crate) method: &'static str,
    /// Below [`ROOT`].
    pub(crate) path: &'static str,
    /// Who may.
    pub(crate) role: Role,
    /// Who answers.
    answer: MethodRouter<Arc<Api>>,
}

fn read(path: &'static str, answer: MethodRouter<Arc<Api>>) -> Route {
    Route { method: "GET", path, role: Role::Read, answer }
}

fn operate(path: &'static str, answer: MethodRouter<Arc<Api>>) -> Route {
    Route { method: "POST", path, role: Role::Operate, answer }
}

/// Every route there is.
pub(crate) fn table() -> Vec<Route> {
    vec![
        read("/status", get(summary::status)),
        read("/hosts", get(list::hosts)),
        read("/hosts/{host}", get(object::host)),
        read("/services", get(list::services)),
        read("/services/{host}/{service}", get(object::service)),
        read("/problems", get(list::problems)),
        read("/regions", get(fleet::regions)),
        read("/slots", get(fleet::slots)),
        read("/gaps", get(fleet::gaps)),
        read("/commands", get(waiting::commands)),
        read("/events", get(event::events)),
        read("/revisions", get(event::revisions)),
        read("/stream", get(stream::stream)),
        read("/metrics", get(metrics::metrics)),
        read("/openapi.json", get(document::document)),
        operate("/actions/drain", post(order::drain)),
        operate("/actions/undrain", post(order::undrain)),
        operate("/actions/hold-moves", post(order::hold)),
        operate("/actions/resume-moves", post(order::resume)),
        Route { method: "POST", path: "/actions/backup", role: Role::Admin, answer: post(action::backup) },
        Route { method: "POST", path: "/actions/apply", role: Role::Admin, answer: post(action::apply) },
        operate("/actions/check-now", post(command::check_now)),
        operate("/actions/passive-result", post(command::passive_result)),
        operate("/actions/reset", post(command::reset)),
    ]
}

/// Everything that is served.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let mut router = Router::new();
    for Route { method, path, role, answer } in table() {
        let guard = from_fn_with_state((Arc::clone(api), role), guard::pass);
        let answer = answer.fallback(move || async move { ([(ALLOW, method)], ApiError::method(method)) });
        router = router.route(&format!("{ROOT}{path}"), answer.layer(guard));
    }
    router
        .fallback(other)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response(secure))
        .with_state(Arc::clone(api))
}

/// What is no route: the page and its parts, or nothing.
async fn other(axum::extract::State(api): axum::extract::State<Arc<Api>>, request: Request) -> Response {
    let path = request.uri().path();
    if path == "/api" || path.starts_with("/api/") {
        return ApiError::not_found(format!("there is no such path; {ROOT}/openapi.json lists them")).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ([(ALLOW, "GET, HEAD")], ApiError::method("GET")).into_response();
    }
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { web::INDEX } else { path };
    match (web::file(path, request.headers()), path) {
        (Some(file), _) => file,
        (None, web::INDEX) => page::answer(&api, &request),
        (None, page::STYLE_PATH) => page::style(),
        (None, _) => (StatusCode::NOT_FOUND, "there is no such page; / shows problems and slots\n").into_response(),
    }
}

async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 5] = [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
