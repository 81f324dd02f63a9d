//! The SSH probe, with `check_ssh` as the oracle, against servers that say what they are told, and against a real sshd.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shared::check::network::Limits;
use shared::check::{Check, Exit, SshCheck, State};
use tests::daemon::script::Act::{self, Drip, Flood, Hang, Send};
use tests::missing::missing;
use tests::wait::until;

use crate::scene::{KEPT, LIMIT, PATIENCE, form, plugin, printed, probe, server};

fn ssh(address: SocketAddr) -> SshCheck {
    SshCheck {
        address: address.ip().to_string(),
        port: address.port(),
        version: None,
        protocol: None,
        limits: Limits::default(),
    }
}

const DEBIAN: &str = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u6\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn states_and_texts_are_those_of_check_ssh() {
    // Identification, what is expected by version and protocol, whether the texts are the same.
    let cases: &[(&str, Option<&str>, Option<&str>, bool)] = &[
        (DEBIAN, None, None, true),
        ("SSH-1.99-Cisco-1.25\n", None, None, true),
        ("SSH-2.0-dropbear_2022.83\r\n", None, None, true),
        ("SSH-3.0\r\n", None, None, true),
        (DEBIAN, Some("OpenSSH_9.2p1 Debian-2+deb12u6"), Some("2.0"), true),
        (DEBIAN, Some("OpenSSH_9.2p1"), None, true),
        (DEBIAN, None, Some("1.99"), true),
        ("HTTP/1.0 400 Bad Request\r\n", None, None, false),
        ("", None, None, false),
    ];
    let mut compared = 0;
    for (banner, version, protocol, same_text) in cases {
        let address = server(vec![Send(banner.as_bytes().to_vec())]).await;
        let mut check = ssh(address);
        (check.version, check.protocol) = (version.map(str::to_owned), protocol.map(str::to_owned));
        let ours = probe(&Check::Ssh(check), PATIENCE).await;
        let port = address.port().to_string();
        let mut args = vec!["-t", "10", "-p", &port];
        args.extend(version.iter().flat_map(|version| ["-r", version]));
        args.extend(protocol.iter().flat_map(|protocol| ["-P", protocol]));
        args.push("127.0.0.1");
        let Some((status, text)) = plugin("check_ssh", "monitoring-plugins-basic", &args).await else { return };
        assert_eq!(ours.state, State::of_exit(status.into()), "{banner:?}: {ours:?} and {text}");
        if *same_text {
            assert_eq!(form(&printed(&ours)), form(&text), "{banner:?}");
        }
        compared += 1;
    }
    assert_eq!(compared, cases.len());
}

#[tokio::test]
async fn an_identification_may_come_behind_other_lines() {
    let address = server(vec![Send(format!("Authorised use only\r\n\r\n{DEBIAN}").into_bytes())]).await;
    let outcome = probe(&Check::Ssh(ssh(address)), PATIENCE).await;
    assert_eq!((outcome.state, outcome.exit), (State::Ok, Exit::Ran(0)));
    assert_eq!(outcome.output, "SSH OK - OpenSSH_9.2p1 Debian-2+deb12u6 (protocol 2.0)");
    assert_eq!((outcome.metrics[0].label.as_str(), outcome.metrics[0].unit.as_str()), ("time", "s"));
}

#[tokio::test]
async fn a_slow_server_is_a_warning() {
    let address = server(vec![Send(DEBIAN.into())]).await;
    let mut check = ssh(address);
    check.limits.warning = "0".parse().ok();
    assert_eq!(probe(&Check::Ssh(check), PATIENCE).await.state, State::Warning);
}

#[tokio::test]
async fn servers_that_lie_or_stall_end_in_time() {
    let drip = Duration::from_millis(300);
    let cases: Vec<(&str, Vec<Act>, &str)> = vec![
        ("nothing", vec![Hang], "no identification within"),
        ("a drip", vec![Drip(b"SSH-2.0-very slow indeed, and then some more\r\n".to_vec(), drip)], "within"),
        ("a line without end", vec![Send(b"SSH-2.0-".to_vec()), Flood(b'x')], "longer than 255 bytes"),
        ("text without end", vec![Flood(b'y')], "no identification"),
        ("lines without end", vec![Flood(b'\n')], "first 50 lines"),
        ("zeros without end", vec![Flood(0)], "no identification"),
        ("control characters", vec![Send(b"\x1b[2J\x07|time=1s\r\n".to_vec())], "it said: [2Jtime=1s"),
    ];
    for (name, acts, words) in cases {
        let address = server(acts).await;
        let started = Instant::now();
        let outcome = probe(&Check::Ssh(ssh(address)), LIMIT).await;
        assert!(started.elapsed() < KEPT, "{name}: {:?}", started.elapsed());
        assert_eq!(outcome.state, State::Critical, "{name}: {outcome:?}");
        assert!(outcome.output.contains(words), "{name}: {outcome:?}");
        assert!(outcome.perfdata.is_empty() && !outcome.output.contains('\u{1b}'), "{name}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_sshd_is_recognised() {
    const SSHD: &str = "/usr/sbin/sshd";
    if !Path::new(SSHD).exists() {
        return missing(SSHD, "openssh-server");
    }
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let port = tests::nrpe::free_port(std::net::Ipv4Addr::LOCALHOST).unwrap();
    // As root it wants a directory that its service makes: a /run of its own has one, and the machine's stays as it is.
    const RUN: &str = "mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec \"$0\" \"$@\"";
    let mut command = if tests::nrpe::is_root() && !Path::new("/run/sshd").exists() {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", RUN, SSHD]);
        command
    } else {
        Command::new(SSHD)
    };
    let mut daemon = command
        .args(["-D", "-e", "-f", "/dev/null", "-o", "ListenAddress=127.0.0.1", "-o", "PidFile=none"])
        .args(["-p", &port.to_string(), "-h"])
        .arg(&key)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listens = until(Duration::from_secs(20), || std::net::TcpStream::connect(address).is_ok());
    let outcome = probe(&Check::Ssh(ssh(address)), PATIENCE).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(listens);
    assert!(outcome.output.starts_with("SSH OK - OpenSSH_"), "{outcome:?}");
    assert!(outcome.output.ends_with("(protocol 2.0)"), "{outcome:?}");
}
