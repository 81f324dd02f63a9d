//! Daemons that lie, stall or talk nonsense: each ends within its deadline, in a class of its own, without a panic, and never
//! with the liar's text as a result.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use satellite::probe::Prober;
use satellite::probe::nrpe::Client;
use shared::check::{Exit, Outcome, State};
use tests::daemon::hostile::{ANSWERED, Kind, kinds};
use tests::daemon::script::Act::{self, Hang, Read, Send};
use tests::daemon::{Daemon, wire};
use tests::figure::figure;
use tokio::task::JoinSet;

use crate::scene::{check, fault, query};

/// What the checks here may take.
const LIMIT: Duration = Duration::from_secs(2);
/// What they may take at most on a busy machine, deadline included.
const KEPT: Duration = Duration::from_secs(4);
/// What a check may take beyond its timeout.
const GRACE: Duration = Duration::from_secs(1);
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

/// A kind by its name.
fn kind(name: &str) -> Kind {
    kinds().into_iter().find(|kind| kind.name == name).expect("a kind of this name")
}

/// How a check ended, in the words of the table.
fn end(outcome: &Outcome) -> String {
    match &outcome.exit {
        Exit::Ran(_) => ANSWERED.to_owned(),
        Exit::TimedOut => "answer-timeout".to_owned(),
        Exit::Error(kind) => kind.clone(),
        Exit::Signal(number) => format!("signal {number}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_hostile_daemon_ends_in_time_and_as_the_table_says() {
    let prober = Arc::new(Prober::new().unwrap());
    let mut probes = JoinSet::new();
    for (number, kind) in kinds().into_iter().enumerate() {
        // An address each: all are asked at once, and a host has few connections.
        let listen = SocketAddr::from(([127, 66, 0, u8::try_from(number + 1).unwrap()], 0));
        let daemon = Daemon::hostile(&kind, listen).await.unwrap();
        let prober = Arc::clone(&prober);
        probes.spawn(async move {
            let mut complaints = Vec::new();
            // Twice: the second time something may have been learned from the first.
            for _ in 0..2 {
                let began = Instant::now();
                let outcome = prober.probe("h!x", &check(daemon.address, kind.tls, "x"), LIMIT).await;
                let took = began.elapsed();
                let ended = end(&outcome);
                let texts = [&outcome.output, &outcome.long_output, &outcome.perfdata];
                let good = kind.ends.contains(&ended.as_str())
                    && took <= LIMIT + GRACE
                    && !outcome.output.is_empty()
                    && !texts.into_iter().any(|text| text.contains(is_unseen))
                    && (ended == ANSWERED || outcome.state == State::Unknown)
                    && outcome.authenticated != Some(true);
                if !good {
                    complaints.push(format!("{}: {ended} after {took:?}, not {:?}: {outcome:?}", kind.name, kind.ends));
                }
            }
            daemon.stop().await;
            complaints
        });
    }
    let count = probes.len();
    let mut complaints = Vec::new();
    while let Some(found) = probes.join_next().await {
        complaints.extend(found.unwrap());
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    assert!(count >= 25, "{count} kinds");
    figure(11, &format!("{count} kinds of hostile daemons, each in its class and within its timeout + 1 s"));
}

/// What a terminal or a page would obey instead of showing it.
fn is_unseen(char: char) -> bool {
    (char.is_control() && !matches!(char, '\n' | '\t'))
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
    let text = b"caf\xe9 \x1b[31mred\x07\xe2\x80\xae\r\nsecond\tline\xe2\x81\xa9\x00never";
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
async fn an_answer_that_does_not_end_is_not_called_a_slow_command() {
    let prober = Prober::new().unwrap();
    let half = v4(0, b"OK - half")[..19].to_vec();
    let limit = Duration::from_millis(500);
    for (sent, says) in [(half, "did not end"), (Vec::new(), "no answer")] {
        let daemon = Daemon::scripted(vec![Read(REQUEST), Send(sent), Hang]).await.unwrap();
        let outcome = prober.probe("h!x", &check(daemon.address, false, "x"), limit).await;
        assert_eq!(outcome.exit, Exit::TimedOut);
        assert!(outcome.output.contains(says), "{outcome:?}");
        assert_eq!(outcome.long_output.contains("command_timeout"), says == "no answer", "{outcome:?}");
    }
}

#[tokio::test]
async fn a_512_bit_group_is_refused_in_so_many_words() {
    // The first list does not hold the suite that such a daemon chooses; its alert leads to the second.
    let daemon = Daemon::hostile(&kind("a group of 512 bits"), SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let prober = Prober::new().unwrap();
    let outcome = prober.probe("h!x", &check(daemon.address, true, "x"), LIMIT).await;
    assert_eq!(outcome.exit, Exit::Error("tls-dh-too-small".to_owned()), "{outcome:?}");
    assert!(outcome.long_output.contains("512-bit Diffie-Hellman group"), "{outcome:?}");
    assert_eq!(daemon.seen.connections(), 2);
}
