//! Space and inodes of file systems against thresholds of what is free or used, in the words and figures of check_disk.
//! Judges what was found at each mount; `disk/mounts` says which mounts count, `volume` asks the kernel.
//! The surprise: as in check_disk, percentages leave out the blocks kept for root, while the thresholds in performance data are
//! of the whole size.

pub mod mounts;

use shared::check::State;

use super::limit::{Limits, Sense, Unit, percent};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures, plain, worse};
use mounts::Choice;

/// Options by which file systems are chosen, the same for both built-ins.
macro_rules! manual {
    ($name:literal, $about:literal, [$($known:expr),* $(,)?], $example:literal, $notes:literal) => {
        Manual {
            name: $name,
            about: $about,
            operands: "",
            options: &[
                $($known,)*
                Known { short: Some('p'), long: "path", value: "PATH", help: "This file system only: its mount point or any path on it (repeat)" },
                Known { short: Some('x'), long: "exclude", value: "PATH", help: "Leave out this mount point or device; `*` at the end: all that begin so (repeat)" },
                Known { short: Some('X'), long: "exclude-type", value: "TYPE", help: "Leave out this type: tmpfs, nfs … (repeat)" },
                Known { short: Some('N'), long: "include-type", value: "TYPE", help: "These types only (repeat)" },
                Known { short: Some('l'), long: "local", value: "", help: "Leave out file systems of other machines: nfs, cifs …" },
                Known { short: Some('e'), long: "errors-only", value: "", help: "Name only file systems with a problem" },
            ],
            example: $example,
            notes: $notes,
        }
    };
}

/// The page of `disk`.
pub const MANUAL: Manual = manual!(
    "disk",
    "Free or used space of file systems",
    [
        Known {
            short: Some('w'),
            long: "warning",
            value: "LIMIT",
            help: "WARNING when so little is free: 10%, 5G (a number alone: MiB), or a range"
        },
        Known { short: Some('c'), long: "critical", value: "LIMIT", help: "CRITICAL when so little is free" },
        Known { short: Some('u'), long: "used", value: "", help: "Limits are of what is used: the most there may be" },
        Known { short: Some('W'), long: "iwarning", value: "PERCENT", help: "WARNING when so few inodes are free" },
        Known { short: Some('K'), long: "icritical", value: "PERCENT", help: "CRITICAL when so few inodes are free" },
    ],
    "-w 10% -c 5%",
    "Without -p: every file system that holds data, once; not proc, sysfs and their like, not images that are always full\n\
     (squashfs, iso9660). A file system that does not answer within 3 s is CRITICAL, and so is a PATH that is not there."
);

/// The page of `inodes`.
pub const MANUAL_INODES: Manual = manual!(
    "inodes",
    "Free or used inodes of file systems",
    [
        Known {
            short: Some('w'),
            long: "warning",
            value: "LIMIT",
            help: "WARNING when so few are free: 10%, 50000, or a range"
        },
        Known { short: Some('c'), long: "critical", value: "LIMIT", help: "CRITICAL when so few are free" },
        Known { short: Some('u'), long: "used", value: "", help: "Limits are of what is used: the most there may be" },
    ],
    "-w 10% -c 5%",
    "File systems without a fixed number of inodes (btrfs, vfat) are left out, or OK where -p names them."
);

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Which file systems.
    pub choice: Choice,
    space: Option<Limits>,
    inodes: Option<Limits>,
    used: bool,
    errors_only: bool,
}

/// What a file system says of itself, in bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// All blocks.
    pub total: u64,
    /// Free blocks, those for root among them.
    pub free: u64,
    /// Free blocks for everybody.
    pub available: u64,
    /// All inodes; 0: it has no fixed number.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// How the question to one file system ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// With figures.
    Space(Space),
    /// It cannot be asked; why.
    Closed(String),
}

/// One file system that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its mount point, or the path that was given where that is not there.
    pub point: String,
    /// What it said.
    pub found: Found,
}

impl Wanted {
    /// Reads the options of `disk`.
    ///
    /// # Errors
    /// A threshold is none.
    pub fn of_disk(given: &Given) -> Result<Self, Misuse> {
        let used = given.has("used");
        let sense = if used { Sense::Above } else { Sense::AtMost };
        let space = Limits::of(given, "warning", "critical", sense, Unit::Bytes(1 << 20))?;
        let inodes = Limits::of(given, "iwarning", "icritical", Sense::AtMost, Unit::Percent)?;
        let inodes = Some(inodes).filter(|limits| *limits != Limits::default());
        let errors_only = given.has("errors-only");
        Ok(Self { choice: Choice::of(given), space: Some(space), inodes, used, errors_only })
    }

    /// Reads the options of `inodes`.
    ///
    /// # Errors
    /// A threshold is none.
    pub fn of_inodes(given: &Given) -> Result<Self, Misuse> {
        let used = given.has("used");
        let sense = if used { Sense::Above } else { Sense::AtMost };
        let inodes = Limits::of(given, "warning", "critical", sense, Unit::CountOrPercent)?;
        let errors_only = given.has("errors-only");
        Ok(Self { choice: Choice::of(given), space: None, inodes: Some(inodes), used, errors_only })
    }
}

/// The judgement of one file system: state, what the text says, and whether it has anything to say.
fn judge_one(wanted: &Wanted, seen: &Seen, figures: &mut Figures) -> Option<(State, String)> {
    let point = plain(&seen.point);
    let space = match &seen.found {
        Found::Space(space) => space,
        Found::Closed(why) => return Some((State::Critical, format!("{point} is not accessible: {}", plain(why)))),
    };
    let (mut state, mut parts) = (State::Ok, Vec::new());
    if let Some(limits) = &wanted.space {
        let available = space.available as f64;
        let used = space.total.saturating_sub(space.free) as f64;
        let total = space.total as f64;
        // df and check_disk count so: what is kept for root is neither used nor to be had.
        let free_share = percent(available, used + available, 100.0);
        state = worse(state, limits_state(limits, wanted.used, used, available, free_share));
        let shown = if wanted.used { limits.shown(total) } else { limits.shown_as_rest(total) };
        figures.add(&seen.point, used, "B", shown, Some(0.0), Some(total));
        parts.push(format!("{:.0}MiB ({free_share:.0}%", available / 1_048_576.0));
    }
    if space.inodes > 0 {
        let total = space.inodes as f64;
        let free = space.inodes_free.min(space.inodes) as f64;
        let free_share = percent(free, total, 100.0);
        if let Some(limits) = &wanted.inodes {
            // `--used` of disk is about space: its inode limits are of what is free.
            let of_used = wanted.used && wanted.space.is_none();
            state = worse(state, limits_state(limits, of_used, total - free, free, free_share));
            let shown = if of_used { limits.shown(total) } else { limits.shown_as_rest(total) };
            figures.add(&format!("{} (inodes)", seen.point), total - free, "", shown, Some(0.0), Some(total));
        }
        match wanted.space.is_some() {
            true => parts.push(format!(" inode={free_share:.0}%")),
            false => parts.push(format!("{free:.0} ({free_share:.0}%")),
        }
    } else if wanted.space.is_none() {
        return (!wanted.choice.paths.is_empty()).then(|| (State::Ok, format!("{point} has no fixed number")));
    }
    Some((state, format!("{point} {})", parts.concat())))
}

fn limits_state(limits: &Limits, of_used: bool, used: f64, free: f64, free_share: f64) -> State {
    if of_used { limits.state(used, 100.0 - free_share) } else { limits.state(free, free_share) }
}

/// State, text and performance data: used bytes by mount point, used inodes by mount point with ` (inodes)` behind it.
/// `closed` tells how many file systems, not asked for by name, may not be looked at by this user.
#[must_use]
pub fn judge(wanted: &Wanted, seen: &[Seen], closed: usize) -> Answer {
    let (headline, what) = if wanted.space.is_some() { ("DISK", "free space:") } else { ("INODES", "free inodes:") };
    let mut figures = Figures::default();
    let mut said: Vec<(State, String)> = seen.iter().filter_map(|seen| judge_one(wanted, seen, &mut figures)).collect();
    if said.is_empty() {
        return Answer::unknown(format!("{headline} UNKNOWN - there is no file system of this choice"));
    }
    let state = said.iter().fold(State::Ok, |state, (one, _)| worse(state, *one));
    // Problems first: on a screen the line is cut at its end.
    said.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    let named = said.iter().filter(|(state, _)| !wanted.errors_only || *state != State::Ok);
    let mut text = format!("{headline} {state} - {what}");
    for (_, part) in named {
        text.push(' ');
        text.push_str(part);
        text.push(';');
    }
    if closed > 0 {
        text.push_str(&format!(" {closed} not accessible to this user;"));
    }
    figures.answer(state, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;
    /// 100 GiB, 5 kept for root, 19 of 95 free for everybody.
    const ROOT: Space = Space { total: 100 * GIB, free: 24 * GIB, available: 19 * GIB, inodes: 1000, inodes_free: 960 };

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn seen(spaces: &[(&str, Found)]) -> Vec<Seen> {
        spaces.iter().map(|(point, found)| Seen { point: (*point).to_owned(), found: found.clone() }).collect()
    }

    fn disk(line: &str, spaces: &[(&str, Found)]) -> Answer {
        judge(&Wanted::of_disk(&MANUAL.read(&words(line)).unwrap()).unwrap(), &seen(spaces), 0)
    }

    fn inodes(line: &str, spaces: &[(&str, Found)]) -> Answer {
        judge(&Wanted::of_inodes(&MANUAL_INODES.read(&words(line)).unwrap()).unwrap(), &seen(spaces), 0)
    }

    #[test]
    fn a_fifth_is_free() {
        for (line, state) in [
            ("", State::Ok),
            ("-w 19% -c 10%", State::Ok),
            ("-w 20% -c 10%", State::Warning),
            ("-w 30% -c 20%", State::Critical),
            ("-w 19456", State::Warning),
            ("-w 19455", State::Ok),
            ("-w 20G -c 19G", State::Critical),
            ("-w 20%:", State::Ok),
            ("-c 20.1%:", State::Critical),
            ("-u -w 80%", State::Ok),
            ("-u -w 79% -c 90%", State::Warning),
            ("-u -c 75G", State::Critical),
            ("-W 95%", State::Ok),
            ("-W 96%", State::Warning),
            ("-w 1% -K 97", State::Critical),
        ] {
            assert_eq!(disk(line, &[("/", Found::Space(ROOT))]).state, state, "{line}");
        }
    }

    #[test]
    fn text_and_figures_are_check_disks() {
        assert_eq!(
            disk("-w 20% -c 10% -W 10%", &[("/", Found::Space(ROOT))]).text,
            "DISK WARNING - free space: / 19456MiB (20% inode=96%);|\
             /=81604378624B;85899345920;96636764160;0;107374182400 '/ (inodes)'=40;900;;0;1000"
        );
        let used = disk("-u -w 80% -c 90%", &[("/", Found::Space(ROOT))]).text;
        assert!(used.ends_with("|/=81604378624B;85899345920;96636764160;0;107374182400"), "{used}");
        assert_eq!(
            inodes("-w 10% -c 50", &[("/", Found::Space(ROOT))]).text,
            "INODES OK - free inodes: / 960 (96%);|'/ (inodes)'=40;900;950;0;1000"
        );
    }

    #[test]
    fn problems_stand_first_and_what_is_closed_is_critical() {
        let full = Space { available: 0, free: 0, ..ROOT };
        let all =
            [("/", Found::Space(ROOT)), ("/data", Found::Space(full)), ("/mnt", Found::Closed("no answer".to_owned()))];
        let answer = disk("-w 10% -c 0", &all);
        assert_eq!(answer.state, State::Critical);
        assert!(
            answer.text.starts_with(
                "DISK CRITICAL - free space: /data 0MiB (0% inode=96%); /mnt is not accessible: no answer; / 19456MiB"
            ),
            "{}",
            answer.text
        );
        assert!(!disk("-e -w 10% -c 0", &all).text.contains("19456MiB"));
        let wanted = Wanted::of_disk(&Given::default()).unwrap();
        assert!(judge(&wanted, &seen(&all[..1]), 2).text.contains("2 not accessible to this user"));
        assert_eq!(judge(&wanted, &[], 1).state, State::Unknown);
    }

    #[test]
    fn no_inodes_and_no_blocks_are_no_problem() {
        let none = Space { inodes: 0, inodes_free: 0, ..ROOT };
        assert_eq!(inodes("-w 10%", &[("/", Found::Space(none))]).state, State::Unknown);
        assert_eq!(
            inodes("-w 10% -p /", &[("/", Found::Space(none))]).text,
            "INODES OK - free inodes: / has no fixed number;"
        );
        assert_eq!(disk("-w 10% -c 5%", &[("/", Found::Space(Space::default()))]).state, State::Ok);
    }

    proptest! {
        #[test]
        fn any_figures_are_judged(values: [u64; 5], used: bool) {
            let [total, free, available, inodes, inodes_free] = values;
            let space = Space { total, free, available, inodes, inodes_free };
            let line = if used { "-u -w 80% -c 1P" } else { "-w 20% -c 3:1P -W 10%" };
            let answer = disk(line, &[("/", Found::Space(space))]);
            let parsed = shared::perfdata::parse(&shared::perfdata::split_output(&answer.text).perfdata);
            prop_assert_eq!(parsed.dropped, 0);
            prop_assert_eq!(&parsed.metrics[0].label, "/");
        }
    }
}
