//! The agent's command line and configuration as an operator meets them: mistakes named before anything starts, files read again,
//! root given up, inetd, the end.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use tests::agent::{Agent, SOON, call, output};
use tests::nrpe::mode::Mode;
use tests::nrpe::setup::Setup;
use tests::nrpe::{RealNrpe, Transport, ask, free_port, installed, is_root};
use tests::pki::Pki;
use tests::process::Process;
use tests::wait::until;

use crate::scene::{COMMANDS, PATIENCE, Pair};

/// Real user of a process, and its supplementary groups.
fn identity(pid: u32) -> (String, String) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    (line("Uid:"), line("Groups:"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_check_names_every_mistake_and_ends_with_two() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nrpe.cfg");
    let more = directory.path().join("more.cfg");
    fs::write(&file, format!("server_port=80\ninclude={}\nwierd=1\nssl_use_adh=7\n", more.display())).unwrap();
    fs::write(&more, "\n\ncommand[x]\n").unwrap();
    let name = file.display().to_string();
    let checked = output(&["--check", "--config", &name]).unwrap();
    let said = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(2), "{said}");
    for expected in
        ["nrpe.cfg:1: server_port", "more.cfg:3: a line is key=value", "nrpe.cfg:3: warning: ", "nrpe.cfg:4: "]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let started = output(&["--config", &name]).unwrap();
    assert_eq!(started.status.code(), Some(2));
    assert!(text(&started.stderr).contains("more.cfg:3: "), "{}", text(&started.stderr));
    let missing = output(&["--check", "--config", "/nonexistent/nrpe.cfg"]).unwrap();
    assert_eq!(missing.status.code(), Some(2));
    fs::write(&file, "allowed_hosts=127.0.0.1\ncommand[a]=@load\ncommand[b]=/bin/true\n").unwrap();
    let good = output(&["--check", "--config", &name, "--no-tls"]).unwrap();
    assert_eq!(
        (good.status.code(), text(&good.stdout)),
        (Some(0), "good: 2 commands on all addresses, port 5666, no TLS\n".to_owned())
    );
}

/// A file that nrpe starts with is one that the agent starts with, and both make the same of it; one that it refuses is refused.
#[test]
fn odd_and_broken_files_are_served_as_nrpe_serves_them() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let pair = |settings: &str| Pair::with(Mode::Anonymous, &pki, &[("a", "/bin/echo one")], settings);
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().display().to_string();
    for (name, text) in [
        ("one.cfg", "command[early]=/bin/echo early\nssl_version=TLSv9\ncommand[late]=/bin/echo late\n"),
        ("d/1.cfg", "command[first]=/bin/echo first\nno value here\ncommand[second]=/bin/echo second\n"),
        ("d/2.cfg", "command[third]=/bin/echo third\n"),
        ("e/x.cfg/y.cfg", "command[deep]=/bin/echo deep\n"),
    ] {
        let file = directory.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let broken = pair(&format!("include={path}/one.cfg\ninclude_dir={path}/d\ninclude_dir={path}/e\n"));
    for command in ["a", "early", "late", "first", "second", "third", "deep"] {
        broken.same(command, &[]);
    }
    let checked = output(&["--check", "--config", &broken.ours().config().display().to_string()]).unwrap();
    let said = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(2), "{said}");
    for expected in
        ["one.cfg:2: ssl_version", "1.cfg:2: a line is key=value", "the rest of this file is left out, as with nrpe"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    for odd in [
        "command_timeout=3s\n",
        "dont_blame_nrpe=yes\n",
        "debug=no\n",
        "max_commands=-1\nlisten_queue_size=-1\n",
        "=command[b]=/bin/echo two\n",
        "ssl_client_certs=1\n",
        "ssl_logging=everything\nallow_weak_random_seed=x\n",
        "connection_timeout=100000\nssl_shutdown_timeout=100000\n",
    ] {
        let odd = pair(odd);
        for request in ["a", "b", "a!x"] {
            odd.same(request, &[]);
        }
    }
    for refused in ["ssl_cacert_file=/nonexistent\n", "ssl_client_certs=2\n", "nonsense\n", "ssl_use_adh=3\n"] {
        let setup = || Setup::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Transport::Anonymous, &[], refused);
        assert!(RealNrpe::on_a_free_port(setup()).is_err(), "nrpe starts with {refused}");
        assert!(Agent::set_up(setup()).is_err(), "the agent starts with {refused}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nrpe.cfg");
    fs::write(&file, "ssl_cert_file=/nonexistent/a.pem\nssl_privatekey_file=/nonexistent/a.key\n").unwrap();
    let checked = output(&["--check", "--config", &file.display().to_string()]).unwrap();
    assert_eq!(checked.status.code(), Some(2));
    assert!(
        text(&checked.stdout).contains("ssl_cert_file /nonexistent/a.pem: No such file"),
        "{}",
        text(&checked.stdout)
    );
}

#[test]
fn root_is_not_served_as_and_is_given_up_whole() {
    if !is_root() || !installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nrpe.cfg");
    let name = file.display().to_string();
    for (lines, more) in [("", &[] as &[&str]), ("nrpe_user=root\n", &[]), ("", &["--user", "no-such-user"])] {
        fs::write(&file, lines).unwrap();
        let refused = output(&[&["--config", name.as_str()], more].concat()).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{lines:?} {more:?}");
        let said = text(&refused.stderr);
        assert!(said.contains("refusing to serve as root") || said.contains("there is no user"), "{said}");
    }
    let agent = Agent::start(Transport::Plain, &[("who", "id -u; id -G")], "").unwrap();
    let (users, groups) = identity(agent.pid());
    assert_eq!((users.as_str(), groups.as_str()), ("65534 65534 65534 65534", "65534"));
    let said = agent.check_nrpe("who", PATIENCE, &[]).unwrap();
    assert_eq!(text(&said.stdout), "65534\n65534\n");
}

#[test]
fn a_configuration_is_read_again_and_a_bad_one_changes_nothing() {
    if !installed() {
        return;
    }
    let mut agent = Agent::start(Transport::Anonymous, &[("a", "echo one"), ("gone", "echo here")], "").unwrap();
    let said = |agent: &Agent, command: &str| text(&agent.check_nrpe(command, PATIENCE, &[]).unwrap().stdout);
    assert_eq!(said(&agent, "a"), "one\n");
    agent.reload(&[("a", "echo two"), ("new", "echo new")], "", "the configuration was read again").unwrap();
    assert_eq!((said(&agent, "a"), said(&agent, "new")), ("two\n".to_owned(), "new\n".to_owned()));
    assert_eq!(said(&agent, "gone"), "NRPE: Command 'gone' not defined\n");
    agent.reload(&[("a", "echo three")], "nonsense\n", "the configuration of before stays in use").unwrap();
    assert_eq!(said(&agent, "a"), "two\n");
    assert!(agent.log().contains("there is no ="), "{}", agent.log());
    let bad_tls = "ssl_cipher_list=NO_SUCH_CIPHER\n";
    agent.reload(&[("a", "echo four")], bad_tls, "the configuration of before stays in use").unwrap();
    assert_eq!(said(&agent, "a"), "two\n");
    agent.reload(&[("a", "echo five")], "dont_blame_nrpe=1\n", "the configuration was read again").unwrap();
    assert_eq!(said(&agent, "a!x"), "five\n");
    assert_eq!(agent.terminate().unwrap(), Some(0));
}

#[test]
fn a_log_file_that_was_moved_is_made_anew_at_hup() {
    if !installed() {
        return;
    }
    let mut agent = Agent::start(Transport::Plain, COMMANDS, "").unwrap();
    let log = agent.directory().join("nrpe.log");
    fs::rename(&log, agent.directory().join("nrpe.log.1")).unwrap();
    agent.reload(COMMANDS, "", "the configuration was read again").unwrap();
    agent.check_nrpe("ok;", PATIENCE, &[]).unwrap();
    assert!(until(SOON, || fs::read_to_string(&log).is_ok_and(|text| text.contains("refused"))));
}

#[test]
fn without_a_configuration_built_in_checks_are_served_to_this_machine() {
    if !installed() {
        return;
    }
    let port = free_port([127, 0, 0, 1].into()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut command = call(&["--port", &port.to_string(), "--user", "nobody"]).unwrap();
    let mut agent = Process::start("agent", &mut command, &directory.path().join("log")).unwrap();
    let address = ([127, 0, 0, 1], port).into();
    let mut said = None;
    assert!(until(SOON, || {
        said = ask(address, Transport::Anonymous, "check_load", PATIENCE, &[]).ok();
        said.as_ref().is_some_and(|said| said.status == 0)
    }));
    assert!(text(&said.unwrap().stdout).starts_with("LOAD OK"));
    let stranger = ask(address, Transport::Anonymous, "check_load", PATIENCE, &["-b", "127.0.0.2"]).unwrap();
    assert_ne!(stranger.status, 0, "{stranger:?}");
    assert_eq!(agent.terminate(SOON).unwrap().code(), Some(0));
}

#[test]
fn a_pid_file_is_written_and_one_of_a_living_daemon_respected() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("agent.pid");
    let agent = Agent::start(Transport::Plain, COMMANDS, &format!("pid_file={}\n", pid.display())).unwrap();
    assert_eq!(fs::read_to_string(&pid).unwrap().trim(), agent.pid().to_string());
    let refused = Agent::start(Transport::Plain, COMMANDS, &format!("pid_file={}\n", pid.display())).unwrap_err();
    assert!(format!("{refused:#}").contains("is there another daemon?"), "{refused:#}");
}

#[test]
fn inetd_hands_over_one_connection() {
    if !installed() {
        return;
    }
    for transport in [Transport::Plain, Transport::Anonymous] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nrpe.cfg");
        // Who is let in is inetd's to say.
        fs::write(&file, "allowed_hosts=192.0.2.1\ncommand[ok]=/bin/echo by inetd\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || ask(address, transport, "ok", PATIENCE, &[]).unwrap());
        let (stream, _) = listener.accept().unwrap();
        let name = file.display().to_string();
        let mut command = call(&["--inetd", "--config", &name, "--user", "nobody"]).unwrap();
        if transport == Transport::Plain {
            command.arg("--no-tls");
        }
        let output = OwnedFd::from(stream.try_clone().unwrap());
        let mut child = command.stdin(OwnedFd::from(stream)).stdout(output).stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        let said = client.join().unwrap();
        assert_eq!((said.status, text(&said.stdout)), (0, "by inetd\n".to_owned()), "{transport:?}");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

/// The section on the agent: its configuration is the agent's, and what its command shows is what it prints.
#[test]
fn the_page_of_the_agent_holds_word_for_word() {
    let page = include_str!("../../../docs/nrpe.md");
    let section = page.split("\n## ").find(|section| section.starts_with("The agent\n")).expect("## The agent");
    let block = |language: &str| {
        let (_, rest) = section.split_once(&format!("```{language}\n")).expect(language);
        rest.split_once("```").expect("its end").0
    };
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("nrpe.cfg"), block("ini")).unwrap();
    let (command, expected) = block("console").split_once('\n').unwrap();
    let words: Vec<&str> = command.strip_prefix("$ perigee-satellite agent ").expect(command).split(' ').collect();
    let output = call(&words).unwrap().current_dir(directory.path()).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), expected));
}
