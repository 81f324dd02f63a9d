//! Age and size of a file, in the words and with the defaults of check_file_age; a missing file is CRITICAL.
//! Judges what was found; does not look itself.

use shared::check::State;

use super::limit::{Limit, Limits, Sense, Unit};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures, plain, worse};

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "file-age",
    about: "Age and size of a file",
    operands: "FILE",
    options: &[
        Known { short: Some('f'), long: "file", value: "FILE", help: "The file, if it does not stand alone" },
        Known {
            short: Some('w'),
            long: "warning",
            value: "TIME",
            help: "WARNING when older: seconds, 30m, 2h … [default: 240]",
        },
        Known { short: Some('c'), long: "critical", value: "TIME", help: "CRITICAL when older [default: 600]" },
        Known {
            short: Some('W'), long: "warning-size", value: "SIZE", help: "WARNING when smaller: bytes, 10K, 2M …"
        },
        Known { short: Some('C'), long: "critical-size", value: "SIZE", help: "CRITICAL when smaller" },
        Known { short: Some('i'), long: "ignore-missing", value: "", help: "OK when there is no such file" },
    ],
    example: "-w 1d -c 2d -C 1 /var/log/dpkg.log",
    notes: "The age is counted from the last change of the content (mtime). Ranges are understood in all four.",
};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The file to look at.
    pub file: String,
    age: Limits,
    size: Limits,
    ignore_missing: bool,
}

/// What was found there.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// A file, or anything else that has a time.
    Found {
        /// Seconds since it was changed; negative: its time lies in the future.
        age: f64,
        /// Bytes.
        size: u64,
    },
    /// No such file.
    Missing,
    /// It cannot be looked at; why.
    Closed(String),
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// No file or two, or a threshold is none.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        let mut files = given.all("file").chain(given.operands.iter().map(String::as_str));
        let (Some(file), None) = (files.next(), files.next()) else {
            return Err(Misuse("one FILE is needed".to_owned()));
        };
        let mut age = Limits::of(given, "warning", "critical", Sense::Above, Unit::Seconds)?;
        let default = |text| Limit::parse(text, Sense::Above, Unit::Seconds).ok();
        age.warning = age.warning.or_else(|| default("240"));
        age.critical = age.critical.or_else(|| default("600"));
        let size = Limits::of(given, "warning-size", "critical-size", Sense::Below, Unit::Bytes(1))?;
        Ok(Self { file: file.to_owned(), age, size, ignore_missing: given.has("ignore-missing") })
    }
}

/// State, text and performance data: `age` in seconds, `size` in bytes.
#[must_use]
pub fn judge(wanted: &Wanted, reading: &Reading) -> Answer {
    let file = plain(&wanted.file);
    let (age, size) = match reading {
        Reading::Found { age, size } => (*age, *size),
        Reading::Missing if wanted.ignore_missing => {
            let text = format!("FILE_AGE OK: {file} doesn't exist, but ignore-missing was set");
            return Answer { state: State::Ok, text };
        }
        Reading::Missing => {
            return Answer { state: State::Critical, text: format!("FILE_AGE CRITICAL: File not found - {file}") };
        }
        Reading::Closed(why) => return Answer::unknown(format!("FILE_AGE UNKNOWN: {file}: {}", plain(why))),
    };
    // A time in the future is shown as it is and judged as fresh, as check_file_age does.
    let state = worse(wanted.age.state(age.max(0.0), 0.0), wanted.size.state(size as f64, 0.0));
    let mut figures = Figures::default();
    figures.add("age", age, "s", wanted.age.shown(age), None, None);
    figures.judged("size", size as f64, "B", &wanted.size, size as f64, None);
    let old = match age < 0.0 {
        true => format!("dated {:.0} seconds in the future", -age),
        false => format!("{age:.0} seconds old"),
    };
    figures.answer(state, &format!("FILE_AGE {state}: {file} is {old} and {size} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(line: &str, reading: &Reading) -> Answer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        judge(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), reading)
    }

    #[test]
    fn old_and_small_files_alert() {
        for (line, age, size, state) in [
            ("f", 240.0, 0, State::Ok),
            ("f", 241.0, 0, State::Warning),
            ("f", 601.0, 0, State::Critical),
            ("f", -30.0, 0, State::Ok),
            ("-w 1h -c 2h f", 3601.0, 0, State::Warning),
            ("-f f -W 10", 0.0, 9, State::Warning),
            ("-f f -W 10", 0.0, 10, State::Ok),
            ("-f f -W 10 -C 5", 0.0, 4, State::Critical),
            ("-C 1K f", 241.0, 1023, State::Critical),
            ("-C 1:2K f", 0.0, 4096, State::Critical),
            ("-w 60: -c 0: f", 59.0, 0, State::Warning),
        ] {
            assert_eq!(judged(line, &Reading::Found { age, size }).state, state, "{line} {age} {size}");
        }
        assert_eq!(
            judged("-w 10 -c 20 -W 10 -C 5000 /etc/passwd", &Reading::Found { age: 12426.0, size: 1339 }).text,
            "FILE_AGE CRITICAL: /etc/passwd is 12426 seconds old and 1339 bytes|age=12426s;10;20 size=1339B;10;5000;0"
        );
        let future = judged("f", &Reading::Found { age: -7.0, size: 0 });
        assert!(future.text.contains("is dated 7 seconds in the future"), "{}", future.text);
    }

    #[test]
    fn a_missing_file_is_critical_unless_told() {
        assert_eq!(judged("/x", &Reading::Missing).text, "FILE_AGE CRITICAL: File not found - /x");
        assert_eq!(judged("/x", &Reading::Missing).state, State::Critical);
        assert_eq!(judged("-i /x", &Reading::Missing).state, State::Ok);
        let closed = judged("/x|\n", &Reading::Closed("permission denied".to_owned()));
        assert_eq!((closed.state, closed.text.as_str()), (State::Unknown, "FILE_AGE UNKNOWN: /x?: permission denied"));
        for line in ["", "a b", "-f a b"] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(Wanted::of(&MANUAL.read(&words).unwrap()), Err(Misuse("one FILE is needed".to_owned())));
        }
    }
}
