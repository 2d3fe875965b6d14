//! Which names are wanted: globs, lowered once.
//!
//! Pure. It must not know any store.

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::CollectionName;

/// The collections that a mirror follows, or that a restore puts back.
#[derive(Clone, Debug)]
pub struct Selection {
    globs: GlobSet,
    /// Nothing was asked for: all but those whose name starts with `_`.
    default: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self { globs: GlobSet::empty(), default: true }
    }
}

impl Selection {
    /// The collections that match at least one of these globs (`*`, `?`, `[a-z]`, `{a,b}`).
    /// Without a glob, all but those whose name starts with `_`.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, BadGlob> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let mut globs = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let bad = |error: globset::Error| BadGlob {
                pattern: pattern.to_owned(),
                reason: error.kind().to_string(),
            };
            globs.add(Glob::new(pattern).map_err(bad)?);
        }
        let globs = globs
            .build()
            .map_err(|error| BadGlob { pattern: String::new(), reason: error.to_string() })?;
        Ok(Self { globs, default: false })
    }

    /// Whether a collection of this name is wanted.
    pub fn wants(&self, name: &CollectionName) -> bool {
        if self.default {
            !name.as_str().starts_with('_')
        } else {
            self.globs.is_match(name.as_str())
        }
    }
}

/// A glob that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a glob: {reason}")]
pub struct BadGlob {
    pattern: String,
    reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_glob_everything_but_the_servers_own_collections_is_wanted() {
        let selection = Selection::default();
        assert!(selection.wants(&"books".into()));
        assert!(!selection.wants(&"_users".into()));
    }

    #[test]
    fn a_glob_selects_what_it_names_even_the_servers_own() {
        let selection = Selection::new(&["b*", "_users"]).unwrap();
        assert!(selection.wants(&"books".into()));
        assert!(selection.wants(&"_users".into()));
        assert!(!selection.wants(&"members".into()));
    }

    #[test]
    fn a_broken_glob_is_named() {
        let error = Selection::new(&["[a"]).unwrap_err().to_string();
        assert!(error.contains("`[a`"), "{error}");
    }
}
