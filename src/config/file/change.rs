//! What a new config changes.
//!
//! Pure.

use std::collections::HashMap;

use super::{AgentConfig, MirrorEntry};
use crate::document::MirrorName;

/// What a new config changes. The mirrors are in the order of the config that names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigChange {
    /// Mirrors that only the new config has.
    pub added: Vec<MirrorName>,
    /// Mirrors that only the old config has.
    pub removed: Vec<MirrorName>,
    /// Mirrors of which the new config says something else. The order of mirrors and of keys does not
    /// count, nor does a default that is now written out, or a value that comes from `[defaults]` now.
    pub changed: Vec<MirrorName>,
    /// All others. A secret in a file that was replaced changes nothing: the client reads it again.
    pub unchanged: Vec<MirrorName>,
    /// Whether `[api]` says something else.
    pub api: bool,
    /// Whether `[alerts]` says something else.
    pub alerts: bool,
}

impl ConfigChange {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        !self.api
            && !self.alerts
            && [&self.added, &self.removed, &self.changed].iter().all(|names| names.is_empty())
    }
}

/// Compares two configs by the names of their mirrors.
pub fn difference(old: &AgentConfig, new: &AgentConfig) -> ConfigChange {
    let (api, alerts) = (old.api != new.api, old.alerts != new.alerts);
    let mut change = ConfigChange { api, alerts, ..ConfigChange::default() };
    let (before, after) = (by_name(&old.mirrors), by_name(&new.mirrors));
    for entry in &new.mirrors {
        let names = match before.get(&entry.name) {
            None => &mut change.added,
            Some(before) if *before == entry => &mut change.unchanged,
            Some(_) => &mut change.changed,
        };
        names.push(entry.name.clone());
    }
    let gone = old.mirrors.iter().filter(|entry| !after.contains_key(&entry.name));
    change.removed = gone.map(|entry| entry.name.clone()).collect();
    change
}

fn by_name(mirrors: &[MirrorEntry]) -> HashMap<&MirrorName, &MirrorEntry> {
    mirrors.iter().map(|entry| (&entry.name, entry)).collect()
}
