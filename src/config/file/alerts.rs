//! `[alerts]`: what is called when something is wrong with a mirror, and while nothing is.

use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::error::LowerError;
use super::hooks::command;
use super::keys::{credential, variable};
use super::schedule::Period;
use super::value::{Bad, Key, Value};
use crate::client::couchdb::credentials::SecretKind;
use crate::client::webhook::Webhook;
use crate::config::{SecretPlace, WrittenSecret};

/// After which lag a collection is late.
const LATE_AFTER: Duration = Duration::from_secs(300);

/// How often the heartbeat is sent.
const EVERY: Duration = Duration::from_secs(60);

/// The shortest of these durations. A live server shows every 10 s that it has nothing newer.
const SHORTEST: Duration = Duration::from_secs(1);

/// What is called when something is wrong with a mirror, and while nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertsConfig {
    /// A program and its arguments, which gets each alert as JSON on its standard input.
    pub command: Option<Vec<String>>,
    /// Where the address is found that gets each alert by POST.
    pub url: Option<SecretPlace>,
    /// After which lag a collection is late.
    pub late_after: Duration,
    /// What is called while all is well.
    pub heartbeat: Option<HeartbeatConfig>,
}

/// What is called while all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Where the address is found.
    pub url: SecretPlace,
    /// How often.
    pub every: Duration,
}

/// The same, as it is used.
#[derive(Clone, Debug, Default)]
pub struct AlertHooks {
    /// A program and its arguments, which gets each alert as JSON on its standard input.
    pub command: Option<Vec<String>>,
    /// The address that gets each alert by POST.
    pub url: Option<Webhook>,
    /// The address that is called while all is well, and how often.
    pub heartbeat: Option<(Webhook, Duration)>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { command: None, url: None, late_after: LATE_AFTER, heartbeat: None }
    }
}

impl AlertsConfig {
    /// Reads the addresses. Blocks.
    pub fn lower(&self) -> Result<AlertHooks, LowerError> {
        let heartbeat = self.heartbeat.as_ref();
        let heartbeat = heartbeat.map(|one| Ok::<_, LowerError>((hook(&one.url)?, one.every)));
        Ok(AlertHooks {
            command: self.command.clone(),
            url: self.url.as_ref().map(hook).transpose()?,
            heartbeat: heartbeat.transpose()?,
        })
    }
}

fn hook(place: &SecretPlace) -> Result<Webhook, LowerError> {
    let url = place.read(SecretKind::Url)?;
    Ok(Webhook::new(url.expose_secret())?)
}

/// The keys of `[alerts]`.
pub(super) const ALERTS: &[Key<AlertsConfig>] = &[
    Key {
        name: "command",
        allowed: "an array of a program and its arguments, such as [\"/usr/local/bin/page\", \"ops\"]",
        read: |alerts, value| {
            alerts.command = Some(command(value)?);
            Ok(())
        },
    },
    Key {
        name: "url",
        allowed: ADDRESS,
        read: |alerts, value| {
            alerts.url = Some(address(value)?);
            Ok(())
        },
    },
    Key {
        name: "late_after",
        allowed: "a duration, such as \"5m\"",
        read: |alerts, value| {
            alerts.late_after = duration(value)?;
            Ok(())
        },
    },
    Key {
        name: "heartbeat",
        allowed: "a table, such as { url = \"https://example.com/ping\", every = \"60s\" }",
        read: |alerts, value| {
            let mut draft = HeartbeatDraft { url: None, every: EVERY };
            value.fill(&mut draft, HEARTBEAT, "heartbeat")?;
            let HeartbeatDraft { url, every } = draft;
            let url = url.ok_or_else(|| Bad::Why("it needs `url`".to_owned()))?;
            alerts.heartbeat = Some(HeartbeatConfig { url, every });
            Ok(())
        },
    },
];

/// `heartbeat` as it is read.
struct HeartbeatDraft {
    url: Option<SecretPlace>,
    every: Duration,
}

/// The keys of `heartbeat`.
const HEARTBEAT: &[Key<HeartbeatDraft>] = &[
    Key {
        name: "url",
        allowed: ADDRESS,
        read: |draft, value| {
            draft.url = Some(address(value)?);
            Ok(())
        },
    },
    Key {
        name: "every",
        allowed: "a duration, such as \"60s\"",
        read: |draft, value| {
            draft.every = duration(value)?;
            Ok(())
        },
    },
];

const ADDRESS: &str = "a URL, or a table such as { file = \"/etc/plainfold/hook\" }";

/// The keys of an address that is a table.
const PLACES: &[Key<Option<SecretPlace>>] = &[
    Key {
        name: "file",
        allowed: "the path of a file",
        read: |place, value| place_once(place, SecretPlace::File(value.path()?)),
    },
    Key {
        name: "env",
        allowed: "the name of an environment variable",
        read: |place, value| place_once(place, variable(value)?),
    },
    Key {
        name: "credential",
        allowed: "the name of a credential of systemd's",
        read: |place, value| place_once(place, credential(value)?),
    },
];

fn place_once(place: &mut Option<SecretPlace>, found: SecretPlace) -> Result<(), Bad> {
    match place.replace(found) {
        None => Ok(()),
        Some(_) => Err(Bad::Why("the address is found in one place only".to_owned())),
    }
}

/// An address. Written into the config, it is not shown, because it may hold a token.
fn address(value: Value<'_>) -> Result<SecretPlace, Bad> {
    if let Ok(url) = value.word() {
        Webhook::new(url).map_err(|error| Bad::Why(error.to_string()))?;
        return Ok(SecretPlace::Config(WrittenSecret(url.into())));
    }
    let mut place = None;
    value.fill(&mut place, PLACES, "the address")?;
    place.ok_or(Bad::Kind)
}

fn duration(value: Value<'_>) -> Result<Duration, Bad> {
    let Period(duration) = value.parse()?;
    match duration >= SHORTEST {
        true => Ok(duration),
        false => Err(Bad::Why("the shortest is 1s".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::AgentConfig;
    use super::*;

    const MIRROR: &str = "[[mirror]]\nname = \"books\"\nsource = \"feed:x\"\ndirectory = \"/m\"\n";

    fn read(text: &str) -> Result<AlertsConfig, String> {
        let parsed = AgentConfig::parse(&format!("{text}\n{MIRROR}"), Path::new("/etc/p/p.toml"));
        parsed.map(|config| config.alerts).map_err(|error| error.to_string())
    }

    #[test]
    fn alerts_name_a_command_an_address_and_a_heartbeat() {
        assert_eq!(read("").unwrap(), AlertsConfig::default());
        let alerts = read(
            "[alerts]\ncommand = [\"/bin/page\", \"ops\"]\nurl = { file = \"hook\" }\nlate_after = \"10m\"\n\
             heartbeat = { url = \"https://example.com/secret\", every = \"30s\" }",
        )
        .unwrap();
        assert_eq!(alerts.command.as_deref().unwrap(), ["/bin/page", "ops"]);
        assert_eq!(alerts.url, Some(SecretPlace::File("/etc/p/hook".into())));
        assert_eq!(alerts.late_after, Duration::from_secs(600));
        assert!(!format!("{alerts:?}").contains("secret"));
        let heartbeat = AlertsConfig { url: None, ..alerts }.lower().unwrap().heartbeat;
        let (url, every) = heartbeat.unwrap();
        assert_eq!((url.to_string().as_str(), every.as_secs()), ("https://example.com/…", 30));
    }

    #[test]
    fn the_sample_on_the_page_is_read() {
        let page = include_str!("../../../docs/monitoring.md");
        let sample = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let alerts = read(sample).unwrap();
        assert!(alerts.command.is_some() && alerts.url.is_some() && alerts.heartbeat.is_some());
    }

    #[test]
    fn what_is_wrong_is_named_without_the_address() {
        for (text, why) in [
            ("command = []", "it names no program"),
            ("command = \"page\"", "must be an array"),
            ("url = \"ftp://me:secret@host/secret\"", "http://"),
            ("url = { file = \"a\", env = \"B\" }", "one place only"),
            ("url = {}", "must be a URL"),
            ("late_after = \"0\"", "the shortest is 1s"),
            ("heartbeat = { every = \"9s\" }", "it needs `url`"),
            ("late = \"5m\"", "did you mean `late_after`?"),
        ] {
            let error = read(&format!("[alerts]\n{text}")).unwrap_err();
            assert!(error.contains(why) && error.contains("line 2"), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
