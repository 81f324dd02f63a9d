//! What clients ask the master to do: hands a request to the loop, waits, and says how it ended. Decides nothing. The surprise: a
//! client that goes away does not take its request back; the log and the journal say how it ended.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::api::error::ApiError;
use crate::api::guard::Caller;
use crate::api::parameter::Parameters;
use crate::api::{Api, Applied, Mistakes, Request};
use crate::config::Severity;

/// A client waits this long for an activation; then it is told to look at the generation later.
const APPLY_MAX: Duration = Duration::from_secs(300);

/// The body of an action that takes nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

/// `POST /actions/apply`: reads the configuration again and activates it.
pub(crate) async fn apply(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    parameters.known(&[])?;
    let body = body.map_err(|refused| ApiError::body(refused.status(), refused.body_text()))?;
    if !body.trim_ascii().is_empty() && serde_json::from_slice::<NoArguments>(&body).is_err() {
        return Err(ApiError::body(StatusCode::BAD_REQUEST, "this action takes no arguments: send no body, or {}"));
    }
    let (reply, answer) = oneshot::channel();
    tracing::info!(author = caller.author, "an apply is asked for");
    let request = Request::Apply { author: caller.author, reply };
    if api.inputs.requests.try_send(request).is_err() {
        return Err(ApiError::unavailable("too many requests wait already: try again in a moment"));
    }
    let late = |_| ApiError::unavailable("the activation takes long: `status` shows the generation when it is done");
    let applied = timeout(APPLY_MAX, answer).await.map_err(late)?;
    shown(applied.map_err(|_| ApiError::unavailable("the master is stopping; nothing was activated"))?).map(Json)
}

fn shown(applied: Applied) -> Result<Value, ApiError> {
    match applied {
        Applied::Activated { generation, added, changed, removed, warnings } => Ok(json!({
            "result": "activated",
            "generation": generation,
            "added": added,
            "changed": changed,
            "removed": removed,
            "warnings": warnings,
            "text": text(&warnings),
        })),
        Applied::Unchanged { generation, warnings } => Ok(json!({
            "result": "unchanged",
            "generation": generation,
            "warnings": warnings,
            "text": text(&warnings),
        })),
        Applied::Mistakes(mistakes) => Err(refused(&mistakes)),
        Applied::Failed(why) => Err(ApiError::unavailable(why)),
    }
}

fn text(warnings: &[crate::config::Diagnostic]) -> String {
    warnings.iter().map(crate::config::Diagnostic::render).collect::<Vec<_>>().join("\n")
}

fn refused(mistakes: &Mistakes) -> ApiError {
    let count = mistakes.errors();
    let noun = if count == 1 { "mistake" } else { "mistakes" };
    let first = mistakes.diagnostics.iter().find(|found| found.severity == Severity::Error);
    ApiError::configuration(
        format!("the configuration has {count} {noun}; the running generation goes on"),
        first.map(|first| format!("{}:{}:{}", first.file, first.line, first.column)),
        json!({ "diagnostics": mistakes.diagnostics, "text": mistakes.text }),
    )
}
