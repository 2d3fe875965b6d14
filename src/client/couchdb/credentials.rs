//! Users, passwords and tokens, and where these come from.
//!
//! Secrets are never printed.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};

/// How long a command that prints a token may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// The largest secret, in bytes.
const LARGEST: u64 = 64 << 10;

/// The credentials that requests carry.
#[derive(Clone)]
pub enum Credentials {
    /// A user and a password with each request.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A user and a password once; the server's cookie with each request.
    Session {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token, such as a JSON Web Token.
    Token(Secret),
}

/// A password or a token, or the place to read it from.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Fixed(SecretString),
    /// A file that holds it, which is read again when the server refuses what it held.
    File(PathBuf, SecretKind),
    /// A shell command that prints it, which is run again when the server refuses what it printed.
    Command(String),
}

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A password.
    Password,
    /// A token.
    Token,
    /// The URL of a hook.
    Url,
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password => "password",
            Self::Token => "token",
            Self::Url => "URL",
        })
    }
}

/// A secret that cannot be used. It never repeats the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSecret(String);

impl Credentials {
    /// A user and a password, sent as HTTP Basic authentication.
    pub fn new(user: impl Into<String>, password: SecretString) -> Self {
        Self::Basic { user: user.into(), password: Secret::Fixed(password) }
    }

    /// The user's name, unless a token holds it.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Basic { user, .. } | Self::Session { user, .. } => Some(user),
            Self::Token(_) => None,
        }
    }

    /// The password or the token.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Basic { password, .. } | Self::Session { password, .. } => password,
            Self::Token(token) => token,
        }
    }
}

impl Secret {
    /// Reads it. Blocks.
    pub fn read(&self) -> Result<SecretString, BadSecret> {
        match self {
            Self::Fixed(secret) => Ok(secret.clone()),
            Self::File(path, kind) => {
                let place = format!("the {kind} file {}", path.display());
                secret(&file(path, &place)?, &place, *kind)
            }
            Self::Command(command) => {
                secret(&printed(command)?, "the token command's output", SecretKind::Token)
            }
        }
    }

    /// Whether it may differ when it is read again.
    pub(super) fn may_change(&self) -> bool {
        !matches!(self, Self::Fixed(_))
    }

    /// Whether it is in a file, which costs little to read.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(..))
    }
}

fn file(path: &Path, place: &str) -> Result<Vec<u8>, BadSecret> {
    let bad = |error: std::io::Error| BadSecret(format!("{place} cannot be read: {error}"));
    let mut text = Vec::new();
    std::fs::File::open(path)
        .map_err(bad)?
        .take(LARGEST + 1)
        .read_to_end(&mut text)
        .map_err(bad)?;
    Ok(text)
}

/// The standard output of a shell command.
fn printed(command: &str) -> Result<Vec<u8>, BadSecret> {
    let bad = |why: String| BadSecret(format!("the token command {why}"));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = shell.spawn().map_err(|error| bad(format!("cannot be started: {error}")))?;
    let out = child.stdout.take();
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = out.map(|out| out.take(LARGEST + 1).read_to_end(&mut text));
        read.transpose().map(|_| text)
    });
    let deadline = Instant::now() + COMMAND_PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            ended => {
                let (_killed, _reaped) = (child.kill(), child.wait());
                return Err(match ended {
                    Err(error) => bad(format!("cannot be waited for: {error}")),
                    Ok(_) => bad(format!("did not end within {} s", COMMAND_PATIENCE.as_secs())),
                });
            }
        }
    };
    if !status.success() {
        return Err(bad(format!("failed ({status})")));
    }
    match reading.join() {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(bad(format!("printed output that cannot be read: {error}"))),
        Err(_) => Err(bad("printed output that cannot be read".to_owned())),
    }
}

/// The secret that a file or a command holds: its one line.
pub fn secret(bytes: &[u8], place: &str, kind: SecretKind) -> Result<SecretString, BadSecret> {
    let bad = |why: &str| Err(BadSecret(format!("{place} {why}")));
    if bytes.len() as u64 > LARGEST {
        return bad(&format!(
            "is larger than {} KiB, which is too long for a {kind}",
            LARGEST >> 10
        ));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return bad("is not valid UTF-8: save it as UTF-8");
    };
    // Editors begin a file with a mark and end it with a newline; passwords have neither.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        return bad(&format!("is empty: it must hold the {kind} on one line"));
    }
    let lines = text.lines().count();
    if lines > 1 || text.contains('\r') {
        return bad(&format!("holds {lines} lines: it must hold the {kind} alone, on one line"));
    }
    if text.chars().any(char::is_control) {
        return bad(&format!("holds control characters, which a {kind} must not have"));
    }
    match kind {
        SecretKind::Password | SecretKind::Url => Ok(text.into()),
        SecretKind::Token => {
            let token = text.trim();
            if token.split_whitespace().count() > 1 {
                return bad(
                    "holds more than one word: it must hold the token alone, without `Bearer`",
                );
            }
            if !token.is_ascii() {
                return bad("holds characters outside ASCII, which a token must not have");
            }
            Ok(token.into())
        }
    }
}

/// Whether two secrets are the same.
pub(super) fn is_same(left: &SecretString, right: &SecretString) -> bool {
    left.expose_secret() == right.expose_secret()
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let password = |bytes: &[u8]| secret(bytes, "the password file x", SecretKind::Password);
        for (bytes, expected) in [
            (&b"hunter2"[..], "hunter2"),
            (b"hunter2\n", "hunter2"),
            (b"hunter2\r\n", "hunter2"),
            (b"\xef\xbb\xbfhunter2\r\n", "hunter2"),
            (b" hunter 2 ", " hunter 2 "),
        ] {
            assert_eq!(password(bytes).unwrap().expose_secret(), expected);
        }
        for (bytes, why) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"\r\n", "is empty"),
            (b"  \n", "is empty"),
            (b"hunter2\nhunter3\n", "holds 2 lines"),
            (b"user: me\n\npassword: hunter2\n", "holds 3 lines"),
            (b"hunter2\rhunter3", "lines"),
            (b"hunter2\0", "control characters"),
            (b"h\0u\0", "control characters"),
            (b"\xff\xfeh\0", "UTF-8"),
            (&[b'x'; 70_000], "64 KiB"),
        ] {
            let error = password(bytes).unwrap_err().to_string();
            assert!(error.starts_with("the password file x ") && error.contains(why), "{error}");
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_token_is_one_word() {
        let token = |text: &str| secret(text.as_bytes(), "the token file x", SecretKind::Token);
        assert_eq!(token(" a.b.c \n").unwrap().expose_secret(), "a.b.c");
        for bad in ["Bearer a.b.c", "a.ü.c", "", "a\nb"] {
            assert!(token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_prints_a_token_or_says_why_not() {
        let run = |command: &str| Secret::Command(command.to_owned()).read();
        assert_eq!(run("echo a.b.c").unwrap().expose_secret(), "a.b.c");
        for (command, why) in [
            ("echo secret1; exit 3", "failed (exit status: 3)"),
            ("true", "is empty"),
            ("printf 'a\\nb'", "holds 2 lines"),
        ] {
            let error = run(command).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
