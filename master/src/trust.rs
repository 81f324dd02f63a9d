//! The master's CA, the installation's id, the list of accepted CAs, and the certificates made from them. Decides what is written
//! into a certificate; knows nothing of the link that shows it. The surprise: the master's own leaf is never on disk, it is made
//! at each start and again when half of its life is over, so there is one private key fewer to guard.
#![expect(clippy::disallowed_methods, reason = "certificates are made at the time of the wall clock: a shell room")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use shared::identity::{Identity, Leaf, key_is_exposed, master_dns_name};
use shared::name::{InstallationId, RegionName, SlotNumber};
use shared::time::Timestamp;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Life of the CA made at first start. Rotation is two CAs for a while, so the end comes as no surprise: it is logged from
/// [`CA_WARN`] before it.
pub const CA_LIFE: Duration = Duration::from_secs(3_650 * DAY);
/// The CA's end is announced from here on.
pub const CA_WARN: Duration = Duration::from_secs(90 * DAY);
/// Life of the master's own leaf.
pub const MASTER_LIFE: Duration = Duration::from_secs(7 * DAY);
/// Certificates begin this long before they are made, for clocks that are behind.
pub const BACK_DATED: Duration = Duration::from_secs(DAY);
/// Longest life of a slot's certificate in days.
pub const SLOT_DAYS_MAX: u32 = 3_650;
/// Life of a slot's certificate in days when nobody says.
pub const SLOT_DAYS: u32 = 365;
/// Most accepted CAs; more are named in the log and left out.
pub const CAS_MAX: usize = 16;
/// Largest certificate or key file that is read.
pub const PEM_BYTES_MAX: u64 = 64 * 1024;

const DAY: u64 = 86_400;
/// Bytes of a serial number: 127 random bits (RFC 5280 allows 20 bytes; CA/Browser rules ask for 64 bits at least).
const SERIAL_BYTES: usize = 16;
/// Length of a new installation id.
const INSTALLATION_CHARS: usize = 16;

/// A CA from files, as Docker secrets are, instead of one made here.
#[derive(Debug, Clone)]
pub struct GivenCa {
    /// PEM; the first certificate is the CA that signs.
    pub certificate: PathBuf,
    /// PEM, PKCS#8.
    pub key: PathBuf,
}

/// A certificate in the two forms it is needed in.
#[derive(Clone, PartialEq, Eq)]
struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
}

/// What makes certificates and says which are accepted.
pub struct Trust {
    directory: PathBuf,
    installation: InstallationId,
    ca: Certificate,
    ca_not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// The master's certificate and key, ready for TLS.
pub struct MasterLeaf {
    /// The leaf, then the CA that signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
    /// When a new one is due: half of its life.
    pub renew_at: Timestamp,
}

/// A certificate written for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Whom it speaks for.
    pub identity: Identity,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// End of its life.
    pub not_after: Timestamp,
    /// Where `slot.crt`, `slot.key` and `ca.crt` lie.
    pub directory: PathBuf,
}

/// Bytes of the reset secret: a key for tokens, then one for connection ids.
const RESET_BYTES: usize = 40;

/// See [`Trust::reset_secret`].
pub struct ResetSecret {
    /// Key of the reset tokens.
    pub reset: [u8; 32],
    /// Key of the connection ids.
    pub ids: u64,
}

impl Trust {
    /// Opens the trust of a data directory and makes what is not there yet: the CA (unless one is given) and the installation id.
    /// Any number of processes may do so at once.
    ///
    /// # Errors
    /// A file that cannot be read or written, a key that others can read, a CA that is none, has ended or does not fit its key,
    /// or an installation whose CA is gone.
    pub fn open(data: &Path, given: Option<&GivenCa>) -> Result<Trust> {
        let directory = data.join("trust");
        make_directory(&directory)?;
        let lock_path = directory.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("cannot open the lock {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;

        let known = installation(data)?;
        let (ca, key) = match given {
            Some(given) => (read_certificate(&given.certificate)?, read_key(&given.key)?),
            None => own_ca(&directory, known.as_ref())?,
        };
        let ca_not_after =
            check_ca(&ca.der, &key, given.map_or(&directory.join("ca.crt"), |given| &given.certificate))?;
        let installation = match known {
            Some(installation) => installation,
            None => found_installation(data)?,
        };
        let issuer = Issuer::from_ca_cert_der(&ca.der, key).context("the CA certificate cannot be used for signing")?;
        Ok(Trust { directory, installation, ca, ca_not_after, issuer })
    }

    /// The installation all certificates made here belong to.
    #[must_use]
    pub fn installation(&self) -> &InstallationId {
        &self.installation
    }

    /// The CA that signs.
    #[must_use]
    pub fn ca(&self) -> &CertificateDer<'static> {
        &self.ca.der
    }

    /// The accepted CAs: the one that signs, then every `*.crt` in `trust/ca/`, read anew at each call so that a rotation needs no
    /// restart. A file that cannot be used is named in the log and left out.
    #[must_use]
    pub fn accepted(&self) -> Vec<CertificateDer<'static>> {
        self.accepted_list().into_iter().map(|certificate| certificate.der).collect()
    }

    fn accepted_list(&self) -> Vec<Certificate> {
        let mut accepted = vec![self.ca.clone()];
        let place = self.directory.join("ca");
        let mut files: Vec<PathBuf> = match fs::read_dir(&place) {
            Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(directory = %place.display(), %error, "the list of accepted CAs cannot be read");
                Vec::new()
            }
        };
        files.retain(|file| file.extension().is_some_and(|extension| extension == "crt"));
        files.sort();
        for file in files {
            match read_certificate(&file).and_then(|certificate| is_ca(&certificate.der, &file).map(|()| certificate)) {
                Ok(certificate) if accepted.contains(&certificate) => {}
                Ok(_) if accepted.len() >= CAS_MAX => {
                    tracing::warn!(file = %file.display(), max = CAS_MAX, "more accepted CAs than allowed: left out");
                }
                Ok(certificate) => accepted.push(certificate),
                Err(error) => {
                    tracing::warn!(file = %file.display(), error = format!("{error:#}"), "no usable CA: left out")
                }
            }
        }
        accepted
    }

    /// A new certificate for the master itself.
    ///
    /// # Errors
    /// The CA has ended, or signing fails.
    pub fn master_leaf(&self) -> Result<MasterLeaf> {
        let identity = Identity::Master { installation: self.installation.clone() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key for the master")?;
        let now = wall_clock();
        let (leaf, not_after) = self.sign(&identity, &key, now, MASTER_LIFE)?;
        Ok(MasterLeaf {
            chain: vec![leaf.der, self.ca.der.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            renew_at: now.plus(not_after.since(now) / 2),
        })
    }

    /// The secret behind this master's QUIC stateless resets and connection ids (RFC 9000, section 10.3): the same after a restart,
    /// so that satellites of the process that died are told so at once instead of waiting for silence.
    ///
    /// # Errors
    /// The file cannot be read or written, is open to others, or has another length.
    pub fn reset_secret(&self) -> Result<ResetSecret> {
        let path = self.directory.join("reset.key");
        let bytes = match fs::metadata(&path) {
            Ok(found) => {
                ensure!(!key_is_exposed(found.mode()), "{0} is open to others: run `chmod 600 {0}`", path.display());
                read_bounded(&path)?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let fresh: [u8; RESET_BYTES] = rand::random();
                replace_file(&path, &fresh, 0o600)?;
                fresh.to_vec()
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let split = bytes.split_first_chunk().and_then(|(reset, rest)| Some((*reset, *rest.first_chunk()?)));
        let (reset, ids) = split.filter(|_| bytes.len() == RESET_BYTES).with_context(|| {
            format!("{} has {} bytes, not {RESET_BYTES}; delete it and a new one is made", path.display(), bytes.len())
        })?;
        Ok(ResetSecret { reset, ids: u64::from_be_bytes(ids) })
    }

    /// Writes `slot.crt` (chain), `slot.key` (0600) and `ca.crt` (accepted CAs) into `out`, each file replaced as a whole and the
    /// certificate last, so that a satellite never meets half of one.
    ///
    /// # Errors
    /// Days out of bounds, the CA has ended, or a file cannot be written.
    pub fn issue_slot(&self, region: &RegionName, slot: SlotNumber, days: u32, out: &Path) -> Result<Issued> {
        ensure!((1..=SLOT_DAYS_MAX).contains(&days), "a certificate lives 1 to {SLOT_DAYS_MAX} days, not {days}");
        let identity = Identity::Slot { installation: self.installation.clone(), region: region.clone(), slot };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key for the slot")?;
        let (leaf, not_after) = self.sign(&identity, &key, wall_clock(), Duration::from_secs(u64::from(days) * DAY))?;
        make_directory(out)?;
        let accepted: String = self.accepted_list().into_iter().map(|ca| ca.pem).collect();
        replace_file(&out.join("ca.crt"), accepted.as_bytes(), 0o644)?;
        replace_file(&out.join("slot.key"), key.serialize_pem().as_bytes(), 0o600)?;
        replace_file(&out.join("slot.crt"), [leaf.pem.as_str(), &self.ca.pem].concat().as_bytes(), 0o644)?;
        let serial = Leaf::of_slot(&leaf.der).context("the certificate just made cannot be read back")?.serial;
        tracing::info!(%identity, serial, %not_after, directory = %out.display(), "certificate written");
        Ok(Issued { identity, serial, not_after, directory: out.to_owned() })
    }

    fn sign(
        &self,
        identity: &Identity,
        key: &KeyPair,
        now: Timestamp,
        life: Duration,
    ) -> Result<(Certificate, Timestamp)> {
        ensure!(now < self.ca_not_after, "the CA has ended at {}: rotate it", self.ca_not_after);
        if self.ca_not_after.since(now) < CA_WARN {
            tracing::warn!(not_after = %self.ca_not_after, "the CA ends soon: rotate it");
        }
        // No certificate outlives its CA: the end that people read is the end that holds.
        let not_after = now.plus(life).min(self.ca_not_after);
        let mut params = CertificateParams::default();
        params.not_before = moment(now.minus(BACK_DATED))?;
        params.not_after = moment(not_after)?;
        params.serial_number = Some(serial());
        params.distinguished_name = named(&format!("Perigee {}", role(identity)));
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match identity {
            Identity::Slot { .. } => params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth),
            Identity::Master { installation } => {
                params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
                params.subject_alt_names.push(SanType::DnsName(master_dns_name(installation).try_into()?));
            }
        }
        let certificate = params.signed_by(key, &self.issuer).with_context(|| format!("cannot sign for {identity}"))?;
        Ok((Certificate { der: certificate.der().clone(), pem: certificate.pem() }, not_after))
    }
}

/// What `perigee-master certificate` does: opens the trust of `data` and writes a slot's certificate into `out`.
///
/// # Errors
/// As [`Trust::open`] and [`Trust::issue_slot`].
pub fn certificate(
    data: &Path,
    given: Option<&GivenCa>,
    region: &RegionName,
    slot: SlotNumber,
    days: u32,
    out: &Path,
) -> Result<Issued> {
    Trust::open(data, given)?.issue_slot(region, slot, days, out)
}

/// The installation a data directory belongs to; `None` when nobody has started there yet.
///
/// # Errors
/// The file cannot be read or holds no installation id.
pub fn installation(data: &Path) -> Result<Option<InstallationId>> {
    let path = data.join("installation");
    match fs::read_to_string(&path) {
        Ok(text) => text
            .trim_end()
            .parse()
            .map(Some)
            .with_context(|| format!("{} holds no installation id: restore it from a backup", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Written after the CA: an installation without CA can then only be a loss, and is refused as one.
fn found_installation(data: &Path) -> Result<InstallationId> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let id: String = rand::random::<[u8; INSTALLATION_CHARS]>()
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte % 32)))
        .map(|letter| char::from(*letter))
        .collect();
    replace_file(&data.join("installation"), format!("{id}\n").as_bytes(), 0o644)?;
    tracing::info!(installation = id, "a new installation");
    id.parse().context("the new installation id is none")
}

fn own_ca(directory: &Path, known: Option<&InstallationId>) -> Result<(Certificate, KeyPair)> {
    let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
    let there = |path: &Path| path.try_exists().with_context(|| format!("cannot look for {}", path.display()));
    match (there(&certificate_path)?, there(&key_path)?) {
        (true, true) => return Ok((read_certificate(&certificate_path)?, read_key(&key_path)?)),
        (true, false) => bail!(
            "{} is there but its key {} is not: restore the key from a backup, or give the CA by files",
            certificate_path.display(),
            key_path.display()
        ),
        (false, _) => {}
    }
    if let Some(known) = known {
        bail!(
            "the CA of installation {known} is missing in {}: restore it from a backup, or give it by files (a new CA would lock \
             out every satellite)",
            directory.display()
        );
    }
    // A key without certificate is what a stop between the two writes leaves; it has signed nothing.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key for the CA")?;
    let now = wall_clock();
    let mut params = CertificateParams::default();
    params.not_before = moment(now.minus(BACK_DATED))?;
    params.not_after = moment(now.plus(CA_LIFE))?;
    params.serial_number = Some(serial());
    // A name of its own for each CA: in a rotation two of them stand side by side.
    let number: String = rand::random::<[u8; 4]>().iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = named(&format!("Perigee CA {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context("cannot make the CA")?;
    replace_file(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
    replace_file(&certificate_path, certificate.pem().as_bytes(), 0o644)?;
    tracing::info!(file = %certificate_path.display(), "a new CA");
    Ok((Certificate { der: certificate.der().clone(), pem: certificate.pem() }, key))
}

fn check_ca(ca: &CertificateDer<'_>, key: &KeyPair, path: &Path) -> Result<Timestamp> {
    is_ca(ca, path)?;
    let certificate = parsed(ca, path)?;
    ensure!(
        certificate.public_key().raw == key.subject_public_key_info().as_slice(),
        "the CA key does not belong to {}",
        path.display()
    );
    let not_after = Timestamp::from_millis(certificate.validity().not_after.timestamp().saturating_mul(1000));
    ensure!(wall_clock() < not_after, "the CA {} has ended at {not_after}", path.display());
    Ok(not_after)
}

/// The first certificate of a PEM file.
fn read_certificate(path: &Path) -> Result<Certificate> {
    const END: &str = "-----END CERTIFICATE-----";
    let none = || format!("{} holds no PEM certificate", path.display());
    let text = String::from_utf8(read_bounded(path)?).with_context(none)?;
    let start = text.find("-----BEGIN CERTIFICATE-----").with_context(none)?;
    let from_start = text.get(start..).with_context(none)?;
    let end = from_start.find(END).with_context(none)?;
    let pem = format!("{}\n", from_start.get(..end + END.len()).with_context(none)?);
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).with_context(none)?;
    parsed(&der, path)?;
    Ok(Certificate { der, pem })
}

fn parsed<'a>(der: &'a CertificateDer<'_>, path: &Path) -> Result<X509Certificate<'a>> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|error| anyhow::anyhow!("{} is no X.509 certificate: {error}", path.display()))
}

/// The stock verifier does not look at this in what it is given as a CA: a leaf among the accepted CAs could sign others.
fn is_ca(der: &CertificateDer<'_>, path: &Path) -> Result<()> {
    ensure!(parsed(der, path)?.is_ca(), "{} is no CA certificate: its basic constraints do not say so", path.display());
    Ok(())
}

fn read_key(path: &Path) -> Result<KeyPair> {
    let mode = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.mode();
    ensure!(
        !key_is_exposed(mode),
        "the private key {path} is open to others (mode {mode:04o}): run `chmod 600 {path}` (for a Docker secret set `mode: \
         0400`), and take the CA as known to whoever could read it",
        path = path.display(),
        mode = mode & 0o7777
    );
    let text = String::from_utf8(read_bounded(path)?).with_context(|| format!("{} is no PEM file", path.display()))?;
    KeyPair::from_pem(&text).with_context(|| format!("{} holds no private key that can be used", path.display()))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    ensure!(size <= PEM_BYTES_MAX, "{} has {size} bytes; at most {PEM_BYTES_MAX} are read", path.display());
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let directory = path.parent().context("a file without directory")?;
    let name = path.file_name().context("a file without name")?.to_string_lossy();
    let fresh = directory.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(directory)?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&fresh))).with_context(|| format!("cannot write {}", path.display()))
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// For people who look at the certificate; nothing reads it.
fn role(identity: &Identity) -> String {
    match identity {
        Identity::Slot { region, slot, .. } => format!("slot {slot} in {region}"),
        Identity::Master { .. } => "master".to_owned(),
    }
}

fn serial() -> SerialNumber {
    let mut bytes = rand::random::<[u8; SERIAL_BYTES]>();
    // Positive and of full length: RFC 5280, section 4.1.2.2.
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    SerialNumber::from_slice(&bytes)
}

fn moment(time: Timestamp) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(time.as_seconds())
        .with_context(|| format!("{time} cannot stand in a certificate"))
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
