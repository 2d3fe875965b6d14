//! Patterns, databases and collections that were requested or followed before, and that the source
//! does not have.

use std::fmt;

use crate::document::{CollectionName, Pattern, doubtful_name};

/// Something that is missing at the source.
#[derive(Clone, Debug)]
pub enum Absent {
    /// No collection of the source matches this pattern.
    Pattern(Pattern),
    /// The source has no such database, and the mirror never followed it.
    Database {
        /// Its name.
        collection: CollectionName,
        /// Its address, without credentials.
        origin: String,
    },
    /// The mirror followed this database, and the source no longer has it.
    Vanished {
        /// Its name.
        collection: CollectionName,
        /// Its address, without credentials.
        origin: String,
    },
    /// The source has no collections at all.
    Everything {
        /// The source, without credentials.
        source: String,
    },
}

impl Absent {
    /// Whether it is probably a typing mistake: a name that no collection has.
    pub fn is_mistake(&self) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.is_a_name(),
            Self::Database { .. } => true,
            Self::Vanished { .. } | Self::Everything { .. } => false,
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => {
                let text = pattern.text();
                match (pattern.broken(), pattern.is_a_name()) {
                    (Some(reason), _) => {
                        write!(f, "no collection is named `{text}`, and it is not a glob: {reason}")
                    }
                    (None, true) => write!(f, "no collection is named `{text}`"),
                    (None, false) => write!(f, "no collection matches `{text}`"),
                }
            }
            Self::Database { collection, origin } => {
                write!(f, "there is no database {origin}")?;
                match doubtful_name(collection.as_str()) {
                    Some(doubt) => write!(f, ": {doubt}"),
                    None => Ok(()),
                }
            }
            Self::Vanished { collection, origin } => write!(
                f,
                "the database of collection `{}` has vanished: {origin} no longer exists. Its \
                 copy in the mirror is kept: leave it out with --collections, or give --allow-empty",
                collection,
            ),
            Self::Everything { source } => {
                write!(f, "{} is empty: it has no collections", source)
            }
        }
    }
}
