//! The pipe between a stream's task and its connection: bounded by bytes, because one message may be a word or half a megabyte.
//! Decides nothing about who is cut. The surprise: one message always fits an empty pipe, however long it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[derive(Debug)]
struct Level {
    most: usize,
    waiting: AtomicUsize,
    sunk: Notify,
}

/// The end that writes.
#[derive(Debug)]
pub(super) struct Outlet {
    level: Arc<Level>,
    sender: UnboundedSender<Bytes>,
}

/// The end that the connection reads.
#[derive(Debug)]
pub(super) struct Inlet {
    level: Arc<Level>,
    receiver: UnboundedReceiver<Bytes>,
}

/// A pipe in which at most `most` bytes wait.
pub(super) fn pair(most: usize) -> (Outlet, Inlet) {
    let level = Arc::new(Level { most, waiting: AtomicUsize::new(0), sunk: Notify::new() });
    // Bounded by `level`, which every writer asks first.
    let (sender, receiver) = unbounded_channel();
    (Outlet { level: Arc::clone(&level), sender }, Inlet { level, receiver })
}

impl Outlet {
    fn has_room(&self, bytes: usize) -> bool {
        let waiting = self.level.waiting.load(Ordering::Acquire);
        waiting == 0 || waiting.saturating_add(bytes) <= self.level.most
    }

    /// Writes without asking for room: for the few words at a stream's beginning and end, and after [`Outlet::room`].
    pub(super) fn push(&self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.level.waiting.fetch_add(bytes.len(), Ordering::AcqRel);
            // A reader that is gone is noticed by `closed`.
            let _ = self.sender.send(bytes);
        }
    }

    /// Writes if there is room; false if not.
    pub(super) fn offer(&self, bytes: Bytes) -> bool {
        let fits = self.has_room(bytes.len());
        if fits {
            self.push(bytes);
        }
        fits
    }

    /// Waits until less waits than half of what may.
    pub(super) async fn room(&self) {
        loop {
            let sunk = self.level.sunk.notified();
            if self.level.waiting.load(Ordering::Acquire) <= self.level.most / 2 {
                return;
            }
            sunk.await;
        }
    }

    /// Waits until nobody reads any more.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }
}

impl Inlet {
    /// The next bytes; `None` when the writer has gone and everything is read.
    pub(super) fn poll(&mut self, step: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let read = self.receiver.poll_recv(step);
        if let Poll::Ready(Some(bytes)) = &read {
            self.level.waiting.fetch_sub(bytes.len(), Ordering::AcqRel);
            self.level.sunk.notify_one();
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pipe_refuses_and_an_empty_one_takes_anything() {
        let (outlet, mut inlet) = pair(10);
        let waker = std::task::Waker::noop();
        let mut step = Context::from_waker(waker);
        assert!(outlet.offer(Bytes::from(vec![0; 50])), "one message always fits");
        assert!(!outlet.offer(Bytes::from_static(b"x")));
        assert!(inlet.poll(&mut step).is_ready());
        assert!(outlet.offer(Bytes::from_static(b"12345")) && outlet.offer(Bytes::from_static(b"67890")));
        assert!(!outlet.offer(Bytes::from_static(b"x")));
        outlet.push(Bytes::from_static(b"last words"));
        drop(outlet);
        for _ in 0..3 {
            assert!(matches!(inlet.poll(&mut step), Poll::Ready(Some(_))));
        }
        assert!(matches!(inlet.poll(&mut step), Poll::Ready(None)));
    }
}
