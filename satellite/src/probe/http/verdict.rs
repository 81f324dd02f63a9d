//! What the answer of a web server means: its status by the check's list or by check_http's rule, the texts that must and must
//! not be in it, its response time. Gives state, text and performance data in the form of check_http. Knows no socket.

use std::time::Duration;

use shared::check::State;
use shared::check::network::{HttpCheck, StatusRange};

use crate::probe::certificate::validity::Judgement;
use crate::probe::found::{Found, shown, time_item, worse};

/// The answer at the end of all redirects.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    /// Where it came from.
    pub url: &'a str,
    /// `HTTP/1.1 200 OK`
    pub line: &'a str,
    /// Its number.
    pub status: u16,
    /// The body, as far as it was read.
    pub body: &'a [u8],
    /// Whether there was more of it.
    pub cut_off: bool,
    /// Bytes that came, headers included.
    pub size: u64,
    /// From the first connection to the last byte.
    pub took: Duration,
    /// What its certificate's days mean, where they are asked for.
    pub certificate: Option<Judgement>,
    /// What is wrong with a certificate that was not verified.
    pub doubt: Option<&'a str>,
}

/// Whether a status is among those that are good.
#[must_use]
pub fn is_accepted(status: u16, good: &[StatusRange]) -> bool {
    good.iter().any(|range| (range.first..=range.last).contains(&status))
}

/// State and words for a status. Without a list of good ones: check_http's rule, by which a redirect that is not followed is OK.
fn of_status(check: &HttpCheck, answer: &Answer<'_>) -> (State, Option<String>) {
    match answer.status {
        status if !check.status.is_empty() => {
            if is_accepted(status, &check.status) {
                (State::Ok, None)
            } else {
                (State::Critical, Some(format!("status is not {}", listed(&check.status))))
            }
        }
        100..400 => (State::Ok, None),
        400..500 => (State::Warning, None),
        500..600 => (State::Critical, None),
        _ => (State::Critical, Some("invalid status".to_owned())),
    }
}

/// `200, 300-399`
fn listed(ranges: &[StatusRange]) -> String {
    let one = |range: &StatusRange| match range {
        StatusRange { first, last } if first == last => first.to_string(),
        StatusRange { first, last } => format!("{first}-{last}"),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// State, text and performance data.
#[must_use]
pub fn judge(check: &HttpCheck, answer: &Answer<'_>, limit: Duration) -> Found {
    let (mut state, complaint) = of_status(check, answer);
    let mut complaints: Vec<String> = complaint.into_iter().collect();
    for text in check.contains.iter().filter(|text| !occurs(answer.body, text)) {
        let where_looked =
            if answer.cut_off { format!(" in its first {} bytes", answer.body.len()) } else { String::new() };
        complaints.push(format!("string '{}' not found on '{}'{where_looked}", shown(text), shown(answer.url)));
        state = State::Critical;
    }
    for text in check.lacks.iter().filter(|text| occurs(answer.body, text)) {
        complaints.push(format!("string '{}' found on '{}'", shown(text), shown(answer.url)));
        state = State::Critical;
    }
    let seconds = answer.took.as_secs_f64();
    state = worse(state, check.limits.judge(seconds));
    let mut perfdata = format!("{} size={}B;;;0;", time_item(answer.took, &check.limits, limit), answer.size);
    let mut more = String::new();
    if let Some(certificate) = &answer.certificate {
        state = worse(state, certificate.state);
        more = format!(", {}", certificate.text);
        perfdata = format!("{perfdata} {}", certificate.perfdata);
    }
    if let Some(doubt) = answer.doubt {
        more.push_str(&format!(", certificate not trusted: {doubt}"));
    }
    let complaints: String = complaints.iter().map(|complaint| format!("{complaint} - ")).collect();
    let (line, size) = (shown(answer.line), answer.size);
    let text = format!(
        "HTTP {state}: {line} - {complaints}{size} bytes in {seconds:.3} second response time{more} |{perfdata}"
    );
    Found::ran(state, text)
}

/// Whether the text occurs among the bytes; an empty one always does.
fn occurs(body: &[u8], text: &str) -> bool {
    let wanted = text.as_bytes();
    let Some(first) = wanted.first() else { return true };
    let mut rest = body;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let tail = rest.get(at..).unwrap_or_default();
        if tail.starts_with(wanted) {
            return true;
        }
        rest = tail.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::check::network::Limits;

    fn check() -> HttpCheck {
        HttpCheck {
            address: "web".into(),
            port: 80,
            tls: None,
            host: "web".into(),
            path: "/".into(),
            method: "GET".into(),
            headers: Vec::new(),
            body: None,
            status: Vec::new(),
            contains: Vec::new(),
            lacks: Vec::new(),
            follow: 0,
            limits: Limits::default(),
            certificate: None,
        }
    }

    fn answer(status: u16, body: &[u8]) -> Answer<'_> {
        Answer {
            url: "http://web/",
            line: "HTTP/1.1 200 OK",
            status,
            body,
            cut_off: false,
            size: 512,
            took: Duration::from_millis(10),
            certificate: None,
            doubt: None,
        }
    }

    const LIMIT: Duration = Duration::from_secs(10);

    fn state(check: &HttpCheck, status: u16, body: &[u8]) -> State {
        judge(check, &answer(status, body), LIMIT).state
    }

    #[test]
    fn a_good_answer_reads_as_that_of_check_http() {
        assert_eq!(
            judge(&check(), &answer(200, b""), LIMIT).text,
            "HTTP OK: HTTP/1.1 200 OK - 512 bytes in 0.010 second response time \
             |time=0.010000s;;;0.000000;10.000000 size=512B;;;0;"
        );
    }

    #[test]
    fn without_a_list_the_hundreds_make_the_state() {
        let states = [100, 200, 204, 301, 399, 400, 404, 499, 500, 503, 599, 600, 999, 0];
        let found = states.map(|status| state(&check(), status, b"").number());
        assert_eq!(found, [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn with_a_list_only_what_is_on_it_is_good() {
        let mut check = check();
        check.status = vec![StatusRange { first: 200, last: 200 }, StatusRange { first: 400, last: 404 }];
        let found = [200, 201, 301, 403, 404, 405, 500].map(|status| state(&check, status, b"").number());
        assert_eq!(found, [0, 2, 2, 0, 0, 2, 2]);
        let text = judge(&check, &answer(500, b""), LIMIT).text;
        assert!(text.contains("status is not 200, 400-404 - "), "{text}");
    }

    #[test]
    fn all_texts_must_be_there_and_none_that_must_not() {
        let mut check = check();
        check.contains = vec!["ready".into(), "db".into()];
        check.lacks = vec!["error".into()];
        assert_eq!(state(&check, 200, b"\xff db rereready"), State::Ok);
        assert_eq!(state(&check, 200, b"ready"), State::Critical);
        assert_eq!(state(&check, 200, b"ready db error"), State::Critical);
        assert_eq!(state(&check, 404, b"ready db"), State::Warning);
        let text = judge(&check, &answer(200, b"ready"), LIMIT).text;
        assert!(
            text.starts_with("HTTP CRITICAL: HTTP/1.1 200 OK - string 'db' not found on 'http://web/' - 512 "),
            "{text}"
        );
    }

    #[test]
    fn the_worst_of_status_time_and_certificate_counts() {
        let mut check = check();
        check.limits.warning = "0.005".parse().ok();
        assert_eq!(state(&check, 200, b""), State::Warning);
        assert_eq!(state(&check, 500, b""), State::Critical);
        let certificate = Judgement {
            state: State::Critical,
            text: "certificate 'web' expires in 2 days (x)".into(),
            perfdata: "days=2;30;7".into(),
        };
        let found = judge(&check, &Answer { certificate: Some(certificate), ..answer(200, b"") }, LIMIT);
        assert_eq!(found.state, State::Critical);
        assert!(found.text.contains("response time, certificate 'web' expires in 2 days (x) |time="), "{}", found.text);
        assert!(found.text.ends_with(" size=512B;;;0; days=2;30;7"), "{}", found.text);
    }

    #[test]
    fn what_a_server_calls_its_status_cannot_forge_performance_data() {
        let answer = Answer { line: "HTTP/1.1 200 OK|time=0s\u{1b}[2J", ..answer(200, b"") };
        let text = judge(&check(), &answer, LIMIT).text;
        assert!(text.starts_with("HTTP OK: HTTP/1.1 200 OKtime=0s[2J - 512 bytes"), "{text}");
    }
}
