//! The keys of tcp, http, certificate, dns and ssh checks: which there are, and which take a list. Every value stays a text with its
//! place, because it may hold `{{ … }}`; what the texts must be is known to `check/network`.

use super::field::Fields;
use crate::config::diagnostic::At;
use crate::config::raw::{NetworkKind, RawField, RawNetwork};
use crate::config::yaml::{Key, Kind, Node};

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// One text, number or truth value.
    One,
    /// One or several.
    Many,
    /// Names and texts.
    Pairs,
    /// `warning` and `critical` of a certificate; an empty mapping stands for the usual ones.
    Days,
}

use Takes::{Days, Many, One, Pairs};

const TCP_KEYS: &[(&str, Takes)] = &[
    ("port", One),
    ("address", One),
    ("send", One),
    ("expect", Many),
    ("mismatch", One),
    ("warning", One),
    ("critical", One),
    ("tls", One),
    ("name", One),
    ("verify", One),
    ("ca", One),
];
const HTTP_KEYS: &[(&str, Takes)] = &[
    ("url", One),
    ("path", One),
    ("port", One),
    ("address", One),
    ("tls", One),
    ("name", One),
    ("method", One),
    ("headers", Pairs),
    ("body", One),
    ("status", Many),
    ("contains", Many),
    ("lacks", Many),
    ("follow", One),
    ("warning", One),
    ("critical", One),
    ("certificate", Days),
    ("verify", One),
    ("ca", One),
];
const CERTIFICATE_KEYS: &[(&str, Takes)] = &[
    ("port", One),
    ("address", One),
    ("name", One),
    ("warning", One),
    ("critical", One),
    ("verify", One),
    ("ca", One),
];
const DNS_KEYS: &[(&str, Takes)] = &[
    ("name", One),
    ("type", One),
    ("server", One),
    ("port", One),
    ("expect", Many),
    ("match", One),
    ("warning", One),
    ("critical", One),
];
const SSH_KEYS: &[(&str, Takes)] =
    &[("port", One), ("address", One), ("version", One), ("protocol", One), ("warning", One), ("critical", One)];

/// Keys that stand beside `check`, where people look for them within it as well.
const BESIDE: &[&str] = &["timeout", "check_interval", "retry_interval", "max_check_attempts"];

impl NetworkKind {
    /// The kind that a check's key names.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        [Self::Tcp, Self::Http, Self::Certificate, Self::Dns, Self::Ssh].into_iter().find(|kind| kind.as_str() == key)
    }

    fn keys(self) -> &'static [(&'static str, Takes)] {
        match self {
            Self::Tcp => TCP_KEYS,
            Self::Http => HTTP_KEYS,
            Self::Certificate => CERTIFICATE_KEYS,
            Self::Dns => DNS_KEYS,
            Self::Ssh => SSH_KEYS,
        }
    }

    /// What a single text instead of a mapping means.
    fn short(self, text: &str) -> &'static str {
        match self {
            Self::Tcp | Self::Certificate | Self::Ssh => "port",
            Self::Dns => "name",
            Self::Http if text.starts_with('/') => "path",
            Self::Http => "url",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Tcp => "write tcp: { port: 80 }",
            Self::Http => "write http: /path, http: https://name/path or http: { path: /, tls: true }",
            Self::Certificate => "write certificate: 443 or certificate: { port: 443, warning: 30d }",
            Self::Dns => "write dns: www.example.net or dns: { name: www.example.net, type: A }",
            Self::Ssh => "write ssh: 22 or ssh: { port: 22 }",
        }
    }
}

/// Reads the value of such a check. Mistakes go to `fields`; `None` if nothing can be made of it.
pub(super) fn network(
    fields: &mut Fields<'_>,
    kind: NetworkKind,
    key: &Key,
    value: &Node,
    args: Option<&Node>,
) -> Option<RawNetwork> {
    let word = kind.as_str();
    let article = if kind == NetworkKind::Ssh || kind == NetworkKind::Http { "an" } else { "a" };
    let mut whole = true;
    if let Some(args) = args {
        fields.findings.error(args.place, format!("{article} {word} check takes no `args`"), kind.example());
        whole = false;
    }
    let mut list = Vec::new();
    if !Fields::is_mapping(value) && !value.is_null() {
        let text = fields.text(value, word)?;
        list.push(RawField { key: kind.short(&text.value), name: None, value: text });
    }
    let entries = if Fields::is_mapping(value) { fields.entries(value, word) } else { &[] };
    for (key, node) in entries {
        let Some((name, takes)) = kind.keys().iter().find(|(name, _)| *name == key.text) else {
            whole = false;
            if BESIDE.contains(&key.text.as_str()) {
                let message = format!("`{}` belongs beside `check`, not into it", key.text);
                fields.findings.error(
                    key.place,
                    message,
                    format!("write it on the line below: check: … and {}: …", key.text),
                );
            } else {
                let names: Vec<&str> = kind.keys().iter().map(|(name, _)| *name).collect();
                fields.unknown(key, &format!("key of `{word}`"), &names, &["regex", "client_certificate", "proxy"]);
            }
            continue;
        };
        let before = list.len();
        let good = read(fields, name, *takes, node, &mut list);
        whole &= good && (list.len() > before || *takes == Many);
    }
    let needed: &[&str] = match kind {
        NetworkKind::Tcp => &["port"],
        NetworkKind::Dns => &["name"],
        NetworkKind::Http | NetworkKind::Certificate | NetworkKind::Ssh => &[],
    };
    for needed in needed.iter().filter(|needed| !list.iter().any(|field| field.key == **needed)) {
        // A key that is there and wrong has been named already.
        if !entries.iter().any(|(key, _)| key.text == **needed) {
            fields.findings.error(key.place, format!("{article} {word} check needs a {needed}"), kind.example());
        }
        whole = false;
    }
    whole.then_some(RawNetwork { kind, place: key.place, fields: list })
}

/// Reads one key's value into fields; false if it is a mistake.
fn read(fields: &mut Fields<'_>, key: &'static str, takes: Takes, node: &Node, list: &mut Vec<RawField>) -> bool {
    let field = |name: Option<String>, value: At<String>| RawField { key, name, value };
    match (takes, &node.kind) {
        (Many, Kind::List(items)) => {
            let texts: Vec<_> = items.iter().filter_map(|item| fields.text(item, key)).collect();
            let good = texts.len() == items.len();
            list.extend(texts.into_iter().map(|text| field(None, text)));
            good
        }
        (One | Many, _) => fields.text(node, key).map(|text| list.push(field(None, text))).is_some(),
        (Pairs, _) => {
            let entries = fields.entries(node, &format!("`{key}`"));
            let mut good = !fields.is_wrong_type(node);
            for (name, node) in entries {
                let text = fields.text(node, &name.text);
                good &= text.is_some();
                list.extend(text.map(|text| field(Some(name.text.clone()), text)));
            }
            good
        }
        (Days, _) => {
            let entries = fields.entries(node, &format!("`{key}`"));
            let mut good = !fields.is_wrong_type(node);
            list.push(field(None, At::new(String::new(), node.place)));
            for (name, node) in entries {
                if matches!(name.text.as_str(), "warning" | "critical") {
                    let text = fields.text(node, &name.text);
                    good &= text.is_some();
                    list.extend(text.map(|text| field(Some(name.text.clone()), text)));
                } else {
                    good = false;
                    fields.unknown(name, &format!("key of `{key}`"), &["warning", "critical"], &[]);
                }
            }
            good
        }
    }
}
