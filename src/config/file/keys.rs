//! All keys of a config file: which values they may have, and what they set.
//!
//! `docs/agent.md` lists them, and a test compares both.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::entry::{Draft, source};
use super::hooks::{HOOKS, RunHooks};
use super::listen::Listen;
use super::schedule::{Period, Schedule};
use super::value::{Bad, Key, Value};
use super::{ApiConfig, VerifyConfig};
use crate::client::couchdb::Tls;
use crate::client::couchdb::credentials::{SecretKind, secret};
use crate::config::{AccessOptions, SecretPlace, WrittenSecret};
use crate::document::Pattern;

/// The keys that only a `[[mirror]]` has: they are in the beginning of [`MIRROR`].
pub(super) const OWN: usize = 3;

/// The keys of `[[mirror]]`; all but the first ones are those of `[defaults]` too.
pub(super) const MIRROR: &[Key<Draft>] = &[
    Key {
        name: "name",
        allowed: "a name, such as \"books\"",
        read: |draft, value| set(&mut draft.name, value.parse()),
    },
    Key {
        name: "source",
        allowed: "the URL of a server or a database, or feed:FILE",
        read: |draft, value| {
            let text = source(value.word()?, value.reading.base).map_err(Bad::Why)?;
            set(&mut draft.source, Ok(text))
        },
    },
    Key {
        name: "directory",
        allowed: "the path of a directory",
        read: |draft, value| set(&mut draft.directory, value.path()),
    },
    Key {
        name: "schedule",
        allowed: "\"live\", { every = \"1h\" } or { cron = \"0 3 * * *\", time_zone = \"Europe/Berlin\" }",
        read: |draft, value| {
            draft.schedule = schedule(value)?;
            Ok(())
        },
    },
    Key {
        name: "verify",
        allowed: "false or a table, such as { every = \"7d\", repair = true }",
        read: |draft, value| {
            draft.verify = match value.get::<bool>() {
                Ok(false) => None,
                Ok(true) => Some(VerifyConfig::default()),
                Err(_) => {
                    let mut verify = VerifyConfig::default();
                    value.fill(&mut verify, VERIFY, "verify")?;
                    Some(verify)
                }
            };
            Ok(())
        },
    },
    Key {
        name: "collections",
        allowed: "an array of names or globs, such as [\"books\", \"loans-*\"]",
        read: |draft, value| set(&mut draft.options.collections, globs(value)),
    },
    Key {
        name: "exclude",
        allowed: "an array of names or globs, such as [\"tmp-*\"]",
        read: |draft, value| {
            draft.options.exclude = globs(value)?;
            Ok(())
        },
    },
    Key {
        name: "attachments",
        allowed: "true or false",
        read: |draft, value| set(&mut draft.options.attachments, value.get()),
    },
    Key {
        name: "revisions",
        allowed: "true or false",
        read: |draft, value| set(&mut draft.options.revisions, value.get()),
    },
    Key {
        name: "deleted",
        allowed: "\"remove\" or \"keep\"",
        read: |draft, value| set(&mut draft.options.deleted, value.get()),
    },
    Key {
        name: "json",
        allowed: "\"as-sent\" or \"pretty\"",
        read: |draft, value| set(&mut draft.options.json, value.get()),
    },
    Key {
        name: "names",
        allowed: "\"native\" or \"portable\"",
        read: |draft, value| set(&mut draft.options.names, value.get()),
    },
    Key {
        name: "max_delete",
        allowed: "a share and a number of documents, such as \"30%,50\", or \"off\"",
        read: |draft, value| set(&mut draft.options.max_delete, value.get()),
    },
    Key {
        name: "max_failures",
        allowed: "a number of rows, such as 1000; 0 is no limit",
        read: |draft, value| {
            draft.options.max_failures = value.get()?;
            Ok(())
        },
    },
    Key {
        name: "trash",
        allowed: "a number of days, such as 30",
        read: |draft, value| set(&mut draft.options.trash, value.get()),
    },
    Key {
        name: "reserve",
        allowed: "a size, such as \"1GiB\", or a number of bytes",
        read: |draft, value| set(&mut draft.options.reserve, size(value)),
    },
    Key {
        name: "mode",
        allowed: "the mode of folders as a text, from \"0700\" to \"0777\"",
        read: |draft, value| set(&mut draft.options.mode, value.get()),
    },
    Key {
        name: "existing",
        allowed: "true or false",
        read: |draft, value| {
            draft.options.existing = value.get()?;
            Ok(())
        },
    },
    Key {
        name: "allow_empty",
        allowed: "true or false",
        read: |draft, value| {
            draft.options.allow_empty = value.get()?;
            Ok(())
        },
    },
    Key {
        name: "give_up_after",
        allowed: "a duration, such as \"30s\"; \"0\" means never",
        read: |draft, value| {
            let Period(patience) = value.parse()?;
            set(&mut draft.options.give_up_after, Ok(patience))
        },
    },
    Key {
        name: "max_runs",
        allowed: "a number of connections from 1 to 65535",
        read: |draft, value| match value.get()? {
            0 => Err(Bad::Kind),
            runs => {
                draft.options.max_runs = runs;
                Ok(())
            }
        },
    },
    Key {
        name: "credentials",
        allowed: "a table, such as { password_file = \"/etc/plainfold/password\" }",
        read: |draft, value| {
            let mut access = AccessDraft::default();
            value.fill(&mut access, CREDENTIALS, "credentials")?;
            let given = |places: &[Option<SecretPlace>]| places.iter().flatten().count();
            if given(&access.password) + given(&access.token) > 1 {
                let why = "it names more than one password or token: give only one".to_owned();
                return Err(Bad::Why(why));
            }
            draft.has_secret = access.has_secret;
            let tls = std::mem::take(&mut draft.access.tls);
            let (password, token) = (first(access.password), first(access.token));
            draft.access = AccessOptions { password, token, session: access.session, tls };
            Ok(())
        },
    },
    Key {
        name: "tls",
        allowed: "a table, such as { ca_file = \"/etc/plainfold/ca.pem\" }",
        read: |draft, value| {
            let mut tls = Tls::default();
            value.fill(&mut tls, TLS, "tls")?;
            if tls.client_key.is_some() && tls.client_cert.is_none() {
                return Err(Bad::Why("`client_key` needs `client_cert`".to_owned()));
            }
            draft.access.tls = tls;
            Ok(())
        },
    },
    Key {
        name: "hooks",
        allowed: "a table, such as { after = [\"/usr/local/bin/snapshot\"] }",
        read: |draft, value| {
            let mut hooks = RunHooks::default();
            value.fill(&mut hooks, HOOKS, "hooks")?;
            draft.hooks = hooks;
            Ok(())
        },
    },
];

/// The keys of `verify`, where it is a table.
pub(super) const VERIFY: &[Key<VerifyConfig>] = &[
    Key {
        name: "every",
        allowed: "a duration from \"1s\", such as \"7d\"",
        read: |verify, value| match value.parse()? {
            Period(every) if every >= Duration::from_secs(1) => {
                verify.every = every;
                Ok(())
            }
            _ => Err(Bad::Kind),
        },
    },
    Key {
        name: "rate",
        allowed: "a size that is read in a second, such as \"5MB\", or a number of bytes from 1",
        read: |verify, value| match size(value)? {
            0 => Err(Bad::Kind),
            rate => set(&mut verify.rate, Ok(rate)),
        },
    },
    Key {
        name: "repair",
        allowed: "true or false",
        read: |verify, value| {
            verify.repair = value.get()?;
            Ok(())
        },
    },
    Key {
        name: "watch",
        allowed: "true or false",
        read: |verify, value| {
            verify.watch = value.get()?;
            Ok(())
        },
    },
];

/// The keys of `credentials`.
pub(super) const CREDENTIALS: &[Key<AccessDraft>] = &[
    Key {
        name: "auth",
        allowed: "\"basic\" or \"session\"",
        read: |draft, value| {
            draft.session = match value.text()? {
                "basic" => false,
                "session" => true,
                _ => return Err(Bad::Kind),
            };
            Ok(())
        },
    },
    Key {
        name: "password_file",
        allowed: "the path of a file",
        read: |draft, value| set(&mut draft.password[0], value.path().map(SecretPlace::File)),
    },
    Key {
        name: "password_env",
        allowed: "the name of an environment variable",
        read: |draft, value| set(&mut draft.password[1], variable(value)),
    },
    Key {
        name: "password_credential",
        allowed: "the name of a credential of systemd's",
        read: |draft, value| set(&mut draft.password[2], credential(value)),
    },
    Key {
        name: "password",
        allowed: "the password as a text",
        read: |draft, value| {
            draft.has_secret = true;
            set(&mut draft.password[3], written(value, SecretKind::Password))
        },
    },
    Key {
        name: "token_file",
        allowed: "the path of a file",
        read: |draft, value| set(&mut draft.token[0], value.path().map(SecretPlace::File)),
    },
    Key {
        name: "token_env",
        allowed: "the name of an environment variable",
        read: |draft, value| set(&mut draft.token[1], variable(value)),
    },
    Key {
        name: "token_credential",
        allowed: "the name of a credential of systemd's",
        read: |draft, value| set(&mut draft.token[2], credential(value)),
    },
    Key {
        name: "token_command",
        allowed: "a shell command",
        read: |draft, value| {
            let command = value.word().map(|command| SecretPlace::Command(command.to_owned()));
            set(&mut draft.token[3], command)
        },
    },
    Key {
        name: "token",
        allowed: "the token as a text",
        read: |draft, value| {
            draft.has_secret = true;
            set(&mut draft.token[4], written(value, SecretKind::Token))
        },
    },
];

/// The keys of `tls`.
pub(super) const TLS: &[Key<Tls>] = &[
    Key {
        name: "ca_file",
        allowed: "the path of a PEM file",
        read: |tls, value| set(&mut tls.ca_file, value.path()),
    },
    Key {
        name: "client_cert",
        allowed: "the path of a PEM file",
        read: |tls, value| set(&mut tls.client_cert, value.path()),
    },
    Key {
        name: "client_key",
        allowed: "the path of a PEM file",
        read: |tls, value| set(&mut tls.client_key, value.path()),
    },
];

/// The keys of `[api]`.
pub(super) const API: &[Key<ApiConfig>] = &[
    Key {
        name: "listen",
        allowed: "the path of a Unix socket, such as \"/run/plainfold/plainfold.sock\", an address with a port, \
                  such as \"127.0.0.1:5990\", or an array of them",
        read: |api, value| {
            let all = value.array().or_else(|_| value.text().map(|_| vec![value]))?;
            let parse =
                |one: &Value<'_>| Listen::parse(one.word()?, one.reading.base).ok_or(Bad::Kind);
            api.listen = all.iter().map(parse).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Key {
        name: "tokens",
        allowed: "the path of a file",
        read: |api, value| set_path(&mut api.tokens, value),
    },
];

fn set_path(place: &mut PathBuf, value: Value<'_>) -> Result<(), Bad> {
    *place = value.path()?;
    Ok(())
}

/// The keys of `schedule`, where it is a table.
pub(super) const SCHEDULE: &[Key<ScheduleDraft>] = &[
    Key {
        name: "every",
        allowed: "a duration, such as \"1h\"",
        read: |draft, value| set(&mut draft.every, value.parse()),
    },
    Key {
        name: "cron",
        allowed: "a cron expression, such as \"0 3 * * *\"",
        read: |draft, value| set(&mut draft.cron, value.get()),
    },
    Key {
        name: "time_zone",
        allowed: "the name of a time zone, such as \"Europe/Berlin\"",
        read: |draft, value| set(&mut draft.time_zone, value.get()),
    },
];

/// `credentials` as it is read. Each key has a place of its own.
#[derive(Default)]
pub(super) struct AccessDraft {
    session: bool,
    password: [Option<SecretPlace>; 4],
    token: [Option<SecretPlace>; 5],
    has_secret: bool,
}

/// `schedule` as it is read.
#[derive(Default)]
pub(super) struct ScheduleDraft {
    every: Option<Period>,
    cron: Option<String>,
    time_zone: Option<String>,
}

fn set<T>(target: &mut Option<T>, value: Result<T, Bad>) -> Result<(), Bad> {
    *target = Some(value?);
    Ok(())
}

/// A size with a unit, or a number of bytes.
fn size(value: Value<'_>) -> Result<u64, Bad> {
    match value.text() {
        Ok(_) => value.parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| Bad::Kind),
        Err(_) => value.get(),
    }
}

fn first<const N: usize>(places: [Option<SecretPlace>; N]) -> Option<SecretPlace> {
    places.into_iter().flatten().next()
}

fn schedule(value: Value<'_>) -> Result<Schedule, Bad> {
    if let Ok(text) = value.text() {
        return if text == "live" { Ok(Schedule::Live) } else { Err(Bad::Kind) };
    }
    let mut draft = ScheduleDraft::default();
    value.fill(&mut draft, SCHEDULE, "schedule")?;
    let schedule = match (draft.every, draft.cron, draft.time_zone) {
        (Some(Period(period)), None, None) => Schedule::every(period),
        (None, Some(cron), zone) => Schedule::cron(&cron, zone.as_deref().unwrap_or("UTC")),
        (None, None, _) => return Err(Bad::Kind),
        (Some(_), Some(_), _) => {
            return Err(Bad::Why("it has `every` and `cron`: give only one of them".to_owned()));
        }
        (Some(_), None, Some(_)) => {
            return Err(Bad::Why("`time_zone` belongs to `cron`, and not to `every`".to_owned()));
        }
    };
    schedule.map_err(|bad| Bad::Why(bad.to_string()))
}

fn globs(value: Value<'_>) -> Result<Vec<String>, Bad> {
    let globs: Vec<String> = value.get()?;
    for text in &globs {
        let pattern = Pattern::new(text).map_err(|bad| Bad::Why(bad.to_string()))?;
        // A name with the characters of a glob can be written with backslashes before them.
        if let Some(reason) = pattern.broken() {
            return Err(Bad::Why(format!("`{text}` is not a glob: {reason}")));
        }
    }
    Ok(globs)
}

pub(super) fn variable(value: Value<'_>) -> Result<SecretPlace, Bad> {
    match value.word()? {
        name if name.contains('=') => Err(Bad::Why("a variable has no `=` in its name".to_owned())),
        name => Ok(SecretPlace::Variable(name.to_owned())),
    }
}

pub(super) fn credential(value: Value<'_>) -> Result<SecretPlace, Bad> {
    match value.word()? {
        name if name.contains('/') || name.starts_with('.') => {
            Err(Bad::Why("it is a name in CREDENTIALS_DIRECTORY, and not a path".to_owned()))
        }
        name => Ok(SecretPlace::Credential(name.to_owned())),
    }
}

/// A secret in the config itself.
fn written(value: Value<'_>, kind: SecretKind) -> Result<SecretPlace, Bad> {
    let text = value.text()?;
    if !value.reading.allows_secrets {
        return Err(Bad::Why(format!(
            "a {kind} does not belong in a config: name a file with `{kind}_file`, or set \
             `allow_secrets = true` in the first line"
        )));
    }
    let secret = secret(text.as_bytes(), "it", kind).map_err(|bad| Bad::Why(bad.to_string()))?;
    Ok(SecretPlace::Config(WrittenSecret(secret)))
}
