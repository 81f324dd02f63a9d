//! Services: which hosts each is for, once or once per element of a list, and what it asks there.

use std::collections::{BTreeSet, HashMap};

use cel::Value;
use shared::assignment::Policy;
use shared::check::State;
use shared::name::{ObjectName, ServiceName};

use super::host::Draft;
use super::{Compiler, OBJECTS_MAX, policy};
use crate::config::CheckDefinition;
use crate::config::check::{CompiledCheck, Problem, compile_check};
use crate::config::diagnostic::{At, Place, did_you_mean, nearest};
use crate::config::expression::{Expression, ExpressionError, Scope, Template, elements, host_value};
use crate::config::glob;
use crate::config::range::expand;
use crate::config::raw::RawService;
use crate::config::template::host_only;

/// Most services one entry may make of its `for` on one host.
pub const ELEMENTS_MAX: usize = 1_000;

/// A service with everything compiled.
struct Service {
    place: Place,
    name: Template,
    patterns: Option<Vec<Pattern>>,
    condition: Option<At<Expression>>,
    each: Vec<(String, At<Expression>)>,
    /// `None` where there is a mistake in it: hosts are matched all the same, to find what else is wrong.
    check: Option<CompiledCheck>,
    policy: Policy,
    on_transport_error: Option<State>,
    matched: bool,
}

struct Pattern {
    place: Place,
    written: String,
    names: BTreeSet<String>,
    globs: Vec<String>,
    used: bool,
}

impl Pattern {
    fn fits(&self, name: &str) -> bool {
        self.names.contains(name) || self.globs.iter().any(|glob| glob::matches(glob, name))
    }
}

impl Service {
    /// Whether the service is for this host.
    fn is_for(
        &mut self,
        name: &str,
        groups: &BTreeSet<String>,
        scope: &Scope,
    ) -> Result<bool, (Place, ExpressionError)> {
        if let Some(patterns) = &mut self.patterns {
            let mut fits = false;
            for pattern in patterns {
                if pattern.fits(name) {
                    pattern.used = true;
                    fits = true;
                }
            }
            if !fits {
                return Ok(false);
            }
        }
        let Some(condition) = &self.condition else { return Ok(true) };
        // Answered by the host's groups alone, without evaluation, for nearly every host that it is not for.
        if !condition.value.required_groups().iter().all(|group| groups.contains(group)) {
            return Ok(false);
        }
        if condition.value.is_groups_only() {
            return Ok(true);
        }
        condition.value.is_true(scope).map_err(|error| (condition.place, error))
    }
}

impl Compiler<'_> {
    pub(super) fn compile_services(&mut self, drafts: &[Draft]) {
        let mut services: Vec<Service> = Vec::new();
        for (name, raw) in &self.raw.services {
            services.extend(self.service(name, raw));
        }
        let mut places: HashMap<ObjectName, Place> = HashMap::new();
        for draft in drafts {
            self.services_of(draft, &mut services, &mut places);
            if self.objects.len() > OBJECTS_MAX {
                let place = services.first().map(|service| service.place).unwrap_or_default();
                let hint = "divide them between two installations".to_owned();
                self.findings.error(place, format!("more than {OBJECTS_MAX} hosts and services"), hint);
                return;
            }
        }
        self.report_unused(&services);
    }

    fn service(&mut self, name: &At<String>, raw: &RawService) -> Option<Service> {
        let (sources, all) = (self.sources, self.raw);
        let hidden = |name: &str| Self::is_hidden(sources, all, name);
        let settings = self.templates.apply(&raw.settings, &hidden, &mut self.findings);
        if let Some(used) = raw.settings.uses.first() {
            let lost = host_only(&settings);
            if !lost.is_empty() {
                let message =
                    format!("a template used here sets {}, which means nothing for a service", lost.join(", "));
                self.findings.warning(used.place, message, "keep templates of hosts and of services apart".to_owned());
            }
        }
        if raw.hosts.is_none() && raw.condition.is_none() && !raw.hosts_are_wrong && !self.is_cut(name.place) {
            let hint = "write hosts: [\"web*\"] or where: '\"linux\" in host.groups'".to_owned();
            self.findings.error(
                name.place,
                format!("the service `{}` does not say which hosts it is for", name.value),
                hint,
            );
        }
        let condition = raw.condition.as_ref().and_then(|text| self.expression(text, &["host"]));
        let mut variables = vec!["host".to_owned()];
        let mut each = Vec::new();
        for (variable, list) in &raw.each {
            let text = variable.value.as_str();
            let identifier = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !identifier || matches!(text, "host" | "args") {
                let hint = "letters, digits and underscore, and neither host nor args".to_owned();
                self.findings.error(variable.place, format!("`{text}` cannot be the name of a variable"), hint);
                continue;
            }
            let known: Vec<&str> = variables.iter().map(String::as_str).collect();
            let list = self.expression(list, &known);
            variables.push(text.to_owned());
            each.extend(list.map(|list| (text.to_owned(), list)));
        }
        let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
        let template = match Template::compile(&self.language, &name.value, &variables) {
            Ok(template) => template,
            Err(error) => {
                self.findings.error(name.place, error.message, error.hint);
                return None;
            }
        };
        if template.is_constant() {
            self.name::<ServiceName>(name, "at most 255 bytes of printable characters without `!`")?;
            if let Some((variable, _)) = raw.each.first() {
                let hint = format!("write for example \"{} {{{{ {} }}}}\"", name.value, variable.value);
                let message = "`for` makes several services, so the name must say which one it is";
                self.findings.error(name.place, message, hint);
                each.clear();
            }
        }
        let check = match &settings.check {
            Some(check) => {
                let (commands, findings) = (&self.commands, &mut self.findings);
                compile_check(&self.language, &check.value, &variables, commands, &hidden, findings)
            }
            None => {
                let hint = "write for example check: { nrpe: check_load }".to_owned();
                let hidden_template = raw.settings.uses.iter().any(|used| hidden(&used.value));
                if !settings.check_is_wrong && !hidden_template && !self.is_cut(name.place) {
                    self.findings.error(name.place, format!("the service `{}` has no check", name.value), hint);
                }
                None
            }
        };
        Some(Service {
            place: name.place,
            name: template,
            patterns: raw.hosts.as_ref().map(|patterns| self.patterns(patterns)),
            condition,
            each,
            check,
            policy: policy(&settings),
            on_transport_error: settings.on_transport_error.map(|at| at.value),
            matched: false,
        })
    }

    fn expression(&mut self, text: &At<String>, variables: &[&str]) -> Option<At<Expression>> {
        match self.language.compile(&text.value, variables) {
            Ok(expression) => Some(At::new(expression, text.place)),
            Err(error) => {
                self.findings.error(text.place, error.message, error.hint);
                None
            }
        }
    }

    fn patterns(&mut self, texts: &[At<String>]) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for text in texts {
            match expand(&text.value) {
                Ok(all) => {
                    let (globs, names): (Vec<_>, Vec<_>) = all.into_iter().partition(|name| glob::has_wildcard(name));
                    let (place, written) = (text.place, text.value.clone());
                    patterns.push(Pattern { place, written, names: names.into_iter().collect(), globs, used: false });
                }
                Err(error) => {
                    let hint = "as in web[01-40].example.net, or with a star: web*".to_owned();
                    self.findings.error(text.place, error.to_string(), hint);
                }
            }
        }
        patterns
    }

    fn services_of(&mut self, draft: &Draft, services: &mut [Service], places: &mut HashMap<ObjectName, Place>) {
        let Some(host) = self.hosts.get(&draft.name) else { return };
        let (region, groups) = (host.region.clone(), host.groups.clone());
        let mut scope = self.language.scope();
        let names = groups.iter().map(String::as_str);
        scope.set("host", host_value(draft.name.as_str(), &host.address, region.as_str(), names, &host.vars.0));
        let host_name = draft.name.as_str();
        for service in services {
            match service.is_for(host_name, &groups, &scope) {
                Ok(false) => continue,
                Ok(true) => service.matched = true,
                Err((place, error)) => {
                    service.matched = true;
                    self.host_findings.error(host_name, place, error.message, error.hint);
                    continue;
                }
            }
            let rows = match rows(&service.each, &mut scope) {
                Ok(rows) => rows,
                Err((place, error)) => {
                    self.host_findings.error(host_name, place, error.message, error.hint);
                    continue;
                }
            };
            for row in rows {
                for ((variable, _), value) in service.each.iter().zip(row) {
                    scope.set(variable, value);
                }
                let Some(object) = self.object_name(draft, service, &scope) else { continue };
                if let Some(first) = places.get(&object) {
                    let message = format!(
                        "the service `{}` comes twice",
                        object.service.as_ref().map_or("", |name| name.as_str())
                    );
                    let hint = if *first == service.place {
                        "the elements of its list are not all different".to_owned()
                    } else {
                        format!("it also comes from {}", Self::place_of(self.sources, *first))
                    };
                    self.host_findings.error(host_name, service.place, message, hint);
                    continue;
                }
                places.insert(object.clone(), service.place);
                let Some(check) = &service.check else { continue };
                let mut problems: Vec<Problem> = Vec::new();
                let on_transport_error = service.on_transport_error.unwrap_or(draft.on_transport_error);
                let filled = check.fill(&draft.endpoint, on_transport_error, &mut scope, &mut problems);
                problems.into_iter().for_each(|problem| self.host_findings.add(host_name, problem));
                if let Some(filled) = filled {
                    let definition = CheckDefinition {
                        check: filled,
                        policy: service.policy,
                        command_name: check.command_name().to_owned(),
                        region: region.clone(),
                    };
                    self.objects.insert(object, definition);
                }
            }
        }
    }

    fn object_name(&mut self, draft: &Draft, service: &Service, scope: &Scope) -> Option<ObjectName> {
        let host = draft.name.as_str();
        match service.name.fill(scope) {
            Ok(name) => match name.parse::<ServiceName>() {
                Ok(name) => Some(ObjectName::service(draft.name.clone(), name)),
                Err(error) => {
                    let hint = "the name comes from what {{ … }} gives here".to_owned();
                    self.host_findings.error(host, service.place, error.to_string(), hint);
                    None
                }
            },
            Err(error) => {
                self.host_findings.error(host, service.place, error.message, error.hint);
                None
            }
        }
    }

    fn report_unused(&mut self, services: &[Service]) {
        // A file that could not be read may hold the hosts that are missing.
        if !self.raw.broken.is_empty() {
            return;
        }
        for service in services {
            let mut explained = false;
            for pattern in service.patterns.iter().flatten().filter(|pattern| !pattern.used) {
                explained = true;
                let name = &pattern.written;
                if pattern.globs.is_empty() && pattern.names.len() == 1 {
                    let names = self.hosts.keys().map(|name| name.as_str());
                    let hint = nearest(name, names).map_or_else(
                        || "a star stands for any text, as in web*".to_owned(),
                        |near| format!("did you mean `{near}`?"),
                    );
                    self.findings.error(pattern.place, format!("there is no host `{name}`"), hint);
                } else {
                    self.findings.warning(pattern.place, format!("no host fits `{name}`"), None);
                }
            }
            let Some(condition) = &service.condition else { continue };
            if service.matched || explained {
                continue;
            }
            let groups: BTreeSet<&str> =
                self.hosts.values().flat_map(|host| host.groups.iter().map(String::as_str)).collect();
            let missing = condition.value.required_groups().iter().find(|group| !groups.contains(group.as_str()));
            let (message, hint) = match missing {
                Some(group) => (
                    format!("no host is in the group `{group}`, so no host gets this service"),
                    did_you_mean(group, groups),
                ),
                None => ("no host fits, so no host gets this service".to_owned(), None),
            };
            self.findings.warning(condition.place, message, hint);
        }
    }
}

/// All combinations of the elements of the lists, the last list counting fastest; one empty row where there is no list. A list
/// may use the variables before it.
fn rows(each: &[(String, At<Expression>)], scope: &mut Scope) -> Result<Vec<Vec<Value>>, (Place, ExpressionError)> {
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for (index, (_, list)) in each.iter().enumerate() {
        let mut longer = Vec::new();
        for row in rows {
            for ((variable, _), value) in each.iter().take(index).zip(&row) {
                scope.set(variable, value.clone());
            }
            let items = list.value.evaluate(scope).and_then(elements).map_err(|error| (list.place, error))?;
            for item in items.iter() {
                longer.push(row.iter().cloned().chain([item.clone()]).collect());
            }
            if longer.len() > ELEMENTS_MAX {
                let message = format!("`for` makes more than {ELEMENTS_MAX} services on one host");
                let hint = "a list may be cut with filter(x, …)".to_owned();
                return Err((list.place, ExpressionError { message, hint }));
            }
        }
        rows = longer;
    }
    Ok(rows)
}
