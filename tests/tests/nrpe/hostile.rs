//! Daemons that lie, stall or talk nonsense: each ends within its deadline, in a class of its own, without a panic, and never
//! with the liar's text as a result.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::time::{Duration, Instant};

use openssl::dh::Dh;
use satellite::probe::Prober;
use satellite::probe::nrpe::Client;
use satellite::probe::nrpe::wire::MAX_READ;
use shared::check::{Exit, State};
use tests::daemon::script::Act::{self, Drip, Flood, Hang, Read, Send};
use tests::daemon::{Daemon, wire};

use crate::scene::{check, fault, query};

/// What the checks here may take.
const LIMIT: Duration = Duration::from_secs(2);
/// What they may take at most on a busy machine, deadline included.
const KEPT: Duration = Duration::from_secs(4);
const REQUEST: usize = 1036;

fn v4(code: i16, text: &[u8]) -> Vec<u8> {
    wire::answer(4, code, text)
}

/// An answer with bytes overwritten and its checksum made right again.
fn forged(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet[4..8].fill(0);
    wire::seal(packet)
}

fn damaged(mut packet: Vec<u8>) -> Vec<u8> {
    packet[20] ^= 1;
    packet
}

/// What a peer does after the request has come, and the class in which that must end.
fn lies() -> Vec<(&'static str, Vec<Act>, &'static str)> {
    let sent = |bytes: Vec<u8>| vec![Read(REQUEST), Send(bytes)];
    vec![
        ("length 0x7fffffff", sent(forged(v4(0, b"x"), 12, &i32::MAX.to_be_bytes())), "protocol-length"),
        ("negative length", sent(forged(v4(0, b"x"), 12, &(-1_i32).to_be_bytes())), "protocol-length"),
        ("length 65537", sent(forged(v4(0, b"x"), 12, &65_537_i32.to_be_bytes())), "protocol-length"),
        ("a header cut short", sent(v4(0, b"text")[..7].to_vec()), "protocol-truncated"),
        ("a body cut short", sent(v4(0, b"a long enough text")[..22].to_vec()), "protocol-truncated"),
        ("wrong checksum", sent(damaged(v4(0, b"a good text"))), "protocol-checksum"),
        ("wrong checksum in v2", sent(damaged(wire::answer(2, 0, b"a good text"))), "protocol-checksum"),
        ("version 9", sent(forged(v4(0, b"x"), 0, &[0, 9])), "protocol-foreign"),
        ("a query as answer", sent(forged(v4(0, b"x"), 2, &[0, 1])), "protocol-foreign"),
        ("HTTP", sent(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()), "protocol-foreign"),
        ("a TLS alert on plain", sent(vec![0x15, 3, 1, 0, 2, 2, 40]), "protocol-foreign"),
        (
            "v2 packets without end",
            vec![Read(REQUEST), Send(wire::part_v2(3, 0, b"more ", 1024).repeat(300))],
            "protocol-length",
        ),
        ("zeros without end", vec![Read(REQUEST), Flood(0)], "protocol-foreign"),
        ("a v2 answer without end", vec![Read(REQUEST), Send(vec![0, 2, 0, 2]), Flood(1)], "protocol-length"),
        ("a hang before the request is read", vec![Hang], "answer-timeout"),
        ("a hang in the answer", vec![Read(REQUEST), Send(v4(0, b"text")[..15].to_vec()), Hang], "answer-timeout"),
        ("one byte at a time", vec![Read(REQUEST), Drip(v4(0, b"text"), Duration::from_millis(500))], "answer-timeout"),
        ("a close without a word", vec![Read(REQUEST)], "refused-here"),
    ]
}

#[tokio::test]
async fn every_lie_ends_in_time_and_in_its_class() {
    let client = Client::new().unwrap();
    for in_tls in [false, true] {
        for (lie, acts, class) in lies() {
            let liar = if in_tls { Daemon::scripted_in_tls(acts).await } else { Daemon::scripted(acts).await }.unwrap();
            let began = Instant::now();
            let kind = fault(&client, &query(liar.address, in_tls, "x"), LIMIT).await;
            assert_eq!(kind, class, "{lie}, TLS {in_tls}");
            assert!(began.elapsed() < KEPT, "{lie}, TLS {in_tls}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn what_is_odd_but_whole_is_taken_as_it_is() {
    let client = Client::new().unwrap();
    let with_junk = [v4(1, b"whole"), b"junk behind it".to_vec()].concat();
    let no_nul = {
        let mut packet = v4(2, b"no end?");
        packet.pop();
        forged(packet, 12, &7_i32.to_be_bytes())
    };
    let inner_nul = v4(0, b"first\0second");
    let several = [wire::part_v2(3, 1, b"one ", 1024), wire::part_v2(2, 1, b"two", 1024)].concat();
    for (odd, bytes, expected) in [
        ("junk", with_junk, (1, "whole")),
        ("no NUL", no_nul, (2, "no end?")),
        ("a NUL inside", inner_nul, (0, "first")),
        ("v2 for v4", wire::answer(2, 1, b"SNClient"), (1, "SNClient")),
        ("several packets", several, (1, "one two")),
    ] {
        for ends in [vec![], vec![Hang]] {
            let acts: Vec<Act> = [Read(REQUEST), Send(bytes.clone())].into_iter().chain(ends).collect();
            let daemon = Daemon::scripted(acts).await.unwrap();
            let reply = client.ask(&query(daemon.address, false, "x"), LIMIT).await.unwrap();
            let text = String::from_utf8(reply.answer.text).unwrap();
            assert_eq!((reply.answer.code, text.as_str()), expected, "{odd}");
            assert_eq!(daemon.seen.connections(), 1, "{odd}: asked once");
        }
    }
}

#[tokio::test]
async fn an_impossible_code_or_no_text_is_unknown_and_asked_once() {
    let prober = Prober::new().unwrap();
    for (code, text) in [(99, &b"odd"[..]), (-1, b"minus one"), (4, b"four"), (0, b"")] {
        let daemon = Daemon::scripted(vec![Read(REQUEST), Send(v4(code, text))]).await.unwrap();
        let outcome = prober.probe("h!x", &check(daemon.address, false, "x"), LIMIT).await;
        assert_eq!((outcome.state, &outcome.exit), (State::Unknown, &Exit::Ran(code.into())), "{outcome:?}");
        assert!(!outcome.output.is_empty());
        assert_eq!(daemon.seen.connections(), 1, "code {code}");
    }
}

#[tokio::test]
async fn text_for_people_holds_no_control_characters() {
    let prober = Prober::new().unwrap();
    let text = b"caf\xe9 \x1b[31mred\x07\r\nsecond\tline\x00never";
    let daemon = Daemon::scripted(vec![Read(REQUEST), Send(v4(0, text))]).await.unwrap();
    let outcome = prober.probe("h!x", &check(daemon.address, false, "x"), LIMIT).await;
    assert_eq!((outcome.output.as_str(), outcome.long_output.as_str()), ("caf\u{fffd} [31mred", "second\tline"));
}

#[tokio::test]
async fn a_peer_that_is_no_tls_server_is_told_apart() {
    let client = Client::new().unwrap();
    for (peer, acts, class) in [
        ("silent", vec![Hang], "tls-timeout"),
        ("closing", vec![Read(1)], "refused-here"),
        ("HTTP", vec![Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Hang], "tls-not-tls"),
        ("refusing", vec![Send(vec![0x15, 3, 3, 0, 2, 2, 40]), Hang], "tls-alert-40"),
    ] {
        let daemon = Daemon::scripted(acts).await.unwrap();
        let began = Instant::now();
        assert_eq!(fault(&client, &query(daemon.address, true, "x"), LIMIT).await, class, "{peer}");
        assert!(began.elapsed() < KEPT, "{peer}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn tls_records_without_end_are_cut_off() {
    // A handshake record of the greatest length, whose message (a ServerHello of 16 MiB) never ends.
    let mut record = vec![0x16, 3, 3, 0x40, 0];
    record.extend([2, 0xff, 0xff, 0xff]);
    record.resize(5 + 0x4000, 0);
    let daemon = Daemon::scripted(vec![Send(record.repeat(MAX_READ / record.len() + 2)), Hang]).await.unwrap();
    let client = Client::new().unwrap();
    let began = Instant::now();
    let fault = client.ask(&query(daemon.address, true, "x"), LIMIT).await.unwrap_err();
    assert!(fault.kind().starts_with("tls-") || fault.kind() == "too-much-data", "{fault}");
    assert!(began.elapsed() < KEPT);
}

/// A 2.x daemon's handshake, written by hand: no library of today serves a group of 512 bits.
fn weak_handshake() -> Vec<u8> {
    let group = Dh::generate_params(512, 2).unwrap();
    let prime = group.prime_p().to_vec();
    let mut public = vec![0; prime.len()];
    public[prime.len() - 1] = 4;
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    // No session; TLS_DH_anon_WITH_AES_256_CBC_SHA; no compression.
    hello.extend([0, 0x00, 0x3a, 0]);
    let mut exchange = Vec::new();
    for value in [&prime, &vec![2], &public] {
        exchange.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        exchange.extend(value);
    }
    let messages: Vec<u8> = [(2, hello), (12, exchange), (14, Vec::new())]
        .into_iter()
        .flat_map(|(kind, body): (u8, Vec<u8>)| {
            let length = u32::try_from(body.len()).unwrap().to_be_bytes();
            [vec![kind], length[1..].to_vec(), body].concat()
        })
        .collect();
    let length = u16::try_from(messages.len()).unwrap().to_be_bytes();
    [vec![0x16, 3, 3], length.to_vec(), messages].concat()
}

#[tokio::test]
async fn a_512_bit_group_is_refused_in_so_many_words() {
    // The first list does not hold the suite that such a daemon chooses; its alert leads to the second.
    let refuses = vec![Send(vec![0x15, 3, 3, 0, 2, 2, 40]), Hang];
    let daemon = Daemon::scripted_in_turn(vec![refuses, vec![Send(weak_handshake()), Hang]]).await.unwrap();
    let prober = Prober::new().unwrap();
    let outcome = prober.probe("h!x", &check(daemon.address, true, "x"), LIMIT).await;
    assert_eq!(outcome.exit, Exit::Error("tls-dh-too-small".to_owned()), "{outcome:?}");
    assert!(outcome.long_output.contains("512-bit Diffie-Hellman group"), "{outcome:?}");
    assert_eq!(daemon.seen.connections(), 2);
}
