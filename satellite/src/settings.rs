//! What this process is told at its start: flags and environment, parsed once. Decides nothing else; knows no file's content.
//! What is monitored is not among it: that comes from the master.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use shared::name::{RegionName, SlotNumber};
use shared::time::{Interval, IntervalError};

use crate::command::Limits;
use crate::discover;
use crate::link::tls::Congestion;

const TEACHING: &str = "\
A satellite runs the checks that its master gives to its slot of a region, and
delivers the results. It needs two things: a directory that survives a restart
(--data), and a certificate for its slot, made on the master's machine. This
writes slot.crt, slot.key and ca.crt, and then starts the satellite:

  perigee-master certificate --region eu --slot 1 --out DIR
  perigee-satellite run --master perigee.example.net:7443 --identity DIR

Start it before or after its master: it waits, and says what for. Without the
master it goes on checking what it was given and keeps the results on its
volume. `perigee-satellite status` shows what it is doing.

Exit codes: 0 good; 1 failed, the last line says why; 2 wrong use or wrong
certificate; 3 no satellite runs there (status).";

const CHECKING: &str = "\
Looks at this machine or container and prints what a plugin would: a line of
text, performance data behind `|`; the exit code is the state: 0 OK, 1 WARNING,
2 CRITICAL, 3 UNKNOWN (also for wrong options). No shell, no scripts, no other
programs to install.

  perigee-satellite check --list                which there are
  perigee-satellite check help disk             all options of one
  perigee-satellite check load -r -w 1.5,1.2,1 -c 3,2.5,2
  perigee-satellite check disk -w 10% -c 5% -p / -p /var

Thresholds are ranges of the Monitoring Plugins: `10` (not above), `10:` (not
below), `5:10`, `@5:10` (not inside); a bare number of something free is the
least that must be left. Without thresholds a check only reports.";

const ANSWERING: &str = "\
A drop-in for the nrpe daemon 4.1: it reads the same nrpe.cfg (all keys of nrpe,
include, include_dir, TLS), listens on the same port, answers packets of
versions 2, 3 and 4, and refuses what nrpe refuses, in the same way.

  perigee-satellite agent --config /etc/nagios/nrpe.cfg --check
          names every mistake with file and line; exit code 2 if any
  perigee-satellite agent --config /etc/nagios/nrpe.cfg
          serves in the foreground, logs to standard error or log_file
  perigee-satellite agent
          serves built-in checks on 127.0.0.1:5666 to this machine

Beside commands for a shell, a line may name a built-in check, which needs no
shell and no plugin (`perigee-satellite check --list`):

  command[check_load]=@load -r -w 1.5,1.2,1 -c 3,2.5,2

Started as root it becomes nrpe_user and nrpe_group (or --user, --group) and
refuses to serve as root unless `--user root` says so. SIGHUP reads the
configuration again; one with mistakes is refused, and the one before stays in
use. SIGTERM ends. Arguments of clients (dont_blame_nrpe=1) work, and
allow_bash_command_substitution=1 is refused. There is no TCP wrapper
(hosts.allow) and no syslog.

Exit codes: 0 ended or no mistake; 1 failed, the last line says why; 2 wrong use
or mistakes in the configuration.";

/// Where plugins are: as Debian has them, as everybody has who builds Monitoring Plugins, and as a satellite's image has them.
const USUAL_PLUGINS: [&str; 3] = ["/usr/lib/nagios/plugins", "/usr/local/lib/nagios/plugins", "/plugins"];

/// Perigee's satellite: runs checks near the hosts and delivers their results.
#[derive(Debug, Parser)]
#[command(name = "perigee-satellite", version, after_help = TEACHING)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Check and deliver until told to stop (SIGTERM, SIGINT).
    #[command(after_help = TEACHING)]
    Run(Run),
    /// Show what the satellite on this machine is doing.
    Status(Status),
    /// Run one built-in check, by hand or as a plugin of Nagios, Icinga or NRPE.
    #[command(after_help = CHECKING)]
    Check(Check),
    /// Answer NRPE, as the nrpe daemon does, with the same nrpe.cfg.
    #[command(after_help = ANSWERING)]
    Agent(Agent),
    /// Look for daemons in a network and propose a configuration.
    #[command(subcommand)]
    Discover(discover::What),
    /// Ask one NRPE daemon once, with the options, texts and exit codes of check_nrpe (`check-nrpe -h` shows them).
    #[command(disable_help_flag = true, disable_version_flag = true)]
    CheckNrpe(CheckNrpe),
}

/// The words of check_nrpe, untouched: its getopt reads them in ways that no parser of ours does.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckNrpe {
    /// Options of check_nrpe.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub words: Vec<OsString>,
}

/// Settings of a running satellite.
#[derive(Debug, Clone, clap::Args)]
pub struct Run {
    /// Address of the master's link port; several, separated by commas, are tried in turn.
    #[arg(long, env = "PERIGEE_MASTER", value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    pub master: Vec<String>,
    /// Directory for assignment and results; survives restarts, one volume per slot.
    #[arg(long, env = "PERIGEE_DATA", value_name = "DIR", default_value = "/var/lib/perigee-satellite")]
    pub data: PathBuf,
    /// Directory with slot.crt, slot.key and ca.crt [default: identity/ in the data directory].
    #[arg(long, env = "PERIGEE_IDENTITY", value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// Region this satellite is meant for; must be the certificate's.
    #[arg(long, env = "PERIGEE_REGION", value_name = "REGION")]
    pub region: Option<RegionName>,
    /// Slot of the region this satellite is meant for; must be the certificate's.
    #[arg(long, env = "PERIGEE_SLOT", value_name = "N")]
    pub slot: Option<SlotNumber>,
    /// Directories in which a plugin that a check names without one is looked for; the first that has it counts.
    #[arg(long, env = "PERIGEE_PLUGINS", value_name = "DIR:DIR", value_delimiter = ':', default_values = USUAL_PLUGINS)]
    pub plugins: Vec<PathBuf>,
    /// How much the road to the master carries is found out by losses (new-reno, cubic) or by what arrives (bbr).
    #[arg(long, env = "PERIGEE_CONGESTION", value_name = "WAY", value_enum, default_value_t)]
    pub congestion: Congestion,
    /// Bytes that undelivered results may take on the volume (4MiB to 1TiB); beyond, the oldest go and a gap names them.
    #[arg(long, env = "PERIGEE_SPOOL_BYTES", value_name = "SIZE", default_value = "1GiB", value_parser = spool_bytes)]
    pub spool_bytes: u64,
    /// How long undelivered results are kept (1m to 31d, by the master's clock); beyond, they go and a gap names them.
    #[arg(long, env = "PERIGEE_SPOOL_AGE", value_name = "TIME", default_value = "7d", value_parser = spool_age)]
    pub spool_age: Duration,
    /// How long delivered results stay on the volume (0s to 1d; 64MiB or an eighth of the spool at most): a master that loses them gets
    /// them again.
    #[arg(long, env = "PERIGEE_SPOOL_GRACE", value_name = "TIME", default_value = "15m", value_parser = spool_grace)]
    pub spool_grace: Duration,
    /// Bytes of results held in memory while the volume cannot be written (1MiB to 4GiB); beyond, the oldest go.
    #[arg(long, env = "PERIGEE_SPOOL_MEMORY", value_name = "SIZE", default_value = "64MiB", value_parser = spool_memory)]
    pub spool_memory: u64,
    /// What is logged to standard error: a level, or levels by target as in `info,perigee::ack=debug`.
    #[arg(long, env = "PERIGEE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

impl Run {
    /// Where the certificate lies.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.identity.clone().unwrap_or_else(|| self.data.join("identity"))
    }

    /// What the spool may use.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let memory = usize::try_from(self.spool_memory).unwrap_or(usize::MAX);
        Limits { bytes: self.spool_bytes, age: self.spool_age, memory, grace: self.spool_grace }
    }
}

/// Bytes out of `512MiB`, `1GiB` or a bare number, within bounds.
fn bytes(text: &str, least: u64, most: u64) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
    let (number, unit) =
        UNITS.into_iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim(), unit))).unwrap_or((text, 1));
    let number: Option<u64> = number.parse().ok();
    let bytes =
        number.and_then(|number| number.checked_mul(unit)).ok_or("a size is a number with KiB, MiB, GiB or TiB")?;
    let shown = |bytes: u64| {
        UNITS.iter().find(|(_, unit)| bytes >= *unit).map(|(name, unit)| format!("{}{name}", bytes / unit))
    };
    if (least..=most).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("allowed is {} to {}", shown(least).unwrap_or_default(), shown(most).unwrap_or_default()))
    }
}

/// An eighth of it is a segment, which must hold the largest batch.
fn spool_bytes(text: &str) -> Result<u64, String> {
    bytes(text, 4 << 20, 1 << 40)
}

fn spool_memory(text: &str) -> Result<u64, String> {
    bytes(text, 1 << 20, 4 << 30)
}

/// Never longer than the master remembers the names of runs.
fn spool_age(text: &str) -> Result<Duration, String> {
    let Interval(age) = text.parse().map_err(|error: IntervalError| error.to_string())?;
    if (Duration::from_secs(60)..=Duration::from_secs(31 * 24 * 3600)).contains(&age) {
        Ok(age)
    } else {
        Err("allowed is 1m to 31d: longer than that no master remembers what it has had".to_owned())
    }
}

/// A day of what is delivered is more than any backup is old that is made as it should be.
fn spool_grace(text: &str) -> Result<Duration, String> {
    if text == "0s" {
        return Ok(Duration::ZERO);
    }
    let Interval(grace) = text.parse().map_err(|error: IntervalError| error.to_string())?;
    if grace <= Duration::from_secs(24 * 3600) { Ok(grace) } else { Err("allowed is 0s to 1d".to_owned()) }
}

/// What to show.
#[derive(Debug, Clone, clap::Args)]
pub struct Status {
    /// The satellite's data directory.
    #[arg(long, env = "PERIGEE_DATA", value_name = "DIR", default_value = "/var/lib/perigee-satellite")]
    pub data: PathBuf,
    /// As JSON, one object per living process.
    #[arg(long)]
    pub json: bool,
}

/// Which built-in check to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Check {
    /// List the built-in checks.
    #[arg(long, exclusive = true)]
    pub list: bool,
    /// Seconds after which the answer is UNKNOWN.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Name of the check, then its own options.
    #[arg(
        required_unless_present = "list",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "NAME [OPTIONS]"
    )]
    pub words: Vec<String>,
}

/// How to answer NRPE.
#[derive(Debug, Clone, clap::Args)]
pub struct Agent {
    /// Configuration in the form of nrpe.cfg [default: built-in checks, for this machine only].
    #[arg(long, short, env = "PERIGEE_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read the configuration and its certificates, say what is wrong with them, and end.
    #[arg(long)]
    pub check: bool,
    /// Packets without TLS, as `nrpe -n`.
    #[arg(long, visible_alias = "no-ssl", short = 'n')]
    pub no_tls: bool,
    /// Serve the one connection that standard input is, as inetd and xinetd start it; allowed_hosts is theirs to check.
    #[arg(long, short, conflicts_with = "check")]
    pub inetd: bool,
    /// Port to listen on; goes over server_port.
    #[arg(long, short, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// User to become when started as root; goes over nrpe_user.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Group to become; goes over nrpe_group [default: the user's].
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// What is logged: a level, or levels by target [default: info, or debug with debug=1].
    #[arg(long, env = "PERIGEE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// The process was told something that cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_page_of_help_fits_a_terminal_of_80_columns() {
        fn pages(command: &clap::Command) -> Vec<String> {
            let own = command.get_after_help().map(ToString::to_string);
            own.into_iter().chain(command.get_subcommands().flat_map(pages)).collect()
        }
        let pages = pages(&Arguments::command());
        assert!(pages.len() >= 5, "{pages:?}");
        for line in pages.iter().flat_map(|page| page.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn everything_behind_the_name_of_a_check_is_its_own() {
        let check = |words: &[&str]| {
            let words = ["perigee-satellite", "check"].iter().chain(words);
            let parsed = Arguments::try_parse_from(words)?;
            let Action::Check(check) = parsed.action else { panic!("not check") };
            Ok::<_, clap::Error>((check.list, check.timeout, check.words.join(" ")))
        };
        assert_eq!(check(&["--list"]).unwrap(), (true, 10, String::new()));
        assert_eq!(check(&["load", "-w", "5", "--help"]).unwrap(), (false, 10, "load -w 5 --help".to_owned()));
        let both = check(&["--timeout", "3", "disk", "--timeout", "4", "--", "-x"]).unwrap();
        assert_eq!(both, (false, 3, "disk --timeout 4 -- -x".to_owned()));
        assert!(check(&[]).is_err());
        assert!(check(&["--timeout", "0", "load"]).is_err());
    }

    #[test]
    fn words_of_check_nrpe_come_through_as_they_are() {
        let words = ["-H", "h", "--version", "-t10:3", "-2", "--help", "--", "-a", "-w", "--", "x"];
        let line = ["perigee-satellite", "check-nrpe"].into_iter().chain(words);
        let Action::CheckNrpe(given) = Arguments::try_parse_from(line).unwrap().action else {
            panic!("not check-nrpe")
        };
        assert_eq!(given.words, words);
        let none = Arguments::try_parse_from(["perigee-satellite", "check-nrpe"]).unwrap();
        assert!(matches!(none.action, Action::CheckNrpe(CheckNrpe { words }) if words.is_empty()));
    }

    #[test]
    fn an_agent_is_told_as_nrpe_is() {
        let agent = |words: &[&str]| {
            let words = ["perigee-satellite", "agent"].iter().chain(words);
            let Action::Agent(agent) = Arguments::try_parse_from(words)?.action else { panic!("not agent") };
            Ok::<_, clap::Error>(agent)
        };
        let short = agent(&["-c", "/etc/nagios/nrpe.cfg", "-n", "-i"]).unwrap();
        assert_eq!(short.config.as_deref(), Some(std::path::Path::new("/etc/nagios/nrpe.cfg")));
        assert!(short.no_tls && short.inetd && !short.check);
        assert!(agent(&["--check", "--inetd"]).is_err());
    }

    #[test]
    fn slots_and_regions_are_checked_at_the_door() {
        let run = |slot| Arguments::try_parse_from(["perigee-satellite", "run", "--master", "m:7443", "--slot", slot]);
        assert!(run("2").is_ok());
        assert!(run("0").is_err());
        let run = run("2").unwrap();
        let Action::Run(run) = run.action else { panic!("not run") };
        assert_eq!(run.identity(), run.data.join("identity"));
    }

    #[test]
    fn the_spool_is_bounded_as_it_is_told() {
        let run = |more: &[&str]| {
            let words = ["perigee-satellite", "run", "--master", "m:7443"].iter().chain(more);
            let Action::Run(run) = Arguments::try_parse_from(words).map_err(|error| error.to_string())?.action else {
                panic!("not run")
            };
            Ok::<_, String>(run.limits())
        };
        assert_eq!(run(&[]), Ok(Limits::DEFAULT));
        let told = ["--spool-bytes", "8MiB", "--spool-age", "31d", "--spool-memory", "1048576", "--spool-grace", "2m"];
        let (age, grace) = (Duration::from_secs(31 * 24 * 3600), Duration::from_secs(120));
        let limits = Limits { bytes: 8 << 20, age, memory: 1 << 20, grace };
        assert_eq!(run(&told), Ok(limits));
        for (option, wrong, said) in [
            ("--spool-bytes", "3MiB", "allowed is 4MiB to 1TiB"),
            ("--spool-bytes", "8MB", "KiB, MiB"),
            ("--spool-bytes", "99999999999999999999GiB", "KiB, MiB"),
            ("--spool-age", "32d", "1m to 31d"),
            ("--spool-age", "59s", "1m to 31d"),
            ("--spool-age", "7", "number with a unit"),
            ("--spool-memory", "0", "allowed is 1MiB to 4GiB"),
            ("--spool-grace", "25h", "allowed is 0s to 1d"),
        ] {
            let error = run(&[option, wrong]).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn plugins_are_looked_for_where_it_is_told() {
        let run = |more: &[&str]| {
            let words = ["perigee-satellite", "run", "--master", "m:7443"].iter().chain(more);
            let Action::Run(run) = Arguments::try_parse_from(words).unwrap().action else { panic!("not run") };
            run.plugins
        };
        assert_eq!(run(&[]), USUAL_PLUGINS.map(PathBuf::from));
        assert_eq!(run(&["--plugins", "/a:/b/c"]), ["/a", "/b/c"].map(PathBuf::from));
    }
}
