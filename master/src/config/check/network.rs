//! The texts of a network check, filled in for one host, into a `shared::Check`: numbers within bounds, ranges, web addresses,
//! words. Every text is judged where it stands, all mistakes of a check at once. Knows nothing of files and hosts.
//!
//! The surprise: `warning: 500ms` and `warning: "0.5"` say the same; the second is a range of seconds as the Monitoring Plugins
//! take it, so that `"0.1:2"` can be said as well.

use std::net::IpAddr;
use std::time::Duration;

use shared::check::network::{Agreement, CertificateDays, Limits, REDIRECTS_MAX, RecordType, StatusRange, Talk, Tls};
use shared::check::{CertificateCheck, Check, DnsCheck, HttpCheck, SshCheck, State, TcpCheck};
use shared::range::Range;
use shared::time::Interval;
use shared::url::{Url, check_path, default_port, is_host};

use super::Problem;
use crate::config::diagnostic::{At, Place, did_you_mean_or};
use crate::config::raw::NetworkKind;

/// Most texts to look for, headers to send and values to expect in one check.
pub const VALUES_MAX: usize = 64;
/// Longest text to send or look for, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Longest time before its end that a certificate can be warned of.
pub const DAYS_MAX: u32 = 3_650;
/// Days for a certificate where none are given: the customs of those who renew by hand and by machine.
const USUAL_DAYS: CertificateDays = CertificateDays { warning: Some(30), critical: Some(7) };
/// Headers that are made from other keys, or that would break the exchange.
const OWN_HEADERS: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "upgrade"];

/// Whether a text can be a name in the name service: labels of 1 to 63 bytes, perhaps with a dot behind the last (RFC 1035 §2.3.4).
fn is_asked_for(name: &str) -> bool {
    let plain = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic());
    // An address of version 6 has empty ones; it is turned into a name.
    name == "." || name.parse::<IpAddr>().is_ok() || (plain.len() <= 253 && plain.split('.').all(label))
}

/// One filled value: its key, a header's name or the like, the text.
pub struct Filled {
    /// Key as the files have it.
    pub key: &'static str,
    /// Name within the key.
    pub name: Option<String>,
    /// The text and its place.
    pub value: At<String>,
}

/// The check, or `None` with at least one fatal problem. `address` is the host's own.
pub fn build(
    kind: NetworkKind,
    place: Place,
    fields: &[Filled],
    address: &str,
    problems: &mut Vec<Problem>,
) -> Option<Check> {
    let before = problems.len();
    let mut reader = Reader { place, fields, problems };
    if fields.len() > VALUES_MAX {
        reader.wrong(place, format!("a check of more than {VALUES_MAX} values"), "make two services of it");
    }
    if let Some(long) = fields.iter().find(|field| field.value.value.len() > TEXT_BYTES_MAX) {
        let message = format!("`{}` is longer than {TEXT_BYTES_MAX} bytes", long.key);
        reader.wrong(long.value.place, message, "shorten it");
    }
    let check = match kind {
        NetworkKind::Tcp => Check::Tcp(reader.tcp(address)),
        NetworkKind::Http => Check::Http(Box::new(reader.http(address))),
        NetworkKind::Certificate => Check::Certificate(reader.certificate(address)),
        NetworkKind::Dns => Check::Dns(reader.dns()),
        NetworkKind::Ssh => Check::Ssh(reader.ssh(address)),
    };
    let broken = problems.iter().skip(before).any(|problem| problem.fatal);
    (!broken).then_some(check)
}

/// Reads typed values out of texts. What is wrong is noted and a harmless value given back: the check is not built then.
struct Reader<'a> {
    place: Place,
    fields: &'a [Filled],
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn wrong(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::fatal(place, message, hint));
    }

    fn one(&self, key: &str) -> Option<&'a At<String>> {
        self.fields.iter().find(|field| field.key == key && field.name.is_none()).map(|field| &field.value)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.one(key).map(|text| text.value.clone())
    }

    fn many(&self, key: &str) -> impl Iterator<Item = &'a At<String>> + use<'a> {
        let key = key.to_owned();
        self.fields.iter().filter(move |field| field.key == key).map(|field| &field.value)
    }

    fn port(&mut self, usual: u16) -> u16 {
        let Some(text) = self.one("port") else { return usual };
        match text.value.parse::<u16>().ok().filter(|port| *port > 0) {
            Some(port) => port,
            None => {
                let shown = text.value.escape_debug();
                let message = format!("“{shown}” is no port; a port is a number from 1 to 65535");
                self.wrong(text.place, message, format!("as in port: {}", usual.max(1)));
                usual
            }
        }
    }

    fn truth(&mut self, key: &str, usual: bool) -> bool {
        let Some(text) = self.one(key) else { return usual };
        match text.value.as_str() {
            "true" => true,
            "false" => false,
            other => {
                let message = format!("`{key}` must be true or false, and this is “{}”", other.escape_debug());
                self.wrong(text.place, message, "only these two words");
                usual
            }
        }
    }

    fn word<T: Copy>(&mut self, key: &str, usual: T, words: &[(&str, T)]) -> T {
        let Some(text) = self.one(key) else { return usual };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return *value;
        }
        let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let shown = text.value.escape_debug();
        let message = format!("`{key}` must be one of {}, and this is “{shown}”", list.join(", "));
        let hint = did_you_mean_or(&text.value, list.iter().copied(), "choose one of these words");
        self.wrong(text.place, message, hint);
        usual
    }

    /// A host name or address: the field's, or else the host's own.
    fn address(&mut self, own: &str) -> String {
        let Some(text) = self.one("address") else { return own.to_owned() };
        self.host("address", text)
    }

    fn host(&mut self, key: &str, text: &At<String>) -> String {
        let plain = text.value.trim_start_matches('[').trim_end_matches(']');
        if !is_host(plain) {
            let message = format!("`{key}` must be a name or an address, and this is “{}”", text.value.escape_debug());
            self.wrong(text.place, message, "as in www.example.net, 192.0.2.1 or 2001:db8::1");
        }
        plain.to_ascii_lowercase()
    }

    fn limits(&mut self) -> Limits {
        let warning = self.limit("warning");
        let critical = self.limit("critical");
        if let (Some(one), Some(other)) = (warning, critical)
            && one.end() > other.end()
            && !one.inside()
            && !other.inside()
        {
            let place = self.one("warning").map_or(self.place, |text| text.place);
            let message =
                "a time that is a WARNING is CRITICAL before: the bound of `warning` lies above that of `critical`";
            self.problems.push(Problem::warning(place, message, "usually the warning comes first"));
        }
        Limits { warning, critical }
    }

    fn limit(&mut self, key: &str) -> Option<Range> {
        let text = self.one(key)?;
        if let Ok(Interval(duration)) = text.value.parse::<Interval>() {
            return Range::new(0.0, duration.as_secs_f64(), false).ok();
        }
        match text.value.parse::<Range>() {
            Ok(range) => Some(range),
            Err(error) => {
                let shown = text.value.escape_debug();
                let message = format!("`{key}` must be a response time, and “{shown}” is none: {error}");
                self.wrong(text.place, message, "write 500ms or 2s, or a range of seconds in quotes: \"0.1:2\"");
                None
            }
        }
    }

    fn days(&mut self, text: &At<String>) -> Option<u32> {
        let days = text.value.parse::<Interval>().ok().map(|Interval(duration)| duration);
        let whole = days
            .filter(|duration| *duration >= Duration::from_secs(86_400))
            .map(|duration| duration.as_secs() / 86_400);
        let days = whole.and_then(|days| u32::try_from(days).ok()).filter(|days| *days <= DAYS_MAX);
        if days.is_none() {
            let shown = text.value.escape_debug();
            let message = format!("“{shown}” is no time before a certificate's end (1d to {DAYS_MAX}d)");
            let number = !text.value.is_empty() && text.value.bytes().all(|byte| byte.is_ascii_digit());
            let hint = if number { format!("write {}d for days", text.value) } else { "write 30d".to_owned() };
            self.wrong(text.place, message, hint);
        }
        days
    }

    /// Days of a certificate: those given, or the usual ones if none is.
    fn certificate_days(&mut self, warning: Option<&At<String>>, critical: Option<&At<String>>) -> CertificateDays {
        if warning.is_none() && critical.is_none() {
            return USUAL_DAYS;
        }
        let days = CertificateDays {
            warning: warning.and_then(|text| self.days(text)),
            critical: critical.and_then(|text| self.days(text)),
        };
        if let (Some(text), (Some(early), Some(late))) = (critical, (days.warning, days.critical))
            && late > early
        {
            let message = format!("critical ({late}d) comes before warning ({early}d), which will never be seen");
            self.problems.push(Problem::warning(text.place, message, "a warning comes with more days left"));
        }
        days
    }

    /// How a TLS server is believed; `name` only where the check has none of its own for other ends.
    fn tls(&mut self, with_name: bool) -> Tls {
        let name = self.one("name").filter(|_| with_name).map(|text| self.host("name", text));
        let verify = self.truth("verify", true);
        let ca = self.one("ca");
        if let Some(ca) = ca.filter(|ca| !ca.value.starts_with('/')) {
            let message =
                format!("`ca` must be the absolute path of a file, and this is “{}”", ca.value.escape_debug());
            self.wrong(ca.place, message, "as in /etc/perigee/ca.pem; the file lies on the satellite");
        }
        Tls { name, verify, ca: ca.map(|ca| ca.value.clone()) }
    }

    /// Keys that mean nothing without TLS.
    fn plain(&mut self, keys: &[&str]) {
        for key in keys {
            if let Some(field) = self.fields.iter().find(|field| field.key == *key) {
                let message = format!("`{key}` means nothing without TLS");
                self.wrong(field.value.place, message, "add tls: true, or take it out");
            }
        }
    }

    fn tcp(&mut self, own: &str) -> TcpCheck {
        let tls = self.truth("tls", false).then(|| self.tls(true));
        if tls.is_none() {
            self.plain(&["name", "verify", "ca"]);
        }
        let send = self.text("send");
        let expect: Vec<String> = self.many("expect").map(|text| text.value.clone()).collect();
        if let Some(empty) = self.many("expect").find(|text| text.value.is_empty()) {
            self.wrong(
                empty.place,
                "an empty text is found in everything",
                "write what the server says, or take it out",
            );
        }
        let words = [
            ("warning", State::Warning),
            ("critical", State::Critical),
            ("unknown", State::Unknown),
            ("ok", State::Ok),
        ];
        let mismatch = self.word("mismatch", State::Warning, &words);
        if let Some(text) = self.one("mismatch").filter(|_| expect.is_empty()) {
            self.wrong(text.place, "`mismatch` means nothing without `expect`", "add expect: TEXT, or take it out");
        }
        let limits = self.limits();
        let talks = tls.is_some() || send.is_some() || !expect.is_empty();
        TcpCheck {
            address: self.address(own),
            port: self.port(80),
            talk: talks.then_some(Talk { tls, send, expect, mismatch }),
            limits: (limits != Limits::default()).then_some(limits),
        }
    }

    fn http(&mut self, own: &str) -> HttpCheck {
        let url = self.one("url").and_then(|text| match Url::parse(&text.value) {
            Ok(url) => Some(url),
            Err(error) => {
                let message = format!("“{}” is no web address: {error}", text.value.escape_debug());
                self.wrong(text.place, message, "as in https://www.example.net/health, or a path: /health");
                None
            }
        });
        if self.one("url").is_some() {
            for key in ["path", "port", "tls"] {
                if let Some(text) = self.one(key) {
                    self.wrong(text.place, format!("`{key}` stands in the `url` already"), "write one of the two");
                }
            }
        }
        let secure = url.as_ref().map_or_else(|| self.truth("tls", false), |url| url.tls);
        let path =
            url.as_ref().map(|url| url.path.clone()).or_else(|| self.text("path")).unwrap_or_else(|| "/".to_owned());
        if let Some(text) = self.one("path")
            && let Err(error) = check_path(&text.value)
        {
            let why =
                if text.value.starts_with('/') { error.to_string() } else { "it does not begin with /".to_owned() };
            self.wrong(
                text.place,
                format!("“{}” is no path: {why}", text.value.escape_debug()),
                "as in /health?full=1",
            );
        }
        let address = match (&url, self.one("address")) {
            (Some(url), None) => url.host.clone(),
            _ => self.address(own),
        };
        let name = self.one("name").map(|text| self.host("name", text));
        let tls = secure.then(|| self.tls(false));
        let days = |name: &str| {
            let found =
                self.fields.iter().find(|field| field.key == "certificate" && field.name.as_deref() == Some(name));
            found.map(|field| &field.value)
        };
        let (warning, critical) = (days("warning"), days("critical"));
        let certificate = self.one("certificate").map(|_| self.certificate_days(warning, critical));
        if !secure && self.one("follow").is_none() {
            self.plain(&["verify", "ca", "certificate"]);
        }
        HttpCheck {
            port: url.as_ref().map_or_else(|| self.port(default_port(secure)), |url| url.port),
            host: name.or(url.map(|url| url.host)).unwrap_or_else(|| address.to_ascii_lowercase()),
            address,
            tls,
            path,
            method: self.method(),
            headers: self.headers(),
            body: self.text("body"),
            status: self.status(),
            contains: self.many("contains").map(|text| text.value.clone()).collect(),
            lacks: self.many("lacks").map(|text| text.value.clone()).collect(),
            follow: self.follow(),
            limits: self.limits(),
            certificate,
        }
    }

    fn method(&mut self) -> String {
        let usual = if self.one("body").is_some() { "POST" } else { "GET" };
        let Some(text) = self.one("method") else { return usual.to_owned() };
        let good = (1..=32).contains(&text.value.len())
            && text.value.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if !good || text.value == "CONNECT" {
            let message = format!("“{}” is no method of HTTP that a check can use", text.value.escape_debug());
            self.wrong(text.place, message, "write it in capitals: GET, HEAD, POST, OPTIONS");
        }
        text.value.clone()
    }

    fn headers(&mut self) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for field in self.fields.iter().filter(|field| field.key == "headers") {
            let name = field.name.clone().unwrap_or_default();
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                let message = format!("“{}” is no name of a header", name.escape_debug());
                self.wrong(field.value.place, message, "letters, digits and -, as in X-Probe: perigee");
            } else if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                let hint =
                    if name.eq_ignore_ascii_case("host") { "write name: www.example.net" } else { "take it out" };
                self.wrong(field.value.place, format!("the header `{name}` is made by Perigee"), hint);
            }
            let text = &field.value.value;
            if text.bytes().any(|byte| byte != b'\t' && (byte < b' ' || byte == 0x7f)) {
                let message = format!("the header `{name}` must not hold control characters");
                self.wrong(field.value.place, message, "a header is one line of text");
            }
            headers.push((name, text.clone()));
        }
        headers
    }

    /// `200`, `2xx`, `200-399`.
    fn status(&mut self) -> Vec<StatusRange> {
        let mut ranges = Vec::new();
        for text in self.many("status") {
            let number = |text: &str| text.trim().parse::<u16>().ok().filter(|number| (100..=599).contains(number));
            let range = match text.value.to_ascii_lowercase().strip_suffix("xx") {
                Some(hundred) => {
                    let hundred = hundred.parse::<u16>().ok().filter(|hundred| (1..=5).contains(hundred));
                    hundred.map(|hundred| StatusRange { first: hundred * 100, last: hundred * 100 + 99 })
                }
                None => {
                    let (first, last) = text.value.split_once('-').unwrap_or((&text.value, &text.value));
                    let both = number(first).zip(number(last)).filter(|(first, last)| first <= last);
                    both.map(|(first, last)| StatusRange { first, last })
                }
            };
            match range {
                Some(range) => ranges.push(range),
                None => {
                    let message = format!("“{}” is no status of HTTP", text.value.escape_debug());
                    self.wrong(text.place, message, "write 200, 2xx or \"200-399\"");
                }
            }
        }
        ranges
    }

    fn follow(&mut self) -> u8 {
        let Some(text) = self.one("follow") else { return 0 };
        match text.value.as_str() {
            "true" => REDIRECTS_MAX,
            "false" => 0,
            number => match number.parse::<u8>().ok().filter(|number| *number <= REDIRECTS_MAX) {
                Some(number) => number,
                None => {
                    let shown = number.escape_debug();
                    let message = format!(
                        "`follow` must be true, false or a number of redirects from 0 to {REDIRECTS_MAX}, and this is “{shown}”"
                    );
                    self.wrong(text.place, message, "as in follow: 3");
                    0
                }
            },
        }
    }

    fn certificate(&mut self, own: &str) -> CertificateCheck {
        let (warning, critical) = (self.one("warning"), self.one("critical"));
        CertificateCheck {
            address: self.address(own),
            port: self.port(443),
            tls: self.tls(true),
            days: self.certificate_days(warning, critical),
        }
    }

    fn dns(&mut self) -> DnsCheck {
        let name = self.one("name");
        if let Some(text) = name.filter(|text| !is_asked_for(&text.value)) {
            let message = format!("“{}” is no name that can be asked for", text.value.escape_debug());
            self.wrong(text.place, message, "as in www.example.net; write an international name in its xn-- form");
        }
        let kinds = RecordType::ALL.map(|kind| (kind.as_str(), kind));
        let words = [("all", Agreement::All), ("any", Agreement::Any), ("exact", Agreement::Exact)];
        let agreement = self.word("match", Agreement::All, &words);
        let expect: Vec<String> = self.many("expect").map(|text| text.value.clone()).collect();
        if let Some(text) = self.one("match").filter(|_| expect.is_empty()) {
            self.wrong(text.place, "`match` means nothing without `expect`", "add expect: [192.0.2.1], or take it out");
        }
        DnsCheck {
            name: name.map(|text| text.value.clone()).unwrap_or_default(),
            kind: self.word("type", RecordType::A, &kinds),
            server: self.one("server").map(|text| self.host("server", text)),
            port: self.one("port").is_some().then(|| self.port(53)),
            expect,
            agreement,
            limits: self.limits(),
        }
    }

    fn ssh(&mut self, own: &str) -> SshCheck {
        SshCheck {
            address: self.address(own),
            port: self.port(22),
            version: self.text("version"),
            protocol: self.text("protocol"),
            limits: self.limits(),
        }
    }
}
