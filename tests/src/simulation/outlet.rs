//! A metrics writer of a world and the store it writes to: a cursor over the journal that trails behind what was sent, and a store
//! that is slow, hangs, refuses, or forgets what it held in memory. The trail is the program's own room; socket and store are models.
//! Decides nothing about the journal; sends what its rows hold.

use std::collections::BTreeSet;
use std::time::Duration;

use master::entry::{Row, WriterGap};
use master::writer::trail::Trail;
use master::writer::{PEER_TIMEOUT, TRAIL};
use shared::delivery::BatchItem;
use shared::name::JournalIndex;
use shared::time::Monotonic;

use super::witness::serial;
use super::world::nanos;

/// The store writes what it has in memory this often; what is younger a kill takes. Less than [`TRAIL`], as carbon's.
const FLUSH: Duration = Duration::from_secs(60);
/// Records a store takes at a time, and a slow one.
const RECORDS: (usize, usize) = (64, 1);

/// How a store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// It takes what it is given, slowly.
    Slow,
    /// It accepts connections and reads nothing.
    Hanging,
    /// It refuses connections.
    Refusing,
}

/// Writer and store.
#[derive(Debug)]
pub(super) struct Outlet {
    /// Durable: everything up to here counts as kept.
    cursor: JournalIndex,
    sent: JournalIndex,
    trail: Trail,
    stuck_since: Option<u64>,
    mood: Option<(Mood, u64)>,
    kept: BTreeSet<u64>,
    memory: Vec<u64>,
    flushed: u64,
    /// Rows up to here were trimmed before they were sent; the journal is asked to say so under this number.
    overrun: Option<(u64, JournalIndex)>,
    /// A planted defect: what was sent counts as kept.
    pub(super) cursor_ahead: bool,
}

impl Default for Outlet {
    fn default() -> Self {
        Self {
            cursor: JournalIndex(0),
            sent: JournalIndex(0),
            trail: Trail::new(TRAIL),
            stuck_since: None,
            mood: None,
            kept: BTreeSet::new(),
            memory: Vec::new(),
            flushed: 0,
            overrun: None,
            cursor_ahead: false,
        }
    }
}

impl Outlet {
    /// The writer's process or its connection has gone: it begins again behind its cursor.
    pub(super) fn begin_again(&mut self) {
        self.trail.forget();
        self.sent = self.cursor;
        self.stuck_since = None;
        self.overrun = None;
    }

    /// The journal was put back from a backup, and the cursor with it.
    pub(super) fn rewind(&mut self, cursor: JournalIndex) {
        self.cursor = cursor;
        self.begin_again();
    }

    /// Rows up to `gone` were trimmed before they were sent: under `note` the journal is asked to name them. `None` if it is being asked.
    pub(super) fn overrun(&mut self, note: u64, gone: JournalIndex) -> Option<WriterGap> {
        if self.overrun.is_some() {
            return None;
        }
        self.overrun = Some((note, gone));
        Some(WriterGap {
            writer: "metrics".to_owned(),
            lane: "metrics".to_owned(),
            first: JournalIndex(self.sent.0 + 1),
            last: gone,
            reason: "journal-bytes".to_owned(),
        })
    }

    /// The journal has answered; says whether the writer goes on behind its gap.
    pub(super) fn noted(&mut self, now: u64, note: u64, durable: bool) -> bool {
        let Some((_, gone)) = self.overrun.take_if(|(asked, _)| *asked == note) else { return false };
        if durable {
            self.sent = gone.max(self.sent);
            self.trail.sent(Monotonic(now), self.sent);
        }
        durable
    }

    /// Whether it waits for the journal to name what it lost.
    pub(super) fn waits(&self) -> bool {
        self.overrun.is_some()
    }

    /// Up to where it would begin again.
    pub(super) fn cursor(&self) -> JournalIndex {
        self.cursor
    }

    /// From here on until then the store behaves so. Whether it did not before.
    pub(super) fn behave(&mut self, now: u64, mood: Mood, until: u64) -> bool {
        let before = self.mood.replace((mood, until)).filter(|(_, until)| now < *until);
        if mood == Mood::Refusing {
            self.begin_again();
        }
        before.is_none_or(|(before, _)| before != mood)
    }

    /// The store is killed and started again: what it had not written is gone. Gives how much that was.
    pub(super) fn kill(&mut self) -> usize {
        let lost = std::mem::take(&mut self.memory).len();
        self.begin_again();
        lost
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm(&mut self) {
        self.mood = None;
    }

    /// The last row that was sent.
    pub(super) fn sent(&self) -> JournalIndex {
        self.sent
    }

    /// Time has passed; `rows` are those behind [`Outlet::sent`], in order.
    pub(super) fn advance(&mut self, now: u64, rows: &[Row]) {
        let at = Monotonic(now);
        if now.saturating_sub(self.flushed) >= nanos(FLUSH) {
            self.flushed = now;
            self.kept.extend(self.memory.drain(..));
        }
        let mood = self.mood.filter(|(_, until)| now < *until).map(|(mood, _)| mood);
        match mood {
            Some(Mood::Refusing) => return,
            Some(Mood::Hanging) => {
                let since = *self.stuck_since.get_or_insert(now);
                if now.saturating_sub(since) >= nanos(PEER_TIMEOUT) {
                    self.begin_again();
                }
                return;
            }
            Some(Mood::Slow) | None => self.stuck_since = None,
        }
        let most = if mood.is_some() { RECORDS.1 } else { RECORDS.0 };
        for row in rows.iter().take(most) {
            self.memory.extend(Self::points(row));
            self.sent = row.index;
            self.trail.sent(at, row.index);
        }
        if self.cursor_ahead {
            self.cursor = self.sent;
        } else if let Some(kept) = self.trail.kept(at) {
            self.cursor = kept;
        }
    }

    /// The answers in a row that a metrics store is given.
    pub(super) fn points(row: &Row) -> Vec<u64> {
        let items = row.outcomes.verdicts.iter().zip(row.items());
        let logged = items.filter(|(verdict, _)| verdict.effect.is_logged());
        let number = |item| if let BatchItem::Result(_, result) = item { serial(&result) } else { None };
        logged.filter_map(|(_, item)| number(item)).collect()
    }

    /// Whether the store has the point of an answer.
    pub(super) fn has(&self, serial: u64) -> bool {
        self.kept.contains(&serial) || self.memory.contains(&serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_store_forgot_is_sent_again() {
        let mut outlet = Outlet::default();
        let row = |index| Row {
            index: JournalIndex(index),
            term: Default::default(),
            at: shared::time::Timestamp::EPOCH,
            entry: master::entry::Entry::Drained(master::entry::Drained {
                slot: shared::name::Slot { region: "r1".parse().unwrap(), number: "1".parse().unwrap() },
                run: shared::name::RunId([0; 16]),
            }),
            outcomes: Default::default(),
        };
        outlet.advance(1, &[row(1), row(2)]);
        assert_eq!(outlet.sent(), JournalIndex(2));
        outlet.kill();
        assert_eq!(outlet.sent(), JournalIndex(0), "nothing counted as kept yet");
        outlet.advance(2, &[row(1), row(2)]);
        outlet.advance(3 + nanos(TRAIL), &[]);
        outlet.kill();
        assert_eq!(outlet.sent(), JournalIndex(2));
    }
}
