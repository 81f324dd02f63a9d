//! Whom to ask: names, addresses, networks, ranges and lists, less what is excluded, into a bounded list without doubles. Pure: the
//! texts of lists come in, names stay names.
//!
//! The surprise: who is named one by one is told apart from who is only an address of a network. Nobody wants to read that 240
//! addresses of a network are not in use, and everybody that `web07` did not answer.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Targets of one discovery; more are wrong use, not cut off: an IPv4 /16 fits, and at the default rate it takes hours.
pub const MAX_TARGETS: usize = 65_536;
/// Mistakes that are named; further ones are counted.
pub const MAX_MISTAKES: usize = 20;

/// One daemon that may be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Name or IP address, without brackets.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Whether it was named itself, not as part of a network or range.
    pub named: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.contains(':') {
            write!(f, "[{}]:{}", self.address, self.port)
        } else {
            write!(f, "{}:{}", self.address, self.port)
        }
    }
}

/// A word that says whom to ask, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub text: String,
    /// `list.txt:3`; none on the command line.
    pub place: Option<String>,
}

/// A word that says nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}“{word}” {why}", place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
pub struct Mistake {
    word: String,
    place: Option<String>,
    why: String,
}

/// The words of a list: separated by white space or commas, `#` begins a comment.
#[must_use]
pub fn words(name: &str, text: &str) -> Vec<Word> {
    let lines = text.lines().enumerate();
    let words = lines.flat_map(|(number, line)| {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let words = line.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
        words.map(move |word| Word { text: word.to_owned(), place: Some(format!("{name}:{}", number + 1)) })
    });
    words.collect()
}

/// Everybody the words name, in their order, each once, without those excluded; `port` is for words that name none.
///
/// # Errors
/// Every word that makes no sense, or that there are more than [`MAX_TARGETS`].
pub fn targets(words: &[Word], excluded: &[Word], port: u16) -> Result<Vec<Target>, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut understood = |words: &[Word]| {
        let pieces = words.iter().filter_map(|word| {
            let piece = piece(&word.text);
            piece.map_err(|why| mistakes.push(Mistake { word: word.text.clone(), place: word.place.clone(), why })).ok()
        });
        pieces.collect::<Vec<_>>()
    };
    let (wanted, excluded) = (understood(words), understood(excluded));
    if !mistakes.is_empty() {
        let more = mistakes.len().saturating_sub(MAX_MISTAKES);
        mistakes.truncate(MAX_MISTAKES);
        if let (Some(last), true) = (mistakes.last_mut(), more > 0) {
            last.why.push_str(&format!(" (and {more} more words like it)"));
        }
        return Err(mistakes);
    }
    let mut seen = BTreeSet::new();
    let mut targets = Vec::new();
    for (piece, word) in wanted.iter().zip(words) {
        let too_many = || Mistake {
            word: word.text.clone(),
            place: word.place.clone(),
            why: format!("makes more than {MAX_TARGETS} targets, which is more than one discovery takes; ask in parts"),
        };
        // Counted before it is spelled out: an IPv6 /64 would never end.
        if piece.hosts.size() > MAX_TARGETS as u128 {
            return Err(vec![too_many()]);
        }
        for (address, named) in piece.hosts.addresses() {
            let target = Target { address, port: piece.port.unwrap_or(port), named };
            if excluded.iter().any(|piece| piece.covers(&target)) {
                continue;
            }
            if seen.insert((target.address.clone(), target.port)) {
                targets.push(target);
            }
        }
        if targets.len() > MAX_TARGETS {
            return Err(vec![too_many()]);
        }
    }
    Ok(targets)
}

/// What one word means.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Hosts {
    Names(Vec<String>),
    Address(IpAddr),
    Net(IpNet),
    /// Both ends included, of one family.
    Range(IpAddr, IpAddr),
}

impl Piece {
    fn covers(&self, target: &Target) -> bool {
        if self.port.is_some_and(|port| port != target.port) {
            return false;
        }
        let address = target.address.parse::<IpAddr>().ok();
        match &self.hosts {
            Hosts::Names(names) => names.contains(&target.address),
            Hosts::Address(own) => address == Some(*own),
            Hosts::Net(net) => address.is_some_and(|address| net.contains(&address)),
            Hosts::Range(first, last) => {
                let same_family = |address: &IpAddr| address.is_ipv4() == first.is_ipv4();
                address.filter(same_family).is_some_and(|address| (*first..=*last).contains(&address))
            }
        }
    }
}

impl Hosts {
    fn size(&self) -> u128 {
        match self {
            Self::Names(names) => names.len() as u128,
            Self::Address(_) => 1,
            Self::Net(net) => {
                let bits = net.max_prefix_len() - net.prefix_len();
                1_u128.checked_shl(bits.into()).unwrap_or(u128::MAX)
            }
            Self::Range(first, last) => (number(*last) - number(*first)).saturating_add(1),
        }
    }

    /// Spelled out; the flag says that it was named itself. Without the network's own and its broadcast address, where it has.
    fn addresses(&self) -> Vec<(String, bool)> {
        match self {
            Self::Names(names) => names.iter().map(|name| (name.clone(), true)).collect(),
            Self::Address(address) => vec![(address.to_string(), true)],
            Self::Net(net) => net.hosts().map(|address| (address.to_string(), false)).collect(),
            Self::Range(first, last) => {
                let spelled =
                    (number(*first)..=number(*last)).map(|number| address(number, first.is_ipv4()).to_string());
                spelled.map(|address| (address, false)).collect()
            }
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => IpAddr::V4(Ipv4Addr::from(number)),
        _ => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

fn piece(word: &str) -> Result<Piece, String> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok(Piece { hosts: Hosts::Address(address), port: None });
    }
    let (text, port) = split_port(word)?;
    let hosts = if let Ok(address) = text.parse::<IpAddr>() {
        Hosts::Address(address)
    } else if text.contains('/') {
        let net: IpNet = text.parse().map_err(|_| "is no network: write 10.0.0.0/24 or 2001:db8::/120".to_owned())?;
        Hosts::Net(net.trunc())
    } else if let Some(range) = range(text) {
        range?
    } else {
        Hosts::Names(names(text)?)
    };
    Ok(Piece { hosts, port })
}

/// `name:5667` and `[2001:db8::1]:5667` in two. What has several colons is an IPv6 address or network without a port.
fn split_port(word: &str) -> Result<(&str, Option<u16>), String> {
    let (text, port) = match word.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.contains(':') => match rest.strip_prefix(':') {
            Some(port) => (address, port),
            None if rest.is_empty() => return Ok((address, None)),
            None => return Err("has something behind the bracket that is no port".to_owned()),
        },
        _ if word.matches(':').count() != 1 => return Ok((word, None)),
        _ => word.rsplit_once(':').unwrap_or((word, "")),
    };
    if port.starts_with("//") {
        return Err("is a web address; write its host alone".to_owned());
    }
    match port.parse() {
        Ok(0) | Err(_) => Err(format!("has the port “{port}”; ports are 1 to 65535")),
        Ok(port) => Ok((text, Some(port))),
    }
}

/// `10.0.0.1-10.0.0.20` or `10.0.0.1-20`; none if it is neither, as `web-01` is not.
fn range(text: &str) -> Option<Result<Hosts, String>> {
    let (first, last) = text.split_once('-')?;
    let first: IpAddr = first.parse().ok()?;
    let last = match (last.parse::<IpAddr>(), first) {
        (Ok(last), _) => last,
        (Err(_), IpAddr::V4(first)) => {
            let [a, b, c, _] = first.octets();
            match last.parse() {
                Ok(d) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                Err(_) => return Some(Err("is no range: write 10.0.0.1-10.0.0.20 or 10.0.0.1-20".to_owned())),
            }
        }
        (Err(_), IpAddr::V6(_)) => return Some(Err("is no range: write the whole last address".to_owned())),
    };
    if first.is_ipv4() != last.is_ipv4() || first > last {
        return Some(Err("is no range: the last address must come after the first".to_owned()));
    }
    Some(Ok(Hosts::Range(first, last)))
}

/// A host name, or several: `web[01-40].example.net`, `db[a,b]`.
fn names(text: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (inside, behind) = after.split_once(']').ok_or("has a bracket that does not end")?;
        let parts = bracket(inside)?;
        if names.len().saturating_mul(parts.len()) > MAX_TARGETS {
            return Err(format!("makes more than {MAX_TARGETS} names"));
        }
        names = names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name}{before}{part}"))).collect();
        rest = behind;
    }
    for name in &mut names {
        name.push_str(rest);
    }
    let known = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    // No label begins with `-`, but options do that were mistyped.
    let odd = |name: &&String| name.is_empty() || name.len() > 253 || name.starts_with('-') || !name.chars().all(known);
    match names.iter().find(odd) {
        Some(_) => Err("is neither a name, an address, a network nor a range".to_owned()),
        // A name of digits and dots alone is an address with a mistake in it; asked as a name it would be somebody else's.
        None if names.iter().any(|name| name.chars().all(|c| c.is_ascii_digit() || c == '.')) => {
            Err("is no address: an IPv4 address is four numbers from 0 to 255".to_owned())
        }
        None => Ok(names),
    }
}

/// `01-40` (zeros kept) or `a,b`.
fn bracket(inside: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    for part in inside.split(',') {
        match part.split_once('-').map(|(first, last)| (first, first.parse::<usize>(), last.parse::<usize>())) {
            Some((text, Ok(first), Ok(last))) if first <= last && last - first < MAX_TARGETS => {
                let width = if text.starts_with('0') { text.len() } else { 0 };
                parts.extend((first..=last).map(|number| format!("{number:0width$}")));
            }
            Some(_) => return Err(format!("has the range “{part}” in its brackets; write [01-40]")),
            None => parts.push(part.to_owned()),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<Word> {
        words.iter().map(|text| Word { text: (*text).to_owned(), place: None }).collect()
    }

    fn found(wanted: &[&str], excluded: &[&str]) -> Vec<String> {
        let targets = targets(&line(wanted), &line(excluded), 5666).unwrap();
        targets.iter().map(ToString::to_string).collect()
    }

    fn mistake(word: &str) -> String {
        targets(&line(&[word]), &[], 5666).unwrap_err()[0].to_string()
    }

    #[test]
    fn names_addresses_networks_and_ranges_are_spelled_out_once_each() {
        assert_eq!(
            found(&["web01", "10.0.0.0/30", "10.0.0.2", "[2001:db8::1]:99", "2001:db8::5", "db:7000"], &[]),
            ["web01:5666", "10.0.0.1:5666", "10.0.0.2:5666", "[2001:db8::1]:99", "[2001:db8::5]:5666", "db:7000"]
        );
        assert_eq!(found(&["10.0.0.254-10.0.1.1"], &[]).len(), 4);
        assert_eq!(found(&["10.0.0.7-9"], &[]), ["10.0.0.7:5666", "10.0.0.8:5666", "10.0.0.9:5666"]);
        assert_eq!(
            found(&["web[08-10].x", "db[a,b]-1"], &[]).join(" "),
            "web08.x:5666 web09.x:5666 web10.x:5666 dba-1:5666 dbb-1:5666"
        );
        assert_eq!(found(&["10.0.0.5/32", "10.0.0.8/31"], &[]).len(), 3, "they have no broadcast address");
        assert_eq!(found(&["2001:db8::/126"], &[]).len(), 4);
    }

    #[test]
    fn only_who_is_named_one_by_one_is_named() {
        let targets = targets(&line(&["10.0.0.0/30", "10.0.0.9", "web[1-2]"]), &[], 5666).unwrap();
        assert_eq!(targets.iter().map(|target| target.named).collect::<Vec<_>>(), [false, false, true, true, true]);
    }

    #[test]
    fn what_is_excluded_is_not_asked() {
        assert_eq!(
            found(&["10.0.0.0/29"], &["10.0.0.0/30", "10.0.0.6", "10.0.0.5:99"]),
            ["10.0.0.4:5666", "10.0.0.5:5666"]
        );
        assert_eq!(found(&["web1", "web2", "::1"], &["web2", "10.0.0.1-20"]), ["web1:5666", "[::1]:5666"]);
        assert_eq!(found(&["10.0.0.1-5"], &["10.0.0.2-4"]), ["10.0.0.1:5666", "10.0.0.5:5666"]);
    }

    #[test]
    fn lists_have_comments_and_places() {
        let words = words("hosts.txt", "# ours\nweb01, web02 # two\n\n10.0.0.300\n");
        assert_eq!(words.len(), 3);
        let mistakes = targets(&words, &[], 5666).unwrap_err();
        assert_eq!(
            mistakes[0].to_string(),
            "hosts.txt:4: “10.0.0.300” is no address: an IPv4 address is four numbers from 0 to 255"
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (word, why) in [
            ("10.0.0.0/33", "no network"),
            ("10.0.0.9-10.0.0.1", "must come after"),
            ("10.0.0.9-x", "no range"),
            ("::1-5", "whole last address"),
            ("web01:0", "port “0”"),
            ("web01:http", "port “http”"),
            ("[::1]5", "no port"),
            ("web[1-", "does not end"),
            ("web[9-1]", "has the range “9-1”"),
            ("a b", "neither a name"),
            ("web01;rm", "neither a name"),
            ("-x", "neither a name"),
            ("https://web01/", "web address"),
        ] {
            assert!(mistake(word).contains(why), "{}", mistake(word));
        }
    }

    #[test]
    fn the_number_of_targets_is_bounded_before_they_are_spelled_out() {
        assert_eq!(found(&["10.1.0.0/16"], &[]).len(), 65_534);
        for word in [
            "10.0.0.0/15",
            "2001:db8::/64",
            "::/0",
            "0.0.0.0/0",
            "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "a[1-300][1-300]",
        ] {
            assert!(mistake(word).contains("more than 65536"), "{}", mistake(word));
        }
        let both = targets(&line(&["10.1.0.0/16", "10.2.0.0/24"]), &[], 5666).unwrap_err();
        assert!(both[0].to_string().contains("10.2.0.0/24"), "{both:?}");
    }

    #[test]
    fn many_mistakes_are_counted() {
        let words: Vec<String> = (0..30).map(|number| format!("{number}.1")).collect();
        let mistakes = targets(&line(&words.iter().map(String::as_str).collect::<Vec<_>>()), &[], 5666).unwrap_err();
        assert_eq!(mistakes.len(), MAX_MISTAKES);
        assert!(mistakes[MAX_MISTAKES - 1].to_string().ends_with("(and 10 more words like it)"));
    }
}
