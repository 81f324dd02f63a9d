//! Configurations, good and bad, by what is said about them.

use super::tls::{Anonymous, ClientCertificates, Protocol};
use super::*;

fn read(text: &str) -> Result<(Settings, Vec<String>), Vec<String>> {
    let (found, remarks) = statements("nrpe.cfg", text.as_bytes());
    let mut draft = Draft::default();
    draft.remark(remarks);
    for statement in &found {
        draft.take(statement);
    }
    let words = |remarks: Vec<Remark>| remarks.iter().map(ToString::to_string).collect();
    draft.finish().map(|(settings, warnings)| (settings, words(warnings))).map_err(words)
}

fn good(text: &str) -> Settings {
    let (settings, warnings) = read(text).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    settings
}

#[test]
fn the_file_that_debian_ships_is_read() {
    let settings = read(
        "# comment\nlog_facility=daemon\ndebug=0\npid_file=/run/nagios/nrpe.pid\nserver_port=5666\nnrpe_user=nagios\nnrpe_group=nagios\n\
         allowed_hosts=127.0.0.1,::1\n \ndont_blame_nrpe=0\nallow_bash_command_substitution=0\ncommand_timeout=60\n\
         connection_timeout=300\ndisable_syslog=0\ncommand[check_users]=/usr/lib/nagios/plugins/check_users -w 5 -c 10\n\
         command[check_load]=/usr/lib/nagios/plugins/check_load -r -w .15,.10,.05 -c .30,.25,.20\n",
    );
    let (settings, warnings) = settings.unwrap();
    assert_eq!(settings.commands.len(), 2);
    assert_eq!(settings.commands[b"check_users".as_slice()], b"/usr/lib/nagios/plugins/check_users -w 5 -c 10");
    assert_eq!((settings.user.as_deref(), settings.group.as_deref()), (Some("nagios"), Some("nagios")));
    assert_eq!(settings.pid_file.as_deref(), Some(std::path::Path::new("/run/nagios/nrpe.pid")));
    assert!(settings.allowed.unwrap().permits([127, 0, 0, 1].into()));
    assert_eq!(
        (settings.port, settings.command_timeout.as_secs(), settings.connection_timeout.as_secs()),
        (5666, 60, 300)
    );
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("nrpe.cfg:2: warning: log_facility"), "{warnings:?}");
}

#[test]
fn an_empty_file_is_nrpes_defaults_and_lets_everybody_ask() {
    let settings = good("");
    assert_eq!(settings, Settings::default());
    assert_eq!((settings.allowed, settings.arguments, settings.port), (None, false, 5666));
}

#[test]
fn without_a_file_only_this_machine_may_ask_for_what_is_built_in() {
    let settings = Settings::built_in();
    assert_eq!(settings.address.as_deref(), Some("127.0.0.1"));
    let allowed = settings.allowed.unwrap();
    assert!(allowed.permits([127, 0, 0, 1].into()) && !allowed.permits([127, 0, 0, 2].into()));
    assert!(settings.commands.len() >= 7 && settings.commands.values().all(|line| line.starts_with(b"@")));
}

#[test]
fn blanks_around_a_line_go_and_inside_it_stay() {
    let settings = good("  command[a b]=  /bin/echo x=y   \n\tserver_address=::1\r\n");
    assert_eq!(settings.commands[b"a b".as_slice()], b"  /bin/echo x=y");
    assert_eq!(settings.address.as_deref(), Some("::1"));
}

#[test]
fn every_mistake_is_named_at_once_with_its_line() {
    let mistakes = read(
        "server_port=80\nnonsense\n=\ndebug=\ncommand_timeout=0\nconnection_timeout=soon\nserver_port=x\n\
         allow_bash_command_substitution=1\ncommand[]=x\nssl_version=SSLv2+\nssl_use_adh=3\nssl_client_certs=2\n\
         listen_queue_size=0\nssl_cert_file=/c\ncommand[open]=@load 'x\nserver_port=70000\nssl_use_adh=-1\n",
    )
    .unwrap_err();
    let lines: Vec<usize> = mistakes.iter().map(|text| text.split(':').nth(1).unwrap().parse().unwrap()).collect();
    let mut sorted = lines.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted, (1..=17).collect::<Vec<_>>(), "{mistakes:#?}");
    assert!(
        mistakes.iter().any(|text| text.contains("allow_bash_command_substitution=1 is refused: ")),
        "{mistakes:#?}"
    );
}

#[test]
fn what_nrpe_takes_for_something_else_counts_as_that_and_is_named() {
    let (settings, warnings) = read(
        "command_timeout=7s\ndont_blame_nrpe=yes\ndebug=no\nmax_commands=-1\nlisten_queue_size=-1\nconnection_timeout=999999\n\
         allow_bash_command_substitution=true\n==server_port=5667\nssl_logging=all\nssl_client_certs=1\nssl_use_adh=2x\n",
    )
    .unwrap();
    assert_eq!((settings.command_timeout.as_secs(), settings.connection_timeout.as_secs()), (7, 86_400));
    assert_eq!((settings.arguments, settings.debug, settings.max_commands), (false, false, 0));
    assert_eq!((settings.backlog, settings.port), (65_535, 5667));
    assert_eq!((settings.tls.clients, settings.tls.anonymous), (ClientCertificates::Asked, Anonymous::Forced));
    for line in [1, 2, 3, 4, 6, 7, 9, 10, 11] {
        let start = format!("nrpe.cfg:{line}: warning: ");
        assert!(warnings.iter().any(|text| text.starts_with(&start)), "{line}: {warnings:#?}");
    }
}

#[test]
fn unknown_options_are_warned_of_as_nrpe_does() {
    let (settings, warnings) = read("wierd=1\nserver_port = 5667\ncommand[a]=x\n").unwrap();
    assert_eq!(settings.port, PORT);
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("nrpe.cfg:1: warning: unknown option \"wierd\""), "{warnings:?}");
    assert!(warnings[1].contains("between the name and the ="), "{warnings:?}");
}

#[test]
fn a_command_that_is_defined_twice_is_the_later_one() {
    let (settings, warnings) = read("command[a]=first\ncommand[a]=second\n").unwrap();
    assert_eq!(settings.commands[b"a".as_slice()], b"second");
    assert_eq!(warnings.len(), 1);
}

#[test]
fn a_state_behind_the_timeout_has_no_effect_as_in_nrpe() {
    let (settings, warnings) = read("command_timeout=2:OK\n").unwrap();
    assert_eq!(settings.command_timeout, Duration::from_secs(2));
    assert!(warnings[0].contains("has no effect"), "{warnings:?}");
}

#[test]
fn lines_that_nrpe_would_tear_apart_are_mistakes() {
    let long = format!("command[a]={}", "x".repeat(2100));
    assert_eq!(read(&long).unwrap_err().len(), 1);
    assert!(read(&format!("command[a]={}", "x".repeat(2000))).is_ok());
}

#[test]
fn includes_are_told_from_other_lines() {
    let (found, _) = statements("a", b"include=/b.cfg\ninclude_file=c.cfg\ninclude_dir=/d/\ndebug=1\n");
    let includes: Vec<_> = found.iter().map(Statement::include).collect();
    assert_eq!(
        includes,
        [
            Some(Include::File("/b.cfg".into())),
            Some(Include::File("c.cfg".into())),
            Some(Include::Directory("/d/".into())),
            None
        ]
    );
}

#[test]
fn tls_keys_are_those_of_nrpe() {
    let (settings, warnings) = read(
        "ssl_version=TLSv1.2+\nssl_use_adh=0\nssl_cipher_list=ALL:!aNULL\nssl_cacert_file=/ca\nssl_cert_file=/c\nssl_privatekey_file=/k\n\
         ssl_client_certs=2\nssl_logging=0x2f\nssl_shutdown_timeout=3\n",
    )
    .unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let tls = settings.tls;
    assert_eq!((tls.oldest, tls.newest), (Protocol::Tls12, None));
    assert_eq!((tls.anonymous, tls.clients), (Anonymous::WithoutAdh, ClientCertificates::Required));
    assert_eq!(tls.cipher_list(), "ALL:!aNULL:!ADH");
    assert!(tls.logging.startup() && tls.logging.certificate());
    let tls = good("ssl_use_adh=2\nssl_version=TLSv1.1\n").tls;
    assert_eq!((tls.oldest, tls.newest), (Protocol::Tls11, Some(Protocol::Tls11)));
    assert_eq!(tls.cipher_list(), "ADH:@SECLEVEL=0");
    assert_eq!(good("").tls.cipher_list(), "ALL:!MD5:@STRENGTH:@SECLEVEL=0");
}

#[test]
fn tls_keys_that_do_not_go_together_are_named() {
    let said = |text: &str| read(text).map_or_else(|mistakes| mistakes, |(_, warnings)| warnings).join("\n");
    assert!(said("ssl_cert_file=/c\n").contains("without ssl_privatekey_file"));
    assert!(said("ssl_client_certs=1\nssl_cert_file=/c\nssl_privatekey_file=/k\n").contains("without ssl_cacert_file"));
    assert!(said("ssl_use_adh=0\n").contains("leaves anonymous elliptic-curve suites on"));
    assert!(said("ssl_client_certs=2\nssl_cert_file=/c\nssl_privatekey_file=/k\n").contains("without ssl_cacert_file"));
    assert!(said("ssl_version=TLSv1.3\n").contains("needs a certificate"));
}
