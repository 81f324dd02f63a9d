//! `perigee-satellite check-nrpe`: one check of one host, as Nagios and Icinga run it. Reads the words and the file of options,
//! asks once, prints, ends. What the words mean is in `options`, what is printed in `words`, what is logged in `log`.
//!
//! The surprise: the program is started for every check and forgets everything, so it pays a full TLS handshake each time. It is
//! here for installations that run check_nrpe today; Perigee's own checks are run inside the satellite.
#![expect(clippy::disallowed_methods, reason = "a shell room: it stamps the lines of its log")]

pub mod log;
pub mod options;
pub mod words;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::lookup_host;
use tokio::time::timeout;

use self::options::misuse::Misuse;
use self::options::{Family, MAX_FILE, Options};
use self::words::{Said, UNKNOWN};
use crate::probe::dial::OTHER_FAMILY;
use crate::probe::nrpe::Client;

/// The name under which this program takes check_nrpe's place when it is linked to it.
pub const NAME: &str = "check_nrpe";

/// Does what the words say and returns the exit code. `program` is what complaints about them begin with.
#[must_use]
pub fn run(program: &str, words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<Vec<u8>> = words.into_iter().map(OsString::into_vec).collect();
    let said = match gathered(program, &words) {
        Ok(options) => match options.teach {
            Some(what) => words::teach(what),
            None => asked(&options),
        },
        Err(misuse) => words::misuse(&misuse),
    };
    // Whoever does not listen any more still gets the exit code. The result first: Icinga reads both streams as one.
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(&said.stdout).and_then(|()| stdout.flush());
    let _ = io::stderr().write_all(said.stderr.as_bytes());
    ExitCode::from(said.code)
}

fn gathered(program: &str, words: &[Vec<u8>]) -> Result<Options, Misuse> {
    let options = options::parse(program, words)?;
    let options = match &options.file {
        None => options,
        Some(path) => {
            let text = read(path).map_err(|error| Misuse::new(&format!("-f {}: {error}", path.display())))?;
            options.with_file(&text)?
        }
    };
    options.checked()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is longer than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// Asks, and adds to the answer what goes beside it.
fn asked(options: &Options) -> Said {
    let mut log = Log::open(options);
    log.write(&log::settings(options));
    let mut said = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let said = runtime.block_on(ask(options, &mut log));
            // A name service that hangs must not keep a program whose time is over.
            runtime.shutdown_background();
            said
        }
        Err(error) => Said::line(UNKNOWN, &format!("CHECK_NRPE: Error - the runtime cannot be started: {error}")),
    };
    let mut remarks = options.remarks.clone();
    remarks.extend(log.trouble);
    said.stderr.insert_str(0, &remarks.iter().map(|remark| format!("{remark}\n")).collect::<String>());
    if options.errors_to_stdout { said.on_one_stream() } else { said }
}

async fn ask(options: &Options, log: &mut Log) -> Said {
    let source = match &options.bind {
        None => None,
        Some(bind) => match address_of(bind, options.family, options.limit()).await {
            Ok(source) => Some(source),
            Err(reason) => {
                log.write(&[format!("bind-failed: {}: {bind}: {reason}", log::subject(options))]);
                return words::unbound(options, bind, &reason);
            }
        },
    };
    let client = Client::for_one_check();
    let query = options.query(source);
    match client.ask(&query, options.limit()).await {
        Ok(reply) => {
            log.write(&log::answered(options, &reply));
            words::answer(&reply.answer)
        }
        Err(fault) => {
            log.write(&log::failed(options, &fault));
            let mut said = words::fault(&fault, options);
            if options.explain || io::stderr().is_terminal() {
                said.stderr.push_str(&words::explanation(&fault, &query));
            }
            said
        }
    }
}

/// The address that `-b` means: one, or the first of a name's.
async fn address_of(bind: &str, family: Option<Family>, limit: Duration) -> Result<IpAddr, String> {
    if let Ok(address) = bind.parse() {
        return Ok(address);
    }
    let wanted = |address: &IpAddr| match family {
        None => true,
        Some(Family::V4) => address.is_ipv4(),
        Some(Family::V6) => address.is_ipv6(),
    };
    match timeout(limit, lookup_host((bind, 0))).await {
        Ok(Ok(mut found)) => {
            let found = found.find_map(|found| Some(found.ip()).filter(wanted));
            found.ok_or_else(|| OTHER_FAMILY.to_owned())
        }
        Ok(Err(error)) => {
            // The C library's sentence; the standard library puts its own in front.
            let text = error.to_string();
            Err(text.rsplit_once(": ").map_or(text.as_str(), |(_, reason)| reason).to_owned())
        }
        Err(_) => Err("no answer from the name service".to_owned()),
    }
}

/// The file of `-g`.
struct Log {
    file: Option<File>,
    trouble: Option<String>,
}

impl Log {
    fn open(options: &Options) -> Self {
        let Some(path) = &options.log else { return Self { file: None, trouble: None } };
        match OpenOptions::new().create(true).append(true).open(path) {
            Ok(file) => Self { file: Some(file), trouble: None },
            Err(error) => {
                let trouble = format!("Warning: Cannot open log file '{}' for writing: {error}", path.display());
                Self { file: None, trouble: Some(trouble) }
            }
        }
    }

    /// Adds lines, stamped with the seconds since 1970 as check_nrpe stamps its own.
    fn write(&mut self, lines: &[String]) {
        let Some(file) = &mut self.file else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text: String = lines.iter().map(|line| format!("[{now}] {line}\n")).collect();
        // One write, so that checks that run at once do not mix their lines.
        if let Err(error) = file.write_all(text.as_bytes()) {
            self.trouble = Some(format!("Warning: Cannot write the log file: {error}"));
            self.file = None;
        }
    }
}
