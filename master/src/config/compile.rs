//! Raw objects → catalog: names are resolved, ranges expanded, services laid onto hosts. Finds every mistake before it gives up.
//!
//! Goes host by host, so that the context of expressions is built once per host. Decides nothing about slots or times.
//! The surprise: a mistake that many hosts share is one diagnostic, with the first host and their number.

mod endpoint;
mod host;
mod nrpe;
pub mod service;

use std::collections::BTreeMap;
use std::str::FromStr;

use shared::assignment::Policy;
use shared::name::{ObjectName, RegionName};

use super::check::{CompiledCommand, Problem, compile_command};
use super::diagnostic::{At, Diagnostic, Findings, Place, Severity};
use super::expression::Language;
use super::parse;
use super::raw::{Raw, RawGraphite, RawRegion, Settings};
use super::source::Sources;
use super::template::{Templates, by_name};
use super::{Catalog, CheckDefinition, GraphiteWriter, Host, Region, Writer, defaults};

/// Most hosts and services of one catalog.
pub const OBJECTS_MAX: usize = 2_000_000;

/// Turns what was read into a catalog and its warnings.
///
/// # Errors
/// With all mistakes (and warnings) when there is at least one mistake.
pub fn compile(sources: &Sources) -> Result<(Catalog, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut findings = Findings::default();
    let raw = parse::parse(sources, &mut findings);
    let catalog = Compiler::new(sources, &raw, findings).run();
    match catalog {
        (findings, catalog) if !findings.has_errors() => Ok((catalog, findings.into_diagnostics(sources))),
        (findings, _) => Err(findings.into_diagnostics(sources)),
    }
}

/// A finding that several hosts may share.
#[derive(Debug, Default)]
struct HostFindings {
    shared: BTreeMap<(Place, Severity, String), Hosts>,
}

/// The hosts that share a finding.
#[derive(Debug)]
struct Hosts {
    hint: String,
    first: String,
    last: String,
    count: usize,
}

impl HostFindings {
    fn add(&mut self, host: &str, problem: Problem) {
        let severity = if problem.fatal { Severity::Error } else { Severity::Warning };
        let entry = self.shared.entry((problem.place, severity, problem.message));
        let hosts = entry.or_insert_with(|| Hosts {
            hint: problem.hint,
            first: host.to_owned(),
            last: String::new(),
            count: 0,
        });
        // Hosts come one after the other, so the last one tells whether this is another.
        if hosts.last != host {
            host.clone_into(&mut hosts.last);
            hosts.count += 1;
        }
    }

    fn error(&mut self, host: &str, place: Place, message: String, hint: String) {
        self.add(host, Problem { place, fatal: true, message, hint });
    }

    fn report(self, findings: &mut Findings) {
        for ((place, severity, message), Hosts { hint, first, count, .. }) in self.shared {
            let message = match count {
                1 => format!("{message} (on host {first})"),
                count => format!("{message} (on {count} hosts, the first is {first})"),
            };
            match severity {
                Severity::Error => findings.error(place, message, hint),
                Severity::Warning => findings.warning(place, message, hint),
            }
        }
    }
}

struct Compiler<'a> {
    sources: &'a Sources,
    raw: &'a Raw,
    findings: Findings,
    host_findings: HostFindings,
    language: Language,
    regions: BTreeMap<RegionName, Region>,
    templates: Templates,
    commands: BTreeMap<String, Option<CompiledCommand>>,
    hosts: BTreeMap<shared::name::HostName, Host>,
    objects: BTreeMap<ObjectName, CheckDefinition>,
}

impl<'a> Compiler<'a> {
    fn new(sources: &'a Sources, raw: &'a Raw, findings: Findings) -> Self {
        Self {
            sources,
            raw,
            findings,
            host_findings: HostFindings::default(),
            language: Language::default(),
            regions: BTreeMap::new(),
            templates: Templates::default(),
            commands: BTreeMap::new(),
            hosts: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    fn run(mut self) -> (Findings, Catalog) {
        self.compile_regions();
        self.compile_templates();
        self.compile_commands();
        let drafts = self.compile_hosts();
        self.compile_services(&drafts);
        self.compile_nrpe_services(&drafts);
        let writers = self.compile_writers();
        std::mem::take(&mut self.host_findings).report(&mut self.findings);
        if self.raw.regions.is_empty() {
            self.regions.clear();
        }
        if self.hosts.is_empty() && !self.findings.has_errors() {
            let hint = "activating this would stop every check".to_owned();
            self.findings.warning(Place::default(), "there is no host in the whole configuration", hint);
        }
        if self.findings.has_errors() {
            return (self.findings, Catalog::default());
        }
        (self.findings, Catalog::new(self.regions, self.hosts, self.objects, writers))
    }

    /// Whether a name may be defined in a part of a file that could not be read. Nothing is said about such names: the syntax
    /// error there is the mistake.
    fn is_hidden(sources: &Sources, raw: &Raw, name: &str) -> bool {
        // Defined means followed by a colon, with or without quotes; used means anything else.
        let definitions = [format!("{name}:"), format!("{name}\":"), format!("{name}':")];
        raw.broken.iter().any(|(file, _)| {
            let text = sources.texts().nth(*file).map(|(_, text)| text).unwrap_or_default();
            definitions.iter().any(|definition| text.contains(definition))
        })
    }

    /// Whether an object ends early because of a syntax error: what is missing in it may have been written.
    fn is_cut(&self, place: Place) -> bool {
        let raw = self.raw;
        let hosts = raw.hosts.iter().map(|(name, _)| name.place);
        let mut places = hosts.chain(raw.services.iter().map(|(name, _)| name.place));
        let error = raw.broken.iter().find(|(file, line)| *file == place.file && *line >= place.line);
        error.is_some_and(|(file, line)| {
            !places.any(|other| other.file == *file && other.line > place.line && other.line <= *line)
        })
    }

    fn place_of(sources: &Sources, place: Place) -> String {
        format!("{}:{}", sources.file_name(place.file), place.line)
    }

    /// A text as a name; a mistake at its place if it is none.
    fn name<T>(&mut self, text: &At<String>, hint: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        match text.value.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.findings.error(text.place, error.to_string(), hint);
                None
            }
        }
    }

    fn compile_regions(&mut self) {
        let sources = self.sources;
        let raw = by_name(&self.raw.regions, "region", &|place| Self::place_of(sources, place), &mut self.findings);
        for (name, (place, region)) in raw {
            let hint = "lower-case letters, digits and hyphens; it becomes part of certificates";
            let name = self.name::<RegionName>(&At::new(name, place), hint);
            let region = self.region(region);
            if let Some(name) = name {
                self.regions.insert(name, region);
            }
        }
        if self.raw.regions.is_empty() && self.raw.broken.is_empty() && !self.raw.hosts.is_empty() {
            let place = self.raw.hosts.first().map(|(name, _)| name.place).unwrap_or_default();
            let hint = "write for example: regions: { main: { slots: 1 } }".to_owned();
            self.findings.error(place, "there are hosts but no region whose slots could check them", hint);
        }
        // With a mistake here no catalog comes out; a stand-in lets everything else be looked at all the same.
        if self.regions.is_empty()
            && let Ok(name) = "unknown".parse()
        {
            self.regions.insert(name, Region { slots: 1, join: Vec::new(), failover_after_ms: 0 });
        }
    }

    fn region(&mut self, raw: &RawRegion) -> Region {
        for id in &raw.join {
            let good =
                !id.value.is_empty() && id.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
            if !good {
                let hint =
                    "the id is the second part of the secret, as `perigee-master join-secret` printed it".to_owned();
                self.findings.error(id.place, format!("“{}” is no id of a join secret", id.value.escape_debug()), hint);
            }
        }
        let failover_after = raw.failover_after.as_ref().map_or(defaults::FAILOVER_AFTER, |at| at.value);
        Region {
            slots: raw.slots.as_ref().and_then(|slots| u32::try_from(slots.value).ok()).unwrap_or(1),
            join: raw.join.iter().map(|id| id.value.clone()).collect(),
            failover_after_ms: millis(failover_after),
        }
    }

    fn compile_templates(&mut self) {
        let (sources, raw) = (self.sources, self.raw);
        let named = by_name(&raw.templates, "template", &|place| Self::place_of(sources, place), &mut self.findings);
        let hidden = |name: &str| Self::is_hidden(sources, raw, name);
        self.templates = Templates::resolve(&named, &hidden, &mut self.findings);
    }

    fn compile_commands(&mut self) {
        let sources = self.sources;
        let named = by_name(&self.raw.commands, "command", &|place| Self::place_of(sources, place), &mut self.findings);
        for (name, (place, probe)) in named {
            if name.is_empty() || name.chars().any(char::is_control) {
                self.findings.error(
                    place,
                    "a command needs a name of printable characters",
                    "as in check_mysql".to_owned(),
                );
            }
            let command = compile_command(&self.language, probe, &mut self.findings);
            self.commands.insert(name, command);
        }
    }

    fn compile_writers(&mut self) -> Vec<Writer> {
        let mut writers = Vec::new();
        let mut first: Option<Place> = None;
        for (name, graphite) in &self.raw.graphite {
            if let Some(first) = first {
                let hint = format!("it stands already at {}", Self::place_of(self.sources, first));
                self.findings.error(name.place, "the writer `graphite` is defined twice", hint);
                continue;
            }
            first = Some(name.place);
            writers.extend(self.graphite(graphite).map(Writer::Graphite));
        }
        writers
    }

    fn graphite(&mut self, raw: &RawGraphite) -> Option<GraphiteWriter> {
        let address = raw.address.as_ref()?;
        let prefix = raw.prefix.as_ref().map_or(defaults::GRAPHITE_PREFIX, |prefix| &prefix.value);
        let parts_good = prefix
            .split('.')
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
        if let Some(at) = raw.prefix.as_ref().filter(|_| !parts_good) {
            let hint = "letters, digits, hyphen and underscore, in parts divided by dots".to_owned();
            self.findings.error(at.place, format!("“{}” is no prefix of a metric", prefix.escape_debug()), hint);
        }
        Some(GraphiteWriter {
            address: self.with_port(address, defaults::GRAPHITE_PORT)?,
            prefix: prefix.to_owned(),
            thresholds: raw.thresholds.as_ref().is_some_and(|at| at.value),
            metadata: raw.metadata.as_ref().is_some_and(|at| at.value),
        })
    }

    /// `host:port`, with the port added where it is missing.
    fn with_port(&mut self, address: &At<String>, port: u16) -> Option<String> {
        let text = &address.value;
        let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        let full = match text.rsplit_once(':') {
            Some(_) if bare_v6 => format!("[{text}]:{port}"),
            Some((host, number)) if !host.is_empty() && number.parse::<u16>().is_ok_and(|number| number > 0) => {
                text.clone()
            }
            None if !text.is_empty() => format!("{text}:{port}"),
            _ => String::new(),
        };
        if full.is_empty() || full.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/') {
            let message = format!("“{}” is no address", text.escape_debug());
            self.findings.error(address.place, message, "write host:port, as in \"127.0.0.1:2003\"".to_owned());
            return None;
        }
        Some(full)
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Intervals, deadline and attempts, from the settings or the defaults.
fn policy(settings: &Settings) -> Policy {
    let or = |at: &Option<At<std::time::Duration>>, default| millis(at.as_ref().map_or(default, |at| at.value));
    let attempts = settings.max_check_attempts.as_ref().and_then(|at| u32::try_from(at.value).ok());
    Policy {
        check_interval_ms: or(&settings.check_interval, defaults::CHECK_INTERVAL),
        retry_interval_ms: or(&settings.retry_interval, defaults::RETRY_INTERVAL),
        timeout_ms: or(&settings.timeout, defaults::TIMEOUT),
        max_attempts: attempts.unwrap_or(defaults::MAX_CHECK_ATTEMPTS),
    }
}
