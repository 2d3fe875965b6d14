//! What is not as it should be in a tree that is read.

/// Something in a mirror that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where, relative to the mirror.
    pub path: String,
    /// Of which kind.
    pub kind: ProblemKind,
    /// What is wrong, in words.
    pub reason: String,
}

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// A file that should be there is not.
    Missing,
    /// A file does not hold what was written into it.
    Altered,
    /// Something that no mirror holds.
    Extra,
    /// A file that ends too early.
    HalfWritten,
    /// A file of which nothing shows whether it holds what was written into it.
    Unchecked,
}

impl Problem {
    /// A problem with a file.
    pub fn new(kind: ProblemKind, path: String, reason: impl Into<String>) -> Self {
        Self { path, kind, reason: reason.into() }
    }

    pub(in crate::mirror) fn extra(path: String, what: &str) -> Self {
        Self::new(ProblemKind::Extra, path, format!("it is {what}"))
    }
}
