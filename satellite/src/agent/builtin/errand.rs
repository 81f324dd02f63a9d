//! Work that may hang in the kernel (a dead NFS server, a process that is being torn down), sent out in a thread of its own and
//! not waited for longer than a limit. Knows nothing of the work.
//! The surprise: a thread that hangs cannot be ended. It keeps its place until the kernel lets it go; so one errand that hangs
//! about a subject is enough, and further ones about it are answered at once.
#![expect(clippy::disallowed_methods, reason = "a shell room: it knows since when an errand is under way")]

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

/// Errands under way in this process, those that hang among them. Further ones wait for a place, not longer than their limit.
pub const PLACES: usize = 32;

static FREE: Semaphore = Semaphore::const_new(PLACES);

/// By subject: when each errand about it set out. Bounded by the places.
static UNDER_WAY: Mutex<BTreeMap<String, Vec<Instant>>> = Mutex::new(BTreeMap::new());

/// No result came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It is still under way.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// None of the places became free.
    #[error("{PLACES} earlier calls to the kernel have not come back")]
    Crowded,
    /// The thread ended without a result.
    #[error("the thread that was to find out has failed")]
    Failed,
}

/// Does the work on a thread where it may block, and waits at most `limit` for a place and as long again for the result. While an
/// errand about the same subject is under way for longer than that already, none is sent.
///
/// # Errors
/// See [`Lost`].
pub async fn send_about<T: Send + 'static>(
    subject: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    send_within(&FREE, subject, limit, work).await
}

fn under_way() -> MutexGuard<'static, BTreeMap<String, Vec<Instant>>> {
    // Nobody panics while holding it; and if, the list is still a list.
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An errand's entry in the list, struck out when the thread comes back.
struct Entry {
    subject: String,
    since: Instant,
}

impl Entry {
    fn new(subject: &str) -> Self {
        let since = Instant::now();
        under_way().entry(subject.to_owned()).or_default().push(since);
        Self { subject: subject.to_owned(), since }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut list = under_way();
        if let Some(errands) = list.get_mut(&self.subject) {
            if let Some(at) = errands.iter().position(|since| *since == self.since) {
                errands.swap_remove(at);
            }
            if errands.is_empty() {
                list.remove(&self.subject);
            }
        }
    }
}

fn hangs(subject: &str, limit: Duration) -> bool {
    under_way().get(subject).is_some_and(|errands| errands.iter().any(|since| since.elapsed() > limit))
}

async fn send_within<T: Send + 'static>(
    free: &'static Semaphore,
    subject: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    if hangs(subject, limit) {
        return Err(Lost::Late(limit));
    }
    let place = match timeout(limit, free.acquire()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_)) => return Err(Lost::Failed),
        Err(_) => return Err(Lost::Crowded),
    };
    let entry = Entry::new(subject);
    let done = spawn_blocking(move || {
        let _held = (place, entry);
        work()
    });
    match timeout(limit, done).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(Lost::Failed),
        Err(_) => Err(Lost::Late(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_hangs_keeps_its_place_until_it_comes_back() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let (release, held) = mpsc::channel::<()>();
        let hung = send_within(&ONE, "one", SHORT, move || held.recv().is_err()).await;
        assert_eq!(hung, Err(Lost::Late(SHORT)));
        assert_eq!(send_within(&ONE, "other", SHORT, || 1).await, Err(Lost::Crowded));
        drop(release);
        assert_eq!(send_within(&ONE, "other", LONG, || 2).await, Ok(2));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_hangs_is_not_asked_a_second_time() {
        static THREE: Semaphore = Semaphore::const_new(3);
        let (release, held) = mpsc::channel::<()>();
        let hung = send_within(&THREE, "dead", SHORT, move || held.recv().is_err()).await;
        assert_eq!(hung, Err(Lost::Late(SHORT)));
        for _ in 0..20 {
            // Were it sent out, this work would give a result.
            assert_eq!(send_within(&THREE, "dead", SHORT, || true).await, Err(Lost::Late(SHORT)));
        }
        assert_eq!(THREE.available_permits(), 2);
        drop(release);
        while hangs("dead", SHORT) {
            tokio::task::yield_now().await;
        }
        assert_eq!(send_within(&THREE, "dead", LONG, || true).await, Ok(true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_fails_is_told_and_gives_its_place_back() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let failed: Result<(), Lost> = send_within(&ONE, "fails", LONG, || panic!("as the test wants")).await;
        assert_eq!(failed, Err(Lost::Failed));
        assert_eq!(send_within(&ONE, "fails", LONG, || 3).await, Ok(3));
    }
}
