//! Words of a command line into options and operands, by the rules of getopt_long, and the page that says which there are.
//! Knows what options look like, not what they mean: a value is a text until the built-in it belongs to reads it.
//! The surprise: nothing is split any further; a word that holds blanks, quotes or `;` is one value.

use std::fmt::Write as _;

/// Words of one command line; more are refused.
pub const WORDS_MAX: usize = 256;
/// Bytes of one word; a longer one is refused. Twice the longest path of Linux.
pub const WORD_MAX: usize = 8192;
/// Columns of a page: what a terminal has at the least.
const PAGE_WIDTH: usize = 80;
/// Column of a page, behind two blanks, at which the meaning of an option begins.
const HELP_AT: usize = 31;

/// An option that a built-in understands.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its letter, if it has one.
    pub short: Option<char>,
    /// Its long name, by which it is asked for afterwards.
    pub long: &'static str,
    /// What stands for its value in the manual; empty: it takes none.
    pub value: &'static str,
    /// What it does, one line.
    pub help: &'static str,
}

/// Every built-in has it.
const HELP: Known = Known { short: Some('h'), long: "help", value: "", help: "Show this page" };

/// What a built-in says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Manual {
    /// The word that calls it.
    pub name: &'static str,
    /// What it watches, one line.
    pub about: &'static str,
    /// What follows the options, as the usage line shows it; empty: nothing may.
    pub operands: &'static str,
    /// Its options, `--help` left out.
    pub options: &'static [Known],
    /// Arguments worth starting from.
    pub example: &'static str,
    /// What people trip over.
    pub notes: &'static str,
}

/// The command line of a built-in is wrong. The text names the option and says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// What was on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    options: Vec<(&'static str, String)>,
    /// Words that are no option, in order.
    pub operands: Vec<String>,
}

impl Given {
    /// The value of an option; the last one where it came several times.
    #[must_use]
    pub fn last(&self, long: &str) -> Option<&str> {
        self.options.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All values of an option that may come several times.
    pub fn all<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// Whether an option came at all.
    #[must_use]
    pub fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// The value of an option as a whole number between the bounds, or the default.
    ///
    /// # Errors
    /// It is no such number.
    pub fn number(&self, long: &str, bounds: std::ops::RangeInclusive<u64>, default: u64) -> Result<u64, Misuse> {
        let Some(text) = self.last(long) else { return Ok(default) };
        text.parse().ok().filter(|number| bounds.contains(number)).ok_or_else(|| {
            Misuse(format!("--{long}: `{text}` is not a whole number from {} to {}", bounds.start(), bounds.end()))
        })
    }
}

impl Manual {
    /// Reads the words behind the name of the built-in: `-w5`, `-w 5`, `--warning=5`, `--warn 5`, `-rw5`; options and operands in
    /// any order, after `--` operands only.
    ///
    /// # Errors
    /// An option that is not known or ambiguous, a value that is missing or not wanted, an operand where none may be, too many or
    /// too long words.
    pub fn read(&self, words: &[String]) -> Result<Given, Misuse> {
        if words.len() > WORDS_MAX {
            return Err(Misuse(format!("more than {WORDS_MAX} words")));
        }
        if let Some(long) = words.iter().find(|word| word.len() > WORD_MAX || word.contains('\0')) {
            let start: String = long.chars().take(20).filter(|letter| !letter.is_control()).collect();
            return Err(Misuse(format!("a word of more than {WORD_MAX} bytes or with a zero byte: `{start}…`")));
        }
        let mut given = Given::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                given.operands.extend(words.by_ref().cloned());
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let known = self.named(name)?;
                let value = match (known.value.is_empty(), value) {
                    (true, Some(_)) => return Err(Misuse(format!("--{} takes no value", known.long))),
                    (true, None) => String::new(),
                    (false, Some(value)) => value.to_owned(),
                    (false, None) => words.next().cloned().ok_or_else(|| without_value(known))?,
                };
                given.options.push((known.long, value));
            } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                let mut letters = letters.chars();
                while let Some(letter) = letters.next() {
                    let known = self.lettered(letter)?;
                    if known.value.is_empty() {
                        given.options.push((known.long, String::new()));
                        continue;
                    }
                    let rest = letters.as_str();
                    let value = match rest.is_empty() {
                        true => words.next().cloned().ok_or_else(|| without_value(known))?,
                        false => rest.to_owned(),
                    };
                    given.options.push((known.long, value));
                    break;
                }
            } else {
                given.operands.push(word.clone());
            }
        }
        match given.operands.first() {
            Some(operand) if self.operands.is_empty() => Err(Misuse(format!("`{operand}` is not an option"))),
            _ => Ok(given),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Known> {
        self.options.iter().chain([&HELP])
    }

    fn lettered(&self, letter: char) -> Result<Known, Misuse> {
        let found = self.all().find(|known| known.short == Some(letter));
        found.copied().ok_or_else(|| Misuse(format!("there is no option -{letter}")))
    }

    /// By its whole name, or by the beginning of one name only.
    fn named(&self, name: &str) -> Result<Known, Misuse> {
        if let Some(known) = self.all().find(|known| known.long == name) {
            return Ok(*known);
        }
        let mut found = self.all().filter(|known| !name.is_empty() && known.long.starts_with(name));
        match (found.next(), found.next()) {
            (Some(known), None) => Ok(*known),
            (Some(one), Some(other)) => Err(Misuse(format!("--{name} could be --{} or --{}", one.long, other.long))),
            (None, _) => Err(Misuse(format!("there is no option --{name}"))),
        }
    }

    /// Its page: usage, options, notes, an example.
    #[must_use]
    pub fn page(&self) -> String {
        let operands = if self.operands.is_empty() { String::new() } else { format!(" {}", self.operands) };
        let mut page = format!("{}\n\nUsage: {} [options]{operands}\n\nOptions:\n", self.about, self.name);
        for known in self.all() {
            let short = known.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
            let value = if known.value.is_empty() { String::new() } else { format!("={}", known.value) };
            let option = format!("  {:<HELP_AT$}", format!("{short}--{}{value} ", known.long));
            page.push_str(&wrapped(&option, HELP_AT + 2, known.help));
        }
        if !self.notes.is_empty() {
            page.push('\n');
            page.push_str(&wrapped("", 0, self.notes));
        }
        let example = format!("{} {}", self.name, self.example);
        let _ = write!(page, "\nExample: {}", example.trim_end());
        page
    }
}

/// A text behind its head, in lines that fit, the further ones indented.
fn wrapped(head: &str, indent: usize, text: &str) -> String {
    let mut lines = head.to_owned();
    let mut length = head.chars().count();
    let mut begun = false;
    for word in text.split_whitespace() {
        let size = word.chars().count();
        if begun && length + 1 + size > PAGE_WIDTH {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', indent));
            length = indent;
        } else if begun {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += size;
        begun = true;
    }
    lines.truncate(lines.trim_end().len());
    lines.push('\n');
    lines
}

fn without_value(known: Known) -> Misuse {
    Misuse(format!("--{} needs a value: {}", known.long, known.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MANUAL: Manual = Manual {
        name: "sample",
        about: "Watches nothing",
        operands: "[NAME…]",
        options: &[
            Known { short: Some('w'), long: "warning", value: "RANGE", help: "" },
            Known { short: Some('c'), long: "critical", value: "RANGE", help: "" },
            Known { short: Some('r'), long: "percpu", value: "", help: "" },
            Known { short: None, long: "percent", value: "", help: "" },
        ],
        example: "-w 5",
        notes: "",
    };

    fn words(line: &str) -> Vec<String> {
        line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// words | options | operands
    const READ: &str = "
        -w 5                | warning=5             |
        -w5                 | warning=5             |
        -w -5               | warning=-5            |
        -rw5                | percpu= warning=5     |
        -rw 5 -r            | percpu= warning=5 percpu= |
        --warning 5         | warning=5             |
        --warning=5         | warning=5             |
        --warning==5        | warning==5            |
        --warn 5            | warning=5             |
        --w=@1:2            | warning=@1:2          |
        a -w 1 b            | warning=1             | a b
        -w 1 -- -c 2        | warning=1             | -c 2
        -                   |                       | -
        --percent x         | percent=              | x
        -w 1 -w 2           | warning=1 warning=2   |
        -h                  | help=                 |
        a;b $(c)            |                       | a;b $(c)
    ";

    #[test]
    fn words_are_read_as_getopt_reads_them() {
        let mut rows = 0;
        for row in READ.lines().filter(|row| !row.trim().is_empty()) {
            let columns: Vec<&str> = row.split('|').collect();
            let given = MANUAL.read(&words(columns[0].trim())).unwrap_or_else(|error| panic!("{row}: {error}"));
            let options: Vec<String> = given.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(options, words(columns[1].trim()), "{row}");
            assert_eq!(given.operands, words(columns[2].trim()), "{row}");
            rows += 1;
        }
        assert_eq!(rows, 17);
        let given = MANUAL.read(&words("-w 1 -w 2")).unwrap();
        assert_eq!((given.last("warning"), given.all("warning").count(), given.has("critical")), (Some("2"), 2, false));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, says) in [
            ("-x", "there is no option -x"),
            ("-rx", "there is no option -x"),
            ("--exact", "there is no option --exact"),
            ("--=3", "there is no option --"),
            ("--perc", "--perc could be --percpu or --percent"),
            ("-w", "--warning needs a value: RANGE"),
            ("--critical", "--critical needs a value: RANGE"),
            ("--percpu=2", "--percpu takes no value"),
        ] {
            assert_eq!(MANUAL.read(&words(line)), Err(Misuse(says.to_owned())), "{line}");
        }
        let bare = Manual { operands: "", ..MANUAL };
        assert_eq!(bare.read(&words("-w 1 x")), Err(Misuse("`x` is not an option".to_owned())));
        let many = vec![String::new(); WORDS_MAX + 1];
        assert!(MANUAL.read(&many).is_err());
        assert!(MANUAL.read(&["ü".repeat(WORD_MAX)]).is_err());
        assert!(MANUAL.read(&["a\0b".to_owned()]).is_err());
    }

    #[test]
    fn a_number_has_bounds_and_a_default() {
        let given = MANUAL.read(&words("-w 70000 -c 12")).unwrap();
        assert_eq!(given.number("critical", 1..=60, 5), Ok(12));
        assert_eq!(given.number("percent", 1..=60, 5), Ok(5));
        let wrong = given.number("warning", 1..=60, 5);
        assert_eq!(wrong, Err(Misuse("--warning: `70000` is not a whole number from 1 to 60".to_owned())));
    }

    #[test]
    fn the_page_names_every_option_and_the_example() {
        let page = MANUAL.page();
        for part in [
            "Usage: sample [options] [NAME…]",
            "-w, --warning=RANGE",
            "    --percent",
            "-h, --help",
            "Example: sample -w 5",
        ] {
            assert!(page.contains(part), "{part}:\n{page}");
        }
    }

    #[test]
    fn a_page_fits_a_terminal_and_loses_no_word() {
        const HELP: &str = "WARNING when so little is free: 10%, 5G (a number alone: MiB), or a range";
        const OPTIONS: &[Known] = &[Known { short: Some('w'), long: "warning", value: "LIMIT", help: HELP }];
        let page = Manual { options: OPTIONS, notes: "one\ntwo", ..MANUAL }.page();
        assert!(page.lines().all(|line| line.chars().count() <= PAGE_WIDTH), "{page}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert!(words(&page).contains(&words(HELP)) && page.contains("\none two\n"), "{page}");
        assert!(page.contains("  -w, --warning=LIMIT            WARNING when"), "{page}");
    }

    proptest! {
        #[test]
        fn any_words_are_read_or_refused(line in proptest::collection::vec("[-=wcrh5%:é ]{0,6}|.{0,8}", 0..8)) {
            if let Ok(given) = MANUAL.read(&line) {
                prop_assert!(given.operands.len() + given.options.len() <= line.iter().map(String::len).sum::<usize>() + line.len());
            }
        }
    }
}
