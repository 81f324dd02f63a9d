//! What operators order about slots and moves: reads the body, hands the order to the loop, and says how it ended. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::name::{RegionName, Slot, SlotNumber};
use tokio::sync::oneshot;

use crate::api::error::ApiError;
use crate::api::guard::Caller;
use crate::api::parameter::NoParameters;
use crate::api::request::{Arguments, Given, Patience, ask};
use crate::api::{Api, Request};
use crate::coordinator::{Obeyed, Order};

/// An order is a row of the journal: longer than this only a disk that hangs takes.
const JOURNALED: Patience = Patience {
    most: Duration::from_secs(30),
    late: "the journal takes long: the slots and events show when it is done",
    stopping: "the master is stopping; nothing was done",
};

/// Which slot.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    region: String,
    slot: u32,
}

impl Arguments for Which {
    const USAGE: &'static str = "send a body like {\"region\": \"eu\", \"slot\": 1}";
}

impl Which {
    fn slot(&self) -> Result<Slot, ApiError> {
        let wrong = |error| ApiError::parameter("region", format!("no name of a region: {error}"));
        let region: RegionName = self.region.parse().map_err(wrong)?;
        let number =
            SlotNumber::new(self.slot).ok_or_else(|| ApiError::parameter("slot", "slots are numbered from 1"))?;
        Ok(Slot { region, number })
    }
}

/// `POST /actions/drain`: the slot owns nothing from now on, where another of its region can take over.
pub(crate) async fn drain(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Given(which): Given<Which>,
) -> Result<Json<Value>, ApiError> {
    give(&api, caller, Order::Drain(which.slot()?)).await
}

/// `POST /actions/undrain`: the slot may own checks again, once it has been connected for two minutes.
pub(crate) async fn undrain(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Given(which): Given<Which>,
) -> Result<Json<Value>, ApiError> {
    give(&api, caller, Order::Undrain(which.slot()?)).await
}

/// `POST /actions/hold-moves`: no host goes from one slot to another until they are resumed.
pub(crate) async fn hold(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    _: NoParameters,
) -> Result<Json<Value>, ApiError> {
    give(&api, caller, Order::Hold).await
}

/// `POST /actions/resume-moves`: hosts are moved again, whoever held them back; every silence counts anew.
pub(crate) async fn resume(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    _: NoParameters,
) -> Result<Json<Value>, ApiError> {
    give(&api, caller, Order::Resume).await
}

async fn give(api: &Api, caller: Caller, order: Order) -> Result<Json<Value>, ApiError> {
    let (reply, answer) = oneshot::channel();
    tracing::info!(author = caller.author, ?order, "an operator orders");
    let request = Request::Order { order: order.clone(), author: caller.author, reply };
    shown(&order, ask(api, request, answer, JOURNALED).await?).map(Json)
}

fn shown(order: &Order, obeyed: Obeyed) -> Result<Value, ApiError> {
    let text = words(order, obeyed);
    match obeyed {
        Obeyed::Done { moved, kept } => Ok(json!({ "result": "done", "moved": moved, "kept": kept, "text": text })),
        Obeyed::Unchanged => Ok(json!({ "result": "unchanged", "moved": 0, "kept": 0, "text": text })),
        Obeyed::Unknown => Err(ApiError::not_found(text)),
        Obeyed::NotCommitted => Err(ApiError::unavailable(text)),
    }
}

/// How an order ended, for people.
fn words(order: &Order, obeyed: Obeyed) -> String {
    let checks = |number: u64| format!("{number} {}", if number == 1 { "check" } else { "checks" });
    match (order, obeyed) {
        (_, Obeyed::NotCommitted) => "the journal cannot be written: nothing was changed".to_owned(),
        (Order::Drain(slot) | Order::Undrain(slot), Obeyed::Unknown) => {
            format!("the configuration asks for no slot {slot}, and none ever connected")
        }
        (Order::Drain(slot), Obeyed::Unchanged) => format!("slot {slot} is drained already"),
        (Order::Undrain(slot), Obeyed::Unchanged) => format!("slot {slot} is not drained"),
        (Order::Drain(slot), Obeyed::Done { moved, kept: 0 }) => {
            format!("slot {slot} is drained: {} went to other slots, and it owns none", checks(moved))
        }
        (Order::Drain(slot), Obeyed::Done { kept, .. }) => format!(
            "slot {slot} is drained, but goes on with {}: no other slot of its region can take them over",
            checks(kept)
        ),
        (Order::Undrain(slot), _) => {
            format!("slot {slot} may own checks again, once it has been connected for two minutes")
        }
        (Order::Hold, Obeyed::Unchanged) => "moves are held already".to_owned(),
        (Order::Hold, _) => "no host is moved until `perigee-master moves resume`".to_owned(),
        (Order::Resume, Obeyed::Unchanged) => "nothing holds the moves".to_owned(),
        (Order::Resume, _) => "hosts are moved again; every silence counts anew from now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::*;

    #[test]
    fn a_body_names_one_slot_or_is_told_how() {
        let read = |text: &'static str| Which::read(Ok(Bytes::from_static(text.as_bytes())))?.slot();
        assert_eq!(read(r#"{"region":"eu","slot":2}"#).unwrap().to_string(), "eu/2");
        for (body, part) in [
            ("", "\"region\": \"eu\""),
            ("{}", "region"),
            (r#"{"region":"eu","slot":0}"#, "from 1"),
            (r#"{"region":"a b","slot":1}"#, "region"),
            (r#"{"region":"eu","slot":1,"more":2}"#, "more"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.body_value().to_string().replace("\\", "").contains(part), "{body}: {}", error.body_value());
        }
    }

    #[test]
    fn every_end_of_an_order_has_its_words() {
        let eu = Which { region: "eu".to_owned(), slot: 2 }.slot().unwrap();
        let table = [
            (Order::Drain(eu.clone()), Obeyed::Done { moved: 1, kept: 0 }, "slot eu/2 is drained: 1 check went"),
            (Order::Drain(eu.clone()), Obeyed::Done { moved: 0, kept: 7 }, "goes on with 7 checks"),
            (Order::Drain(eu.clone()), Obeyed::Unchanged, "drained already"),
            (Order::Undrain(eu.clone()), Obeyed::Unchanged, "is not drained"),
            (Order::Undrain(eu), Obeyed::Done { moved: 0, kept: 0 }, "connected for two minutes"),
            (Order::Hold, Obeyed::Done { moved: 0, kept: 0 }, "moves resume"),
            (Order::Resume, Obeyed::Unchanged, "nothing holds"),
            (Order::Resume, Obeyed::Done { moved: 0, kept: 0 }, "anew"),
        ];
        for (order, obeyed, part) in table {
            assert!(words(&order, obeyed).contains(part), "{}", words(&order, obeyed));
        }
    }
}
