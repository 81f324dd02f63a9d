//! What clients ask the master to do as a whole: activate the configuration, back itself up. Says how it ended; decides nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::api::error::ApiError;
use crate::api::guard::Caller;
use crate::api::parameter::NoParameters;
use crate::api::request::{Arguments, Body, Given, Patience, ask, bytes};
use crate::api::{Api, Applied, Inputs, Mistakes, Request};
use crate::backup::{self, Source, Wanted};
use crate::config::Severity;

/// A large configuration takes seconds; longer than this only a disk that hangs takes.
const ACTIVATION: Patience = Patience {
    most: Duration::from_secs(300),
    late: "the activation takes long: `status` shows the generation when it is done",
    stopping: "the master is stopping; nothing was activated",
};

/// The body of an action that takes nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

/// `POST /actions/apply`: reads the configuration again and activates it.
pub(crate) async fn apply(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    _: NoParameters,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body = bytes(body)?;
    if !body.trim_ascii().is_empty() && serde_json::from_slice::<NoArguments>(&body).is_err() {
        return Err(ApiError::body(StatusCode::BAD_REQUEST, "this action takes no arguments: send no body, or {}"));
    }
    let (reply, answer) = oneshot::channel();
    tracing::info!(author = caller.author, "an apply is asked for");
    let request = Request::Apply { author: caller.author, reply };
    shown(ask(&api, request, answer, ACTIVATION).await?).map(Json)
}

/// The body of a backup.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupArguments {
    /// Directory on the master's machine.
    to: PathBuf,
    /// With the keys that speak for the installation.
    #[serde(default)]
    keys: bool,
    /// With the history file.
    #[serde(default = "yes")]
    history: bool,
}

impl Arguments for BackupArguments {
    const USAGE: &'static str = "a backup is asked for as {\"to\": \"/DIRECTORY\"}";
}

fn yes() -> bool {
    true
}

/// `POST /actions/backup`: copies the running installation into a directory of the master's machine. `GET /status` tells how far it is.
pub(crate) async fn backup(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Given(arguments): Given<BackupArguments>,
) -> Result<Json<Value>, ApiError> {
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
