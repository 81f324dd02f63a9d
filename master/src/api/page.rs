//! The plain page: problems and slots as HTML without any script, for a master that was built without the web client. Every text of
//! the monitored world is escaped in one place. The surprise: unlike the client's files it shows states, and asks for the right to read.

use std::fmt::Write as _;

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use shared::check::State;
use shared::time::Timestamp;

use crate::api::Api;
use crate::api::fleet::{ShownSlot, slots_of};
use crate::api::guard::{self, Origin};
use crate::api::incident::incidents_of;
use crate::api::list::{candidates, severity};
use crate::api::summary;
use crate::api::token::Role;
use crate::coordinator::View;
use crate::status::Object;

/// Problems shown; the page says how many more there are.
const PROBLEMS_MAX: usize = 500;

/// Where the style lies.
pub(crate) const STYLE_PATH: &str = "plain.css";
/// The page's style.
const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
td.output { overflow-wrap: break-word; min-width: 14rem; }
b.CRITICAL, b.DOWN { color: light-dark(#a3001b, #ff8b96); }
b.WARNING { color: light-dark(#7a4a00, #ffc46b); }
b.UNKNOWN { color: light-dark(#5b2a8c, #cba6f7); }
p.note { border-left: .3rem solid #8888; padding-left: .8rem; }
";

/// The style as a file: the content policy allows no style inside the page.
pub(crate) fn style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "no-cache")], STYLE).into_response()
}

/// The page, for whoever may read.
pub(crate) fn answer(api: &Api, request: &Request) -> Response {
    let origin = request.extensions().get::<Origin>().copied().unwrap_or(Origin::Tcp { loopback: false });
    match guard::judge(api, origin, request.uri(), request.headers(), Role::Read) {
        Ok(_) => Html(render(&api.view(), api.now())).into_response(),
        Err(error) => (error.status, Html(refused())).into_response(),
    }
}

/// Text as HTML: nothing in it can end an element or an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// An age in the two largest units that matter.
fn age(seconds: u64) -> String {
    let part = |number: u64, unit: &str, rest: u64, rest_unit: &str| format!("{number}{unit} {rest}{rest_unit}");
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => part(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => part(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => part(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

fn frame(title: &str, refresh: bool, body: &str) -> String {
    let refresh = if refresh { "<meta http-equiv=\"refresh\" content=\"10\">" } else { "" };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>{refresh}\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><link rel=\"stylesheet\" href=\"/plain.css\">\
         </head><body>\n{body}</body></html>\n",
        escaped(title)
    )
}

/// What somebody without the right to read is told.
fn refused() -> String {
    frame(
        "Perigee",
        false,
        "<h1>Perigee</h1><p>This master was built without its web client, and reading needs a token here.</p>\
         <p class=\"note\">Build it with the client (<code>make web</code>, then <code>make build</code>), or use \
         <code>perigee-master problems</code> on the master's machine.</p>\n",
    )
}

/// Problems and slots of a view.
pub(super) fn render(view: &View, now: Timestamp) -> String {
    let mut problems: Vec<&Object> =
        candidates(view).map(|candidate| candidate.object).filter(|object| object.state.state.is_problem()).collect();
    problems.sort_by_key(|object| (-severity(object), object.name.clone()));
    let counts = summary::counts(view);
    let total = |states: &std::collections::BTreeMap<&str, usize>| states.values().sum::<usize>();
    let incidents = incidents_of(view);
    let mut body = String::new();
    // Writing into a String cannot fail.
    let _ = write!(
        body,
        "<h1>Perigee</h1>\n<p class=\"note\">This master was built without its web client: <code>make web</code>, then \
         <code>make build</code>. Until then this page renews itself every ten seconds.</p>\n\
         <p>{} hosts, {} services, generation {}.</p>\n",
        total(&counts.hosts),
        total(&counts.services),
        view.status.generation,
    );
    if counts.stale > 0 {
        let _ = writeln!(body, "<p class=\"note\">{} of them may be out of date.</p>", counts.stale);
    }
    if let Some(held) = &view.status.attention().held {
        let _ = writeln!(body, "<p class=\"note\">No host is moved, as {} said.</p>", escaped(&held.author));
    }
    let _ = writeln!(body, "<h2>Problems ({})</h2>", problems.len() + incidents.len());
    for incident in &incidents {
        let lasting = age(now.since(incident.since).as_secs());
        let _ = writeln!(body, "<p><b class=\"CRITICAL\">{}</b> (for {lasting})</p>", escaped(&incident.text));
    }
    if problems.is_empty() && incidents.is_empty() {
        let pending =
            [&counts.hosts, &counts.services].iter().filter_map(|states| states.get("PENDING")).sum::<usize>();
        let _ = writeln!(body, "<p>None. {pending} checks have no result yet.</p>");
    } else if !problems.is_empty() {
        body.push_str("<table><thead><tr><th>State</th><th>Host</th><th>Service</th><th>Attempt</th><th>For</th><th>Output</th></tr></thead><tbody>\n");
        problems.iter().take(PROBLEMS_MAX).for_each(|object| problem(&mut body, object, now));
        body.push_str("</tbody></table>\n");
    }
    if problems.len() > PROBLEMS_MAX {
        let _ = writeln!(body, "<p>{} more are not shown here.</p>", problems.len() - PROBLEMS_MAX);
    }
    body.push_str("<h2>Slots</h2>\n<table><thead><tr><th>Slot</th><th>Link</th><th>Checks</th><th>Undelivered</th><th>Clock</th><th>Silent</th><th>Spool</th></tr></thead><tbody>\n");
    slots_of(view, now).iter().for_each(|shown| slot(&mut body, shown));
    body.push_str("</tbody></table>\n");
    frame(&format!("{} problems – Perigee", problems.len() + incidents.len()), true, &body)
}

fn problem(body: &mut String, object: &Object, now: Timestamp) {
    let state: State = object.state.state;
    let _ = writeln!(
        body,
        "<tr><td><b class=\"{state}\">{state}</b></td><td>{}</td><td>{}</td><td>{}/{}</td><td>{}</td><td class=\"output\">{}</td></tr>",
        escaped(object.name.host.as_str()),
        escaped(object.name.service.as_ref().map_or("", |service| service.as_str())),
        object.state.shown_attempt(),
        object.state.max_attempts,
        age(now.since(object.state.since).as_secs()),
        escaped(object.last.as_ref().map_or("", |last| &last.output)),
    );
}

fn slot(body: &mut String, shown: &ShownSlot) {
    let link = match (shown.connected, shown.expected) {
        (true, _) => "connected",
        (false, true) if shown.lost.is_some() => "<b class=\"CRITICAL\">lost</b>",
        (false, true) => "<b class=\"CRITICAL\">missing</b>",
        (false, false) => "not connected, not expected",
    };
    let drained = if shown.drained.is_some() { ", drained" } else { "" };
    let clock = match (shown.clock, shown.clock_offset_ms) {
        (Some("OK"), Some(ms)) => format!("{ms:+} ms"),
        (Some(state), Some(ms)) => format!("<b class=\"{state}\">{ms:+} ms</b>"),
        _ => "–".to_owned(),
    };
    let number = |number: Option<u64>| number.map_or("–".to_owned(), |number| number.to_string());
    let _ = writeln!(
        body,
        "<tr><td>{}/{}</td><td>{link}{drained}</td><td>{}</td><td>{}</td><td>{clock}</td><td>{}</td><td>{}</td></tr>",
        escaped(shown.region.as_str()),
        shown.slot,
        shown.checks,
        number(shown.undelivered),
        shown.silent_seconds.map_or("–".to_owned(), age),
        spool(shown),
    );
}

/// What an operator must know of a slot's spool.
fn spool(shown: &ShownSlot) -> String {
    let given_up = match shown.given_up.unwrap_or(0) {
        0 => String::new(),
        results => format!(", {results} results given up"),
    };
    if shown.memory_only == Some(true) {
        format!("<b class=\"CRITICAL\">in memory only</b>{given_up}")
    } else if shown.spool_full == Some(true) {
        format!("<b class=\"WARNING\">full</b>{given_up}")
    } else {
        format!("on disk{given_up}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(
            escaped("<img src=x onerror='a(\"b\")'>&\u{1b}[31m"),
            "&lt;img src=x onerror=&#39;a(&quot;b&quot;)&#39;&gt;&amp;\u{fffd}[31m"
        );
    }

    #[test]
    fn ages_have_two_units() {
        assert_eq!([5, 65, 7_320, 90_061].map(age), ["5s", "1m 5s", "2h 2m", "1d 1h"]);
    }
}
