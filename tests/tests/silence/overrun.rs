//! A metrics store that is away while the journal grows beyond what it keeps for writers: the writer is overrun, which is a gap of its
//! own on every face, and goes on behind it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tests::browser;
use tests::fakes::Fakes;
use tests::fleet::{Fleet, free_tcp};
use tests::http::Client;
use tests::samples::{page as page_of, samples};

use crate::scene::{PATIENCE, daemon, page, said, words};

const SERVICES: usize = 40;
/// About what a result holds: long texts fill a journal soonest.
const BYTES: usize = 40_000;
/// The least that may be set.
const JOURNAL: &str = "PERIGEE_JOURNAL_BYTES=128MiB";
/// Twice as much as the journal may hold is written, checked and committed in this time also on a busy machine.
const FILLS: Duration = Duration::from_secs(600);

/// A store that takes everything and keeps nothing.
struct Store {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

impl Store {
    fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (ends, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ended, held) = (Arc::clone(&ends), Arc::clone(&streams));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                held.lock().unwrap().push(stream.try_clone().unwrap());
                std::thread::spawn(move || io::copy(&mut &stream, &mut io::sink()));
            }
        });
        Self { address, ends, streams, thread }
    }

    /// Goes away: what it has taken and what is on its way is its own.
    fn end(self) {
        self.ends.store(true, Ordering::Release);
        // Whoever waits for a connection is woken by one.
        TcpStream::connect(self.address).unwrap();
        self.thread.join().unwrap();
        for stream in self.streams.lock().unwrap().iter() {
            // One that the other side has closed is gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// One figure of the master; 0 if it is not there.
fn figure(api: &Client, name: &str) -> anyhow::Result<f64> {
    Ok(samples(&page_of(api)?, name).first().copied().unwrap_or_default())
}

#[test]
fn a_writer_that_is_overrun_is_a_gap_on_every_face() {
    if !browser::installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let fakes = Fakes::start(directory, &[daemon(SERVICES, BYTES)]).unwrap();
    let address = fakes.addresses["h"];
    let store = Store::start(free_tcp(0).unwrap());
    let at = store.address;
    let mut text = format!(
        "regions: {{ eu: {{ slots: 1, failover_after: 10m }} }}\nwriters: {{ graphite: {{ address: \"{at}\" }} }}\n\
         templates: {{ fast: {{ check_interval: 200ms, retry_interval: 200ms, timeout: 60s }} }}\n\
         hosts:\n  h: {{ region: eu, address: {}, check_interval: 1m, check: {{ tcp: {1} }}, \
         nrpe: {{ tls: plain, port: {1}, service: false }} }}\nservices:\n",
        address.ip(),
        address.port()
    );
    for n in 0..SERVICES {
        let _ = writeln!(text, "  s{n}: {{ hosts: [h], use: [fast], check: {{ nrpe: c{n} }} }}");
    }
    let config = directory.join("site.yaml");
    fs::write(&config, text).unwrap();
    let mut fleet = Fleet::new(directory, &config, &[("eu", 1)]).unwrap();
    fleet.master.through = ["env", JOURNAL].map(str::to_owned).to_vec();
    fleet.start().unwrap();
    fleet.until_connected(PATIENCE).unwrap();
    fleet.until("points in the store", PATIENCE, |api| Ok(figure(api, "perigee_writer_points_total")? > 10.0)).unwrap();
    assert_eq!(fleet.master.api().items("gaps", "").unwrap(), [] as [serde_json::Value; 0]);

    let row = |api: &Client, name: &str| -> anyhow::Result<u64> { Ok(figure(api, name)? as u64) };
    let sent = row(&fleet.master.api(), "perigee_writer_position_index").unwrap();
    store.end();
    fleet.until("the store is missed", PATIENCE, |api| Ok(figure(api, "perigee_writer_connected")? == 0.0)).unwrap();
    let overrun = |api: &Client| Ok(row(api, "perigee_journal_first_index")? > sent + 1);
    fleet.until("overrun", FILLS, overrun).unwrap();
    // Not before the store is there again does anybody know what it will never get.
    let store = Store::start(at);
    fleet.until("a gap", PATIENCE, |api| Ok(!api.items("gaps", "")?.is_empty())).unwrap();
    let gaps = fleet.master.api().items("gaps", "").unwrap();
    let gap = &gaps[0];
    let told = json!([gap["region"], gap["lost"], gap["reason"], gap["explained"], gaps.len()]);
    assert_eq!(told, json!([null, null, "journal-bytes", true, 1]), "{gap}");
    let writer = gap["writer"].as_str().unwrap();
    let (first, last) = (gap["first"].as_u64().unwrap(), gap["last"].as_u64().unwrap());
    // What was sent shortly before the store went may not have been kept: it counts as lost with what was never sent.
    assert!(1 <= first && first <= sent + 1 && sent < last, "rows up to {sent} were sent: {gap}");

    let shown = said(&fleet.master, &["gaps"], 0);
    assert!(shown.contains(writer) && shown.contains("rows") && shown.contains("journal-bytes"), "{shown}");
    let meaning = gap["meaning"].as_str().unwrap();
    assert!(words(&shown).contains(&format!("journal-bytes: {meaning}")), "{shown}");
    assert!(shown.contains("1 gap, 0 results lost"), "a store without points, and nothing of the results: {shown}");
    let status = said(&fleet.master, &["status"], 0);
    assert!(status.contains("`perigee-master gaps` names them"), "{status}");
    let markup = page(&fleet.master, directory);
    let shown = browser::text(browser::labelled(&markup, "Gaps", "section").unwrap_or_default());
    assert!(shown.contains(&format!("{writer} rows not sent")) && shown.contains("journal-bytes"), "{shown}");
    assert!(words(&shown).contains(meaning), "{shown}");

    // It goes on behind the gap.
    let now = row(&fleet.master.api(), "perigee_journal_published_index").unwrap();
    let caught_up = |api: &Client| Ok(row(api, "perigee_writer_position_index")? >= now);
    fleet.until("caught up", PATIENCE, caught_up).unwrap();
    eprintln!("{writer} had sent the rows up to {sent}; {first} to {last} count as lost");
    fleet.terminate().unwrap();
    store.end();
}
