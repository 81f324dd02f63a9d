//! The interesting states: what many worlds must have been through, else they are too tame to prove anything. One table, a name and a
//! sentence each; whoever teaches the brains something adds its states here and calls `Witness::reach` where they are seen.

/// Name and meaning.
pub const LANDMARKS: &[(&str, &str)] = &[
    ("a batch comes again on another link", "what a link did not confirm was sent on the next one, and both came"),
    ("a batch of many results", "eight results or more shared one batch, one commit, one frame"),
    ("a batch overtakes one of the other stream", "live and backlog are two streams, and the later batch came first"),
    ("a batch that is known in part", "somebody sent again what was there, with more behind it"),
    ("a batch is torn in the middle of its record", "a power loss left whole sectors of what was being written"),
    ("a carried state is soft", "a grant brought a state in the middle of its attempts"),
    ("a check is taken from its owner", "ownership moved to another slot, or to nobody"),
    ("a check runs without the master", "a satellite with no link asked a daemon"),
    ("a claim is refused", "a process that was fenced asked for its slot while the holder lived"),
    ("a clock is hours wrong", "a machine's wall clock stepped by hours"),
    (
        "a clock step of a satellite is recorded",
        "a satellite's wall clock was set, and the journal says when and by how much",
    ),
    ("a clock step of the master is recorded", "the master's own wall clock was set, and the journal says by how much"),
    ("a command is given", "an operator asked something of the owner of a check"),
    ("a command waits because its owner is of the version before", "it knows no commands, and is never sent one"),
    ("a command waits for a silent owner", "a command was taken while nobody who owns its check was connected"),
    ("a command waits for the first owner", "a command was taken for a check that nobody owned yet"),
    ("a command was not committed", "the operator's command met a disk that refused it"),
    ("a commit failed", "the master's disk refused a group"),
    ("a commit outlived its master", "the master died with a group on its way that had reached the disk all the same"),
    ("a denied satellite is turned away", "a satellite whose certificate is on the deny list called"),
    ("a drained run went on", "a run called complete had a copy on another volume, and more of it came"),
    ("a gap nobody explained", "sequences were missing that no satellite had given up"),
    ("a gap that the satellite named", "what a satellite can no longer read is told in its place"),
    ("a group of many rows", "eight rows or more shared one commit"),
    ("a late result is the one whose state was told", "a result came behind the snapshot that had told its state"),
    ("a late result", "a result that something newer or another grant had overtaken"),
    ("a link dies before its hello is answered", "a satellite said who it is, and the link was gone"),
    ("a link flaps", "a link was cut again as soon as something waited behind it"),
    ("a link is closed for a failed commit", "who sent what could not be made durable is made to send it again"),
    (
        "a metrics store forgets what it was given",
        "a store was killed before it had written, and was given all of it again",
    ),
    ("a metrics store is behind", "eight rows or more waited for a store"),
    ("a minute after the heal every state is right", "what an owner knew 45 s after the heal was shown at 60 s"),
    ("a neighbour on the volume", "a process found another one alive on its volume"),
    ("a process ends with everything delivered", "told to end, a satellite left nothing behind"),
    ("a process has its slot back", "a process that was fenced holds its slot again"),
    ("a process is fenced while it ends", "a process that was told to end lost its slot before it had"),
    ("a process is fenced", "a process was told that another has its slot"),
    ("a process is sent for", "the holder of a slot is silent: who waits for it is told to claim it"),
    ("a packet comes twice and counts once", "the second copy of a packet came before the first"),
    ("a read fails", "a satellite's disk did not give back what it had taken"),
    ("a record is damaged that a checkpoint contains", "the master starts over a damaged record that it does not need"),
    (
        "a damaged journal is put back from a backup",
        "a row that only the journal had cannot be read: no start without a backup",
    ),
    (
        "a start falls back to the older checkpoint",
        "the newest one could not be read, and the state is the same all the same",
    ),
    ("a writer was overrun", "rows were trimmed before a metrics writer had sent them, and the journal names them"),
    ("a result comes an hour late", "a backlog of more than an hour was delivered"),
    ("a result is refused", "a result for a check that is unknown, another's, or that says what cannot be"),
    (
        "a result of another timeline at or above the first check id",
        "a result came whose check may be another object since a restore: a gap with a name",
    ),
    (
        "a result of another timeline below the first check id",
        "what a satellite saw under a store that is no more became history, and no state",
    ),
    ("a road that is cut is knocked at", "a satellite that had a link tried again every few seconds"),
    (
        "a road that never answered is tried once a minute",
        "a satellite that never had a link found nobody for minutes, and spares a firewall",
    ),
    ("a run is drained", "all of a run is at the master, and nothing is added to it"),
    ("a run is opened at a reconnect", "undelivered results became backlog, live results a run of their own"),
    ("a run is trimmed", "acknowledged batches were deleted"),
    ("a satellite comes back without its volume", "everything on a volume was lost"),
    ("a satellite of the version before", "a satellite knew the first protocol and nothing since"),
    (
        "a satellite stands still for longer than its lease",
        "a process was stopped, and its slot silent, without anything having ended",
    ),
    ("a satellite asks for credit", "more was at hand than the master had given credit for"),
    ("a satellite gives credit back", "what a burst had been given was not needed any more"),
    ("who sends beyond its credit is cut off", "somebody with a good certificate kept to nothing"),
    ("a second result of a command is not logged", "two owners did the same, and history has it once"),
    (
        "a second result of a lost timeline's command is not logged",
        "two owners had done the same before a restore, and history has it once",
    ),
    ("a slot changes hands", "a process took a slot that another had"),
    ("a slot has told its newest states", "a snapshot came to its end"),
    ("a slot is drained and keeps what nobody can take over", "there was no other slot of its region"),
    ("a directory is adopted by a living process", "what an ended process left was taken over without a restart"),
    ("a slot is drained", "an operator took a slot out of service"),
    ("a slot is lost and back as one incident", "nothing was heard of a slot for its limit, then it was there again"),
    ("a slot is out", "the master moved a silent slot's hosts"),
    ("a slot is stable again", "a slot that was out owns hosts again"),
    ("a slot is stale", "a slot was silent for longer than its lease"),
    ("a slot may own checks", "a slot came for the first time, or came back"),
    (
        "a slot tells what it saw of a check that has moved",
        "a result came from an owner that had lost the check meanwhile",
    ),
    (
        "a slot whose hosts moved heals without a new claim",
        "its process lived on out of sight and came back as the holder it was",
    ),
    ("a snapshot brings a hard problem", "a problem was confirmed out of sight, and told before the backlog"),
    (
        "a snapshot brings a state made under an older grant",
        "what was seen under a grant that has ended still counts where nothing is newer",
    ),
    ("a snapshot brings a state", "a state came before its result"),
    ("a start from disk", "a process began with the assignment that an earlier one had kept"),
    ("a state became hard out of the master's sight", "a problem was confirmed behind a cut"),
    ("a window is full", "as many batches were under way as may be without an acknowledgement"),
    ("a stream waits for a packet that was lost", "a later frame was whole before an earlier one, and came behind it"),
    ("a told state answers a command before its result", "a snapshot named a command that its owner had applied"),
    (
        "an acknowledged result came again after a restore",
        "what a lost store had promised was still on the volume that had sent it",
    ),
    ("an activation was not committed", "the operator's change met a disk that refused it"),
    ("an answer comes after the fence", "a daemon answered a process that had lost its slot meanwhile"),
    ("an answer is good for nothing", "a daemon answered a question that is another by now"),
    ("an earlier process's run is delivered", "a process found runs that an earlier one had left"),
    ("an ended run is named after a restore", "what was delivered to a lost store and deleted since is told as a gap"),
    ("an operator ends a cut", "a master that took itself for cut off was told that it is not"),
    ("an operator holds the moves", "an operator said that no host shall move"),
    ("an operator resumes the moves", "and that they may move again"),
    ("backlog", "results of an older run came"),
    (
        "batches of two links of one process come in turn",
        "a link that was given up still brought batches beside the next",
    ),
    ("commits fail in a row", "the master's disk refused more than two groups, one after the other"),
    ("eight satellites", "as many slots as a world may have were connected at once"),
    ("no run could be opened", "a satellite's disk refused a new run"),
    ("nonsense closes a link", "somebody said what cannot be read"),
    ("numbers go on above a lost timeline's", "a satellite had seen more than the restored store had given"),
    ("restore of an old backup", "the master's store was lost and put back as it was earlier"),
    (
        "others fill the volume, and the spool grows no more",
        "less was free than is left to others: the oldest results went, and the volume was not filled",
    ),
    (
        "results lay in the spool for too long and were given up",
        "the oldest results were older than the spool's age, were named a gap and deleted",
    ),
    ("results are in memory only", "a satellite's disk refused a batch"),
    ("the assignment was not kept", "a satellite's disk refused the assignment"),
    ("the master's clock has drifted", "the master's clock ran fast or slow, and nobody had set it"),
    ("the master comes back", "a master began with the journal of an earlier one"),
    ("the master holds itself cut off", "more than half of the slots were silent, and nothing moved"),
    (
        "the master stands still for longer than links do",
        "the master was stopped, its links were given up, and it went on",
    ),
    ("the master's time stands still", "the master's clock went back, and the journal's time did not"),
    ("the next owner of a check does what the former one was told", "a command outlived the owner it was given to"),
    ("the owner of a check is told a command", "a command reached a process that was there"),
    ("the power fails right behind a sync", "a machine went before anything else was done with what was durable"),
    ("the sixty-fourth run", "a satellite opened the last run that it may have undelivered"),
    ("the states were not kept", "a satellite's disk refused the states"),
    ("three processes of a slot are connected", "two claimants beside a holder"),
    ("two processes of a slot are connected", "one claimant beside a holder"),
    ("what was written is lost with the power", "a machine's memory took batches that were never synced"),
    (
        "memory is full and forced something out",
        "a disk took nothing for so long that the oldest results in memory became a gap",
    ),
    (
        "the end of a run is damaged",
        "the last record of a run could not be read, and nobody knows what stood behind it",
    ),
    ("the spool is full and forced something out", "the oldest results were named a gap and deleted"),
];

/// States that fewer than one world in thirty reaches, and how many worlds take one of them on average, as measured over 2,000. Three
/// hundred worlds may well have none of them; two thousand have all.
pub const RARE: &[(&str, u64)] = &[
    ("the sixty-fourth run", 250),
    ("a second result of a lost timeline's command is not logged", 200),
    ("a second result of a command is not logged", 65),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_state_is_named_once_and_explained() {
        let names: BTreeSet<&str> = LANDMARKS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), LANDMARKS.len());
        assert!(LANDMARKS.iter().all(|(name, meaning)| !name.is_empty() && meaning.len() > name.len() / 2));
    }

    #[test]
    fn what_is_rare_is_a_state_and_not_too_rare_for_two_thousand_worlds() {
        for (name, worlds) in RARE {
            assert!(LANDMARKS.iter().any(|(known, _)| known == name), "{name}");
            assert!((30..=400).contains(worlds), "{name}: one of {worlds}");
        }
    }
}
