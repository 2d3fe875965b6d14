//! What a person types to name a source, a target, or what a mirror is compared with: a URL or a
//! feed, credentials and certificates. None of it is remembered.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::error::{AccessError, ConfigError};
use crate::client::couchdb::{Address, Client, ClientOptions, typed};
use crate::client::couchdb::{Credentials, Secret, ServerRole, Tls};
use crate::document::CollectionName;

/// The target of a restore.
pub enum Endpoint {
    /// A recorded feed; `None` is standard output.
    Feed(Option<PathBuf>),
    /// A server, and the one database of it that was named.
    Server(Client, Option<CollectionName>),
}

/// Credentials and certificates for a server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The password of the user named in the URL. It takes precedence over one in the URL.
    pub password: Option<Secret>,
    /// Whether the user logs in once (`POST /_session`), and requests carry the server's cookie from then
    /// on. Otherwise each request carries the user and the password (HTTP Basic authentication).
    pub session: bool,
    /// A bearer token, instead of a user and a password.
    pub token: Option<Secret>,
    /// How encrypted connections are made.
    pub tls: Tls,
    /// What the server is, which decides the variables that messages name.
    pub side: ServerRole,
}

impl Access {
    /// The credentials of requests, if the URL names this user.
    pub fn credentials(
        &self,
        named: Option<Credentials>,
    ) -> Result<Option<Credentials>, AccessError> {
        if let Some(token) = &self.token {
            return match (&named, &self.password, self.session) {
                (None, None, false) => Ok(Some(Credentials::Token(token.clone()))),
                _ => Err(AccessError::TokenBesideUser),
            };
        }
        let Some(named) = named else {
            return match (&self.password, self.session) {
                (Some(_), _) => Err(AccessError::PasswordWithoutUser),
                (None, true) => Err(AccessError::SessionWithoutUser),
                (None, false) => Ok(None),
            };
        };
        let user = named.user().unwrap_or_default().to_owned();
        let password = self.password.clone().unwrap_or_else(|| named.secret().clone());
        let is_empty = |secret: &Secret| match secret {
            Secret::Fixed(secret) => secret.expose_secret().is_empty(),
            Secret::File(..) | Secret::Command(_) => false,
        };
        match (user.is_empty(), is_empty(&password)) {
            (true, _) => return Err(AccessError::PasswordWithoutUser),
            // A server would count it as a failed attempt to log in.
            (false, true) => {
                return Err(AccessError::UserWithoutPassword(user, self.side.password_variable()));
            }
            (false, false) => {}
        }
        Ok(Some(match self.session {
            true => Credentials::Session { user, password },
            false => Credentials::Basic { user, password },
        }))
    }
}

/// What follows `feed:`, if a source or a target begins so.
pub fn feed(text: &str) -> Option<&str> {
    let (scheme, path) = text.trim_start().split_once(':')?;
    scheme.eq_ignore_ascii_case("feed").then_some(path)
}

/// What to type for a source or a target that is neither a URL nor a feed, if it can be guessed.
pub fn meant(text: &str) -> Option<String> {
    let path = Path::new(text);
    let is_feed = ["ndjson", "jsonl", "json", "gz", "zst"]
        .iter()
        .any(|kind| path.extension().is_some_and(|extension| extension == *kind));
    if path.is_dir() {
        return Some(
            "it is a directory, and a source or a target is a server or a file".to_owned(),
        );
    }
    let has_scheme = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:"));
    if !Address::is_url_like(text) && (path.is_file() || is_feed && !has_scheme) {
        return Some(format!("for a recorded feed, write feed:{text}"));
    }
    typed::meant(text)
}

impl Endpoint {
    /// Reads what was typed as a target. If a URL ends in a slash, the server is asked whether its
    /// path is that of a database.
    pub async fn of_target(text: &str, access: Access) -> Result<Self, ConfigError> {
        let path = feed(text).filter(|path| !path.is_empty() && !Address::is_url_like(path));
        if let Some(path) = path {
            return Ok(Self::Feed((path != "-").then(|| PathBuf::from(path))));
        }
        if !Address::is_meant(text) {
            let (given, meant) = (Address::hidden(text), meant(text));
            return Err(ConfigError::UnknownTarget { given, meant });
        }
        let given = Address::parse(text).map_err(ConfigError::TargetUrl)?;
        let options = ClientOptions {
            credentials: access.credentials(given.credentials)?,
            tls: access.tls,
            side: access.side,
            ..ClientOptions::default()
        };
        let client = |address| Client::new(address, options.clone()).map_err(ConfigError::Client);
        if let Some(below) = given.below {
            let below = client(below)?;
            if below.is_server().await {
                return Ok(Self::Server(below, None));
            }
        }
        Ok(Self::Server(client(given.address)?, given.database))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_a_password_belong_together() {
        let user = |name: &str, password: &str| Some(Credentials::new(name, password.into()));
        let error = Access::default().credentials(user("me", "")).unwrap_err().to_string();
        assert!(error.contains("`me`") && error.contains("PLAINFOLD_SOURCE_PASSWORD"), "{error}");
        let target = Access { side: ServerRole::Target, ..Access::default() };
        let error = target.credentials(user("me", "")).unwrap_err().to_string();
        assert!(error.contains("PLAINFOLD_TARGET_PASSWORD"), "{error}");
        let error = Access::default().credentials(user("", "hunter2")).unwrap_err();
        assert_eq!(error, AccessError::PasswordWithoutUser);
    }

    #[test]
    fn ways_of_entering_that_do_not_go_together_are_refused() {
        let secret = || Some(Secret::Fixed("secret".into()));
        let user = || Some(Credentials::new("me", "hunter2".into()));
        let access =
            |password, session, token| Access { password, session, token, ..Access::default() };
        let fails = |access: Access, named| access.credentials(named).err();
        assert_eq!(
            fails(access(secret(), false, None), None),
            Some(AccessError::PasswordWithoutUser)
        );
        assert_eq!(fails(access(None, true, None), None), Some(AccessError::SessionWithoutUser));
        for (password, session, named) in
            [(secret(), false, None), (None, true, None), (None, false, user())]
        {
            let both = access(password, session, secret());
            assert_eq!(fails(both, named), Some(AccessError::TokenBesideUser));
        }
        let session = access(None, true, None).credentials(user()).unwrap();
        assert!(matches!(session, Some(Credentials::Session { .. })));
        assert!(access(None, false, None).credentials(None).unwrap().is_none());
    }
}
