//! Problems in a tree that is read.

/// A problem in a mirror.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The path, relative to the mirror.
    pub path: String,
    /// The kind.
    pub kind: ProblemKind,
    /// A description.
    pub reason: String,
}

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// A file is missing.
    Missing,
    /// A file differs from what was written.
    Altered,
    /// An entry that a mirror does not contain.
    Extra,
    /// A truncated file.
    HalfWritten,
    /// A file without evidence that it holds what was written.
    Unchecked,
}

impl Problem {
    /// A problem with a file.
    pub fn new(kind: ProblemKind, path: String, reason: impl Into<String>) -> Self {
        Self { path, kind, reason: reason.into() }
    }

    pub(crate) fn extra(path: String, what: &str) -> Self {
        Self::new(ProblemKind::Extra, path, format!("it is {what}"))
    }
}
