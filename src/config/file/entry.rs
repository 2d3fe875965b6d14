//! One `[[mirror]]` as it is read, and what must hold between its keys.

use std::path::{Path, PathBuf};

use url::Url;

use super::hooks::RunHooks;
use super::schedule::Schedule;
use super::{MirrorEntry, VerifyConfig};
use crate::client::couchdb::Address;
use crate::config::{AccessOptions, ConfigError, MirrorChoices, SecretPlace, WrittenSecret};
use crate::config::{endpoint, error::AccessError};
use crate::document::{MaxDelete, MirrorName};
use crate::mirror::{Deleted, JsonStyle};

/// One `[[mirror]]`, or `[defaults]`, of which not all keys have been read.
#[derive(Clone)]
pub(super) struct Draft {
    pub name: Option<MirrorName>,
    pub source: Option<String>,
    pub directory: Option<PathBuf>,
    pub schedule: Schedule,
    pub verify: Option<VerifyConfig>,
    pub options: MirrorChoices,
    pub access: AccessOptions,
    /// Whether `credentials` holds a secret.
    pub has_secret: bool,
    pub hooks: RunHooks,
}

impl Default for Draft {
    fn default() -> Self {
        let options = MirrorChoices {
            collections: Some(Vec::new()),
            attachments: Some(true),
            revisions: Some(false),
            deleted: Some(Deleted::Remove),
            json: Some(JsonStyle::AsSent),
            max_delete: Some(MaxDelete::default()),
            trash: Some(0),
            reserve: Some(0),
            ..MirrorChoices::default()
        };
        Self {
            name: None,
            source: None,
            directory: None,
            schedule: Schedule::Live,
            verify: Some(VerifyConfig::default()),
            options,
            access: AccessOptions::default(),
            has_secret: false,
            hooks: RunHooks::default(),
        }
    }
}

impl Draft {
    /// Whether it holds a secret.
    pub fn holds_secret(&self) -> bool {
        self.has_secret || self.source.as_deref().and_then(without_password).is_some()
    }

    /// The entry; otherwise what is wrong, with the key that it concerns.
    pub fn finish(
        mut self,
        allows_secrets: bool,
    ) -> Result<MirrorEntry, Vec<(&'static str, String)>> {
        let lacks =
            |name, example: &str| (name, format!("[[mirror]] lacks `{name}`: add {example}"));
        let (name, source, directory) = match (self.name, self.source, self.directory) {
            (Some(name), Some(source), Some(directory)) => (name, source, directory),
            (name, source, directory) => {
                let lacking = [
                    name.is_none().then(|| lacks("name", "a name, such as `name = \"books\"`")),
                    source.is_none().then(|| {
                        lacks(
                            "source",
                            "one, such as `source = \"http://me@localhost:5984/books\"`",
                        )
                    }),
                    directory.is_none().then(|| {
                        lacks(
                            "directory",
                            "one, such as `directory = \"/var/lib/plainfold/books\"`",
                        )
                    }),
                ];
                return Err(lacking.into_iter().flatten().collect());
            }
        };
        let mut problems = Vec::new();
        let source = match without_password(&source) {
            Some((_, _)) if !allows_secrets => {
                let text = "the URL holds a password, which does not belong in a config: leave it out, \
                            and name a file with `credentials = { password_file = \"…\" }`";
                problems.push(("source", text.to_owned()));
                source
            }
            Some((source, password)) => {
                self.access.password.get_or_insert(SecretPlace::Config(password));
                source
            }
            None => source,
        };
        self.options.live = self.schedule.is_live();
        if let Err(error) = self.options.lower(&source, &directory) {
            problems.push((key_of(&error), error.to_string()));
        } else if problems.is_empty()
            && let Some(text) = self.access.mismatch(&source)
        {
            problems.push(("source", text));
        }
        let collections = self.options.collections.iter().flatten();
        for name in collections.filter(|name| self.options.exclude.contains(name)) {
            let text = format!(
                "`{name}` is in `collections` and in `exclude`: remove it from one of them"
            );
            problems.push(("exclude", text));
        }
        let Self { schedule, verify, options, access, hooks, .. } = self;
        let entry =
            || MirrorEntry { name, source, directory, schedule, verify, options, access, hooks };
        match problems.is_empty() {
            true => Ok(entry()),
            false => Err(problems),
        }
    }
}

/// The key that an error of the options is about.
fn key_of(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::CollectionsBesideDatabase { .. } => "collections",
        ConfigError::RevisionsOfFeed => "revisions",
        _ => "source",
    }
}

/// The source with the path of a feed as it counts from `base`; otherwise why it cannot be one.
pub(super) fn source(text: &str, base: &Path) -> Result<String, String> {
    let text = text.trim();
    match endpoint::recording(text) {
        Some(None) => Err("the agent has no standard input: save the feed as a file".to_owned()),
        Some(Some(path)) => match base.join(path).to_str() {
            Some(path) => Ok(format!("feed:{path}")),
            None => {
                Err("the path of the config is not valid UTF-8: give the whole path".to_owned())
            }
        },
        None => Ok(text.to_owned()),
    }
}

/// A URL without its password, and the password, if it has one.
fn without_password(source: &str) -> Option<(String, WrittenSecret)> {
    let password = Address::parse(source).ok()?.credentials?.secret().read().ok()?;
    let mut url = Url::parse(source).ok()?;
    let has_one = url.password().is_some_and(|password| !password.is_empty());
    url.set_password(None).ok()?;
    has_one.then(|| (url.into(), WrittenSecret(password)))
}

impl AccessOptions {
    /// Why these credentials do not fit a source, if that is known before they are read.
    fn mismatch(&self, source: &str) -> Option<String> {
        if endpoint::feed(source).is_some() {
            return None;
        }
        let user = Address::parse(source).ok()?.credentials;
        let user = user.as_ref().and_then(|credentials| credentials.user());
        let error = match (user, &self.password, &self.token, self.session) {
            (None, None, Some(_), false)
            | (None, None, None, false)
            | (Some(_), Some(_), None, _) => {
                return None;
            }
            (Some(user), None, None, _) => {
                return Some(format!(
                    "the URL names the user `{user}`, and `credentials` names no password: add \
                     `credentials = {{ password_file = \"…\" }}`"
                ));
            }
            (_, _, Some(_), _) => AccessError::TokenBesideUser,
            (None, Some(_), None, _) => AccessError::PasswordWithoutUser,
            (None, None, None, true) => {
                return Some(
                    "`credentials` has `auth = \"session\"`, which needs a user: name the user in the URL, as \
                     in http://user@host/database"
                        .to_owned(),
                );
            }
        };
        Some(error.to_string())
    }
}
