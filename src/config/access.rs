//! Credentials and certificates for a server: a source, a target, or what a mirror is compared with. None
//! of it is remembered.

use secrecy::ExposeSecret;

use crate::client::couchdb::{Credentials, Secret, ServerRole, Tls};

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

/// Credentials that are incomplete, or that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A password was given, and no user.
    #[error(
        "a password was given but no user: name the user in the URL, as in http://user@host/database"
    )]
    PasswordWithoutUser,
    /// A user was named, and no password was given, or an empty one.
    #[error(
        "the user `{0}` was named, but no password was given: give it with --password-file, or in {1}"
    )]
    UserWithoutPassword(String, &'static str),
    /// A session needs a user.
    #[error(
        "--auth session needs a user: name the user in the URL, as in http://user@host/database"
    )]
    SessionWithoutUser,
    /// A token was given, and also a user or a password.
    #[error("a token was given, and a user or a password too: give only one of them")]
    TokenBesideUser,
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
