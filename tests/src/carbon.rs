//! Real Graphite for tests: carbon-cache and graphite-web's render API, from Debian's packages, in a temporary directory.
//!
//! Knows nothing of Perigee; it takes lines on a socket and gives points back. Each instance has a loopback address of its
//! own, so that ports never clash and survive a restart. The surprise: the servers watch their standard input and end with
//! the test process, however that ends.
#![expect(clippy::disallowed_methods, reason = "a shell: it starts processes and waits for them")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::missing::missing;

const CARBON: &str = "/usr/bin/carbon-cache";
/// Debian's graphite-web works with Debian's Python only, whatever else is on the path.
const PYTHON: &str = "/usr/bin/python3";
const GRAPHITE_WEB: &str = "/usr/lib/python3/dist-packages/graphite/wsgi.py";

const LINE_PORT: u16 = 2003;
const QUERY_PORT: u16 = 7002;
const WEB_PORT: u16 = 8080;

/// A server that does not answer by then has failed.
const READY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Answers of the render API beyond this are refused.
const ANSWER_LIMIT: u64 = 256 * 1024 * 1024;

/// Points by series and second.
pub type Series = BTreeMap<String, BTreeMap<i64, f64>>;

/// How carbon is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Retention of every series, as in `storage-schemas.conf`.
    pub retentions: String,
    /// How many files carbon may write in a second; few means that much stays in memory, where a kill finds it.
    pub updates_per_second: Option<u32>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { retentions: "1s:1h".to_owned(), updates_per_second: None }
    }
}

/// A running Graphite. All of it ends with the value.
pub struct Carbon {
    address: Ipv4Addr,
    cache: Option<Server>,
    _web: Server,
    directory: TempDir,
}

impl Carbon {
    /// Starts Graphite with one-second steps; none if it is not installed, which is told loudly (`missing`).
    ///
    /// # Errors
    /// It is installed but does not come up; the error holds the end of its log.
    pub fn start() -> anyhow::Result<Option<Self>> {
        Self::start_with(&Setup::default())
    }

    /// As [`Carbon::start`], set up otherwise.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(setup: &Setup) -> anyhow::Result<Option<Self>> {
        for (file, package) in [(CARBON, "graphite-carbon"), (GRAPHITE_WEB, "graphite-web")] {
            if !Path::new(file).exists() {
                missing(file, package);
                return Ok(None);
            }
        }
        let directory = tempfile::Builder::new().prefix("perigee-carbon-").tempdir()?;
        let address = own_loopback_address();
        write_configuration(directory.path(), address, setup)?;
        let cache = start_cache(directory.path(), address)?;
        let mut web = Command::new(PYTHON);
        web.arg(directory.path().join("launch.py"))
            .arg(directory.path().join("serve.py"))
            .args([address.to_string(), WEB_PORT.to_string()])
            .env("PYTHONPATH", directory.path())
            .env("PYTHONWARNINGS", "ignore")
            .env("GRAPHITE_SETTINGS_MODULE", "test_settings")
            .env("DJANGO_SETTINGS_MODULE", "graphite.settings");
        let web = Server::start("graphite-web", &mut web, directory.path())?;
        let carbon = Self { address, cache: Some(cache), _web: web, directory };
        // The only path asked: it needs no database, whose making would cost seconds.
        carbon.until("render answers", || carbon.render("*", 1, 2).map(|_| ()))?;
        Ok(Some(carbon))
    }

    /// Where carbon takes plaintext lines, as `host:port`; stays the same over restarts.
    #[must_use]
    pub fn line_address(&self) -> String {
        SocketAddr::from((self.address, LINE_PORT)).to_string()
    }

    /// Carbon's directory of whisper files.
    #[must_use]
    pub fn whisper(&self) -> PathBuf {
        self.directory.path().join("whisper")
    }

    /// SIGKILL to carbon: whatever it held in memory is gone. The render API stays.
    pub fn kill(&mut self) {
        self.cache = None;
    }

    /// SIGTERM to carbon, as a supervisor stops it, and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        match self.cache.take() {
            Some(server) => server.terminate(),
            None => Ok(()),
        }
    }

    /// Starts carbon again on the same data and address, killing it first if it still runs.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.cache = Some(start_cache(self.directory.path(), self.address)?);
        Ok(())
    }

    /// Every point the render API gives for a target from one second to another, both included. Steps without a point
    /// and series without any are left out.
    ///
    /// # Errors
    /// The API does not answer, or not as it should.
    pub fn render(&self, target: &str, from: i64, until: i64) -> anyhow::Result<Series> {
        // Graphite leaves the first second out.
        let path =
            format!("/render?format=json&from={}&until={}&target={}", from - 1, until + 1, percent_encoded(target));
        let answer: Vec<Rendered> =
            serde_json::from_slice(&self.get(&path)?).context("reading the answer of render")?;
        let mut series = Series::new();
        for rendered in answer {
            let points: BTreeMap<i64, f64> = rendered
                .datapoints
                .into_iter()
                .filter_map(|(value, second)| value.map(|value| (second, value)))
                .filter(|(second, _)| (from..=until).contains(second))
                .collect();
            if !points.is_empty() {
                series.insert(rendered.target, points);
            }
        }
        Ok(series)
    }

    /// Waits until the target's points are exactly the expected ones, which must not be empty.
    ///
    /// # Errors
    /// They are not by the deadline; the error names the first differences.
    pub fn render_until_equal(&self, target: &str, expected: &Series, within: Duration) -> anyhow::Result<()> {
        let seconds = || expected.values().flat_map(BTreeMap::keys);
        let (Some(from), Some(until)) = (seconds().min(), seconds().max()) else { bail!("nothing to compare") };
        let deadline = Instant::now() + within;
        loop {
            // An error may pass: graphite-web can come upon a file that carbon has only begun.
            let found = self.render(target, *from, *until);
            if found.as_ref().is_ok_and(|found| found == expected) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{target} is not what was sent:\n{}", differences(&found?, expected));
            }
            std::thread::sleep(POLL * 4);
        }
    }

    fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut stream = TcpStream::connect((self.address, WEB_PORT))?;
        stream.set_read_timeout(Some(READY))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("an HTTP answer without a head")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {head}");
        Ok(answer.split_off(end + 4))
    }

    fn until(&self, what: &str, mut ready: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            match ready() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(
                        error.context(format!("{what}: not within {READY:?}\n{}", last_words(self.directory.path())))
                    );
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Rendered {
    target: String,
    datapoints: Vec<(Option<f64>, i64)>,
}

/// The first differences between two sets of points, in words.
#[must_use]
pub fn differences(found: &Series, expected: &Series) -> String {
    const SHOWN: usize = 20;
    let mut lines = Vec::new();
    let none = BTreeMap::new();
    for name in expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name))) {
        let (found, expected) = (found.get(name).unwrap_or(&none), expected.get(name).unwrap_or(&none));
        for second in expected.keys().chain(found.keys().filter(|second| !expected.contains_key(second))) {
            let (found, expected) = (found.get(second), expected.get(second));
            if found != expected {
                lines.push(format!("{name} at {second}: expected {expected:?}, found {found:?}"));
            }
        }
    }
    let count = lines.len();
    lines.truncate(SHOWN);
    format!("{count} differences\n{}", lines.join("\n"))
}

/// A process of its own group, killed with its value.
struct Server {
    name: &'static str,
    child: Child,
}

impl Server {
    fn start(name: &'static str, command: &mut Command, directory: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(directory.join(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child })
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let group = format!("-{}", self.child.id());
        let status = Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "kill {signal} {} failed", self.name);
        Ok(())
    }

    fn terminate(mut self) -> anyhow::Result<()> {
        self.signal("-TERM")?;
        let deadline = Instant::now() + READY;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "{} did not end within {READY:?} of SIGTERM", self.name);
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Both: the group may be gone while the child is not yet waited for.
        let _ = self.signal("-KILL");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address in 127.64.0.0/10 that no other instance of this or another process has.
fn own_loopback_address() -> Ipv4Addr {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let unique = (std::process::id() << 5) | (STARTED.fetch_add(1, Ordering::Relaxed) & 31);
    let [_, high, middle, low] = unique.to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), middle, low)
}

fn start_cache(directory: &Path, address: Ipv4Addr) -> anyhow::Result<Server> {
    let mut command = Command::new(PYTHON);
    command
        .arg(directory.join("launch.py"))
        .arg(CARBON)
        .arg(format!("--config={}", directory.join("carbon.conf").display()))
        .arg(format!("--pidfile={}", directory.join("carbon.pid").display()))
        .arg(format!("--logdir={}", directory.display()))
        .args(["--instance=a", "--nodaemon", "start"]);
    // A killed carbon leaves its file behind and would refuse to start.
    let _ = std::fs::remove_file(directory.join("carbon.pid"));
    let mut server = Server::start("carbon-cache", &mut command, directory)?;
    let deadline = Instant::now() + READY;
    for port in [LINE_PORT, QUERY_PORT] {
        while TcpStream::connect((address, port)).is_err() {
            let ended = server.child.try_wait()?.is_some();
            ensure!(
                !ended && Instant::now() < deadline,
                "carbon does not listen on {address}:{port}\n{}",
                last_words(directory)
            );
            std::thread::sleep(POLL);
        }
    }
    Ok(server)
}

fn last_words(directory: &Path) -> String {
    let mut words = String::new();
    for log in ["carbon-cache.log", "graphite-web.log"] {
        let text = std::fs::read(directory.join(log)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned();
        let _ = writeln!(words, "--- {log}\n{text}");
    }
    words
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"._-*".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

fn write_configuration(directory: &Path, address: Ipv4Addr, setup: &Setup) -> anyhow::Result<()> {
    let root = directory.display();
    let updates = setup.updates_per_second.map_or("inf".to_owned(), |limit| limit.to_string());
    let retentions = &setup.retentions;
    std::fs::create_dir_all(directory.join("whisper"))?;
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text);
    // Debian's carbon creates only 50 series a minute; tags would ask a web server for every new series.
    write(
        "carbon.conf",
        format!(
            "[cache]\nSTORAGE_DIR = {root}\nCONF_DIR = {root}\nLOG_DIR = {root}\nPID_DIR = {root}\nLOCAL_DATA_DIR = {root}/whisper\n\
             DATABASE = whisper\nUSER =\nMAX_CACHE_SIZE = inf\nUSE_FLOW_CONTROL = True\nMAX_UPDATES_PER_SECOND = {updates}\n\
             MAX_CREATES_PER_MINUTE = inf\nMIN_TIMESTAMP_RESOLUTION = 1\nLINE_RECEIVER_INTERFACE = {address}\n\
             LINE_RECEIVER_PORT = {LINE_PORT}\nPICKLE_RECEIVER_PORT = 0\nENABLE_UDP_LISTENER = False\n\
             CACHE_QUERY_INTERFACE = {address}\nCACHE_QUERY_PORT = {QUERY_PORT}\nCACHE_WRITE_STRATEGY = sorted\n\
             LOG_UPDATES = False\nLOG_CREATES = False\nENABLE_TAGS = False\nCARBON_METRIC_INTERVAL = 0\n"
        ),
    )?;
    write("storage-schemas.conf", format!("[all]\npattern = .*\nretentions = {retentions}\n"))?;
    write("storage-aggregation.conf", "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = last\n".to_owned())?;
    // Without the two delays graphite-web would not ask a restarted carbon again for a quarter of a minute.
    write(
        "test_settings.py",
        format!(
            "SECRET_KEY = 'loopback-test-only'\nTIME_ZONE = 'UTC'\nALLOWED_HOSTS = ['*']\n\
             GRAPHITE_ROOT = '/usr/share/graphite-web'\nCONF_DIR = '{root}'\nSTORAGE_DIR = '{root}'\n\
             STATIC_ROOT = '/usr/share/graphite-web/static'\nLOG_DIR = '{root}'\nINDEX_FILE = '{root}/index'\n\
             WHISPER_DIR = '{root}/whisper'\nSTANDARD_DIRS = ['{root}/whisper']\n\
             CARBONLINK_HOSTS = ['{address}:{QUERY_PORT}:a']\nCARBONLINK_RETRY_DELAY = 0\nREMOTE_RETRY_DELAY = 0\n\
             FIND_CACHE_DURATION = 0\nDEFAULT_CACHE_DURATION = 0\nDEFAULT_XFILES_FACTOR = 0\nFUNCTION_PLUGINS = []\n\
             DATABASES = {{'default': {{'NAME': '{root}/graphite.db', 'ENGINE': 'django.db.backends.sqlite3'}}}}\n"
        ),
    )?;
    write(
        "launch.py",
        "import os, runpy, sys, threading\n\
         def end_with_the_test():\n    sys.stdin.buffer.read()\n    os._exit(0)\n\
         threading.Thread(target=end_with_the_test, daemon=True).start()\n\
         sys.argv = sys.argv[1:]\nsys.path[0] = os.path.dirname(sys.argv[0])\n\
         runpy.run_path(sys.argv[0], run_name='__main__')\n"
            .to_owned(),
    )?;
    write(
        "serve.py",
        "import sys\nfrom socketserver import ThreadingMixIn\n\
         from wsgiref.simple_server import make_server, WSGIServer, WSGIRequestHandler\nimport graphite.wsgi\n\
         class Threaded(ThreadingMixIn, WSGIServer):\n    daemon_threads = True\n\
         class Quiet(WSGIRequestHandler):\n    def log_message(self, *words):\n        pass\n\
         make_server(sys.argv[1], int(sys.argv[2]), graphite.wsgi.application, Threaded, Quiet).serve_forever()\n"
            .to_owned(),
    )?;
    Ok(())
}
