//! What a certificate says about itself: names, issuer, days left, and the pin that a configuration would hold. Believes nothing
//! and verifies nothing; the bytes come from whoever answered. Pure.
//!
//! The surprise: the pin is of the key (SHA-256 of the SubjectPublicKeyInfo, RFC 7469), so it survives a renewal that keeps the key.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use shared::text::is_obeyed;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// Names that are kept; a certificate of a hundred names is told by its first.
const MAX_NAMES: usize = 8;
/// Characters of a name that are kept.
const MAX_NAME: usize = 100;
const SECONDS_A_DAY: i64 = 86_400;

/// A certificate that a daemon showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Common name of the subject.
    pub subject: String,
    /// Names and addresses it is for.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// Whole days until it ends; negative: since it has.
    pub days: i64,
    /// SHA-256 of its public key, in hexadecimal.
    pub pin: String,
}

/// Reads a certificate (DER) at this time (seconds since 1970); none if the bytes are no certificate.
#[must_use]
pub fn read(der: &[u8], now: i64) -> Option<Certificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(readable(name)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    });
    let until = certificate.validity().not_after.timestamp();
    let pin = Sha256::digest(certificate.public_key().raw);
    Some(Certificate {
        subject: common_name(certificate.subject()),
        names: names.take(MAX_NAMES).collect(),
        issuer: common_name(certificate.issuer()),
        days: until.saturating_sub(now).div_euclid(SECONDS_A_DAY),
        pin: pin.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// The common name, or the whole name where there is none.
fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    readable(&common.map_or_else(|| name.to_string(), str::to_owned))
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(bytes).to_string());
    }
    Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string())
}

/// Without what a terminal would obey, and not too long.
fn readable(text: &str) -> String {
    text.chars().filter(|&char| !is_obeyed(char)).take(MAX_NAME).collect()
}

impl Certificate {
    /// In a few words, for a comment.
    #[must_use]
    pub fn describe(&self) -> String {
        let names = if self.names.is_empty() { "no names".to_owned() } else { self.names.join(", ") };
        let left =
            if self.days < 0 { format!("ended {} days ago", -self.days) } else { format!("{} days left", self.days) };
        let issuer = if self.issuer == self.subject { "itself" } else { &self.issuer };
        format!("certificate of {} for {names}, issued by {issuer}, {left}", self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &[u8] = include_bytes!("../../testdata/discover/certificate.der");

    #[test]
    fn names_issuer_days_and_pin_are_read() {
        // Made by openssl for 2000-01-01 to 2100-01-01.
        let certificate = read(MADE, 4_102_444_800 - 10 * SECONDS_A_DAY).unwrap();
        assert_eq!(certificate.subject, "db01.example.net");
        assert_eq!(certificate.names, ["db01.example.net", "192.0.2.7", "2001:db8::7"]);
        assert_eq!((certificate.issuer.as_str(), certificate.days), ("db01.example.net", 10));
        assert_eq!(certificate.pin.len(), 64);
        let words = "certificate of db01.example.net for db01.example.net, 192.0.2.7, 2001:db8::7, issued by itself, 10 days left";
        assert_eq!(certificate.describe(), words);
        assert!(read(MADE, 4_102_444_801).unwrap().describe().ends_with("ended 1 days ago"));
    }

    #[test]
    fn bytes_of_a_stranger_are_no_certificate() {
        assert_eq!(read(b"", 0), None);
        assert_eq!(read(&[0x30; 400], 0), None);
        for cut in 0..MADE.len() {
            assert_eq!(read(&MADE[..cut], 0), None, "{cut}");
        }
    }
}
