//! A small installation without its loop: rows are made by hand, committed to a real store, folded and published in the loop's order;
//! the interface is served on a real socket and asked by a real client.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use shared::assignment::Policy;
use shared::check::{Check, Exit, State, TcpCheck};
use shared::delivery::{BatchBuilder, BatchHeader};
use shared::name::{
    CheckId, Generation, Grant, JournalIndex, ObjectName, RegionName, RunCounter, RunId, Sequence, Slot, SlotNumber,
    Timeline,
};
use shared::result::CheckResult;
use shared::state::{CheckState, Confirmation, StateType};
use shared::time::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Bound, Inputs, Listeners, Request};
use crate::config::{Catalog, CheckDefinition, Host, Region, Vars};
use crate::coordinator::{SlotLink, View};
use crate::entry::{
    self, Activate, Batch, Change, Claim, Effect, Entry, Gap, Genesis, Moved, Named, Outcomes, Row, Verdict,
};
use crate::history::History;
use crate::status::Status;
use crate::store::{self, Commit, Done, Store};

/// Nothing that a test waits for takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(20);
const START: i64 = 1_790_000_000_000;

pub(crate) fn clock() -> Timestamp {
    Timestamp::from_millis(START + 3_600_000)
}

pub(crate) fn slot(region: &str, number: u32) -> Slot {
    Slot { region: region.parse().unwrap(), number: SlotNumber::new(number).unwrap() }
}

pub(crate) fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

/// A catalog of region `eu` (two slots) and `us` (one slot) with these objects; a host's name begins with its region.
pub(crate) fn catalog(objects: &[&str]) -> Catalog {
    let definition = |region: RegionName| CheckDefinition {
        check: Check::Tcp(TcpCheck::port("127.0.0.1", 1)),
        policy: Policy { check_interval_ms: 60_000, retry_interval_ms: 15_000, timeout_ms: 10_000, max_attempts: 3 },
        command_name: "tcp".into(),
        region,
    };
    let region = |slots| Region { slots, join: Vec::new(), failover_after_ms: 60_000 };
    let regions = BTreeMap::from([("eu".parse().unwrap(), region(2)), ("us".parse().unwrap(), region(1))]);
    let mut hosts = BTreeMap::new();
    let mut checks = BTreeMap::new();
    for object in objects.iter().map(|object| name(object)) {
        let region: RegionName = object.host.as_str().get(..2).unwrap().parse().unwrap();
        let groups: BTreeSet<String> = [region.to_string(), "all".to_owned()].into();
        let host = Host { region: region.clone(), address: "127.0.0.1".into(), groups, vars: Vars::default() };
        hosts.insert(object.host.clone(), host);
        checks.insert(object, definition(region));
    }
    Catalog::new(regions, hosts, checks, Vec::new())
}

/// A master without its loop.
pub(crate) struct Rig {
    pub(crate) data: PathBuf,
    pub(crate) store: Store,
    done: UnboundedReceiver<Done>,
    status: Status,
    links: BTreeMap<Slot, SlotLink>,
    view: watch::Sender<Arc<View>>,
    pub(crate) rows: broadcast::Sender<Arc<Vec<Row>>>,
    history: History,
    sequence: u64,
    pub(crate) requests: mpsc::Receiver<Request>,
    sender: mpsc::Sender<Request>,
    shutdown: CancellationToken,
    bound: Option<Bound>,
}

impl Rig {
    /// Opens the store in a directory; a new one is given its first row and `objects`.
    pub(crate) async fn open(data: &Path, objects: &[&str]) -> Self {
        Self::open_with(data, objects, store::Options::default()).await
    }

    /// The same with bounds of the store's.
    pub(crate) async fn open_with(data: &Path, objects: &[&str], options: store::Options) -> Self {
        let store::Opened { store, status, done, .. } = store::open(data, options).unwrap();
        let history = History::open(data, store.clone(), &status).unwrap();
        let (sender, requests) = mpsc::channel(4);
        let links = BTreeMap::new();
        let shown = View {
            status: Arc::new(status.clone()),
            links: links.clone(),
            held_off: false,
            read_only: false,
            credit: Default::default(),
            refused: BTreeMap::new(),
            future: 0,
        };
        let mut rig = Self {
            data: data.to_owned(),
            store,
            done,
            status,
            links,
            view: watch::channel(Arc::new(shown)).0,
            rows: broadcast::channel(64).0,
            history,
            sequence: 0,
            requests,
            sender,
            shutdown: CancellationToken::new(),
            bound: None,
        };
        if rig.status.installation.is_none() {
            let installation = "test".parse().unwrap();
            let genesis = Genesis { installation, timeline: Timeline(7), first_check: CheckId(1) };
            rig.add(Entry::Genesis(genesis), Outcomes::default()).await;
            rig.activate(&catalog(objects)).await;
        }
        rig.show();
        rig
    }

    /// Serves what there is: TCP on a free port of the loopback, and the local socket.
    pub(crate) async fn serve(&mut self, open_reads: bool) -> SocketAddr {
        self.serve_with(open_reads, None).await
    }

    /// The same, as HTTPS if there is a certificate and a key.
    pub(crate) async fn serve_with(&mut self, open_reads: bool, tls: Option<(PathBuf, PathBuf)>) -> SocketAddr {
        let inputs = self.inputs();
        let listeners =
            Listeners { tcp: Some("127.0.0.1:0".parse().unwrap()), tls, unix: self.data.join(api::SOCKET), open_reads };
        let bound = api::serve(listeners, inputs, self.shutdown.clone()).await.unwrap();
        let address = bound.tcp.unwrap();
        self.bound = Some(bound);
        address
    }

    /// What the interface reads and writes.
    pub(crate) fn inputs(&self) -> Inputs {
        Inputs {
            view: self.view.subscribe(),
            rows: self.rows.clone(),
            store: self.store.clone(),
            history: self.history.reader(),
            requests: self.sender.clone(),
            data: self.data.clone(),
            figures: Arc::new(Vec::new),
            source_differs: watch::channel(Some(false)).1,
            started: Timestamp::from_millis(START),
            clock,
        }
    }

    /// The state as published.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// What readers see.
    pub(crate) fn shown(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Ends everything, as the loop does.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(bound) = self.bound.take() {
            timeout(LONG, bound.task).await.unwrap().unwrap();
        }
        tokio::task::spawn_blocking(move || drop(self)).await.unwrap();
    }

    /// Commits, folds and publishes one row, in the loop's order.
    pub(crate) async fn add(&mut self, entry: Entry, outcomes: Outcomes) -> JournalIndex {
        let index = JournalIndex(self.status.head.0 + 1);
        let at = Timestamp::from_millis(START + 1000 * i64::try_from(index.0).unwrap());
        let row = Row { index, term: self.status.term, at, entry, outcomes };
        let catalog = match &row.entry {
            Entry::Activate(activate) => Some(self.store.revision(&activate.digest).unwrap()),
            _ => None,
        };
        self.store.append(Commit { record: entry::encode(std::slice::from_ref(&row)), last: index }).unwrap();
        assert!(matches!(self.done.recv().await, Some(Done::Committed { last }) if last == index));
        self.status.fold(&row, &row.items(), catalog.as_ref());
        let rows = Arc::new(vec![row]);
        self.history.feed(&rows);
        let _ = self.rows.send(rows);
        self.show();
        index
    }

    pub(crate) fn show(&self) {
        let shown = View {
            status: Arc::new(self.status.clone()),
            links: self.links.clone(),
            held_off: self.status.attention().moves_held(),
            read_only: false,
            credit: Default::default(),
            refused: BTreeMap::new(),
            future: 0,
        };
        self.view.send_replace(Arc::new(shown));
    }

    pub(crate) async fn activate(&mut self, catalog: &Catalog) -> JournalIndex {
        self.store.keep_revision(catalog).unwrap();
        let unknown: Vec<&ObjectName> = catalog.objects.keys().filter(|name| self.status.id(name).is_none()).collect();
        let named = (self.status.next_check.0..)
            .zip(unknown)
            .map(|(id, object)| Named { id: CheckId(id), object: object.clone() });
        let named: Vec<Named> = named.collect();
        let gone =
            self.status.objects().filter(|object| object.configured && !catalog.objects.contains_key(&object.name));
        let outcomes = Outcomes { removed: gone.map(|object| object.id).collect(), named, ..Outcomes::default() };
        let generation = Generation(self.status.generation.0 + 1);
        let digest = catalog.digest.to_string();
        self.add(Entry::Activate(Activate { generation, digest, author: "test".into() }), outcomes).await
    }

    /// A process takes a slot and is given everything of its region.
    pub(crate) async fn claim(&mut self, slot: Slot) -> JournalIndex {
        let catalog = self.status.catalog.clone().unwrap();
        let checks = catalog.objects.iter().filter(|(_, definition)| definition.region == slot.region);
        let changes: Vec<_> = checks.map(|(name, _)| (self.status.id(name).unwrap(), Some(slot.clone()))).collect();
        let outcomes = Outcomes { granted: entry::group_grants(changes), ..Outcomes::default() };
        let claim = Claim {
            slot: slot.clone(),
            instance: shared::name::InstanceId([3; 16]),
            remote: "192.0.2.1:5".into(),
            software: "0.1.0".into(),
        };
        self.link(&slot, true);
        self.add(Entry::Claim(claim), outcomes).await
    }

    /// The link of a slot comes or goes.
    pub(crate) fn link(&mut self, slot: &Slot, connected: bool) {
        let link = SlotLink {
            connected,
            remote: connected.then(|| "192.0.2.1:5".to_owned()),
            silent: Duration::ZERO,
            stale: !connected,
            settled: connected,
            applied: Some(self.status.generation),
            heartbeat: None,
            offset_ms: 0,
            others: 0,
            takes_commands: true,
        };
        self.links.insert(slot.clone(), link);
        self.show();
    }

    /// A batch of results: (object, observation, output).
    pub(crate) async fn results(&mut self, results: &[(&str, State, &str)]) -> JournalIndex {
        self.batch(results, Vec::new()).await
    }

    pub(crate) async fn batch(&mut self, results: &[(&str, State, &str)], gaps: Vec<Gap>) -> JournalIndex {
        let mut builder = BatchBuilder::default();
        let mut verdicts = Vec::new();
        let mut slot = slot("eu", 1);
        let first = Sequence(self.sequence + 1);
        let now = Timestamp::from_millis(START + 1000 * i64::try_from(self.status.head.0 + 1).unwrap());
        for (object, state, output) in results {
            let object = self.status.object(self.status.id(&name(object)).unwrap()).unwrap();
            let grant = object.owner.as_ref().map_or(Grant(0), |owner| owner.grant);
            slot = object.owner.as_ref().map_or(slot, |owner| owner.slot.clone());
            let (after, _) = object.state.apply(*state, Confirmation { max_attempts: 3 }, now);
            let from = object.state;
            let changed = after.state != from.state || after.state_type != from.state_type;
            let hard = after.state_type == StateType::Hard && after.hard != from.hard;
            let change = Change {
                from: from.state,
                from_type: from.state_type,
                to: after.state,
                to_type: after.state_type,
                hard,
                current: true,
                not_before: None,
            };
            verdicts.push(Verdict { effect: Effect::Current, change: changed.then_some(change) });
            builder.push(&result(object.id, grant, now, after, output));
            self.sequence += 1;
        }
        let last = Sequence(self.sequence);
        let run = RunId([9; 16]);
        let counter = RunCounter(1);
        let header =
            BatchHeader { timeline: Timeline(7), generation: self.status.generation, run, counter, first, last };
        let moved = Some(Moved { run, counter, position: last });
        let bytes = builder.finish(&header);
        self.add(Entry::Batch(Batch { slot, bytes }), Outcomes { moved, verdicts, gaps, ..Outcomes::default() }).await
    }
}

fn result(check: CheckId, grant: Grant, now: Timestamp, after: CheckState, output: &str) -> CheckResult {
    CheckResult {
        check,
        grant,
        scheduled: now,
        started: now,
        duration_us: 1500,
        exit: Some(Exit::Ran(0)),
        passive: false,
        output: output.to_owned(),
        long_output: String::new(),
        perfdata: "t=1s".to_owned(),
        metrics: Vec::new(),
        authenticated: Some(false),
        after,
        command: None,
        offset_ms: Some(0),
    }
}

/// One answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The names of a list's items, as `host` or `host!service`.
    pub(crate) fn names(&self) -> Vec<String> {
        let list = self.json();
        let items = list["items"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
        let part = |value: &Value| value.as_str().map(str::to_owned);
        items
            .iter()
            .map(|item| match part(&item["service"]) {
                Some(service) => format!("{}!{service}", part(&item["host"]).unwrap()),
                None => part(&item["host"]).unwrap(),
            })
            .collect()
    }
}

async fn exchange<S>(stream: S, request: hyper::Request<Full<Bytes>>) -> hyper::Response<Incoming>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    timeout(LONG, sender.send_request(request)).await.unwrap().unwrap()
}

async fn read(response: hyper::Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let bytes = timeout(LONG, body.collect()).await.unwrap().unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> hyper::Request<Full<Bytes>> {
    let mut request = hyper::Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost");
    }
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Full::new(body)).unwrap()
}

/// Asks over TCP.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask_with(address, method, path, headers, Bytes::new()).await
}

/// Asks over TCP with a body.
pub(crate) async fn ask_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    read(exchange(stream, request(method, path, headers, body)).await).await
}

/// Reads over TCP, where reads are open.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, &[]).await
}

/// Asks over the local socket.
pub(crate) async fn ask_locally(data: &Path, method: &str, path: &str) -> Answer {
    let stream = UnixStream::connect(data.join(api::SOCKET)).await.unwrap();
    read(exchange(stream, request(method, path, &[], Bytes::new())).await).await
}

/// One server-sent event with data.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// A client of the event stream that parses as a browser does.
pub(crate) struct Listener {
    body: Incoming,
    text: String,
    /// What a browser would send as Last-Event-ID.
    pub(crate) last_id: Option<u64>,
}

impl Listener {
    pub(crate) async fn connect(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (parts, _) = request("GET", path, headers, Bytes::new()).into_parts();
        let response = sender.send_request(hyper::Request::from_parts(parts, Empty::new())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut listener = Self { body: response.into_body(), text: String::new(), last_id: None };
        // The first block tells the place: from here on nothing is missed.
        let first = timeout(LONG, listener.block()).await.unwrap().unwrap();
        assert!(first.data.is_null() || first.name == "resync", "{first:?}");
        if first.name == "resync" {
            listener.text =
                format!("id: {}\nevent: resync\ndata: {}\n\n{}", first.id.unwrap(), first.data, listener.text);
        }
        listener
    }

    /// The next block, with or without data; `None` at the end.
    async fn block(&mut self) -> Option<Sent> {
        while !self.text.contains("\n\n") {
            let frame = self.body.frame().await?.ok()?;
            self.text.push_str(std::str::from_utf8(frame.data_ref()?).unwrap());
        }
        let (block, rest) = self.text.split_once("\n\n").unwrap();
        let (mut sent, rest) = (Sent { id: None, name: "message".into(), data: Value::Null }, rest.to_owned());
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => sent.id = Some(id.parse().unwrap()),
                Some(("event", event)) => sent.name = event.to_owned(),
                Some(("data", data)) => sent.data = serde_json::from_str(data).unwrap(),
                Some(("", _)) => {}
                other => panic!("no line of an event: {other:?}"),
            }
        }
        self.text = rest;
        self.last_id = sent.id.or(self.last_id);
        Some(sent)
    }

    /// The next event with data; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        let next = async {
            loop {
                let sent = self.block().await?;
                if !sent.data.is_null() {
                    return Some(sent);
                }
            }
        };
        timeout(LONG, next).await.expect("an event or the end of the stream")
    }
}
