//! What happened, out of history: events with filter and page, and the revisions that were activated. Asks SQLite off the runtime's
//! threads. Knows no table. The surprise: `from` and `to` mean when something happened, not when it became known here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::parameter::{Known, OF_LISTS, Parameters};
use crate::config::diagnostic::did_you_mean;
use crate::history::{Event, Kind, Order, Query};

const PARAMETERS: [&str; 9] = ["kind", "host", "service", "from", "to", "sort", "limit", "cursor", "filter"];

/// `GET /events`
pub(crate) async fn events(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let query = question(&parameters.known(&PARAMETERS)?)?;
    let page = ask(&api, query).await?;
    let items: Result<Vec<Value>, ApiError> = page.items.iter().map(shown).collect();
    Ok(Json(json!({
        "items": items?,
        "total": page.total,
        "total_exceeded": page.total_exceeded,
        "next": page.next,
        "index": page.reflected,
    })))
}

fn question(known: &Known) -> Result<Query, ApiError> {
    let mut query = Query { limit: known.limit()?, ..Query::default() };
    for name in known.text("kind").into_iter().flat_map(|kinds| kinds.split(',')) {
        query.kinds.insert(kind(name, "kind")?);
    }
    query.host = known.text("host").map(str::to_owned);
    query.service = known.text("service").map(str::to_owned);
    // The same questions in the words of all other lists.
    for term in known.text("filter").into_iter().flat_map(str::split_whitespace) {
        match term.split_once('=') {
            Some(("kind", name)) => drop(query.kinds.insert(kind(name, "filter")?)),
            Some(("host", host)) => query.host = Some(host.to_owned()),
            Some(("service", service)) => query.service = Some(service.to_owned()),
            Some((field, _)) => {
                let hint = did_you_mean(field, ["kind", "host", "service"]).unwrap_or_default();
                return Err(ApiError::parameter(
                    "filter",
                    format!("there is no field “{}”; {hint}", field.escape_debug()),
                ));
            }
            None => return Err(ApiError::parameter("filter", "events are filtered by kind=, host= and service=")),
        }
    }
    query.from = known.time("from")?;
    query.to = known.time("to")?;
    query.order = match known.text("sort") {
        None | Some("-time") => Order::NewestFirst,
        Some("time") => Order::OldestFirst,
        Some("index") => Order::Recorded,
        Some(_) => return Err(ApiError::parameter("sort", "events are sorted by -time, time or index")),
    };
    if let Some(cursor) = known.text("cursor") {
        let cursor = cursor
            .parse()
            .map_err(|error: crate::history::QueryError| ApiError::parameter("cursor", error.to_string()))?;
        query.cursor = Some(cursor);
    }
    Ok(query)
}

fn kind(name: &str, parameter: &str) -> Result<Kind, ApiError> {
    name.trim().parse().map_err(|error: crate::history::QueryError| ApiError::parameter(parameter, error.to_string()))
}

async fn ask(api: &Arc<Api>, query: Query) -> Result<crate::history::Page, ApiError> {
    let history = api.inputs.history.clone();
    let answered = tokio::task::spawn_blocking(move || history.query(&query)).await;
    let failed = |error: String| {
        tracing::error!(error, "history does not answer");
        ApiError::unavailable("history does not answer at present; see the master's log")
    };
    answered.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

/// An event with region and slot apart, as everywhere in the interface.
fn shown(event: &Event) -> Result<Value, ApiError> {
    let mut value = crate::api::object::value(event)?;
    let parts = event.slot.as_deref().and_then(|slot| slot.split_once('/'));
    if let (Some(fields), Some((region, slot))) = (value.as_object_mut(), parts) {
        fields.insert("region".to_owned(), json!(region));
        fields.insert("slot".to_owned(), json!(slot.parse::<u32>().ok()));
    }
    Ok(value)
}

/// `GET /revisions`: newest first; the running one is marked.
pub(crate) async fn revisions(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let known = parameters.known(&OF_LISTS)?;
    for name in ["filter", "sort"] {
        if known.text(name).is_some() {
            return Err(ApiError::parameter(name, "revisions come newest first and all of them"));
        }
    }
    let query = Query { kinds: [Kind::Activation].into(), ..question(&known)? };
    let first_page = query.cursor.is_none();
    let page = ask(&api, query).await?;
    let view = api.view();
    let running = view.status.generation;
    let mut items = Vec::new();
    for event in &page.items {
        let value = crate::api::object::value(event)?;
        let field = |name: &str| value.get(name).cloned().unwrap_or(Value::Null);
        let mut item = Map::new();
        for name in ["generation", "digest", "author", "index"] {
            item.insert(name.to_owned(), field(name));
        }
        item.insert("at".to_owned(), json!(event.recorded));
        item.insert("running".to_owned(), json!(item.get("generation") == Some(&json!(running))));
        items.push(Value::Object(item));
    }
    // History may be a moment behind, or may have been made anew after its rows were trimmed.
    if first_page && running.0 > 0 && items.iter().all(|item| item.get("generation") != Some(&json!(running))) {
        let item = json!({
            "generation": running, "digest": view.status.digest, "author": null, "index": null, "at": null, "running": true,
        });
        items.insert(0, item);
    }
    Ok(Json(json!({ "items": items, "total": page.total, "next": page.next, "index": page.reflected })))
}
