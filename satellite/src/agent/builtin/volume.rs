//! Asks file systems and single files how they are: each question in a thread of its own, since a dead server or device never
//! answers. Judges nothing.
#![expect(clippy::disallowed_methods, reason = "a shell room: the age of a file is counted from now")]

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use rustix::fs::statvfs;
use tokio::task::JoinSet;

use super::disk::mounts::{self, Mount};
use super::disk::{Found, Seen, Space, Wanted};
use super::errand::{self, Lost};
use super::file_age;
use super::kernel;

/// How long one file system may take, first for a free thread, then for its answer.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of the list of mounts that are read: some ten thousand mounts.
const MOUNTINFO_MAX: u64 = 4 * 1024 * 1024;
/// File systems that one check asks; further ones are left out. More than performance data can hold.
const ASKED_MAX: usize = 512;

/// What one question brought.
enum Told {
    Space(Space),
    /// A file is mounted here (`/etc/hosts` of a container), which is nobody's idea of a disk.
    NoFolder,
    /// This user may not look.
    Refused,
    Failed(String),
}

/// The file systems of a choice, each with what it said; and how many, not asked for by name, this user may not look at.
///
/// # Errors
/// The list of mounts cannot be read.
pub async fn look(wanted: &Wanted) -> Result<(Vec<Seen>, usize)> {
    let mounts = mounts::read(&kernel::text("/proc/self/mountinfo", MOUNTINFO_MAX)?);
    let mut seen = Vec::new();
    let named = !wanted.choice.paths.is_empty();
    let points = if named {
        let (points, missing) = homes(&wanted.choice.paths, &mounts).await;
        seen.extend(missing);
        points
    } else {
        wanted.choice.pick(&mounts).into_iter().map(|mount| mount.point).collect()
    };
    let mut asked = JoinSet::new();
    for (at, point) in points.into_iter().take(ASKED_MAX).enumerate() {
        asked.spawn(async move {
            let path = point.clone();
            let told = errand::send_about(&point, PATIENCE, move || ask(Path::new(&path))).await;
            (at, point, told)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(at, _, _)| *at);
    let mut closed = 0;
    for (_, point, told) in answers {
        let found = match told {
            Ok(Told::Space(space)) if named || space.total > 0 => Found::Space(space),
            Ok(Told::NoFolder) if named => Found::Closed("a file is mounted there".to_owned()),
            Ok(Told::Space(_) | Told::NoFolder) => continue,
            Ok(Told::Refused) if named => Found::Closed("Permission denied".to_owned()),
            Ok(Told::Refused) => {
                closed += 1;
                continue;
            }
            Ok(Told::Failed(why)) => Found::Closed(why),
            Err(lost) => Found::Closed(lost.to_string()),
        };
        seen.push(Seen { point, found });
    }
    Ok((seen, closed))
}

/// The mount points that the paths are on, each once; and the paths that are not there.
async fn homes(paths: &[String], mounts: &[Mount]) -> (Vec<String>, Vec<Seen>) {
    let (mut points, mut missing) = (Vec::new(), Vec::new());
    for path in paths {
        let given = path.clone();
        let found = errand::send_about(path, PATIENCE, move || std::fs::canonicalize(given)).await;
        let why = match found {
            Ok(Ok(whole)) => {
                let whole = whole.to_string_lossy();
                // In a chroot the list may begin below the root: then the path speaks for the file system that it is on.
                let point =
                    mounts::home_of(&whole, mounts).map_or_else(|| whole.into_owned(), |mount| mount.point.clone());
                if !points.contains(&point) {
                    points.push(point);
                }
                continue;
            }
            Ok(Err(error)) => sentence(&error),
            Err(lost) => lost.to_string(),
        };
        missing.push(Seen { point: path.clone(), found: Found::Closed(why) });
    }
    (points, missing)
}

fn ask(point: &Path) -> Told {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => Told::Refused,
        _ => Told::Failed(sentence(&error)),
    };
    match std::fs::metadata(point) {
        Ok(data) if !data.is_dir() => return Told::NoFolder,
        Ok(_) => {}
        Err(error) => return told(error),
    }
    match statvfs(point) {
        Ok(stat) => {
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            Told::Space(Space {
                total: bytes(stat.f_blocks),
                free: bytes(stat.f_bfree),
                available: bytes(stat.f_bavail),
                inodes: stat.f_files,
                inodes_free: stat.f_ffree,
            })
        }
        Err(error) => told(error.into()),
    }
}

/// Age and size of one file.
pub async fn file(path: &str) -> file_age::Reading {
    let given = path.to_owned();
    let found: Result<io::Result<file_age::Reading>, Lost> = errand::send_about(path, PATIENCE, move || {
        let data = std::fs::metadata(given)?;
        let changed = data.modified()?;
        let age = match SystemTime::now().duration_since(changed) {
            Ok(age) => age.as_secs_f64(),
            Err(future) => -future.duration().as_secs_f64(),
        };
        Ok(file_age::Reading::Found { age: age.floor(), size: data.len() })
    })
    .await;
    match found {
        Ok(Ok(reading)) => reading,
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            file_age::Reading::Missing
        }
        Ok(Err(error)) => file_age::Reading::Closed(sentence(&error)),
        Err(lost) => file_age::Reading::Closed(lost.to_string()),
    }
}

/// The system's sentence without the `(os error 2)` behind it.
fn sentence(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(sentence, _)| sentence).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::builtin::disk::MANUAL;
    use crate::agent::builtin::file_age::Reading;

    async fn looked(line: &str) -> Vec<Seen> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        look(&Wanted::of_disk(&MANUAL.read(&words).unwrap()).unwrap()).await.unwrap().0
    }

    #[tokio::test]
    async fn a_path_finds_its_file_system_once_and_a_missing_one_is_closed() {
        let seen = looked("-p / -p /etc -p /no/such/place").await;
        let missing = seen.iter().find(|seen| seen.point == "/no/such/place").unwrap();
        assert_eq!(missing.found, Found::Closed("No such file or directory".to_owned()));
        let root = seen.iter().filter(|seen| seen.point == "/").count();
        assert_eq!(root, 1);
        let Found::Space(space) = &seen.iter().find(|seen| seen.point == "/").unwrap().found else {
            panic!("{seen:?}")
        };
        assert!(space.total >= space.free && space.free >= space.available && space.total > 0);
    }

    #[tokio::test]
    async fn the_kernels_own_file_systems_are_left_out() {
        for seen in looked("").await {
            assert!(!seen.point.starts_with("/proc") && !seen.point.starts_with("/sys"), "{seen:?}");
        }
    }

    #[tokio::test]
    async fn a_file_has_an_age_or_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(5000);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        let Reading::Found { age, size } = file(path.to_str().unwrap()).await else { panic!("not found") };
        assert!((5000.0..6000.0).contains(&age) && size == 5, "{age} {size}");
        assert_eq!(file("/no/such/file").await, Reading::Missing);
        assert_eq!(file("/etc/passwd/x").await, Reading::Missing);
    }
}
