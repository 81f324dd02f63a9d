//! What the journal gives back, three ways: opened from its newest checkpoint, opened without any, and folded here row by row up to
//! the row that the running master showed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use master::entry::Entry;
use master::status::Status;
use master::store::{self, Options, Read, Store};
use openssl::sha::sha256;
use shared::name::JournalIndex;
use tests::fleet::Fleet;

/// Kills the master and compares. Gives the number of rows from the first one.
pub(crate) fn assert_the_journal_gives_back_what_was_shown(fleet: &mut Fleet) -> u64 {
    let mut shown = None;
    fleet
        .until("a digest of the state", Duration::from_secs(30), |api| {
            shown = Some(api.get("status?digest=1")?);
            Ok(true)
        })
        .unwrap();
    let shown = shown.unwrap();
    let index = JournalIndex(shown["state_digest"]["index"].as_u64().unwrap());
    let digest = shown["state_digest"]["sha256"].as_str().unwrap().to_owned();
    fleet.master.kill().unwrap();

    let data = &fleet.master.data;
    let bare = fleet.directory.join("without-checkpoints");
    copy(data, &bare);
    fs::remove_dir_all(bare.join("checkpoint")).unwrap();

    let from_checkpoint = store::open(data, Options::default()).unwrap();
    let from_genesis = store::open(&bare, Options::default()).unwrap();
    assert!(from_checkpoint.recovery.checkpoint.0 > 0, "no checkpoint was made: {:?}", from_checkpoint.recovery);
    assert!(from_checkpoint.recovery.replayed > 0, "nothing was replayed: {:?}", from_checkpoint.recovery);
    assert_eq!(from_genesis.recovery.checkpoint.0, 0);
    assert_eq!(from_checkpoint.status.head, from_genesis.status.head);
    assert_eq!(from_checkpoint.status.encode(), from_genesis.status.encode(), "checkpoint and replay differ");

    let folded = folded(&from_genesis.store, index);
    assert_eq!(folded.head, index, "the journal ends before what was shown");
    assert_eq!(hexadecimal(&sha256(&folded.encode())), digest, "row {index} as shown and as replayed");
    from_genesis.recovery.replayed
}

fn folded(store: &Store, until: JournalIndex) -> Status {
    let mut status = Status::new();
    let mut reader = store.reader(JournalIndex(0)).unwrap();
    while let Some(read) = reader.next().unwrap() {
        let Read::Rows(rows) = read else { panic!("the journal is damaged: {read:?}") };
        for row in rows.iter().filter(|row| row.index <= until) {
            let catalog = match &row.entry {
                Entry::Activate(activate) => Some(store.revision(&activate.digest).unwrap()),
                _ => None,
            };
            status.fold(row, &row.items(), catalog.as_ref());
        }
    }
    status
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
