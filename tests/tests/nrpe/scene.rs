//! What every test here needs: a check that asks a given daemon, and patience.

use std::net::SocketAddr;
use std::time::Duration;

use satellite::probe::nrpe::packet::Version;
use satellite::probe::nrpe::policy::{Endpoint, Security};
use satellite::probe::nrpe::{Client, Query, VERSION_COMMAND};
use shared::check::{Check, NrpeCheck, NrpeTls, State};

/// For checks that should succeed: long enough for a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A query of a daemon on this address.
pub(crate) fn query(address: SocketAddr, tls: bool, text: &str) -> Query {
    let security = if tls { Security::anonymous() } else { Security::Plain };
    Query::new(Endpoint { address: address.ip().to_string(), port: address.port(), security }, text)
}

/// The same as a check.
pub(crate) fn check(address: SocketAddr, tls: bool, command: &str) -> Check {
    Check::Nrpe(NrpeCheck {
        address: address.ip().to_string(),
        port: address.port(),
        tls: if tls { NrpeTls::Anonymous } else { NrpeTls::Plain },
        command: command.to_owned(),
        args: Vec::new(),
        version: None,
        on_transport_error: State::Unknown,
        trust: None,
    })
}

/// Asks and expects an answer: version of its packet, code, text.
pub(crate) async fn answer(client: &Client, query: &Query) -> (Version, i16, String) {
    let reply = client.ask(query, PATIENCE).await.expect("an answer");
    (reply.answer.version, reply.answer.code, String::from_utf8_lossy(&reply.answer.text).into_owned())
}

/// Asks and expects a fault: its stable name.
pub(crate) async fn fault(client: &Client, query: &Query, limit: Duration) -> String {
    client.ask(query, limit).await.expect_err("a fault").kind().into_owned()
}

/// What the daemon said. Asked for itself, its answer is followed by how it was spoken to, which is ours.
pub(crate) fn said_by_daemon<'o>(request: &str, output: &'o str) -> &'o str {
    if request != VERSION_COMMAND {
        return output;
    }
    let (said, manner) = output.rsplit_once(" (packet version ").expect("how the daemon was spoken to");
    assert!(manner.ends_with("authenticated)"), "{output}");
    said
}
