//! Templates: what an object says itself stands over its templates, the later of them over the earlier, each over its own.
//!
//! Single values are replaced; `groups` are united; `vars` and `nrpe` are merged key by key (a value in `vars` is replaced whole).
//! A template that uses itself, at any distance, is a mistake and is taken as if that use were not there.

use std::collections::BTreeMap;

use super::diagnostic::{At, Findings, Place, did_you_mean_or};
use super::raw::Settings;

/// Longest chain of templates that use each other. Beyond it the chain is cut, as a mistake.
pub const DEPTH_MAX: usize = 32;

/// The templates, each with everything it inherits.
#[derive(Debug, Default)]
pub struct Templates {
    resolved: BTreeMap<String, Settings>,
}

impl Templates {
    /// Resolves what templates inherit from each other. `hidden` says of a name whether it may be defined in a file that could
    /// not be read: nothing is said about such a name.
    pub fn resolve(
        raw: &BTreeMap<String, (Place, &Settings)>,
        hidden: &dyn Fn(&str) -> bool,
        findings: &mut Findings,
    ) -> Self {
        let mut templates = Self::default();
        for name in raw.keys() {
            templates.visit(name, raw, hidden, &mut Vec::new(), findings);
        }
        templates
    }

    fn visit(
        &mut self,
        name: &str,
        raw: &BTreeMap<String, (Place, &Settings)>,
        hidden: &dyn Fn(&str) -> bool,
        path: &mut Vec<String>,
        findings: &mut Findings,
    ) {
        if self.resolved.contains_key(name) {
            return;
        }
        let Some((_, own)) = raw.get(name) else { return };
        path.push(name.to_owned());
        for used in &own.uses {
            if let Some(start) = path.iter().position(|before| *before == used.value) {
                let circle = path.get(start..).unwrap_or_default().join(" → ");
                let message = format!("the template `{name}` uses itself: {circle} → {}", used.value);
                findings.error(used.place, message, "one of these uses must go".to_owned());
            } else if path.len() >= DEPTH_MAX {
                let message = format!("templates use each other more than {DEPTH_MAX} deep");
                findings.error(used.place, message, "use the last ones directly");
            } else {
                self.visit(&used.value, raw, hidden, path, findings);
            }
        }
        path.pop();
        let names = raw.keys().map(String::as_str);
        let settings = self.inherit(own, names, hidden, findings);
        self.resolved.insert(name.to_owned(), settings);
    }

    /// The settings of an object together with those of the templates it uses.
    pub fn apply(&self, own: &Settings, hidden: &dyn Fn(&str) -> bool, findings: &mut Findings) -> Settings {
        self.inherit(own, self.resolved.keys().map(String::as_str), hidden, findings)
    }

    fn inherit<'a>(
        &self,
        own: &Settings,
        names: impl Iterator<Item = &'a str> + Clone,
        hidden: &dyn Fn(&str) -> bool,
        findings: &mut Findings,
    ) -> Settings {
        let mut settings = Settings::default();
        for used in &own.uses {
            match self.resolved.get(&used.value) {
                Some(template) => overlay(&mut settings, template),
                // Not resolved but defined: part of a circle, which has been named.
                None if names.clone().any(|name| name == used.value) || hidden(&used.value) => {}
                None => {
                    let hint = did_you_mean_or(&used.value, names.clone(), "write it under `templates`");
                    findings.error(used.place, format!("there is no template `{}`", used.value), hint);
                }
            }
        }
        overlay(&mut settings, own);
        settings.uses = own.uses.clone();
        settings
    }
}

fn overlay(base: &mut Settings, top: &Settings) {
    fn set<T: Clone>(base: &mut Option<T>, top: &Option<T>) {
        if top.is_some() {
            base.clone_from(top);
        }
    }
    set(&mut base.region, &top.region);
    set(&mut base.address, &top.address);
    set(&mut base.nrpe.tls, &top.nrpe.tls);
    set(&mut base.nrpe.port, &top.nrpe.port);
    set(&mut base.nrpe.version, &top.nrpe.version);
    set(&mut base.nrpe.ca, &top.nrpe.ca);
    set(&mut base.nrpe.certificate, &top.nrpe.certificate);
    set(&mut base.nrpe.key, &top.nrpe.key);
    set(&mut base.nrpe.name, &top.nrpe.name);
    set(&mut base.nrpe.pins, &top.nrpe.pins);
    set(&mut base.nrpe.ciphers, &top.nrpe.ciphers);
    set(&mut base.nrpe.service, &top.nrpe.service);
    set(&mut base.check, &top.check);
    base.check_is_wrong = top.check_is_wrong || (base.check_is_wrong && top.check.is_none());
    set(&mut base.check_interval, &top.check_interval);
    set(&mut base.retry_interval, &top.retry_interval);
    set(&mut base.max_check_attempts, &top.max_check_attempts);
    set(&mut base.timeout, &top.timeout);
    set(&mut base.on_transport_error, &top.on_transport_error);
    for group in &top.groups {
        if !base.groups.iter().any(|known| known.value == group.value) {
            base.groups.push(group.clone());
        }
    }
    base.vars.extend(top.vars.iter().map(|(key, value)| (key.clone(), value.clone())));
}

/// What of the settings means nothing for a service.
pub fn host_only(settings: &Settings) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut note = |there: bool, key: &'static str| {
        if there {
            keys.push(key);
        }
    };
    note(settings.region.is_some(), "region");
    note(settings.address.is_some(), "address");
    note(settings.nrpe.says_something(), "nrpe");
    note(!settings.groups.is_empty(), "groups");
    note(!settings.vars.is_empty(), "vars");
    keys
}

/// Objects of a section by name. A second one of the same name is a mistake and is put aside.
pub fn by_name<'a, T>(
    named: &'a [(At<String>, T)],
    what: &str,
    place_of: &dyn Fn(Place) -> String,
    findings: &mut Findings,
) -> BTreeMap<String, (Place, &'a T)> {
    let mut objects: BTreeMap<String, (Place, &T)> = BTreeMap::new();
    for (name, object) in named {
        if let Some((first, _)) = objects.get(&name.value) {
            let hint = format!("it stands already at {}; one of the two must go", place_of(*first));
            findings.error(name.place, format!("the {what} `{}` is defined twice", name.value), hint);
            continue;
        }
        objects.insert(name.value.clone(), (name.place, object));
    }
    objects
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at<T>(value: T) -> At<T> {
        At::new(value, Place::default())
    }

    fn settings(uses: &[&str], interval: Option<u64>, groups: &[&str], vars: &[(&str, i64)]) -> Settings {
        Settings {
            uses: uses.iter().map(|name| at((*name).to_owned())).collect(),
            check_interval: interval.map(|seconds| at(Duration::from_secs(seconds))),
            groups: groups.iter().map(|name| at((*name).to_owned())).collect(),
            vars: vars.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn own_stands_over_later_over_earlier() {
        let raw = [
            (at("base".to_owned()), settings(&[], Some(60), &["all"], &[("a", 1), ("b", 1)])),
            (at("early".to_owned()), settings(&["base"], Some(30), &["early"], &[("b", 2)])),
            (at("late".to_owned()), settings(&[], None, &["late", "all"], &[("c", 3)])),
        ];
        let mut findings = Findings::default();
        let named = by_name(&raw, "template", &|_| String::new(), &mut findings);
        let templates = Templates::resolve(&named, &|_| false, &mut findings);
        let own = settings(&["early", "late"], None, &["own"], &[("a", 9)]);
        let merged = templates.apply(&own, &|_| false, &mut findings);
        assert!(!findings.has_errors());
        assert_eq!(merged.check_interval.map(|at| at.value), Some(Duration::from_secs(30)));
        let groups: Vec<&str> = merged.groups.iter().map(|group| group.value.as_str()).collect();
        assert_eq!(groups, ["all", "early", "late", "own"]);
        let vars: Vec<(&str, i64)> =
            merged.vars.iter().map(|(key, value)| (key.as_str(), value.as_i64().unwrap())).collect();
        assert_eq!(vars, [("a", 9), ("b", 2), ("c", 3)]);
    }

    #[test]
    fn a_chain_of_templates_has_an_end() {
        let raw: Vec<_> = (0..5_000)
            .map(|n| (at(format!("t{n}")), settings(&[format!("t{}", (n + 1) % 10_000).as_str()], None, &[], &[])))
            .collect();
        let mut findings = Findings::default();
        let named = by_name(&raw, "template", &|_| String::new(), &mut findings);
        Templates::resolve(&named, &|name| name == "t5000", &mut findings);
        assert!(findings.has_errors());
    }
}
