//! What works of a config, and what does not: tried for each mirror, without writing anything.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde::Serialize;

use super::error::LowerError;
use super::{MirrorEntry, RunHooks, Schedule};
use crate::config::{Probe, StartError};
use crate::document::plain;
use crate::mirror;
use crate::runner::Absent;
use crate::tree::beneath::Folder;
use crate::tree::{MirrorError, format};

/// How long a source may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most collections that are named.
const NAMED: usize = 10;

/// What is checked of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Whether its source answers, and the credentials suffice.
    Source,
    /// Whether its directory can be written, and nobody else uses it.
    Directory,
    /// Whether its file system has room.
    Space,
    /// When it runs next.
    Schedule,
    /// Whether the programs that run before and after its sessions exist.
    Hooks,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Directory => "directory",
            Self::Space => "space",
            Self::Schedule => "schedule",
            Self::Hooks => "hooks",
        })
    }
}

/// What was found: what works, or what does not.
#[derive(Debug)]
pub struct Finding {
    /// What was checked.
    pub aspect: Aspect,
    /// What was found.
    pub found: Result<String, CheckError>,
}

/// What does not work.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A secret, a certificate or an option.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The source or the directory.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Names or globs match nothing, or the source is empty.
    #[error("{}; if that is right, set `allow_empty = true`", all(.0))]
    Absent(Vec<Absent>),
    /// The source has not answered in time.
    #[error("{0} does not answer within {secs} s", secs = PATIENCE.as_secs())]
    Slow(String),
    /// A program that does not exist, or that cannot be executed.
    #[error("the program {0} cannot be executed: install it, or write its whole path")]
    Program(String),
}

fn all(absent: &[Absent]) -> String {
    absent.iter().map(Absent::to_string).collect::<Vec<_>>().join("; ")
}

impl From<MirrorError> for CheckError {
    fn from(error: MirrorError) -> Self {
        Self::Start(error.into())
    }
}

impl RunHooks {
    /// Whether its programs exist; `None` if it names none. Blocks.
    fn check(&self) -> Option<Result<String, CheckError>> {
        let programs =
            [&self.before, &self.after].into_iter().flatten().filter_map(|all| all.first());
        let programs: Vec<&str> = programs.map(String::as_str).collect();
        let missing = programs.iter().find(|program| !is_program(program));
        let found = match missing {
            Some(program) => Err(CheckError::Program(plain::quoted(program))),
            None => Ok(programs.join(", ")),
        };
        (!programs.is_empty()).then_some(found)
    }
}

/// Whether this names a program that can be executed: a path, or a name in a folder of `PATH`.
fn is_program(name: &str) -> bool {
    let can_run = |path: &Path| {
        path.is_file() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    };
    if name.contains('/') {
        return can_run(Path::new(name));
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| can_run(&folder.join(name)))
}

impl MirrorEntry {
    /// Checks the mirror at the time `now`. A process `agent` may already work on it. With `offline`, its
    /// source is not asked, but its secrets are read.
    pub async fn check(&self, agent: Option<u32>, offline: bool, now: Timestamp) -> Vec<Finding> {
        let entry = self.clone();
        let blocking = move || (entry.directory(agent), entry.space(), entry.hooks.check());
        let (directory, space, hooks) = match tokio::task::spawn_blocking(blocking).await {
            Ok(found) => found,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let mut findings = vec![
            Finding { aspect: Aspect::Source, found: self.source(offline).await },
            Finding { aspect: Aspect::Directory, found: directory.map_err(CheckError::from) },
            Finding { aspect: Aspect::Space, found: space.map_err(CheckError::from) },
            Finding { aspect: Aspect::Schedule, found: Ok(self.times(now)) },
        ];
        findings.extend(hooks.map(|found| Finding { aspect: Aspect::Hooks, found }));
        findings
    }

    async fn source(&self, offline: bool) -> Result<String, CheckError> {
        let entry = self.clone();
        let lowered = match tokio::task::spawn_blocking(move || entry.lower()).await {
            Ok(lowered) => lowered?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        if offline {
            return Ok(format!("{} (not asked)", self.source));
        }
        let Ok(probe) = tokio::time::timeout(PATIENCE, lowered.probe(PATIENCE)).await else {
            return Err(CheckError::Slow(self.source.clone()));
        };
        let probe = probe?;
        if !self.options.allow_empty && !probe.absent.is_empty() {
            return Err(CheckError::Absent(probe.absent));
        }
        Ok(answered(&probe))
    }

    /// Whether its directory can be what it is to be.
    fn directory(&self, agent: Option<u32>) -> Result<String, MirrorError> {
        let path = &self.directory;
        let shown = path.display();
        let ours = match mirror::Ours::find(path) {
            Err(MirrorError::NoMirror { path }) if self.options.existing => {
                return Err(MirrorError::NotExisting { path });
            }
            Err(MirrorError::NoMirror { .. }) => {
                format::refuse_inside_another(path)?;
                if path.is_dir() {
                    format::recognise(&Folder::open_path(path)?)?;
                }
                writable(existing(path))?;
                let made = if path.is_dir() { "will become a mirror" } else { "will be created" };
                return Ok(format!("{shown} {made}"));
            }
            ours => ours?,
        };
        // The options were lowered when the config was read.
        if let Ok(config) = self.options.lower(&self.source, path) {
            config.accepted_by(&ours)?;
        }
        match ours.holder()? {
            Some(holder) if agent == Some(holder.pid) => {
                Ok(format!("{shown} is a mirror on which the agent works (process {})", holder.pid))
            }
            Some(holder) => Err(MirrorError::Locked { path: path.clone(), holder }),
            None => {
                writable(path)?;
                Ok(format!("{shown} is a mirror"))
            }
        }
    }

    fn space(&self) -> Result<String, MirrorError> {
        let free = Folder::open_path(existing(&self.directory))?.room()?.bytes;
        match self.options.reserve.unwrap_or_default() {
            reserve if free <= reserve && reserve > 0 => {
                Err(MirrorError::Reserve { path: self.directory.clone(), free, reserve })
            }
            0 => Ok(format!("{} free", ByteSize(free))),
            reserve => {
                Ok(format!("{} free, of which {} stay free", ByteSize(free), ByteSize(reserve)))
            }
        }
    }

    fn times(&self, now: Timestamp) -> String {
        match (&self.schedule, self.schedule.next(now)) {
            (Schedule::Live, _) => "live: follows its source all the time".to_owned(),
            (Schedule::Cron(_), Some(next)) => format!("{}: next at {next}", self.schedule),
            (schedule, _) => format!("{schedule}, and when the agent starts"),
        }
    }
}

/// What a source has answered, in words.
fn answered(probe: &Probe) -> String {
    let count = probe.collections.len();
    let names: Vec<_> = probe.collections.iter().take(NAMED).map(|name| name.to_string()).collect();
    let mut names = names.join(", ");
    if count > NAMED {
        names.push_str(&format!(" and {} more", count - NAMED));
    }
    let source = &probe.source;
    match (probe.is_partial, count) {
        (true, _) => format!("{source} is a feed, with the collection {names} and perhaps others"),
        (false, 0) => format!("{source} answers, and has no collection yet"),
        (false, 1) => format!("{source} answers, and 1 collection can be read: {names}"),
        (false, _) => format!("{source} answers, and {count} collections can be read: {names}"),
    }
}

/// The nearest folder of a path that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

fn writable(folder: &Path) -> Result<(), MirrorError> {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, folder, wanted, AtFlags::EACCESS)
        .map_err(|error| MirrorError::io("write into", folder, error))
}
