//! What clients ask of the owner of a check: a result from outside, a check at once, a reset. Reads the body, hands the command to the
//! loop, and says whether the owner was told or why not. Decides nothing. The surprise: the answer comes when the command is durable,
//! not when it is done; its result names it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::check::State as Observed;
use shared::command::{COMMANDS_WAITING_MAX, Passive, TEXT_BYTES_MAX, What};
use shared::name::{CheckId, NameError, ObjectName};
use tokio::sync::oneshot;

use crate::api::error::ApiError;
use crate::api::guard::Caller;
use crate::api::request::{self, Arguments, Given, Patience};
use crate::api::{Api, Request};
use crate::coordinator::{Commanding, Told};

/// A command is a row of the journal: longer than this only a disk that hangs takes.
const PATIENCE: Patience = Patience {
    most: Duration::from_secs(30),
    late: "the journal takes long: the events show the command when it is taken",
    stopping: "the master is stopping; nothing was asked",
};

/// The body of a command that is about a check and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    host: String,
    service: Option<String>,
}

/// The body of a result from outside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submitted {
    host: String,
    service: Option<String>,
    state: String,
    output: String,
}

impl Arguments for About {
    const USAGE: &'static str =
        "send a body like {\"host\": \"web01\", \"service\": \"load\"}; no service for the host";
}

impl About {
    fn name(&self) -> Result<ObjectName, ApiError> {
        named(&self.host, self.service.as_deref())
    }
}

impl Arguments for Submitted {
    const USAGE: &'static str = "send a body like {\"host\": \"web01\", \"service\": \"backup\", \"state\": \"OK\", \
                                 \"output\": \"done|files=9\"}";
}

impl Submitted {
    fn result(self) -> Result<(ObjectName, Passive), ApiError> {
        let name = named(&self.host, self.service.as_deref())?;
        let state = observed(&self.state, name.is_host())?;
        if self.output.trim().is_empty() || self.output.len() > TEXT_BYTES_MAX {
            return Err(ApiError::parameter("output", format!("write a text of at most {TEXT_BYTES_MAX} bytes")));
        }
        Ok((name, Passive { state, text: self.output }))
    }
}

/// `POST /actions/check-now`: the check is run at once, whatever its place.
pub(crate) async fn check_now(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Given(about): Given<About>,
) -> Result<Json<Value>, ApiError> {
    give(&api, caller, &about.name()?, What::CheckNow).await
}

/// `POST /actions/reset`: the state of the check is forgotten.
pub(crate) async fn reset(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Given(about): Given<About>,
) -> Result<Json<Value>, ApiError> {
    give(&api, caller, &about.name()?, What::Reset).await
}

/// `POST /actions/passive-result`: a result from outside.
pub(crate) async fn passive_result(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Given(submitted): Given<Submitted>,
) -> Result<Json<Value>, ApiError> {
    let (name, passive) = submitted.result()?;
    give(&api, caller, &name, What::Passive(passive)).await
}

fn named(host: &str, service: Option<&str>) -> Result<ObjectName, ApiError> {
    let wrong = |field: &'static str| move |error: NameError| ApiError::parameter(field, error.to_string());
    let host = host.parse().map_err(wrong("host"))?;
    Ok(match service {
        None => ObjectName::host(host),
        Some(service) => ObjectName::service(host, service.parse().map_err(wrong("service"))?),
    })
}

/// A state as people write it: a word, or the number that a plugin would exit with. Of a host, UP and DOWN.
fn observed(word: &str, host: bool) -> Result<Observed, ApiError> {
    let state = match (word.to_ascii_uppercase().as_str(), host) {
        ("UP" | "0", true) | ("OK" | "0", false) => Observed::Ok,
        ("WARNING" | "1", false) => Observed::Warning,
        ("DOWN" | "1" | "2", true) | ("CRITICAL" | "2", false) => Observed::Critical,
        ("UNKNOWN" | "3", false) => Observed::Unknown,
        _ => {
            let words = if host { "UP or DOWN (0, 1)" } else { "OK, WARNING, CRITICAL or UNKNOWN (0 to 3)" };
            return Err(ApiError::parameter("state", format!("write {words}")));
        }
    };
    Ok(state)
}

fn find(api: &Api, name: &ObjectName) -> Result<CheckId, ApiError> {
    let view = api.view();
    let known = view.status.id(name).filter(|id| view.status.object(*id).is_some_and(|object| object.configured));
    known.ok_or_else(|| ApiError::not_found(format!("{name} is not configured")))
}

async fn give(api: &Api, caller: Caller, name: &ObjectName, what: What) -> Result<Json<Value>, ApiError> {
    let check = find(api, name)?;
    let (reply, answer) = oneshot::channel();
    tracing::info!(author = caller.author, object = %name, what = what.as_str(), "a command is given");
    let request = Request::Command { check, what, author: caller.author, reply };
    let taken = request::ask(api, request, answer, PATIENCE).await?;
    shown(name, taken).map(Json)
}

fn shown(name: &ObjectName, commanding: Commanding) -> Result<Value, ApiError> {
    let (index, told) = match commanding {
        Commanding::Taken { index, told } => (index, told),
        Commanding::Unknown => return Err(ApiError::not_found(format!("{name} is not configured any more"))),
        Commanding::TooMany(slot) => {
            let whom = slot.map_or("a slot that will own the check".to_owned(), |slot| format!("slot {slot}"));
            return Err(ApiError::unavailable(format!(
                "{COMMANDS_WAITING_MAX} commands wait for {whom} already: this one was not taken"
            )));
        }
        Commanding::TooMuch => {
            return Err(ApiError::unavailable("too much waits for silent slots already: this was not taken"));
        }
        Commanding::NotCommitted => {
            return Err(ApiError::unavailable("the journal cannot be written: nothing was asked"));
        }
    };
    let (reason, slot, text) = match told {
        Told::Owner(slot) => (None, Some(slot.clone()), format!("slot {slot} was told")),
        Told::Silent(slot) => {
            let text = format!("slot {slot} is silent: the command waits until it is back, or another owns the check");
            (Some("silent"), Some(slot), text)
        }
        Told::Old { slot, software } => {
            let text = format!(
                "slot {slot} runs version {software}, which knows no commands: this one waits until it is updated"
            );
            (Some("old-version"), Some(slot), text)
        }
        Told::Nobody => {
            let text = "no slot owns the check yet: the command waits for the first one of its region".to_owned();
            (Some("no-owner"), None, text)
        }
    };
    Ok(json!({
        "result": if reason.is_none() { "told" } else { "waiting" },
        "command": index,
        "host": name.host,
        "service": name.service,
        "slot": slot,
        "reason": reason,
        "text": text,
    }))
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use shared::name::JournalIndex;

    use super::*;
    use crate::api::request::Body;

    fn body(text: &str) -> Body {
        Ok(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn about(text: &str) -> Result<ObjectName, ApiError> {
        About::read(body(text))?.name()
    }

    fn submitted(text: &str) -> Result<(ObjectName, Passive), ApiError> {
        Submitted::read(body(text))?.result()
    }

    #[test]
    fn a_state_is_a_word_or_a_number_that_fits_the_object() {
        for (word, host, state) in [
            ("up", true, Observed::Ok),
            ("DOWN", true, Observed::Critical),
            ("1", true, Observed::Critical),
            ("ok", false, Observed::Ok),
            ("1", false, Observed::Warning),
            ("Critical", false, Observed::Critical),
            ("3", false, Observed::Unknown),
        ] {
            assert_eq!(observed(word, host).unwrap(), state, "{word}");
        }
        for (word, host) in [("UP", false), ("WARNING", true), ("PENDING", false), ("4", false), ("", true)] {
            assert!(observed(word, host).is_err(), "{word}");
        }
    }

    #[test]
    fn a_body_names_an_object_and_a_result_or_is_told_how() {
        assert_eq!(about(r#"{"host":"web01"}"#).unwrap().to_string(), "web01");
        let (name, passive) = submitted(r#"{"host":"web01","service":"load","state":"2","output":"bad|a=1"}"#).unwrap();
        assert_eq!((name.to_string().as_str(), passive.state), ("web01!load", Observed::Critical));
        let long = format!(r#"{{"host":"a","state":"UP","output":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
        for (text, part) in [
            ("", "send a body like"),
            (r#"{"host":"web01","state":"UP"}"#, "output"),
            (r#"{"host":"web01","state":"UP","output":" "}"#, "at most"),
            (long.as_str(), "at most"),
            (r#"{"host":"web01","service":"s","state":"UP","output":"x"}"#, "CRITICAL"),
            (r#"{"host":"","state":"UP","output":"x"}"#, "host"),
        ] {
            let error = submitted(text).unwrap_err().body_value().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(about(r#"{"host":"web01","more":1}"#).is_err());
    }

    #[test]
    fn every_end_of_a_command_has_its_words() {
        let name: ObjectName = "web01!load".parse().unwrap();
        let eu: shared::name::Slot =
            shared::name::Slot { region: "eu".parse().unwrap(), number: shared::name::SlotNumber::new(1).unwrap() };
        for (told, result, part) in [
            (Told::Owner(eu.clone()), "told", "eu/1 was told"),
            (Told::Silent(eu.clone()), "waiting", "is silent"),
            (Told::Old { slot: eu.clone(), software: "0.1".into() }, "waiting", "version 0.1"),
            (Told::Nobody, "waiting", "no slot owns"),
        ] {
            let answer = shown(&name, Commanding::Taken { index: JournalIndex(7), told }).unwrap();
            assert_eq!((answer["result"].as_str(), answer["command"].as_u64()), (Some(result), Some(7)));
            assert!(answer["text"].as_str().unwrap().contains(part), "{answer}");
        }
        for (commanding, part) in [
            (Commanding::Unknown, "not configured any more"),
            (Commanding::TooMany(Some(eu)), "256 commands wait for slot eu/1"),
            (Commanding::TooMany(None), "will own"),
            (Commanding::TooMuch, "too much waits"),
            (Commanding::NotCommitted, "journal"),
        ] {
            let error = shown(&name, commanding).unwrap_err().body_value().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
