//! Pairs the collections of a mirror with those of the other side. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::VerifyError;
use crate::document::CollectionName;

/// The scope and the depth of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The one collection that the source was asked for by name, if any.
    pub only: Option<CollectionName>,
    /// Other names of collections on the other side, by their names in the mirror.
    pub renamed: BTreeMap<CollectionName, CollectionName>,
    /// The name on the other side of the one collection of the mirror that is compared.
    pub only_as: Option<CollectionName>,
    /// Whether collections are compared that the mirror does not hold.
    pub all: bool,
    /// Whether every byte of the source is read, or only the revisions.
    pub bytes: bool,
}

/// A collection of a mirror, and its counterpart on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub here: CollectionName,
    pub there: CollectionName,
}

impl Comparison {
    /// Whether any collection has another name on the other side.
    pub fn renames(&self) -> bool {
        self.only_as.is_some() || !self.renamed.is_empty()
    }

    /// The collections of a mirror, each with its counterpart.
    pub(super) fn pairs(&self, held: &[CollectionName]) -> Result<Vec<Pair>, VerifyError> {
        let wrong = |what: String| Err(VerifyError::Selection(what));
        if let Some(there) = &self.only_as {
            let [here] = held else {
                let names: Vec<_> = held.iter().map(CollectionName::as_str).collect();
                return wrong(format!(
                    "one name, `{there}`, was given for {} collections ({}): select one with \
                     --collections, or give --as old=new",
                    held.len(),
                    names.join(", "),
                ));
            };
            return Ok(vec![Pair { here: here.clone(), there: there.clone() }]);
        }
        if let Some(old) = self.renamed.keys().find(|old| !held.contains(old)) {
            return wrong(format!(
                "--as names `{old}`, but no selected collection of the mirror has that name"
            ));
        }
        let pair = |here: &CollectionName| Pair {
            here: here.clone(),
            there: self.renamed.get(here).unwrap_or(here).clone(),
        };
        let pairs: Vec<_> = held.iter().map(pair).collect();
        let mut taken = BTreeSet::new();
        if let Some(twice) = pairs.iter().find(|pair| !taken.insert(&pair.there)) {
            let there = &twice.there;
            return wrong(format!(
                "two collections would be compared with `{there}`: give each \
                                  another name with --as"
            ));
        }
        Ok(pairs)
    }

    /// The one collection that the source is, if the mirror does not hold it: all of its documents would
    /// differ. With the error that names the option.
    pub(super) fn unheld(&self, pairs: &[Pair]) -> Option<(&CollectionName, VerifyError)> {
        let only = self.only.as_ref().filter(|_| !self.all && !self.renames())?;
        if pairs.is_empty() || pairs.iter().any(|pair| pair.there == *only) {
            return None;
        }
        let advice = match pairs {
            [one] => format!("`{}` with it, add `--as {}={only}`", one.here, one.here),
            _ => format!("one of its collections with it, add `--as COLLECTION={only}`"),
        };
        let what = format!("the mirror has no collection `{only}`: to compare {advice}");
        Some((only, VerifyError::Selection(what)))
    }

    /// The collections of the other side without a counterpart, except the server's own.
    pub(super) fn others(&self, pairs: &[Pair], named: &[CollectionName]) -> Vec<CollectionName> {
        let is_other = |name: &&CollectionName| {
            let is_servers_own = self.renames() && name.as_str().starts_with('_');
            !is_servers_own && !pairs.iter().any(|pair| pair.there == **name)
        };
        named.iter().filter(is_other).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<CollectionName> {
        names.iter().map(|name| CollectionName::from(*name)).collect()
    }

    fn paired(how: &Comparison, held: &[&str]) -> Result<Vec<(String, String)>, String> {
        let pairs = how.pairs(&names(held)).map_err(|error| error.to_string())?;
        Ok(pairs.iter().map(|pair| (pair.here.to_string(), pair.there.to_string())).collect())
    }

    fn renaming(pairs: &[(&str, &str)]) -> Comparison {
        let renamed = pairs.iter().map(|(old, new)| ((*old).into(), (*new).into())).collect();
        Comparison { renamed, ..Comparison::default() }
    }

    #[test]
    fn a_collection_is_compared_with_its_namesake_unless_it_has_another_name() {
        let how = renaming(&[("a", "a-drill")]);
        let text = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(paired(&how, &["a", "b"]).unwrap(), [text("a", "a-drill"), text("b", "b")]);
        let how = Comparison { only_as: Some("x".into()), ..Comparison::default() };
        assert_eq!(paired(&how, &["a"]).unwrap(), [text("a", "x")]);
    }

    #[test]
    fn names_that_cannot_be_meant_are_refused() {
        let how = renaming(&[("typo", "x")]);
        assert!(paired(&how, &["a"]).unwrap_err().contains("`typo`"));
        let how = renaming(&[("a", "b")]);
        assert!(paired(&how, &["a", "b"]).unwrap_err().contains("two collections"));
        let how = Comparison { only_as: Some("x".into()), ..Comparison::default() };
        assert!(paired(&how, &["a", "b"]).unwrap_err().contains("a, b"));
        assert!(paired(&how, &[]).is_err());
    }

    #[test]
    fn a_source_that_is_a_collection_of_another_name_is_refused() {
        let how = Comparison { only: Some("b".into()), ..Comparison::default() };
        let refused = |how: &Comparison, held: &[&str]| {
            let pairs = how.pairs(&names(held)).unwrap();
            how.unheld(&pairs).map(|(_, error)| error.to_string())
        };
        let one = refused(&how, &["a"]).unwrap();
        assert!(one.contains("`b`") && one.contains("--as a=b"), "{one}");
        let several = refused(&how, &["a", "c"]).unwrap();
        assert!(several.contains("=b"), "{several}");
        assert_eq!(refused(&how, &["a", "b"]), None);
        assert_eq!(refused(&Comparison { all: true, ..how }, &["a"]), None);
        assert_eq!(refused(&Comparison::default(), &["a"]), None);
    }

    #[test]
    fn what_no_pair_names_is_other() {
        let how = renaming(&[("a", "x")]);
        let pairs = how.pairs(&names(&["a"])).unwrap();
        assert_eq!(how.others(&pairs, &names(&["_users", "a", "x"])), names(&["a"]));
        let how = Comparison::default();
        let pairs = how.pairs(&names(&["a"])).unwrap();
        assert_eq!(how.others(&pairs, &names(&["_users", "a"])), names(&["_users"]));
    }
}
