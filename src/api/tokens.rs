//! The tokens with which requests over the network are made, and their file.
//!
//! A token is 32 bytes of the system's random source. The file holds its SHA-256. Nobody can guess 32 random
//! bytes, so a slow hash, as passwords need it, would protect nothing and slow down each request.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::role::Role;
use crate::place::Place;

/// What a token begins with, so that people and scanners of secrets recognise it.
const PREFIX: &str = "plainfold_";

/// The random bytes of a token.
const RANDOM: usize = 32;

/// The version of the file.
const FORMAT: u32 = 1;

/// The largest file, in bytes.
const LARGEST: u64 = 1 << 20;

/// How long a change waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks whether the other one has ended.
const MOMENT: Duration = Duration::from_millis(50);

/// The longest name, in characters.
const LONGEST_NAME: usize = 64;

/// A token as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What people call it.
    pub name: TokenName,
    /// What its owner may ask.
    pub role: Role,
    /// Its SHA-256.
    sha256: Sha256Hex,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The name of a token: 1 to 64 of the characters `a-z`, `0-9`, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenName(String);

/// The SHA-256 of a token, 64 digits in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Sha256Hex([u8; 32]);

/// Why the file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read or written.
    #[error("the file of tokens {path} cannot be {what}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was done to it.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{path} is not a file of tokens: {why}; name another file in `[api] tokens`, or move this one away \
         and make new tokens",
        path = path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why it is not.
        why: String,
    },
    /// Others could add tokens.
    #[error(
        "others may write to the file of tokens {path} (mode {mode:04o}): run `chmod 600 {quoted}`",
        path = path.display(),
        quoted = crate::document::plain::quoted(&path.to_string_lossy())
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A token has this name.
    #[error(
        "there is a token `{0}` already: choose another name, or remove it first with `plainfold token \
         remove {0}`"
    )]
    Exists(TokenName),
    /// No token has this name.
    #[error("there is no token `{0}`: `plainfold token list` lists all tokens")]
    Unknown(TokenName),
}

/// A text that is not the name of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a token has 1 to {LONGEST_NAME} of the characters a-z, 0-9, `-`, `_` and `.`, and the first \
     one is a letter or a digit"
)]
pub struct BadTokenName;

impl TokenName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TokenName {
    type Err = BadTokenName;

    fn from_str(text: &str) -> Result<Self, BadTokenName> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=LONGEST_NAME).contains(&text.len())
            && text.bytes().all(|byte| is_plain(byte) || b"-_.".contains(&byte))
            && text.bytes().next().is_some_and(is_plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(BadTokenName) }
    }
}

impl TryFrom<String> for TokenName {
    type Error = BadTokenName;

    fn try_from(text: String) -> Result<Self, BadTokenName> {
        text.parse()
    }
}

impl From<Sha256Hex> for String {
    fn from(Sha256Hex(bytes): Sha256Hex) -> Self {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "`sha256` has 64 digits";
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let pair = str::from_utf8(pair).map_err(|_| WRONG)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(bytes))
    }
}

impl Sha256Hex {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// The token among `all` that was presented. Takes the same time for each that is wrong.
pub(super) fn find<'a>(all: &'a [Token], presented: &str) -> Option<&'a Token> {
    let presented = Sha256Hex::of(presented);
    let mut found = None;
    for token in all {
        if bool::from(token.sha256.0.ct_eq(&presented.0)) {
            found = Some(token);
        }
    }
    found
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    tokens: Vec<Token>,
}

/// What differs when a file was written or replaced.
pub(super) type Stamp = (u64, u64, u64, i64, i64);

pub(super) fn stamp(found: &Metadata) -> Stamp {
    (found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec())
}

/// The tokens in the file at `path`; `None` if there is no file. Blocks.
pub fn read(path: &Path) -> Result<Option<Vec<Token>>, TokenError> {
    Ok(read_stamped(path)?.map(|(tokens, _)| tokens))
}

/// The same with the stamp of the file.
pub(super) fn read_stamped(path: &Path) -> Result<Option<(Vec<Token>, Stamp)>, TokenError> {
    let failed = |source| TokenError::Io { path: path.to_owned(), what: "read", source };
    let foreign =
        |why: &dyn ToString| TokenError::Foreign { path: path.to_owned(), why: why.to_string() };
    // A pipe without a writer would be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let found = file.metadata().map_err(failed)?;
    let mode = found.permissions().mode() & 0o777;
    if !found.is_file() {
        return Err(foreign(&"it is a folder, a pipe or a device"));
    }
    if mode & 0o022 != 0 {
        return Err(TokenError::Exposed { path: path.to_owned(), mode });
    }
    if let Some(stranger) = stranger(path, &found) {
        let why = format!(
            "it belongs to the user {stranger}, who is neither root, nor the owner of its folder, nor the user \
             of this process"
        );
        return Err(foreign(&why));
    }
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(foreign(&format!("it has more than {LARGEST} bytes")));
    }
    let document: Document = serde_json::from_slice(&text).map_err(|error| foreign(&error))?;
    match document.format {
        FORMAT => Ok(Some((document.tokens, stamp(&found)))),
        other => Err(foreign(&format!("its format is {other}, and this version knows {FORMAT}"))),
    }
}

/// The owner of the file, if it is nobody who may make tokens.
fn stranger(path: &Path, found: &Metadata) -> Option<u32> {
    let owner = found.uid();
    let folder = || path.canonicalize().ok()?.parent()?.metadata().ok();
    let is_known = owner == 0
        || owner == rustix::process::geteuid().as_raw()
        || folder().is_some_and(|folder| folder.uid() == owner);
    (!is_known).then_some(owner)
}

/// Makes a token, and adds it to the file at `path`. The token is in no other place. Blocks.
pub fn add(path: &Path, name: TokenName, role: Role) -> Result<SecretString, TokenError> {
    let mut random = [0; RANDOM];
    // So few bytes always come at once and as a whole.
    getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|error| failed_to_write(path, error.into()))?;
    let token = SecretString::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)));
    let sha256 = Sha256Hex::of(token.expose_secret());
    change(path, |tokens| {
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokenError::Exists(name));
        }
        tokens.push(Token { name, role, sha256, created_at: Timestamp::now() });
        Ok(())
    })?;
    Ok(token)
}

/// Removes a token from the file at `path`, and gives the number of those that are left. Blocks.
pub fn remove(path: &Path, name: &TokenName) -> Result<usize, TokenError> {
    change(path, |tokens| {
        let before = tokens.len();
        tokens.retain(|token| token.name != *name);
        match tokens.len() {
            after if after < before => Ok(after),
            _ => Err(TokenError::Unknown(name.clone())),
        }
    })
}

fn failed_to_write(path: &Path, source: io::Error) -> TokenError {
    TokenError::Io { path: path.to_owned(), what: "written", source }
}

/// Replaces the file by a changed one. Two changes at the same time follow each other.
fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut Vec<Token>) -> Result<T, TokenError>,
) -> Result<T, TokenError> {
    let failed = |source| failed_to_write(path, source);
    // A link to the file or its folder stays.
    let real = real(path).map_err(failed)?;
    let folder = File::open(real.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    lock(&folder).map_err(failed)?;
    let mut tokens = read(&real)?.unwrap_or_default();
    let outcome = change(&mut tokens)?;
    let owner = Owner::of(&real, &folder).map_err(failed)?;
    let mut text = serde_json::to_vec_pretty(&Document { format: FORMAT, tokens })
        .map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    write(&real, &text, &owner).map_err(failed)?;
    Ok(outcome)
}

/// Waits for the lock of the folder in bounded time: everybody who can open the folder can hold it.
fn lock(folder: &File) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => std::thread::sleep(MOMENT),
            Err(Errno::WOULDBLOCK) => {
                let why = "another process has held the lock of its folder for 10 s: end that process, which \
                           `lslocks` names, and try again";
                return Err(io::Error::other(why));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn real(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(real), ..) => Ok(real),
        (Err(error), Some(folder), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(folder.canonicalize()?.join(name))
        }
        (Err(error), ..) => Err(error),
    }
}

/// Whose the file is, and who may read it.
struct Owner {
    /// For root, who gives the file away.
    ids: Option<(Uid, Gid)>,
    mode: Mode,
}

impl Owner {
    /// What the file has already. A new one that root makes belongs to the owner and the group of its
    /// folder, because the agent's user must be able to read it: if that is only by its group, the group may.
    fn of(path: &Path, folder: &File) -> io::Result<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let (found, mode) = match path.metadata() {
            Ok(found) => {
                let mode = found.permissions().mode() & 0o640;
                (found, mode)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let found = folder.metadata()?;
                let by_group = is_root && found.uid() == 0 && found.gid() != 0;
                (found, if by_group { 0o640 } else { 0o600 })
            }
            Err(error) => return Err(error),
        };
        let ids = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        Ok(Self { ids: is_root.then_some(ids), mode: Mode::from_raw_mode(mode) })
    }
}

/// Replaces the file in one durable step. Nobody else can read it at any moment.
fn write(path: &Path, text: &[u8], owner: &Owner) -> io::Result<()> {
    let (place, name) = Place::of(path)?;
    let new = format!("{name}.new");
    place.remove(&new)?;
    let mut file = place.create_file(&new)?;
    rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    if let Some((user, group)) = owner.ids {
        rustix::fs::fchown(&file, Some(user), Some(group))?;
    }
    rustix::fs::fchmod(&file, owner.mode)?;
    file.write_all(text)?;
    file.sync_all()?;
    place.rename(&new, &name)?;
    place.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TokenName {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_is_found_by_itself_alone_and_its_file_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        assert_eq!(read(&path).unwrap(), None);
        let one = add(&path, name("one"), Role::Read).unwrap();
        let two = add(&path, name("two"), Role::Admin).unwrap();
        let (one, two) = (one.expose_secret(), two.expose_secret());
        assert!(one.starts_with("plainfold_") && one.len() == 53 && one != two);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&one[10..]) && !text.contains(&two[10..]), "{text}");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let all = read(&path).unwrap().unwrap();
        let found = |token: &str| find(&all, token).map(|token| (token.name.as_str(), token.role));
        assert_eq!(found(one), Some(("one", Role::Read)));
        assert_eq!(found(two), Some(("two", Role::Admin)));
        for wrong in ["", &one[..52], &one[10..], &format!("{one} "), &one.to_uppercase()] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
        assert!(matches!(add(&path, name("one"), Role::Read), Err(TokenError::Exists(_))));
        assert_eq!(remove(&path, &name("one")).unwrap(), 1);
        assert!(find(&read(&path).unwrap().unwrap(), one).is_none());
        assert!(matches!(remove(&path, &name("one")), Err(TokenError::Unknown(_))));
        assert_eq!(remove(&path, &name("two")).unwrap(), 0);
        assert_eq!(read(&path).unwrap(), Some(Vec::new()));
        let left: Vec<_> =
            dir.path().read_dir().unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["tokens.json"]);
    }

    #[test]
    fn what_others_may_write_and_what_is_no_file_of_tokens_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        for text in ["", "{}", "[]", r#"{"format":2,"tokens":[]}"#, "\u{0}"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(TokenError::Foreign { .. })), "{text}");
            add(&path, name("a"), Role::Read).unwrap_err();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it stays");
        }
        for sha256 in ["", "00", &"g".repeat(64), &"+1".repeat(32), &"ä".repeat(32)] {
            let token = serde_json::json!({
                "name": "a", "role": "read", "sha256": sha256, "created_at": "2026-01-01T00:00:00Z"
            });
            let text = serde_json::json!({ "format": 1, "tokens": [token] }).to_string();
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(TokenError::Foreign { .. })), "{sha256}");
        }
        std::fs::remove_file(&path).unwrap();
        add(&path, name("a"), Role::Read).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
        assert!(matches!(read(&path), Err(TokenError::Exposed { mode: 0o620, .. })));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(read(&path), Err(TokenError::Foreign { .. })));
        for bad in ["", "A", "-a", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert_eq!(bad.parse::<TokenName>(), Err(BadTokenName), "{bad}");
        }
    }

    #[test]
    fn a_file_that_exists_keeps_its_mode_and_a_link_to_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.json"), dir.path().join("tokens.json"));
        add(&real, name("a"), Role::Read).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        add(&link, name("b"), Role::Read).unwrap();
        assert!(link.is_symlink());
        assert_eq!(read(&real).unwrap().unwrap().len(), 2);
        assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_file_that_root_makes_can_be_read_by_the_owner_of_its_folder() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        for (user, group, mode) in [(0, 0, 0o600), (1234, 1234, 0o600), (0, 1234, 0o640)] {
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::chown(dir.path(), Some(user), Some(group)).unwrap();
            let path = dir.path().join("tokens.json");
            for made in ["a", "b"] {
                add(&path, name(made), Role::Read).unwrap();
                let found = path.metadata().unwrap();
                assert_eq!((found.uid(), found.gid()), (user, group));
                assert_eq!(found.permissions().mode() & 0o777, mode, "{user}:{group}");
            }
        }
    }

    #[test]
    fn tokens_that_are_added_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || add(path, name(&format!("t{number}")), Role::Read).unwrap());
            }
        });
        assert_eq!(read(&path).unwrap().unwrap().len(), 8);
    }
}
