//! Web addresses, `http://` and `https://`: text into parts, and where a redirect leads (RFC 3986 §5). Strict: what would have to
//! be percent-encoded is refused, not guessed at, but for what servers write into a redirect. Knows no network.
//!
//! The surprise: a user name or password in an address is an error; it would end up in logs and results.

use std::fmt;

/// Longest address that is read, in bytes; a longer one is an error. Servers rarely take more.
pub const URL_BYTES_MAX: usize = 4_096;

/// A web address in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `https`.
    pub tls: bool,
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Port, that of the scheme if none was written.
    pub port: u16,
    /// Path and query, beginning with `/`; never a fragment.
    pub path: String,
}

/// Why a text is no web address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("it does not begin with http:// or https://")]
    Scheme,
    /// Nothing stands where the host should.
    #[error("it has no host, or one with characters that no host has")]
    Host,
    /// A port that is none.
    #[error("its port is no number from 1 to 65535")]
    Port,
    /// `user:password@`
    #[error("it has a user name or password in it")]
    User,
    /// A character that must be percent-encoded.
    #[error("it has a character that must be percent-encoded (blank, control, quote or not ASCII)")]
    Character,
    /// Longer than `URL_BYTES_MAX`.
    #[error("it is longer than 4096 bytes")]
    Long,
}

/// The port of a scheme without one.
#[must_use]
pub const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// Whether a text can be a path with query as it is: it begins with `/` and needs no encoding.
///
/// # Errors
/// What it has that no path may have.
pub fn check_path(path: &str) -> Result<(), UrlError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'#');
    if path.len() > URL_BYTES_MAX {
        Err(UrlError::Long)
    } else if path.starts_with('/') && path.bytes().all(plain) {
        Ok(())
    } else {
        Err(UrlError::Character)
    }
}

/// A `Location` as browsers read it (WHATWG URL, path state): blanks around it do not count, and blanks, quotes and bytes that are
/// no ASCII become percent-encoded. Control characters stay, and make it an error.
#[must_use]
pub fn encoded(location: &[u8]) -> String {
    let one = |&byte: &u8| match byte {
        b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | 128.. => format!("%{byte:02X}"),
        byte => char::from(byte).to_string(),
    };
    location.trim_ascii().iter().map(one).collect()
}

/// Whether a text can be the name or address of a host, without brackets: letters, digits, `.`, `-`, `_` and `:`.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    (1..=255).contains(&text.len()) && text.bytes().all(plain)
}

impl Url {
    /// Reads an absolute address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::Long);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, tail) = inner.split_once(']').ok_or(UrlError::Host)?;
                (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':').ok_or(UrlError::Host)?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if !is_host(host) || (host.contains(':') && !authority.starts_with('[')) {
            return Err(UrlError::Host);
        }
        let port = match port {
            // An empty port is that of the scheme (RFC 3986 §3.2.3).
            None | Some("") => default_port(tls),
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?,
        };
        let path = without_fragment(rest);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        check_path(&path)?;
        Ok(Self { tls, host: host.to_ascii_lowercase(), port, path })
    }

    /// Where a `Location` of this page leads: an absolute address, or one relative to this (RFC 3986 §5.2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn join(&self, location: &str) -> Result<Self, UrlError> {
        let scheme = location.split_once(':').map(|(scheme, _)| scheme);
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.bytes().all(letter)) {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme()));
        }
        let relative = without_fragment(location);
        let own = self.path.split_once('?').map_or(self.path.as_str(), |(path, _)| path);
        let path = if relative.is_empty() {
            self.path.clone()
        } else if relative.starts_with('/') {
            without_dots(relative)
        } else if relative.starts_with('?') {
            format!("{own}{relative}")
        } else {
            let directory = own.rsplit_once('/').map_or("", |(directory, _)| directory);
            without_dots(&format!("{directory}/{relative}"))
        };
        check_path(&path)?;
        Ok(Self { path, ..self.clone() })
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Host and port as the `Host` header has them (RFC 9110 §7.2): without the port of the scheme.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}{}", self.scheme(), self.authority(), self.path)
    }
}

fn without_fragment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before)
}

/// Takes `.` and `..` out of a path (RFC 3986 §5.2.4); a query stays as it is.
fn without_dots(text: &str) -> String {
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn an_address_comes_apart() {
        let parts = |text: &str| {
            let Url { tls, host, port, path } = url(text);
            (tls, host, port, path)
        };
        assert_eq!(parts("http://web"), (false, "web".into(), 80, "/".into()));
        assert_eq!(parts("HTTPS://Web.Example:8443/a?b=c#d"), (true, "web.example".into(), 8443, "/a?b=c".into()));
        assert_eq!(parts("https://[2001:db8::1]:44/"), (true, "2001:db8::1".into(), 44, "/".into()));
        assert_eq!(parts("http://web:?q"), (false, "web".into(), 80, "/?q".into()));
        assert_eq!(url("https://[2001:db8::1]:44/x").to_string(), "https://[2001:db8::1]:44/x");
        assert_eq!(url("https://web:443/").authority(), "web");
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        for (text, error) in [
            ("web/", UrlError::Scheme),
            ("ftp://web/", UrlError::Scheme),
            ("http:///", UrlError::Host),
            ("http://a b/", UrlError::Host),
            ("http://[::1/", UrlError::Host),
            ("http://[::1]x/", UrlError::Host),
            ("http://a:b/", UrlError::Port),
            ("http://a:0/", UrlError::Port),
            ("http://a:65536/", UrlError::Port),
            ("http://me:secret@a/", UrlError::User),
            ("http://a/ü", UrlError::Character),
            ("http://a/b c", UrlError::Character),
            ("http://a/\r\nHost: b", UrlError::Character),
        ] {
            assert_eq!(Url::parse(text), Err(error), "{text}");
        }
        assert_eq!(Url::parse(&format!("http://a/{}", "b".repeat(URL_BYTES_MAX))), Err(UrlError::Long));
    }

    #[test]
    fn what_servers_write_into_a_redirect_is_encoded_as_browsers_do() {
        let base = url("http://a/b/c");
        let joined = |location: &[u8]| base.join(&encoded(location)).map(|url| url.path);
        assert_eq!(joined(b"  /x y\"<>\r\n").as_deref(), Ok("/x%20y%22%3C%3E"));
        assert_eq!(joined("/ü?q=%20#ü".as_bytes()).as_deref(), Ok("/%C3%BC?q=%20"));
        assert_eq!(joined(b"\xfc").as_deref(), Ok("/b/%FC"), "Latin-1");
        assert_eq!(joined(b"/\x1b[2J"), Err(UrlError::Character));
        assert_eq!(joined(b"http://a b/"), Err(UrlError::Host));
        assert_eq!(joined("http://ü.example/".as_bytes()), Err(UrlError::Host));
    }

    /// RFC 3986 §5.4, as far as it is about web addresses.
    #[test]
    fn a_redirect_leads_where_the_standard_says() {
        let base = url("http://a/b/c/d;p?q");
        for (location, target) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("g#s", "http://a/b/c/g"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../../g", "http://a/g"),
            ("/a/./b/../c", "http://a/a/c"),
            ("https://x:1/y", "https://x:1/y"),
        ] {
            assert_eq!(base.join(location).map(|url| url.to_string()), Ok(target.to_owned()), "{location}");
        }
        assert_eq!(base.join("mailto:a@b"), Err(UrlError::Scheme));
        assert_eq!(base.join("javascript:alert(1)"), Err(UrlError::Scheme));
        assert_eq!(base.join("/a b"), Err(UrlError::Character));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_so_that_it_reads_the_same(text in "https?://[a-z.:0-9\\[\\]]{0,12}[/?#.a-z%]{0,20}") {
            if let Ok(read) = Url::parse(&text) {
                prop_assert_eq!(Url::parse(&read.to_string()), Ok(read));
            }
        }

        #[test]
        fn any_location_is_an_address_or_an_error(location in ".{0,40}|[./?#:a]{0,20}") {
            if let Ok(target) = url("http://a/b/c").join(&location) {
                prop_assert!(check_path(&target.path).is_ok() && is_host(&target.host), "{target}");
            }
        }
    }
}
