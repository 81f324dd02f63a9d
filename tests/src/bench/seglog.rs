//! What it costs to make a batch durable: one record and one fdatasync in the segmented log, against one row and one durable
//! transaction in SQLite. The records are real batches.

use anyhow::{Context as _, Result, ensure};
use rusqlite::{Connection, params};
use seglog::{Log, Options};
use shared::name::Grant;

use super::scene::batches;
use super::{Bench, Contest, Contestant, Done, Prepared};

/// The row of this contest.
pub const BENCH: Bench = Bench { rows: &["seglog-append"], prepare };

/// Records a round.
const RECORDS: u64 = 600;
/// Batches to take turns with.
const KINDS: u64 = 8;

fn prepare() -> Result<Prepared> {
    let records = batches(0, KINDS, Grant(7));
    let directory = tempfile::tempdir()?;
    let (mut log, _) = Log::open(&directory.path().join("log"), Options::new(*b"BNCH"))?;
    let table = Connection::open(directory.path().join("records.sqlite"))?;
    table.pragma_update(None, "journal_mode", "WAL")?;
    table.pragma_update(None, "synchronous", "FULL")?;
    table.execute_batch("CREATE TABLE record (number INTEGER PRIMARY KEY, body BLOB)")?;
    let (ours, theirs) = (records.clone(), records);
    let mut index = 0;
    let mut number = 0_i64;
    let contestants = vec![
        Contestant {
            row: "seglog-append",
            reported: true,
            peer: Some("sqlite-append"),
            at_least: None,
            run: Box::new(move || {
                let before = log.bytes();
                for record in ours.iter().cycle().take(usize::try_from(RECORDS)?) {
                    index += 1;
                    log.append(index, record)?;
                    ensure!(log.sync()? == index, "a record is not durable");
                }
                let bytes = (log.bytes() - before) as f64 / RECORDS as f64;
                // The directory lives as long as the log that lies in it.
                ensure!(directory.path().exists(), "the log's directory is gone");
                Ok(Done { units: RECORDS, figures: vec![("bytes_per_record", bytes)], ..Done::default() })
            }),
        },
        Contestant {
            row: "sqlite-append",
            reported: false,
            peer: None,
            at_least: None,
            run: Box::new(move || {
                for record in theirs.iter().cycle().take(usize::try_from(RECORDS)?) {
                    number += 1;
                    table.execute("INSERT INTO record VALUES (?, ?)", params![number, record])?;
                }
                let rows: i64 =
                    table.query_row("SELECT count(*) FROM record", [], |row| row.get(0)).context("counting")?;
                ensure!(rows == number, "records are missing");
                Ok(Done::units(RECORDS))
            }),
        },
    ];
    Ok(Prepared::Ready(Contest { unit: "record", contestants }))
}
