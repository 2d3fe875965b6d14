//! Config files that cannot be used, and entries of which a secret cannot be read.

use std::fmt;
use std::path::PathBuf;

use crate::client::webhook::WebhookError;
use crate::config::{AccessError, ConfigError, SecretError};

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("the config {path} cannot be read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not exist.
    #[error(
        "there is no config {path}: name one with --config, or write one with `plainfold config init`",
        path = path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is a folder, a pipe or a device.
    #[error("the config {path} is not a file", path = path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is too large.
    #[error("the config {path} is larger than {most} bytes, which no config needs", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size.
        most: u64,
    },
    /// Others may read the secrets in it.
    #[error(
        "the config {path} holds secrets, and others may read it (mode {mode:04o}): run `chmod 600 {quoted}`",
        path = path.display(),
        quoted = crate::document::plain::quoted(&path.to_string_lossy())
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What it says is wrong.
    #[error("the config {path} is wrong: {all}", path = path.display(), all = listed(problems))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that was found, in the order of lines.
        problems: Vec<FileProblem>,
    },
}

/// One mistake in a config file. It never repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileProblem {
    /// The line, counted from 1; `None` if it concerns the whole file.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

fn listed(problems: &[FileProblem]) -> String {
    problems.iter().map(FileProblem::to_string).collect::<Vec<_>>().join("; ")
}

/// Why an entry does not become a mirror that can be started.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// A secret or a certificate cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address of a hook.
    #[error("the address of a hook cannot be used: {0}")]
    Hook(#[from] WebhookError),
}

impl From<AccessError> for LowerError {
    fn from(error: AccessError) -> Self {
        Self::Config(error.into())
    }
}
