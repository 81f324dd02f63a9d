//! What a client asks for: the text of a query split into a command's name and its arguments, refused where nrpe refuses, and
//! filled into the command line of the configuration. Pure: knows no process and no shell; it only makes the text for one.
//!
//! The surprise is nrpe's way with `$`: a command line is cut at each of them, and every second piece is a macro. `$ARG1$` is an
//! argument, `$$` is a dollar sign, and `$HOME` at the end of a line becomes `$HOME$`.

/// Arguments that a request may carry; further ones are ignored, as nrpe does.
pub const MAX_ARGUMENTS: usize = 16;
/// The longest command line that is run, in bytes (nrpe's buffer). nrpe cuts a longer one, which makes another command of it; it
/// is refused here.
pub const MAX_LINE: usize = 2047;
/// Characters refused in a request when `nasty_metachars` is not given: those that a shell would act on.
pub const NASTY: &[u8] = b"|`&><'\\[]{};\r\n";

/// Why a request is dropped without an answer, as nrpe does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing is asked for.
    #[error("the request is empty")]
    Empty,
    /// A character of `nasty_metachars`.
    #[error("the request contains {0:?}, one of nasty_metachars")]
    Metacharacter(char),
    /// Arguments, where `dont_blame_nrpe` is not 1.
    #[error("the request carries arguments, and dont_blame_nrpe is not 1")]
    Arguments,
    /// `$(` in an argument: a shell would run what stands in it.
    #[error("an argument contains $(, which a shell would run")]
    Substitution,
}

/// A request that may be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The command's name.
    pub name: Vec<u8>,
    /// Its arguments, `$ARG1$` first.
    pub arguments: Vec<Vec<u8>>,
}

/// Splits the text of a query at `!`. Empty pieces vanish, and there is no way to write a `!` in an argument.
///
/// # Errors
/// It is to be dropped: a character of `nasty`, arguments where none are allowed, `$(`, or nothing at all.
pub fn parse(text: &[u8], arguments_allowed: bool, nasty: &[u8]) -> Result<Request, Refused> {
    if text.is_empty() {
        return Err(Refused::Empty);
    }
    if let Some(&found) = text.iter().find(|byte| nasty.contains(byte)) {
        return Err(Refused::Metacharacter(char::from(found)));
    }
    if text.contains(&b'!') && !arguments_allowed {
        return Err(Refused::Arguments);
    }
    let mut pieces = text.split(|&byte| byte == b'!').filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec);
    let name = pieces.next().ok_or(Refused::Empty)?;
    let arguments: Vec<Vec<u8>> = pieces.take(MAX_ARGUMENTS).collect();
    if arguments.iter().any(|argument| argument.windows(2).any(|pair| pair == b"$(")) {
        return Err(Refused::Substitution);
    }
    Ok(Request { name, arguments })
}

/// A command line that would be longer than [`MAX_LINE`] with its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the command line would have {0} bytes with its arguments, at most {MAX_LINE} are run")]
pub struct TooLong(pub usize);

/// The line that a shell is given: the prefix, the line of the configuration, macros filled in.
///
/// # Errors
/// It is too long.
pub fn command_line(prefix: Option<&[u8]>, line: &[u8], arguments: &[Vec<u8>]) -> Result<Vec<u8>, TooLong> {
    let mut raw = Vec::new();
    if let Some(prefix) = prefix {
        raw.extend_from_slice(prefix);
        raw.push(b' ');
    }
    raw.extend_from_slice(line);
    let filled = fill(&raw, arguments);
    if filled.len() > MAX_LINE { Err(TooLong(filled.len())) } else { Ok(filled) }
}

fn fill(line: &[u8], arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(line.len());
    for (number, piece) in line.split(|&byte| byte == b'$').enumerate() {
        if number % 2 == 0 {
            filled.extend_from_slice(piece);
        } else if piece.is_empty() {
            filled.push(b'$');
        } else if let Some(number) = piece.strip_prefix(b"ARG") {
            let argument = number_of(number).and_then(|number| number.checked_sub(1)).and_then(|at| arguments.get(at));
            filled.extend_from_slice(argument.map_or(&[], Vec::as_slice));
        } else {
            filled.push(b'$');
            filled.extend_from_slice(piece);
            filled.push(b'$');
        }
    }
    filled
}

/// The leading digits as a number, as C's `atoi` has it: blanks and a plus may stand before them.
fn number_of(text: &[u8]) -> Option<usize> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// A quote that is opened and not closed, in the line of a built-in command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {0} is not closed")]
pub struct OpenQuote(pub char);

/// The words of a built-in's line: split as a shell splits them (blanks, `'…'`, `"…"`, backslash), and only then are macros filled
/// in, word by word. An argument can so never become two words, and no shell sees it. A word that is nothing but an argument that
/// was not given is left out.
///
/// # Errors
/// A quote is not closed.
pub fn words(line: &str, arguments: &[Vec<u8>]) -> Result<Vec<String>, OpenQuote> {
    let words = split(line)?.into_iter().filter_map(|(word, quoted)| {
        let filled = String::from_utf8_lossy(&fill(word.as_bytes(), arguments)).into_owned();
        (quoted || !filled.is_empty()).then_some(filled)
    });
    Ok(words.collect())
}

/// Words, and whether a part of each was quoted.
fn split(line: &str) -> Result<Vec<(String, bool)>, OpenQuote> {
    let mut words = Vec::new();
    let mut word: Option<(String, bool)> = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let (text, quoted) = word.get_or_insert_with(Default::default);
        match char {
            '\'' => {
                *quoted = true;
                loop {
                    match chars.next().ok_or(OpenQuote('\''))? {
                        '\'' => break,
                        char => text.push(char),
                    }
                }
            }
            '"' => {
                *quoted = true;
                loop {
                    match chars.next().ok_or(OpenQuote('"'))? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(OpenQuote('"'))? {
                            char @ ('"' | '\\' | '$' | '`') => text.push(char),
                            char => text.extend(['\\', char]),
                        },
                        char => text.push(char),
                    }
                }
            }
            '\\' => text.extend(chars.next()),
            char => text.push(char),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(text: &str) -> Result<(String, Vec<String>), Refused> {
        let request = parse(text.as_bytes(), true, NASTY)?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok((text(request.name), request.arguments.into_iter().map(text).collect()))
    }

    fn line(line: &str, arguments: &[&str]) -> String {
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        String::from_utf8(command_line(None, line.as_bytes(), &arguments).unwrap()).unwrap()
    }

    #[test]
    fn empty_arguments_vanish_and_a_leading_mark_is_skipped() {
        let two = ("c".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(asked("c!a!!b"), Ok(two.clone()));
        assert_eq!(asked("!c!a!b!"), Ok(two));
        assert_eq!(asked("c"), Ok(("c".to_owned(), Vec::new())));
        assert_eq!(asked("!!"), Err(Refused::Empty));
        assert_eq!(asked(""), Err(Refused::Empty));
    }

    #[test]
    fn the_seventeenth_argument_is_ignored() {
        let text = (1..=20).fold("c".to_owned(), |text, number| format!("{text}!{number}"));
        assert_eq!(asked(&text).unwrap().1.last().unwrap(), "16");
    }

    #[test]
    fn every_nasty_character_is_refused_and_the_others_are_not() {
        for &nasty in NASTY {
            let text = format!("c!a{}b", char::from(nasty));
            assert_eq!(asked(&text), Err(Refused::Metacharacter(char::from(nasty))));
        }
        assert!(asked("c!a b\"$*()#~ä").is_ok());
        assert_eq!(asked("c!$(id)"), Err(Refused::Substitution));
        // In a name it can do nothing: it is looked up, not run.
        assert!(asked("c$(id)").is_ok());
        assert!(parse(b"c;d", true, b"").is_ok());
    }

    #[test]
    fn arguments_are_refused_where_they_are_not_allowed() {
        assert_eq!(parse(b"c!a", false, NASTY), Err(Refused::Arguments));
        assert_eq!(parse(b"c!", false, NASTY), Err(Refused::Arguments));
        assert!(parse(b"c", false, NASTY).is_ok());
        // The character comes first, as in nrpe: the log names what it names.
        assert_eq!(parse(b"c!a;b", false, NASTY), Err(Refused::Metacharacter(';')));
    }

    #[test]
    fn macros_are_filled_in_as_nrpe_does() {
        assert_eq!(line("p -w $ARG1$ -c $ARG2$", &["5", "10 %"]), "p -w 5 -c 10 %");
        assert_eq!(line("p $ARG1$$ARG2$", &["5"]), "p 5");
        assert_eq!(line("p $ARG0$|$ARG17$|$ARGx$", &["5"]), "p ||");
        assert_eq!(line("p $ARG1x$", &["5"]), "p 5");
        assert_eq!(line("p $ARG 1$ $ARG+1$ $ARG01$ $ARG-1$", &["5"]), "p 5 5 5 ");
        assert_eq!(line("kill $$$$", &[]), "kill $$");
        assert_eq!(line("echo $USER$ ok", &[]), "echo $USER$ ok");
        assert_eq!(
            line("echo $HOME x $$ $USER$ a$ARG1$b$ARG99$c$ARGx$d", &[]),
            "echo $HOME x $$ $USER$ a$ARG1$b$ARG99$c$ARGx$d$"
        );
        // An argument is not looked at for macros.
        assert_eq!(line("p $ARG1$ $ARG2$", &["$ARG2$", "x"]), "p $ARG2$ x");
    }

    #[test]
    fn a_prefix_stands_before_and_a_line_may_not_grow_too_long() {
        assert_eq!(command_line(Some(b"/usr/bin/sudo"), b"p", &[]).unwrap(), b"/usr/bin/sudo p");
        let long = vec![vec![b'a'; 1500]];
        assert_eq!(command_line(None, b"$ARG1$ $ARG1$", &long), Err(TooLong(3001)));
    }

    #[test]
    fn words_are_split_before_arguments_are_filled_in() {
        let given = [b"5 --evil".to_vec(), b"'".to_vec()];
        let words = |line: &str| words(line, &given);
        assert_eq!(
            words(r#"load -w $ARG1$ "a b" 'c $ARG2$' d\ e"#).unwrap(),
            ["load", "-w", "5 --evil", "a b", "c '", "d e"]
        );
        assert_eq!(words("load $ARG3$ -x ''").unwrap(), ["load", "-x", ""]);
        assert_eq!(words("load 'x").unwrap_err(), OpenQuote('\''));
        assert_eq!(words("load \"x\\\"").unwrap_err(), OpenQuote('"'));
    }

    proptest! {
        #[test]
        fn an_argument_is_never_two_words(argument in "[^!$\0]{1,40}") {
            let words = words("disk -p $ARG1$ -w 5", &[argument.clone().into_bytes()]).unwrap();
            prop_assert_eq!(words, vec!["disk".to_owned(), "-p".to_owned(), argument, "-w".to_owned(), "5".to_owned()]);
        }

        #[test]
        fn no_request_makes_it_fail(text in prop::collection::vec(any::<u8>(), 0..300), allowed in any::<bool>()) {
            if let Ok(request) = parse(&text, allowed, NASTY) {
                prop_assert!(request.arguments.len() <= MAX_ARGUMENTS);
                let _ = command_line(Some(b"$ARG1$"), &text, &request.arguments);
                let _ = words(&String::from_utf8_lossy(&text), &request.arguments);
            }
        }
    }
}
