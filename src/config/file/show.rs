//! What a config file means: every key of every mirror with its value and where that comes from.
//!
//! No secret is shown, and neither is a text that a terminal would obey: TOML and JSON escape it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use toml::de::DeTable;

use super::schedule::Period;
use super::value::{Key, Reading};
use super::{AlertsConfig, ApiConfig, HeartbeatConfig, MirrorEntry, RunHooks, VerifyConfig};
use crate::config::{AccessOptions, SecretPlace};

/// A config file, explained.
#[derive(Clone, Debug, Serialize)]
pub struct ShownConfig {
    /// The keys of `[api]`.
    pub api: Vec<ShownKey>,
    /// The keys of `[alerts]`.
    pub alerts: Vec<ShownKey>,
    /// The keys of each mirror.
    pub mirrors: Vec<Vec<ShownKey>>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownKey {
    /// The key.
    pub key: &'static str,
    /// Its value as the file has it; null if it is left open.
    pub value: Value,
    /// What follows from a key that is left open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<&'static str>,
    /// Where the value comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "from", content = "line", rename_all = "kebab-case")]
pub enum Origin {
    /// From its own section, on this line.
    File(usize),
    /// From `[defaults]`, on this line.
    Defaults(usize),
    /// It is not in the file.
    #[default]
    Default,
}

/// Where the values of a section come from.
pub(super) type Origins = BTreeMap<&'static str, Origin>;

/// The origins of the keys of a section, of which `[defaults]` may have some too.
pub(super) fn origins<T>(
    reading: &Reading<'_>,
    keys: &[Key<T>],
    own: Option<&DeTable<'_>>,
    defaults: Option<&DeTable<'_>>,
) -> Origins {
    let line = |table: Option<&DeTable<'_>>, name| {
        let (key, _) = table?.get_key_value(name)?;
        Some(reading.line(key.span().start))
    };
    let origin = |name| {
        let own = line(own, name).map(Origin::File);
        own.or_else(|| line(defaults, name).map(Origin::Defaults)).unwrap_or_default()
    };
    keys.iter().map(|key| (key.name, origin(key.name))).collect()
}

impl ShownKey {
    /// A line of TOML, with the origin in a comment.
    pub fn line(&self) -> String {
        let from = match self.origin {
            Origin::File(line) => format!("line {line}"),
            Origin::Defaults(line) => format!("line {line}, [defaults]"),
            Origin::Default => "default".to_owned(),
        };
        match (self.meaning, toml::Value::try_from(&self.value)) {
            (None, Ok(value)) => format!("{} = {value}  # {from}", self.key),
            (meaning, _) => format!("# {}: {}", self.key, meaning.unwrap_or_default()),
        }
    }
}

/// Keys with their values, and origins.
fn shown(values: Vec<(&'static str, Value)>, origins: &Origins, open: &Open) -> Vec<ShownKey> {
    let key = |(key, value): (&'static str, Value)| {
        let meaning = value.is_null().then(|| open(key));
        let origin = origins.get(key).copied().unwrap_or_default();
        ShownKey { key, value, meaning, origin }
    };
    values.into_iter().map(key).collect()
}

/// What follows from a key that is left open.
type Open = dyn Fn(&str) -> &'static str;

impl ApiConfig {
    pub(super) fn shown(&self, origins: &Origins) -> Vec<ShownKey> {
        let listen: Vec<_> = self.listen.iter().map(ToString::to_string).collect();
        let values = vec![("listen", json!(listen)), ("tokens", path(&self.tokens))];
        shown(values, origins, &|_| "")
    }
}

impl AlertsConfig {
    pub(super) fn shown(&self, origins: &Origins) -> Vec<ShownKey> {
        let heartbeat = |one: &HeartbeatConfig| json!({ "url": address(&one.url), "every": Period(one.every).to_string() });
        let values = vec![
            ("command", json!(self.command)),
            ("url", self.url.as_ref().map_or(Value::Null, address)),
            ("late_after", json!(Period(self.late_after).to_string())),
            ("heartbeat", self.heartbeat.as_ref().map_or(Value::Null, heartbeat)),
        ];
        shown(values, origins, &|_| "none")
    }
}

/// The address of a hook, which may be a secret.
fn address(place: &SecretPlace) -> Value {
    match place {
        SecretPlace::File(file) => json!({ "file": path(file) }),
        SecretPlace::Variable(name) => json!({ "env": name }),
        SecretPlace::Credential(name) => json!({ "credential": name }),
        SecretPlace::Command(_) | SecretPlace::Config(_) => json!("(not shown)"),
    }
}

impl MirrorEntry {
    pub(super) fn shown(&self, origins: &Origins) -> Vec<ShownKey> {
        let options = &self.options;
        let patience = options.give_up_after.map(|patience| Period(patience).to_string());
        let values = vec![
            ("name", json!(self.name)),
            ("source", json!(self.source)),
            ("directory", path(&self.directory)),
            ("schedule", json!(self.schedule)),
            ("verify", self.verify.as_ref().map_or(Value::Bool(false), VerifyConfig::shown)),
            ("collections", json!(options.collections)),
            ("exclude", json!(options.exclude)),
            ("attachments", json!(options.attachments)),
            ("revisions", json!(options.revisions)),
            ("deleted", json!(options.deleted)),
            ("json", json!(options.json)),
            ("names", json!(options.names)),
            ("max_delete", json!(options.max_delete)),
            ("max_failures", json!(options.max_failures)),
            ("trash", json!(options.trash)),
            ("reserve", json!(options.reserve)),
            ("mode", json!(options.mode)),
            ("existing", json!(options.existing)),
            ("allow_empty", json!(options.allow_empty)),
            ("give_up_after", json!(patience)),
            ("max_runs", json!(options.max_runs)),
            ("credentials", self.access.shown()),
            ("tls", self.access.shown_tls()),
            ("hooks", self.hooks.shown()),
        ];
        let is_live = self.schedule.is_live();
        shown(values, origins, &move |key| match key {
            "names" => "native in a new mirror; otherwise as the mirror has it",
            "mode" => "0700 in a new mirror; otherwise as the mirror has it",
            _ if is_live => "never",
            _ => "30s",
        })
    }
}

impl RunHooks {
    fn shown(&self) -> Value {
        let programs = [("before", &self.before), ("after", &self.after)];
        let given =
            programs.into_iter().filter_map(|(key, command)| Some((key, json!(command.as_ref()?))));
        let timeout = ("timeout", json!(Period(self.timeout).to_string()));
        given.chain([timeout]).map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl VerifyConfig {
    fn shown(&self) -> Value {
        let Self { every, rate, repair, watch } = self;
        let every = Period(*every).to_string();
        match rate {
            Some(rate) => json!({"every": every, "rate": rate, "repair": repair, "watch": watch}),
            None => json!({"every": every, "repair": repair, "watch": watch}),
        }
    }
}

impl AccessOptions {
    fn shown(&self) -> Value {
        let mut table = serde_json::Map::new();
        if self.session {
            table.insert("auth".to_owned(), json!("session"));
        }
        for (kind, place) in [("password", &self.password), ("token", &self.token)] {
            let (suffix, value) = match place {
                None => continue,
                Some(SecretPlace::File(file)) => ("_file", path(file)),
                Some(SecretPlace::Variable(name)) => ("_env", json!(name)),
                Some(SecretPlace::Credential(name)) => ("_credential", json!(name)),
                Some(SecretPlace::Command(command)) => ("_command", json!(command)),
                Some(SecretPlace::Config(_)) => ("", json!("(not shown)")),
            };
            table.insert(format!("{kind}{suffix}"), value);
        }
        Value::Object(table)
    }

    fn shown_tls(&self) -> Value {
        let files = [
            ("ca_file", &self.tls.ca_file),
            ("client_cert", &self.tls.client_cert),
            ("client_key", &self.tls.client_key),
        ];
        let named = files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?)));
        named.map(|(key, file)| (key.to_owned(), path(file))).collect()
    }
}

/// A path as text; one that is not UTF-8 would not be a value of TOML.
fn path(path: &Path) -> Value {
    json!(path.display().to_string())
}
