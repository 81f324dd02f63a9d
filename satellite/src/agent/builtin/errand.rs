//! Work that may hang in the kernel (a dead NFS server, a process that is being torn down), sent out in a thread of its own and
//! not waited for longer than a limit. Knows nothing of the work.
//! The surprise: a thread that hangs cannot be ended. It keeps its place until the kernel lets it go; when all places are taken,
//! nothing more is sent out, and that is an answer too.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Errands under way in this process, those that hang among them. Further ones wait for a place, not longer than their limit.
pub const PLACES: usize = 32;

static FREE: Semaphore = Semaphore::const_new(PLACES);

/// No result came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It is still under way.
    #[error("no answer from the kernel within {0:?}")]
    Late(Duration),
    /// None of the places became free.
    #[error("{PLACES} earlier calls to the kernel have not come back")]
    Crowded,
    /// The thread ended without a result.
    #[error("the thread that was to find out has failed")]
    Failed,
}

/// Does the work on a thread where it may block, and waits at most `limit` for a place and as long again for the result.
///
/// # Errors
/// See [`Lost`].
pub async fn send<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
    send_within(&FREE, limit, work).await
}

async fn send_within<T: Send + 'static>(
    free: &'static Semaphore,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let place = match timeout(limit, free.acquire()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_)) => return Err(Lost::Failed),
        Err(_) => return Err(Lost::Crowded),
    };
    let done = spawn_blocking(move || {
        let _place = place;
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
        let hung = send_within(&ONE, SHORT, move || held.recv().is_err()).await;
        assert_eq!(hung, Err(Lost::Late(SHORT)));
        assert_eq!(send_within(&ONE, SHORT, || 1).await, Err(Lost::Crowded));
        drop(release);
        assert_eq!(send_within(&ONE, LONG, || 2).await, Ok(2));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_fails_is_told_and_gives_its_place_back() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let failed: Result<(), Lost> = send_within(&ONE, LONG, || panic!("as the test wants")).await;
        assert_eq!(failed, Err(Lost::Failed));
        assert_eq!(send_within(&ONE, LONG, || 3).await, Ok(3));
    }
}
