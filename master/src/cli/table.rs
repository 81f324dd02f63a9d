//! Tables for terminals: columns that fit the width there is. Pure. Decides what is left out first and how a text is cut; knows nothing of
//! what the columns mean. Text of the monitored world is made harmless here: a terminal must not obey a plugin's output.

use std::fmt::Write as _;

use shared::text::is_obeyed;

/// A terminal counts as at least this wide.
pub(super) const WIDTH_MIN: usize = 40;
/// The elastic column is not cut below this; other columns are left out before.
const ELASTIC_MIN: usize = 24;
/// Between two columns.
const SPACE: usize = 2;

/// One column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    title: &'static str,
    /// Left out when the width does not suffice, the greatest first; 0: never.
    expendable: u8,
    right: bool,
}

/// A column that is always there.
pub(super) const fn column(title: &'static str) -> Column {
    Column { title, expendable: 0, right: false }
}

impl Column {
    /// May be left out; the greatest rank goes first.
    pub(super) const fn expendable(self, rank: u8) -> Self {
        Self { expendable: rank, ..self }
    }

    /// Numbers stand on the right.
    pub(super) const fn right(self) -> Self {
        Self { right: true, ..self }
    }
}

/// A cell: its text and the colour of it, as the number of an SGR sequence.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    colour: Option<&'static str>,
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: printable(text.as_ref()), colour: None }
    }
}

impl Cell {
    /// The same in a colour.
    pub(super) fn coloured(self, colour: Option<&'static str>) -> Self {
        Self { colour, ..self }
    }
}

/// Text without anything that a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if is_obeyed(c) => '?',
            c => c,
        })
        .collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Words in lines of at most `width` characters, all but the first indented. A longer word stands alone.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    const INDENT: &str = "  ";
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        if used > 0 && used + 1 + length(word) > width {
            lines.push('\n');
            lines.push_str(INDENT);
            used = INDENT.len();
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length(word);
    }
    lines
}

/// The rows under their titles, no line longer than `width`; the last column is elastic.
pub(super) fn render(columns: &[Column], rows: &[Vec<Cell>], width: usize, colours: bool) -> String {
    let natural: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(place, column)| {
            let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| length(&cell.text));
            cells.chain([length(column.title)]).max().unwrap_or(0)
        })
        .collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(elastic) = shown.last().copied() else { return String::new() };
    let least = |place: usize| {
        let natural = natural.get(place).copied().unwrap_or(0);
        if place == elastic { natural.min(ELASTIC_MIN) } else { natural }
    };
    let needed = |shown: &[usize]| {
        shown.iter().map(|place| least(*place)).sum::<usize>() + SPACE * shown.len().saturating_sub(1)
    };
    while needed(&shown) > width {
        let rank = |place: &usize| columns.get(*place).map_or(0, |column| column.expendable);
        let Some(gone) = shown.iter().copied().filter(|place| rank(place) > 0).max_by_key(|place| rank(place)) else {
            break;
        };
        shown.retain(|place| *place != gone);
    }
    let mut widths: Vec<usize> = shown.iter().map(|place| least(*place)).collect();
    let rest = width.saturating_sub(needed(&shown));
    if let (Some(last), Some(place)) = (widths.last_mut(), shown.last()) {
        *last = natural.get(*place).copied().unwrap_or(0).min(last.saturating_add(rest));
    }
    // Too wide even so: long names are cut, the longest first.
    let mut surplus = needed(&shown).saturating_sub(width);
    while surplus > 0 {
        let Some(longest) = widths.iter_mut().max() else { break };
        if *longest <= 4 {
            break;
        }
        *longest -= 1;
        surplus -= 1;
    }
    let mut text = String::new();
    let titles: Vec<Cell> = columns.iter().map(|column| Cell::from(column.title)).collect();
    for row in std::iter::once(&titles).chain(rows) {
        line(&mut text, columns, row, &shown, &widths, colours);
    }
    text
}

fn line(text: &mut String, columns: &[Column], row: &[Cell], shown: &[usize], widths: &[usize], colours: bool) {
    let mut line = String::new();
    for (number, (place, width)) in shown.iter().zip(widths).enumerate() {
        let cell = row.get(*place).cloned().unwrap_or_default();
        let cut = cut(&cell.text, *width);
        let space = " ".repeat(width.saturating_sub(length(&cut)));
        let painted = match cell.colour.filter(|_| colours) {
            Some(colour) => format!("\u{1b}[{colour}m{cut}\u{1b}[0m"),
            None => cut,
        };
        if number > 0 {
            line.push_str(&" ".repeat(SPACE));
        }
        let right = columns.get(*place).is_some_and(|column| column.right);
        // Writing into a String cannot fail.
        let _ = if right { write!(line, "{space}{painted}") } else { write!(line, "{painted}{space}") };
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        vec![
            column("STATE"),
            column("HOST"),
            column("AGE").expendable(1).right(),
            column("SLOT").expendable(2),
            column("OUTPUT"),
        ]
    }

    fn row(host: &str, output: &str) -> Vec<Cell> {
        ["CRITICAL", host, "5m", "eu/1", output].map(Cell::from).to_vec()
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_and_states_are_never_cut() {
        let rows = vec![row("web01.example.net", &"x".repeat(300)), row(&"h".repeat(120), "y")];
        for width in [40, 60, 80, 200] {
            let text = render(&columns(), &rows, width, false);
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            assert!(text.lines().skip(1).all(|line| line.starts_with("CRITICAL ")), "{text}");
        }
        let wide = render(&columns(), &rows[..1], usize::MAX, false);
        assert!(wide.contains(&"x".repeat(300)));
    }

    #[test]
    fn the_least_wanted_column_goes_first() {
        let rows = vec![row("web01.example.net", "a text of some length")];
        assert!(render(&columns(), &rows, 80, false).contains("eu/1"));
        let narrow = render(&columns(), &rows, 60, false);
        assert!(!narrow.contains("eu/1") && narrow.contains("5m"), "{narrow}");
        let narrower = render(&columns(), &rows, 54, false);
        assert!(!narrower.contains("5m"), "{narrower}");
    }

    #[test]
    fn a_terminal_is_told_colours_only_when_asked_and_never_by_a_text() {
        let hostile = Cell::from("a\u{1b}[2Jb\u{202e}c\nd");
        assert_eq!(hostile.text, "a?[2Jb?c?d");
        let rows = vec![vec![Cell::from("DOWN").coloured(Some("31")), hostile]];
        let columns = [column("STATE"), column("OUTPUT")];
        assert!(render(&columns, &rows, 80, true).contains("\u{1b}[31mDOWN\u{1b}[0m   a?"));
        assert!(!render(&columns, &rows, 80, false).contains('\u{1b}'));
    }
}
