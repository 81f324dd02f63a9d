//! The agent's versions beside the two of Debian's daemon: version 3 for the clients of nrpe 3, with its long output, and our own
//! client's way through all of them.

use satellite::probe::nrpe::packet::Version;
use satellite::probe::nrpe::policy::{Endpoint, Security};
use satellite::probe::nrpe::{Client, Query};
use tests::agent::Agent;
use tests::nrpe::{Transport, installed};

use crate::scene::{COMMAND_TIMEOUT, COMMANDS, PATIENCE};

#[test]
fn version_3_says_what_version_4_says() {
    if !installed() {
        return;
    }
    for transport in [Transport::Plain, Transport::Anonymous] {
        let agent = Agent::start(transport, COMMANDS, COMMAND_TIMEOUT).unwrap();
        // Version 3 has no NUL behind its text, so an empty text is a length of 0 there, which check_nrpe reports in its own words.
        let left_out = ["slow", "only_newline"];
        for (name, _) in COMMANDS.iter().filter(|(name, _)| !left_out.contains(name)) {
            let fourth = agent.check_nrpe(name, PATIENCE, &[]).unwrap();
            let third = agent.check_nrpe(name, PATIENCE, &["-3"]).unwrap();
            assert_eq!(third, fourth, "{name} {transport:?}\n{}", agent.log());
        }
        let huge = agent.check_nrpe("huge", PATIENCE, &["-3"]).unwrap();
        assert_eq!((huge.status, huge.stdout.len()), (2, 65_504 + 1), "it did not fall back to version 2");
    }
}

#[tokio::test]
async fn our_own_client_is_answered_in_the_version_it_asks_in() {
    for tls in [false, true] {
        let transport = if tls { Transport::Anonymous } else { Transport::Plain };
        let agent = Agent::start(transport, COMMANDS, COMMAND_TIMEOUT).unwrap();
        let client = Client::new().unwrap();
        let security = if tls { Security::anonymous() } else { Security::Plain };
        let address = agent.address;
        let endpoint = Endpoint { address: address.ip().to_string(), port: address.port(), security };
        let reply = client.ask(&Query::new(endpoint, "long"), PATIENCE).await.unwrap();
        assert_eq!((reply.answer.version, reply.answer.code, reply.answer.text.len()), (Version::V4, 1, 20_000));
        assert_eq!(client.counters().fallbacks(), 0);
    }
}
