//! Characters that a text from a stranger must not carry to a terminal, a page or a file: those that are obeyed instead of read.
//! Knows no text of its own.
//!
//! The surprise: a control character is not the only one. A mark of direction (Unicode TR 36) makes OK out of what says CRITICAL,
//! and two separators that are no control characters end a line, and with it a comment, for some readers of YAML and JSON.

/// Whether a character is obeyed instead of read: controls (line feed and tab among them), marks of direction, separators of lines
/// and paragraphs.
#[must_use]
pub fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_told_from_what_is_obeyed() {
        for char in
            ['\0', '\n', '\t', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2067}']
        {
            assert!(is_obeyed(char), "{char:?}");
        }
        for char in [' ', 'a', 'ß', '|', '\u{a0}', '\u{202f}', '–', '\u{5d0}', '\u{1f600}', '\u{fffd}'] {
            assert!(!is_obeyed(char), "{char:?}");
        }
    }
}
