//! Errors as clients see them: `{"error":{"code","message","where"}}`. Codes are stable, messages are for people. Nothing of the
//! inside (paths, causes of failures) is told to whoever asks; that stands in the log.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    /// HTTP's status.
    pub(crate) status: StatusCode,
    /// Stable name of the kind of error.
    pub(crate) code: &'static str,
    /// What is wrong and what to do.
    pub(crate) message: String,
    /// Which part of the request or configuration is meant.
    pub(crate) place: Option<String>,
    /// Further members of the answer beside `error`.
    pub(crate) more: Option<Box<Value>>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), place: None, more: None }
    }

    /// A parameter that cannot be understood.
    #[must_use]
    pub(crate) fn parameter(name: &str, message: impl Into<String>) -> Self {
        Self { place: Some(name.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, "bad-parameter", message) }
    }

    /// A body that is not what the path takes.
    #[must_use]
    pub(crate) fn body(status: StatusCode, message: impl Into<String>) -> Self {
        Self { place: Some("body".to_owned()), ..Self::new(status, "bad-body", message) }
    }

    /// What is asked for cannot be done as things are.
    #[must_use]
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// No such thing.
    #[must_use]
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// The path is there, but for another method.
    #[must_use]
    pub(crate) fn method(taken: &str) -> Self {
        let message = format!("this path takes {taken} only");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message)
    }

    /// Nobody proved who is asking.
    #[must_use]
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// Whoever asks may not do this.
    #[must_use]
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// Too much at once, or not possible at present: to be tried again.
    #[must_use]
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// Something inside failed; the log says what.
    #[must_use]
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// A configuration that cannot be activated.
    #[must_use]
    pub(crate) fn configuration(message: impl Into<String>, place: Option<String>, more: Value) -> Self {
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "config-mistakes", message);
        Self { place, more: Some(Box::new(more)), ..error }
    }

    /// The answer's body.
    #[must_use]
    pub(crate) fn body_value(&self) -> Value {
        let mut answer = json!({ "error": { "code": self.code, "message": self.message, "where": self.place } });
        if let (Some(answer), Some(Value::Object(more))) = (answer.as_object_mut(), self.more.as_deref().cloned()) {
            answer.extend(more);
        }
        answer
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body_value())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = axum::http::HeaderValue::from_static("Bearer realm=\"perigee\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
