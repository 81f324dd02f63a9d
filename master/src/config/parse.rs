//! Tree → raw objects: which keys there are, of which type, and where each stood. Nothing is resolved here.
//!
//! Names every unknown key (with the one that was probably meant), every wrong type and every bound that is broken, and goes on.
//! What belongs to Perigee but not to this version is said to be just that: never an unknown key, never silently accepted.

mod endpoint;
pub mod field;
mod icmp;
pub mod network;
mod plugin;

use super::diagnostic::{At, Findings, Place, nearest};
use super::raw::{NetworkKind, Raw, RawCheck, RawGraphite, RawProbe, RawRegion, RawService, Settings};
use super::source::Sources;
use super::yaml::{self, Key, Node};
use field::{Fields, Later};
use shared::check::State;
use std::time::Duration;

/// Shortest and longest check or retry interval.
pub const INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(31 * 86_400));
/// Shortest and longest time one execution may take.
pub const TIMEOUT_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3_600));
/// Shortest and longest silence after which a slot's hosts move; less than the holder's lease would move them while it still works.
pub const FAILOVER_BOUNDS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(86_400));
/// Most slots of one region.
pub const SLOTS_MAX: u64 = 1_000;
/// Most attempts before a state is hard.
pub const ATTEMPTS_MAX: u64 = 1_000;

const SECTIONS: &[&str] = &["regions", "templates", "hosts", "services", "commands", "writers"];
const LATER_SECTIONS: Later = &[
    "contacts",
    "contact_groups",
    "notifications",
    "escalations",
    "time_periods",
    "timeperiods",
    "periods",
    "dependencies",
    "groups",
    "host_groups",
    "service_groups",
    "downtimes",
    "secrets",
    "dashboards",
];
const REGION_KEYS: &[&str] = &["slots", "join", "failover_after"];
const COMMON_KEYS: &[&str] =
    &["use", "check", "check_interval", "retry_interval", "max_check_attempts", "timeout", "on_transport_error"];
const HOST_KEYS: &[&str] = &["region", "address", "nrpe", "groups", "vars"];
const SERVICE_KEYS: &[&str] = &["hosts", "where", "for"];
const LATER_OBJECT_KEYS: Later = &[
    "check_period",
    "notification_period",
    "notification_interval",
    "notifications",
    "contacts",
    "contact_groups",
    "parents",
    "children",
    "depends_on",
    "notes",
    "notes_url",
    "action_url",
    "icon",
    "display_name",
    "passive",
    "freshness",
    "flapping",
    "event_handler",
    "volatile",
    "enabled",
    "agent",
    "secrets",
];
const NRPE_KEYS: &[&str] =
    &["tls", "port", "version", "ca", "certificate", "key", "name", "pins", "ciphers", "service"];
const CHECK_KINDS: &[&str] = &["nrpe", "tcp", "icmp", "http", "certificate", "dns", "ssh", "plugin", "command"];
const PROBE_KINDS: &[&str] = &["nrpe", "tcp", "icmp", "http", "certificate", "dns", "ssh", "plugin"];
/// Kinds that need nothing said: `check: icmp`.
const WORD_KINDS: &[&str] = &["icmp"];
/// What other systems call an echo.
const OTHER_NAMES: &[&str] = &["ping", "ping4", "ping6", "hostalive"];
/// What may stand beside a kind.
const BESIDE_KEYS: &[&str] = &["args", "env"];
const ICMP_KEYS: &[&str] = &["packets", "warning", "critical"];
const ICMP_LEVEL_KEYS: &[&str] = &["rta", "loss"];
const LATER_CHECKS: Later = &["passive", "agent", "none", "snmp", "notify"];
const WRITER_KINDS: &[&str] = &["graphite"];
const LATER_WRITERS: Later =
    &["influxdb", "influxdb2", "prometheus", "opentsdb", "elasticsearch", "gelf", "otlp", "victoriametrics"];
const GRAPHITE_KEYS: &[&str] = &["address", "prefix", "thresholds", "metadata"];

/// Reads all objects of all files. Never fails: what is wrong stands in `findings`.
pub fn parse(sources: &Sources, findings: &mut Findings) -> Raw {
    findings.extend(sources.findings().clone());
    let mut parser = Parser { raw: Raw::default(), findings };
    for (file, (_, text)) in sources.texts().enumerate() {
        let document = yaml::read(file, text, parser.findings);
        parser.raw.broken.extend(document.broken.iter().map(|line| (file, *line)));
        for root in &document.roots {
            parser.sections(root);
        }
    }
    parser.raw
}

/// What a check says it is: the kind, its value, and what stands beside it.
struct Kind<'n> {
    text: &'n str,
    place: Place,
    /// `None`: the word alone was written.
    value: Option<&'n Node>,
    args: Option<&'n Node>,
    env: Option<(&'n Key, &'n Node)>,
}

struct Parser<'a> {
    raw: Raw,
    findings: &'a mut Findings,
}

impl Parser<'_> {
    fn fields(&mut self) -> Fields<'_> {
        Fields { findings: self.findings }
    }

    fn sections(&mut self, root: &Node) {
        for (key, node) in self.fields().entries(root, "the file") {
            match key.text.as_str() {
                "regions" => {
                    for (name, node) in self.named(node, "regions") {
                        let region = self.region(node, name.place);
                        self.raw.regions.push((name, region));
                    }
                }
                "templates" => {
                    for (name, node) in self.named(node, "templates") {
                        let settings = self.host_like(node, "a template");
                        self.raw.templates.push((name, settings));
                    }
                }
                "hosts" => {
                    for (name, node) in self.named(node, "hosts") {
                        let settings = self.host_like(node, "a host");
                        self.raw.hosts.push((name, settings));
                    }
                }
                "services" => {
                    for (name, node) in self.named(node, "services") {
                        let service = self.service(node);
                        self.raw.services.push((name, service));
                    }
                }
                "commands" => {
                    for (name, node) in self.named(node, "commands") {
                        if let Some(probe) = self.command(node, name.place) {
                            self.raw.commands.push((name, probe));
                        }
                    }
                }
                "writers" => {
                    for (name, node) in self.named(node, "writers") {
                        self.writer(&name, node);
                    }
                }
                _ => self.fields().unknown(key, "section", SECTIONS, LATER_SECTIONS),
            }
        }
    }

    /// The objects of a section; an empty section is allowed.
    fn named<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(At<String>, &'n Node)> {
        let entries = self.fields().entries(node, &format!("`{what}`"));
        entries.iter().map(|(key, node)| (At::new(key.text.clone(), key.place), node)).collect()
    }

    fn region(&mut self, node: &Node, place: Place) -> RawRegion {
        let mut region = RawRegion::default();
        let entries = self.fields().entries(node, "a region");
        if !has(entries, "slots") {
            let hint = "write slots: and how many satellites are expected, as in slots: 1".to_owned();
            self.findings.error(place, "the region does not say how many slots it has", hint);
        }
        for (key, node) in entries {
            match key.text.as_str() {
                "slots" => region.slots = self.fields().integer(node, "slots", 1..=SLOTS_MAX),
                "join" => region.join = self.fields().texts(node, "join"),
                "failover_after" => {
                    region.failover_after = self.fields().interval(node, "failover_after", FAILOVER_BOUNDS);
                }
                _ => self.fields().unknown(key, "key of a region", REGION_KEYS, &["networks", "drain"]),
            }
        }
        region
    }

    fn host_like(&mut self, node: &Node, what: &str) -> Settings {
        let mut settings = Settings::default();
        for (key, node) in self.fields().entries(node, what) {
            if self.common(&mut settings, key, node) {
                continue;
            }
            match key.text.as_str() {
                "region" => settings.region = self.fields().text(node, "region"),
                "address" => settings.address = self.fields().text(node, "address"),
                "nrpe" => settings.nrpe = self.endpoint(node),
                "groups" => settings.groups = self.fields().texts(node, "groups"),
                "vars" => {
                    for (key, node) in self.fields().entries(node, "`vars`") {
                        settings.vars.insert(key.text.clone(), node.to_json());
                    }
                }
                name if SERVICE_KEYS.contains(&name) => {
                    let message = format!("`{name}` belongs to a service, not to {what}");
                    let hint = "write it under `services`: a service says which hosts it is for".to_owned();
                    self.findings.error(key.place, message, hint);
                }
                _ => {
                    let keys = [COMMON_KEYS, HOST_KEYS].concat();
                    self.fields().unknown(key, &format!("key of {what}"), &keys, LATER_OBJECT_KEYS);
                }
            }
        }
        settings
    }

    fn service(&mut self, node: &Node) -> RawService {
        let mut service = RawService::default();
        for (key, node) in self.fields().entries(node, "a service") {
            if self.common(&mut service.settings, key, node) {
                continue;
            }
            match key.text.as_str() {
                "hosts" => service.hosts = Some(self.fields().texts(node, "hosts")),
                "where" => {
                    service.condition = self.fields().text(node, "where");
                    service.hosts_are_wrong |= service.condition.is_none();
                }
                "for" => {
                    for (key, node) in self.fields().entries(node, "`for`") {
                        if let Some(list) = self.fields().text(node, &key.text) {
                            service.each.push((At::new(key.text.clone(), key.place), list));
                        }
                    }
                }
                name if HOST_KEYS.contains(&name) => {
                    let message = format!("`{name}` belongs to a host, not to a service");
                    self.findings.error(
                        key.place,
                        message,
                        "write it at the host, or in a template the host uses".to_owned(),
                    );
                }
                _ => {
                    let keys = [COMMON_KEYS, SERVICE_KEYS].concat();
                    self.fields().unknown(key, "key of a service", &keys, LATER_OBJECT_KEYS);
                    // What was meant is not missing too.
                    let meant = nearest(&key.text, keys.iter().copied());
                    service.hosts_are_wrong |= matches!(meant, Some("hosts" | "where"));
                    service.settings.check_is_wrong |= meant == Some("check");
                }
            }
        }
        service
    }

    /// Reads a key that hosts, services and templates share. False: it is none of them.
    fn common(&mut self, settings: &mut Settings, key: &Key, node: &Node) -> bool {
        match key.text.as_str() {
            "use" => settings.uses = self.fields().texts(node, "use"),
            "check" => {
                settings.check = self.check(node);
                settings.check_is_wrong = settings.check.is_none();
            }
            "check_interval" => {
                settings.check_interval = self.fields().interval(node, "check_interval", INTERVAL_BOUNDS);
            }
            "retry_interval" => {
                settings.retry_interval = self.fields().interval(node, "retry_interval", INTERVAL_BOUNDS);
            }
            "max_check_attempts" => {
                settings.max_check_attempts = self.fields().integer(node, "max_check_attempts", 1..=ATTEMPTS_MAX);
            }
            "timeout" => settings.timeout = self.fields().interval(node, "timeout", TIMEOUT_BOUNDS),
            "on_transport_error" => {
                let words = [("unknown", State::Unknown), ("critical", State::Critical), ("warning", State::Warning)];
                settings.on_transport_error = self.fields().word(node, "on_transport_error", &words);
            }
            _ => return false,
        }
        true
    }

    fn check(&mut self, node: &Node) -> Option<At<RawCheck>> {
        let kind = self.kind_of_check(node, "a check", CHECK_KINDS)?;
        let check = match (kind.text, kind.value) {
            ("command", Some(value)) => {
                self.takes_no_env(&kind);
                let name = self.fields().text(value, "command")?;
                let mut values = Vec::new();
                if let Some(args) = kind.args {
                    for (key, node) in self.fields().entries(args, "`args` of a command") {
                        values.push((At::new(key.text.clone(), key.place), At::new(node.to_json(), node.place)));
                    }
                }
                RawCheck::Command { name, args: values }
            }
            _ => RawCheck::Probe(self.probe(&kind)?),
        };
        Some(At::new(check, kind.place))
    }

    fn command(&mut self, node: &Node, place: Place) -> Option<RawProbe> {
        if node.is_null() {
            let hint = format!("write one of {} below it", PROBE_KINDS.join(", "));
            self.findings.error(place, "the command says nothing", hint);
            return None;
        }
        let kind = self.kind_of_check(node, "a command", PROBE_KINDS)?;
        self.probe(&kind)
    }

    /// The one key that says what kind of check it is, its value, and what stands beside it.
    fn kind_of_check<'n>(&mut self, node: &'n Node, what: &str, kinds: &[&str]) -> Option<Kind<'n>> {
        if let Some(word) = self.fields().bare_word(node) {
            if WORD_KINDS.contains(&word) {
                return Some(Kind { text: word, place: node.place, value: None, args: None, env: None });
            }
            let known = LATER_CHECKS.contains(&word);
            let hint = if known {
                advice_for_later_check()
            } else if kinds.contains(&word) {
                format!("write {{ {word}: … }} with what it needs")
            } else if let Some(meant) = meant_word(word) {
                format!("did you mean `{meant}`?")
            } else {
                format!("write {{ nrpe: {word} }} or {{ command: {word} }}")
            };
            let message = if known { later_check(word) } else { format!("{what} is a mapping, not the text `{word}`") };
            self.findings.error(node.place, message, hint);
            return None;
        }
        let (mut found, mut args, mut env, mut wrong) = (None, None, None, false);
        for (key, value) in self.fields().entries(node, what) {
            let text = key.text.as_str();
            if text == "args" {
                args = Some(value);
            } else if text == "env" {
                env = Some((key, value));
            } else if kinds.contains(&text) {
                if found.is_some() {
                    wrong = true;
                    let message = format!("{what} is of one kind; `{text}` is a second one");
                    self.findings.error(key.place, message, "make two services of it".to_owned());
                } else {
                    found = Some((key, value));
                }
            } else if LATER_CHECKS.contains(&text) {
                wrong = true;
                self.findings.error(key.place, later_check(text), advice_for_later_check());
            } else if OTHER_NAMES.contains(&text) {
                wrong = true;
                let message = format!("unknown kind or key of {what}: `{text}`");
                self.findings.error(key.place, message, "did you mean `icmp`?");
            } else {
                wrong = true;
                let known = [kinds, BESIDE_KEYS].concat();
                self.fields().unknown(key, &format!("kind or key of {what}"), &known, &[]);
            }
        }
        match found {
            Some((key, value)) if !wrong => {
                Some(Kind { text: &key.text, place: key.place, value: Some(value), args, env })
            }
            Some(_) => None,
            None => {
                if !wrong && !self.fields().is_wrong_type(node) {
                    let hint = format!("write one of: {}", kinds.join(", "));
                    self.findings.error(node.place, format!("{what} does not say what to do"), hint);
                }
                None
            }
        }
    }

    fn takes_no_env(&mut self, kind: &Kind<'_>) {
        if let Some((key, _)) = kind.env {
            let message = format!("only a plugin takes `env`, and this is a check of kind {}", kind.text);
            self.findings.error(key.place, message, "take it out");
        }
    }

    fn takes_no_args(&mut self, kind: &Kind<'_>, hint: &str) {
        if let Some(args) = kind.args {
            self.findings.error(args.place, format!("{} check takes no `args`", with_article(kind.text)), hint);
        }
    }

    fn probe(&mut self, kind: &Kind<'_>) -> Option<RawProbe> {
        if kind.text != "plugin" {
            self.takes_no_env(kind);
        }
        if kind.text == "icmp" {
            self.takes_no_args(kind, "write icmp: { packets: 5 }");
            return Some(RawProbe::Icmp(kind.value.map(|value| self.icmp(value)).unwrap_or_default()));
        }
        let value = kind.value?;
        if let Some(network) = NetworkKind::of_key(kind.text) {
            let key = Key { text: kind.text.to_owned(), place: kind.place };
            let read = network::network(&mut self.fields(), network, &key, value, kind.args);
            return read.map(RawProbe::Network);
        }
        if kind.text == "plugin" { self.plugin(kind, value) } else { self.nrpe(kind, value) }
    }

    fn nrpe(&mut self, kind: &Kind<'_>, value: &Node) -> Option<RawProbe> {
        let (mut command, mut list) = (None, kind.args);
        if Fields::is_mapping(value) {
            let entries = self.fields().entries(value, "`nrpe`");
            if !has(entries, "command") {
                let hint = "write nrpe: check_load, or nrpe: { command: check_load }".to_owned();
                self.findings.error(kind.place, "an nrpe check needs the name of a command", hint);
            }
            for (key, node) in entries {
                match key.text.as_str() {
                    "command" => command = self.fields().text(node, "command"),
                    "args" => list = Some(node),
                    _ => self.fields().unknown(key, "key of an nrpe check", &["command", "args"], &["tls", "port"]),
                }
            }
        } else {
            command = self.fields().text(value, "nrpe");
        }
        let args = list.map(|node| self.fields().texts(node, "args")).unwrap_or_default();
        command.map(|command| RawProbe::Nrpe { command, args })
    }

    fn writer(&mut self, name: &At<String>, node: &Node) {
        if name.value != "graphite" {
            let key = Key { text: name.value.clone(), place: name.place };
            return self.fields().unknown(&key, "kind of writer", WRITER_KINDS, LATER_WRITERS);
        }
        let mut graphite = RawGraphite::default();
        let entries = self.fields().entries(node, "`graphite`");
        if !has(entries, "address") {
            let hint = "write address: \"127.0.0.1:2003\"".to_owned();
            self.findings.error(name.place, "the writer needs the `address` of carbon", hint);
        }
        for (key, node) in entries {
            match key.text.as_str() {
                "address" => graphite.address = self.fields().text(node, "address"),
                "prefix" => graphite.prefix = self.fields().text(node, "prefix"),
                "thresholds" => graphite.thresholds = self.fields().truth(node, "thresholds"),
                "metadata" => graphite.metadata = self.fields().truth(node, "metadata"),
                _ => self.fields().unknown(key, "key of `graphite`", GRAPHITE_KEYS, &["tags", "tls"]),
            }
        }
        self.raw.graphite.push((name.clone(), graphite));
    }
}

fn has(entries: &[(Key, Node)], key: &str) -> bool {
    entries.iter().any(|(known, _)| known.text == key)
}

/// The kind that needs nothing said and was probably meant by this word.
fn meant_word(word: &str) -> Option<&'static str> {
    if OTHER_NAMES.contains(&word) { Some("icmp") } else { nearest(word, WORD_KINDS.iter().copied()) }
}

/// `a tcp`, `an icmp`.
fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'n']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn later_check(kind: &str) -> String {
    format!("this version runs {} checks; `{kind}` is not in it yet", PROBE_KINDS.join(", "))
}

fn advice_for_later_check() -> String {
    format!("use one of {} here, or take it out until then", PROBE_KINDS.join(", "))
}
