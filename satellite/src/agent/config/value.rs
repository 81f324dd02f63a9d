//! Values of `nrpe.cfg`: numbers and flags read as nrpe reads them, as long as they make sense, and the escapes of
//! `nasty_metachars`. A mistake is `(true, words)`, a warning `(false, words)`.

use std::iter::Peekable;
use std::ops::RangeInclusive;

/// A number within bounds. nrpe takes the digits at the beginning and forgets the rest, and takes no digits for zero; both are
/// mistakes here.
///
/// # Errors
/// It is none, or beyond its bounds.
pub fn number(key: &str, value: &str, bounds: RangeInclusive<i64>) -> Result<i64, (bool, String)> {
    let Ok(number) = value.trim().parse::<i64>() else {
        return Err((true, format!("{key}: {value:?} is no whole number")));
    };
    if bounds.contains(&number) {
        Ok(number)
    } else {
        Err((true, format!("{key}: {number} is not between {} and {}", bounds.start(), bounds.end())))
    }
}

/// 0 or 1; nrpe takes every other number for 0.
///
/// # Errors
/// It is neither.
pub fn flag(key: &str, value: &str) -> Result<bool, (bool, String)> {
    number(key, value, 0..=1).map(|number| number == 1)
}

/// The characters of `nasty_metachars`, with C's escapes: `\r \n \t \a \b \f \v`, `\\`, `\'`, `\"`, `\?`, `\x5b`, `\133`.
///
/// # Errors
/// The value ends with a backslash.
pub fn metacharacters(value: &[u8]) -> Result<Vec<u8>, (bool, String)> {
    let mut found = Vec::new();
    let mut rest = value.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            found.push(byte);
            continue;
        }
        let Some(escaped) = rest.next() else {
            return Err((true, "nasty_metachars ends with a backslash; a backslash itself is \\\\".to_owned()));
        };
        found.push(match escaped {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'x' => digits(&mut rest, 0, 16, 2),
            b'0'..=b'7' => digits(&mut rest, u32::from(escaped - b'0'), 8, 2),
            other => other,
        });
    }
    Ok(found)
}

/// Up to so many further digits behind those read already.
fn digits(rest: &mut Peekable<impl Iterator<Item = u8>>, read: u32, base: u32, at_most: usize) -> u8 {
    let mut number = read;
    for _ in 0..at_most {
        let Some(digit) = rest.peek().and_then(|byte| char::from(*byte).to_digit(base)) else { break };
        rest.next();
        number = number * base + digit;
    }
    u8::try_from(number & 0xff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_within_their_bounds() {
        assert_eq!(number("a", " 60 ", 1..=100), Ok(60));
        for wrong in ["", "60s", "x", "-1", "101", "0x10", "99999999999999999999"] {
            let (mistake, text) = number("a", wrong, 1..=100).unwrap_err();
            assert!(mistake && text.starts_with("a: "), "{text}");
        }
        assert_eq!((flag("a", "1"), flag("a", "0")), (Ok(true), Ok(false)));
        assert!(flag("a", "2").is_err() && flag("a", "yes").is_err());
    }

    #[test]
    fn metacharacters_may_be_written_with_escapes() {
        assert_eq!(metacharacters(b"|`&><'\\\\[]{};\\r\\n").unwrap(), b"|`&><'\\[]{};\r\n");
        assert_eq!(metacharacters(b"\\x7ca\\174b\\x9\\t\\q").unwrap(), b"|a|b\t\tq");
        assert_eq!(metacharacters(b";").unwrap(), b";");
        assert!(metacharacters(b"a\\").is_err());
    }
}
