//! Whole configurations: each folder of `testdata/config` holds one kind of mistake and, in `expected.txt`, exactly what is said
//! about it. `UPDATE=1` writes what is said now; the difference is then read by a person.

mod mutations;
mod network;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use shared::check::{IcmpCheck, IcmpLevel, NrpeCheck, NrpeName, NrpeTls, NrpeTrust, Pin, PluginCheck, State, TcpCheck};

use super::*;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config")
}

fn said(path: &Path) -> String {
    let sources = load(path).unwrap();
    let diagnostics = match compile(&sources) {
        Ok((_, warnings)) => warnings,
        Err(diagnostics) => diagnostics,
    };
    diagnostics.iter().map(|diagnostic| diagnostic.render() + "\n").collect()
}

fn catalog(text: &str) -> Catalog {
    let sources = Sources::from_texts([("site.yaml", text)]);
    match compile(&sources) {
        Ok((catalog, warnings)) if warnings.is_empty() => catalog,
        Ok((_, said)) | Err(said) => panic!("{}", said.iter().map(Diagnostic::render).collect::<String>()),
    }
}

#[test]
fn every_mistake_is_said_in_these_words() {
    let mut wrong = String::new();
    let mut folders = 0;
    for entry in fs::read_dir(testdata()).unwrap() {
        let folder = entry.unwrap().path();
        let expected = folder.join("expected.txt");
        let said = said(&folder);
        folders += 1;
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            let _ = writeln!(wrong, "{}:\n{said}", folder.display());
        }
        assert!(said.contains("error: "), "{}: nothing is wrong there", folder.display());
    }
    assert!(folders >= 30, "{folders} folders");
    assert!(wrong.is_empty(), "said now:\n{wrong}");
}

#[test]
fn more_than_ten_kinds_in_two_files_are_all_named_with_place_and_hint() {
    let sources = load(&testdata().join("ten-kinds")).unwrap();
    let Err(diagnostics) = compile(&sources) else { panic!("nothing is wrong") };
    let kinds = [
        "must be a whole number",
        "unknown key of a template",
        "uses itself",
        "brackets",
        "no template `generik`",
        "no region `asia`",
        "written twice",
        "says no region",
        "a duration with its unit",
        "bad indentation",
        "not valid CEL",
        "no variable `dsk`",
        "is not in it yet",
        "must not contain `!`",
        "no command",
        "which hosts it is for",
        "`contacts` is not in this version",
        "no address",
    ];
    for kind in kinds {
        let found = diagnostics.iter().find(|diagnostic| diagnostic.message.contains(kind));
        let found = found.unwrap_or_else(|| panic!("{kind}: not named"));
        assert!(found.line > 0 && found.column > 0 && found.hint.is_some(), "{found:?}");
    }
    let files: std::collections::BTreeSet<&str> = diagnostics.iter().map(|found| found.file.as_str()).collect();
    assert_eq!(files.len(), 2);
    assert_eq!(diagnostics.len(), kinds.len(), "and nothing else: {diagnostics:#?}");
}

const BASE: &str = "regions: { eu: { slots: 2 } }\n";

fn object<'a>(catalog: &'a Catalog, name: &str) -> &'a CheckDefinition {
    catalog.objects.get(&name.parse().unwrap()).unwrap_or_else(|| panic!("no object {name}"))
}

#[test]
fn the_example_of_the_design_compiles() {
    let sources = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/small.yaml")).unwrap();
    let (catalog, warnings) = compile(&sources).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(catalog.hosts.len(), 40);
    // A host check, load, two disks, site, and nrpe.
    assert_eq!(catalog.objects.len(), 40 * 6);
    let disk = object(&catalog, "web07.example.net!disk /var");
    let Check::Nrpe(nrpe) = &disk.check else { panic!("{disk:?}") };
    assert_eq!((nrpe.address.as_str(), nrpe.command.as_str(), nrpe.port), ("web07.example.net", "check_disk", 5666));
    assert_eq!(nrpe.args, ["/var"]);
    assert_eq!(disk.command_name, "nrpe");
}

#[test]
fn what_is_not_said_is_the_default() {
    let catalog = catalog(&format!(
        "{BASE}hosts: {{ web: {{}} }}\nservices: {{ load: {{ hosts: [web], check: {{ nrpe: a }} }} }}\n"
    ));
    let host = object(&catalog, "web");
    let icmp = IcmpCheck {
        address: "web".to_owned(),
        packets: 5,
        warning: IcmpLevel { rta_us: 3_000_000, loss_percent: 80 },
        critical: IcmpLevel { rta_us: 5_000_000, loss_percent: 100 },
        otherwise_tcp: Some(5666),
    };
    assert_eq!(host.check, Check::Icmp(icmp));
    assert_eq!(host.command_name, "icmp");
    let policy = Policy { check_interval_ms: 60_000, retry_interval_ms: 15_000, timeout_ms: 10_000, max_attempts: 3 };
    assert_eq!(host.policy, policy);
    let load = object(&catalog, "web!load");
    let nrpe = NrpeCheck {
        address: "web".to_owned(),
        port: 5666,
        tls: NrpeTls::Anonymous,
        command: "a".to_owned(),
        args: Vec::new(),
        version: None,
        on_transport_error: State::Unknown,
        trust: None,
    };
    assert_eq!(load.check, Check::Nrpe(nrpe));
    assert_eq!(catalog.regions.values().next().unwrap().failover_after_ms, 60_000);
}

#[test]
fn templates_reach_hosts_and_services() {
    let catalog = catalog(&format!(
        "{BASE}templates:
  base: {{ check_interval: 30s, on_transport_error: critical, nrpe: {{ tls: plain, port: 5667 }} }}
  quick: {{ use: [base], check_interval: 5s, groups: [quick] }}
  often: {{ retry_interval: 1s, max_check_attempts: 5, timeout: 2s, check: {{ nrpe: check_load }} }}
hosts:
  web: {{ use: [quick], nrpe: {{ version: 2 }}, check: {{ tcp: {{ port: 22 }} }} }}
services:
  load: {{ use: [often], hosts: [web], retry_interval: 3s }}
"
    ));
    let host = object(&catalog, "web");
    assert_eq!(host.policy.check_interval_ms, 5_000);
    assert_eq!(host.check, Check::Tcp(TcpCheck::port("web", 22)));
    let load = object(&catalog, "web!load");
    let policy = Policy { check_interval_ms: 60_000, retry_interval_ms: 3_000, timeout_ms: 2_000, max_attempts: 5 };
    assert_eq!(load.policy, policy);
    let Check::Nrpe(nrpe) = &load.check else { panic!("{load:?}") };
    assert_eq!((nrpe.port, nrpe.tls, nrpe.version), (5667, NrpeTls::Plain, Some(2)));
    assert_eq!(nrpe.on_transport_error, State::Critical, "a service asks as its host says");
}

#[test]
fn trust_in_a_daemon_is_put_together_from_templates_and_host() {
    let pin = "ab".repeat(32);
    let catalog = catalog(&format!(
        "{BASE}templates:
  ca: {{ nrpe: {{ tls: certificate, ca: /etc/ca.pem, certificate: /etc/c.pem, key: /etc/c.key, name: any, pins: [\"{pin}\"] }} }}
hosts:
  strict: {{ use: [ca], nrpe: {{ name: web.example.net, ciphers: HIGH }} }}
  lax: {{ use: [ca], nrpe: {{ tls: certificate }} }}
  bare: {{ nrpe: {{ tls: certificate }} }}
services:
  load: {{ hosts: [\"*\"], check: {{ nrpe: check_load }} }}
"
    ));
    let trust = |host: &str| match &object(&catalog, &format!("{host}!load")).check {
        Check::Nrpe(nrpe) => (nrpe.tls, nrpe.trust.clone().unwrap()),
        other => panic!("{other:?}"),
    };
    let lax = NrpeTrust {
        ca: Some("/etc/ca.pem".to_owned()),
        certificate: Some("/etc/c.pem".to_owned()),
        key: Some("/etc/c.key".to_owned()),
        name: NrpeName::Any,
        pins: vec![Pin([0xab; 32])],
        ciphers: None,
    };
    let name = NrpeName::Exactly("web.example.net".to_owned());
    let strict = NrpeTrust { name, ciphers: Some("HIGH".to_owned()), ..lax.clone() };
    assert_eq!(trust("strict"), (NrpeTls::Certificate, strict));
    assert_eq!(trust("lax"), (NrpeTls::Certificate, lax));
    assert_eq!(trust("bare"), (NrpeTls::Certificate, NrpeTrust::default()));
}

#[test]
fn for_makes_a_service_of_every_combination() {
    let catalog = catalog(&format!(
        "{BASE}hosts: {{ web: {{ vars: {{ sites: [{{ name: a, ports: [80, 443] }}, {{ name: b, ports: [8080] }}] }} }} }}
services:
  \"{{{{ site.name }}}} {{{{ port }}}}\":
    where: has(host.vars.sites)
    for: {{ site: host.vars.sites, port: site.ports }}
    check: {{ tcp: \"{{{{ port }}}}\" }}
"
    ));
    let names: Vec<String> = catalog.objects.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["web", "web!a 443", "web!a 80", "web!b 8080"]);
    assert_eq!(object(&catalog, "web!b 8080").check, Check::Tcp(TcpCheck::port("web", 8080)));
}

#[test]
fn commands_take_arguments_and_give_their_name() {
    let catalog = catalog(&format!(
        "{BASE}commands:
  disk: {{ nrpe: check_disk, args: [\"-p\", \"{{{{ args.path }}}}\", \"{{{{ has(args.warn) ? args.warn : 10 }}}}%\"] }}
hosts: {{ web: {{ vars: {{ root: / }} }} }}
services:
  root: {{ hosts: [web], check: {{ command: disk, args: {{ path: \"{{{{ host.vars.root }}}}\" }} }} }}
  var: {{ hosts: [web], check: {{ command: disk, args: {{ path: /var, warn: 20 }} }} }}
"
    ));
    let args = |name: &str| match &object(&catalog, name).check {
        Check::Nrpe(nrpe) => nrpe.args.clone(),
        _ => Vec::new(),
    };
    assert_eq!(args("web!root"), ["-p", "/", "10%"]);
    assert_eq!(args("web!var"), ["-p", "/var", "20%"]);
    assert_eq!(object(&catalog, "web!var").command_name, "disk");
}

#[test]
fn every_word_of_a_plugin_stays_one_word() {
    let catalog = catalog(&format!(
        "{BASE}commands:
  mysql:
    plugin: [/plugins/check_mysql, -H, \"{{{{ host.address }}}}\", -d, \"{{{{ args.db }}}}\", \"{{{{ has(args.more) ? args.more : '' }}}}\"]
    env: {{ HOME: \"/etc/{{{{ args.db }}}}\" }}
hosts: {{ web: {{ address: 192.0.2.7, vars: {{ name: \"a b; rm -rf / $(id) 'x\" }} }} }}
services:
  named: {{ hosts: [web], check: {{ command: mysql, args: {{ db: \"{{{{ host.vars.name }}}}\" }} }} }}
  direct: {{ hosts: [web], check: {{ plugin: [check_http, -H, \"{{{{ host.address }}}}\"], env: {{ LANG: de_DE }} }} }}
"
    ));
    let plugin = |name: &str| match &object(&catalog, name).check {
        Check::Plugin(plugin) => plugin.clone(),
        other => panic!("{other:?}"),
    };
    let db = "a b; rm -rf / $(id) 'x";
    let named = plugin("web!named");
    assert_eq!(named.argv, ["/plugins/check_mysql", "-H", "192.0.2.7", "-d", db, ""]);
    assert_eq!(named.environment.into_iter().collect::<Vec<_>>(), [("HOME".to_owned(), format!("/etc/{db}"))]);
    assert_eq!(object(&catalog, "web!named").command_name, "mysql");
    let environment = [("LANG".to_owned(), "de_DE".to_owned())].into();
    let argv = ["check_http", "-H", "192.0.2.7"].map(str::to_owned).to_vec();
    assert_eq!(plugin("web!direct"), PluginCheck { argv, environment });
    assert_eq!(object(&catalog, "web!direct").command_name, "plugin");
}

#[test]
fn a_host_is_pinged_patiently_and_a_service_is_not() {
    let catalog = catalog(&format!(
        "{BASE}commands: {{ slow: {{ icmp: {{ packets: 10, warning: {{ rta: 1s }}, critical: {{ rta: 2s }} }} }} }}
hosts: {{ web: {{ check: icmp }}, db: {{ check: {{ command: slow }} }} }}
services:
  ping: {{ hosts: [web], check: icmp }}
  ping slow: {{ hosts: [web], check: {{ command: slow }} }}
  ping own: {{ hosts: [web], check: {{ icmp: {{ warning: {{ rta: 50ms, loss: 10% }}, critical: {{ loss: 60% }} }} }} }}
"
    ));
    let icmp = |name: &str| match &object(&catalog, name).check {
        Check::Icmp(icmp) => {
            let level = |level: IcmpLevel| (level.rta_us / 1_000, level.loss_percent);
            (icmp.packets, level(icmp.warning), level(icmp.critical), icmp.otherwise_tcp)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(icmp("web"), (5, (3_000, 80), (5_000, 100), None));
    assert_eq!(icmp("db"), (10, (1_000, 80), (2_000, 100), None));
    assert_eq!(icmp("web!ping"), (5, (200, 40), (500, 80), None));
    assert_eq!(icmp("web!ping slow"), (10, (1_000, 40), (2_000, 80), None));
    assert_eq!(icmp("web!ping own"), (5, (50, 10), (500, 60), None));
}

#[test]
fn hosts_are_chosen_by_pattern_and_condition_together() {
    let catalog = catalog(&format!(
        "{BASE}hosts:
  \"web[1-3]\": {{ groups: [linux], vars: {{ disks: [a] }} }}
  \"db[1-2]\": {{ groups: [linux, db] }}
  win: {{}}
services:
  both: {{ hosts: [\"web*\", \"db[1-2]\"], where: '\"db\" in host.groups', check: {{ tcp: 1 }} }}
  listed: {{ hosts: [\"web[2-3]\"], check: {{ tcp: 1 }} }}
  grouped: {{ where: '\"linux\" in host.groups && !(\"db\" in host.groups)', check: {{ tcp: 1 }} }}
  other: {{ where: '!(\"linux\" in host.groups)', check: {{ tcp: 1 }} }}
"
    ));
    let with = |service: &str| -> Vec<&str> {
        let of_service = |name: &&ObjectName| name.service.as_ref().is_some_and(|known| known.as_str() == service);
        catalog.objects.keys().filter(of_service).map(|name| name.host.as_str()).collect()
    };
    assert_eq!(with("both"), ["db1", "db2"]);
    assert_eq!(with("listed"), ["web2", "web3"]);
    assert_eq!(with("grouped"), ["web1", "web2", "web3"]);
    assert_eq!(with("other"), ["win"]);
}

#[test]
fn addresses_may_be_built_from_the_host() {
    let catalog = catalog(&format!(
        "{BASE}hosts: {{ \"web[1-2]\": {{ address: \"{{{{ host.name }}}}.{{{{ host.vars.domain }}}}\", vars: {{ domain: lan }} }} }}\n"
    ));
    let addresses: Vec<&str> = catalog.hosts.values().map(|host| host.address.as_str()).collect();
    assert_eq!(addresses, ["web1.lan", "web2.lan"]);
}

#[test]
fn writers_are_typed() {
    let catalog = catalog(&format!(
        "{BASE}writers: {{ graphite: {{ address: \"::1\", thresholds: true }} }}\nhosts: {{ web: {{}} }}\n"
    ));
    let graphite = GraphiteWriter {
        address: "[::1]:2003".to_owned(),
        prefix: "icinga2".to_owned(),
        thresholds: true,
        metadata: false,
    };
    assert_eq!(catalog.writers, [Writer::Graphite(graphite)]);
}

#[test]
fn the_stored_form_reads_back_and_the_digest_names_the_content() {
    let text = format!(
        "{BASE}hosts: {{ \"web[1-3]\": {{ groups: [b, a], vars: {{ x: {{ z: 1, y: [1.5, null, true] }} }} }} }}\n"
    );
    let first = catalog(&text);
    let bytes = first.to_bytes();
    assert_eq!(Catalog::from_bytes(&bytes).unwrap(), first);
    // The same content, written in another order and in two files.
    let other = "hosts: { web3: { vars: { x: { y: [1.5, null, true], z: 1 } }, groups: [a, b] } }\n";
    let rest = "hosts: { \"web[1-2]\": { groups: [a, b], vars: { x: { z: 1, y: [1.5, ~, true] } } } }\nregions: { eu: { slots: 2 } }\n";
    let (second, _) = compile(&Sources::from_texts([("a", other), ("b", rest)])).unwrap();
    assert_eq!(second.digest, first.digest);
    assert_eq!(second.to_bytes(), bytes);
    let changed = catalog(&text.replace("slots: 2", "slots: 3"));
    assert_ne!(changed.digest, first.digest);
}

#[test]
fn damage_to_the_stored_form_is_told() {
    let good = catalog(&format!("{BASE}hosts: {{ web: {{}} }}\n")).to_bytes();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        assert!(Catalog::from_bytes(&bad).is_err(), "byte {at}");
        assert!(Catalog::from_bytes(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn the_stored_form_is_the_same_for_ever() {
    let catalog = catalog(&format!(
        "{BASE}hosts: {{ web: {{ groups: [linux], vars: {{ a: 1 }}, check: {{ tcp: 5666 }}, nrpe: {{ service: false }} }} }}
services: {{ load: {{ hosts: [web], check: {{ nrpe: check_load, args: [x] }} }} }}
writers: {{ graphite: {{ address: carbon }} }}
"
    ));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/catalog-v1.bin");
    if std::env::var_os("UPDATE").is_some() && !path.exists() {
        fs::write(&path, catalog.to_bytes()).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    assert_eq!(
        Catalog::from_bytes(&golden).unwrap(),
        catalog,
        "a stored catalog must be readable by every later version"
    );
}

#[test]
fn check_config_prints_a_summary_or_the_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.yaml");
    fs::write(&path, format!("{BASE}hosts: {{ \"web[1-6]\": {{ check_interval: 2s }} }}\n")).unwrap();
    let run = |path: &Path, json| {
        let mut out = Vec::new();
        let status = check_config(path, json, &mut out).unwrap();
        (status, String::from_utf8(out).unwrap())
    };
    let (status, text) = run(&path, false);
    assert_eq!(status, 0);
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["eu", "2", "6", "0", "3.00", "1.50"], "{text}");
    let (status, text) = run(directory.path(), true);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["ok"], &answer["regions"][0]["hosts"]), (0, &true.into(), &6.into()));

    fs::write(&path, "hosts: { web: { colour: red } }\n").unwrap();
    let (status, text) = run(&path, false);
    assert_eq!(status, 2);
    assert!(text.contains("unknown key of a host: `colour`") && text.contains("2 mistakes, 0 warnings"), "{text}");
    let (status, text) = run(&path, true);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["ok"], &answer["errors"]), (2, &false.into(), &2.into()));
    let first = &answer["diagnostics"][0];
    assert_eq!((&first["file"], &first["line"], &first["severity"]), (&"site.yaml".into(), &1.into(), &"error".into()));

    let (status, text) = run(&directory.path().join("gone"), false);
    assert_eq!(status, 2);
    assert!(text.contains("cannot read the configuration"), "{text}");
}

#[test]
fn a_hundred_thousand_services_compile() {
    let mut text =
        format!("{BASE}templates:\n  t: {{ groups: [linux], vars: {{ disks: [/, /var, /home, /srv] }} }}\nhosts:\n");
    for host in 0..5_000 {
        let group = if host % 2 == 0 { "even" } else { "odd" };
        let _ = writeln!(
            text,
            "  host{host:04}.example.net: {{ use: [t], region: eu, groups: [{group}], vars: {{ n: {host} }} }}"
        );
    }
    text.push_str("services:\n");
    for service in 0..16 {
        let condition = match service % 4 {
            0 => "'\"linux\" in host.groups'",
            1 => "'has(host.vars.disks)'",
            2 => "'host.vars.n >= 0 && host.name.startsWith(\"host\")'",
            _ => "'(\"even\" in host.groups) || (\"odd\" in host.groups)'",
        };
        let _ = writeln!(
            text,
            "  service{service}: {{ where: {condition}, check: {{ nrpe: check_{service}, args: [\"{{{{ host.name }}}}\"] }} }}"
        );
    }
    text.push_str("  \"disk {{ d }}\": { where: 'has(host.vars.disks)', for: { d: host.vars.disks }, check: { nrpe: check_disk, args: [\"{{ d }}\"] } }\n");
    let sources = Sources::from_texts([("site.yaml", text.as_str())]);
    let start = cpu_seconds();
    let (catalog, warnings) = compile(&sources).unwrap();
    let compiled = cpu_seconds() - start;
    let bytes = catalog.to_bytes().len();
    assert_eq!((catalog.objects.len(), warnings.len()), (5_000 + 5_000 + 100_000, 0));
    println!("100,000 services on 5,000 hosts: {compiled:.2} s of CPU to compile, {bytes} bytes stored");
}

/// CPU time of this thread, in seconds: what a busy machine does beside it does not count.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

#[test]
fn services_written_one_by_one_compile() {
    let mut text = format!("{BASE}hosts: {{ \"h[0-9]\": {{}} }}\nservices:\n");
    for service in 0..60_000 {
        let _ = writeln!(
            text,
            "  s{service}: {{ hosts: [h{}], check: {{ nrpe: check_load, args: [\"{service}\"] }} }}",
            service % 10
        );
    }
    assert!(catalog(&text).objects.len() == 60_020, "the parser's own default of 250,000 nodes would refuse this");
}

#[test]
fn what_the_reference_shows_compiles() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        catalog(&format!("{BASE}hosts: {{ web1: {{}} }}\n{block}"));
    }
}

#[test]
fn a_host_with_an_nrpe_check_has_the_service_nrpe_unless_it_has_its_own_or_wants_none() {
    let text = r#"
regions: { eu: { slots: 1 } }
templates:
  slow: { check_interval: 10m, on_transport_error: warning }
  bare: { nrpe: { service: false } }
hosts:
  plain: { nrpe: { tls: plain, port: 5667 }, check_interval: 7m }
  slow: { use: [slow] }
  bare: { use: [bare] }
  own: {}
  tcp: {}
  alive: { check: { nrpe: check_alive } }
services:
  load: { hosts: [plain, slow, bare, own], check: { nrpe: check_load, args: [] } }
  nrpe: { hosts: [own], check: { nrpe: check_own } }
  ssh: { hosts: [tcp], check: { tcp: 22 } }
"#;
    let catalog = catalog(text);
    let implicit = |host: &str| {
        let definition = catalog.objects.get(&format!("{host}!nrpe").parse().unwrap())?;
        let Check::Nrpe(check) = &definition.check else { panic!("{definition:?}") };
        Some((check.clone(), definition.policy.check_interval_ms, definition.command_name.clone()))
    };
    let (check, interval, name) = implicit("plain").unwrap();
    assert!(check.asks_daemon());
    assert_eq!((check.tls, check.port, check.address.as_str()), (NrpeTls::Plain, 5667, "plain"));
    assert_eq!((check.on_transport_error, interval, name.as_str()), (State::Critical, 420_000, "nrpe"));
    let (check, interval, _) = implicit("slow").unwrap();
    assert_eq!((check.on_transport_error, interval), (State::Warning, 600_000));
    assert_eq!(implicit("own").unwrap().0.command, "check_own");
    assert!(implicit("alive").unwrap().0.asks_daemon(), "its own check is one");
    assert!(implicit("bare").is_none() && implicit("tcp").is_none());
}
