//! How an action is asked for: its body is read, its request goes to the loop, its answer is awaited. Knows no action. The surprise:
//! a client that goes away does not take its request back; the log and the journal say how it ended.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{self, FromRequest, FromRequestParts as _};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::api::error::ApiError;
use crate::api::parameter::NoParameters;
use crate::api::{Api, Request};

/// A body as it came, or why it did not.
pub(crate) type Body = Result<Bytes, BytesRejection>;

/// The bytes of a body; one that is too long or broke off is told so.
pub(crate) fn bytes(body: Body) -> Result<Bytes, ApiError> {
    body.map_err(|refused| ApiError::body(refused.status(), refused.body_text()))
}

/// The JSON body of an action.
pub(crate) trait Arguments: DeserializeOwned {
    /// What whoever sent another body is told.
    const USAGE: &'static str;

    /// What a body says.
    fn read(body: Body) -> Result<Self, ApiError> {
        let wrong = |error| ApiError::body(StatusCode::BAD_REQUEST, format!("{} ({error})", Self::USAGE));
        serde_json::from_slice(&bytes(body)?).map_err(wrong)
    }
}

/// An action as it was asked for: no parameters, and a body that says what is wanted.
#[derive(Debug)]
pub(crate) struct Given<T>(pub(crate) T);

impl<S: Send + Sync, T: Arguments> FromRequest<S> for Given<T> {
    type Rejection = ApiError;

    async fn from_request(request: extract::Request, state: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        NoParameters::from_request_parts(&mut parts, state).await?;
        let body = Bytes::from_request(extract::Request::from_parts(parts, body), state).await;
        T::read(body).map(Self)
    }
}

/// How long a client waits for an answer, and what it is told if none comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) most: Duration,
    /// No answer within that time: where it can be seen later.
    pub(crate) late: &'static str,
    /// The master ends: what became of the request.
    pub(crate) stopping: &'static str,
}

/// Hands a request to the loop, which bounds how many wait, and waits for its answer.
pub(crate) async fn ask<T>(
    api: &Api,
    request: Request,
    answer: oneshot::Receiver<T>,
    patience: Patience,
) -> Result<T, ApiError> {
    if api.inputs.requests.try_send(request).is_err() {
        return Err(ApiError::unavailable("too many requests wait already: try again in a moment"));
    }
    let answered = timeout(patience.most, answer).await.map_err(|_| ApiError::unavailable(patience.late))?;
    answered.map_err(|_| ApiError::unavailable(patience.stopping))
}
