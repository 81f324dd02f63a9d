//! How long a certificate is still valid, and what TLS has against it, in words for somebody on call. Knows neither sockets nor
//! a clock: the time is an input.

use rustls::{CertificateError, Error};
use shared::check::State;
use shared::check::network::CertificateDays;
use shared::time::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::probe::found::shown;

/// Names of a certificate that are listed when it is for another; further ones are counted.
const NAMES_SHOWN: usize = 5;
const SECONDS_PER_DAY: i64 = 86_400;

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// Common name of its subject, or its first DNS name, for one line.
    pub name: String,
    /// First moment of its validity.
    pub from: Timestamp,
    /// Last moment of its validity.
    pub until: Timestamp,
}

/// What its validity means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// OK, WARNING or CRITICAL.
    pub state: State,
    /// `certificate 'x' expires in 45 days (2027-01-05T08:01:31Z)`
    pub text: String,
    /// `days=45;30;7`
    pub perfdata: String,
}

impl Validity {
    /// Reads a certificate (DER); `None` if it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
        let names = certificate.subject_alternative_name().ok().flatten();
        let alternative = names.and_then(|names| {
            names.value.general_names.iter().find_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
        });
        let name = shown(common.filter(|name| !name.is_empty()).or(alternative).unwrap_or("without a name"));
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_millis(time.timestamp().saturating_mul(1_000));
        Some(Self { name, from: at(certificate.validity().not_before), until: at(certificate.validity().not_after) })
    }

    /// Whole days left; negative when it has expired.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        self.until.as_seconds().saturating_sub(now.as_seconds()).div_euclid(SECONDS_PER_DAY)
    }

    /// State, text and performance data at this time. An expired certificate, or one that is not valid yet, is CRITICAL whatever
    /// the days.
    #[must_use]
    pub fn judge(&self, days: &CertificateDays, now: Timestamp) -> Judgement {
        let left = self.days_left(now);
        let within = |days: Option<u32>| days.is_some_and(|days| left <= i64::from(days));
        let early = now < self.from;
        let state = if left < 0 || early || within(days.critical) {
            State::Critical
        } else if within(days.warning) {
            State::Warning
        } else {
            State::Ok
        };
        let Self { name, until, .. } = self;
        let seconds = self.until.as_seconds().saturating_sub(now.as_seconds());
        let when = match left {
            _ if early => format!("is not valid before {}", written(self.from)),
            ..0 => format!("expired {} ago ({})", counted(-seconds), written(*until)),
            _ => format!("expires in {} ({})", counted(seconds), written(*until)),
        };
        let threshold = |days: Option<u32>| days.map_or_else(String::new, |days| days.to_string());
        Judgement {
            state,
            text: format!("certificate '{name}' {when}"),
            perfdata: format!("days={left};{};{}", threshold(days.warning), threshold(days.critical)),
        }
    }
}

/// Whole days, or hours and minutes where there is no whole day.
fn counted(seconds: i64) -> String {
    let plural = |count: i64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    match seconds {
        SECONDS_PER_DAY.. => plural(seconds / SECONDS_PER_DAY, "day"),
        3_600.. => plural(seconds / 3_600, "hour"),
        _ => plural(seconds / 60, "minute"),
    }
}

/// What TLS has against a certificate, as a sentence without a subject.
#[must_use]
pub fn problem_of(error: &Error) -> String {
    let Error::InvalidCertificate(error) = error else { return shown(&error.to_string()) };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => format!("it expired on {}", moment(not_after.as_secs())),
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", moment(not_before.as_secs()))
        }
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let mut names: Vec<String> = presented.iter().take(NAMES_SHOWN).map(|name| plain_name(name)).collect();
            if presented.len() > NAMES_SHOWN {
                names.push(format!("{} more", presented.len() - NAMES_SHOWN));
            }
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            format!("it is for {names}, not for {}", expected.to_str())
        }
        CertificateError::NotValidForName => "it is for another name".to_owned(),
        CertificateError::UnknownIssuer => "no trusted CA has signed it".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        CertificateError::BadEncoding => "it cannot be read".to_owned(),
        CertificateError::Revoked => "it has been revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers".to_owned()
        }
        // webpki has no other way to say that a CA's own certificate was shown, which self-signed ones usually are.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is self-signed or that of a CA, and not among the trusted ones".to_owned()
        }
        other => shown(&other.to_string()),
    }
}

/// `DnsName("a.example")` as rustls lists it, without the wrapping.
fn plain_name(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    shown(inner.trim_matches('"'))
}

fn moment(seconds: u64) -> String {
    written(Timestamp::from_millis(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000)))
}

/// A moment of a certificate, which has whole seconds: RFC 3339 without the milliseconds.
#[must_use]
pub fn written(moment: Timestamp) -> String {
    moment.to_string().replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validity(until_days: i64, seconds: i64) -> (Validity, Timestamp) {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let until = now.as_seconds() + until_days * SECONDS_PER_DAY + seconds;
        let from = Timestamp::from_millis((until - 400 * SECONDS_PER_DAY) * 1_000);
        (Validity { name: "www.example".into(), from, until: Timestamp::from_millis(until * 1_000) }, now)
    }

    const DAYS: CertificateDays = CertificateDays { warning: Some(30), critical: Some(7) };

    #[test]
    fn days_that_are_left_make_the_state() {
        let state = |days, seconds| {
            let (validity, now) = validity(days, seconds);
            validity.judge(&DAYS, now).state
        };
        assert_eq!(state(31, 1), State::Ok);
        assert_eq!(state(30, 1), State::Warning, "30 whole days are left: check_http alerts as well");
        assert_eq!(state(8, 0), State::Warning);
        assert_eq!(state(7, 3_600), State::Critical);
        assert_eq!(state(0, 60), State::Critical);
        assert_eq!(state(0, -1), State::Critical);
        let (expired, now) = validity(-3, 0);
        let none = CertificateDays { warning: None, critical: None };
        assert_eq!(expired.judge(&none, now).state, State::Critical, "whatever the days");
        let (good, _) = validity(100, 0);
        assert_eq!(good.judge(&none, Timestamp::from_millis(good.from.as_millis() - 1_000)).state, State::Critical);
    }

    #[test]
    fn the_text_says_when_and_the_performance_data_how_long() {
        let (good, now) = validity(45, 5);
        let judged = good.judge(&DAYS, now);
        assert_eq!(judged.perfdata, "days=45;30;7");
        assert_eq!(judged.text, format!("certificate 'www.example' expires in 45 days ({})", written(good.until)));
        let text = |days, seconds| {
            let (validity, now) = validity(days, seconds);
            validity.judge(&DAYS, now).text
        };
        assert!(text(1, 0).contains("expires in 1 day ("), "{}", text(1, 0));
        assert!(text(0, 7_300).contains("expires in 2 hours ("), "{}", text(0, 7_300));
        assert!(text(0, 61).contains("expires in 1 minute ("), "{}", text(0, 61));
        assert!(text(-3, 0).contains("expired 3 days ago ("), "{}", text(-3, 0));
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        assert_eq!(Validity::read(b""), None);
        assert_eq!(Validity::read(&[0x30, 0x82, 0xff, 0xff, 0]), None);
    }

    #[test]
    fn faults_of_a_certificate_are_sentences() {
        let problem = |error| problem_of(&Error::InvalidCertificate(error));
        assert_eq!(problem(CertificateError::UnknownIssuer), "no trusted CA has signed it");
        let presented = ["a.example", "b.example"].map(|name| format!("DnsName(\"{name}\")")).to_vec();
        let expected = rustls_pki_types::ServerName::try_from("c.example").unwrap();
        assert_eq!(
            problem(CertificateError::NotValidForNameContext { expected, presented }),
            "it is for a.example, b.example, not for c.example"
        );
    }
}
