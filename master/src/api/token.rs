//! Bearer tokens: made, listed and revoked in a file of the data directory, and looked up for each request. Only digests are kept: a
//! token is shown once. Knows no route. The surprise: the file is the only interface between the command that changes it and the
//! running master, which sees a change at the next request.
#![expect(clippy::disallowed_methods, reason = "tokens are dated by the wall clock: a shell room")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Name of the file in the data directory.
pub const FILE: &str = "tokens.json";
/// Most tokens; one more is refused.
pub const TOKENS_MAX: usize = 1000;
/// Largest file that is read: more than [`TOKENS_MAX`] tokens with the longest names need.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// What tokens begin with: the version of their form.
const PREFIX: &str = "pgt1";
/// Bytes of a secret: 256 bits.
const SECRET_BYTES: usize = 32;
/// Bytes of an id.
const ID_BYTES: usize = 5;
/// Version of the file's form.
const FORM: u32 = 1;

/// What whoever has a token may do; each role may what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See everything.
    Read,
    /// Act on objects.
    Operate,
    /// Change the configuration.
    Admin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Read, Self::Operate, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| "a role is read, operate or admin".to_owned())
    }
}

/// A token as it is kept and listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Names it without giving it away.
    pub id: String,
    /// What it may do.
    pub role: Role,
    /// Whose it is, for people; becomes the author of what is done with it.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// SHA-256 of the secret, in hexadecimal.
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    form: u32,
    tokens: Vec<Token>,
}

/// A token just made. Its text exists nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Created {
    /// The token's id.
    pub id: String,
    /// What it may do.
    pub role: Role,
    /// Whose it is.
    pub name: String,
    /// The whole token, shown once.
    pub token: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

fn digest(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// Compares without telling by its time where the first difference is.
fn same(a: &str, b: &str) -> bool {
    let difference = a.bytes().zip(b.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

/// Makes a token and keeps its digest.
///
/// # Errors
/// A name that is too long or has control characters, too many tokens, or a file that cannot be read or written.
pub fn create(data: &Path, role: Role, name: &str) -> Result<Created> {
    ensure!(
        name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control),
        "a token's name has at most {NAME_BYTES_MAX} bytes and no control characters"
    );
    let secret = hex(&rand::random::<[u8; SECRET_BYTES]>());
    change(data, |tokens| {
        ensure!(tokens.len() < TOKENS_MAX, "there are {TOKENS_MAX} tokens already: revoke those not needed any more");
        let id = loop {
            let id = hex(&rand::random::<[u8; ID_BYTES]>());
            if tokens.iter().all(|token| token.id != id) {
                break id;
            }
        };
        let name = if name.is_empty() { format!("token {id}") } else { name.to_owned() };
        let created = format!("{:.0}", jiff::Timestamp::now());
        tokens.push(Token { id: id.clone(), role, name: name.clone(), created, sha256: digest(&secret) });
        Ok(Created { token: format!("{PREFIX}.{id}.{secret}"), id, role, name })
    })
}

/// All tokens, oldest first.
///
/// # Errors
/// A file that cannot be read.
pub fn list(data: &Path) -> Result<Vec<Token>> {
    read(&data.join(FILE))
}

/// Forgets a token; a running master refuses it from its next request on and closes its event streams.
///
/// # Errors
/// No such token, or a file that cannot be read or written.
pub fn revoke(data: &Path, id: &str) -> Result<Token> {
    change(data, |tokens| {
        let place = tokens.iter().position(|token| token.id == id);
        let place =
            place.with_context(|| format!("there is no token “{}”: `token list` shows them", id.escape_debug()))?;
        Ok(tokens.remove(place))
    })
}

/// Reads, changes and replaces the file while nobody else does.
fn change<T>(data: &Path, change: impl FnOnce(&mut Vec<Token>) -> Result<T>) -> Result<T> {
    let path = data.join(FILE);
    let owner = fs::metadata(data).with_context(|| format!("there is no data directory {}", data.display()))?;
    let lock_path = data.join("tokens.lock");
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock_path);
    let lock = lock.with_context(|| format!("cannot open {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    let mut tokens = read(&path)?;
    let outcome = change(&mut tokens)?;
    let text = serde_json::to_string_pretty(&Stored { form: FORM, tokens })?;
    let beside = data.join("tokens.json.tmp");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        // Root may make a token for a master that runs as somebody else.
        if file.metadata()?.uid() != owner.uid() {
            std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(data)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(outcome)
}

fn read(path: &Path) -> Result<Vec<Token>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mode = file.metadata().with_context(|| format!("cannot examine {}", path.display()))?.mode();
    if mode & 0o077 != 0 {
        bail!("{} can be read or written by others (mode {:o}): chmod 600 it", path.display(), mode & 0o777);
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    let stored: Stored = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    ensure!(stored.form == FORM, "{} is of form {}, this program reads {FORM}", path.display(), stored.form);
    Ok(stored.tokens)
}

/// What distinguishes one state of the file from another: every change is a rename, so at least the inode differs.
type Stamp = Option<(u64, i64, i64, u64, u32)>;

/// The tokens of a running master, read again when the file changes.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    known: Mutex<(Stamp, Arc<Vec<Token>>)>,
}

impl Tokens {
    pub(crate) fn new(data: &Path) -> Self {
        Self { path: data.join(FILE), known: Mutex::default() }
    }

    fn current(&self) -> Arc<Vec<Token>> {
        let stamp = fs::metadata(&self.path)
            .ok()
            .map(|meta| (meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.len(), meta.mode()));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != stamp {
            let tokens = read(&self.path).unwrap_or_else(|error| {
                // Without a readable list nobody has a token; the local socket goes on.
                tracing::error!(error = format!("{error:#}"), "no token is accepted");
                Vec::new()
            });
            *known = (stamp, Arc::new(tokens));
        }
        Arc::clone(&known.1)
    }

    /// The token that this text is, if it is one.
    pub(crate) fn find(&self, text: &str) -> Option<Token> {
        let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('.')?.split_once('.')?;
        let digest = digest(secret);
        self.current().iter().find(|token| token.id == id && same(&token.sha256, &digest)).cloned()
    }

    /// Whether a token found earlier still holds.
    pub(crate) fn holds(&self, id: &str) -> bool {
        self.current().iter().any(|token| token.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_whole_text_only_and_never_after_it_was_revoked() {
        let data = tempfile::tempdir().unwrap();
        let tokens = Tokens::new(data.path());
        let made = create(data.path(), Role::Operate, "ann").unwrap();
        assert_eq!(
            tokens.find(&made.token).map(|token| (token.role, token.name)),
            Some((Role::Operate, "ann".to_owned()))
        );
        let mut wrong = made.token.clone();
        let last = wrong.pop().unwrap();
        for text in
            [wrong.clone(), format!("{wrong}{}", if last == '0' { '1' } else { '0' }), format!("{}0", made.token)]
        {
            assert_eq!(tokens.find(&text), None, "{text}");
        }
        let other = create(data.path(), Role::Read, "").unwrap();
        assert_eq!(tokens.find(&made.token.replace(&made.id, &other.id)), None, "another's id with this secret");
        revoke(data.path(), &made.id).unwrap();
        assert_eq!(tokens.find(&made.token), None);
        assert!(!tokens.holds(&made.id) && tokens.holds(&other.id));
        assert!(revoke(data.path(), &made.id).unwrap_err().to_string().contains(&made.id));
    }

    #[test]
    fn the_file_holds_no_secret_and_is_the_owners_alone() {
        let data = tempfile::tempdir().unwrap();
        let made = create(data.path(), Role::Admin, "root").unwrap();
        let path = data.path().join(FILE);
        let secret = made.token.rsplit('.').next().unwrap();
        assert_eq!(secret.len(), 2 * SECRET_BYTES);
        assert!(!fs::read_to_string(&path).unwrap().contains(secret));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(list(data.path()).unwrap_err().to_string().contains("chmod 600"));
        assert_eq!(Tokens::new(data.path()).find(&made.token), None, "a file that others can write makes no admin");
    }

    #[test]
    fn tokens_made_at_the_same_time_are_all_kept() {
        let data = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| create(data.path(), Role::Read, "many").unwrap());
            }
        });
        assert_eq!(list(data.path()).unwrap().len(), 8);
    }
}
