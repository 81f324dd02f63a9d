//! The identification of an SSH server in the bytes that came (RFC 4253 §4.2): `SSH-protocol-software comments`, perhaps after
//! lines of other text. Bounded on every side. Knows no socket.

/// Longest identification, line end included; a longer one is none (RFC 4253 §4.2).
pub const LINE_BYTES_MAX: usize = 255;
/// Lines of other text before it that are read past; with one more the server has none.
pub const LINES_BEFORE_MAX: usize = 50;
/// Bytes that are read for it at most.
pub const BYTES_MAX: usize = 8 * 1024;

/// What a server says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    /// `2.0`
    pub protocol: String,
    /// `OpenSSH_9.2p1 Debian-2`: software and comments, whole.
    pub software: String,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The identification.
    Whole(Banner),
    /// More must come.
    Part,
    /// No SSH server.
    Not(&'static str),
}

/// Looks for the identification. `ended`: nothing more will come, so that a line without an end counts.
#[must_use]
pub fn read(bytes: &[u8], ended: bool) -> Read {
    let mut rest = bytes;
    for _ in 0..=LINES_BEFORE_MAX {
        let (line, next) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default()),
            None if ended => (rest, &[][..]),
            None if rest.starts_with(b"SSH-") && rest.len() >= LINE_BYTES_MAX => {
                return Read::Not("its identification is longer than 255 bytes");
            }
            None if bytes.len() >= BYTES_MAX => return Read::Not("no identification in its first 8 KiB"),
            None => return Read::Part,
        };
        if let Some(text) = line.strip_prefix(b"SSH-") {
            // With its LF the line must not be longer.
            if line.len() >= LINE_BYTES_MAX {
                return Read::Not("its identification is longer than 255 bytes");
            }
            let text = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text)).into_owned();
            let (protocol, software) = text.split_once('-').unwrap_or((&text, ""));
            return Read::Whole(Banner { protocol: protocol.to_owned(), software: software.to_owned() });
        }
        if ended && next.is_empty() {
            return Read::Not("no identification");
        }
        rest = next;
    }
    Read::Not("no identification in its first 50 lines")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn banner(protocol: &str, software: &str) -> Read {
        Read::Whole(Banner { protocol: protocol.into(), software: software.into() })
    }

    #[test]
    fn an_identification_is_read_as_it_comes() {
        let whole = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u6\r\n";
        assert_eq!(read(whole, false), banner("2.0", "OpenSSH_9.2p1 Debian-2+deb12u6"));
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end], false), Read::Part, "{end}");
        }
        assert_eq!(read(b"SSH-1.99-Cisco-1.25\n", false), banner("1.99", "Cisco-1.25"));
        assert_eq!(read(b"SSH-2.0-dropbear", true), banner("2.0", "dropbear"));
        assert_eq!(read(b"SSH-3.0\r\n", false), banner("3.0", ""));
    }

    #[test]
    fn other_lines_may_come_before_it_but_not_for_ever() {
        assert_eq!(read(b"welcome\r\n\r\nSSH-2.0-x\r\nmore", false), banner("2.0", "x"));
        let many = "a\n".repeat(LINES_BEFORE_MAX);
        assert_eq!(read(format!("{many}SSH-2.0-x\n").as_bytes(), false), banner("2.0", "x"));
        assert!(matches!(read(format!("{many}a\nSSH-2.0-x\n").as_bytes(), false), Read::Not(_)));
    }

    #[test]
    fn what_is_no_ssh_server_is_said_to_be_none() {
        assert_eq!(read(b"", true), Read::Not("no identification"));
        assert_eq!(read(b"HTTP/1.0 400 Bad Request\r\n\r\n", true), Read::Not("no identification"));
        assert_eq!(read(b"HTTP/1.0 400 Bad Request\r\n", false), Read::Part);
        assert!(matches!(read(&[b'x'; BYTES_MAX], false), Read::Not(_)));
        let long = [b"SSH-2.0-".as_slice(), &[b'x'; 300]].concat();
        assert!(matches!(read(&long, false), Read::Not(_)));
        assert!(matches!(read(&[long.as_slice(), b"\n"].concat(), false), Read::Not(_)));
    }

    proptest! {
        #[test]
        fn a_banner_is_within_its_bounds(bytes in "(SSH-)?[\\x00-\\xff]{0,600}", ended: bool) {
            match read(bytes.as_bytes(), ended) {
                Read::Whole(banner) => prop_assert!(banner.protocol.len() + banner.software.len() < LINE_BYTES_MAX * 3),
                Read::Part => prop_assert!(!ended),
                Read::Not(_) => {}
            }
        }
    }
}
