//! The wall clock of both programs: every time that is recorded, or compared with a recorded one, is read here. Nothing waits by it.
//!
//! The one room of `shared` that touches the machine, because both programs must mean the same by a time.
//!
//! The surprise: with `PERIGEE_CLOCK_OFFSET_FILE` the clock is off by what that file says at the moment, so that a test can set the
//! clock of one shipped program and of nothing else (docs/decisions/0012-clock-offset.md). Certificates are not looked at by it: TLS
//! reads the machine's clock itself.
#![expect(clippy::disallowed_methods, reason = "a shell room: it is the wall clock")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// Names the file with the offset.
pub const OFFSET_FILE: &str = "PERIGEE_CLOCK_OFFSET_FILE";
/// A clock is off by ten years at most, in milliseconds; a file that says more is not followed, so that times stay ones people can read.
const OFFSET_MAX_MS: u64 = 10 * 366 * 86_400_000;

/// Now.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(millis.saturating_add(offset_ms(offset_file(), |file| fs::read_to_string(file))))
}

/// The file by which this process's clock is off, if its environment names one. Asked for once: a process keeps the clock it began with.
pub fn offset_file() -> Option<&'static Path> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    named(&FILE, || env::var_os(OFFSET_FILE))
}

/// What `ask` said when it was asked first; it is not asked again.
fn named(file: &OnceLock<Option<PathBuf>>, ask: impl FnOnce() -> Option<OsString>) -> Option<&Path> {
    file.get_or_init(|| ask().map(PathBuf::from)).as_deref()
}

/// What to add, in milliseconds. Nothing is read without a file; one that is not there or says no such number is no offset.
fn offset_ms(file: Option<&Path>, read: impl FnOnce(&Path) -> io::Result<String>) -> i64 {
    let Some(file) = file else { return 0 };
    let text = read(file).unwrap_or_default();
    text.trim().parse().ok().filter(|offset: &i64| offset.unsigned_abs() <= OFFSET_MAX_MS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_within_bounds_is_an_offset() {
        let read = |file: &Path| offset_ms(Some(file), |file| fs::read_to_string(file));
        let file = env::temp_dir().join(format!("perigee-clock-offset-{}", std::process::id()));
        assert_eq!(read(&file), 0, "a file that is not there");
        let said =
            [("3600000\n", 3_600_000), ("-3600000", -3_600_000), ("", 0), ("1h", 0), ("-9223372036854775808", 0)];
        for (text, wanted) in said {
            fs::write(&file, text).unwrap();
            assert_eq!(read(&file), wanted, "{text:?}");
        }
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn without_the_variable_the_environment_is_asked_once_and_no_file_is_ever_read() {
        let file = OnceLock::new();
        assert_eq!(named(&file, || None), None);
        for _ in 0..3 {
            let known = named(&file, || panic!("the environment is asked again"));
            assert_eq!(offset_ms(known, |file| panic!("{} is read", file.display())), 0);
        }
    }

    #[test]
    fn with_the_variable_the_file_is_read_each_time() {
        let file = OnceLock::new();
        for offset in [-5, 0, 3_600_000] {
            let known = named(&file, || Some("offset".into()));
            let read = |file: &Path| {
                assert_eq!(file, Path::new("offset"));
                Ok(offset.to_string())
            };
            assert_eq!(offset_ms(known, read), offset);
        }
    }

    #[test]
    fn a_process_without_such_a_file_has_the_machines_clock() {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let off = now().as_millis().abs_diff(i64::try_from(machine).unwrap());
        assert!(offset_file().is_some() || off < 60_000, "{off} ms");
    }
}
