//! Name patterns with `*` (any text) and `?` (one character), as `hosts: ["web*"]` has them. Knows no hosts.

/// Whether the pattern has a wildcard at all.
#[must_use]
pub fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// Whether the whole text fits the pattern. Time grows with the product of both lengths at worst, never faster.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut position) = (0, 0);
    // Where to go on when the text does not fit: behind the last star, one character further.
    let mut retry: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at + 1, position));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || text.get(position) == Some(wanted) => {
                at += 1;
                position += 1;
            }
            _ => match retry {
                Some((after_star, from)) => {
                    at = after_star;
                    position = from + 1;
                    retry = Some((after_star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, text, fits) in [
            ("web*", "web01.example.net", true),
            ("web*", "db-web", false),
            ("*.example.net", "a.example.net", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("web0?", "web01", true),
            ("web0?", "web0", false),
            ("", "", true),
            ("*", "", true),
            ("straße*", "straße 1", true),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(&"*a".repeat(200), &format!("{}b", "a".repeat(5_000))));
    }
}
