//! Thousands of satellites in one process, as far as a master sees them: each with a certificate of its own slot, a QUIC connection of
//! its own and the real messages; only checks, disks and brains are left out. What they meet is counted. The surprise: several share a
//! UDP socket, because it is the master that is under test and not this machine's tables.
#![expect(
    clippy::disallowed_methods,
    reason = "a shell room: results carry this machine's time, and returns are timed"
)]

mod authority;
mod backlog;
pub mod scenes;
mod voice;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use quinn::Endpoint;
use shared::name::{RegionName, Slot, SlotNumber};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use authority::Authority;
use backlog::Backlog;
use voice::{LOOK, Voice};

/// Identities that share one socket.
const PER_SOCKET: usize = 250;
/// Identities begin in groups, like the tasks of an orchestrator: so many at once.
const AT_ONCE: usize = 50;

/// Everything counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Welcomed and not ended since.
    pub connected: AtomicUsize,
    /// Welcomed, ever.
    pub welcomes: AtomicUsize,
    /// Heartbeats sent.
    pub beats: AtomicUsize,
    /// Their answers.
    pub replies: AtomicUsize,
    /// Heartbeats without an answer when the next one was due.
    pub beats_lost: AtomicUsize,
    /// Links that have ended, and attempts that failed.
    pub ends: AtomicUsize,
    /// Identities that had a backlog to offer.
    pub offering: AtomicUsize,
    /// Bytes of it.
    pub offered_bytes: AtomicUsize,
    /// Results in it.
    pub offered_results: AtomicUsize,
    /// Identities whose backlog is acknowledged to its end.
    pub delivered: AtomicUsize,
}

/// What everybody who owns a check shall offer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offer {
    /// Full batches; 0 = nothing.
    pub batches: usize,
    /// Mean pause of an identity between two of them.
    pub pause: Duration,
    /// Without asking or waiting for credit, as no satellite does.
    pub beyond_credit: bool,
}

struct Crowd {
    authority: Authority,
    master: SocketAddr,
    counts: Arc<Counts>,
    offer: watch::Sender<Offer>,
    reasons: Mutex<BTreeMap<String, usize>>,
}

impl Crowd {
    fn ended(&self, reason: &str) {
        self.counts.ends.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }

    fn offered(&self, backlog: &Backlog) {
        let bytes = backlog.batches.iter().map(|(_, bytes)| bytes.len()).sum();
        self.counts.offering.fetch_add(1, Ordering::Relaxed);
        self.counts.offered_bytes.fetch_add(bytes, Ordering::Relaxed);
        let results = usize::try_from(backlog.last().0).unwrap_or(usize::MAX);
        self.counts.offered_results.fetch_add(results, Ordering::Relaxed);
    }
}

/// The crowd and the threads it lives on. All links end when it is dropped.
pub struct Storm {
    crowd: Arc<Crowd>,
    runtime: Runtime,
    regions: usize,
    endpoints: Vec<Endpoint>,
    begun: usize,
}

impl Storm {
    /// Nobody yet, for the master that has started in `data` and listens at `master`. Slots are spread over this many regions, named
    /// `r1`, `r2` and so on.
    ///
    /// # Errors
    /// The master's CA cannot be read, or no threads started.
    pub fn new(data: &Path, master: SocketAddr, regions: usize) -> Result<Self> {
        let crowd = Crowd {
            authority: Authority::open(data)?,
            master,
            counts: Arc::default(),
            offer: watch::Sender::default(),
            reasons: Mutex::default(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { crowd: Arc::new(crowd), runtime, regions: regions.max(1), endpoints: Vec::new(), begun: 0 })
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.crowd.counts
    }

    /// Why links and attempts have ended, and how often.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, usize> {
        self.crowd.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many are welcomed at this moment.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.crowd.counts.connected.load(Ordering::Relaxed)
    }

    /// Adds identities until there are so many; waits until all of them are welcomed, and says how long that took.
    ///
    /// # Errors
    /// They are not, within that time.
    pub fn grow(&mut self, to: usize, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        while self.begun < to {
            let group = AT_ONCE.min(to - self.begun);
            for _ in 0..group {
                self.begin()?;
            }
            // As many handshakes as the master's machine can do are under way: the next group when most are through.
            let through = self.begun.saturating_sub(AT_ONCE);
            self.until(within.saturating_sub(began.elapsed()), |storm| storm.connected() >= through)?;
        }
        self.until(within.saturating_sub(began.elapsed()), |storm| storm.connected() >= to)?;
        Ok(began.elapsed())
    }

    fn begin(&mut self) -> Result<()> {
        let _inside = self.runtime.enter();
        if self.begun.is_multiple_of(PER_SOCKET) {
            self.endpoints.push(Endpoint::client(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?);
        }
        let region: RegionName = format!("r{}", self.begun % self.regions + 1).parse()?;
        let number = u32::try_from(self.begun / self.regions + 1)?;
        let number = SlotNumber::new(number).context("no such slot")?;
        let endpoint = self.endpoints.last().context("no socket")?.clone();
        let (crowd, voice) = (Arc::clone(&self.crowd), Voice::new(Slot { region, number }));
        self.runtime.spawn(async move { voice.live(&crowd, &endpoint).await });
        self.begun += 1;
        Ok(())
    }

    /// Looks until `holds`.
    ///
    /// # Errors
    /// It does not within that time.
    pub fn until(&self, within: Duration, mut holds: impl FnMut(&Self) -> bool) -> Result<()> {
        let met = crate::wait::until_every(LOOK, within, || holds(self));
        let (counts, reasons) = (self.counts(), self.reasons());
        ensure!(
            met,
            "not within {within:?}: {} of {} connected, {counts:?}, {reasons:?}",
            self.connected(),
            self.begun
        );
        Ok(())
    }

    /// Everybody who owns a check offers this from now on.
    pub fn offer(&self, offer: Offer) {
        self.crowd.offer.send_replace(offer);
    }
}
