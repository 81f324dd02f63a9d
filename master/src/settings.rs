//! This process's settings: flags, environment, files; read once. What to monitor is configuration and lives elsewhere (`config`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use shared::time::Interval;

/// Runs the master: takes configuration, state and results together, and shows them.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
At its first start the master makes its CA, its journal and its first
generation from --config. Later starts resume the running generation;
`perigee-master apply` or SIGHUP takes changed files in.

Example:
  perigee-master serve --config /etc/perigee --data /var/lib/perigee
  perigee-master certificate --region eu --slot 1 --out ./eu-1 \\
    --data /var/lib/perigee")]
pub struct Settings {
    /// File or directory with the configuration (*.yaml); read at the first start, on `apply` and on SIGHUP
    #[arg(long, value_name = "PATH", env = "PERIGEE_CONFIG")]
    pub config: PathBuf,
    /// Directory that holds everything this master keeps; one master at a time
    #[arg(long, value_name = "DIR", env = "PERIGEE_DATA")]
    pub data: PathBuf,
    /// Where satellites connect, UDP
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:7443")]
    pub link: SocketAddr,
    /// Where the page and the API are served; plain HTTP on a loopback address only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Certificate chain for HTTPS, PEM; needed wherever --listen is no loopback address. Read at the start only: restart the master
    /// when it was renewed
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM, readable by the owner alone
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Let anybody on this machine read without a token (loopback listener only)
    #[arg(long)]
    pub open_reads: bool,
    /// CA certificate given from outside, PEM, for example a Docker secret; otherwise the master makes its own
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub ca_certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "ca_certificate")]
    pub ca_key: Option<PathBuf>,
    /// Journal kept for writers that cannot keep up, in bytes (KiB, MiB, GiB): beyond it they are overrun, which becomes a gap. What
    /// state and history need is kept whatever its size
    #[arg(long, value_name = "SIZE", env = "PERIGEE_JOURNAL_BYTES", default_value = "4GiB", value_parser = size)]
    pub journal_bytes: u64,
    /// The same by age (s, m, h, d)
    #[arg(long, value_name = "DURATION", env = "PERIGEE_JOURNAL_AGE", default_value = "24h", value_parser = age)]
    pub journal_age: Duration,
    /// Begin a new installation in a data directory whose journal is lost; satellites will have to be given new certificates
    #[arg(long)]
    pub new_installation: bool,
}

/// Least bound of the journal: two segments, the one being written and the one before it.
const JOURNAL_BYTES_LEAST: u64 = 2 * seglog::MAX_SEGMENT_BYTES;
/// Least age: ages are noted every ten minutes.
const JOURNAL_AGE_LEAST: Duration = Duration::from_secs(600);

fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let unit = UNITS.into_iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, bytes)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let bytes = bytes.ok_or("a size is a whole number, as in 4GiB or 512MiB")?;
    if bytes < JOURNAL_BYTES_LEAST {
        return Err(format!("less than {} MiB cannot be kept: segments have 64", JOURNAL_BYTES_LEAST >> 20));
    }
    Ok(bytes)
}

fn age(text: &str) -> Result<Duration, String> {
    let age = text.parse::<Interval>().map_err(|error| error.to_string())?.0;
    if age < JOURNAL_AGE_LEAST {
        return Err("less than 10m cannot be told: ages are noted that often".to_owned());
    }
    Ok(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_the_journal_are_read_with_their_units() {
        assert_eq!(size("4GiB"), Ok(4 << 30));
        assert_eq!(size("134217728"), Ok(JOURNAL_BYTES_LEAST));
        assert_eq!(size("200 MiB"), Ok(200 << 20));
        for wrong in ["", "GiB", "-1GiB", "1.5GiB", "4GB", "64MiB", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(age("36h"), Ok(Duration::from_secs(36 * 3600)));
        assert!(age("5m").is_err() && age("soon").is_err());
    }
}
