//! What the master pays for a result: judged, folded into state, journaled and made durable, with its acknowledgement on the way
//! out. The peer does what database-backed systems do with one: a row in SQLite, one durable transaction a batch.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use master::coordinator::{Command, Coordinator, Identity, RequestId};
use master::fleet::ConnectionId;
use master::status::Status;
use rusqlite::{Connection, params};
use seglog::{Log, Options};
use shared::delivery::{BATCH_RESULTS_MAX, BatchItem, decode_header, decode_items};
use shared::frame::Lane;
use shared::message::{self, Hello, ToMaster, ToSatellite};
use shared::name::{CheckId, Generation, Grant, InstanceId, Sequence, Timeline};
use shared::time::Monotonic;
use tempfile::TempDir;

use super::scene::{AT, SERVICES, batches, catalog, slot};
use super::{Bench, Contest, Contestant, Done, Prepared, ROUNDS};

/// The row of this contest.
pub const BENCH: Bench = Bench { rows: &["ingest"], prepare };

/// Batches a round.
const BATCHES: u64 = 60;
const LINK: ConnectionId = ConnectionId(1);
const NOW: Monotonic = Monotonic(1);

/// A coordinator over a real journal; the loop around it is this file.
struct Master {
    coordinator: Coordinator,
    journal: Log,
    acknowledged: Sequence,
    _directory: TempDir,
}

impl Master {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (journal, _) = Log::open(&directory.path().join("journal"), Options::new(*b"BNCH"))?;
        let identity = Identity { installation: "bench".parse()?, software: "bench".to_owned() };
        let coordinator = Coordinator::new(identity, Status::new(), Timeline(1), NOW, AT);
        let mut master = Self { coordinator, journal, acknowledged: Sequence(0), _directory: directory };
        master.coordinator.handle_activation(RequestId(1), &catalog()?, "bench", AT);
        master.drain()?;
        master.coordinator.handle_connected(LINK, slot()?, "127.0.0.1:1".to_owned(), NOW);
        let hello = Hello {
            protocol: message::PROTOCOL,
            software: "bench".to_owned(),
            instance: InstanceId([1; 16]),
            fenced: false,
            timeline: None,
            grant: Grant(0),
            generation: Generation(0),
            check: CheckId(0),
            runs: Vec::new(),
            clock: AT,
            tells_states: true,
            credit: false,
        };
        for payload in message::encode(&[ToMaster::Hello(Box::new(hello))]) {
            master.coordinator.handle_control(LINK, &payload, NOW, AT);
        }
        master.drain()?;
        Ok(master)
    }

    fn grant(&self) -> Result<Grant> {
        let object = self.coordinator.published().object(CheckId(1)).context("the first check")?;
        Ok(object.owner.as_ref().context("its owner")?.grant)
    }

    fn drain(&mut self) -> Result<()> {
        while let Some(command) = self.coordinator.poll_command(NOW) {
            match command {
                Command::Commit { record, last, .. } => {
                    self.journal.append(last.0, &record)?;
                    self.journal.sync()?;
                    self.coordinator.handle_committed(AT);
                }
                Command::Send { payload, .. } => {
                    for message in message::decode::<ToSatellite>(&payload)? {
                        if let ToSatellite::Ack(position) = message {
                            self.acknowledged = position.position;
                        }
                    }
                }
                Command::Close { cut, .. } => anyhow::bail!("the link was cut: {cut:?}"),
                Command::Published(_)
                | Command::Show(_)
                | Command::Answer { .. }
                | Command::Obeyed { .. }
                | Command::Noted { .. }
                | Command::Commanded { .. } => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, batches: &[Vec<u8>]) -> Result<Done> {
        let bytes = self.journal.bytes();
        for batch in batches {
            self.coordinator.handle_batch(LINK, Lane::Live, batch.clone(), NOW, AT);
            self.drain()?;
        }
        let units = results(batches)?;
        let wanted = decode_header(batches.last().context("batches")?)?.0.last;
        ensure!(self.acknowledged == wanted, "acknowledged {} of {wanted}", self.acknowledged);
        let written = (self.journal.bytes() - bytes) as f64;
        Ok(Done { units, figures: vec![("journal_bytes_per_result", written / units as f64)], ..Done::default() })
    }
}

fn results(batches: &[Vec<u8>]) -> Result<u64> {
    Ok(u64::try_from(batches.len() * BATCH_RESULTS_MAX)?)
}

/// A table with a row a result.
struct Table {
    connection: Connection,
    _directory: TempDir,
}

impl Table {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let connection = Connection::open(directory.path().join("results.sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE result (sequence INTEGER PRIMARY KEY, check_id INTEGER, started INTEGER, duration INTEGER,
             state INTEGER, output TEXT, perfdata TEXT); CREATE INDEX by_check ON result (check_id, started);",
        )?;
        Ok(Self { connection, _directory: directory })
    }

    fn take(&mut self, batches: &[Vec<u8>]) -> Result<Done> {
        for batch in batches {
            let (header, body) = decode_header(batch)?;
            let transaction = self.connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?)")?;
                for item in decode_items(&header, body)? {
                    let BatchItem::Result(sequence, result) = item else { anyhow::bail!("not a result: {item:?}") };
                    insert.execute(params![
                        i64::try_from(sequence.0)?,
                        result.check.0,
                        result.started.as_millis(),
                        i64::try_from(result.duration_us)?,
                        result.after.state.number(),
                        result.output,
                        result.perfdata,
                    ])?;
                }
            }
            transaction.commit()?;
        }
        let last: i64 = self.connection.query_row("SELECT max(sequence) FROM result", [], |row| row.get(0))?;
        ensure!(
            last == i64::try_from(decode_header(batches.last().context("batches")?)?.0.last.0)?,
            "rows are missing"
        );
        Ok(Done::units(results(batches)?))
    }
}

fn prepare() -> Result<Prepared> {
    let mut master = Master::new()?;
    let grant = master.grant()?;
    ensure!(master.coordinator.published().objects().count() == usize::try_from(SERVICES)?, "the fleet is not whole");
    // Made ahead: making them is the satellite's work.
    let rounds: Arc<Vec<Vec<Vec<u8>>>> =
        Arc::new((0..=u64::from(ROUNDS)).map(|round| batches(round * BATCHES, BATCHES, grant)).collect());
    let mut table = Table::new()?;
    let (ours, theirs) = (Arc::clone(&rounds), rounds);
    let (mut our_round, mut their_round) = (0, 0);
    let contestants = vec![
        Contestant {
            row: "ingest",
            reported: true,
            peer: Some("sqlite-insert"),
            at_least: None,
            run: Box::new(move || {
                our_round += 1;
                master.take(ours.get(our_round - 1).context("more rounds than were prepared")?)
            }),
        },
        Contestant {
            row: "sqlite-insert",
            reported: false,
            peer: None,
            at_least: None,
            run: Box::new(move || {
                their_round += 1;
                table.take(theirs.get(their_round - 1).context("more rounds than were prepared")?)
            }),
        },
    ];
    Ok(Prepared::Ready(Contest { unit: "result", contestants }))
}
