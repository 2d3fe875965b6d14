//! How a server is entered: who asks, and which certificates are trusted. The same for sources,
//! targets and what a mirror is compared with. None of it is remembered.

use crate::client::couchdb::{Credentials, Secret, Tls};

/// How a server is entered.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The password of the user named in the URL. It takes precedence over one in the URL.
    pub password: Option<Secret>,
    /// Whether the user logs in once (`POST /_session`), and shows the server's cookie from then on.
    /// Without it the user and the password go with each request (HTTP Basic authentication).
    pub session: bool,
    /// A bearer token, in the place of a user and a password.
    pub token: Option<Secret>,
    /// How encrypted connections are made.
    pub tls: Tls,
}

/// Ways of entering that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A password was given, and no user.
    #[error(
        "a password was given but no user: name the user in the URL, as in http://user@host/database"
    )]
    PasswordWithoutUser,
    /// A session needs a user.
    #[error("a session needs a user: name the user in the URL, as in http://user@host/database")]
    SessionWithoutUser,
    /// A token says who the user is.
    #[error(
        "a token was given, which says who the user is, and a user or a password too: leave these out"
    )]
    TokenBesideUser,
}

impl Access {
    /// What requests show, where the URL names this user.
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
