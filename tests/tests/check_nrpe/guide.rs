//! `docs/nrpe.md` tried word for word: its blocks of configuration are given to Debian's daemon, its commands are run, and what
//! they print must be what the page shows. Only this is replaced, as the page itself says: the address of the host, the
//! addresses of the machine that asks, and the directory of the host's certificates.
//!
//! ```` ```console ```` blocks are commands behind `$ ` and their output, a line `...` standing for any lines; ```` ```sh ````
//! blocks are scripts. A block behind `<!-- nrpe.cfg -->` is the daemon's configuration, one behind `<!-- nrpe.cfg, added -->` is
//! added to it; both start the daemon anew. One behind `<!-- the agent's nrpe.cfg -->` is a file for the commands that follow.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::figure::figure;
use tests::nrpe::{DAEMON, installed};
use tests::process::Watcher;
use tests::wait::until;

use crate::both::satellite;
use crate::page;

/// The host, the machine that asks, and another address of that, as the page has them.
const HOST: &str = "192.0.2.10";
const ASKING: &str = "192.0.2.1";
const ASKING_TOO: &str = "192.0.2.3";
/// Where the page keeps the host's certificates, and where they are made.
const TLS: &str = "/etc/nagios/tls";
const MADE: &str = "pki";
/// How long the daemon may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A block of the page.
#[derive(Debug)]
struct Block {
    mark: Option<String>,
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut mark = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(said) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            mark = Some(said.to_owned());
        } else if let Some(language) = line.strip_prefix("```") {
            let text: String =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            blocks.push(Block { mark: mark.take(), language: language.to_owned(), text });
        }
    }
    blocks
}

/// The host of the page: its daemon, restarted with each change of its configuration.
struct Host<'a> {
    directory: &'a Path,
    address: SocketAddr,
    config: String,
    running: Option<(Child, Watcher)>,
}

impl Host<'_> {
    fn configure(&mut self, added: &str) {
        self.stop();
        self.config.push_str(added);
        let mut config = self.config.clone();
        config.push_str(&format!("log_file={}/nrpe.log\n", self.directory.display()));
        if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
            config.push_str("nrpe_user=nobody\nnrpe_group=nogroup\n");
        }
        let file = self.directory.join("nrpe.cfg");
        std::fs::write(&file, config).unwrap();
        // What the page's `chgrp nagios` does for Debian's user.
        for made in std::fs::read_dir(self.directory.join(MADE)).into_iter().flatten() {
            std::fs::set_permissions(made.unwrap().path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let mut command = Command::new(DAEMON);
        command.arg("-c").arg(&file).arg("-f").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.process_group(0).spawn().unwrap();
        let watcher = Watcher::over(child.id()).unwrap();
        self.running = Some((child, watcher));
        let listens = until(READY_WITHIN, || TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok());
        let log = || std::fs::read_to_string(self.directory.join("nrpe.log")).unwrap_or_default();
        assert!(listens, "the daemon does not listen on {}: {}", self.address, log());
    }

    fn stop(&mut self) {
        if let Some((mut child, _watcher)) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Commands of a console block and the output shown behind each.
fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), Vec::new()));
        } else if open {
            commands.last_mut().expect("a command is open").0.push_str(&format!("\n{line}"));
        } else {
            commands.last_mut().expect("a console block begins with a command").1.push(line.to_owned());
        }
        open = line.ends_with('\\');
    }
    commands
}

/// Runs a script; all it printed, and its exit code.
fn bash(script: &str, directory: &Path) -> (String, i32) {
    let programs = satellite();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.parent().expect("a directory").display());
    let output = Command::new("/bin/bash")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(directory)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code().unwrap_or(-1))
}

/// Whether the lines are those shown, `...` standing for any.
fn shown(expected: &[String], lines: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((any, rest)) if any == "..." => (0..=lines.len()).any(|skipped| shown(rest, &lines[skipped..])),
        Some((first, rest)) => lines.split_first().is_some_and(|(line, more)| line == first && shown(rest, more)),
    }
}

#[test]
fn every_command_of_the_page_prints_what_the_page_shows() {
    if !installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    // The port stays 5666, so the address is this test's own.
    let address = format!("127.83.{}.10", std::process::id() % 250 + 1);
    let made = directory.path().join(MADE).display().to_string();
    let filled = |text: &str| {
        text.replace(HOST, &address).replace(ASKING, "127.0.0.1").replace(ASKING_TOO, "127.0.0.9").replace(TLS, &made)
    };
    let socket: SocketAddr = format!("{address}:5666").parse().unwrap();
    let mut host = Host { directory: directory.path(), address: socket, config: String::new(), running: None };
    let (mut tried, mut last) = (0, 0);
    for block in blocks(&page::text()) {
        let text = filled(&block.text);
        match (block.mark.as_deref(), block.language.as_str()) {
            (Some("nrpe.cfg"), _) => {
                host.config.clear();
                host.configure(&text);
            }
            (Some("nrpe.cfg, added"), _) => host.configure(&text),
            (Some("the agent's nrpe.cfg"), _) => std::fs::write(directory.path().join("nrpe.cfg"), text).unwrap(),
            (Some(mark), _) => panic!("the mark {mark} means nothing"),
            (None, "sh") => {
                let (output, code) = bash(&format!("set -e\n{text}"), directory.path());
                assert_eq!(code, 0, "{text}\n{output}");
                tried += 1;
            }
            (None, "console") => {
                for (command, expected) in commands(&text) {
                    let (output, code) = bash(&format!("(exit {last})\n{command}"), directory.path());
                    last = code;
                    let lines: Vec<_> = output.lines().collect();
                    assert!(
                        shown(&expected, &lines),
                        "$ {command}\nprinted\n{output}\nwhere the page shows\n{expected:#?}"
                    );
                    tried += 1;
                }
            }
            _ => {}
        }
    }
    assert!(tried >= 15, "{tried} commands and scripts were found");
    figure(13, &format!("{tried} commands and scripts of the page run, each printing what the page shows"));
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let page = "<!-- nrpe.cfg -->\n```ini\na=1\n```\ntext\n```console\n$ b \\\n  c\nd\n...\n$ e\n```\n## G\n";
    let found = blocks(page);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[0].mark.as_deref(), found[0].text.as_str()), (Some("nrpe.cfg"), "a=1\n"));
    let read = commands(&found[1].text);
    assert_eq!(read[0], ("b \\\n  c".to_owned(), vec!["d".to_owned(), "...".to_owned()]));
    assert_eq!(read[1], ("e".to_owned(), Vec::new()));
    assert!(shown(&read[0].1, &["d"]) && shown(&read[0].1, &["d", "x", "y"]) && !shown(&read[0].1, &["x"]));
    assert!(!shown(&[], &["x"]));
}
