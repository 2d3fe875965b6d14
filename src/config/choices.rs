//! What a person chooses for a mirror, on the command line or in a config file, lowered in one place.

use std::path::Path;
use std::time::Duration;

use super::error::ConfigError;
use super::{MAX_FAILURES, MAX_RUNS, MirrorConfig};
use crate::document::{FolderMode, MaxDelete};
use crate::mirror::{Deleted, JsonStyle};
use crate::tree::names::Codec;

/// The options of a mirror. An option that is `None` stays as the mirror remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorChoices {
    /// See [`MirrorConfig::live`].
    pub live: bool,
    /// The names and globs of collections; an empty list selects the default.
    pub collections: Option<Vec<String>>,
    /// The names and globs of collections that are left out.
    pub exclude: Vec<String>,
    /// See [`MirrorConfig::attachments`].
    pub attachments: Option<bool>,
    /// See [`MirrorConfig::revisions`].
    pub revisions: Option<bool>,
    /// What happens to documents that the source deletes.
    pub deleted: Option<Deleted>,
    /// See [`MirrorConfig::json`].
    pub json: Option<JsonStyle>,
    /// See [`MirrorConfig::names`].
    pub names: Option<Codec>,
    /// See [`MirrorConfig::max_delete`].
    pub max_delete: Option<MaxDelete>,
    /// See [`MirrorConfig::max_failures`]; 0 is no limit.
    pub max_failures: u64,
    /// See [`MirrorConfig::trash`], in days.
    pub trash: Option<u32>,
    /// See [`MirrorConfig::reserve`], in bytes.
    pub reserve: Option<u64>,
    /// See [`MirrorConfig::mode`].
    pub mode: Option<FolderMode>,
    /// See [`MirrorConfig::existing`].
    pub existing: bool,
    /// See [`MirrorConfig::allow_empty`].
    pub allow_empty: bool,
    /// See [`MirrorConfig::discard`].
    pub discard: bool,
    /// See [`MirrorConfig::adopt`].
    pub adopt: bool,
    /// See [`MirrorConfig::source_moved`].
    pub source_moved: bool,
    /// See [`MirrorConfig::take_over`].
    pub take_over: bool,
    /// See [`MirrorConfig::give_up_after`]; zero means never, and `None` the default.
    pub give_up_after: Option<Duration>,
    /// See [`MirrorConfig::max_runs`].
    pub max_runs: u16,
}

impl Default for MirrorChoices {
    fn default() -> Self {
        Self {
            live: false,
            collections: None,
            exclude: Vec::new(),
            attachments: None,
            revisions: None,
            deleted: None,
            json: None,
            names: None,
            max_delete: None,
            max_failures: MAX_FAILURES,
            trash: None,
            reserve: None,
            mode: None,
            existing: false,
            allow_empty: false,
            discard: false,
            adopt: false,
            source_moved: false,
            take_over: false,
            give_up_after: None,
            max_runs: MAX_RUNS,
        }
    }
}

impl MirrorChoices {
    /// A mirror of `source` in `directory` with these options, without credentials.
    pub fn lower(&self, source: &str, directory: &Path) -> Result<MirrorConfig, ConfigError> {
        let mut config = MirrorConfig::new(source, directory)?
            .live(self.live)
            .source_moved(self.source_moved)
            .allow_empty(self.allow_empty)
            .discard(self.discard)
            .adopt(self.adopt)
            .existing(self.existing)
            .take_over(self.take_over)
            .max_runs(self.max_runs.into())
            .max_failures((self.max_failures > 0).then_some(self.max_failures))
            .exclude(&self.exclude)?;
        if let Some(globs) = &self.collections {
            config = config.collections(globs)?;
        }
        if let Some(attachments) = self.attachments {
            config = config.attachments(attachments);
        }
        if let Some(revisions) = self.revisions {
            config = config.revisions(revisions)?;
        }
        if let Some(deleted) = self.deleted {
            config = config.keep_deleted(deleted == Deleted::Keep);
        }
        if let Some(json) = self.json {
            config = config.json(json);
        }
        if let Some(MaxDelete(limit)) = self.max_delete {
            config = config.max_delete(limit);
        }
        if let Some(days) = self.trash {
            config = config.trash(days);
        }
        if let Some(bytes) = self.reserve {
            config = config.reserve(bytes);
        }
        if let Some(mode) = self.mode {
            config = config.mode(mode);
        }
        if let Some(names) = self.names {
            config = config.names(names);
        }
        if let Some(patience) = self.give_up_after {
            config = config.give_up_after((!patience.is_zero()).then_some(patience));
        }
        Ok(config)
    }
}
