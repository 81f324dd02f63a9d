//! The daemons of the comparison, by name: Debian's in several modes, the tests' own for what Debian's cannot be, and peers that
//! are no daemons. And the files that command lines name.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tempfile::TempDir;
use tests::daemon::answers::Command;
use tests::daemon::script::Act;
use tests::daemon::{Daemon, Spec, Transport, wire};
use tests::nrpe::mode::{Keys, Mode};
use tests::nrpe::{self, RealNrpe, free_port};
use tests::pki::Pki;

/// What every request takes on the wire, and so what a scripted peer reads.
const REQUEST: usize = 1036;
/// The same with a text field of 2048 bytes.
const WIDE_REQUEST: usize = 2060;

const COMMANDS: &[(&str, &str)] = &[
    ("ok", r"/usr/bin/printf 'OK - fine|time=0.5s;1;2;0;10\n'"),
    ("warn", "/bin/sh -c 'echo WARN; exit 1'"),
    ("crit", "/bin/sh -c 'echo CRIT; exit 2'"),
    ("multi", r"/usr/bin/printf 'OK first|a=1\nline2\nline3|b=2\n'"),
    ("odd", "/bin/sh -c 'echo odd; exit 77'"),
    ("none", "/bin/true"),
    ("latin1", r"/usr/bin/printf 'caf\351 OK\n'"),
    ("long", r"/bin/sh -c 'head -c 20000 /dev/zero | tr \\0 B; exit 1'"),
    ("slow", "/bin/sh -c 'exec sleep 8'"),
];

/// Files of options, by name.
const FILES: &[(&str, &str)] = &[
    ("plain.opt", "-n\n-t 10:3\n"),
    ("impatient.opt", "-t 1:1\n-n"),
    ("command.opt", "-c ok"),
    ("args.opt", "-a x"),
    ("nested.opt", "-n -f other.opt"),
    ("empty.opt", "\n"),
    ("unknown.opt", "-n -x"),
    ("key.opt", "-K nokey.pem -n"),
];

pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    addresses: BTreeMap<&'static str, SocketAddr>,
    pki: Pki,
    _real: Vec<RealNrpe>,
    _fakes: Vec<Daemon>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in FILES {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let pki = Pki::new().unwrap();
        let keys = Keys::from(&pki);
        let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST).unwrap()));
        let mut addresses = BTreeMap::from([("nowhere", closed)]);
        let mut real = Vec::new();
        for (name, mode) in [
            ("plain", Mode::Plain),
            ("anonymous", Mode::Anonymous),
            ("adh", Mode::AdhForced),
            ("old", Mode::OldProtocol),
            ("certificate", Mode::Certificate),
            ("client", Mode::RequiredClient),
        ] {
            let daemon = RealNrpe::in_mode(mode, &keys, COMMANDS, "").unwrap();
            addresses.insert(name, daemon.address);
            real.push(daemon);
        }
        for (name, settings) in [
            ("TLS 1.0", format!("{}ssl_version=TLSv1\n", keys.settings())),
            ("unencrypted", "ssl_cipher_list=AECDH-NULL-SHA:@SECLEVEL=0\n".to_owned()),
        ] {
            let daemon = RealNrpe::start(nrpe::Transport::Anonymous, COMMANDS, &settings).unwrap();
            addresses.insert(name, daemon.address);
            real.push(daemon);
        }
        let mut fakes = Vec::new();
        for (name, spec) in specs() {
            let daemon = Daemon::start(spec, None, None).await.unwrap();
            addresses.insert(name, daemon.address);
            fakes.push(daemon);
        }
        for (name, acts) in scripts() {
            let daemon = Daemon::scripted(acts).await.unwrap();
            addresses.insert(name, daemon.address);
            fakes.push(daemon);
        }
        Self { directory, addresses, pki, _real: real, _fakes: fakes }
    }

    /// The words of a line for a daemon: `-H` and `-p` first, unless the daemon is `-`.
    pub(crate) fn words(&self, daemon: &str, line: &str) -> Vec<String> {
        let mut words = Vec::new();
        if daemon != "-" {
            let address = self.addresses.get(daemon).unwrap_or_else(|| panic!("no daemon {daemon}"));
            words.extend(["-H".to_owned(), address.ip().to_string(), "-p".to_owned(), address.port().to_string()]);
        }
        words.extend(line.split_whitespace().map(|word| self.filled(word)));
        words
    }

    fn filled(&self, word: &str) -> String {
        let path = |path: &Path| path.display().to_string();
        match word {
            "''" => String::new(),
            "{ca}" => path(&self.pki.authority.certificate),
            "{foreign}" => path(&self.pki.foreign_authority.certificate),
            "{cert}" => path(&self.pki.client.certificate),
            "{key}" => path(&self.pki.client.key),
            "{1100}" => "a".repeat(1100),
            "{2100}" => "a".repeat(2100),
            word => word.to_owned(),
        }
    }
}

fn specs() -> Vec<(&'static str, Spec)> {
    let plain = |name: &str| {
        let mut spec = Spec::new(name, Transport::Plain);
        for (command, state, text) in [
            ("ok", 0, "fine"),
            ("crit", 2, "hot"),
            ("99", 99, "ninety-nine"),
            ("300", 300, "three hundred"),
            ("minus", -1, "minus one"),
            ("empty", 0, ""),
            ("echo", 0, "$ARG1$ $ARG2$ $ARG3$"),
        ] {
            spec.commands.insert(command.to_owned(), Command::fixed(state, text).unnumbered());
        }
        spec.arguments = true;
        spec
    };
    let mut windows = plain("windows").speaking(&[2]);
    windows.nsclient_payload = Some(1024);
    vec![
        ("2.x", plain("2.x").speaking(&[2])),
        ("3.x", plain("3.x").speaking(&[2, 3])),
        ("4.x", plain("4.x")),
        ("windows", windows),
    ]
}

fn scripts() -> Vec<(&'static str, Vec<Act>)> {
    let says = |bytes: Vec<u8>| vec![Act::Read(REQUEST), Act::Send(bytes)];
    let good = wire::answer(2, 0, b"never shown");
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    let mut versioned = good.clone();
    versioned[1] = 9;
    let mut endless = wire::answer(4, 0, b"never shown");
    endless[12..16].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    let several = [wire::part_v2(3, 0, b"part one, ", 1024), wire::part_v2(2, 0, b"part two", 1024)].concat();
    vec![
        ("damaged", says(damaged)),
        ("version 9", says(versioned)),
        ("cut short", says(good[..20].to_vec())),
        ("one byte", says(vec![0])),
        ("endless", says(endless)),
        ("http", says(b"HTTP/1.0 400 Bad Request\r\n\r\n<html></html>".to_vec())),
        ("silent", vec![Act::Read(REQUEST)]),
        ("hanging", vec![Act::Hang]),
        ("several", says(several)),
        ("wide", vec![Act::Read(WIDE_REQUEST), Act::Send(wire::answer_v2(0, b"fine", 2048))]),
    ]
}
