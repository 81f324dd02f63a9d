//! Commands that wait for their answer, as the interface shows them: who asked what of which check, who owns that now, and whether the
//! owner was told. Reads one view; decides only the words. The surprise: a told one waits as well, until a result or a state names it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use shared::check::State as Observed;
use shared::command::What;
use shared::name::{HostName, JournalIndex, RegionName, ServiceName, Slot, SlotNumber};
use shared::time::Timestamp;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::list::{Fields, lines};
use crate::api::object::value;
use crate::api::parameter::{OF_LISTS, Parameters};
use crate::coordinator::View;
use crate::status::command::{Errand, state_of};

/// Characters of a result from outside that are shown; the rest is left out, and an ellipsis says so.
const OUTPUT_SHOWN: usize = 200;

/// A command without its answer.
#[derive(Debug, Serialize)]
struct ShownCommand<'a> {
    /// Its name.
    index: JournalIndex,
    at: Timestamp,
    waiting_seconds: u64,
    author: &'a str,
    host: &'a HostName,
    service: Option<&'a ServiceName>,
    what: &'static str,
    /// Of a result from outside.
    state: Option<Observed>,
    /// Of a result from outside, cut.
    output: Option<String>,
    /// Who owns the check now.
    region: Option<&'a RegionName>,
    slot: Option<SlotNumber>,
    /// The owner is connected and was told.
    told: bool,
    /// Why not.
    reason: Option<&'static str>,
}

/// Why the owner was not told; `None`: it was.
fn reason(view: &View, owner: Option<&Slot>) -> Option<&'static str> {
    let Some(owner) = owner else { return Some("no-owner") };
    match view.links.get(owner) {
        Some(link) if link.connected && link.takes_commands => None,
        Some(link) if link.connected => Some("old-version"),
        Some(_) | None => Some("silent"),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(OUTPUT_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn shown(view: &View, index: JournalIndex, errand: &Errand, now: Timestamp) -> Option<Result<Value, ApiError>> {
    let what = errand.what.as_ref()?;
    let object = view.status.object(errand.check)?;
    let owner = object.owner.as_ref().map(|owner| &owner.slot);
    let passive = if let What::Passive(passive) = what { Some(passive) } else { None };
    let reason = reason(view, owner);
    Some(value(&ShownCommand {
        index,
        at: errand.at,
        waiting_seconds: now.since(errand.at).as_secs(),
        author: &errand.author,
        host: &object.name.host,
        service: object.name.service.as_ref(),
        what: what.as_str(),
        state: passive.map(|passive| state_of(&object.name, passive)),
        output: passive.map(|passive| cut(&passive.text)),
        region: owner.map(|owner| &owner.region),
        slot: owner.map(|owner| owner.number),
        told: reason.is_none(),
        reason,
    }))
}

struct CommandFields;

impl Fields for CommandFields {
    const NAMES: &'static [&'static str] = &[
        "index",
        "at",
        "waiting_seconds",
        "author",
        "host",
        "service",
        "what",
        "state",
        "output",
        "region",
        "slot",
        "told",
        "reason",
    ];
    const WORDS: &'static [&'static str] = &["host", "service", "author"];
    const KEY: &'static [&'static str] = &["index"];
}

/// `GET /commands`: the oldest first. What was answered is under events.
pub(crate) async fn commands(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let known = parameters.known(&OF_LISTS)?;
    let (view, now) = (api.view(), api.now());
    let errands = view.status.errands();
    let waiting: Result<Vec<Value>, ApiError> =
        errands.filter_map(|(index, errand)| shown(&view, index, errand, now)).collect();
    lines::<CommandFields>(waiting?, &known, "index", &view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("done|files=9"), "done|files=9");
        let long = "ä".repeat(OUTPUT_SHOWN + 1);
        assert_eq!(cut(&long), format!("{}…", "ä".repeat(OUTPUT_SHOWN)));
    }
}
