//! What is told in place of results that are gone: which stretch, why, and from when to when. Decides how a hole in a run divides
//! into what is known to be lost, by name, and what is merely not there. Knows nothing of sending.

use shared::delivery::{BatchItem, GapRecord, decode_header, decode_items, reason};
use shared::name::Sequence;
use shared::time::Timestamp;

/// Earliest and latest end of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Earliest, if any is known.
    pub from: Option<Timestamp>,
    /// Latest, if any is known.
    pub to: Option<Timestamp>,
}

impl Span {
    /// Takes a moment in.
    pub fn add(&mut self, at: Timestamp) {
        self.from = Some(self.from.map_or(at, |from| from.min(at)));
        self.to = Some(self.to.map_or(at, |to| to.max(at)));
    }

    /// Takes another span in.
    pub fn join(&mut self, other: Span) {
        [other.from, other.to].into_iter().flatten().for_each(|at| self.add(at));
    }
}

/// When the results of a batch ended. A gap record among them counts with its own times.
#[must_use]
pub fn span(batch: &[u8]) -> Span {
    let mut span = Span::default();
    let Ok((header, body)) = decode_header(batch) else { return span };
    for item in decode_items(&header, body).unwrap_or_default() {
        match item {
            BatchItem::Result(_, result) => span.add(result.ended()),
            BatchItem::Gap(gap) => span.join(Span { from: gap.from, to: gap.to }),
            BatchItem::Unreadable(_) => {}
        }
    }
    span
}

/// The hole above `sent` up to `last` as gap records without a hole between them: what `lost` names by its name, the rest as damaged
/// between the neighbours in `around`.
#[must_use]
pub fn divide(sent: Sequence, last: Sequence, lost: &[GapRecord], around: Span) -> Vec<GapRecord> {
    let mut gaps: Vec<GapRecord> = Vec::new();
    let mut next = sent.0.saturating_add(1);
    while next <= last.0 {
        let named = lost.iter().find(|gap| gap.first.0 <= next && next <= gap.last.0);
        let gap = match named {
            Some(gap) => GapRecord { first: Sequence(next), last: gap.last.min(last), ..gap.clone() },
            None => {
                let behind = lost.iter().map(|gap| gap.first.0).filter(|first| *first > next).min();
                let end = behind.map_or(last.0, |first| last.0.min(first - 1));
                GapRecord {
                    first: Sequence(next),
                    last: Sequence(end),
                    reason: reason::SPOOL_DAMAGED.to_owned(),
                    from: around.from,
                    to: around.to,
                }
            }
        };
        next = gap.last.0.saturating_add(1);
        gaps.push(gap);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: u64, last: u64, reason: &str) -> GapRecord {
        GapRecord { first: Sequence(first), last: Sequence(last), reason: reason.to_owned(), from: None, to: None }
    }

    fn told(sent: u64, last: u64, lost: &[GapRecord]) -> Vec<(u64, u64, String)> {
        let gaps = divide(Sequence(sent), Sequence(last), lost, Span::default());
        gaps.into_iter().map(|gap| (gap.first.0, gap.last.0, gap.reason)).collect()
    }

    fn line(first: u64, last: u64, reason: &str) -> (u64, u64, String) {
        (first, last, reason.to_owned())
    }

    #[test]
    fn a_hole_is_told_without_a_hole() {
        assert_eq!(told(0, 0, &[]), []);
        assert_eq!(told(4, 9, &[]), [line(5, 9, "spool-damaged")]);
        let lost = [gap(1, 3, "spool-age"), gap(4, 8, "spool-full"), gap(12, 20, "spool-full")];
        assert_eq!(told(0, 3, &lost), [line(1, 3, "spool-age")]);
        assert_eq!(told(1, 6, &lost), [line(2, 3, "spool-age"), line(4, 6, "spool-full")]);
        assert_eq!(
            told(7, 15, &lost),
            [line(8, 8, "spool-full"), line(9, 11, "spool-damaged"), line(12, 15, "spool-full")]
        );
    }

    #[test]
    fn damage_lies_between_its_neighbours_in_time() {
        let at = Timestamp::from_millis;
        let around = Span { from: Some(at(5)), to: Some(at(9)) };
        let gaps = divide(Sequence(0), Sequence(2), &[], around);
        assert_eq!((gaps[0].from, gaps[0].to), (Some(at(5)), Some(at(9))));
        let mut span = Span::default();
        for n in [7, 3, 9] {
            span.add(at(n));
        }
        assert_eq!(span, Span { from: Some(at(3)), to: Some(at(9)) });
    }
}
