//! This process's settings: flags, environment, files; read once. What to monitor is configuration and lives elsewhere (`config`).

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

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
    /// Certificate chain for HTTPS, PEM; needed wherever --listen is no loopback address
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
    /// Begin a new installation in a data directory whose journal is lost; satellites will have to be given new certificates
    #[arg(long)]
    pub new_installation: bool,
}
