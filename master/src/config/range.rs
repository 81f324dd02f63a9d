//! Host ranges: `web[01-40].example.net` is forty names. Several brackets make every combination, the last one counting fastest.
//!
//! A bracket holds numbers, ranges of numbers and words, with commas: `[1-3,7]`, `[a,b]`. The width of the first number is kept:
//! `[01-40]` gives `01`, `[1-40]` gives `1`. Knows nothing of hosts.

/// Most names one range may become; a longer one is a mistake rather than a full memory.
pub const EXPANSION_MAX: usize = 100_000;
/// Most names held back per element: a number wider than this is a slip of the finger.
const WIDTH_MAX: usize = 12;

/// Why a range cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// `[` without `]`, or the other way round.
    #[error("the brackets of “{0}” do not match")]
    Brackets(String),
    /// Nothing between two commas or in a bracket.
    #[error("“[{0}]” has an empty element")]
    Empty(String),
    /// `[9-1]`
    #[error("the range “{0}” goes backwards")]
    Backwards(String),
    /// `[a-c]` and the like.
    #[error("“{0}” is no range of numbers")]
    Numbers(String),
    /// More names than `EXPANSION_MAX`.
    #[error("“{text}” is more than {max} names")]
    Many { text: String, max: usize },
}

/// The names a pattern stands for, in order; one without brackets stands for itself.
///
/// # Errors
/// When a bracket is not closed, empty, backwards, no number, or the names are more than `EXPANSION_MAX`.
pub fn expand(pattern: &str) -> Result<Vec<String>, RangeError> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    let brackets = || RangeError::Brackets(pattern.to_owned());
    let many = || RangeError::Many { text: pattern.to_owned(), max: EXPANSION_MAX };
    while !rest.is_empty() {
        let Some(at) = rest.find(['[', ']']) else {
            append(&mut names, rest);
            break;
        };
        let (before, tail) = rest.split_at(at);
        append(&mut names, before);
        let inner = tail.strip_prefix('[').ok_or_else(brackets)?;
        let (inner, tail) = inner.split_once(']').ok_or_else(brackets)?;
        if inner.contains('[') {
            return Err(brackets());
        }
        let elements =
            elements(inner, EXPANSION_MAX / names.len().max(1)).map_err(|error| error.unwrap_or_else(many))?;
        names = names.iter().flat_map(|name| elements.iter().map(move |element| format!("{name}{element}"))).collect();
        rest = tail;
    }
    Ok(names)
}

fn append(names: &mut [String], text: &str) {
    for name in names {
        name.push_str(text);
    }
}

/// The elements of one bracket; `Err(None)` when there are more than `most`.
fn elements(inner: &str, most: usize) -> Result<Vec<String>, Option<RangeError>> {
    let mut elements = Vec::new();
    for part in inner.split(',') {
        let part = part.trim();
        if part.is_empty() {
            return Err(Some(RangeError::Empty(inner.to_owned())));
        }
        match part.split_once('-') {
            None => elements.push(part.to_owned()),
            Some((first, last)) => {
                let (first, last) = (first.trim(), last.trim());
                let number = |text: &str| {
                    let fits = !text.is_empty() && text.len() <= WIDTH_MAX && text.bytes().all(|b| b.is_ascii_digit());
                    fits.then(|| text.parse::<u64>().ok())
                        .flatten()
                        .ok_or_else(|| Some(RangeError::Numbers(part.to_owned())))
                };
                let (from, to) = (number(first)?, number(last)?);
                if from > to {
                    return Err(Some(RangeError::Backwards(part.to_owned())));
                }
                if to - from >= most as u64 {
                    return Err(None);
                }
                let width = first.len();
                elements.extend((from..=to).map(|number| format!("{number:0width$}")));
            }
        }
        if elements.len() > most {
            return Err(None);
        }
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_keeps_its_zeros() {
        let names = expand("web[01-40].example.net").unwrap();
        assert_eq!(names.len(), 40);
        assert_eq!((names[0].as_str(), names[39].as_str()), ("web01.example.net", "web40.example.net"));
        assert_eq!(expand("n[8-11]").unwrap(), ["n8", "n9", "n10", "n11"]);
        assert_eq!(expand("n[008-010]").unwrap(), ["n008", "n009", "n010"]);
    }

    #[test]
    fn several_brackets_combine_and_lists_name_single_ones() {
        assert_eq!(expand("r[1-2]n[a,b]").unwrap(), ["r1na", "r1nb", "r2na", "r2nb"]);
        assert_eq!(expand("n[1-2, 7]").unwrap(), ["n1", "n2", "n7"]);
        assert_eq!(expand("plain").unwrap(), ["plain"]);
    }

    #[test]
    fn what_is_no_range_is_said() {
        assert!(matches!(expand("a[1-2"), Err(RangeError::Brackets(_))));
        assert!(matches!(expand("a]1"), Err(RangeError::Brackets(_))));
        assert!(matches!(expand("a[[1]]"), Err(RangeError::Brackets(_))));
        assert!(matches!(expand("a[]"), Err(RangeError::Empty(_))));
        assert!(matches!(expand("a[1,,2]"), Err(RangeError::Empty(_))));
        assert!(matches!(expand("a[9-1]"), Err(RangeError::Backwards(_))));
        assert!(matches!(expand("a[x-z]"), Err(RangeError::Numbers(_))));
        assert!(matches!(expand("a[1-9999999999999999999999]"), Err(RangeError::Numbers(_))));
    }

    #[test]
    fn a_range_too_long_is_refused_before_it_is_built() {
        assert!(matches!(expand("a[0-999999999999]"), Err(RangeError::Many { .. })));
        assert!(matches!(expand("a[0-999][0-999]"), Err(RangeError::Many { .. })));
        assert_eq!(expand("a[0-999][0-99]").unwrap().len(), EXPANSION_MAX);
    }
}
