//! A client of the master's API, as small as it can be: JSON answers, history page by page, the event stream. Decides nothing about
//! what it reads. Written from HTTP itself: HTTP/1.0, so that an answer ends where its connection does.
//! The surprise: a stream keeps the half of a line that had come when the time was over, and goes on with it.
#![expect(clippy::disallowed_methods, reason = "a shell room: answers have real deadlines")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read; a longer one is an error.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Items asked for at once: the API's bound.
const PAGE: usize = 1000;

/// Where the API is, and who asks.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it listens.
    pub address: SocketAddr,
    /// Bearer token, where reads are not open.
    pub token: Option<String>,
}

/// One message of the event stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its id, from which a stream can be resumed.
    pub id: Option<String>,
    /// Its kind; `message` if it has none.
    pub event: String,
    /// What it says.
    pub data: Value,
}

/// An open event stream.
#[derive(Debug)]
pub struct Stream {
    /// The id seen last, also of messages that say nothing else: a stream resumed from here misses nothing.
    pub last_id: Option<String>,
    reader: BufReader<TcpStream>,
    line: Vec<u8>,
    lines: Vec<String>,
}

impl Client {
    /// A client without a token.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, token: None }
    }

    fn open(&self, method: &str, path: &str, more: &str, body: &str) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE);
        let mut stream = stream.with_context(|| format!("the API does not answer on {}", self.address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let authorization = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let authorization = authorization.unwrap_or_default();
        let address = self.address;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{authorization}{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(stream)
    }

    /// Status and body of the answer to a request without a body; a path is given as it is to be sent.
    ///
    /// # Errors
    /// No answer, or none that is HTTP.
    pub fn ask(&self, method: &str, path: &str) -> Result<(u16, String)> {
        self.exchange(method, path, "")
    }

    /// Status and JSON of the answer to a POST below `/api/v1`.
    ///
    /// # Errors
    /// No answer, or none that is HTTP with JSON in it.
    pub fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let (status, answer) = self.exchange("POST", &format!("/api/v1/{path}"), &body.to_string())?;
        Ok((status, serde_json::from_str(&answer).with_context(|| format!("{path}: no JSON"))?))
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let stream = self.open(method, path, "Connection: close\r\n", body)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).with_context(|| path.to_owned())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) =
            answer.split_once("\r\n\r\n").with_context(|| format!("{path}: an answer without a head"))?;
        Ok((status_of(head)?, body.to_owned()))
    }

    /// The text at `path`.
    ///
    /// # Errors
    /// Everything but an answer 200.
    pub fn text(&self, path: &str) -> Result<String> {
        let (status, body) = self.ask("GET", path)?;
        ensure!(status == 200, "{path}: {status} {}", body.trim());
        Ok(body)
    }

    /// The JSON at `path` below `/api/v1`.
    ///
    /// # Errors
    /// Everything but an answer 200 with JSON in it.
    pub fn get(&self, path: &str) -> Result<Value> {
        let body = self.text(&format!("/api/v1/{path}"))?;
        serde_json::from_str(&body).with_context(|| format!("{path}: no JSON"))
    }

    /// All items of a list below `/api/v1`, page by page. `query` is what stands behind the question mark, encoded.
    ///
    /// # Errors
    /// As [`Client::get`]; also a list whose pages do not end.
    pub fn items(&self, list: &str, query: &str) -> Result<Vec<Value>> {
        let mut items: Vec<Value> = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page = self.get(&format!("{list}?limit={PAGE}&{query}{cursor}"))?;
            let found = page.get_mut("items").and_then(Value::as_array_mut);
            let found = found.with_context(|| format!("{list}: an answer without items"))?;
            let empty = found.is_empty();
            items.append(found);
            match page.get("next").filter(|next| !next.is_null()) {
                None => return Ok(items),
                Some(_) if empty => bail!("{list}: an empty page that is not the last"),
                Some(next) => {
                    let next = next.as_str().map_or_else(|| next.to_string(), str::to_owned);
                    cursor = format!("&cursor={}", encoded(&next));
                }
            }
        }
    }

    /// Every event of one kind, in the order in which they were recorded.
    ///
    /// # Errors
    /// As [`Client::items`].
    pub fn events(&self, kind: &str) -> Result<Vec<Value>> {
        self.items("events", &format!("kind={kind}&sort=index"))
    }

    /// Opens the event stream; `since` is the id of the last message that is known.
    ///
    /// # Errors
    /// It is refused.
    pub fn stream(&self, query: &str, since: Option<&str>) -> Result<Stream> {
        let since = since.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let path = format!("/api/v1/stream?{query}");
        let stream = self.open("GET", &path, &format!("Accept: text/event-stream\r\n{since}"), "")?;
        let mut stream = Stream { last_id: None, reader: BufReader::new(stream), line: Vec::new(), lines: Vec::new() };
        let mut head = String::new();
        loop {
            let line = stream.read_line(PATIENCE)?.context("the stream's answer breaks off")?;
            if line.is_empty() {
                break;
            }
            head = if head.is_empty() { line } else { head };
        }
        let status = status_of(&head)?;
        ensure!(status == 200, "{path}: {head}");
        Ok(stream)
    }
}

fn status_of(head: &str) -> Result<u16> {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("{head:?}: no status"))
}

impl Stream {
    /// The next message, comments left out; none within the time.
    ///
    /// # Errors
    /// The stream has ended, or a message's data is no JSON.
    pub fn next(&mut self, within: Duration) -> Result<Option<Message>> {
        let deadline = Instant::now() + within;
        loop {
            let Some(line) = self.read_line(deadline.saturating_duration_since(Instant::now()))? else {
                return Ok(None);
            };
            if !line.is_empty() {
                self.lines.push(line);
                continue;
            }
            let lines = std::mem::take(&mut self.lines);
            self.last_id = field(&lines, "id").or(self.last_id.take());
            if let Some(message) = message(&lines)? {
                return Ok(Some(message));
            }
        }
    }

    /// The next message that is wanted.
    ///
    /// # Errors
    /// As [`Stream::next`], or none comes within the time.
    pub fn until(&mut self, within: Duration, mut wanted: impl FnMut(&Message) -> bool) -> Result<Message> {
        let deadline = Instant::now() + within;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now()))? {
                Some(message) if wanted(&message) => return Ok(message),
                Some(_) => {}
                None => bail!("the message waited for did not come within {within:?}"),
            }
        }
    }

    /// One line without its end; none when the time is over before it is whole.
    fn read_line(&mut self, within: Duration) -> Result<Option<String>> {
        // Zero would mean for ever.
        self.reader.get_ref().set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => {
                let line = std::mem::take(&mut self.line);
                Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
            }
            Ok(_) => bail!("the master has closed the stream"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error).context("the stream broke off"),
        }
    }
}

/// The values of a field, in order.
fn fields<'l>(lines: &'l [String], name: &str) -> Vec<&'l str> {
    let named = lines.iter().filter_map(|line| line.split_once(':')).filter(|(field, _)| *field == name);
    named.map(|(_, value)| value.trim_start()).collect()
}

/// The last value of a field.
fn field(lines: &[String], name: &str) -> Option<String> {
    fields(lines, name).last().map(|value| (*value).to_owned())
}

/// The message that these lines are; none if they say nothing, like a sign of life.
fn message(lines: &[String]) -> Result<Option<Message>> {
    let event = field(lines, "event");
    let data = match fields(lines, "data").join("\n") {
        nothing if nothing.is_empty() && event.is_none() => return Ok(None),
        nothing if nothing.is_empty() => Value::Null,
        text => serde_json::from_str(&text).with_context(|| format!("{text:?}: no JSON"))?,
    };
    Ok(Some(Message { id: field(lines, "id"), event: event.unwrap_or_else(|| "message".to_owned()), data }))
}

/// A text as part of a path or query.
#[must_use]
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"._-~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // A string takes everything that is written to it.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers one connection after the other with these bytes.
    fn server(answers: Vec<&'static str>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for answer in answers {
                let mut stream = listener.accept().unwrap().0;
                let mut request = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while request.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Client::new(address)
    }

    #[test]
    fn lists_are_read_to_their_last_page() {
        let client = server(vec![
            "HTTP/1.0 200 OK\r\n\r\n{\"items\":[1,2],\"total\":3,\"next\":\"a b\"}",
            "HTTP/1.0 200 OK\r\n\r\n{\"items\":[3],\"total\":3,\"next\":null}",
            "HTTP/1.0 404 Not Found\r\n\r\n{\"error\":{}}",
        ]);
        assert_eq!(client.items("hosts", "").unwrap(), [1, 2, 3]);
        assert!(client.get("nothing").unwrap_err().to_string().contains("404"));
    }

    #[test]
    fn a_stream_gives_messages_and_says_when_it_ends() {
        let client = server(vec![concat!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
            ": hello\nid: 6\n\nid: 7\nevent: change\ndata: {\"a\":1}\n\nevent: resync\n\nid: 8\ndata: [\ndata: 2]\n\nid: 9\n",
        )]);
        let mut stream = client.stream("", None).unwrap();
        assert_eq!(stream.last_id, None);
        let mut next = || stream.next(Duration::from_secs(20));
        let first = next().unwrap().unwrap();
        assert_eq!((first.id.as_deref(), first.event.as_str()), (Some("7"), "change"));
        assert_eq!(first.data, serde_json::json!({ "a": 1 }));
        assert_eq!(next().unwrap().unwrap().event, "resync");
        assert_eq!(next().unwrap().unwrap().data, serde_json::json!([2]));
        assert!(next().unwrap_err().to_string().contains("closed"));
        assert_eq!(stream.last_id.as_deref(), Some("8"), "a message that is not whole does not count");
    }

    #[test]
    fn nothing_within_the_time_is_no_error_and_loses_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\ndata: {\"wh").unwrap();
            wait.recv().unwrap();
            stream.write_all(b"ole\":1}\n\n").unwrap();
        });
        let mut stream = client.stream("", None).unwrap();
        assert_eq!(stream.next(Duration::from_millis(30)).unwrap(), None);
        go.send(()).unwrap();
        let whole = stream.until(Duration::from_secs(20), |_| true).unwrap();
        assert_eq!(whole.data, serde_json::json!({ "whole": 1 }));
        server.join().unwrap();
    }

    #[test]
    fn names_are_encoded_for_paths() {
        assert_eq!(encoded("disk /var"), "disk%20%2Fvar");
    }
}
