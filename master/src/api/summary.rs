//! The installation at one glance: which master, which generation, how many of what in which state. Reads one view. The digest of the
//! whole state is computed on demand only; it is what proofs compare with a replay.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shared::check::State as Observed;

use crate::api::error::ApiError;
use crate::api::fleet::{ShownStep, slots_of};
use crate::api::incident::incidents_of;
use crate::api::list::candidates;
use crate::api::parameter::Parameters;
use crate::api::{Api, VERSION};
use crate::coordinator::View;
use crate::entry::IncidentKind;
use crate::status::Restoration;

/// How many objects are in which state; every state of the kind is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) hosts: BTreeMap<&'static str, usize>,
    pub(crate) services: BTreeMap<&'static str, usize>,
    pub(crate) problems: usize,
    /// What may be out of date, whatever its state.
    pub(crate) stale: usize,
}

/// Counts the objects of a view.
pub(crate) fn counts(view: &View) -> Counts {
    let none = |states: &[Observed]| states.iter().map(|state| (state.as_str(), 0)).collect::<BTreeMap<_, _>>();
    let mut counts = Counts {
        hosts: none(&[Observed::Up, Observed::Down, Observed::Pending]),
        services: none(&[Observed::Ok, Observed::Warning, Observed::Critical, Observed::Unknown, Observed::Pending]),
        problems: 0,
        stale: 0,
    };
    for candidate in candidates(view) {
        let object = candidate.object;
        let kind = if object.name.is_host() { &mut counts.hosts } else { &mut counts.services };
        *kind.entry(object.state.state.as_str()).or_default() += 1;
        counts.problems += usize::from(object.state.state.is_problem());
        counts.stale += usize::from(view.is_stale(object));
    }
    counts
}

/// Whether hosts are moved, and who holds them back if not.
fn moves(view: &View) -> Value {
    let attention = view.status.attention();
    match &attention.held {
        Some(held) => json!({ "held": true, "by": "operator", "author": held.author, "since": held.at }),
        None if attention.cut_off() => {
            let since = attention.incident(IncidentKind::CutOff, None).map(|open| open.since);
            json!({ "held": true, "by": "cut-off", "author": null, "since": since })
        }
        None => json!({ "held": false, "by": null, "author": null, "since": null }),
    }
}

fn restored(last: &Restoration) -> Value {
    json!({ "at": last.at, "index": last.index, "head": last.head, "head_at": last.head_at })
}

/// `GET /status`
pub(crate) async fn status(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let known = parameters.known(&["digest"])?;
    let digest = known.switch("digest")?;
    let view = api.view();
    let now = api.now();
    let status = &view.status;
    let Counts { hosts, services, problems, stale } = counts(&view);
    let slots = slots_of(&view, now);
    let expected = slots.iter().filter(|slot| slot.expected).count();
    let connected = slots.iter().filter(|slot| slot.connected).count();
    let missing = slots.iter().filter(|slot| slot.expected && !slot.connected).count();
    let mut answer = json!({
        "version": VERSION,
        "installation": status.installation,
        "timeline": format!("{:016x}", status.timeline.0),
        "generation": status.generation,
        "digest": status.digest,
        "index": status.head,
        "at": status.at,
        "now": now,
        "started": api.inputs.started,
        "uptime_seconds": now.since(api.inputs.started).as_secs(),
        "hosts": hosts,
        "services": services,
        "problems": problems,
        "stale": stale,
        "incidents": incidents_of(&view),
        "moves": moves(&view),
        "clock_step": status.attention().own_step.as_ref().map(ShownStep::of),
        "regions": status.catalog.as_ref().map_or(0, |catalog| catalog.regions.len()),
        "slots": { "expected": expected, "connected": connected, "missing": missing, "seen": status.slots().len() },
        "gaps": status.gaps().len() + status.lineage().writer_gaps.len(),
        "restored": status.lineage().restored.as_ref().map(restored),
        "backup": api.backup.of_running().map(|(copied, total)| json!({ "copied_bytes": copied, "total_bytes": total })),
        "held_off": view.held_off,
        "read_only": view.read_only,
        "source_differs": *api.inputs.source_differs.borrow(),
    });
    if digest {
        let view = Arc::clone(&view);
        let sum = tokio::task::spawn_blocking(move || Sha256::digest(view.status.encode())).await;
        let sum = sum.map_err(|_| ApiError::internal("the digest could not be computed; see the master's log"))?;
        let sha256 = sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("state_digest".to_owned(), json!({ "index": status.head, "sha256": sha256 }));
        }
    }
    Ok(Json(answer))
}
