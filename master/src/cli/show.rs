//! Answers of the API as people read them: which columns, which words, which ages. Asks nobody. An empty answer says what it means.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::table::{self, Cell, column, printable};

/// How to write.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// Characters of a line.
    pub(super) width: usize,
    /// Whether states are coloured.
    pub(super) colours: bool,
    /// What ages are counted from.
    pub(super) now: jiff::Timestamp,
}

/// The items of a list.
pub(super) fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A value as it stands in a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// SGR of a state: never the only sign of it, the word stands there too.
fn colour(state: &str) -> Option<&'static str> {
    match state {
        "CRITICAL" | "DOWN" | "missing" | "lost" => Some("1;31"),
        "WARNING" | "silent" => Some("33"),
        "UNKNOWN" => Some("35"),
        "OK" | "UP" | "connected" => Some("32"),
        _ => None,
    }
}

/// A duration in its two largest units.
pub(super) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How long ago a time of the API was.
pub(super) fn since(value: &Value, look: &Look) -> String {
    let Some(time) = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()) else {
        return "–".to_owned();
    };
    let passed = look.now.as_millisecond().saturating_sub(time.as_millisecond());
    age(Duration::from_millis(u64::try_from(passed).unwrap_or(0)))
}

pub(super) fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

pub(super) fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `18 OK, 1 WARNING`, states without objects left out, the good one first.
fn by_state(states: &Value) -> String {
    let parts = states.as_object().into_iter().flatten().filter(|(_, number)| count(number) > 0);
    let mut parts: Vec<(String, u64)> = parts.map(|(state, number)| (state.clone(), count(number))).collect();
    parts.sort_by_key(|(state, _)| (!matches!(state.as_str(), "OK" | "UP"), state.clone()));
    let parts: Vec<String> = parts.iter().map(|(state, number)| format!("{number} {state}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn total(states: &Value) -> u64 {
    states.as_object().into_iter().flatten().map(|(_, number)| count(number)).sum()
}

/// The installation at one glance.
pub(super) fn status(out: &mut dyn Write, status: &Value, look: &Look) -> io::Result<()> {
    let seconds = Duration::from_secs(count(&status["uptime_seconds"]));
    writeln!(
        out,
        "Perigee {}, installation {}, up {}",
        text(&status["version"]),
        text(&status["installation"]),
        age(seconds)
    )?;
    let digest: String = text(&status["digest"]).chars().take(12).collect();
    writeln!(
        out,
        "generation {} (revision {digest}), journal index {}",
        count(&status["generation"]),
        count(&status["index"])
    )?;
    let files = match status["source_differs"].as_bool() {
        Some(true) => "differ from the running revision: `perigee-master apply` takes them in",
        Some(false) => "are the running revision",
        None => "not compared yet",
    };
    writeln!(out, "files {files}")?;
    let restored = &status["restored"];
    if !restored.is_null() {
        writeln!(
            out,
            "restored {} ago from a backup of {}: what came after it is lost unless satellites still had it",
            since(&restored["at"], look),
            text(&restored["head_at"])
        )?;
    }
    writeln!(out)?;
    let slots = &status["slots"];
    let rows = [
        ("hosts", total(&status["hosts"]).to_string(), by_state(&status["hosts"])),
        ("services", total(&status["services"]).to_string(), by_state(&status["services"])),
        ("problems", count(&status["problems"]).to_string(), problems_hint(status)),
        ("stale", count(&status["stale"]).to_string(), stale_hint(status)),
        ("slots", count(&slots["expected"]).to_string(), slots_hint(slots)),
        (
            "gaps",
            count(&status["gaps"]).to_string(),
            if count(&status["gaps"]) == 0 { "nothing is lost" } else { "`perigee-master gaps` names them" }.to_owned(),
        ),
    ];
    let rows: Vec<Vec<Cell>> =
        rows.iter().map(|(what, number, words)| vec![what.into(), number.into(), words.into()]).collect();
    out.write_all(
        table::render(&[column("WHAT"), column("COUNT").right(), column("IN WORDS")], &rows, look.width, look.colours)
            .as_bytes(),
    )?;
    if status["read_only"] == true {
        writeln!(out, "\nThe journal cannot be written: results wait on the satellites. The master's log says why.")?;
    }
    if status["incidents"].as_array().is_some_and(|incidents| !incidents.is_empty()) {
        writeln!(out)?;
        incidents(out, &status["incidents"], look)?;
    }
    if status["moves"]["by"] == "operator" {
        let author = printable(&text(&status["moves"]["author"]));
        writeln!(out, "\nNo host is moved, as {author} said; `perigee-master moves resume` lets them go on.")?;
    }
    Ok(())
}

fn problems_hint(status: &Value) -> String {
    let pending = count(&status["hosts"]["PENDING"]) + count(&status["services"]["PENDING"]);
    match (count(&status["problems"]), pending) {
        (0, 0) => "all is well".to_owned(),
        (0, pending) => format!("none known; {} without a result yet", plural(pending, "check", "checks")),
        _ => "`perigee-master problems` shows them".to_owned(),
    }
}

fn stale_hint(status: &Value) -> String {
    match count(&status["stale"]) {
        0 => "everything shown is current",
        _ => "may be out of date: `perigee-master slots` shows who is silent",
    }
    .to_owned()
}

fn slots_hint(slots: &Value) -> String {
    match count(&slots["missing"]) {
        0 => format!("{} connected", count(&slots["connected"])),
        missing => {
            format!("{} connected, {missing} missing: `perigee-master slots` shows which", count(&slots["connected"]))
        }
    }
}

/// Problems of the fleet, one line each, with how long they have lasted.
pub(super) fn incidents(out: &mut dyn Write, incidents: &Value, look: &Look) -> io::Result<()> {
    for incident in incidents.as_array().map_or(&[][..], Vec::as_slice) {
        let line = format!("{} (for {})", printable(&text(&incident["text"])), since(&incident["since"], look));
        writeln!(out, "{}", table::wrapped(&line, look.width))?;
    }
    writeln!(out)
}

/// Problems, worst first.
pub(super) fn problems(out: &mut dyn Write, problems: &Value, look: &Look) -> io::Result<()> {
    let columns = [
        column("STATE"),
        column("HOST"),
        column("SERVICE"),
        column("FOR").expendable(2).right(),
        column("ATTEMPT").expendable(3),
        column("CHECKED").expendable(4).right(),
        column("SLOT").expendable(5),
        column("OUTPUT"),
    ];
    let rows: Vec<Vec<Cell>> = items(problems)
        .iter()
        .map(|item| {
            let state = text(&item["state"]);
            let soft = if item["state_type"] == "SOFT" { " soft" } else { "" };
            let slot =
                item["slot"].as_u64().map_or("nobody".to_owned(), |slot| format!("{}/{slot}", text(&item["region"])));
            let slot = if item["stale"] == true { format!("{slot} stale") } else { slot };
            vec![
                Cell::from(&state).coloured(colour(&state)),
                Cell::from(text(&item["host"])),
                Cell::from(if item["service"].is_null() { "(host)".to_owned() } else { text(&item["service"]) }),
                Cell::from(since(&item["last_change"], look)),
                Cell::from(format!("{}/{}{soft}", count(&item["attempt"]), count(&item["max_attempts"]))),
                Cell::from(since(&item["last_check"], look)),
                Cell::from(slot),
                Cell::from(text(&item["output"])),
            ]
        })
        .collect();
    out.write_all(table::render(&columns, &rows, look.width, look.colours).as_bytes())?;
    let hosts = items(problems).iter().filter(|item| item["service"].is_null()).count();
    let services = items(problems).len().saturating_sub(hosts);
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    writeln!(out, "\n{}, {}", plural(number(hosts), "host", "hosts"), plural(number(services), "service", "services"))
}

/// What no problem means.
pub(super) fn no_problems(out: &mut dyn Write, status: &Value, filtered: bool) -> io::Result<()> {
    let (hosts, services) = (&status["hosts"], &status["services"]);
    if filtered {
        return writeln!(out, "no problems that fit the filter; {} in all", count(&status["problems"]));
    }
    if total(hosts) + total(services) == 0 {
        return writeln!(out, "no problems: nothing is configured yet");
    }
    let good = format!(
        "{} OK, {} UP",
        plural(count(&services["OK"]), "service", "services"),
        plural(count(&hosts["UP"]), "host", "hosts")
    );
    let pending = count(&services["PENDING"]) + count(&hosts["PENDING"]);
    let pending = if pending == 0 {
        String::new()
    } else {
        format!(", {} without a result yet", plural(pending, "check", "checks"))
    };
    writeln!(out, "no problems: {good}{pending}")
}

/// How far a clock is off, in the unit that tells most.
fn offset(ms: i64) -> String {
    let seconds = Duration::from_millis(ms.unsigned_abs());
    let sign = if ms < 0 { '-' } else { '+' };
    match seconds.as_secs() {
        0..10 => format!("{ms:+} ms"),
        _ => format!("{sign}{}", age(seconds)),
    }
}

/// Slots by region.
pub(super) fn slots(out: &mut dyn Write, slots: &Value, look: &Look) -> io::Result<()> {
    if items(slots).is_empty() {
        return writeln!(out, "no slots: no region is configured and no satellite has spoken");
    }
    let columns = [
        column("SLOT"),
        column("LINK"),
        column("CHECKS").right(),
        column("UNDELIVERED").expendable(1).right(),
        column("LAG").expendable(3).right(),
        column("CLOCK").expendable(4).right(),
        column("RESULTS").expendable(6).right(),
        column("HOSTS").expendable(8).right(),
        column("GENERATION").expendable(7).right(),
        column("VERSION").expendable(9),
        column("SINCE").expendable(5).right(),
        column("REMOTE").expendable(2),
    ];
    let number = |value: &Value| value.as_u64().map_or("–".to_owned(), |number| number.to_string());
    let rows: Vec<Vec<Cell>> = items(slots)
        .iter()
        .map(|slot| {
            let link = match (slot["connected"] == true, slot["expected"] == true, slot["stale"] == true) {
                (true, _, false) => "connected",
                (true, _, true) => "silent",
                (false, true, _) => "missing",
                (false, false, _) => "gone",
            };
            let link = if slot["lost"].is_null() { link } else { "lost" };
            let link = if slot["drained"].is_null() { link.to_owned() } else { format!("{link}, drained") };
            let seconds =
                |value: &Value| value.as_u64().map_or("–".to_owned(), |seconds| age(Duration::from_secs(seconds)));
            let clock = slot["clock_offset_ms"].as_i64().map_or("–".to_owned(), offset);
            let clock = match slot["clock"].as_str() {
                Some(state @ ("WARNING" | "CRITICAL")) => {
                    Cell::from(format!("{clock} {state}")).coloured(colour(state))
                }
                _ => Cell::from(clock),
            };
            vec![
                Cell::from(format!("{}/{}", text(&slot["region"]), text(&slot["slot"]))),
                Cell::from(&link).coloured(colour(&link)),
                Cell::from(number(&slot["checks"])),
                Cell::from(number(&slot["undelivered"])),
                Cell::from(seconds(&slot["lag_seconds"])),
                clock,
                Cell::from(number(&slot["results"])),
                Cell::from(number(&slot["hosts"])),
                Cell::from(number(&slot["applied_generation"])),
                Cell::from(text(&slot["software"])),
                Cell::from(since(&slot["since"], look)),
                Cell::from(text(&slot["remote"])),
            ]
        })
        .collect();
    out.write_all(table::render(&columns, &rows, look.width, look.colours).as_bytes())?;
    let expected = items(slots).iter().filter(|slot| slot["expected"] == true);
    let (there, wanted) =
        expected.fold((0, 0), |(there, wanted), slot| (there + u64::from(slot["connected"] == true), wanted + 1));
    writeln!(out, "\n{there} of {} connected", plural(wanted, "expected slot", "expected slots"))?;
    items(slots).iter().try_for_each(|slot| {
        spool(out, slot)?;
        waiting(out, slot)
    })
}

/// Commands that a slot has not answered, if there are any.
fn waiting(out: &mut dyn Write, slot: &Value) -> io::Result<()> {
    match count(&slot["commands_waiting"]) {
        0 => Ok(()),
        commands => {
            let name = format!("{}/{}", text(&slot["region"]), text(&slot["slot"]));
            let waiting = plural(commands, "command waits", "commands wait");
            writeln!(out, "{name}: {waiting} for it; `perigee-master commands` lists them")
        }
    }
}

/// What is wrong with a slot's spool, if anything is.
fn spool(out: &mut dyn Write, slot: &Value) -> io::Result<()> {
    let name = format!("{}/{}", text(&slot["region"]), text(&slot["slot"]));
    if slot["memory_only"] == true {
        writeln!(out, "{name}: its spool cannot be written; results are in memory only")?;
    } else if slot["spool_full"] == true {
        writeln!(out, "{name}: its spool is full; the oldest results go")?;
    }
    match count(&slot["given_up"]) {
        0 => Ok(()),
        lost => writeln!(
            out,
            "{name}: {} given up since it began; `perigee-master gaps` names them",
            plural(lost, "result", "results")
        ),
    }
}

/// Tokens without their secrets.
pub(super) fn tokens(out: &mut dyn Write, tokens: &Value, look: &Look) -> io::Result<()> {
    if items(tokens).is_empty() {
        return writeln!(out, "no tokens: `perigee-master token create --role read` makes one");
    }
    let columns = [column("ID"), column("ROLE"), column("CREATED").expendable(1), column("NAME")];
    let cells = |token: &Value| ["id", "role", "created", "name"].map(|field| Cell::from(text(&token[field]))).to_vec();
    let rows: Vec<Vec<Cell>> = items(tokens).iter().map(cells).collect();
    out.write_all(table::render(&columns, &rows, look.width, look.colours).as_bytes())
}

/// Text with its line feeds, made harmless line by line.
fn lines(out: &mut dyn Write, text: &Value) -> io::Result<()> {
    let text = text.as_str().unwrap_or_default();
    text.lines().try_for_each(|line| writeln!(out, "{}", printable(line)))
}

/// What an apply did.
pub(super) fn applied(out: &mut dyn Write, applied: &Value) -> io::Result<()> {
    if applied["text"].as_str().is_some_and(|text| !text.is_empty()) {
        lines(out, &applied["text"])?;
        writeln!(out)?;
    }
    let generation = count(&applied["generation"]);
    if applied["result"] == "unchanged" {
        return writeln!(out, "generation {generation} runs already: the files have the same content");
    }
    let number = |name: &str| count(&applied[name]);
    writeln!(
        out,
        "generation {generation} runs: {} added, {} changed, {} removed",
        number("added"),
        number("changed"),
        number("removed")
    )
}

/// Why an apply did nothing.
pub(super) fn mistakes(out: &mut dyn Write, answer: &Value) -> io::Result<()> {
    lines(out, &answer["text"])?;
    writeln!(out, "\n{}", printable(&text(&answer["error"]["message"])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(width: usize) -> Look {
        Look { width, colours: false, now: "2026-01-01T01:00:00Z".parse().unwrap() }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_to_show_says_what_that_means() {
        let status = json!({
            "problems": 0,
            "hosts": { "UP": 6, "DOWN": 0, "PENDING": 0 },
            "services": { "OK": 20, "WARNING": 0, "CRITICAL": 0, "UNKNOWN": 0, "PENDING": 2 },
        });
        let text = written(|out| no_problems(out, &status, false));
        assert_eq!(text, "no problems: 20 services OK, 6 hosts UP, 2 checks without a result yet\n");
        let none = json!({ "items": [] });
        assert!(written(|out| slots(out, &none, &look(80))).starts_with("no slots: "));
    }

    #[test]
    fn a_problem_shows_its_state_first_and_its_age() {
        let list = json!({ "items": [{
            "host": "web01", "service": "disk /", "region": "eu", "slot": 1, "state": "CRITICAL", "state_type": "SOFT", "attempt": 2,
            "max_attempts": 3, "last_change": "2026-01-01T00:00:00Z", "last_check": "2026-01-01T00:59:30Z", "output": "DISK CRITICAL \u{1b}[31m",
            "stale": false,
        }, {
            "host": "db01", "service": null, "region": "eu", "slot": null, "state": "DOWN", "state_type": "HARD", "attempt": 3,
            "max_attempts": 3, "last_change": "2025-12-30T00:00:00Z", "last_check": null, "output": "", "stale": true,
        }] });
        let text = written(|out| problems(out, &list, &look(200)));
        assert!(
            text.contains("CRITICAL  web01  disk /   1h 0m  2/3 soft      30s  eu/1          DISK CRITICAL ?[31m"),
            "{text}"
        );
        assert!(text.contains("DOWN      db01   (host)   2d 1h  3/3             –  nobody stale"), "{text}");
        assert!(text.ends_with("\n1 host, 1 service\n"), "{text}");
        for width in [80, 200] {
            let text = written(|out| problems(out, &list, &look(width)));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        }
    }

    #[test]
    fn a_lost_slot_is_one_line_and_a_wrong_clock_is_told_in_words() {
        let incident = json!([{ "kind": "slot-lost", "text": "slot eu/2 is lost: other slots took over its 12 checks", "since": "2026-01-01T00:57:00Z" }]);
        let text = written(|out| incidents(out, &incident, &look(80)));
        assert_eq!(text, "slot eu/2 is lost: other slots took over its 12 checks (for 3m 0s)\n\n");
        let narrow = written(|out| incidents(out, &incident, &look(40)));
        assert_eq!(narrow, "slot eu/2 is lost: other slots took over\n  its 12 checks (for 3m 0s)\n\n");
        let slot = |clock_ms: i64, state: &str, lost: Option<&str>, drained: Option<&str>| {
            json!({
                "region": "eu", "slot": 1, "expected": true, "connected": lost.is_none(), "stale": lost.is_some(), "checks": 12,
                "clock_offset_ms": clock_ms, "clock": state, "lost": lost, "drained": drained,
            })
        };
        let table = [
            (slot(-3, "OK", None, None), "connected ", "-3 ms"),
            (slot(3_600_000, "CRITICAL", None, None), "connected ", "+1h 0m CRITICAL"),
            (slot(-1_500, "WARNING", None, None), "connected ", "-1500 ms WARNING"),
            (slot(0, "OK", Some("2026-01-01T00:57:00Z"), None), "lost ", "+0 ms"),
            (slot(0, "OK", None, Some("ann")), "connected, drained ", "+0 ms"),
        ];
        for (slot, link, clock) in table {
            let text = written(|out| slots(out, &json!({ "items": [slot] }), &look(200)));
            assert!(text.contains(&format!("eu/1  {link}")) && text.contains(clock), "{text}");
        }
    }

    #[test]
    fn slots_fit_80_columns_and_count_what_is_missing() {
        let slot = |number: u64, connected: bool| {
            json!({
                "region": "eu", "slot": number, "expected": true, "connected": connected, "stale": !connected, "checks": 12, "hosts": 3,
                "undelivered": 0, "lag_seconds": 0, "clock_offset_ms": -3, "results": 123_456, "applied_generation": 4,
                "software": "0.1.0", "since": "2026-01-01T00:00:00Z", "remote": "[2001:db8::1234:5678]:43210",
            })
        };
        let list = json!({ "items": [slot(1, true), slot(2, false)] });
        for width in [80, 200] {
            let text = written(|out| slots(out, &list, &look(width)));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(text.contains("eu/1  connected") && text.contains("eu/2  missing"), "{text}");
            assert!(text.ends_with("1 of 2 expected slots connected\n"), "{text}");
        }
    }
}
