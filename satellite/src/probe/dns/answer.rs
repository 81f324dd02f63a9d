//! A question to a name server as bytes, its answer as values, and how these agree with what a check expects. Knows no socket.
//!
//! The surprise: only records of the type that was asked for count, under the name itself or under what it is an alias of, as
//! the server's own CNAME chain has it; whatever else a server puts in is not its answer.

use std::net::IpAddr;

use hickory_resolver::proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType as Kind};
use shared::check::network::{Agreement, RecordType};

use crate::probe::found::{shown, shown_bytes};

/// Bytes that a server may send by UDP (the value of the DNS flag day 2020, which passes every path); more comes by TCP.
pub const UDP_BYTES: u16 = 1_232;
/// Values of one answer that are looked at; further ones are left alone.
pub const VALUES_MAX: usize = 256;
/// Aliases that are followed from one name.
const ALIASES_MAX: usize = 16;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    name: Name,
    kind: Kind,
    id: u16,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Values of the type asked for, sorted; none: the name exists without them (NODATA).
    Values(Vec<String>),
    /// Another response code than success.
    Code(ResponseCode),
    /// Cut off; the rest comes by TCP.
    Truncated,
}

impl Question {
    /// The question for a name; the name is taken as complete. For `PTR` an address is turned into its name.
    ///
    /// # Errors
    /// Why the text is no name.
    pub fn new(name: &str, kind: RecordType, id: u16) -> Result<Self, String> {
        let mut parsed = match name.parse::<IpAddr>() {
            Ok(address) if kind == RecordType::Ptr => Name::from(address),
            // Not the strict parser: host names of containers have underscores.
            _ => Name::from_ascii(name).map_err(|error| shown(&error.to_string()))?,
        };
        parsed.set_fqdn(true);
        Ok(Self { name: parsed, kind: kind_of(kind), id })
    }

    /// The question in bytes, with EDNS (RFC 6891) or as it was before 1999.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn bytes(&self, extended: bool) -> Result<Vec<u8>, String> {
        let mut message = Message::query();
        message.metadata.id = self.id;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.kind));
        if extended {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES);
            message.set_edns(edns);
        }
        message.to_vec().map_err(|error| shown(&error.to_string()))
    }

    /// What these bytes answer; `None` if they are no answer to this question, which on UDP means that anybody may have sent
    /// them.
    #[must_use]
    pub fn read(&self, bytes: &[u8]) -> Option<Said> {
        let Ok(message) = Message::from_vec(bytes) else { return self.is_cut_off(bytes).then_some(Said::Truncated) };
        let same = |query: &Query| query.name() == &self.name && query.query_type() == self.kind;
        // A server that cannot read the question need not repeat it.
        let code = message.metadata.response_code;
        let repeated = message.queries.first().map_or(code != ResponseCode::NoError, same);
        if message.metadata.id != self.id || message.metadata.message_type != MessageType::Response || !repeated {
            return None;
        }
        if message.metadata.truncation {
            return Some(Said::Truncated);
        }
        if code != ResponseCode::NoError {
            return Some(Said::Code(code));
        }
        let mut name = &self.name;
        let mut values = Vec::new();
        for _ in 0..ALIASES_MAX {
            let own = message.answers.iter().filter(|record| &record.name == name);
            values.extend(
                own.clone().filter(|record| record.record_type() == self.kind).map(|record| value(&record.data)),
            );
            let alias = own.into_iter().find_map(|record| match &record.data {
                RData::CNAME(alias) => Some(&alias.0),
                _ => None,
            });
            match alias {
                Some(alias) if values.is_empty() => name = alias,
                _ => break,
            }
        }
        values.sort();
        values.truncate(VALUES_MAX);
        Some(Said::Values(values))
    }

    /// Whether these bytes begin as an answer to this that was cut off: some servers cut in the middle of a record.
    fn is_cut_off(&self, bytes: &[u8]) -> bool {
        let Some([first, second, flags, ..]) = bytes.first_chunk::<12>() else { return false };
        u16::from_be_bytes([*first, *second]) == self.id && flags & 0x82 == 0x82
    }
}

impl Said {
    /// Whether a server says that it does not understand EDNS (RFC 6891 §7).
    #[must_use]
    pub fn is_too_new(&self) -> bool {
        matches!(self, Self::Code(ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS))
    }
}

fn kind_of(kind: RecordType) -> Kind {
    match kind {
        RecordType::A => Kind::A,
        RecordType::Aaaa => Kind::AAAA,
        RecordType::Mx => Kind::MX,
        RecordType::Ns => Kind::NS,
        RecordType::Txt => Kind::TXT,
        RecordType::Cname => Kind::CNAME,
        RecordType::Soa => Kind::SOA,
        RecordType::Ptr => Kind::PTR,
        RecordType::Srv => Kind::SRV,
    }
}

/// A value as people write it: names without their last dot.
fn value(data: &RData) -> String {
    let name = |name: &Name| {
        let text = name.to_ascii();
        text.strip_suffix('.').filter(|text| !text.is_empty()).unwrap_or(&text).to_owned()
    };
    let text = match data {
        RData::MX(mx) => format!("{} {}", mx.preference, name(&mx.exchange)),
        RData::NS(ns) => name(&ns.0),
        RData::CNAME(cname) => name(&cname.0),
        RData::PTR(ptr) => name(&ptr.0),
        RData::SRV(srv) => format!("{} {} {} {}", srv.priority, srv.weight, srv.port, name(&srv.target)),
        RData::SOA(soa) => format!(
            "{} {} {} {} {} {} {}",
            name(&soa.mname),
            name(&soa.rname),
            soa.serial,
            soa.refresh,
            soa.retry,
            soa.expire,
            soa.minimum
        ),
        RData::TXT(txt) => return shown_bytes(&txt.txt_data.concat()),
        other => other.to_string(),
    };
    shown(&text)
}

/// What is wrong with these values, if anything. Letter case does not count, nor does the dot at the end of a name; addresses
/// are compared as addresses.
#[must_use]
pub fn disagreement(values: &[String], expected: &[String], agreement: Agreement) -> Option<String> {
    let plain = |text: &String| match text.trim().parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => text.trim().trim_end_matches('.').to_ascii_lowercase(),
    };
    let there: Vec<String> = values.iter().map(plain).collect();
    let wanted: Vec<String> = expected.iter().map(plain).collect();
    let found = |text: &String| there.contains(text);
    let good = match agreement {
        _ if expected.is_empty() => true,
        Agreement::All => wanted.iter().all(found),
        Agreement::Any => wanted.iter().any(found),
        Agreement::Exact => wanted.iter().all(found) && there.iter().all(|text| wanted.contains(text)),
    };
    (!good).then(|| format!("expected '{}' but got '{}'", shown(&expected.join(",")), shown(&values.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::op::OpCode;
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, MX, TXT};
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        let mut name = Name::from_ascii(text).unwrap();
        name.set_fqdn(true);
        name
    }

    fn question(kind: RecordType) -> Question {
        Question::new("www.example.net", kind, 7).unwrap()
    }

    fn answer(question: &Question, records: Vec<(&str, RData)>) -> Message {
        let mut message = Message::response(question.id, OpCode::Query);
        message.add_query(Query::query(question.name.clone(), question.kind));
        message.add_answers(records.into_iter().map(|(owner, data)| Record::from_rdata(name(owner), 60, data)));
        message
    }

    fn values(message: &Message, question: &Question) -> Vec<String> {
        match question.read(&message.to_vec().unwrap()) {
            Some(Said::Values(values)) => values,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_are_those_of_the_name_and_of_what_it_is_an_alias_of() {
        let question = question(RecordType::A);
        let a = |last| RData::A(A::new(192, 0, 2, last));
        let direct = vec![("www.example.net", a(2)), ("www.example.net", a(1)), ("other.example.net", a(9))];
        assert_eq!(values(&answer(&question, direct), &question), ["192.0.2.1", "192.0.2.2"]);
        let alias = |to| RData::CNAME(CNAME(name(to)));
        let chain = vec![
            ("b.example.net", a(3)),
            ("www.example.net", alias("a.example.net")),
            ("a.example.net", alias("b.example.net")),
        ];
        assert_eq!(values(&answer(&question, chain), &question), ["192.0.2.3"]);
        let circle = vec![("www.example.net", alias("a.example.net")), ("a.example.net", alias("www.example.net"))];
        assert!(values(&answer(&question, circle), &question).is_empty());
    }

    #[test]
    fn values_are_written_as_zone_files_have_them() {
        let mx = question(RecordType::Mx);
        let message = answer(&mx, vec![("www.example.net", RData::MX(MX::new(10, name("mail.example.net"))))]);
        assert_eq!(values(&message, &mx), ["10 mail.example.net"]);
        let txt = question(RecordType::Txt);
        let text = RData::TXT(TXT::new(vec!["v=spf1 ".to_owned(), "-all|\u{1b}[2J".to_owned()]));
        assert_eq!(values(&answer(&txt, vec![("www.example.net", text)]), &txt), ["v=spf1 -all[2J"]);
    }

    #[test]
    fn an_underscore_and_an_address_are_good_questions() {
        assert!(Question::new("tasks.shop_web", RecordType::A, 1).is_ok());
        let reverse = Question::new("192.0.2.7", RecordType::Ptr, 1).unwrap();
        assert_eq!(reverse.name.to_ascii(), "7.2.0.192.in-addr.arpa.");
        assert!(Question::new("a..b", RecordType::A, 1).is_err());
        assert!(Question::new(&"a".repeat(300), RecordType::A, 1).is_err());
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let question = question(RecordType::A);
        let mut message = answer(&question, vec![]);
        assert_eq!(question.read(&message.to_vec().unwrap()), Some(Said::Values(Vec::new())));
        message.metadata.id = 8;
        assert_eq!(question.read(&message.to_vec().unwrap()), None);
        let other = Question::new("evil.example", RecordType::A, 7).unwrap();
        assert_eq!(question.read(&answer(&other, vec![]).to_vec().unwrap()), None);
        assert_eq!(question.read(&question.bytes(true).unwrap()), None, "a question is no answer");
        let mut message = answer(&question, vec![]);
        message.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(question.read(&message.to_vec().unwrap()), Some(Said::Code(ResponseCode::NXDomain)));
        message.metadata.truncation = true;
        assert_eq!(question.read(&message.to_vec().unwrap()), Some(Said::Truncated));
    }

    #[test]
    fn expected_values_agree_in_any_order_and_case() {
        let values = ["192.0.2.1".to_owned(), "2001:db8::1".to_owned(), "Mail.Example.net".to_owned()];
        let agree = |expected: &[&str], agreement| {
            let expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
            disagreement(&values, &expected, agreement).is_none()
        };
        assert!(agree(&["mail.example.net.", "192.0.2.1"], Agreement::All));
        assert!(agree(&["2001:DB8:0::1"], Agreement::All));
        assert!(!agree(&["192.0.2.1", "192.0.2.2"], Agreement::All));
        assert!(agree(&["192.0.2.1", "192.0.2.2"], Agreement::Any));
        assert!(!agree(&["192.0.2.2"], Agreement::Any));
        assert!(!agree(&["192.0.2.1"], Agreement::Exact));
        assert!(agree(&["2001:db8::1", "mail.example.net", "192.0.2.1"], Agreement::Exact));
        assert!(agree(&[], Agreement::Exact));
        let text = disagreement(&values[..1], &["192.0.2.9".to_owned()], Agreement::All);
        assert_eq!(text.as_deref(), Some("expected '192.0.2.9' but got '192.0.2.1'"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), header: bool) {
            let question = question(RecordType::Txt);
            if header {
                let mut whole = answer(&question, vec![]).to_vec().unwrap();
                // Claims an answer, and what follows is whatever came.
                whole[7] = 1;
                whole.append(&mut bytes);
                bytes = whole;
            }
            let _ = question.read(&bytes);
        }
    }
}
