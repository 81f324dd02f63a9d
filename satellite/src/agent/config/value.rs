//! Values of `nrpe.cfg`: numbers, flags and the escapes of `nasty_metachars`, read as nrpe reads them. What it takes for something
//! else than was written is named and counts all the same; only what nrpe itself refuses is a mistake.

use std::ops::RangeInclusive;

use super::Weight;

/// What is wrong with a statement: how bad, and in words.
pub type Wrong = (Weight, String);

/// A value, and what there is to remark about it.
pub type Read<T> = (T, Option<String>);

/// A number as C's `atoi` has it, which nrpe uses: the digits at the beginning, zero if there are none. Above `bounds` the highest
/// counts.
///
/// # Errors
/// It is below its bounds; nrpe stops at that too.
pub fn number(key: &str, value: &str, bounds: RangeInclusive<i64>) -> Result<Read<i64>, Wrong> {
    let (number, exact) = atoi(value);
    if number < *bounds.start() {
        let why = if exact { format!("{number} is less than {}", bounds.start()) } else { not_whole(value) };
        return Err((Weight::Mistake, format!("{key}: {why}")));
    }
    let remark = if number > *bounds.end() {
        Some(format!("{key}: {value:?} counts as {}, the most there is", bounds.end()))
    } else {
        (!exact).then(|| format!("{key}: {}; as with nrpe it counts as {number}", not_whole(value)))
    };
    Ok((number.min(*bounds.end()), remark))
}

fn not_whole(value: &str) -> String {
    format!("{value:?} is no whole number")
}

/// 1, or not; nrpe takes everything else for 0.
#[must_use]
pub fn flag(key: &str, value: &str) -> Read<bool> {
    let (number, exact) = atoi(value);
    let remark = (!exact || !(0..=1).contains(&number))
        .then(|| format!("{key}: {value:?} is neither 0 nor 1; as with nrpe it counts as {}", i64::from(number == 1)));
    (number == 1, remark)
}

/// The leading digits, and whether there was nothing else.
pub(super) fn atoi(value: &str) -> (i64, bool) {
    let text = value.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    // More digits than a number can have are as good as the largest.
    let number = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(i64::from(i32::MAX)) };
    (sign * number, !digits.is_empty() && rest.trim().is_empty())
}

/// A set of bits as C's `strtoul` has it: decimal, 0x and hexadecimal, 0 and octal; -1 for all.
#[must_use]
pub fn bits(key: &str, value: &str) -> Read<u32> {
    let text = value.trim();
    let (digits, base) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if text == "-1" {
        return (u32::MAX, None);
    }
    let end = digits.find(|char: char| !char.is_digit(base)).unwrap_or(digits.len());
    let number = u32::from_str_radix(&digits[..end], base).unwrap_or(0);
    let whole = end == digits.len() && !digits.is_empty();
    let remark =
        (!whole).then(|| format!("{key}: {value:?} is no number such as 0x2f; as with nrpe it counts as {number}"));
    (number, remark)
}

/// The characters of `nasty_metachars`, with those of C's escapes that nrpe knows: a, b, f, n, r, t, v, quotes, `?` and the backslash.
///
/// nrpe unescapes the text in its own place and skips an escape that it does not know, so the character that stands there already
/// stays: with the first escape that is the backslash. It is kept, since it decides what is refused.
#[must_use]
pub fn metacharacters(value: &[u8]) -> Read<Vec<u8>> {
    let (mut found, mut unknown) = (Vec::new(), None);
    let mut rest = value.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            found.push(byte);
            continue;
        }
        let escaped = rest.next();
        let known = match escaped {
            Some(b'a') => Some(7),
            Some(b'b') => Some(8),
            Some(b'f') => Some(12),
            Some(b'n') => Some(b'\n'),
            Some(b'r') => Some(b'\r'),
            Some(b't') => Some(b'\t'),
            Some(b'v') => Some(11),
            Some(same @ (b'\\' | b'\'' | b'"' | b'?')) => Some(same),
            _ => None,
        };
        if known.is_none() {
            unknown = Some(escaped.map(char::from));
        }
        found.extend(known.or_else(|| value.get(found.len()).copied()));
    }
    let remark = unknown.map(|escaped| {
        let escape = escaped.map_or_else(|| "\\ at the end".to_owned(), |char| format!("\\{char}"));
        format!("nasty_metachars: nrpe knows no escape {escape}; a backslash itself is \\\\")
    });
    (found, remark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_nrpe_reads_them() {
        assert_eq!(number("a", " 60 ", 1..=100), Ok((60, None)));
        for (written, counts) in
            [("60s", 60), ("+7", 7), ("5 x", 5), ("1.5", 1), ("101", 100), ("99999999999999999999", 100)]
        {
            let (number, remark) = number("a", written, 1..=100).unwrap();
            assert_eq!(number, counts, "{written}");
            assert_eq!(remark.is_some(), written != "+7", "{written}: {remark:?}");
        }
        for refused in ["", "x", "-1", "0x10", "0"] {
            let (weight, text) = number("a", refused, 1..=100).unwrap_err();
            assert!(weight == Weight::Mistake && text.starts_with("a: "), "{text}");
        }
    }

    #[test]
    fn everything_but_1_is_no() {
        assert_eq!((flag("a", "1"), flag("a", "0")), ((true, None), (false, None)));
        for (written, counts) in [("2", false), ("yes", false), ("-1", false), ("1x", true)] {
            let (on, remark) = flag("a", written);
            assert!(on == counts && remark.is_some(), "{written}: {remark:?}");
        }
    }

    #[test]
    fn bits_are_decimal_hexadecimal_or_octal() {
        for (written, counts) in [("63", 63), ("0x2f", 47), ("0", 0), ("017", 15), ("-1", u32::MAX)] {
            assert_eq!(bits("a", written), (counts, None), "{written}");
        }
        for (written, counts) in [("abc", 0), ("63x", 63), ("0x", 0), ("09", 0)] {
            let (number, remark) = bits("a", written);
            assert!(number == counts && remark.is_some(), "{written}: {number} {remark:?}");
        }
    }

    #[test]
    fn metacharacters_may_be_written_with_escapes() {
        let (found, remark) = metacharacters(b"|`&><'\\\\[]{};\\r\\n");
        assert_eq!((found.as_slice(), remark), (b"|`&><'\\[]{};\r\n".as_slice(), None));
        assert_eq!(metacharacters(b";").0, b";");
    }

    /// Seen with Debian's daemon: `q\x7a` refuses `7` and `a`, not `z`.
    #[test]
    fn an_escape_that_nrpe_does_not_know_leaves_what_stood_there() {
        let (found, remark) = metacharacters(b"q\\x7a");
        assert_eq!(found, b"q\\7a");
        assert!(remark.unwrap().contains("no escape \\x"));
        // The second such place holds what the text has there: the x.
        assert_eq!(metacharacters(b"\\x\\x").0, b"\\x");
        let (found, remark) = metacharacters(b"a\\");
        assert!(found == b"a\\" && remark.is_some());
    }
}
