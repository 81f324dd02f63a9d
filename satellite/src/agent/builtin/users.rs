//! How many users are logged in, in the words and figures of check_users: sessions that systemd-logind keeps, else the records of
//! utmp. Judges and reads texts; does not open files.
//! The surprise: Debian 13 has no utmp any more, and containers have neither; nobody is logged in there, which is no error.

use super::limit::{Limits, Sense, Unit};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures};

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "users",
    about: "Number of users logged in",
    operands: "",
    options: &[
        Known { short: Some('w'), long: "warning", value: "RANGE", help: "WARNING when more are logged in" },
        Known { short: Some('c'), long: "critical", value: "RANGE", help: "CRITICAL when more are logged in" },
    ],
    example: "-w 5 -c 10",
    notes: "Counts the sessions of systemd-logind, or the entries of /var/run/utmp where there is no logind.",
};

/// Size of one record of utmp with 32-bit times, as x86 and most others have it.
const RECORD: usize = 384;
/// The same on machines that never were 32-bit (aarch64, s390x …).
const RECORD_WIDE: usize = 400;
/// The type of a record that stands for a user's login (USER_PROCESS of utmp(5)).
const USER_PROCESS: i16 = 7;
/// Where in a record the user's name stands.
const NAME_AT: usize = 44;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    limits: Limits,
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// A threshold is none.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        Ok(Self { limits: Limits::of(given, "warning", "critical", Sense::Above, Unit::Count)? })
    }
}

/// State, text and performance data: `users`.
#[must_use]
pub fn judge(wanted: &Wanted, count: usize) -> Answer {
    let state = wanted.limits.state(count as f64, 0.0);
    let mut figures = Figures::default();
    figures.judged("users", count as f64, "", &wanted.limits, 0.0, None);
    let noun = if count == 1 { "user" } else { "users" };
    figures.answer(state, &format!("USERS {state} - {count} {noun} currently logged in"))
}

/// Whether a file of logind's (`/run/systemd/sessions/…`) is a session of somebody who is there.
#[must_use]
pub fn is_login(session: &str) -> bool {
    let value = |key: &str| session.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let class = value("CLASS").is_some_and(|class| class.starts_with("user"));
    class && value("STATE").is_none_or(|state| state != "closing")
}

/// Logins among the records of a file in the form of utmp(5).
#[must_use]
pub fn logins(utmp: &[u8]) -> usize {
    let fits = |size: usize| utmp.len().is_multiple_of(size);
    let size = if !fits(RECORD) && fits(RECORD_WIDE) { RECORD_WIDE } else { RECORD };
    let login = |record: &&[u8]| {
        let kind = record.first_chunk::<2>().map(|bytes| i16::from_ne_bytes(*bytes));
        kind == Some(USER_PROCESS) && record.get(NAME_AT).is_some_and(|first| *first != 0)
    };
    utmp.chunks_exact(size).filter(login).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::check::State;

    fn record(size: usize, kind: i16, name: &str) -> Vec<u8> {
        let mut record = vec![0; size];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
        record
    }

    #[test]
    fn logins_are_told_from_other_records() {
        for size in [RECORD, RECORD_WIDE] {
            let utmp: Vec<u8> = [(2, "reboot"), (7, "anna"), (7, ""), (8, "gone"), (7, "bert"), (6, "LOGIN")]
                .into_iter()
                .flat_map(|(kind, name)| record(size, kind, name))
                .collect();
            assert_eq!(logins(&utmp), 2, "{size}");
        }
        assert_eq!(logins(&[]), 0);
        assert_eq!(logins(&[7; 100]), 0);
    }

    #[test]
    fn sessions_of_the_system_are_no_logins() {
        for (session, login) in [
            ("UID=0\nUSER=root\nCLASS=user\nSTATE=active\n", true),
            ("CLASS=user-early\nSTATE=online\n", true),
            ("CLASS=user\nSTATE=closing\n", false),
            ("CLASS=manager\nSTATE=active\n", false),
            ("CLASS=greeter\nSTATE=active\n", false),
            ("", false),
        ] {
            assert_eq!(is_login(session), login, "{session}");
        }
    }

    #[test]
    fn more_than_the_limit_alerts() {
        let words = ["-w", "1", "-c", "2"].map(str::to_owned);
        let wanted = Wanted::of(&MANUAL.read(&words).unwrap()).unwrap();
        let states = [0, 1, 2, 3].map(|count| judge(&wanted, count).state);
        assert_eq!(states, [State::Ok, State::Ok, State::Warning, State::Critical]);
        assert_eq!(judge(&wanted, 1).text, "USERS OK - 1 user currently logged in|users=1;1;2;0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted(bytes in proptest::collection::vec(any::<u8>(), 0..2000), text in "(CLASS=.{0,6}|STATE=.{0,8}|\n){0,6}") {
            prop_assert!(logins(&bytes) <= bytes.len() / RECORD);
            let _ = is_login(&text);
        }
    }
}
