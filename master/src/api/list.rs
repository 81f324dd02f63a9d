//! Lists: hosts, services and problems out of the published state, and short lists of anything that is JSON already. Decides which
//! fields can be filtered and sorted by. Knows no request's right to see them.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use shared::check::State as Observed;
use shared::state::StateType;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::object::{Shown, region, value};
use crate::api::parameter::{Known, OF_LISTS, Parameters};
use crate::api::selection::{self, Filter, Item, Order, Rank};
use crate::coordinator::View;
use crate::status::Object;

/// Severity beyond any time in milliseconds: worst first, then by age.
const ABOVE_TIME: i64 = 1 << 44;

/// A host or service that may be shown.
pub(crate) struct Candidate<'a> {
    view: &'a View,
    pub(crate) object: &'a Object,
}

/// How bad a state is; greater is worse. A soft problem comes behind the same one hard.
pub(crate) fn severity(object: &Object) -> i64 {
    let worse = match object.state.state {
        Observed::Ok | Observed::Up => 0,
        Observed::Pending => 1,
        Observed::Warning => 2,
        Observed::Unknown => 3,
        Observed::Critical => 4,
        Observed::Down => 5,
    };
    2 * worse + i64::from(object.state.state_type == StateType::Hard)
}

fn of_few(field: &str) -> &'static [&'static str] {
    match field {
        "state" => &["OK", "WARNING", "CRITICAL", "UNKNOWN", "UP", "DOWN", "PENDING"],
        "state_type" => &["SOFT", "HARD"],
        "problem" | "stale" => &["true", "false"],
        _ => &[],
    }
}

impl Item for Candidate<'_> {
    const FILTERS: &'static [&'static str] =
        &["host", "service", "region", "slot", "state", "state_type", "problem", "stale", "group", "command"];
    const ORDERS: &'static [&'static str] =
        &["host", "service", "state", "severity", "last_change", "last_check", "attempt", "region"];

    fn texts(&self, field: &str) -> Vec<Cow<'_, str>> {
        let (object, name) = (self.object, &self.object.name);
        let flag = |flag: bool| Cow::Borrowed(if flag { "true" } else { "false" });
        let owner = object.owner.as_ref().map(|owner| &owner.slot);
        match field {
            "host" => vec![name.host.as_str().into()],
            "service" => name.service.iter().map(|service| service.as_str().into()).collect(),
            "region" => region(self.view, name).map(|region| region.as_str().into()).into_iter().collect(),
            "slot" => owner.map(|slot| slot.number.to_string().into()).into_iter().collect(),
            "state" => vec![object.state.state.as_str().into()],
            "state_type" => vec![if object.state.state_type == StateType::Hard { "HARD" } else { "SOFT" }.into()],
            "problem" => vec![flag(object.state.state.is_problem())],
            "stale" => vec![flag(self.view.is_stale(object))],
            "command" => vec![object.command.as_str().into()],
            "group" => {
                let host = self.view.status.catalog.as_ref().and_then(|catalog| catalog.hosts.get(&name.host));
                host.into_iter().flat_map(|host| &host.groups).map(|group| group.as_str().into()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn words(&self) -> Vec<Cow<'_, str>> {
        [self.texts("host"), self.texts("service")].concat()
    }

    fn rank(&self, order: &str) -> Rank {
        let (object, name) = (self.object, &self.object.name);
        let number = |number: i64| Rank(number, String::new());
        let service = || name.service.as_ref().map_or("", |service| service.as_str());
        match order {
            "host" => Rank(0, format!("{}!{}", name.host, service())),
            "service" => Rank(0, format!("{}!{}", service(), name.host)),
            "region" => Rank(0, region(self.view, name).map_or("", |region| region.as_str()).to_owned()),
            "state" => number(severity(object)),
            "severity" => {
                number(severity(object) * ABOVE_TIME + object.state.since.as_millis().clamp(0, ABOVE_TIME - 1))
            }
            "last_change" => number(object.state.since.as_millis()),
            "last_check" => number(object.last.as_ref().map_or(0, |last| last.ended.as_millis())),
            "attempt" => number(i64::from(object.state.shown_attempt())),
            _ => number(0),
        }
    }

    fn key(&self) -> String {
        let name = &self.object.name;
        name.service.as_ref().map_or_else(|| name.host.to_string(), |service| format!("{}!{service}", name.host))
    }
}

/// The configured objects of a view.
pub(crate) fn candidates(view: &View) -> impl Iterator<Item = Candidate<'_>> {
    view.status.objects().filter(|object| object.configured).map(move |object| Candidate { view, object })
}

fn list(api: &Api, parameters: Parameters, usual: &str, wanted: fn(&Object) -> bool) -> Result<Json<Value>, ApiError> {
    let known = parameters.known(&OF_LISTS)?;
    let filter = Filter::parse::<Candidate<'_>>(known.text("filter").unwrap_or_default(), of_few)?;
    let order = Order::parse::<Candidate<'_>>(known.text("sort").unwrap_or(usual))?;
    let view = api.view();
    let items = candidates(&view).filter(|candidate| wanted(candidate.object));
    let page = selection::page(items, &filter, &order, known.text("cursor"), known.limit()?)?;
    let items: Result<Vec<Value>, ApiError> =
        page.items.iter().map(|candidate| value(&Shown::of(&view, candidate.object))).collect();
    Ok(answer(items?, page.total, page.next, &view))
}

/// A page as every list has it. `index` is the row it is true for: a stream asked for `since` it goes on without a hole.
fn answer(items: Vec<Value>, total: usize, next: Option<String>, view: &View) -> Json<Value> {
    Json(json!({ "items": items, "total": total, "next": next, "index": view.status.head }))
}

/// `GET /hosts`
pub(crate) async fn hosts(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    list(&api, parameters, "host", |object| object.name.is_host())
}

/// `GET /services`
pub(crate) async fn services(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    list(&api, parameters, "host", |object| !object.name.is_host())
}

/// `GET /problems`: hosts and services, worst first, the newest of equals first.
pub(crate) async fn problems(State(api): State<Arc<Api>>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    list(&api, parameters, "-severity", |object| object.state.state.is_problem())
}

/// A line of a short list, as JSON already. `F` names its fields.
pub(crate) trait Fields {
    /// What can be filtered and sorted by.
    const NAMES: &'static [&'static str];
    /// What a bare word is looked for in.
    const WORDS: &'static [&'static str];
    /// What tells a line from every other, in the order of the list.
    const KEY: &'static [&'static str];
}

struct Line<F> {
    fields: Map<String, Value>,
    kind: std::marker::PhantomData<F>,
}

fn text(value: Option<&Value>) -> Cow<'_, str> {
    match value {
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(other) => Cow::Owned(other.to_string()),
    }
}

impl<F: Fields> Item for Line<F> {
    const FILTERS: &'static [&'static str] = F::NAMES;
    const ORDERS: &'static [&'static str] = F::NAMES;

    fn texts(&self, field: &str) -> Vec<Cow<'_, str>> {
        vec![text(self.fields.get(field))]
    }

    fn words(&self) -> Vec<Cow<'_, str>> {
        F::WORDS.iter().map(|field| text(self.fields.get(*field))).collect()
    }

    fn rank(&self, order: &str) -> Rank {
        match self.fields.get(order) {
            Some(Value::Number(number)) => {
                let whole = number.as_i64();
                let rounded = || {
                    number.as_f64().map_or(0, |number| {
                        std::time::Duration::try_from_secs_f64(number).map_or(0, |d| d.as_secs().cast_signed())
                    })
                };
                Rank(whole.unwrap_or_else(rounded), String::new())
            }
            other => Rank(0, text(other).into_owned()),
        }
    }

    fn key(&self) -> String {
        // Numbers are padded, so that their order as text is their order.
        let part = |field: &&str| match self.fields.get(*field) {
            Some(Value::Number(number)) => format!("{number:>020}"),
            other => text(other).into_owned(),
        };
        F::KEY.iter().map(part).collect::<Vec<_>>().join("!")
    }
}

/// A page of a short list. `usual` is its order when nobody says.
pub(crate) fn lines<F: Fields>(
    lines: Vec<Value>,
    known: &Known,
    usual: &str,
    view: &View,
) -> Result<Json<Value>, ApiError> {
    let filter = Filter::parse::<Line<F>>(known.text("filter").unwrap_or_default(), of_few)?;
    let order = Order::parse::<Line<F>>(known.text("sort").unwrap_or(usual))?;
    let items = lines.into_iter().filter_map(|line| match line {
        Value::Object(fields) => Some(Line::<F> { fields, kind: std::marker::PhantomData }),
        _ => None,
    });
    let page = selection::page(items, &filter, &order, known.text("cursor"), known.limit()?)?;
    let items = page.items.into_iter().map(|line| Value::Object(line.fields)).collect();
    Ok(answer(items, page.total, page.next, view))
}
