//! Hosts: ranges become names, templates become values, and each gets its own check.

use std::collections::HashMap;

use shared::check::{Check, State};
use shared::name::{HostName, ObjectName, RegionName};

use super::endpoint::endpoint_of;
use super::nrpe::NrpeService;
use super::{Compiler, OBJECTS_MAX, policy};
use crate::config::check::{CompiledCheck, Endpoint, compile_check, icmp};
use crate::config::diagnostic::{At, Place, did_you_mean_or};
use crate::config::expression::{Template, host_value};
use crate::config::range::expand;
use crate::config::raw::Settings;
use crate::config::{CheckDefinition, Host, Vars};

const NAME_HINT: &str = "at most 255 bytes of printable characters without `!`, which divides host and service";
/// Longest address, in bytes: the longest DNS name.
const ADDRESS_BYTES_MAX: usize = 253;

/// A host, as far as services need it.
pub(super) struct Draft {
    pub(super) name: HostName,
    pub(super) endpoint: Endpoint,
    pub(super) on_transport_error: State,
    pub(super) nrpe_service: Option<NrpeService>,
}

/// What all hosts of one entry share.
struct Entry {
    settings: Settings,
    region: RegionName,
    address: Option<At<Template>>,
    check: Option<CompiledCheck>,
}

impl Compiler<'_> {
    pub(super) fn compile_hosts(&mut self) -> Vec<Draft> {
        let mut drafts = Vec::new();
        let mut places: HashMap<String, Place> = HashMap::new();
        for (pattern, raw) in &self.raw.hosts {
            let names = match expand(&pattern.value) {
                Ok(names) => names,
                Err(error) => {
                    self.findings.error(pattern.place, error.to_string(), "as in web[01-40].example.net".to_owned());
                    continue;
                }
            };
            let Some(entry) = self.entry(pattern.place, raw) else { continue };
            for name in names {
                if let Some(first) = places.get(&name) {
                    let hint = format!("it stands already at {}", Self::place_of(self.sources, *first));
                    self.findings.error(pattern.place, format!("the host `{name}` is defined twice"), hint);
                    continue;
                }
                let Some(host_name) = self.name::<HostName>(&At::new(name.clone(), pattern.place), NAME_HINT) else {
                    continue;
                };
                places.insert(name, pattern.place);
                if drafts.len() >= OBJECTS_MAX {
                    let hint = "divide them between two installations".to_owned();
                    self.findings.error(pattern.place, format!("more than {OBJECTS_MAX} hosts"), hint);
                    return drafts;
                }
                drafts.push(self.host(host_name, pattern.place, &entry));
            }
        }
        drafts
    }

    fn entry(&mut self, place: Place, raw: &Settings) -> Option<Entry> {
        let (sources, all) = (self.sources, self.raw);
        let hidden = |name: &str| Self::is_hidden(sources, all, name);
        let settings = self.templates.apply(raw, &hidden, &mut self.findings);
        let region = self.region_of(place, &settings)?;
        let address = settings.address.as_ref().and_then(|text| {
            match Template::compile(&self.language, &text.value, &["host"]) {
                Ok(template) => Some(At::new(template, text.place)),
                Err(error) => {
                    self.findings.error(text.place, error.message, error.hint);
                    None
                }
            }
        });
        let check = settings.check.as_ref().and_then(|check| {
            compile_check(&self.language, &check.value, &["host"], &self.commands, &hidden, &mut self.findings)
                .map(CompiledCheck::of_host)
        });
        for group in &settings.groups {
            if group.value.is_empty() || group.value.chars().any(char::is_control) {
                self.findings.error(
                    group.place,
                    "a group needs a name of printable characters",
                    "as in groups: [linux]",
                );
            }
        }
        Some(Entry { settings, region, address, check })
    }

    /// The host's region. Where there is a mistake, which is named, any region stands in for it; `None` only if there is none.
    fn region_of(&mut self, place: Place, settings: &Settings) -> Option<RegionName> {
        let names: Vec<&str> = self.regions.keys().map(RegionName::as_str).collect();
        let found = match &settings.region {
            Some(wanted) => {
                let found = self.regions.keys().find(|name| name.as_str() == wanted.value);
                let written = self.raw.regions.iter().any(|(name, _)| name.value == wanted.value);
                if found.is_none() && !written && !Self::is_hidden(self.sources, self.raw, &wanted.value) {
                    let hint = did_you_mean_or(&wanted.value, names, "write it under `regions`");
                    self.findings.error(wanted.place, format!("there is no region `{}`", wanted.value), hint);
                }
                found
            }
            None => {
                if names.len() > 1 && !self.is_cut(place) {
                    let hint = format!("write region: with one of {}", names.join(", "));
                    self.findings.error(place, "the host says no region, and there are several", hint);
                }
                None
            }
        };
        found.or_else(|| self.regions.keys().next()).cloned()
    }

    fn host(&mut self, name: HostName, place: Place, entry: &Entry) -> Draft {
        let settings = &entry.settings;
        let groups = settings.groups.iter().map(|group| group.value.as_str());
        let value =
            |address: &str| host_value(name.as_str(), address, entry.region.as_str(), groups.clone(), &settings.vars);
        let mut scope = self.language.scope();
        let mut address = name.as_str().to_owned();
        if let Some(text) = &entry.address {
            scope.set("host", value(""));
            match text.value.fill(&scope) {
                Ok(text) => address = text,
                Err(error) => self.host_findings.error(name.as_str(), text.place, error.message, error.hint),
            }
        }
        let address_place = entry.address.as_ref().map_or(place, |text| text.place);
        if let Some(problem) = wrong_address(&address) {
            let hint = "an address is a DNS name or an IP address, without a port".to_owned();
            self.host_findings.error(name.as_str(), address_place, problem, hint);
        }
        scope.set("host", value(&address));
        let endpoint = endpoint_of(address, &settings.nrpe, |place, message, hint| {
            self.host_findings.error(name.as_str(), place, message, hint);
        });
        let on_transport_error = settings.on_transport_error.as_ref().map_or(State::Unknown, |at| at.value);
        let (check, command_name) = match &entry.check {
            Some(compiled) => {
                let mut problems = Vec::new();
                let check = compiled.fill(&endpoint, on_transport_error, &mut scope, &mut problems);
                problems.into_iter().for_each(|problem| self.host_findings.add(name.as_str(), problem));
                (check, compiled.command_name())
            }
            // A satellite that may not send ICMP knocks at the NRPE port.
            None => (Some(Check::Icmp(icmp::of_host(&endpoint.address, endpoint.port))), "icmp"),
        };
        if let Some(check) = check {
            let definition = CheckDefinition {
                check,
                policy: policy(settings),
                command_name: command_name.to_owned(),
                region: entry.region.clone(),
            };
            self.objects.insert(ObjectName::host(name.clone()), definition);
        }
        let host = Host {
            region: entry.region.clone(),
            address: endpoint.address.clone(),
            groups: settings.groups.iter().map(|group| group.value.clone()).collect(),
            vars: Vars(settings.vars.clone()),
        };
        self.hosts.insert(name.clone(), host);
        Draft { name, endpoint, on_transport_error, nrpe_service: NrpeService::of(settings) }
    }
}

fn wrong_address(address: &str) -> Option<String> {
    let shown = || address.chars().take(40).collect::<String>().escape_debug().to_string();
    if address.is_empty() {
        return Some("the address is empty".to_owned());
    }
    if address.len() > ADDRESS_BYTES_MAX {
        return Some(format!("the address “{}…” has more than {ADDRESS_BYTES_MAX} bytes", shown()));
    }
    let is_v6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    let good = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!is_v6 && !address.chars().all(good)).then(|| format!("“{}” is no address", shown()))
}
