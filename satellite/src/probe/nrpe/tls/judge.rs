//! Judges the certificate of a peer that must prove who it is: chain, name and dates by OpenSSL, pins by us; and keeps the reason
//! for a no, which a failed handshake does not tell. Decides nothing about what is offered (`policy`).
//!
//! The surprise: a resumed session shows no certificate and asks nobody, so a ticket is only good for the endpoint, with its very
//! policy, that it was got with.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::ssl::{SslRef, SslVerifyMode};
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509Ref, X509StoreContextRef, X509VerifyResult};
use sha2::{Digest as _, Sha256};

use crate::probe::nrpe::error::Class;
use crate::probe::nrpe::policy::{Endpoint, NameRule, Peer, Security, TlsPolicy};

/// OpenSSL's numbers (`x509_vfy.h`), which the `openssl` crate has no names for.
const NOT_YET_VALID: i32 = 9;
const HAS_EXPIRED: i32 = 10;
const HOSTNAME_MISMATCH: i32 = 62;
const IP_ADDRESS_MISMATCH: i32 = 64;

/// What a peer must show. One for each connection; clones share the verdict.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    /// The name it must bear.
    name: Option<String>,
    pins: Vec<[u8; 32]>,
    /// Whether the chain counts, or the pins alone.
    chain: bool,
    verdict: Arc<Mutex<Option<Class>>>,
}

impl Judge {
    /// The judge of an endpoint's peer; none where anybody will do.
    pub(super) fn of(endpoint: &Endpoint) -> Option<Self> {
        let Security::Tls(policy) = &endpoint.security else { return None };
        let TlsPolicy { peer: Peer::Verified { ca, name, pins }, .. } = &**policy else { return None };
        let chain = ca.is_some() || pins.is_empty();
        let name = match name {
            NameRule::Address => Some(endpoint.address.clone()),
            NameRule::Exactly(name) => Some(name.clone()),
            NameRule::Any => None,
        };
        // The dot of a name that is whole (RFC 1034 §3.1) stands in no certificate.
        let name = name.filter(|_| chain).map(|name| name.trim_end_matches('.').to_owned());
        Some(Self { name, pins: pins.clone(), chain, verdict: Arc::default() })
    }

    /// Makes a handshake fail unless the peer is the one expected.
    ///
    /// # Errors
    /// OpenSSL takes no such name, or has no memory.
    pub(super) fn preside(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        let parameters = ssl.param_mut();
        parameters.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
        if let Some(name) = &self.name {
            match name.parse::<IpAddr>() {
                Ok(address) => parameters.set_ip(address)?,
                Err(_) => parameters.set_host(name)?,
            }
        }
        let judge = self.clone();
        ssl.set_verify_callback(SslVerifyMode::PEER, move |fine, context| judge.look(fine, context));
        Ok(())
    }

    /// Why the peer was not believed, if it was looked at and not believed.
    pub(super) fn verdict(&self) -> Option<Class> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this certificate, of a session that stands, is one of those expected: what a resumed session is asked, whose
    /// chain was looked at when it was new.
    pub(super) fn knows(&self, certificate: Option<&X509Ref>) -> bool {
        certificate.is_some_and(|certificate| self.pinned(certificate).is_ok())
    }

    /// Called for each certificate of the chain, and for each thing that is wrong with it.
    fn look(&self, fine: bool, context: &mut X509StoreContextRef) -> bool {
        if self.chain && !fine {
            return self.refuse(context, class_of(context.error(), self.name.as_deref()));
        }
        if context.error_depth() == 0 {
            // OpenSSL takes an empty name for no name to be looked at.
            if self.name.as_ref().is_some_and(String::is_empty) {
                return self.refuse(context, Class::WrongName(String::new()));
            }
            let Some(certificate) = context.current_cert() else {
                return self.refuse(context, Class::Untrusted("it sent no certificate".to_owned()));
            };
            if let Err(seen) = self.pinned(certificate) {
                return self.refuse(context, Class::WrongPin(seen));
            }
        }
        true
    }

    fn refuse(&self, context: &mut X509StoreContextRef, class: Class) -> bool {
        if context.error() == X509VerifyResult::OK {
            context.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
        }
        // The first reason is the one nearest to the authority, and stays.
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(class);
        false
    }

    /// Without pins every key is fine; otherwise the error is the pin that the certificate has, in hexadecimal.
    fn pinned(&self, certificate: &X509Ref) -> Result<(), String> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let key = certificate.public_key().and_then(|key| key.public_key_to_der());
        let Ok(key) = key else { return Err("of a kind that cannot be read".to_owned()) };
        let seen: [u8; 32] = Sha256::digest(&key).into();
        if self.pins.contains(&seen) { Ok(()) } else { Err(seen.iter().map(|byte| format!("{byte:02x}")).collect()) }
    }
}

fn class_of(error: X509VerifyResult, name: Option<&str>) -> Class {
    match error.as_raw() {
        NOT_YET_VALID | HAS_EXPIRED => Class::Expired(error.error_string().to_owned()),
        HOSTNAME_MISMATCH | IP_ADDRESS_MISMATCH => Class::WrongName(name.unwrap_or_default().to_owned()),
        _ => Class::Untrusted(error.error_string().to_owned()),
    }
}
