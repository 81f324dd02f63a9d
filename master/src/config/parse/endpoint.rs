//! `nrpe: { … }` of a host or template: how its daemon is spoken to. Each value is looked at alone; what they mean together is
//! known only when the templates are laid over each other (`compile/endpoint`).
//!
//! The surprise: files are the satellite's, so nobody here can look whether they are there.

use shared::check::{NrpeTls, Pin};

use super::{NRPE_KEYS, Node, Parser};
use crate::config::diagnostic::At;
use crate::config::raw::RawEndpoint;

/// Most pins of one host; a daemon has one key, and for a while the next one.
const PINS_MAX: usize = 16;

impl Parser<'_> {
    pub(super) fn endpoint(&mut self, node: &Node) -> RawEndpoint {
        let mut endpoint = RawEndpoint::default();
        for (key, node) in self.fields().entries(node, "`nrpe`") {
            match key.text.as_str() {
                "tls" => {
                    let words = [
                        ("plain", NrpeTls::Plain),
                        ("anonymous", NrpeTls::Anonymous),
                        ("certificate", NrpeTls::Certificate),
                    ];
                    endpoint.tls = self.fields().word(node, "tls", &words);
                }
                "port" => endpoint.port = self.fields().integer(node, "port", 1..=65_535),
                "version" => endpoint.version = self.fields().integer(node, "version", 2..=4),
                "ca" => endpoint.ca = self.file(node, "ca"),
                "certificate" => endpoint.certificate = self.file(node, "certificate"),
                "key" => endpoint.key = self.file(node, "key"),
                "name" => {
                    let hint = "write the name that the daemon's certificate bears, or any".to_owned();
                    endpoint.name = self.filled(node, "name", hint);
                }
                "ciphers" => {
                    let hint = "as OpenSSL writes them: ciphers: ECDHE+AESGCM".to_owned();
                    endpoint.ciphers = self.filled(node, "ciphers", hint);
                }
                "service" => endpoint.service = self.fields().truth(node, "service"),
                "pins" => endpoint.pins = self.pins(node),
                _ => self.fields().unknown(key, "key of `nrpe`", NRPE_KEYS, &[]),
            }
        }
        endpoint
    }

    fn filled(&mut self, node: &Node, key: &str, hint: String) -> Option<At<String>> {
        let text = self.fields().text(node, key)?;
        if text.value.trim().is_empty() {
            self.findings.error(text.place, format!("`{key}` must not be empty"), hint);
            return None;
        }
        Some(text)
    }

    fn file(&mut self, node: &Node, key: &str) -> Option<At<String>> {
        let hint = format!("the file is the satellite's: write its whole path, as in {key}: /etc/perigee/{key}.pem");
        let path = self.filled(node, key, hint.clone())?;
        if !path.value.starts_with('/') {
            self.findings.error(path.place, format!("`{key}` must be a whole path"), hint);
            return None;
        }
        Some(path)
    }

    fn pins(&mut self, node: &Node) -> Option<At<Vec<Pin>>> {
        let texts = self.fields().texts(node, "pins");
        let mut pins = Vec::new();
        for text in &texts {
            match text.value.parse::<Pin>() {
                Ok(pin) => pins.push(pin),
                Err(error) => {
                    let hint =
                        "openssl x509 -in daemon.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum";
                    self.findings.error(
                        text.place,
                        format!("“{}” is no pin: {error}", text.value.escape_debug()),
                        hint.to_owned(),
                    );
                }
            }
        }
        if pins.len() > PINS_MAX {
            let hint = "pin the daemon's key and the one that is to follow it".to_owned();
            self.findings.error(node.place, format!("a host takes at most {PINS_MAX} pins"), hint);
        }
        // A list with a mistake is not taken for a shorter one: a missing pin would be somebody locked out, or let in.
        (pins.len() == texts.len() && pins.len() <= PINS_MAX && !pins.is_empty()).then(|| At::new(pins, node.place))
    }
}
