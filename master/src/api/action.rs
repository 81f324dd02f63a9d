//! What clients ask the master to do: hands a request to the loop, waits, and says how it ended. Decides nothing. The surprise: a
//! client that goes away does not take its request back; the log and the journal say how it ended.

use std::path::PathBuf;
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
use crate::api::{Api, Applied, Inputs, Mistakes, Request};
use crate::backup::{self, Source, Wanted};
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

/// The body of a backup.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupArguments {
    /// Directory on the master's machine.
    to: PathBuf,
    /// With the keys that speak for the installation.
    #[serde(default)]
    keys: bool,
    /// With the history file.
    #[serde(default = "yes")]
    history: bool,
}

fn yes() -> bool {
    true
}

/// `POST /actions/backup`: copies the running installation into a directory of the master's machine. `GET /status` tells how far it is.
pub(crate) async fn backup(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    parameters.known(&[])?;
    let body = body.map_err(|refused| ApiError::body(refused.status(), refused.body_text()))?;
    let arguments: BackupArguments = serde_json::from_slice(&body).map_err(|error| {
        ApiError::body(StatusCode::BAD_REQUEST, format!("a backup is asked for as {{\"to\": \"/DIRECTORY\"}}: {error}"))
    })?;
    tracing::info!(author = caller.author, to = %arguments.to.display(), keys = arguments.keys, "a backup is asked for");
    let Inputs { store, history, data, .. } = api.inputs.clone();
    let source = Source { store, history, data };
    let wanted = Wanted { keys: arguments.keys, history: arguments.history };
    let progress = Arc::clone(&api.backup);
    let made = tokio::task::spawn_blocking(move || backup::take(&source, &arguments.to, wanted, &progress)).await;
    let made = made.map_err(|_| ApiError::internal("the backup broke off; see the master's log"))?;
    let manifest = made.map_err(|error| ApiError::conflict(format!("no backup was made: {error:#}")))?;
    Ok(Json(json!({
        "result": "made",
        "index": manifest.index,
        "made": manifest.made,
        "files": manifest.files.len(),
        "bytes": manifest.bytes(),
    })))
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
