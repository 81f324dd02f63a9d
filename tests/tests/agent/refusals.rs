//! Whatever nrpe refuses the agent refuses in the same way, and says why in its log: arguments, characters, packets that are none,
//! lengths that are too long, names and networks of `allowed_hosts`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use satellite::probe::nrpe::packet::{Trailer, Version, encode_query};
use tests::agent::Agent;
use tests::nrpe::mode::Mode;
use tests::nrpe::setup::Setup;
use tests::nrpe::{RealNrpe, Transport, installed};
use tests::pki::Pki;

use crate::scene::{COMMANDS, PATIENCE, Pair};

#[test]
fn arguments_and_characters_are_refused_alike() {
    if !installed() {
        return;
    }
    for mode in [Mode::Plain, Mode::Anonymous] {
        let pki = Pki::new().unwrap();
        let pair = Pair::start(mode, &pki, "");
        let nasty = "|`&><'\\[]{};\r\n".chars().map(|nasty| format!("ok{nasty}"));
        // The log names a bounded number of refusals a second: the ones looked for come first.
        let refused = ["ok!x", "ok|", "ok!", "!ok", "!"].map(str::to_owned).into_iter().chain(nasty);
        for request in refused {
            let said = pair.same(&request, &[]);
            assert_eq!(said.status, 3, "{request:?}: {said:?}");
            assert!(String::from_utf8_lossy(&said.stdout).contains("0 bytes received"), "{request:?}: {said:?}");
        }
        for request in ["ok$(id)", "ok\"", "ok*", "ok#", "ok ok", "größe", "ok$", "(ok)"] {
            let said = pair.same(request, &[]);
            assert!(String::from_utf8_lossy(&said.stdout).contains("not defined"), "{request:?}: {said:?}");
        }
        let log = pair.ours().log();
        assert!(log.contains("peer=127.0.0.1 reason=the request carries arguments"), "{log}");
        assert!(log.contains("reason=the request contains '|', one of nasty_metachars"), "{log}");
    }
}

#[test]
fn other_nasty_characters_are_refused_alike() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let pair = Pair::start(Mode::Plain, &pki, "nasty_metachars=xyz\\\\\\t\n");
    for request in ["okx", "ok\\", "ok\t", "ok;", "ok|", "ok'"] {
        pair.same(request, &[]);
    }
    // An escape that nrpe does not know.
    let pair = Pair::start(Mode::Plain, &pki, "nasty_metachars=q\\x7a\n");
    for request in ["ok", "okq", "okx", "ok7", "oka", "okz", "ok\\"] {
        pair.same(request, &[]);
    }
}

#[test]
fn requests_of_any_length_end_alike() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let pair = Pair::start(Mode::Anonymous, &pki, "");
    for length in [900, 1000, 1022, 1023, 1024, 1100, 2000] {
        for way in [&["-2"] as &[&str], &[]] {
            pair.same(&"a".repeat(length), way);
        }
    }
    // A payload that is not nrpe's is damaged to it.
    pair.same("ok", &["-2", "-P", "2048"]);
    pair.same("ok", &["-2", "-P", "512"]);
}

/// What a daemon sends back to these bytes, and whether it closes with an end or a reset.
fn told(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => format!("{} bytes, then the end", said.len()),
        Err(error) => format!("{} bytes, then {:?}", said.len(), error.kind()),
    }
}

/// A version 4 query with these bytes put into it.
fn with(at: usize, put: &[u8], sealed: bool) -> Vec<u8> {
    let mut packet = encode_query(Version::V4, b"ok", Trailer::Counted).unwrap();
    packet[at..at + put.len()].copy_from_slice(put);
    if sealed {
        packet[4..8].copy_from_slice(&[0; 4]);
        let sum = crc32fast::hash(&packet);
        packet[4..8].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

#[test]
fn bytes_that_are_no_query_end_alike() {
    if !installed() {
        return;
    }
    let pki = Pki::new().unwrap();
    let pair = Pair::start(Mode::Plain, &pki, "");
    let v2 = encode_query(Version::V2, b"ok", Trailer::Counted).unwrap();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a good query", with(0, &[0, 4], false)),
        ("a good query of version 2", v2.clone()),
        ("a wrong checksum", with(20, b"X", false)),
        ("version 1", with(0, &[0, 1], true)),
        ("version 5", with(0, &[0, 5], true)),
        ("an answer", with(2, &[0, 2], true)),
        ("type 0", with(2, &[0, 0], true)),
        ("no command", with(16, &[0, 0], true)),
        ("length 0", with(12, &[0, 0, 0, 0], true)),
        ("a negative length", with(12, &[0xff, 0xff, 0xff, 0xff], true)),
        ("a huge length", with(12, &[0x7f, 0xff, 0xff, 0xff], true)),
        ("128 KiB", with(12, &[0, 2, 0, 0], true)),
        ("HTTP", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on".to_vec()),
        ("ten zeros", vec![0; 10]),
    ];
    for (name, bytes) in cases {
        let expected = told(pair.theirs().address, &bytes);
        let same = (0..3).any(|_| told(pair.ours().address, &bytes) == told(pair.theirs().address, &bytes));
        let got = told(pair.ours().address, &bytes);
        assert!(same, "{name}: ours {got}, theirs {expected}\n{}", pair.ours().log());
    }
}

#[test]
fn a_query_that_comes_byte_by_byte_or_is_followed_by_an_end_is_answered() {
    let agent = Agent::start(Transport::Plain, COMMANDS, "").unwrap();
    for bytes in [
        encode_query(Version::V2, b"ok", Trailer::Counted).unwrap(),
        encode_query(Version::V3, b"ok", Trailer::Sent).unwrap(),
        encode_query(Version::V4, b"ok", Trailer::Counted).unwrap(),
    ] {
        let mut stream = TcpStream::connect(agent.address).unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in bytes.chunks(100) {
            stream.write_all(piece).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert!(said.windows(9).any(|text| text == b"OK - fine"), "{said:?}");
    }
}

#[test]
fn allowed_hosts_let_in_and_keep_out_alike() {
    if !installed() {
        return;
    }
    // Who is asked from 127.0.0.1, and whether that is let in.
    let lists = [
        ("127.0.0.1", true),
        ("127.0.0.0/8", true),
        ("10.0.0.0/8, 127.0.0.1/32", true),
        ("localhost", true),
        ("192.0.2.1,::1", false),
        ("127.0.0.2", false),
        ("127.0.0.1/8", false),
        ("no-such-host.invalid", false),
        ("not-here.invalid,localhost", true),
        ("300.1.1.1,127.0.0.1", true),
        ("127.000.000.001", true),
        ("127.0.0.1 10.0.0.1", true),
        ("10.0.0.1 127.0.0.1", false),
        ("127.1", true),
        ("0.0.0.0/0", false),
        ("0.0.0.0/1", true),
        ("::ffff:127.0.0.1", false),
        ("localhost.", false),
        ("127.0.0.0/255.0.0.0", false),
    ];
    for (list, let_in) in lists {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut setup = Setup::new(nowhere, Transport::Plain, COMMANDS, "");
        list.clone_into(&mut setup.allowed_hosts);
        let ours = Agent::set_up(setup.clone()).unwrap();
        setup.address.set_port(tests::nrpe::free_port(Ipv4Addr::LOCALHOST).unwrap());
        let theirs = RealNrpe::set_up(setup).unwrap();
        let limit = Duration::from_secs(25);
        let expected = theirs.check_nrpe("ok", limit, &[]).unwrap();
        let said = ours.check_nrpe("ok", limit, &[]).unwrap();
        assert_eq!(said.status == 0, let_in, "{list}: {said:?}\n{}", ours.log());
        assert_eq!(said.status, expected.status, "{list}: ours {said:?}, theirs {expected:?}");
        if !let_in {
            assert!(ours.log().contains("peer=127.0.0.1 reason=it is not in allowed_hosts"), "{}", ours.log());
        }
    }
}
