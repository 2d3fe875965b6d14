//! The config file of the agent: TOML, read and checked as a whole, one entry for each mirror.
//!
//! An entry holds everything that its mirror needs, with `[defaults]` merged in. A secret is in it only if
//! the config itself holds the secret; otherwise the entry says where the secret is found, and each start
//! reads it again. So two entries can be compared.

mod alerts;
mod change;
mod check;
mod entry;
mod error;
mod hooks;
mod keys;
mod listen;
mod places;
mod read;
mod schedule;
mod show;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::choices::MirrorChoices;
use super::{AccessOptions, MirrorConfig};
use crate::client::couchdb::ServerRole;
use crate::document::MirrorName;
use crate::runner::{DriftOptions, TreeWatch};

pub use self::alerts::{AlertHooks, AlertsConfig, HeartbeatConfig};
pub use self::change::{ConfigChange, difference};
pub use self::check::{Aspect, CheckError, Finding};
pub use self::error::{FileError, FileProblem, LowerError};
pub use self::hooks::RunHooks;
pub use self::listen::Listen;
pub use self::schedule::{BadSchedule, CronSchedule, Period, Schedule};
pub use self::show::{Origin, ShownConfig, ShownKey};

/// What a config file says.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// The interface for other programs.
    pub api: ApiConfig,
    /// What is called when something is wrong, and while nothing is.
    pub alerts: AlertsConfig,
    /// The mirrors, in the order of the file. There is at least one.
    pub mirrors: Vec<MirrorEntry>,
}

/// The interface for other programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// The Unix sockets and the addresses where it listens. Empty means nowhere.
    pub listen: Vec<Listen>,
    /// The file with the tokens that requests to an address need. Absolute.
    pub tokens: PathBuf,
}

/// A mirror of the config, with the defaults merged in.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorEntry {
    /// Its name.
    pub name: MirrorName,
    /// The source, without a password. The path of a feed is absolute.
    pub source: String,
    /// Its directory. Absolute.
    pub directory: PathBuf,
    /// When it runs.
    pub schedule: Schedule,
    /// How it is verified while it runs; `None` is not at all.
    pub verify: Option<VerifyConfig>,
    /// Its options, all of them given, so that the config alone decides and not what the mirror
    /// remembers. Only `names` and `mode` may be left to the mirror.
    pub options: MirrorChoices,
    /// Where its credentials and certificates are found.
    pub access: AccessOptions,
    /// What runs before and after each of its sessions.
    pub hooks: RunHooks,
}

/// How a mirror is verified while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyConfig {
    /// Every document is verified once in this time.
    pub every: Duration,
    /// The most bytes that are read in a second; without it, as many as the period needs.
    pub rate: Option<u64>,
    /// Whether damaged documents are fetched again.
    pub repair: bool,
    /// Whether folders are watched, so that changes by others are noticed at once.
    pub watch: bool,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
        Self { every: WEEK, rate: None, repair: false, watch: true }
    }
}

impl VerifyConfig {
    /// The same for the session, with what watches folders in this process.
    pub fn lower(&self, watch: Option<Arc<TreeWatch>>) -> DriftOptions {
        let Self { every, rate, repair, .. } = *self;
        DriftOptions { every, rate, repair, watch: watch.filter(|_| self.watch) }
    }
}

impl MirrorEntry {
    /// Reads the secrets, and gives a mirror that can be started. Blocks.
    pub fn lower(&self) -> Result<MirrorConfig, LowerError> {
        let access = self.access.access(&self.source, ServerRole::Source)?;
        Ok(self.options.lower(&self.source, &self.directory)?.access(access)?)
    }
}
