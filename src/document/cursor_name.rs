//! The name of a cursor. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mirror_name::{BadMirrorName, MirrorName};

/// The name of a cursor. It has the characters of a mirror's name, and is never escaped either.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(value_type = String)]
#[serde(transparent)]
pub struct CursorName(MirrorName);

impl CursorName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for CursorName {
    type Err = BadMirrorName;

    fn from_str(text: &str) -> Result<Self, BadMirrorName> {
        text.parse().map(Self)
    }
}

impl fmt::Display for CursorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
