//! What the headers of the TLS records we send give away about the handshake: whether the daemon asked for a client certificate.
//! Reads the five bytes in front of each record (RFC 8446 §5.1) and nothing inside. Pure.
//!
//! The surprise: nobody tells us otherwise. The library answers a CertificateRequest without a word, with a certificate or
//! with none; either way it sends one message more than it would have, and each message is a record.

/// Bytes in front of a record: type, version, length.
const HEADER: usize = 5;
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Counts the records of our side of a handshake.
#[derive(Debug, Clone, Default)]
pub struct Records {
    header: [u8; HEADER],
    have: usize,
    body: usize,
    clear: u32,
    hidden: u32,
    changed: bool,
}

impl Records {
    /// Takes what was sent, in pieces of any size.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body > 0 {
                let skipped = self.body.min(bytes.len());
                self.body -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == HEADER {
                self.have = 0;
                self.body = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                match self.header[0] {
                    CHANGE_CIPHER_SPEC => self.changed = true,
                    HANDSHAKE if !self.changed => self.clear = self.clear.saturating_add(1),
                    APPLICATION_DATA => self.hidden = self.hidden.saturating_add(1),
                    _ => {}
                }
            }
        }
    }

    /// Whether the handshake, which has just ended well or badly, held a Certificate message of ours. Up to TLS 1.2 we send in
    /// clear ClientHello and ClientKeyExchange (RFC 5246 §7.3), in TLS 1.3 hidden only Finished (RFC 8446 §2): one more of
    /// either kind is it.
    #[must_use]
    pub fn had_certificate(&self) -> bool {
        self.clear > 2 || self.hidden > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(kinds: &[(u8, usize)]) -> Vec<u8> {
        let record = |&(kind, length): &(u8, usize)| {
            let length_bytes = u16::try_from(length).unwrap().to_be_bytes();
            [vec![kind, 3, 3, length_bytes[0], length_bytes[1]], vec![HANDSHAKE; length]].concat()
        };
        kinds.iter().flat_map(record).collect()
    }

    fn had_certificate(kinds: &[(u8, usize)], piece: usize) -> bool {
        let mut seen = Records::default();
        records(kinds).chunks(piece).for_each(|bytes| seen.sent(bytes));
        seen.had_certificate()
    }

    #[test]
    fn one_message_more_than_needed_is_a_certificate() {
        const FINISHED: (u8, usize) = (22, 40);
        for piece in [1, 3, 5, 7, 1000] {
            assert!(!had_certificate(&[(22, 300), (22, 37), (20, 1), FINISHED], piece), "TLS 1.2");
            assert!(had_certificate(&[(22, 300), (22, 7), (22, 37), (20, 1), FINISHED], piece), "with an empty one");
            assert!(!had_certificate(&[(22, 300), (20, 1), FINISHED], piece), "TLS 1.2, resumed");
            assert!(!had_certificate(&[(22, 300), (20, 1), (23, 53)], piece), "TLS 1.3");
            assert!(!had_certificate(&[(22, 300), (20, 1), (22, 320), (23, 53)], piece), "TLS 1.3 after a retry");
            assert!(had_certificate(&[(22, 300), (20, 1), (23, 25), (23, 53)], piece), "TLS 1.3 with an empty one");
        }
    }

    #[test]
    fn nothing_is_read_out_of_what_is_no_handshake() {
        let mut seen = Records::default();
        seen.sent(&[]);
        seen.sent(&[0; 4096]);
        assert!(!seen.had_certificate());
    }
}
