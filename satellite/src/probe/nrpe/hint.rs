//! What an operator may do about a fault: one sentence, with the setting to look at and the address to allow. Pure.
//!
//! The surprise: a daemon never says what it has against a request, so the hint is worked out from the request: what a daemon
//! with default settings drops is known.

use super::error::{Class, Fault, Phase};
use super::packet::NotAnAnswer;
use super::policy::Security;

impl Fault {
    /// What an operator may do about it; `request` is the text that was asked, `security` how.
    #[must_use]
    pub fn hint(&self, request: &[u8], security: &Security) -> Option<String> {
        let plain = *security == Security::Plain;
        let source = self.source.map_or_else(|| "this satellite's address".to_owned(), |source| source.to_string());
        let allow = format!("put {source} into allowed_hosts of the daemon's nrpe.cfg");
        Some(match &self.class {
            Class::Dns(_) => "give the host an address, or ask the satellite's name service about the name".to_owned(),
            Class::Refused => "is the daemon running, and does it listen on this address and port?".to_owned(),
            Class::ClosedInHandshake => format!(
                "it has answered before: was it restarted just now, is {source} no longer in its allowed_hosts, or does it no longer \
                 speak TLS (nrpe.tls: plain)?"
            ),
            Class::RefusedHere { in_handshake: true } => {
                format!("{allow}; if it is there: does the daemon speak TLS at all (nrpe.tls: plain)?")
            }
            Class::RefusedHere { in_handshake: false } if plain => {
                format!("{allow}; if it is there: does the daemon expect TLS (nrpe.tls: anonymous)?")
            }
            Class::RefusedHere { in_handshake: false } => {
                format!("{allow}; if it is there, the daemon's own log says why it closed")
            }
            Class::RequestRefused => dislikes(request).unwrap_or_else(|| {
                "the daemon takes other requests from here: is there something in this one that its nasty_metachars names? \
                 Its own log says why it closed"
                    .to_owned()
            }),
            Class::ClosedBeforeAnswer => {
                let mut hint = String::new();
                if let Some(dislike) = dislikes(request) {
                    hint.push_str(&dislike);
                    hint.push_str("; otherwise: ");
                }
                hint.push_str(&format!("is {source} in the daemon's allowed_hosts? "));
                if plain {
                    hint.push_str("Does the daemon expect TLS (nrpe.tls: anonymous)? ");
                }
                hint.push_str("The daemon's own log says why it closed");
                hint
            }
            Class::Alert { number: 40 | 70 | 71, .. } if security.verifies() => {
                "the daemon has no certificate (ssl_cert_file, ssl_privatekey_file), or takes none of our ciphers or protocols; \
                 nothing weaker is tried"
                    .to_owned()
            }
            Class::Alert { number: 40 | 70 | 71, .. } => {
                "the daemon accepts no anonymous suite of ours; it may want certificates (nrpe.tls: certificate)".to_owned()
            }
            Class::ClientCertificate { shown: false, .. } => {
                "the daemon wants a client certificate (ssl_client_certs=2): name one with nrpe.certificate and nrpe.key".to_owned()
            }
            Class::ClientCertificate { shown: true, .. } => {
                "the daemon does not accept our client certificate: is it signed by the authority in the daemon's ssl_cacert_file, \
                 and not expired?"
                    .to_owned()
            }
            Class::TlsFiles(_) => {
                "files that a host's nrpe settings name are read on the satellite, by the user it runs as".to_owned()
            }
            Class::Untrusted(why) if why.contains("purpose") => {
                "the daemon's certificate is not one for servers: issue it with extendedKeyUsage serverAuth".to_owned()
            }
            Class::Untrusted(why) if why.contains("too weak") => {
                "the key or the signature is too weak for what is asked of it: issue the certificate anew, or lower what is asked with \
                 nrpe.ciphers: DEFAULT@SECLEVEL=1"
                    .to_owned()
            }
            Class::Untrusted(why) if ["self-signed certificate", "self signed certificate"].contains(&why.as_str()) => {
                "believe this very certificate by naming its file in nrpe.ca or its key in nrpe.pins, if it is the daemon's: somebody \
                 else may be answering"
                    .to_owned()
            }
            Class::Untrusted(why) if why.starts_with("unable to get") => {
                "the authority that signed the daemon's certificate must be in the file nrpe.ca names; those between it and the \
                 certificate belong into the daemon's ssl_cert_file. If all are there, somebody else may be answering"
                    .to_owned()
            }
            Class::Untrusted(_) => {
                "the authority that signed the daemon's certificate must be in the file nrpe.ca names; if it is, somebody else may \
                 be answering"
                    .to_owned()
            }
            Class::Expired(_) => {
                "renew the daemon's certificate and restart the daemon; if it is new, look at the clocks".to_owned()
            }
            Class::WrongName(_) => {
                "the certificate must bear the name or address that is asked, or the one nrpe.name says; if it should, somebody \
                 else may be answering"
                    .to_owned()
            }
            Class::WrongPin(seen) => {
                format!("if the daemon has a new key, add {seen} to nrpe.pins; otherwise somebody else is answering")
            }
            Class::DhTooSmall => "NRPE 2.x daemons come with a 512-bit Diffie-Hellman group, which no TLS library of today accepts, whatever \
                the settings: update the daemon, or let it speak plain in a network you trust"
                .to_owned(),
            Class::NotTls(_) => "is this the port of an NRPE daemon, and is its TLS on (nrpe.tls: plain)?".to_owned(),
            Class::Protocol(NotAnAnswer::Kind { .. }) => {
                "it speaks NRPE, but gives no answers: is something else between the satellite and the daemon?".to_owned()
            }
            Class::Protocol(NotAnAnswer::Foreign { .. }) if plain => {
                "is this the port of an NRPE daemon, and is its TLS off (nrpe.tls: anonymous)?".to_owned()
            }
            Class::Protocol(NotAnAnswer::Foreign { .. }) => "is this the port of an NRPE daemon?".to_owned(),
            Class::Timeout { phase: Phase::Answer, .. } => {
                "the command takes longer than the check may: raise the check's timeout, or lower command_timeout in the daemon"
                    .to_owned()
            }
            Class::Timeout { phase: Phase::Rest, .. } => {
                "the answer began and did not end: is something between the satellite and the daemon, or is it no NRPE daemon?".to_owned()
            }
            Class::Timeout { phase: Phase::Queue, .. } => {
                "other checks of this host take long: they keep its few connections busy".to_owned()
            }
            Class::Timeout { phase: Phase::Connect, .. } => {
                "is the host up, and does a firewall on the way drop what goes to this port?".to_owned()
            }
            Class::Timeout { phase: Phase::Tls, .. } => {
                "the daemon is overloaded (listen_queue_size, too many checks at once), or something else listens on this port"
                    .to_owned()
            }
            _ => return None,
        })
    }
}

/// What a daemon with default settings has against this request, if anything: the only warning its user will get.
#[must_use]
pub fn dislikes(request: &[u8]) -> Option<String> {
    /// `nasty_metachars` of nrpe 3.x and 4.x, and the double quote of 2.x.
    const NASTY: &[u8] = b"|`&><'\\[]{};\r\n\"";
    let mut found = Vec::new();
    let mut nasty: Vec<u8> = request.iter().copied().filter(|byte| NASTY.contains(byte)).collect();
    nasty.sort_unstable();
    nasty.dedup();
    if !nasty.is_empty() {
        found.push(format!("the request contains {}, which daemons refuse (nasty_metachars)", nasty.escape_ascii()));
    }
    // In a command's name it is let through: there it is not put into a shell's line.
    let arguments = request.iter().position(|&byte| byte == b'!').map_or(&[][..], |at| &request[at..]);
    if arguments.windows(2).any(|pair| pair == b"$(") {
        found.push("the request contains $(, which daemons refuse (allow_bash_command_substitution)".to_owned());
    }
    if !arguments.is_empty() {
        found.push(
            "the request has arguments, which daemons refuse unless built for them and told dont_blame_nrpe=1 (Debian's are \
             not built for them)"
                .to_owned(),
        );
    }
    (!found.is_empty()).then(|| found.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::nrpe::error::tests::fault;
    use crate::probe::nrpe::policy::{NameRule, Peer, TlsPolicy};

    #[test]
    fn a_silent_close_is_explained_by_the_request() {
        let closed = fault(Class::ClosedBeforeAnswer);
        assert_eq!(closed.kind(), "eof-before-response");
        let hint = closed.hint(b"check_disk!/var;rm", &Security::anonymous()).unwrap();
        assert!(hint.contains("contains ;") && hint.contains("dont_blame_nrpe"), "{hint}");
        let innocent = closed.hint(b"check_load", &Security::anonymous()).unwrap();
        assert!(innocent.starts_with("is 192.0.2.9 in the daemon's allowed_hosts?"), "{innocent}");
    }

    #[test]
    fn who_is_refused_is_told_what_to_allow_and_where() {
        for (in_handshake, security) in [(true, Security::anonymous()), (false, Security::Plain)] {
            let refused = fault(Class::RefusedHere { in_handshake });
            assert_eq!(refused.kind(), "refused-here");
            let hint = refused.hint(b"check_load", &security).unwrap();
            assert!(hint.starts_with("put 192.0.2.9 into allowed_hosts of the daemon's nrpe.cfg"), "{hint}");
            assert!(refused.to_string().contains("never answered this satellite"), "{refused}");
        }
        let request = fault(Class::RequestRefused).hint(b"check_disk!/var", &Security::anonymous()).unwrap();
        assert!(request.contains("dont_blame_nrpe") && !request.contains("allowed_hosts"), "{request}");
    }

    #[test]
    fn what_concerns_certificates_names_the_setting() {
        let alert = |number| Class::Alert { number, name: "handshake failure".to_owned() };
        let verified = Security::Tls(std::sync::Arc::new(TlsPolicy {
            peer: Peer::Verified { ca: None, name: NameRule::Address, pins: Vec::new() },
            ..TlsPolicy::default()
        }));
        let anonymous = Security::anonymous();
        for (class, security, says) in [
            (alert(40), &anonymous, "nrpe.tls: certificate"),
            (alert(40), &verified, "nothing weaker is tried"),
            (Class::Untrusted("x".to_owned()), &verified, "nrpe.ca"),
            (Class::Expired("x".to_owned()), &verified, "renew"),
            (Class::WrongName("x".to_owned()), &verified, "nrpe.name"),
            (Class::WrongPin("00ff".to_owned()), &verified, "add 00ff to nrpe.pins"),
            (Class::ClientCertificate { alert: None, shown: false }, &verified, "nrpe.certificate"),
            (Class::ClientCertificate { alert: Some((48, String::new())), shown: true }, &verified, "ssl_cacert_file"),
            (Class::Untrusted("unsuitable certificate purpose".to_owned()), &verified, "serverAuth"),
            (Class::Untrusted("EE certificate key too weak".to_owned()), &verified, "SECLEVEL=1"),
            (Class::Untrusted("self-signed certificate".to_owned()), &verified, "nrpe.pins"),
            (Class::Untrusted("unable to get local issuer certificate".to_owned()), &verified, "ssl_cert_file"),
            (Class::ClosedInHandshake, &anonymous, "is 192.0.2.9 no longer in its allowed_hosts"),
            (Class::TlsFiles("x".to_owned()), &verified, "on the satellite"),
        ] {
            let hint = fault(class).hint(b"x", security).unwrap();
            assert!(hint.contains(says), "{hint}");
        }
    }
}
