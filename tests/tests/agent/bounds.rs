//! The agent under clients that are too many, too slow, or gone: it answers everybody else, holds no more than its bounds, and gives
//! everything back.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use satellite::agent::gate::PER_SOURCE;
use satellite::probe::nrpe::packet::{Progress, Trailer, Version, decode, encode_query};
use tests::agent::{Agent, SOON};
use tests::figure::figure;
use tests::nrpe::{Transport, installed};
use tests::wait::until;

use crate::scene::{COMMANDS, PATIENCE};

/// Asks over plain TCP: code and text.
fn asked(address: SocketAddr, version: Version, command: &str) -> (i16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&encode_query(version, command.as_bytes(), Trailer::Counted).unwrap()).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    match decode(&said, true) {
        Ok(Progress::Complete(answer)) => (answer.code, String::from_utf8_lossy(&answer.text).into_owned()),
        other => panic!("{command}: {other:?}"),
    }
}

/// Open descriptors of a process.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn a_thousand_requests_of_forty_clients_are_all_answered() {
    let mut agent = Agent::start(Transport::Plain, COMMANDS, "").unwrap();
    let before = descriptors(agent.pid());
    let address = agent.address;
    let clients: Vec<_> = (0..40)
        .map(|client| {
            thread::spawn(move || {
                for number in 0..25 {
                    let version = [Version::V2, Version::V3, Version::V4][(client + number) % 3];
                    let (command, code, text) = match number % 5 {
                        0 => ("critical", 2, "CRITICAL - hot | temp=90C;70;80"),
                        _ => ("_NRPE_CHECK", 0, "NRPE v4.1.0"),
                    };
                    assert_eq!(asked(address, version, command), (code, text.to_owned()));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert!(until(SOON, || descriptors(agent.pid()) <= before), "{} of {before}", descriptors(agent.pid()));
    assert_eq!(agent.terminate().unwrap(), Some(0));
    assert!(agent.log().contains("1000 answered"), "{}", agent.log());
}

#[test]
fn sixty_four_checks_at_once_over_tls_are_all_answered() {
    if !installed() {
        return;
    }
    let agent = Agent::start(Transport::Anonymous, COMMANDS, "").unwrap();
    let (address, agent) = (agent.address, std::sync::Arc::new(agent));
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let agent = std::sync::Arc::clone(&agent);
            thread::spawn(move || agent.check_nrpe("warning", PATIENCE, &[]).unwrap())
        })
        .collect();
    for client in clients {
        let said = client.join().unwrap();
        assert_eq!((said.status, said.stdout.as_slice()), (1, b"WARNING - warm\n".as_slice()), "{said:?} {address}");
    }
    figure(10, "64 check_nrpe at once over anonymous TLS, none failed");
}

#[test]
fn a_source_with_too_many_connections_is_closed_and_others_are_served() {
    if !installed() {
        return;
    }
    let agent = Agent::start(Transport::Anonymous, COMMANDS, "").unwrap();
    let before = descriptors(agent.pid());
    let share = PER_SOURCE as usize;
    let mut idle: Vec<TcpStream> = (0..share + 40).map(|_| TcpStream::connect(agent.address).unwrap()).collect();
    // Those beyond the share are reset; the others stay silent and open.
    let closed = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).unwrap();
        !matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(until(SOON, || idle.iter_mut().filter_map(|stream| closed(stream).then_some(())).count() >= 40));
    let open = idle.iter_mut().filter_map(|stream| (!closed(stream)).then_some(())).count();
    assert_eq!(open, share, "one less for the client that looked whether the agent listens may still be open");
    assert!(agent.log().contains("reason=it has 128 connections open"), "{}", agent.log());
    let said = agent.check_nrpe("ok", PATIENCE, &["-b", "127.0.0.2"]).unwrap();
    assert_eq!(said.status, 0, "another source is served: {said:?}");
    let turned = agent.check_nrpe("ok", PATIENCE, &[]).unwrap();
    assert_ne!(turned.status, 0, "{turned:?}");
    drop(idle);
    assert!(until(SOON, || descriptors(agent.pid()) <= before + 1), "{} of {before}", descriptors(agent.pid()));
    assert_eq!(agent.check_nrpe("ok", PATIENCE, &[]).unwrap().status, 0);
}

#[test]
fn clients_that_never_ask_are_closed_when_their_time_is_over() {
    for transport in [Transport::Plain, Transport::Anonymous] {
        let mut agent = Agent::start(transport, COMMANDS, "connection_timeout=1\n").unwrap();
        let beginnings: [&[u8]; 4] = [b"", b"\x00", b"\x16\x03\x01\x02", b"\x00\x04\x00\x01\0\0\0\0\0\0\0\0\0\0\x04\0"];
        let mut silent: Vec<TcpStream> = beginnings
            .iter()
            .map(|bytes| {
                let mut stream = TcpStream::connect(agent.address).unwrap();
                stream.write_all(bytes).unwrap();
                stream.set_read_timeout(Some(SOON)).unwrap();
                stream
            })
            .collect();
        for (stream, bytes) in silent.iter_mut().zip(beginnings) {
            let mut said = Vec::new();
            match stream.read_to_end(&mut said) {
                // An alert may come first where TLS is spoken.
                Ok(_) => assert!(said.len() < 100, "{bytes:?} {transport:?}: {said:?}"),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{bytes:?} {transport:?}"),
            }
        }
        assert!(agent.runs());
    }
}

#[test]
fn clients_that_go_away_during_a_command_harm_nobody() {
    let commands = [("wait", "sleep 1; echo done"), ("ok", "echo fine")];
    let mut agent = Agent::start(Transport::Plain, &commands, "").unwrap();
    let before = descriptors(agent.pid());
    for _ in 0..20 {
        let mut stream = TcpStream::connect(agent.address).unwrap();
        stream.write_all(&encode_query(Version::V4, b"wait", Trailer::Counted).unwrap()).unwrap();
    }
    assert_eq!(asked(agent.address, Version::V2, "ok"), (0, "fine".to_owned()));
    assert!(until(SOON, || descriptors(agent.pid()) <= before), "{} of {before}", descriptors(agent.pid()));
    assert!(agent.runs());
}

#[test]
fn so_many_commands_run_at_once_as_are_allowed() {
    let commands = [("count", "echo $$$$ >> DIR/running; ls DIR | wc -l; sleep 0.2; rm DIR/running")];
    let scratch = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let place = scratch.path().display().to_string();
    // `mkdir` says whether somebody else is inside.
    let line = commands[0].1.replace("DIR", &place);
    let line = format!("mkdir {place}/inside && {{ {line}; rmdir {place}/inside; }} || echo TWO");
    let agent = Agent::start(Transport::Plain, &[("count", &line)], "max_commands=1\n").unwrap();
    let address = agent.address;
    let clients: Vec<_> = (0..6).map(|_| thread::spawn(move || asked(address, Version::V4, "count"))).collect();
    for client in clients {
        let (code, text) = client.join().unwrap();
        assert!(code == 0 && !text.contains("TWO"), "{code} {text}");
    }
}

#[test]
fn what_a_command_leaves_behind_goes_on_and_holds_nobody_up() {
    let scratch = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let late = scratch.path().join("late");
    let line = format!("echo started; (sleep 1; echo x > {}) &", late.display());
    let agent = Agent::start(Transport::Plain, &[("start", &line)], "command_timeout=30\n").unwrap();
    assert_eq!(asked(agent.address, Version::V4, "start"), (0, "started".to_owned()));
    assert!(!late.exists(), "the answer did not wait for it");
    assert!(until(Duration::from_secs(20), || late.exists()));
}
