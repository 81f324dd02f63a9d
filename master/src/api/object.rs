//! A host or service as the interface shows it, whether it comes from the published state or from a result just journaled: one set of
//! fields, made in one place. Knows no filter and no page.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use shared::check::{Exit, State as Observed};
use shared::name::{Generation, HostName, JournalIndex, ObjectName, RegionName, ServiceName, SlotNumber};
use shared::perfdata::Metric;
use shared::result::CheckResult;
use shared::schedule::next_due;
use shared::snapshot::StateTold;
use shared::state::{CheckState, StateType};
use shared::time::Timestamp;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::coordinator::View;
use crate::status::{LastResult, Object};

/// What people have done about an object. In this version nobody can: the fields are there so that clients need not change.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Handling {
    acknowledged: bool,
    downtime_depth: u32,
    reachable: bool,
}

/// The handling of every object of this version.
pub(crate) const UNHANDLED: Handling = Handling { acknowledged: false, downtime_depth: 0, reachable: true };

/// The parts of a result that are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    scheduled: Timestamp,
    ended: Timestamp,
    duration_us: u64,
    exit: Option<&'a Exit>,
    passive: bool,
    output: &'a str,
    long_output: &'a str,
    perfdata: &'a str,
    metrics: &'a [Metric],
    authenticated: Option<bool>,
}

impl<'a> From<&'a LastResult> for Evidence<'a> {
    fn from(last: &'a LastResult) -> Self {
        Self {
            scheduled: last.scheduled,
            ended: last.ended,
            duration_us: last.duration_us,
            exit: last.exit.as_ref(),
            passive: last.passive,
            output: &last.output,
            long_output: &last.long_output,
            perfdata: &last.perfdata,
            metrics: &last.metrics,
            authenticated: last.authenticated,
        }
    }
}

impl<'a> From<&'a CheckResult> for Evidence<'a> {
    fn from(result: &'a CheckResult) -> Self {
        Self {
            scheduled: result.corrected(result.scheduled),
            ended: result.ended(),
            duration_us: result.duration_us,
            exit: result.exit.as_ref(),
            passive: result.passive,
            output: &result.output,
            long_output: &result.long_output,
            perfdata: &result.perfdata,
            metrics: &result.metrics,
            authenticated: result.authenticated,
        }
    }
}

impl<'a> From<&'a StateTold> for Evidence<'a> {
    fn from(told: &'a StateTold) -> Self {
        let said = told.said.as_ref();
        Self {
            scheduled: said.map_or(told.at(), |said| said.scheduled),
            ended: told.at(),
            duration_us: said.map_or(0, |said| said.duration_us),
            exit: said.and_then(|said| said.exit.as_ref()),
            passive: said.is_some_and(|said| said.passive),
            output: said.map_or("", |said| &said.output),
            long_output: "",
            perfdata: "",
            metrics: &[],
            authenticated: said.and_then(|said| said.authenticated),
        }
    }
}

/// One host or service. Times are the master's, as well as they are known.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shown<'a> {
    pub(crate) host: &'a HostName,
    /// `None`: the host itself.
    pub(crate) service: Option<&'a ServiceName>,
    pub(crate) region: Option<&'a RegionName>,
    /// Number of the slot that owns it; `None`: nobody does.
    slot: Option<SlotNumber>,
    pub(crate) state: Observed,
    pub(crate) state_type: StateType,
    attempt: u32,
    max_attempts: u32,
    pub(crate) output: &'a str,
    long_output: &'a str,
    perfdata: &'a str,
    metrics: &'a [Metric],
    last_check: Option<Timestamp>,
    next_check: Option<Timestamp>,
    pub(crate) last_change: Option<Timestamp>,
    last_hard_change: Option<Timestamp>,
    #[serde(flatten)]
    handling: Handling,
    /// Its owner is silent, has not told its newest state yet, or there is none: what is shown may be out of date.
    stale: bool,
    /// Why: `silent`, `unsettled`, `nobody`.
    stale_reason: Option<&'static str>,
    exit: Option<&'a Exit>,
    /// Seconds.
    duration: Option<f64>,
    authenticated: Option<bool>,
    passive: bool,
    command: &'a str,
    groups: Vec<&'a str>,
    version: JournalIndex,
    generation: Generation,
}

/// The region of an object.
pub(crate) fn region<'a>(view: &'a View, name: &ObjectName) -> Option<&'a RegionName> {
    view.status.catalog.as_ref()?.objects.get(name).map(|definition| &definition.region)
}

impl<'a> Shown<'a> {
    /// An object as published.
    pub(crate) fn of(view: &'a View, object: &'a Object) -> Self {
        Self::with(view, object, &object.state, object.last.as_ref().map(Evidence::from), object.version)
    }

    /// An object as a result of row `version` left it.
    pub(crate) fn after(view: &'a View, object: &'a Object, result: &'a CheckResult, version: JournalIndex) -> Self {
        Self::with(view, object, &result.after, Some(Evidence::from(result)), version)
    }

    /// An object as a state told in row `version` left it.
    pub(crate) fn told(view: &'a View, object: &'a Object, told: &'a StateTold, version: JournalIndex) -> Self {
        Self::with(view, object, &told.state, Some(Evidence::from(told)), version)
    }

    fn with(
        view: &'a View,
        object: &'a Object,
        state: &CheckState,
        evidence: Option<Evidence<'a>>,
        version: JournalIndex,
    ) -> Self {
        // Nothing ended, or came about, after it was known.
        let evidence = evidence.map(|evidence| Evidence { ended: evidence.ended.min(view.status.at), ..evidence });
        let catalog = view.status.catalog.as_deref();
        let definition = catalog.and_then(|catalog| catalog.objects.get(&object.name));
        let groups = catalog.and_then(|catalog| catalog.hosts.get(&object.name.host)).map(|host| &host.groups);
        let owner = object.owner.as_ref().map(|owner| &owner.slot);
        let next = definition.zip(evidence).filter(|_| owner.is_some());
        let known = |at: Timestamp| Some(at.min(view.status.at)).filter(|at| *at != Timestamp::EPOCH);
        Self {
            host: &object.name.host,
            service: object.name.service.as_ref(),
            region: definition.map(|definition| &definition.region),
            slot: owner.map(|slot| slot.number),
            state: state.state,
            state_type: state.state_type,
            attempt: state.shown_attempt(),
            // What was never decided has nothing but its setting.
            max_attempts: definition
                .filter(|_| state.state == Observed::Pending)
                .map_or(state.max_attempts, |definition| definition.policy.max_attempts),
            output: evidence.map_or("", |evidence| evidence.output),
            long_output: evidence.map_or("", |evidence| evidence.long_output),
            perfdata: evidence.map_or("", |evidence| evidence.perfdata),
            metrics: evidence.map_or(&[], |evidence| evidence.metrics),
            last_check: evidence.map(|evidence| evidence.ended),
            next_check: next.map(|(definition, evidence)| {
                // Its place on the grid is the satellite's own rule; a run that took longer than the interval skips places.
                let last = evidence.scheduled.max(evidence.ended);
                next_due(object.id, definition.policy.interval(state), last)
            }),
            last_change: known(state.since),
            last_hard_change: known(state.hard_since),
            handling: UNHANDLED,
            stale: view.is_stale(object),
            stale_reason: view.stale_reason(object),
            exit: evidence.and_then(|evidence| evidence.exit),
            duration: evidence.map(|evidence| std::time::Duration::from_micros(evidence.duration_us).as_secs_f64()),
            authenticated: evidence.and_then(|evidence| evidence.authenticated),
            passive: evidence.is_some_and(|evidence| evidence.passive),
            command: &object.command,
            groups: groups.into_iter().flatten().map(String::as_str).collect(),
            version,
            generation: view.status.generation,
        }
    }
}

/// `GET /hosts/{host}`
pub(crate) async fn host(
    State(api): State<Arc<Api>>,
    Path(host): Path<String>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let name = host.parse().map(ObjectName::host);
    one(&api, name.map_err(|error| ApiError::parameter("host", error.to_string()))?)
}

/// `GET /services/{host}/{service}`
pub(crate) async fn service(
    State(api): State<Arc<Api>>,
    Path((host, service)): Path<(String, String)>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let host = host.parse().map_err(|error: shared::name::NameError| ApiError::parameter("host", error.to_string()))?;
    let service =
        service.parse().map_err(|error: shared::name::NameError| ApiError::parameter("service", error.to_string()))?;
    one(&api, ObjectName::service(host, service))
}

fn one(api: &Api, name: ObjectName) -> Result<Json<serde_json::Value>, ApiError> {
    let view = api.view();
    let object = view.status.id(&name).and_then(|id| view.status.object(id));
    match object {
        None => Err(ApiError::not_found(format!("there is no {}", described(&name)))),
        Some(object) if !object.configured => Err(ApiError::not_found(format!(
            "{} is not configured any more; its past is under events",
            described(&name)
        ))),
        Some(object) => value(&Shown::of(&view, object)).map(Json),
    }
}

fn described(name: &ObjectName) -> String {
    match &name.service {
        None => format!("host “{}”", name.host),
        Some(service) => format!("service “{service}” on host “{}”", name.host),
    }
}

/// What is shown as JSON.
pub(crate) fn value<T: Serialize>(shown: &T) -> Result<serde_json::Value, ApiError> {
    serde_json::to_value(shown).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        ApiError::internal("the answer cannot be written as JSON; see the master's log")
    })
}
