//! What a `check` of the files means for one host: texts are filled in, NRPE's rules are kept, and a `shared::Check` comes out.
//!
//! Knows what an NRPE daemon refuses without a word (facts measured on 2.x, 3.x and 4.x daemons), so that it is said here and
//! not found out at night. The surprise: a query that is too long is refused, never cut, as `check_nrpe` does.

pub mod network;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use cel::Value;
use shared::check::{Check, NrpeCheck, NrpeTls, NrpeTrust, State};

use super::diagnostic::{At, Findings, Place, did_you_mean_or};
use super::expression::{ExpressionError, Language, Scope, Template, to_cel};
use super::raw::{NetworkKind, RawCheck, RawIcmp, RawNetwork, RawProbe};
use network::Filled;

pub mod icmp;
mod plugin;

/// Longest query (command and arguments joined with `!`) of a v2 packet: its buffer of 1024 bytes ends with NUL.
pub const QUERY_BYTES_V2: usize = 1_023;
/// Longest query of a v3 or v4 packet: what a daemon's command line can take.
pub const QUERY_BYTES: usize = 2_047;
/// A daemon drops a request with one of these unless its `nasty_metachars` says otherwise.
const METACHARACTERS: &[char] = &['|', '`', '&', '>', '<', '\'', '\\', '[', ']', '{', '}', ';'];

/// Where and how a host is spoken to.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Name or address.
    pub address: String,
    /// Port of its NRPE daemon.
    pub port: u16,
    /// Transport to its NRPE daemon.
    pub tls: NrpeTls,
    /// Only packet version to use.
    pub version: Option<u8>,
    /// Whom to believe where the transport is by certificate.
    pub trust: Option<NrpeTrust>,
}

/// A probe with its texts compiled.
#[derive(Debug)]
pub enum CompiledProbe {
    /// An NRPE command and its arguments.
    Nrpe {
        /// Name of the command.
        command: At<Template>,
        /// Arguments.
        args: Vec<At<Template>>,
    },
    /// A server to speak to.
    Network {
        /// Which probe.
        kind: NetworkKind,
        /// Where its name stands.
        place: Place,
        /// Its values: key, name below it, text.
        fields: Vec<(&'static str, Option<String>, At<Template>)>,
    },
    /// A plugin's words, and variables of its environment.
    Plugin {
        /// Program and arguments.
        argv: Vec<At<Template>>,
        /// Names and values.
        environment: Vec<(At<String>, At<Template>)>,
    },
    /// Echo requests.
    Icmp(RawIcmp),
}

/// A check with its texts compiled.
#[derive(Debug)]
pub struct CompiledCheck {
    probe: Rc<CompiledProbe>,
    command_name: String,
    of_host: bool,
    /// Values for `{{ args.… }}`; `None`: the check names no command of the files.
    args: Option<Vec<(String, Place, Argument)>>,
}

#[derive(Debug)]
enum Argument {
    Text(Template),
    Data(Value),
}

/// A command of the files.
#[derive(Debug)]
pub struct CompiledCommand {
    probe: Rc<CompiledProbe>,
    /// Names it takes from `args`; `None`: cannot be told.
    takes: Option<BTreeSet<String>>,
}

/// Something wrong with a check on one host.
#[derive(Debug)]
pub struct Problem {
    /// Where the text stands.
    pub place: Place,
    /// Whether the check cannot run.
    pub fatal: bool,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Problem {
    fn fatal(place: Place, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { place, fatal: true, message: message.into(), hint: hint.into() }
    }

    fn warning(place: Place, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { place, fatal: false, message: message.into(), hint: hint.into() }
    }

    fn of(place: Place, error: ExpressionError) -> Self {
        Self::fatal(place, error.message, error.hint)
    }
}

fn compile_text(
    language: &Language,
    text: &At<String>,
    variables: &[&str],
    findings: &mut Findings,
) -> Option<At<Template>> {
    match Template::compile(language, &text.value, variables) {
        Ok(template) => Some(At::new(template, text.place)),
        Err(error) => {
            findings.error(text.place, error.message, error.hint);
            None
        }
    }
}

fn compile_probe(
    language: &Language,
    probe: &RawProbe,
    variables: &[&str],
    findings: &mut Findings,
) -> Option<CompiledProbe> {
    match probe {
        RawProbe::Nrpe { command, args } => {
            let command = compile_text(language, command, variables, findings);
            let wanted = args.len();
            let args: Vec<_> = args.iter().filter_map(|arg| compile_text(language, arg, variables, findings)).collect();
            (args.len() == wanted).then_some(())?;
            Some(CompiledProbe::Nrpe { command: command?, args })
        }
        RawProbe::Plugin { argv, environment } => {
            let wanted = argv.len() + environment.len();
            let argv: Vec<_> =
                argv.iter().filter_map(|word| compile_text(language, word, variables, findings)).collect();
            let environment: Vec<_> = environment
                .iter()
                .filter_map(|(name, value)| {
                    let value = compile_text(language, value, variables, findings);
                    is_variable(name, findings).then_some((name.clone(), value?))
                })
                .collect();
            (argv.len() + environment.len() == wanted).then_some(CompiledProbe::Plugin { argv, environment })
        }
        RawProbe::Icmp(icmp) => Some(CompiledProbe::Icmp(icmp.clone())),
        RawProbe::Network(raw) => compile_network(language, raw, variables, findings),
    }
}

fn compile_network(
    language: &Language,
    raw: &RawNetwork,
    variables: &[&str],
    findings: &mut Findings,
) -> Option<CompiledProbe> {
    let RawNetwork { kind, place, fields } = raw;
    if !fields.iter().any(|field| field.value.value.contains("{{")) {
        // Nothing depends on a host: what is wrong is said even if no host has the check, and once.
        let filled: Vec<Filled> = fields
            .iter()
            .map(|field| Filled { key: field.key, name: field.name.clone(), value: field.value.clone() })
            .collect();
        let mut problems = Vec::new();
        let good = network::build(*kind, *place, &filled, "localhost", &mut problems).is_some();
        for problem in problems.into_iter().filter(|problem| problem.fatal) {
            findings.error(problem.place, problem.message, problem.hint);
        }
        good.then_some(())?;
    }
    let compiled: Vec<_> = fields
        .iter()
        .filter_map(|field| {
            let text = compile_text(language, &field.value, variables, findings)?;
            Some((field.key, field.name.clone(), text))
        })
        .collect();
    (compiled.len() == fields.len()).then_some(CompiledProbe::Network { kind: *kind, place: *place, fields: compiled })
}

/// Whether this can be the name of a variable of the environment.
fn is_variable(name: &At<String>, findings: &mut Findings) -> bool {
    let good = !name.value.is_empty() && !name.value.contains(['=', '\0']);
    if !good {
        let message = format!("`{}` cannot be the name of a variable", name.value.escape_debug());
        findings.error(name.place, message, "as in env: { MYSQL_HOME: /etc/mysql }");
    }
    good
}

/// Compiles a command of the files.
pub fn compile_command(language: &Language, probe: &RawProbe, findings: &mut Findings) -> Option<CompiledCommand> {
    let probe = compile_probe(language, probe, &["host", "args"], findings)?;
    let mut takes = BTreeSet::new();
    let texts: Vec<&At<Template>> = match &probe {
        CompiledProbe::Nrpe { command, args } => std::iter::once(command).chain(args).collect(),
        CompiledProbe::Network { fields, .. } => fields.iter().map(|(_, _, text)| text).collect(),
        CompiledProbe::Plugin { argv, environment } => {
            argv.iter().chain(environment.iter().map(|(_, value)| value)).collect()
        }
        CompiledProbe::Icmp(_) => Vec::new(),
    };
    let known = texts.into_iter().all(|text| text.value.collect_fields("args", &mut takes));
    Some(CompiledCommand { probe: Rc::new(probe), takes: known.then_some(takes) })
}

/// Compiles the check of a host or service over the given variables. `hidden` as for templates.
pub fn compile_check(
    language: &Language,
    check: &RawCheck,
    variables: &[&str],
    commands: &BTreeMap<String, Option<CompiledCommand>>,
    hidden: &dyn Fn(&str) -> bool,
    findings: &mut Findings,
) -> Option<CompiledCheck> {
    match check {
        RawCheck::Probe(probe) => {
            let command_name = match probe {
                RawProbe::Nrpe { .. } => "nrpe",
                RawProbe::Network(network) => network.kind.as_str(),
                RawProbe::Plugin { .. } => "plugin",
                RawProbe::Icmp(_) => "icmp",
            };
            let probe = Rc::new(compile_probe(language, probe, variables, findings)?);
            Some(CompiledCheck { probe, command_name: command_name.to_owned(), of_host: false, args: None })
        }
        RawCheck::Command { name, args } => {
            let command = match commands.get(&name.value) {
                Some(command) => command.as_ref(),
                None => {
                    if !hidden(&name.value) {
                        let names = commands.keys().map(String::as_str);
                        let hint =
                            did_you_mean_or(&name.value, names, "write it under `commands`, or say here what to do");
                        findings.error(name.place, format!("there is no command `{}`", name.value), hint);
                    }
                    None
                }
            };
            let mut values = Vec::new();
            for (key, value) in args {
                let takes = command.and_then(|command| command.takes.as_ref());
                if let Some(takes) = takes.filter(|takes| !takes.contains(&key.value)) {
                    let message = format!("the command `{}` takes no argument `{}`", name.value, key.value);
                    let names = takes.iter().map(String::as_str);
                    let hint = did_you_mean_or(&key.value, names, "a command takes what it names as {{ args.… }}");
                    findings.error(key.place, message, hint);
                }
                let argument = match &value.value {
                    serde_json::Value::String(text) => {
                        let text = At::new(text.clone(), value.place);
                        compile_text(language, &text, variables, findings).map(|text| Argument::Text(text.value))
                    }
                    other => Some(Argument::Data(to_cel(other))),
                };
                values.extend(argument.map(|argument| (key.value.clone(), value.place, argument)));
            }
            let probe = Rc::clone(&command?.probe);
            Some(CompiledCheck { probe, command_name: name.value.clone(), of_host: false, args: Some(values) })
        }
    }
}

impl CompiledCheck {
    /// The same as the check of a host itself, where some defaults are others.
    #[must_use]
    pub fn of_host(self) -> Self {
        Self { of_host: true, ..self }
    }

    /// What time-series stores call it.
    #[must_use]
    pub fn command_name(&self) -> &str {
        &self.command_name
    }

    /// The check of one host. What is wrong with it is pushed to `problems`; `None` if it cannot run.
    pub fn fill(
        &self,
        endpoint: &Endpoint,
        on_transport_error: State,
        scope: &mut Scope,
        problems: &mut Vec<Problem>,
    ) -> Option<Check> {
        if let Some(args) = &self.args {
            let mut values: HashMap<String, Value> = HashMap::new();
            for (name, place, argument) in args {
                let value = match argument {
                    Argument::Data(value) => value.clone(),
                    Argument::Text(text) => Value::from(fill(text, *place, scope, problems)?),
                };
                values.insert(name.clone(), value);
            }
            scope.set("args", Value::from(values));
        }
        match &*self.probe {
            CompiledProbe::Plugin { argv, environment } => {
                plugin::fill_plugin(argv, environment, scope, problems).map(Check::Plugin)
            }
            CompiledProbe::Icmp(raw) => Some(Check::Icmp(icmp::fill(raw, self.of_host, &endpoint.address, problems))),
            CompiledProbe::Network { kind, place, fields } => {
                let filled: Vec<Filled> = fields
                    .iter()
                    .filter_map(|(key, name, text)| {
                        let value = fill(&text.value, text.place, scope, problems)?;
                        Some(Filled { key, name: name.clone(), value: At::new(value, text.place) })
                    })
                    .collect();
                (filled.len() == fields.len()).then_some(())?;
                network::build(*kind, *place, &filled, &endpoint.address, problems)
            }
            CompiledProbe::Nrpe { command, args } => {
                let name = fill(&command.value, command.place, scope, problems);
                let filled: Option<Vec<String>> =
                    args.iter().map(|arg| fill(&arg.value, arg.place, scope, problems)).collect();
                let (name, filled) = (name?, filled?);
                let before = problems.len();
                check_command(&name, command.place, problems);
                for (text, arg) in filled.iter().zip(args) {
                    check_argument(text, arg.place, problems);
                }
                check_length(&name, &filled, endpoint.version, command.place, problems);
                let broken = problems.iter().skip(before).any(|problem| problem.fatal);
                (!broken).then(|| {
                    Check::Nrpe(NrpeCheck {
                        address: endpoint.address.clone(),
                        port: endpoint.port,
                        tls: endpoint.tls,
                        command: name,
                        args: filled,
                        version: endpoint.version,
                        on_transport_error,
                        trust: endpoint.trust.clone(),
                    })
                })
            }
        }
    }
}

fn fill(text: &Template, place: Place, scope: &Scope, problems: &mut Vec<Problem>) -> Option<String> {
    text.fill(scope).map_err(|error| problems.push(Problem::of(place, error))).ok()
}

fn check_command(name: &str, place: Place, problems: &mut Vec<Problem>) {
    if name.trim().is_empty() {
        problems.push(Problem::fatal(place, "the name of an NRPE command must not be empty", "as in check_load"));
        return;
    }
    if name.contains('!') {
        let hint = "write arguments as a list: args: [a, b]".to_owned();
        problems.push(Problem::fatal(place, "the name of an NRPE command must not contain `!`", hint));
    }
    check_characters(name, "the name of an NRPE command", place, problems);
}

fn check_argument(text: &str, place: Place, problems: &mut Vec<Problem>) {
    if text.is_empty() {
        let hint = "the daemon drops empty arguments, so the ones behind it move up".to_owned();
        problems.push(Problem::warning(place, "this argument is empty", hint));
    }
    if text.contains('!') {
        let message = "an NRPE argument must not contain `!`, which divides arguments on the wire";
        let hint = "NRPE has no way to quote it; give the value in the daemon's own configuration".to_owned();
        problems.push(Problem::fatal(place, message, hint));
    }
    check_characters(text, "an NRPE argument", place, problems);
}

fn check_characters(text: &str, what: &str, place: Place, problems: &mut Vec<Problem>) {
    if let Some(character) = text.chars().find(|c| matches!(c, '\0' | '\r' | '\n')) {
        let message = format!("{what} must not contain {}", character.escape_debug());
        problems.push(Problem::fatal(place, message, "take it out: a packet or a line of the daemon would end there"));
    }
    let nasty = text.chars().find(|c| METACHARACTERS.contains(c)).map(String::from);
    if let Some(nasty) = nasty.or_else(|| text.contains("$(").then(|| "$(".to_owned())) {
        let message = format!("{what} contains `{nasty}`: a daemon drops such a request without a word");
        let hint =
            "unless its nasty_metachars says otherwise; better put it in the daemon's own configuration".to_owned();
        problems.push(Problem::warning(place, message, hint));
    }
}

fn check_length(name: &str, args: &[String], version: Option<u8>, place: Place, problems: &mut Vec<Problem>) {
    let bytes = name.len() + args.iter().map(|arg| 1 + arg.len()).sum::<usize>();
    let most = if version == Some(2) { QUERY_BYTES_V2 } else { QUERY_BYTES };
    if bytes > most {
        let message = format!("the NRPE query has {bytes} bytes; at most {most} fit");
        problems.push(Problem::fatal(place, message, "shorten the arguments".to_owned()));
    } else if bytes > QUERY_BYTES_V2 && version.is_none() {
        let message =
            format!("the NRPE query has {bytes} bytes; a daemon that speaks only version 2 takes {QUERY_BYTES_V2}");
        problems.push(Problem::warning(place, message, "say nrpe: { version: 3 } or 4 where that is known".to_owned()));
    }
}
