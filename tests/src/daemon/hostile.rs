//! Every kind of hostile or broken NRPE daemon that we know of, in one table: what it does, and how a check of it must end. Real
//! sockets, plain and inside TLS. Some only look hostile and are to be answered with what they said: then that is in the table.
//!
//! The surprise: nothing here depends on the client's patience. A daemon that hangs does so until its connection is closed.

mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use self::tls::{Flavour, Weak};
use super::script::Act::{self, Drip, Finish, Flood, Hang, Read, Repeat, Reset, Send};
use super::script::{hang, play};
use super::{Daemon, Seen, accept, wire};

/// How a check of a daemon ends that gave a whole answer, strange as it may be.
pub const ANSWERED: &str = "answered";
/// Every request has this size at least, so a daemon that has read so much has been asked.
const REQUEST: usize = 1036;
/// What "one byte per second" means.
const SLOW: Duration = Duration::from_secs(1);
/// Bytes that the kernel takes from a daemon before the client has read them.
const SEND_BUFFER: u32 = 64 * 1024;
/// Connections that may fit into the queue of a listener that was asked for none.
const QUEUE_TRIED: usize = 16;
/// A connection over loopback that is not there after this never will be.
const QUEUE_FULL: Duration = Duration::from_millis(300);
/// A close before any answer: what it is called depends on what is known of the daemon.
const CLOSED: &[&str] = &["eof-before-response", "refused-here", "request-refused"];

/// One kind.
#[derive(Debug, Clone)]
pub struct Kind {
    /// Its name, for messages.
    pub name: String,
    /// Whether a client is to speak TLS with it.
    pub tls: bool,
    /// The ways in which a check of it may end: names of error classes, or [`ANSWERED`].
    pub ends: &'static [&'static str],
    manner: Manner,
}

#[derive(Debug, Clone)]
enum Manner {
    /// Acts on bare TCP, whatever the client believes to speak.
    Tcp(Vec<Act>),
    /// Acts after an anonymous handshake.
    InTls(Vec<Act>),
    /// Acts after a handshake that is special.
    Special(Flavour, Vec<Act>),
    /// Asks again and again for a new handshake inside the first one.
    Renegotiating,
    /// Chooses a Diffie-Hellman group of so many bits.
    Weak(i32),
    /// Listens, and nobody accepts any more.
    Full,
    /// The port is taken, and nobody listens on it.
    Closed,
}

fn v4(code: i16, text: &[u8]) -> Vec<u8> {
    wire::answer(4, code, text)
}

/// An answer with bytes overwritten and its checksum made right again.
fn forged(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = v4(0, b"OK - all is well");
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet[4..8].fill(0);
    wire::seal(packet)
}

fn damaged(mut packet: Vec<u8>) -> Vec<u8> {
    packet[20] ^= 1;
    packet
}

/// Performance data with so many labels.
fn labels(count: usize) -> Vec<u8> {
    let mut text = b"OK|".to_vec();
    (0..count).for_each(|number| text.extend(format!("{number:x}=1 ").bytes()));
    text
}

/// What is done the same way on bare TCP and inside TLS, once the request is there.
fn after_the_request() -> Vec<(&'static str, Vec<Act>, &'static [&'static str])> {
    const LENGTH: &[&str] = &["protocol-length"];
    const CHECKSUM: &[&str] = &["protocol-checksum"];
    const TRUNCATED: &[&str] = &["protocol-truncated"];
    const FOREIGN: &[&str] = &["protocol-foreign"];
    const TIMEOUT: &[&str] = &["answer-timeout"];
    const TOO_MUCH: &[&str] = &["protocol-length", "protocol-foreign", "too-much-data"];
    const OK: &[&str] = &[ANSWERED];
    let asked = |acts: Vec<Act>| [vec![Read(REQUEST)], acts].concat();
    let says = |bytes: Vec<u8>| vec![Read(REQUEST), Send(bytes)];
    let hundred_megabytes = {
        let mut header = v4(0, b"")[..16].to_vec();
        header[12..16].copy_from_slice(&100_000_000_i32.to_be_bytes());
        vec![Read(REQUEST), Send(header), Flood(b'x')]
    };
    let odd_text =
        b"OK \xff\xfe caf\xe9 \x1b[2J\x1b]0;title\x07 \xe2\x80\xae dlrow \xe2\x81\xa6\x00 hidden|a=1".to_vec();
    vec![
        ("accepts and says nothing", vec![Hang], TIMEOUT),
        ("reads the request and says nothing", asked(vec![Hang]), TIMEOUT),
        ("one byte per second", asked(vec![Drip(v4(0, b"OK - in good time"), SLOW)]), TIMEOUT),
        ("hangs in the middle of the answer", asked(vec![Send(v4(0, b"OK - half")[..19].to_vec()), Hang]), TIMEOUT),
        ("closes without a word", asked(vec![]), CLOSED),
        ("closes its half and keeps the other", asked(vec![Finish, Hang]), CLOSED),
        ("reset after the request", asked(vec![Reset]), CLOSED),
        (
            "reset in the middle of the answer",
            asked(vec![Send(v4(0, b"OK - half")[..19].to_vec()), Reset]),
            // A reset may overtake what was sent before it.
            &["eof-in-response", "eof-before-response", "refused-here", "request-refused", "protocol-truncated"],
        ),
        ("closes in the header", says(v4(0, b"OK")[..7].to_vec()), TRUNCATED),
        ("closes in the body", says(v4(0, b"OK - a long text")[..22].to_vec()), TRUNCATED),
        ("length 0x7fffffff", says(forged(12, &i32::MAX.to_be_bytes())), LENGTH),
        ("negative length", says(forged(12, &(-1_i32).to_be_bytes())), LENGTH),
        ("length just too great", says(forged(12, &65_537_i32.to_be_bytes())), LENGTH),
        ("wrong checksum", says(damaged(v4(0, b"OK - a good text"))), CHECKSUM),
        (
            "wrong checksum in version 2, and never closes",
            asked(vec![Send(damaged(wire::answer(2, 0, b"OK - a good text"))), Hang]),
            CHECKSUM,
        ),
        ("an odd payload, and never closes", asked(vec![Send(wire::answer_v2(0, b"OK - fine", 1500)), Hang]), OK),
        (
            "the first of several packets, and never closes",
            asked(vec![Send(wire::part_v2(3, 0, b"more", 1024)), Hang]),
            TIMEOUT,
        ),
        ("the first of several packets", says(wire::part_v2(3, 0, b"more", 1024)), TRUNCATED),
        ("wrong checksum in version 2", says(damaged(wire::answer(2, 0, b"OK - a good text"))), CHECKSUM),
        ("version 9", says(forged(0, &[0, 9])), FOREIGN),
        ("a query as answer", says(forged(2, &[0, 1])), FOREIGN),
        ("HTTP", says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()), FOREIGN),
        ("zeros without end", asked(vec![Flood(0)]), TOO_MUCH),
        ("an answer without end", asked(vec![Send(vec![0, 2, 0, 2]), Flood(b'x')]), TOO_MUCH),
        ("packets without end", asked(vec![Repeat(wire::part_v2(3, 0, b"more ", 1024))]), TOO_MUCH),
        ("a hundred megabytes", hundred_megabytes, TOO_MUCH),
        ("a hundred thousand labels", says(v4(0, &labels(100_000))), LENGTH),
        ("as many labels as fit", says(v4(0, &labels(9_000))), OK),
        ("many replies", says(v4(0, b"OK - once").repeat(1000)), OK),
        ("version 2 for version 4", says(wire::answer(2, 0, b"OK - old")), OK),
        ("answers before it is asked", vec![Send(v4(0, b"OK - of course")), Read(REQUEST)], OK),
        ("answers a different query", says(v4(3, b"NRPE: Command 'format_disk' not defined")), OK),
        ("an impossible result code", says(v4(-1, b"OK - not at all")), OK),
        ("no text at all", says(v4(0, b"")), OK),
        ("NUL, ANSI, bidi and no UTF-8", says(v4(0, &odd_text)), OK),
    ]
}

/// What happens before TLS is there.
fn before_tls() -> Vec<(&'static str, Manner, &'static [&'static str])> {
    const CLOSED_IN_TLS: &[&str] = &["tls-closed", "refused-here"];
    // A handshake record of the greatest length, whose message (a ServerHello of 16 MiB) never ends.
    let mut endless = vec![0x16, 3, 3, 0x40, 0, 2, 0xff, 0xff, 0xff];
    endless.resize(5 + 0x4000, 0);
    let empty = vec![0x16, 3, 3, 0, 0];
    let hello_request = vec![0x16, 3, 3, 0, 4, 0, 0, 0, 0];
    let warning = vec![0x15, 3, 3, 0, 2, 1, 90];
    let tcp = |acts: Vec<Act>| Manner::Tcp(acts);
    let answers = || vec![Read(REQUEST), Send(v4(0, b"OK - inside"))];
    vec![
        ("silent in the handshake", tcp(vec![Hang]), &["tls-timeout"]),
        ("closes after the hello", tcp(vec![Read(100)]), CLOSED_IN_TLS),
        ("reset after the hello", tcp(vec![Read(100), Reset]), CLOSED_IN_TLS),
        ("reset at once", tcp(vec![Reset]), &["tls-closed", "refused-here", "connect-failed"]),
        ("HTTP for a hello", tcp(vec![Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Hang]), &["tls-not-tls"]),
        ("a refusal for a hello", tcp(vec![Send(vec![0x15, 3, 3, 0, 2, 2, 40]), Hang]), &["tls-alert-40"]),
        ("a slow hello", Manner::Tcp(vec![Read(100), Drip(endless[..64].to_vec(), SLOW)]), &["tls-timeout"]),
        (
            "a handshake without end",
            tcp(vec![Read(100), Repeat(endless)]),
            &["tls-failed", "too-much-data", "tls-not-tls"],
        ),
        (
            "empty records without end",
            tcp(vec![Read(100), Repeat(empty)]),
            &["tls-not-tls", "tls-failed", "too-much-data"],
        ),
        (
            "warnings without end",
            tcp(vec![Read(100), Repeat(warning)]),
            &["tls-failed", "too-much-data", "tls-timeout", "tls-alert-90"],
        ),
        (
            "requests for a handshake in the handshake",
            tcp(vec![Read(100), Repeat(hello_request)]),
            &["tls-failed", "too-much-data", "tls-timeout"],
        ),
        (
            "renegotiates without end",
            Manner::Renegotiating,
            &["too-much-data", "tls-failed", "answer-timeout", "eof-in-response"],
        ),
        ("a group of 512 bits", Manner::Weak(512), &["tls-dh-too-small"]),
        ("a group of 768 bits", Manner::Weak(768), &["tls-dh-too-small"]),
        ("TLS 1.0 only", Manner::Special(Flavour::Old, answers()), &[ANSWERED]),
        ("a certificate of another host", Manner::Special(Flavour::Certificate, answers()), &[ANSWERED]),
        (
            "a chain of certificates without end",
            Manner::Special(Flavour::Chain, answers()),
            &["tls-failed", "too-much-data"],
        ),
        // The second time a ticket is honoured, and then there is no flood.
        ("a flood of tickets", Manner::Special(Flavour::Tickets, answers()), &["too-much-data", ANSWERED]),
    ]
}

/// All kinds. The order and the names are the same at every call.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for (name, acts, ends) in after_the_request() {
        let plain = Manner::Tcp(acts.clone());
        kinds.push(Kind { name: name.to_owned(), tls: false, ends, manner: plain });
        kinds.push(Kind { name: format!("{name}, in TLS"), tls: true, ends, manner: Manner::InTls(acts) });
    }
    for (name, manner, ends) in before_tls() {
        kinds.push(Kind { name: name.to_owned(), tls: true, ends, manner });
    }
    let nobody: [(&str, Manner, &[&str]); 2] = [
        ("a port that nobody listens on", Manner::Closed, &["connect-refused"]),
        ("a full queue of connections", Manner::Full, &["connect-timeout"]),
    ];
    for (name, manner, ends) in nobody {
        kinds.push(Kind { name: name.to_owned(), tls: false, ends, manner });
    }
    kinds
}

impl Daemon {
    /// Starts a hostile daemon.
    ///
    /// # Errors
    /// Its port is taken, or TLS cannot be set up.
    pub async fn hostile(kind: &Kind, listen: SocketAddr) -> Result<Self> {
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        // A flood fills the client's buffers, not megabytes of this machine's.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        let address = socket.local_addr()?;
        let listener = match &kind.manner {
            Manner::Closed => {
                tasks.spawn(async move {
                    let _taken = socket;
                    std::future::pending::<()>().await;
                });
                return Ok(Self { address, seen, tasks });
            }
            Manner::Full => {
                let listener = socket.listen(0)?;
                let queued = fill(address).await?;
                tasks.spawn(async move {
                    let _kept = (listener, queued);
                    std::future::pending::<()>().await;
                });
                return Ok(Self { address, seen, tasks });
            }
            _ => socket.listen(1024)?,
        };
        let connection = Connection::new(&kind.manner)?;
        let connection = Arc::new(connection);
        tasks.spawn(accept(listener, Arc::clone(&seen), move |stream| {
            let connection = Arc::clone(&connection);
            async move { connection.serve(stream).await }
        }));
        Ok(Self { address, seen, tasks })
    }
}

/// What all connections of a hostile daemon share.
enum Connection {
    Tcp(Vec<Act>),
    Tls(tls::Acceptor, Vec<Act>),
    Renegotiating(tls::Acceptor),
    Weak(Weak),
}

impl Connection {
    fn new(manner: &Manner) -> Result<Self> {
        Ok(match manner {
            Manner::InTls(acts) => Self::Tls(tls::Acceptor::new(Flavour::Anonymous)?, acts.clone()),
            Manner::Special(flavour, acts) => Self::Tls(tls::Acceptor::new(*flavour)?, acts.clone()),
            Manner::Renegotiating => Self::Renegotiating(tls::Acceptor::new(Flavour::Forgeable)?),
            Manner::Weak(bits) => Self::Weak(Weak::new(*bits)?),
            Manner::Tcp(acts) => Self::Tcp(acts.clone()),
            Manner::Full | Manner::Closed => Self::Tcp(vec![Hang]),
        })
    }

    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        match self {
            Self::Tcp(acts) => play(stream, acts.clone()).await,
            Self::Tls(tls, acts) => play(tls.accept(stream).await?, acts.clone()).await,
            Self::Renegotiating(tls) => tls::renegotiate(tls.accept(stream).await?).await,
            Self::Weak(weak) => {
                let mut hello = vec![0; 4096];
                let length = stream.read(&mut hello).await?;
                stream.write_all(weak.answer(&hello[..length])).await?;
                hang(&mut stream).await
            }
        }
    }
}

/// Connects until the listener's queue takes no more.
async fn fill(address: SocketAddr) -> Result<Vec<TcpStream>> {
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(QUEUE_FULL, TcpStream::connect(address)).await {
        queued.push(stream?);
        ensure!(queued.len() < QUEUE_TRIED, "the queue of {address} is never full");
    }
    Ok(queued)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_has_every_kind_once() {
        let kinds = kinds();
        let names: BTreeSet<&str> = kinds.iter().map(|kind| kind.name.as_str()).collect();
        assert_eq!(names.len(), kinds.len());
        assert!(after_the_request().len() + before_tls().len() + 2 >= 50, "fewer than it had");
        assert!(kinds.iter().all(|kind| !kind.ends.is_empty()));
    }
}
