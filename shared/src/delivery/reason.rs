//! Why results are gone: stable names, and a sentence for people with each.
//!
//! The names travel and are kept; the sentences are made where they are read, so they may be put better at any time. The surprise: a
//! name may come from a later version, or carry an error's text, and then says all that is known.

/// Volume and memory were full, and the oldest made room.
pub const SPOOL_FULL: &str = "spool-full";
/// They lay undelivered for longer than the spool keeps them.
pub const SPOOL_AGE: &str = "spool-age";
/// The volume could not be read.
pub const SPOOL_DAMAGED: &str = "spool-damaged";
/// The end of a run is unfinished or damaged: from the first sequence on, nobody knows how many.
pub const SPOOL_END: &str = "spool-end-unknown";
/// The master acknowledged them once, was restored from a backup that does not have them, and no volume has them any more.
pub const LOST_BY_RESTORE: &str = "lost-by-restore";
/// Nothing of a run came for a month, and no volume lists it any more: from the first sequence on, nobody knows how many.
pub const STRANDED: &str = "stranded";
/// The master was sent what comes after them, and nobody said why not them.
pub const MISSING: &str = "missing";

/// Whether nobody knows how many results such a gap is.
#[must_use]
pub fn is_open_ended(reason: &str) -> bool {
    matches!(reason, SPOOL_END | STRANDED)
}

/// What happened, for people, in a sentence without a full stop; `None` for a reason that is not one of these.
#[must_use]
pub fn meaning(reason: &str) -> Option<&'static str> {
    Some(match reason {
        SPOOL_FULL => "the satellite had no room left to keep results: the oldest made room for newer ones",
        SPOOL_AGE => "they waited for the master longer than the satellite keeps results",
        SPOOL_DAMAGED => "the satellite could not read them back from its disk",
        SPOOL_END => {
            "the end of what a satellite's process wrote to its disk is unfinished or damaged; nobody knows how many it had"
        }
        LOST_BY_RESTORE => {
            "the master was restored from a backup that does not have them or does not know their checks, and no satellite \
             could send them again"
        }
        STRANDED => {
            "a satellite's process left them on a disk that no satellite has opened for a month; nobody knows how many they are"
        }
        MISSING => "the satellite sent what comes after them, and did not say why not them: somebody should look",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_sentence_of_its_own() {
        let names: Vec<&str> = include_str!("reason.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1))
            .collect();
        assert!(names.contains(&STRANDED) && names.len() >= 7, "{names:?}");
        let mut sentences: Vec<&str> =
            names.iter().map(|name| meaning(name).unwrap_or_else(|| panic!("{name} says nothing"))).collect();
        sentences.sort_unstable();
        sentences.dedup();
        assert_eq!(sentences.len(), names.len());
        assert_eq!(meaning("unreadable: batch body: nothing"), None, "it speaks for itself");
    }

    #[test]
    fn a_sentence_says_that_nobody_knows_how_many_where_that_is_so() {
        for reason in [SPOOL_FULL, SPOOL_AGE, SPOOL_DAMAGED, SPOOL_END, LOST_BY_RESTORE, STRANDED, MISSING] {
            let says = meaning(reason).is_some_and(|sentence| sentence.contains("nobody knows how many"));
            assert_eq!(says, is_open_ended(reason), "{reason}");
        }
    }
}
