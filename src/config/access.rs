//! How a server is entered: where its secrets and certificates are found, and the one place that
//! reads them.
//!
//! What cannot be right is refused before it costs an attempt to log in.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};

use super::endpoint::{Access, feed};
use crate::client::couchdb::credentials::{SecretKind, secret};
use crate::client::couchdb::{BadSecret, BadTls, Secret, ServerRole, Tls};

/// Where the credentials and certificates for a server are found. It holds no secret, unless the config
/// file itself does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessOptions {
    /// The password of the user in the URL.
    pub password: Option<SecretPlace>,
    /// A bearer token.
    pub token: Option<SecretPlace>,
    /// Whether the user logs in once; see [`Access::session`].
    pub session: bool,
    /// How encrypted connections are made.
    pub tls: Tls,
}

/// Where a password or a token is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// In a file, alone and on one line.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
    /// In a file of systemd's, by its name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// On the standard output of a shell command. Only for tokens.
    Command(String),
    /// In the config file itself.
    Config(WrittenSecret),
}

/// A secret that the config file holds. It is never printed.
#[derive(Clone)]
pub struct WrittenSecret(pub SecretString);

impl PartialEq for WrittenSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for WrittenSecret {}

impl fmt::Debug for WrittenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrittenSecret(…)")
    }
}

/// A secret or a certificate that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The secret.
    #[error(transparent)]
    Secret(#[from] BadSecret),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] BadTls),
    /// The variable is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUnicode(String),
    /// The variable is not set.
    #[error("the environment variable {0} is not set: set it to the {1}")]
    NotSet(String, SecretKind),
    /// systemd has passed no credentials.
    #[error(
        "the {1} is the systemd credential `{0}`, but CREDENTIALS_DIRECTORY is not set: start Plainfold \
         as a systemd service with LoadCredential={0}:PATH"
    )]
    NoCredentials(String, SecretKind),
}

impl AccessOptions {
    /// Reads what they name. `url` is where the server is; a feed is entered without any of this. Blocks.
    pub fn access(&self, url: &str, side: ServerRole) -> Result<Access, SecretError> {
        let mut access = Access { side, ..Access::default() };
        if feed(url).is_some() {
            return Ok(access);
        }
        access.session = self.session;
        let find = |place: &Option<SecretPlace>, kind| {
            place.as_ref().map(|place| place.find(kind)).transpose()
        };
        access.password = find(&self.password, SecretKind::Password)?;
        access.token = find(&self.token, SecretKind::Token)?;
        if url.trim_start().to_ascii_lowercase().starts_with("https:") {
            access.tls = self.tls.clone();
            access.tls.check()?;
        }
        Ok(access)
    }
}

impl SecretPlace {
    /// The secret itself. Blocks.
    pub(super) fn read(&self, kind: SecretKind) -> Result<SecretString, SecretError> {
        Ok(self.find(kind)?.read()?)
    }

    /// The secret there. A file is read, so that one that cannot be used is refused now.
    fn find(&self, kind: SecretKind) -> Result<Secret, SecretError> {
        let read = |path: PathBuf| {
            let secret = Secret::File(path, kind);
            secret.read()?;
            Ok(secret)
        };
        match self {
            Self::File(path) => read(path.clone()),
            Self::Variable(name) => {
                let text = std::env::var_os(name).map(OsString::into_string).transpose();
                let text = text.map_err(|_| SecretError::NotUnicode(name.clone()))?;
                let text = text.ok_or_else(|| SecretError::NotSet(name.clone(), kind))?;
                Ok(Secret::Fixed(secret(text.as_bytes(), name, kind)?))
            }
            Self::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(folder) => read(PathBuf::from(folder).join(name)),
                None => Err(SecretError::NoCredentials(name.clone(), kind)),
            },
            Self::Command(command) => Ok(Secret::Command(command.clone())),
            Self::Config(WrittenSecret(secret)) => Ok(Secret::Fixed(secret.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(place: SecretPlace) -> Result<String, String> {
        let options = AccessOptions { password: Some(place), ..AccessOptions::default() };
        let access = options.access("http://me@host/db", ServerRole::Source);
        let secret = access.map_err(|error| error.to_string())?.password.unwrap();
        Ok(secret.read().unwrap().expose_secret().to_owned())
    }

    #[test]
    fn a_secret_is_read_where_it_is_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(found(SecretPlace::File(path.clone())).unwrap(), "hunter2");
        let written = SecretPlace::Config(WrittenSecret("hunter2".into()));
        assert!(!format!("{written:?}").contains("hunter2"));
        assert_eq!(found(written).unwrap(), "hunter2");
        std::fs::write(&path, "").unwrap();
        let error = found(SecretPlace::File(path)).unwrap_err();
        assert!(error.contains("is empty"), "{error}");
        for (place, why) in [
            (SecretPlace::Variable("PLAINFOLD_NO_SUCH_VARIABLE".to_owned()), "is not set"),
            (SecretPlace::Credential("couch".to_owned()), "LoadCredential=couch"),
        ] {
            let error = found(place).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_feed_is_entered_without_secrets() {
        let place = SecretPlace::Variable("PLAINFOLD_NO_SUCH_VARIABLE".to_owned());
        let options = AccessOptions { password: Some(place), ..AccessOptions::default() };
        assert!(options.access("feed:x", ServerRole::Source).unwrap().password.is_none());
    }
}
