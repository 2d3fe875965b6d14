//! What `verify --against` and `diff` compare, and how much of it they print.

use std::collections::BTreeMap;

use clap::Args;

use super::exit::Usage;
use super::help::{COPY, OUTPUT};
use crate::document::CollectionName;
use crate::verify;

/// How many differences, and how many problems, text lists unless more are asked for.
const LISTED: usize = 100;

/// The options of a comparison.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Options {
    /// Compare the mirror's collection OLD with the source's NEW.
    ///
    /// It may be given more than once. NEW alone is for the one selected collection.
    #[arg(long = "as", value_name = "[OLD=]NEW,…", value_delimiter = ',', help_heading = COPY)]
    renamed: Vec<String>,

    /// Also compare collections that the mirror does not hold
    #[arg(long, help_heading = COPY)]
    all: bool,

    /// Read every body and every attachment from the source, and compare the bytes.
    ///
    /// Without this option, revisions are compared, and the mirror's bytes are checked by their
    /// checksums.
    #[arg(long, help_heading = COPY)]
    bytes: bool,

    /// List at most N differences and N problems in text; 0 lists all
    #[arg(long, value_name = "N", default_value_t = LISTED, help_heading = OUTPUT)]
    limit: usize,
}

/// Other names of collections, by their own; and the one name for the one selected collection.
pub type Renames = (BTreeMap<CollectionName, CollectionName>, Option<CollectionName>);

/// Parses the values of `--as`.
pub fn renames(given: &[String]) -> Result<Renames, Usage> {
    if let [only] = given
        && !only.is_empty()
        && !only.contains('=')
    {
        return Ok((BTreeMap::new(), Some(only.as_str().into())));
    }
    let mut renamed = BTreeMap::new();
    for pair in given {
        let parts = pair.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty());
        let Some((old, new)) = parts else {
            return Err(Usage(format!(
                "`{pair}` does not rename: give --as old=new, or one new name for the one selected \
                 collection"
            )));
        };
        renamed.insert(old.into(), new.into());
    }
    Ok((renamed, None))
}

impl Options {
    /// What is compared, with a source that was asked for `only` this collection.
    pub fn lower(&self, only: Option<CollectionName>) -> Result<verify::Comparison, Usage> {
        let (renamed, only_as) = renames(&self.renamed)?;
        Ok(verify::Comparison { only, renamed, only_as, all: self.all, bytes: self.bytes })
    }

    /// Whether collections have other names in the other place.
    pub fn renames(&self) -> bool {
        !self.renamed.is_empty()
    }

    /// The given option, if any, that needs a comparison.
    pub fn needs_source(&self) -> Option<&'static str> {
        let given = [(self.renames(), "--as"), (self.all, "--all"), (self.bytes, "--bytes")];
        given.iter().find(|(given, _)| *given).map(|(_, name)| *name)
    }

    /// Which collections the source is asked to name, where those of the mirror match these globs:
    /// where names differ, the mirror's globs say nothing of the source's.
    pub fn of_source<'a>(&self, globs: &'a [String]) -> Vec<&'a str> {
        if self.renames() { vec!["*"] } else { globs.iter().map(String::as_str).collect() }
    }

    /// The number of differences and problems that text lists.
    pub fn limit(&self) -> usize {
        if self.limit == 0 { usize::MAX } else { self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_pairs_or_one_alone() {
        let given = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            renames(&names)
        };
        let (renamed, only) = given(&["a=b", "c=d=e"]).unwrap();
        assert_eq!((renamed.len(), only), (2, None));
        assert_eq!(renamed.get(&"c".into()), Some(&"d=e".into()));
        assert_eq!(given(&["x"]).unwrap().1, Some("x".into()));
        assert_eq!(given(&[]).unwrap(), (BTreeMap::new(), None));
        for wrong in [&["a=b", "x"][..], &[""], &["=b"], &["a="]] {
            assert!(given(wrong).unwrap_err().0.contains("does not rename"), "{wrong:?}");
        }
    }
}
