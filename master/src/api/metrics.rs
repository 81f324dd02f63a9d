//! Figures about the master itself in Prometheus' text format: states, slots, gaps, journal, and what the other shells hand over.
//! Decides names and escapes; measures nothing. Values of plugins are not here: they go to the stores.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::api::error::ApiError;
use crate::api::figure::{Figure, as_value};
use crate::api::fleet::slots_of;
use crate::api::parameter::NoParameters;
use crate::api::{Api, VERSION, stream, summary};
use crate::entry::IncidentKind;

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`
pub(crate) async fn metrics(State(api): State<Arc<Api>>, _: NoParameters) -> Result<Response, ApiError> {
    let mut figures = own(&api);
    figures.extend((api.inputs.figures)());
    Ok(([(CONTENT_TYPE, FORMAT)], render(&figures)).into_response())
}

fn gauge(name: &'static str, help: &'static str, labels: Vec<(&'static str, String)>, value: f64) -> Figure {
    Figure { name, help, counter: false, labels, value }
}

fn count(name: &'static str, help: &'static str, labels: Vec<(&'static str, String)>, value: u64) -> Figure {
    Figure { name, help, counter: true, labels, value: as_value(value) }
}

fn size(value: usize) -> f64 {
    as_value(u64::try_from(value).unwrap_or(u64::MAX))
}

fn own(api: &Api) -> Vec<Figure> {
    let view = api.view();
    let now = api.now();
    let status = &view.status;
    let counts = summary::counts(&view);
    let flag = |flag: bool| f64::from(u8::from(flag));
    let mut figures = vec![
        gauge(
            "perigee_info",
            "Always 1; the labels say which master this is",
            vec![("version", VERSION.to_owned())],
            1.0,
        ),
        gauge(
            "perigee_uptime_seconds",
            "Age of this process",
            vec![],
            as_value(now.since(api.inputs.started).as_secs()),
        ),
        gauge("perigee_generation", "Running generation", vec![], as_value(status.generation.0)),
        gauge("perigee_journal_index", "Index of the last durable row", vec![], as_value(status.head.0)),
        gauge("perigee_read_only", "Whether rows cannot be committed", vec![], flag(view.read_only)),
        gauge(
            "perigee_held_off",
            "Whether no host is moved: the master is cut off, or an operator said so",
            vec![],
            flag(view.held_off),
        ),
        gauge("perigee_problems", "Hosts and services with a problem, soft or hard", vec![], size(counts.problems)),
        gauge("perigee_stale", "Hosts and services that may be out of date", vec![], size(counts.stale)),
        gauge("perigee_gaps", "Gaps shown, the newest at most", vec![], size(status.gaps().len())),
        gauge(
            "perigee_writer_gaps",
            "Times a writer was overrun or came to rows that cannot be read, ever",
            vec![],
            as_value(status.lineage().writer_gaps_total),
        ),
    ];
    for kind in [IncidentKind::SlotLost, IncidentKind::CutOff] {
        let open = status.attention().incidents().iter().filter(|open| open.incident.kind == kind).count();
        let labels = vec![("kind", kind.as_str().to_owned())];
        figures.push(gauge("perigee_incidents", "Problems of the fleet that have not ended", labels, size(open)));
    }
    for (lane, half) in [("live", view.credit.live), ("backlog", view.credit.backlog)] {
        let free = half.size.saturating_sub(half.given).saturating_sub(half.received);
        for (state, bytes) in [("given", half.given), ("received", half.received), ("free", free)] {
            figures.push(gauge(
                "perigee_link_credit_bytes",
                "The byte pool for batches: given to satellites, received and not yet committed, free",
                vec![("lane", lane.to_owned()), ("state", state.to_owned())],
                as_value(bytes),
            ));
        }
        let labels = || vec![("lane", lane.to_owned())];
        figures.push(gauge(
            "perigee_link_credit_peak_bytes",
            "Most of the pool given and received at one moment since start",
            labels(),
            as_value(half.peak),
        ));
        figures.push(gauge(
            "perigee_link_credit_waiting_slots",
            "Slots that wait for credit",
            labels(),
            as_value(half.waiting),
        ));
    }
    let differs = *api.inputs.source_differs.borrow();
    figures.extend(differs.map(|differs| {
        gauge("perigee_source_differs", "Whether the files differ from the running revision", vec![], flag(differs))
    }));
    for (kind, states) in [("host", &counts.hosts), ("service", &counts.services)] {
        figures.extend(states.iter().map(|(state, number)| {
            let labels = vec![("kind", kind.to_owned()), ("state", (*state).to_owned())];
            gauge("perigee_objects", "Hosts and services by state", labels, size(*number))
        }));
    }
    for slot in slots_of(&view, now) {
        let labels = || vec![("region", slot.region.to_string()), ("slot", slot.slot.to_string())];
        figures.push(gauge(
            "perigee_slot_expected",
            "Whether the configuration asks for the slot",
            labels(),
            flag(slot.expected),
        ));
        figures.push(gauge(
            "perigee_slot_connected",
            "Whether the slot's holder is connected",
            labels(),
            flag(slot.connected),
        ));
        figures.push(gauge(
            "perigee_slot_stale",
            "Whether the slot is silent or has not told its newest states",
            labels(),
            flag(slot.stale),
        ));
        figures.push(gauge("perigee_slot_lost", "Whether the slot is lost", labels(), flag(slot.lost.is_some())));
        let drained = flag(slot.drained.is_some());
        figures.push(gauge("perigee_slot_drained", "Whether an operator has drained the slot", labels(), drained));
        figures.push(gauge("perigee_slot_checks", "Checks the slot owns", labels(), size(slot.checks)));
        let waiting = size(slot.commands_waiting);
        figures.push(gauge("perigee_slot_commands_waiting", "Commands the slot has not answered", labels(), waiting));
        figures.push(count("perigee_slot_results_total", "Results accepted from the slot", labels(), slot.results));
        figures.push(count("perigee_slot_refused_total", "Results refused from the slot", labels(), slot.refused));
        let told = [
            ("perigee_slot_undelivered", "Results on its volume without acknowledgement", slot.undelivered),
            ("perigee_slot_spool_bytes", "Bytes of its spool", slot.spool_bytes),
            ("perigee_slot_kept_bytes", "Bytes of its spool that are delivered and stay for a while", slot.kept_bytes),
            ("perigee_slot_lag_seconds", "Age of its newest durable result while it has others", slot.lag_seconds),
            ("perigee_slot_given_up", "Results its spool gave up since its start, all named by gaps", slot.given_up),
            ("perigee_slot_memory_only", "Whether its results are in memory only", slot.memory_only.map(u64::from)),
            ("perigee_slot_late_checks", "Checks begun more than a second late since its start", slot.late),
        ];
        figures.extend(
            told.into_iter().filter_map(|(name, help, value)| Some(gauge(name, help, labels(), as_value(value?)))),
        );
        figures.extend(slot.clock_offset_ms.map(|offset| {
            let seconds = std::time::Duration::from_millis(offset.unsigned_abs()).as_secs_f64();
            let seconds = if offset < 0 { -seconds } else { seconds };
            gauge("perigee_slot_clock_offset_seconds", "The master's clock minus the slot's", labels(), seconds)
        }));
    }
    figures.extend(view.refused.iter().map(|(reason, refused)| {
        let labels = vec![("reason", (*reason).to_owned())];
        count("perigee_results_refused_total", "Results refused since this process started", labels, *refused)
    }));
    figures.push(count(
        "perigee_results_from_the_future_total",
        "Results that by their satellite's clock ended a second or more after they came; taken as ending when they came",
        vec![],
        view.future,
    ));
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let taken = stream::STREAMS_MAX.saturating_sub(api.streams.available_permits());
    figures.push(gauge("perigee_api_streams", "Open event streams", vec![], size(taken)));
    let counted = [
        ("perigee_api_refused_total", "Requests without the right token", &api.counts.refused),
        ("perigee_api_turned_away_total", "Connections closed because there were too many", &api.counts.turned_away),
        (
            "perigee_api_streams_cut_total",
            "Event streams cut because their client did not read",
            &api.counts.streams_cut,
        ),
    ];
    figures.extend(counted.into_iter().map(|(name, help, counter)| count(name, help, vec![], read(counter))));
    figures
}

/// The text format: all samples of a name together, after its help and type.
fn render(figures: &[Figure]) -> String {
    let mut by_name: BTreeMap<&str, Vec<&Figure>> = BTreeMap::new();
    for figure in figures {
        by_name.entry(figure.name).or_default().push(figure);
    }
    let mut text = String::new();
    for (name, figures) in by_name {
        let Some(first) = figures.first() else { continue };
        let kind = if first.counter { "counter" } else { "gauge" };
        let help = first.help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing into a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for figure in figures {
            let labels: Vec<String> =
                figure.labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{name}{labels} {}", number(figure.value));
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_name_stand_together_and_labels_cannot_break_a_line() {
        let labels = |text: &str| vec![("writer", text.to_owned())];
        let text = render(&[
            gauge("b", "two\nlines", labels("a\"b\\c\nd"), 1.5),
            count("a_total", "one", vec![], 3),
            gauge("b", "two\nlines", labels("e"), f64::INFINITY),
        ]);
        assert_eq!(
            text,
            "# HELP a_total one\n# TYPE a_total counter\na_total 3\n# HELP b two\\nlines\n# TYPE b gauge\n\
             b{writer=\"a\\\"b\\\\c\\nd\"} 1.5\nb{writer=\"e\"} +Inf\n"
        );
    }
}
