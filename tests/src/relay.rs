//! A bad network of our own: a UDP relay between satellites and their master that delays, loses, doubles, damages, reorders, slows
//! and cuts, as `road` decides from a seed, and can come from another port from now on as a NAT does. It can be told otherwise at
//! any time and counts what it did. It sees datagrams, never what is in them.
//! The surprise: each client has a socket of its own towards the master, for that is all by which the master tells them apart.
#![expect(clippy::disallowed_methods, reason = "a shell room: datagrams arrive when they arrive")]

pub mod road;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle as Task;
use tokio::time::{Instant, sleep_until};

use self::road::Road;
pub use self::road::{Burst, Counts, Profile};

/// Largest datagram that is taken.
const DATAGRAM_BYTES: usize = 65_535;
/// Datagrams of the master that wait for the relay; more are lost, as in a full socket.
const WAITING: usize = 8_192;
/// Times that are remembered of datagrams into a cut road; later ones are only counted.
const KNOCKS: usize = 100_000;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the satellites to the master.
    Up,
    /// Back.
    Down,
}

#[derive(Debug)]
struct Direction {
    profile: Profile,
    road: Road,
}

#[derive(Debug)]
struct State {
    up: Direction,
    down: Direction,
    knocks: Vec<Duration>,
}

/// A running relay; it ends with this value.
#[derive(Debug)]
pub struct Relay {
    /// Where satellites find it.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    rebinds: mpsc::UnboundedSender<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    began: Instant,
}

impl Relay {
    /// A good road to the master, whose chances will be those of the seed.
    ///
    /// # Errors
    /// No socket or thread is to be had.
    pub fn start(master: SocketAddr, seed: u64) -> Result<Self> {
        let direction = |seed| Direction { profile: Profile::default(), road: Road::new(seed) };
        let state = State { up: direction(seed), down: direction(!seed), knocks: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (rebinds, orders) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let front = runtime.block_on(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).context("no UDP port for a relay")?;
        let address = front.local_addr()?;
        let began = Instant::now();
        let (sender, returned) = mpsc::channel(WAITING);
        let pump = Pump {
            front,
            master,
            began,
            state: Arc::clone(&state),
            flows: HashMap::new(),
            sender,
            due: BinaryHeap::new(),
            order: 0,
        };
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped => {}
                    () = pump.run(returned, orders) => {}
                }
            });
        });
        Ok(Self { address, state, rebinds, stop: Some(stop), thread: Some(thread?), began })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// From now on the directions are like this; what is on its way arrives as it would have.
    pub fn set(&self, up: Profile, down: Profile) {
        let mut state = self.state();
        state.up.profile = up;
        state.down.profile = down;
    }

    /// The same for both directions.
    pub fn both(&self, profile: Profile) {
        self.set(profile, profile);
    }

    /// The master sees every satellite come from another port from now on, and what it sends to the old one is lost.
    pub fn rebind(&self) {
        // A relay that has ended rebinds nothing.
        let _ = self.rebinds.send(());
    }

    /// What a direction did so far.
    #[must_use]
    pub fn counts(&self, way: Way) -> Counts {
        let state = self.state();
        match way {
            Way::Up => state.up.road.counts,
            Way::Down => state.down.road.counts,
        }
    }

    /// When datagrams of satellites came to a cut road, since the relay was started.
    #[must_use]
    pub fn knocks(&self) -> Vec<Duration> {
        self.state().knocks.clone()
    }

    /// The relay's clock, by which [`Relay::knocks`] are.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A relay that went wrong has been seen to by whoever asserts about what passed it.
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's socket towards the master.
struct Flow {
    socket: Arc<UdpSocket>,
    reader: Task<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A datagram on its way: when it arrives, in which order of two that arrive together, which way, whose, what.
type Due = Reverse<(Duration, u64, bool, SocketAddr, Vec<u8>)>;

struct Pump {
    front: UdpSocket,
    master: SocketAddr,
    began: Instant,
    state: Arc<Mutex<State>>,
    flows: HashMap<SocketAddr, Flow>,
    sender: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    due: BinaryHeap<Due>,
    order: u64,
}

impl Pump {
    async fn run(
        mut self,
        mut returned: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
        mut orders: mpsc::UnboundedReceiver<()>,
    ) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            self.deliver().await;
            let next = self.due.peek().map(|Reverse((at, ..))| self.began + *at);
            tokio::select! {
                // An error of one datagram (a port that is closed) is the next one's chance.
                Ok((length, client)) = self.front.recv_from(&mut buffer) => {
                    self.take(Way::Up, client, buffer.get(..length).unwrap_or_default().to_vec());
                }
                Some((client, datagram)) = returned.recv() => self.take(Way::Down, client, datagram),
                Some(()) = orders.recv() => {
                    for client in self.flows.keys().copied().collect::<Vec<_>>() {
                        self.flows.remove(&client);
                        self.flow(client).await;
                    }
                }
                () = sleep_until(next.unwrap_or(self.began)), if next.is_some() => {}
            }
        }
    }

    fn take(&mut self, way: Way, client: SocketAddr, mut datagram: Vec<u8>) {
        let now = self.began.elapsed();
        let mut state = lock(&self.state);
        let State { up, down, knocks } = &mut *state;
        let direction = match way {
            Way::Up => up,
            Way::Down => down,
        };
        if way == Way::Up && direction.profile.cut && knocks.len() < KNOCKS {
            knocks.push(now);
        }
        for at in direction.road.pass(&direction.profile, now, &mut datagram) {
            self.order += 1;
            self.due.push(Reverse((at, self.order, way == Way::Up, client, datagram.clone())));
        }
    }

    /// Sends what has arrived by now. A datagram that the kernel does not take is lost, as anywhere.
    async fn deliver(&mut self) {
        while self.due.peek().is_some_and(|Reverse((at, ..))| *at <= self.began.elapsed()) {
            let Some(Reverse((_, _, up, client, datagram))) = self.due.pop() else { return };
            if up {
                if let Some(socket) = self.flow(client).await {
                    let _ = socket.send(&datagram).await;
                }
            } else {
                let _ = self.front.send_to(&datagram, client).await;
            }
        }
    }

    /// The client's socket, made if it has none.
    async fn flow(&mut self, client: SocketAddr) -> Option<Arc<UdpSocket>> {
        if !self.flows.contains_key(&client) {
            // No master at a relay's own machine is asked from anywhere else.
            let from = match self.master {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)),
            };
            let socket = Arc::new(UdpSocket::bind(from).await.ok()?);
            socket.connect(self.master).await.ok()?;
            let (reading, sender) = (Arc::clone(&socket), self.sender.clone());
            let reader = tokio::spawn(async move {
                let mut buffer = vec![0; DATAGRAM_BYTES];
                loop {
                    // An error says that nobody listens there now; somebody may later.
                    let Ok(length) = reading.recv(&mut buffer).await else { continue };
                    let _ = sender.try_send((client, buffer.get(..length).unwrap_or_default().to_vec()));
                }
            });
            self.flows.insert(client, Flow { socket, reader });
        }
        self.flows.get(&client).map(|flow| Arc::clone(&flow.socket))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Plain;

    use super::*;
    use crate::wait::until;

    const SOON: Duration = Duration::from_secs(20);

    fn socket() -> Plain {
        let socket = Plain::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    fn heard(socket: &Plain) -> Option<(String, SocketAddr)> {
        let mut buffer = [0; 100];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        Some((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
    }

    #[test]
    fn words_go_both_ways_and_a_rebound_client_comes_from_another_port() {
        let (master, client) = (socket(), socket());
        let relay = Relay::start(master.local_addr().unwrap(), 1).unwrap();
        client.send_to(b"hello", relay.address).unwrap();
        let (said, from) = heard(&master).unwrap();
        assert_eq!(said, "hello");
        master.send_to(b"welcome", from).unwrap();
        assert_eq!(heard(&client), Some(("welcome".to_owned(), relay.address)));
        relay.rebind();
        let moved = until(SOON, || {
            client.send_to(b"again", relay.address).unwrap();
            heard(&master).is_some_and(|(_, now)| now != from)
        });
        assert!(moved);
        assert_eq!(relay.counts(Way::Down).came, 1);
    }

    #[test]
    fn a_cut_road_carries_nothing_and_counts_who_knocked() {
        let (master, client) = (socket(), socket());
        let relay = Relay::start(master.local_addr().unwrap(), 1).unwrap();
        relay.both(Profile { cut: true, ..Profile::default() });
        client.send_to(b"hello", relay.address).unwrap();
        assert!(until(SOON, || relay.knocks().len() == 1));
        assert_eq!(heard(&master), None);
        relay.both(Profile::default());
        client.send_to(b"hello", relay.address).unwrap();
        assert!(heard(&master).is_some());
        assert_eq!(relay.counts(Way::Up).cut, 1);
    }

    #[test]
    fn a_delay_is_kept() {
        let (master, client) = (socket(), socket());
        master.set_read_timeout(Some(SOON)).unwrap();
        let relay = Relay::start(master.local_addr().unwrap(), 1).unwrap();
        relay.both(Profile { delay: Duration::from_millis(150), ..Profile::default() });
        let sent = relay.now();
        client.send_to(b"hello", relay.address).unwrap();
        assert!(heard(&master).is_some());
        assert!(relay.now() - sent >= Duration::from_millis(150));
    }
}
