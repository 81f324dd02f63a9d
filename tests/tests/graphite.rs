//! The Graphite writer against real carbon and against stores that misbehave: what render gives back is what was sent,
//! every series and every second, whatever happened in between.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests that wait for real servers")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use master::store::CursorFile;
use master::writer::graphite::{Naming, Options, lines};
use master::writer::{BUFFER_LIMIT, Fetched, Gap, Overrun, Point, PointSource, Record, Settings, Status, run};
use shared::name::JournalIndex;
use shared::perfdata::{parse, split_output};
use shared::time::Timestamp;
use tests::carbon::{Carbon, Series, Setup};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
const HOSTS: i64 = 20;

/// A journal in memory: records from 1, the oldest of which can be trimmed.
#[derive(Clone)]
struct Journal {
    records: Arc<Mutex<BTreeMap<u64, Record>>>,
    head: watch::Sender<u64>,
    /// These can never be read.
    unreadable: Vec<u64>,
    /// Second of the first record; the record `n` is `n` seconds later, so all lie in carbon's hour and in the past.
    began: i64,
}

impl Journal {
    fn new() -> Self {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        Self { records: Arc::default(), head: watch::Sender::new(0), unreadable: Vec::new(), began: now - 2400 }
    }

    /// Commits one record with a result of each host.
    fn commit(&self) {
        let index = *self.head.borrow() + 1;
        let at = Timestamp::from_millis((self.began + i64::try_from(index).unwrap()) * 1000 + 999);
        let naming = Naming::default();
        let points = (0..HOSTS).map(|host| Point {
            prefix: naming.object_prefix(&format!("host{host}.example!load").parse().unwrap(), "nrpe").into(),
            metrics: parse(&format!("serial={index};1000;2000 'in use'={host}.{index}KiB")).metrics,
            at,
            metadata: None,
        });
        let record = Record { index: JournalIndex(index), committed: at, points: points.collect() };
        self.records.lock().unwrap().insert(index, record);
        self.head.send_replace(index);
    }

    fn commit_many(&self, count: usize) {
        (0..count).for_each(|_| self.commit());
    }

    fn trim_to(&self, first: u64) {
        let mut records = self.records.lock().unwrap();
        *records = records.split_off(&first);
    }

    /// What render must give: written down here once more, not asked of the writer.
    fn expected(&self) -> Series {
        let mut series = Series::new();
        for index in self.records.lock().unwrap().keys() {
            let second = self.began + i64::try_from(*index).unwrap();
            for host in 0..HOSTS {
                let used: f64 = format!("{host}.{index}").parse().unwrap();
                for (name, value) in [
                    ("serial.value", f64::from(u32::try_from(*index).unwrap())),
                    ("serial.warn", 1000.0),
                    ("serial.crit", 2000.0),
                    ("in_use.value", used * 1024.0),
                ] {
                    let name = format!("icinga2.host{host}_example.services.load.nrpe.perfdata.{name}");
                    series.entry(name).or_default().insert(second, value);
                }
            }
        }
        series
    }
}

impl PointSource for Journal {
    async fn next(&mut self, after: JournalIndex) -> anyhow::Result<Fetched> {
        let mut head = self.head.subscribe();
        head.wait_for(|head| *head > after.0).await?;
        let records = self.records.lock().unwrap();
        let first = *records.keys().next().unwrap();
        if first > after.0 + 1 {
            return Ok(Fetched::Overrun { first: JournalIndex(first) });
        }
        if self.unreadable.contains(&(after.0 + 1)) {
            return Ok(Fetched::Unreadable { last: JournalIndex(after.0 + 1) });
        }
        Ok(Fetched::Record(records[&(after.0 + 1)].clone()))
    }

    fn head(&self) -> JournalIndex {
        JournalIndex(*self.head.borrow())
    }
}

/// A writer on a runtime of its own, as in the master.
struct Running {
    runtime: Runtime,
    task: JoinHandle<anyhow::Result<()>>,
    status: watch::Receiver<Status>,
    gaps: mpsc::Receiver<Overrun>,
    shutdown: CancellationToken,
}

impl Running {
    fn start(journal: &Journal, address: &str, directory: &Path, trail: Option<Duration>) -> Self {
        let mut settings = Settings::graphite("graphite", address);
        settings.trail = trail.unwrap_or(settings.trail);
        Self::start_with(journal, settings, directory)
    }

    fn start_with(journal: &Journal, settings: Settings, directory: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (gap_sender, gaps) = mpsc::channel(4);
        let (status_sender, status) = watch::channel(Status::default());
        let shutdown = CancellationToken::new();
        let cursor = CursorFile::new(directory.join("graphite.cursor"));
        let task = runtime.spawn(run(settings, journal.clone(), cursor, gap_sender, status_sender, shutdown.clone()));
        Self { runtime, task, status, gaps, shutdown }
    }

    fn until(&mut self, what: &str, reached: impl Fn(&Status) -> bool) -> Status {
        let waited = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.status.wait_for(|status| reached(status)))
                .await
                .map(|status| status.unwrap().clone())
        });
        waited.unwrap_or_else(|_| panic!("not {what} within {PATIENCE:?}: {:?}", *self.status.borrow()))
    }

    fn stop(self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.task).unwrap().unwrap();
    }
}

/// A store that keeps the serials it reads, on an address that stays.
struct Sink {
    listener: TcpListener,
}

impl Sink {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    fn accept(&self) -> BufReader<TcpStream> {
        let stream = self.listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    }
}

/// Reads whole records up to the one with the given index; gives the indexes read, in order.
fn read_records(connection: &mut BufReader<TcpStream>, last: u64) -> Vec<u64> {
    let mut indexes = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        assert!(connection.read_line(&mut line).unwrap() > 0, "the writer closed the connection after {indexes:?}");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.len(), 3, "{line:?}");
        if words[0].contains("host0_example") && words[0].ends_with(".serial.value") {
            indexes.push(words[1].parse().unwrap());
        }
        let the_last_line =
            words[0] == format!("icinga2.host{}_example.services.load.nrpe.perfdata.in_use.value", HOSTS - 1);
        if the_last_line && indexes.last() == Some(&last) {
            return indexes;
        }
    }
}

const ALL: &str = "icinga2.*.services.load.nrpe.perfdata.*.*";

#[test]
fn render_gives_back_what_was_sent_also_after_carbon_was_down() {
    let Some(mut carbon) = Carbon::start().unwrap() else { return };
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::new();
    let mut writer = Running::start(&journal, &carbon.line_address(), directory.path(), None);

    writer.until("connected", |status| status.connected);
    journal.commit_many(100);
    let committed = Instant::now();
    carbon.render_until_equal(ALL, &journal.expected(), PATIENCE).unwrap();
    eprintln!("100 records of {HOSTS} results stood in render after {:?}", committed.elapsed());

    icingas_names_are_found(&carbon, &journal);

    carbon.stop().unwrap();
    writer.until("cut off", |status| !status.connected && status.failures > 0);
    journal.commit_many(100);
    carbon.restart().unwrap();
    journal.commit_many(100);
    carbon.render_until_equal(ALL, &journal.expected(), PATIENCE).unwrap();
    let status = writer.until("caught up", |status| status.position == JournalIndex(300));
    assert!(status.connections >= 2, "{status:?}");
    assert_eq!((status.gaps, status.values_dropped), (0, 0));
    writer.stop();
}

/// Sends the result a real Icinga 2 was given and compares what render finds with the lines that Icinga 2 wrote.
fn icingas_names_are_found(carbon: &Carbon, journal: &Journal) {
    let golden = include_str!("../testdata/icinga2-perfdata-golden.txt");
    let output = golden.lines().find(|line| line.starts_with("OK - text |")).unwrap();
    let prefix =
        Naming::default().object_prefix(&r"web-01.example.com/a b!disk C:\ a=b,c".parse().unwrap(), "pd cmd.x");
    let at = Timestamp::from_millis(journal.began * 1000);
    let mut ours = Vec::new();
    lines(&mut ours, &prefix, &parse(&split_output(output).perfdata).metrics, at, Options::default(), None);
    TcpStream::connect(carbon.line_address()).unwrap().write_all(&ours).unwrap();

    let mut expected = BTreeMap::new();
    for line in golden.lines().filter(|line| line.contains(".services.") && line.contains(".perfdata.")) {
        let words: Vec<&str> = line.split(' ').collect();
        expected.insert(words[0].to_owned(), words[1].parse::<f64>().unwrap());
    }
    assert_eq!(expected.len(), 37, "one of 38 lines has a name twice: the later value stays");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = BTreeMap::new();
        // Labels of one, two and three nodes.
        for label in ["*", "*.*", "*.*.*", "*.*.*.*"] {
            let target = format!("icinga2.web-01_example_com_a_b.services.*.pd_cmd_x.perfdata.{label}.*");
            for (name, points) in carbon.render(&target, journal.began, journal.began).unwrap_or_default() {
                // Icinga 2 wrote six digits.
                found.insert(name, (points[&journal.began] * 1e6).round() / 1e6);
            }
        }
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "found {found:#?}\nexpected {expected:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_killed_carbon_costs_no_point() {
    let few_updates = Setup { updates_per_second: Some(20), ..Setup::default() };
    let Some(mut carbon) = Carbon::start_with(&few_updates).unwrap() else { return };
    let journal = Journal::new();

    // What a kill costs a sender that forgets: without this the test below would prove nothing.
    let mut socket = TcpStream::connect(carbon.line_address()).unwrap();
    let lines: String = (0..400).map(|series| format!("forgotten.s{series} 1 {}\n", journal.began)).collect();
    socket.write_all(lines.as_bytes()).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap(), 0, "carbon closes once it has read all");
    carbon.kill();
    carbon.restart().unwrap();
    let left = carbon.render("forgotten.*", journal.began, journal.began).unwrap().len();
    assert!(left < 400, "the kill took nothing away");
    eprintln!("a kill left {left} of 400 points that nobody sent again");

    let directory = tempfile::tempdir().unwrap();
    let mut writer = Running::start(&journal, &carbon.line_address(), directory.path(), None);
    let sender = std::thread::spawn({
        let journal = journal.clone();
        move || {
            for _ in 0..300 {
                journal.commit();
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
    writer.until("half way", |status| status.position >= JournalIndex(100));
    carbon.kill();
    writer.until("cut off", |status| !status.connected && status.failures > 0);
    carbon.restart().unwrap();
    sender.join().unwrap();
    carbon.render_until_equal(ALL, &journal.expected(), PATIENCE).unwrap();
    let status = writer.until("caught up", |status| status.position == JournalIndex(300));
    assert!(status.points_sent > 300 * u64::try_from(HOSTS).unwrap(), "nothing was sent twice: {status:?}");
    writer.stop();
}

#[test]
fn a_result_is_on_its_way_at_once() {
    let sink = Sink::new();
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::new();
    let writer = Running::start(&journal, &sink.address(), directory.path(), None);
    let mut connection = sink.accept();
    let mut slowest = Duration::ZERO;
    for index in 1..=20 {
        let committed = Instant::now();
        journal.commit();
        assert_eq!(read_records(&mut connection, index), [index]);
        slowest = slowest.max(committed.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    writer.stop();
}

#[test]
fn a_store_that_never_reads_holds_up_nothing_and_takes_no_memory() {
    let sink = Sink::new();
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::new();
    let mut writer = Running::start(&journal, &sink.address(), directory.path(), None);
    let silent = sink.accept();

    let began = Instant::now();
    journal.commit_many(10_000);
    assert!(began.elapsed() < Duration::from_secs(10), "committing waited for the store");
    let stuck =
        writer.until("stuck", |status| status.head == JournalIndex(10_000) && status.position > JournalIndex(0));
    std::thread::sleep(Duration::from_secs(2));
    let later = writer.until("published", |_| true);
    assert!(later.position < JournalIndex(10_000), "all went into the socket: {later:?}");
    assert!(later.lag_ms > 0 && stuck.connected);
    let one_point = 1024;
    assert!(later.buffered_max < BUFFER_LIMIT + one_point, "{later:?}");

    drop(silent);
    let mut connection = sink.accept();
    let all: Vec<u64> = (1..=10_000).collect();
    assert_eq!(read_records(&mut connection, 10_000), all);
    writer.until("caught up", |status| status.position == status.head && status.lag_ms == 0);
    writer.stop();
}

#[test]
fn a_connection_on_which_nothing_moves_is_given_up_and_its_records_sent_again() {
    let sink = Sink::new();
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::new();
    let mut settings = Settings::graphite("graphite", &sink.address());
    settings.peer_timeout = Duration::from_secs(3);
    let mut writer = Running::start_with(&journal, settings, directory.path());
    let silent = sink.accept();
    journal.commit_many(10_000);
    let status = writer.until("given up", |status| status.failures > 0);
    assert_eq!(status.cursor, JournalIndex(0), "{status:?}");
    let all: Vec<u64> = (1..=10_000).collect();
    assert_eq!(read_records(&mut sink.accept(), 10_000), all);
    drop(silent);
    writer.stop();
}

#[test]
fn an_idle_connection_that_ends_is_seen_before_the_next_result() {
    let sink = Sink::new();
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::new();
    let writer = Running::start(&journal, &sink.address(), directory.path(), None);
    let mut connection = sink.accept();
    journal.commit();
    assert_eq!(read_records(&mut connection, 1), [1]);
    drop(connection);
    // A new connection comes although there is nothing to send but what was sent.
    let mut connection = sink.accept();
    assert_eq!(read_records(&mut connection, 1), [1]);
    journal.commit();
    assert_eq!(read_records(&mut connection, 2), [2]);
    writer.stop();
}

#[test]
fn a_restarted_writer_goes_on_from_its_cursor() {
    let sink = Sink::new();
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::new();

    let writer = Running::start(&journal, &sink.address(), directory.path(), None);
    let mut connection = sink.accept();
    journal.commit_many(5);
    read_records(&mut connection, 5);
    writer.stop();
    let mut writer = Running::start(&journal, &sink.address(), directory.path(), Some(Duration::from_millis(100)));
    let mut connection = sink.accept();
    assert_eq!(read_records(&mut connection, 5), [1, 2, 3, 4, 5], "within the trail all is sent again");
    writer.until("past the trail", |status| status.cursor == JournalIndex(5));
    // The figure comes after the file.
    writer.stop();

    journal.commit_many(2);
    let writer = Running::start(&journal, &sink.address(), directory.path(), None);
    let mut connection = sink.accept();
    assert_eq!(read_records(&mut connection, 7), [6, 7], "what counts as kept is not sent again");
    writer.stop();
}

#[test]
fn what_the_journal_trimmed_is_told_as_a_gap() {
    let sink = Sink::new();
    let directory = tempfile::tempdir().unwrap();
    CursorFile::new(directory.path().join("graphite.cursor")).save(JournalIndex(10)).unwrap();
    let journal = Journal::new();
    journal.commit_many(50);
    journal.trim_to(31);
    let mut writer = Running::start(&journal, &sink.address(), directory.path(), None);
    let mut connection = sink.accept();
    assert_eq!(read_records(&mut connection, 50), (31..=50).collect::<Vec<_>>());
    let told = |writer: &mut Running| {
        let told = writer.runtime.block_on(async { tokio::time::timeout(PATIENCE, writer.gaps.recv()).await });
        told.unwrap().unwrap()
    };
    let gap = Gap { writer: "graphite".to_owned(), first: JournalIndex(11), last: JournalIndex(30), unreadable: false };
    // Not recorded: it is told again, and the cursor on disk stays in front of it.
    let first = told(&mut writer);
    assert_eq!(first.gap, gap);
    drop(first.recorded);
    let again = told(&mut writer);
    assert_eq!(again.gap, gap);
    let status =
        writer.until("done", |status| status.position == JournalIndex(50) && status.cursor == JournalIndex(30));
    assert_eq!(status.gaps, 1);
    let kept = CursorFile::new(directory.path().join("graphite.cursor"));
    assert_eq!(kept.load().unwrap(), Some(JournalIndex(10)));
    again.recorded.send(()).unwrap();
    assert!(tests::wait::until(PATIENCE, || kept.load().unwrap() == Some(JournalIndex(30))));
    writer.stop();
}

#[test]
fn what_cannot_be_read_is_told_as_a_gap_once_and_costs_nothing_else() {
    let sink = Sink::new();
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::new();
    journal.unreadable = vec![3, 7];
    journal.commit_many(9);
    let mut writer = Running::start(&journal, &sink.address(), directory.path(), None);
    let readable = [1, 2, 4, 5, 6, 8, 9];
    assert_eq!(read_records(&mut sink.accept(), 9), readable);
    // The connection has broken: all is sent again, what was sent before the gaps too.
    let mut connection = sink.accept();
    assert_eq!(read_records(&mut connection, 9), readable);
    let status = writer.until("done", |status| status.connections == 2 && status.position == JournalIndex(9));
    assert_eq!((status.gaps, status.cursor), (2, JournalIndex(0)));
    for index in [3, 7].map(JournalIndex) {
        let told = writer.gaps.try_recv().unwrap();
        assert_eq!(told.gap, Gap { writer: "graphite".to_owned(), first: index, last: index, unreadable: true });
        told.recorded.send(()).unwrap();
    }
    assert!(writer.gaps.try_recv().is_err(), "once");
    writer.stop();
}

#[test]
fn a_new_writer_and_one_beyond_the_journal_send_all_that_is_kept_and_tell_no_gap() {
    let journal = Journal::new();
    journal.commit_many(20);
    journal.trim_to(11);
    for cursor in [None, Some(JournalIndex(21))] {
        let sink = Sink::new();
        let directory = tempfile::tempdir().unwrap();
        if let Some(cursor) = cursor {
            CursorFile::new(directory.path().join("graphite.cursor")).save(cursor).unwrap();
        }
        let mut writer = Running::start(&journal, &sink.address(), directory.path(), None);
        assert_eq!(read_records(&mut sink.accept(), 20), (11..=20).collect::<Vec<_>>());
        assert_eq!(writer.until("done", |status| status.position == JournalIndex(20)).gaps, 0);
        writer.stop();
    }
}

#[test]
fn a_damaged_cursor_stops_the_writer_with_a_message() {
    let sink = Sink::new();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("graphite.cursor"), "rubbish").unwrap();
    let writer = Running::start(&Journal::new(), &sink.address(), directory.path(), None);
    let error = writer.runtime.block_on(writer.task).unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("graphite.cursor is damaged: it is not a cursor"), "{error:#}");
}
