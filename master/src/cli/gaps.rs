//! Results that will never come, as people read them: a line for each gap, and once for each reason what it means. Asks nobody.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::Value;

use super::show::{Look, count, items, plural, since, text};
use super::table::{self, Cell, column, printable};

/// How many results a gap is; of one at the end of a run nobody knows.
fn lost(gap: &Value) -> String {
    format!("{}{}", count(&gap["lost"]), if gap["open_ended"] == true { "+" } else { "" })
}

/// Results that will never come.
pub(super) fn gaps(out: &mut dyn Write, gaps: &Value, look: &Look) -> io::Result<()> {
    if items(gaps).is_empty() {
        return writeln!(out, "no gaps: every result that was made has arrived or is still on its way");
    }
    let columns = [
        column("WHOSE"),
        column("LOST").right(),
        column("REASON"),
        column("NAMED").expendable(1).right(),
        column("EXPLAINED").expendable(2),
        column("SEQUENCES").expendable(4),
        column("FROM").expendable(3),
        column("TO").expendable(3),
        column("RUN").expendable(5),
    ];
    let rows: Vec<Vec<Cell>> = items(gaps)
        .iter()
        .map(|gap| {
            vec![
                Cell::from(match gap["writer"].as_str() {
                    Some(writer) => writer.to_owned(),
                    None => format!("{}/{}", text(&gap["region"]), text(&gap["slot"])),
                }),
                Cell::from(if gap["lost"].is_u64() { lost(gap) } else { "rows".to_owned() }),
                Cell::from(text(&gap["reason"])),
                Cell::from(format!("{} ago", since(&gap["at"], look))),
                Cell::from(if gap["explained"] == true { "yes" } else { "NO" }),
                Cell::from(format!("{}–{}", count(&gap["first"]), count(&gap["last"]))),
                Cell::from(text(&gap["from"])),
                Cell::from(text(&gap["to"])),
                Cell::from(text(&gap["run"])),
            ]
        })
        .collect();
    out.write_all(table::render(&columns, &rows, look.width, look.colours).as_bytes())?;
    let lost: u64 = items(gaps).iter().map(|gap| count(&gap["lost"])).sum();
    let number = u64::try_from(items(gaps).len()).unwrap_or(u64::MAX);
    let least = if items(gaps).iter().any(|gap| gap["open_ended"] == true) { "at least " } else { "" };
    writeln!(out, "\n{}, {least}{}", plural(number, "gap", "gaps"), plural(lost, "result lost", "results lost"))?;
    let meanings: BTreeMap<&str, &str> =
        items(gaps).iter().filter_map(|gap| Some((gap["reason"].as_str()?, gap["meaning"].as_str()?))).collect();
    meanings.into_iter().try_for_each(|(reason, meaning)| {
        writeln!(out, "{}", table::wrapped(&printable(&format!("{reason}: {meaning}")), look.width))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shared::delivery::reason;

    const WIDTH: usize = 80;

    fn written(list: &Value) -> String {
        let look = Look { width: WIDTH, colours: false, now: "2026-01-01T01:00:00Z".parse().unwrap() };
        let mut out = Vec::new();
        gaps(&mut out, list, &look).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn gap(why: &str, explained: bool) -> Value {
        json!({
            "index": 9, "at": "2026-01-01T00:00:00Z", "region": "eu", "slot": 1, "run": "2a", "writer": null, "first": 5, "last": 9,
            "lost": 5, "open_ended": reason::is_open_ended(why), "reason": why, "meaning": reason::meaning(why),
            "explained": explained, "from": null, "to": null,
        })
    }

    #[test]
    fn no_gap_says_what_that_means() {
        assert!(written(&json!({ "items": [] })).starts_with("no gaps: "));
    }

    #[test]
    fn each_reason_is_put_into_words_once() {
        let list = [
            gap(reason::STRANDED, true),
            gap(reason::SPOOL_FULL, true),
            gap(reason::SPOOL_FULL, true),
            gap("unreadable: no batch", false),
        ];
        let text = written(&json!({ "items": list }));
        assert!(text.contains("5+  stranded") && text.contains("\n4 gaps, at least 20 results lost\n"), "{text}");
        for why in [reason::STRANDED, reason::SPOOL_FULL] {
            let said = table::wrapped(&format!("{why}: {}", reason::meaning(why).unwrap()), WIDTH);
            assert_eq!(text.matches(&said).count(), 1, "{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("unreadable: ")).count(), 0, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let text = written(&json!({ "items": [gap(reason::SPOOL_FULL, true)] }));
        assert!(text.contains("\n1 gap, 5 results lost\n"), "{text}");
    }
}
