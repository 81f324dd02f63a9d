//! What a spool gives up and what it cannot read: named a gap before it goes, and once.

use super::*;

/// Appends batches of one result with an incompressible text of 8 KiB each, one segment for about eight of them.
fn fill(spool: &mut Spool, run: &FoundRun, sequences: std::ops::RangeInclusive<u64>) {
    for sequence in sequences {
        let noise: Vec<u8> = (0..8192).map(|_| b'0' + rand::random::<u8>() % 64).collect();
        append(spool, run, vec![batch(run, sequence, sequence, State::Ok, &String::from_utf8(noise).unwrap())]);
    }
}

fn give_up(spool: &mut Spool, run: RunId, first: u64, up_to: u64, reason: &'static str) -> Option<Answer> {
    let order = Command::GiveUp { run, first: Sequence(first), up_to: Sequence(up_to), reason };
    spool.execute(Order::Do(order))
}

fn lost(found: &ReadBatches) -> Vec<(u64, u64, &str)> {
    found.lost.iter().map(|gap| (gap.first.0, gap.last.0, gap.reason.as_str())).collect()
}

fn pieces(spool: &mut Spool, run: RunId) -> Vec<u64> {
    let Some(Answer::Measured { extents }) = spool.execute(Order::Do(Command::Measure)) else { panic!("no answer") };
    let extent = extents.into_iter().find(|extent| extent.run == run).unwrap();
    assert!(extent.pieces.iter().all(|piece| piece.begun == Some(Timestamp::from_millis(2))));
    extent.pieces.iter().map(|piece| piece.last.0).collect()
}

#[test]
fn what_is_given_up_is_a_gap_before_it_is_deleted_and_stays_one() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open_small(data.path());
    let run = beginning.open;
    fill(&mut spool, &run, 1..=40);
    let ends = pieces(&mut spool, run.run);
    assert!(ends.len() >= 4 && ends.last() == Some(&40), "{ends:?}");
    let before = spool.bytes();
    // Without a durable gap nothing is deleted.
    let dir = spool.own.runs[&run.run].path().to_owned();
    fs::create_dir(dir.join("lost.new")).unwrap();
    let answer = give_up(&mut spool, run.run, 1, ends[0], "spool-full");
    assert!(matches!(answer, Some(Answer::GiveUpFailed)), "{answer:?}");
    assert_eq!(spool.bytes(), before);
    fs::remove_dir(dir.join("lost.new")).unwrap();

    let answer = give_up(&mut spool, run.run, 3, ends[0], "spool-full");
    assert!(matches!(answer, Some(Answer::GivenUp { lost, .. }) if lost == ends[0] - 2), "{answer:?}");
    let answer = give_up(&mut spool, run.run, 3, ends[1], "spool-full");
    assert!(matches!(answer, Some(Answer::GivenUp { lost, .. }) if lost == ends[1] - ends[0]), "{answer:?}");
    give_up(&mut spool, run.run, 3, ends[2], "spool-age");
    assert!(spool.bytes() < before);
    let named = [(3, ends[1], "spool-full"), (ends[1] + 1, ends[2], "spool-age")];
    let found = read(&mut spool, run.run, 1);
    assert_eq!(lost(&found), named);
    assert_eq!(found.trimmed_below, Sequence(ends[2] + 1));
    assert_eq!(found.batches.len() as u64, 40 - ends[2]);
    let times = (found.lost[0].from, found.lost[0].to);
    assert_eq!(times, (Some(Timestamp::from_millis(2)), Some(Timestamp::from_millis(2))));
    drop(spool);

    // The next process finds the same, and may give up all of it.
    let (mut spool, beginning) = open_small(data.path());
    assert_eq!(beginning.earlier[0].last, Sequence(40));
    assert_eq!(lost(&read(&mut spool, run.run, 1)), named);
    assert_eq!(lost(&read(&mut spool, run.run, ends[1] + 1)), named[1..]);
    let held = spool.bytes();
    give_up(&mut spool, run.run, 1, 40, "spool-full");
    assert!(spool.bytes() < held / 2);
    let all = [named[0], named[1], (ends[2] + 1, 40, "spool-full")];
    for _ in 0..2 {
        let found = read(&mut spool, run.run, 1);
        assert_eq!((lost(&found), found.batches.len(), found.through), (all.to_vec(), 0, Sequence(40)));
        drop(spool);
        let (again, beginning) = open_small(data.path());
        assert_eq!(beginning.earlier[0].last, Sequence(40));
        spool = again;
    }
}

#[test]
fn segments_that_come_back_after_their_gap_are_deleted_again() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open_small(data.path());
    let run = beginning.open;
    fill(&mut spool, &run, 1..=20);
    let ends = pieces(&mut spool, run.run);
    let dir = spool.own.runs[&run.run].path().to_owned();
    let files = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let oldest = files.filter(|path| path.extension().is_some_and(|e| e == "seg")).min().unwrap();
    let copy = fs::read(&oldest).unwrap();
    give_up(&mut spool, run.run, 1, ends[0], "spool-full");
    assert!(!oldest.exists());
    drop(spool);
    fs::write(&oldest, copy).unwrap();
    let (mut spool, _) = open_small(data.path());
    assert!(!oldest.exists());
    let found = read(&mut spool, run.run, 1);
    assert_eq!((lost(&found), found.batches.len() as u64), (vec![(1, ends[0], "spool-full")], 20 - ends[0]));
}

#[test]
fn an_end_that_cannot_be_read_is_a_gap_of_unknown_length() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open(data.path());
    let run = beginning.open;
    append(&mut spool, &run, vec![batch(&run, 1, 2, State::Ok, "a"), batch(&run, 3, 7, State::Ok, "b")]);
    let path = segment(&spool, run.run);
    drop(spool);
    let whole = fs::read(&path).unwrap();
    // The last record is damaged, or cut in its payload: its head still tells how far it went. Or nothing is left of it but a byte.
    let (body, head) = (whole.len() - 3, whole.len() - batch(&run, 3, 7, State::Ok, "b").bytes.len() - 39);
    for (cut, flip, last) in [(whole.len(), Some(body), 7), (body, None, 7), (head, None, 3)] {
        let mut bytes = whole[..cut].to_vec();
        if let Some(at) = flip {
            bytes[at] ^= 1;
        }
        fs::write(&path, bytes).unwrap();
        for _ in 0..2 {
            let (mut spool, beginning) = open(data.path());
            assert_eq!(beginning.earlier[0].last, Sequence(last));
            let found = read(&mut spool, run.run, 1);
            assert_eq!((lost(&found), found.through), (vec![(3, last, "spool-end-unknown")], Sequence(last)));
            assert_eq!(found.batches.len(), 1);
        }
    }
}

#[test]
fn what_was_trimmed_is_no_loss_although_nobody_says_yet_what_the_master_has() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open_small(data.path());
    let run = beginning.open;
    fill(&mut spool, &run, 1..=40);
    let ends = pieces(&mut spool, run.run);
    spool.execute(Order::Do(Command::Trim { run: run.run, up_to: Sequence(ends[0]) }));
    drop(spool);
    // The next process knows of no acknowledgement, and must make room before it has heard of one.
    let (mut spool, beginning) = open_small(data.path());
    assert_eq!(beginning.earlier[0].first, Sequence(ends[0] + 1));
    let answer = give_up(&mut spool, run.run, 1, ends[1], "spool-full");
    assert!(matches!(answer, Some(Answer::GivenUp { lost, .. }) if lost == ends[1] - ends[0]), "{answer:?}");
    assert_eq!(lost(&read(&mut spool, run.run, 1)), [(ends[0] + 1, ends[1], "spool-full")]);
}

#[test]
fn an_end_that_cannot_be_read_is_not_forgotten_when_all_before_it_was_given_up() {
    let data = tempfile::tempdir().unwrap();
    let (mut spool, beginning) = open_small(data.path());
    let run = beginning.open;
    fill(&mut spool, &run, 1..=20);
    let ends = pieces(&mut spool, run.run);
    let whole = ends[ends.len() - 2];
    let dir = spool.own.runs[&run.run].path().to_owned();
    drop(spool);
    let files = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.filter(|path| path.extension().is_some_and(|e| e == "seg")).max().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    assert!(bytes.len() > 2048, "{}", bytes.len());
    bytes[1024..].iter_mut().step_by(512).for_each(|byte| *byte ^= 1);
    fs::write(&newest, bytes).unwrap();
    let (mut spool, _) = open_small(data.path());
    give_up(&mut spool, run.run, 1, whole, "spool-full");
    drop(spool);
    for _ in 0..2 {
        let (mut spool, _) = open_small(data.path());
        let found = read(&mut spool, run.run, 1);
        let named = lost(&found);
        assert_eq!(named[0], (1, whole, "spool-full"));
        assert!(
            matches!(named[1], (first, last, "spool-end-unknown") if first == whole + 1 && last >= first),
            "{named:?}"
        );
    }
}
