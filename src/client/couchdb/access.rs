//! The credentials of requests, and what follows when the server refuses them.
//!
//! A server may count each request with wrong credentials as an attack, and lock out everybody
//! behind the same proxy. So, until it has accepted the credentials, one request is sent at a time,
//! and none after a refusal. If wanted, credentials that were accepted before are tried again: one
//! request a pause for all databases together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

use super::credentials::{self, Credentials};
use super::error::{Error, Kind};
use super::standing::{Current, FIRST_REFUSED, LONGEST, Standing, Waiting, database, is_locked};

/// What follows when a server refuses credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// The request fails at once.
    #[default]
    Final,
    /// Credentials that were accepted before are tried again without end. They count as accepted before if
    /// this process has seen it, or by `accepted_before`.
    Wait {
        /// Whether they were accepted before this process began.
        accepted_before: bool,
        /// Whether several databases are read. Then a refusal by one of them does not end the run.
        several: bool,
    },
}

/// The first pause while the server locks the user out. During that time it counts no attempts.
const FIRST_LOCKED: Duration = Duration::from_secs(5);

/// How long a first request that hangs holds back others: before the first answer, and after the last
/// answer has become old. CouchDB may take a second to check a password.
const FIRST_PATIENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];

/// For how long a request waits for another one that tries the credentials again.
const TRY_PATIENCE: Duration = Duration::from_secs(2);

/// After this time without an answer, one request is sent first again: the password may have been changed,
/// and the feeds of all databases are opened again at the same moment.
const FRESH: Duration = Duration::from_secs(2);

/// How often the file of a refused secret is checked for a new one.
const LOOK: Duration = Duration::from_secs(1);

/// The credentials of one client.
#[derive(Debug)]
pub(super) struct Access {
    credentials: Option<Credentials>,
    refusal: Refusal,
    current: Mutex<Current>,
    /// Held by the request that finds out whether the server accepts the credentials.
    first: Arc<tokio::sync::Mutex<()>>,
    /// Held while a secret is read or a session is started.
    pub renewing: tokio::sync::Mutex<()>,
    changed: Notify,
}

/// The right to send one request.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    access: &'a Access,
    /// The header with the credentials.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// The user and the password, if a session has to be started first.
    pub login: Option<(String, SecretString)>,
    generation: u64,
    /// Whether it tries credentials again that were refused.
    tries: bool,
    _first: Option<OwnedMutexGuard<()>>,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.tries
            && let Standing::Waiting(waiting) = &mut self.access.lock().standing
        {
            // It got no answer: another request may try.
            waiting.trying = false;
        }
        self.access.changed.notify_waiters();
    }
}

/// What follows a refusal.
pub(super) enum Next {
    /// The credentials were renewed: send the request again.
    Again,
    /// The error.
    Failed(Error),
}

impl Access {
    pub fn new(credentials: Option<Credentials>, refusal: Refusal) -> Self {
        let accepted = matches!(refusal, Refusal::Wait { accepted_before: true, .. });
        let standing = if accepted { Standing::Accepted(None) } else { Standing::Unknown };
        let current = Current { standing, ..Current::default() };
        let (first, renewing, changed) = Default::default();
        let access =
            Self { credentials, refusal, current: Mutex::new(current), first, renewing, changed };
        if let Some(credentials) = &access.credentials
            && !credentials.secret().may_change()
            && let Ok(secret) = credentials.secret().read()
        {
            access.take(secret);
        }
        access
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials of requests.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// A text without the secrets.
    pub fn scrub(&self, text: &str) -> String {
        self.lock().scrub.scrub(text)
    }

    /// Uses this secret from now on.
    fn take(&self, secret: SecretString) {
        let current = &mut *self.lock();
        match &self.credentials {
            Some(Credentials::Token(_)) => current.scrub.add_token(secret.expose_secret()),
            Some(Credentials::Basic { user, .. } | Credentials::Session { user, .. }) => {
                current.scrub.add_password(user, secret.expose_secret());
            }
            None => {}
        }
        current.secret = Some(secret);
        current.cookies.clear();
        current.generation += 1;
    }

    /// Reads the secret.
    async fn read(&self) -> Result<Option<SecretString>, Error> {
        let Some(credentials) = self.credentials.clone() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || credentials.secret().read()).await;
        match read {
            Ok(Ok(secret)) => Ok(Some(secret)),
            Ok(Err(bad)) => Err(Error::new(Kind::Refused, bad.to_string())),
            Err(error) => Err(Error::transient(format!("a secret cannot be read: {error}"))),
        }
    }

    /// Waits until a request for this path may be sent.
    pub async fn enter(&self, path: &str) -> Result<Pass<'_>, Error> {
        let mut first = None;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.look(path, &mut first)? {
                Look::Enter { tries } => return self.pass(tries, first).await,
                Look::First(patience) => {
                    let first_one = Arc::clone(&self.first).lock_owned();
                    first = tokio::time::timeout(patience, first_one).await.ok();
                    if first.is_none() {
                        return self.pass(false, None).await;
                    }
                }
                Look::Tried(error) => {
                    if tokio::time::timeout(TRY_PATIENCE, changed).await.is_err() {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn look(&self, path: &str, first: &mut Option<OwnedMutexGuard<()>>) -> Result<Look, Error> {
        let now = Instant::now();
        let current = &mut *self.lock();
        if let Some(denied) = current.denied.get(database(path)).filter(|one| one.until > now) {
            return Err(denied.error.clone().asking(denied.until - now));
        }
        if self.credentials.is_none() {
            return Ok(Look::Enter { tries: false });
        }
        match &mut current.standing {
            Standing::Accepted(Some(at)) if now < *at + FRESH => Ok(Look::Enter { tries: false }),
            Standing::Accepted(_) | Standing::Unknown if first.is_some() => {
                Ok(Look::Enter { tries: false })
            }
            Standing::Unknown => Ok(Look::First(FIRST_PATIENCE[0])),
            Standing::Accepted(_) => Ok(Look::First(FIRST_PATIENCE[1])),
            Standing::Refused(error) => Err(error.clone()),
            Standing::Waiting(waiting) if waiting.trying => {
                Ok(Look::Tried(waiting.error.clone().asking(LOOK)))
            }
            Standing::Waiting(waiting) if now >= waiting.until => {
                waiting.trying = true;
                Ok(Look::Enter { tries: true })
            }
            Standing::Waiting(waiting) => Err(waiting.error.clone().asking(waiting.until - now)),
        }
    }

    /// Reads the secret again before it is tried again.
    async fn read_again(&self) {
        if !self.credentials.as_ref().is_some_and(|one| one.secret().may_change()) {
            return;
        }
        match self.read().await {
            Ok(Some(secret)) => self.take(secret),
            Ok(None) => {}
            // The secret that was read before may be right again.
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// The pass of a request. If the request is dropped while a secret is read, another one may try.
    async fn pass(
        &self,
        tries: bool,
        first: Option<OwnedMutexGuard<()>>,
    ) -> Result<Pass<'_>, Error> {
        let mut pass =
            Pass { access: self, header: None, login: None, generation: 0, tries, _first: first };
        if self.credentials.is_none() {
            return Ok(pass);
        }
        if tries {
            self.read_again().await;
        }
        if self.lock().secret.is_none() {
            let _renewing = self.renewing.lock().await;
            if self.lock().secret.is_none()
                && let Some(secret) = self.read().await?
            {
                self.take(secret);
            }
        }
        self.show(&mut pass)?;
        Ok(pass)
    }

    /// Sets the header of a request, or says that a session has to be started first.
    pub fn show(&self, pass: &mut Pass<'_>) -> Result<(), Error> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let current = self.lock();
        let secret = current.secret.clone().unwrap_or_default();
        pass.generation = current.generation;
        pass.login = None;
        let (name, text) = match credentials {
            Credentials::Basic { user, .. } => {
                let pair = STANDARD.encode(format!("{user}:{}", secret.expose_secret()));
                (AUTHORIZATION, format!("Basic {pair}"))
            }
            Credentials::Token(_) => (AUTHORIZATION, format!("Bearer {}", secret.expose_secret())),
            Credentials::Session { user, .. } if current.cookies.is_empty() => {
                pass.login = Some((user.clone(), secret));
                return Ok(());
            }
            Credentials::Session { .. } => {
                let cookies = current.cookies.iter();
                let cookies =
                    cookies.map(|(name, value)| format!("{name}={}", value.expose_secret()));
                (COOKIE, cookies.collect::<Vec<_>>().join("; "))
            }
        };
        let Ok(mut value) = HeaderValue::try_from(text) else {
            return Err(Error::new(Kind::Permanent, "the credentials cannot be sent in a header"));
        };
        value.set_sensitive(true);
        pass.header = Some((name, value));
        Ok(())
    }

    /// Whether this request still has to start a session; an error if another request was refused one.
    pub fn lacks_session(&self, pass: &Pass<'_>) -> Result<bool, Error> {
        let current = self.lock();
        match &current.standing {
            _ if !current.cookies.is_empty() => Ok(false),
            Standing::Refused(error) => Err(error.clone()),
            Standing::Waiting(waiting) if !pass.tries => Err(waiting.error.clone()),
            _ => Ok(true),
        }
    }

    /// Keeps the cookies of an answer. Returns whether there are any now.
    pub fn take_cookies(&self, headers: &HeaderMap) -> bool {
        if !matches!(self.credentials, Some(Credentials::Session { .. })) {
            return false;
        }
        let current = &mut *self.lock();
        for header in headers.get_all(SET_COOKIE) {
            let cookie =
                header.to_str().ok().and_then(|text| text.split(';').next()?.split_once('='));
            let Some((name, value)) = cookie else { continue };
            let (name, value) = (name.trim(), value.trim());
            if value.is_empty() {
                continue;
            }
            current.scrub.add_token(value);
            current.cookies.retain(|(known, _)| known != name);
            current.cookies.push((name.to_owned(), value.into()));
        }
        !current.cookies.is_empty()
    }

    /// The server accepted the credentials of a request.
    pub fn accepted(&self, pass: &mut Pass<'_>, path: &str) {
        pass.tries = false;
        let current = &mut *self.lock();
        if !current.denied.is_empty() {
            current.denied.remove(database(path));
        }
        match &current.standing {
            Standing::Waiting(_) if pass.generation != current.generation => {}
            _ => {
                if let Standing::Waiting(_) = &current.standing {
                    tracing::info!("the server accepts the credentials again");
                    current.culprit.take_if(|one| one == database(path));
                }
                current.standing = Standing::Accepted(Some(Instant::now()));
            }
        }
    }

    /// The same error; as a refusal if it says that the token is wrong, for which CouchDB may answer 400.
    pub fn classified(&self, error: Error) -> Error {
        let words = ["bad hmac", "token", "jwt", "public key", "bad rsa", "bad ec"];
        let text = error.what().to_lowercase();
        let is_wrong = error.status() == Some(400)
            && matches!(self.credentials, Some(Credentials::Token(_)))
            && words.iter().any(|word| text.contains(word));
        if is_wrong { error.refused() } else { error }
    }

    /// Whether the credentials expire. After that, the server may treat requests as without a user.
    pub fn expires(&self) -> bool {
        matches!(self.credentials, Some(Credentials::Session { .. } | Credentials::Token(_)))
    }

    /// The server knows the user, who lacks the right for the request.
    pub fn known(&self, pass: &mut Pass<'_>, path: &str) {
        let several = matches!(self.refusal, Refusal::Wait { several: true, .. });
        let is_unknown = matches!(self.lock().standing, Standing::Unknown);
        // Credentials that have never read anything are probably a mistake.
        if !is_unknown || (several && !database(path).starts_with('_')) {
            self.accepted(pass, "");
        }
    }

    /// Whether to wait after a refusal of these credentials.
    pub fn waits(&self) -> bool {
        let accepted = match &self.lock().standing {
            Standing::Accepted(_) => true,
            Standing::Waiting(waiting) => waiting.accepted,
            Standing::Unknown | Standing::Refused(_) => false,
        };
        accepted && self.refusal != Refusal::Final
    }

    /// The server answered 401, or 403 because the user is locked out; the path is empty if a session
    /// was to be started. `renewed` says that the request has already been sent with renewed credentials.
    pub async fn refused(
        &self,
        pass: &mut Pass<'_>,
        path: &str,
        error: Error,
        renewed: bool,
    ) -> Next {
        let locked = is_locked(&error);
        if !locked && !renewed && self.renew(pass.generation).await {
            return Next::Again;
        }
        let waits = self.waits();
        let current = &mut *self.lock();
        if self.credentials.is_none() && !locked {
            drop(current.culprit.take());
            return Next::Failed(if waits { current.deny(path, error) } else { error });
        }
        if !waits && !locked {
            if matches!(current.standing, Standing::Unknown) {
                current.standing = Standing::Refused(error.clone());
            }
            return Next::Failed(error);
        }
        // The same credentials work for other databases: the refusal concerns this one.
        let culprit = current.culprit.replace(database(path).to_owned());
        let is_accepted = matches!(current.standing, Standing::Accepted(_));
        let again = !path.is_empty() && culprit.as_deref() == Some(database(path));
        if !locked && is_accepted && again {
            return Next::Failed(current.deny(path, error));
        }
        let now = Instant::now();
        let pause = match &current.standing {
            // It was sent before the other request was refused.
            Standing::Waiting(waiting) if !pass.tries => {
                let left = waiting.until.saturating_duration_since(now);
                return Next::Failed(waiting.error.clone().asking(left));
            }
            Standing::Waiting(waiting) => (waiting.pause * 2).min(LONGEST),
            _ if locked => FIRST_LOCKED,
            _ => FIRST_REFUSED,
        };
        pass.tries = false;
        let error = error.asking(pause);
        current.standing = Standing::Waiting(Waiting {
            error: error.clone(),
            pause,
            until: now + pause,
            trying: false,
            accepted: match &current.standing {
                Standing::Waiting(waiting) => waiting.accepted,
                standing => matches!(standing, Standing::Accepted(_)),
            },
        });
        Next::Failed(error)
    }

    /// The server refuses the requests for one database.
    pub fn denied(&self, path: &str, error: Error) -> Error {
        self.lock().deny(path, error)
    }

    /// Whether the credentials have changed since the request of this generation.
    async fn renew(&self, generation: u64) -> bool {
        let Some(credentials) = &self.credentials else { return false };
        let _renewing = self.renewing.lock().await;
        if self.lock().generation != generation {
            return true;
        }
        if credentials.secret().may_change() {
            match self.read().await {
                Ok(Some(secret)) => {
                    let last = self.lock().secret.clone();
                    if !last.is_some_and(|last| credentials::is_same(&last, &secret)) {
                        self.take(secret);
                        return true;
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let current = &mut *self.lock();
        let had_session = !current.cookies.is_empty();
        if had_session {
            current.cookies.clear();
            current.generation += 1;
        }
        had_session
    }

    /// Resolves when a pause may be cut short: the refused credentials are accepted again, or their file
    /// holds new ones.
    pub async fn recovers(&self) {
        loop {
            let waiting = matches!(self.lock().standing, Standing::Waiting(_));
            if !waiting {
                return std::future::pending().await;
            }
            tokio::time::sleep(LOOK).await;
            if !matches!(self.lock().standing, Standing::Waiting(_)) {
                return;
            }
            let is_file = self.credentials.as_ref().is_some_and(|one| one.secret().is_file());
            if is_file && let Ok(Some(secret)) = self.read().await {
                let current = &mut *self.lock();
                let last = current.secret.as_ref();
                if !last.is_some_and(|last| credentials::is_same(last, &secret))
                    && let Standing::Waiting(waiting) = &mut current.standing
                {
                    waiting.until = Instant::now();
                    return;
                }
            }
        }
    }
}

/// What the standing of the credentials means for a request.
enum Look {
    /// The request may be sent; whether it tries credentials again.
    Enter { tries: bool },
    /// It may be sent once no other request is finding out whether the credentials are accepted, or after
    /// this time.
    First(Duration),
    /// Another request is trying them again.
    Tried(Error),
}

#[cfg(test)]
mod tests;
