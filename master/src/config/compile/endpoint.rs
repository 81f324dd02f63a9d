//! A host's `nrpe` settings, its templates laid over each other, as one endpoint; and what of them does not go together.
//!
//! The surprise: whatever says whom to trust is a mistake without `tls: certificate`. Taken for a hint it would look like
//! protection and be none.

use shared::check::{NrpeName, NrpeTls, NrpeTrust};

use crate::config::check::Endpoint;
use crate::config::defaults;
use crate::config::diagnostic::{At, Place};
use crate::config::raw::RawEndpoint;

/// The name of the daemon's certificate that means all of them.
const ANY_NAME: &str = "any";

/// How a host with this address is spoken to. `wrong` is told of each mistake: where, what, what to do.
pub(super) fn endpoint_of(
    address: String,
    nrpe: &RawEndpoint,
    mut wrong: impl FnMut(Place, String, String),
) -> Endpoint {
    // The original's default. It is encrypted, so a missing word never makes a connection weaker than that.
    let tls = nrpe.tls.as_ref().map_or(NrpeTls::Anonymous, |at| at.value);
    Endpoint {
        address,
        port: nrpe.port.as_ref().and_then(|at| u16::try_from(at.value).ok()).unwrap_or(defaults::NRPE_PORT),
        tls,
        version: nrpe.version.as_ref().and_then(|at| u8::try_from(at.value).ok()),
        trust: match tls {
            NrpeTls::Certificate => Some(trust(nrpe, &mut wrong)),
            NrpeTls::Plain | NrpeTls::Anonymous => {
                for (key, place) in nrpe.trust() {
                    let message = format!("`{key}` means nothing without `tls: certificate`");
                    wrong(place, message, "write nrpe: { tls: certificate, … }, or take it out".to_owned());
                }
                None
            }
        },
    }
}

fn trust(nrpe: &RawEndpoint, wrong: &mut impl FnMut(Place, String, String)) -> NrpeTrust {
    let text = |value: &Option<At<String>>| value.as_ref().map(|at| at.value.clone());
    if let (None, Some(key)) = (&nrpe.certificate, &nrpe.key) {
        let hint = "name the client certificate that it is the key of: certificate: /etc/perigee/client.pem".to_owned();
        wrong(key.place, "a key without its certificate".to_owned(), hint);
    }
    if let (Some(certificate), None) = (&nrpe.certificate, &nrpe.key) {
        let hint = "name its key, which may stand in the same file: key: /etc/perigee/client.key".to_owned();
        wrong(certificate.place, "a certificate without its key".to_owned(), hint);
    }
    if let (Some(name), Some(_), None) = (&nrpe.name, &nrpe.pins, &nrpe.ca) {
        let hint = "a pin alone is the proof; with ca: the chain and the name are looked at as well".to_owned();
        wrong(name.place, "`name` means nothing with `pins` and without `ca`".to_owned(), hint);
    }
    if let (Some(name), None, None) = (&nrpe.name, &nrpe.ca, &nrpe.pins)
        && name.value == ANY_NAME
    {
        let hint =
            "name the authority of your daemons with ca:, or their keys with pins:, or take the name out".to_owned();
        let message =
            "`name: any` without `ca` or `pins` would believe whoever has a certificate of any authority of the system";
        wrong(name.place, message.to_owned(), hint);
    }
    NrpeTrust {
        ca: text(&nrpe.ca),
        certificate: text(&nrpe.certificate),
        key: text(&nrpe.key),
        name: match text(&nrpe.name) {
            None => NrpeName::Address,
            Some(name) if name == ANY_NAME => NrpeName::Any,
            Some(name) => NrpeName::Exactly(name),
        },
        pins: nrpe.pins.as_ref().map(|at| at.value.clone()).unwrap_or_default(),
        ciphers: text(&nrpe.ciphers),
    }
}
