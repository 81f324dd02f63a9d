//! What lies on disk of the CA and of certificates, who may read it, and what the master says when it is not as it should be.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use master::trust::{GivenCa, SLOT_DAYS_MAX, Trust, certificate, installation};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use shared::identity::Leaf;
use shared::name::{RegionName, SlotNumber};
use tempfile::TempDir;
use time::Duration;

use crate::forge::{Forge, lives};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn eu() -> RegionName {
    "eu".parse().unwrap()
}

fn one() -> SlotNumber {
    "1".parse().unwrap()
}

fn refusal(data: &Path, given: Option<&GivenCa>) -> String {
    match Trust::open(data, given) {
        Ok(_) => panic!("opened"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn private_keys_are_for_their_owner_only() {
    let forge = Forge::new();
    let slot = forge.slot_directory();
    assert_eq!(mode(&forge.path("trust/ca.key")), 0o600);
    assert_eq!(mode(&slot.join("slot.key")), 0o600);
    assert_eq!(mode(&forge.path("trust")), 0o700);
}

#[test]
fn a_ca_key_open_to_others_stops_the_start_and_names_chmod() {
    let forge = Forge::new();
    let key = forge.path("trust/ca.key");
    for open in [0o644, 0o604, 0o660, 0o606] {
        fs::set_permissions(&key, fs::Permissions::from_mode(open)).unwrap();
        let message = refusal(&forge.path(""), None);
        assert!(message.contains(&format!("chmod 600 {}", key.display())), "{message}");
        assert!(message.contains(&format!("{open:04o}")), "{message}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    Trust::open(&forge.path(""), None).unwrap();
}

#[test]
fn a_second_start_finds_the_same_ca_and_installation() {
    let forge = Forge::new();
    let again = Trust::open(&forge.path(""), None).unwrap();
    assert_eq!(again.ca(), forge.trust.ca());
    assert_eq!(again.installation(), forge.trust.installation());
    assert_eq!(installation(&forge.path("")).unwrap().as_ref(), Some(again.installation()));
}

#[test]
fn starts_at_the_same_moment_make_one_ca() {
    let data = Arc::new(TempDir::new().unwrap());
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let data = data.clone();
            std::thread::spawn(move || Trust::open(data.path(), None).unwrap())
        })
        .collect();
    let opened: Vec<Trust> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    for trust in &opened {
        assert_eq!(trust.ca(), opened[0].ca());
        assert_eq!(trust.installation(), opened[0].installation());
    }
}

#[test]
fn two_installations_have_nothing_in_common() {
    let (a, b) = (Forge::new(), Forge::new());
    assert_ne!(a.trust.installation(), b.trust.installation());
    assert_ne!(a.trust.ca(), b.trust.ca());
    assert_eq!(a.trust.installation().as_str().len(), 16);
}

#[test]
fn an_installation_whose_ca_is_gone_is_not_given_another() {
    let forge = Forge::new();
    fs::remove_file(forge.path("trust/ca.key")).unwrap();
    let message = refusal(&forge.path(""), None);
    assert!(message.contains("ca.key is not") && message.contains("backup"), "{message}");
    fs::remove_file(forge.path("trust/ca.crt")).unwrap();
    let message = refusal(&forge.path(""), None);
    assert!(message.contains(forge.trust.installation().as_str()) && message.contains("backup"), "{message}");
}

#[test]
fn a_start_cut_short_between_key_and_certificate_is_made_good() {
    let data = TempDir::new().unwrap();
    fs::create_dir(data.path().join("trust")).unwrap();
    fs::write(data.path().join("trust/ca.key"), "half").unwrap();
    Trust::open(data.path(), None).unwrap();
    Trust::open(data.path(), None).unwrap();
}

#[test]
fn a_given_ca_signs_and_its_key_is_not_copied() {
    let (owner, data) = (Forge::new(), TempDir::new().unwrap());
    let given = GivenCa { certificate: owner.path("trust/ca.crt"), key: owner.path("trust/ca.key") };
    let trust = Trust::open(data.path(), Some(&given)).unwrap();
    assert_eq!(trust.ca(), owner.trust.ca());
    assert_ne!(trust.installation(), owner.trust.installation());
    assert!(!data.path().join("trust/ca.key").exists());

    let other = Forge::new();
    let mixed = GivenCa { certificate: owner.path("trust/ca.crt"), key: other.path("trust/ca.key") };
    assert!(refusal(data.path(), Some(&mixed)).contains("does not belong"));
    let slot = owner.slot_directory();
    let leaf = GivenCa { certificate: slot.join("slot.crt"), key: slot.join("slot.key") };
    assert!(refusal(data.path(), Some(&leaf)).contains("no CA certificate"));
}

#[test]
fn a_slot_s_certificate_says_what_was_asked_and_no_more() {
    let data = TempDir::new().unwrap();
    let out = data.path().join("certificates/eu-1");
    let issued = certificate(data.path(), None, &eu(), one(), 30, &out).unwrap();
    let chain: Vec<_> = CertificateDer::pem_file_iter(out.join("slot.crt")).unwrap().collect::<Result<_, _>>().unwrap();
    let leaf = Leaf::of_slot(&chain[0]).unwrap();
    let installation = installation(data.path()).unwrap().unwrap();
    assert_eq!(leaf.identity.to_string(), format!("perigee://{installation}/region/eu/slot/1"));
    assert_eq!((&issued.identity, &issued.serial), (&leaf.identity, &leaf.serial));
    let days = leaf.not_after.since(leaf.not_before).as_secs_f64() / 86_400.0;
    assert!((days - 31.0).abs() < 0.01, "30 days and 24 hours before: {days}");
    assert!(Leaf::of_master(&chain[0]).is_err());
    let accepted: Vec<_> =
        CertificateDer::pem_file_iter(out.join("ca.crt")).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(accepted, [chain[1].clone()]);

    let again = certificate(data.path(), None, &eu(), one(), 30, &out).unwrap();
    assert_ne!(again.serial, issued.serial);
    assert_eq!(again.serial.len(), 32);
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "no temporary file stays: {left:?}");
}

#[test]
fn a_certificate_lives_within_bounds_and_never_longer_than_its_ca() {
    let forge = Forge::new();
    for days in [0, SLOT_DAYS_MAX + 1] {
        let error = forge.trust.issue_slot(&eu(), one(), days, &forge.path("slot")).unwrap_err();
        assert!(error.to_string().contains("days"), "{error}");
        assert!(!forge.path("slot").exists());
    }
    let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
    lives(&mut params, Duration::days(-1), Duration::days(5));
    let ends = params.not_after;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let given = GivenCa { certificate: forge.path("short.crt"), key: forge.path("short.key") };
    fs::write(&given.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&given.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&given.key, fs::Permissions::from_mode(0o600)).unwrap();
    let trust = Trust::open(&forge.path(""), Some(&given)).unwrap();
    let issued = trust.issue_slot(&eu(), one(), 30, &forge.path("slot")).unwrap();
    assert_eq!(issued.not_after.as_seconds(), ends.unix_timestamp());

    lives(&mut params, Duration::days(-9), Duration::seconds(-1));
    fs::write(&given.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    assert!(refusal(&forge.path(""), Some(&given)).contains("has ended"));
}
