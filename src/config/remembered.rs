//! The globs that select a source's collections, as they were and as they are from now on.
//!
//! Globs are remembered for each source, because one mirror may follow several.

use std::collections::BTreeMap;

use crate::mirror::Mirror;
use crate::source::{Selection, Store};
use crate::tree::MirrorError;

/// Which collections of a source are followed. An empty list is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globs {
    /// What the last run followed.
    pub before: Vec<String>,
    /// What is followed from now on.
    pub now: Vec<String>,
}

/// Adds what was named to what is remembered. If a server has `moved`, its globs move with it if only one
/// server is remembered.
pub fn globs(
    remembered: &mut BTreeMap<String, Vec<String>>,
    source: &str,
    named: Option<Vec<String>>,
    moved: bool,
) -> Globs {
    if moved && !remembered.contains_key(source) && is_server(source) {
        let mut others = remembered.keys().filter(|other| is_server(other));
        if let (Some(only), None) = (others.next().cloned(), others.next()) {
            let globs = remembered.remove(&only).unwrap_or_default();
            remembered.insert(source.to_owned(), globs);
        }
    }
    let before = remembered.get(source).cloned().unwrap_or_default();
    let now = named.unwrap_or_else(|| before.clone());
    match now.is_empty() {
        true => remembered.remove(source),
        false => remembered.insert(source.to_owned(), now.clone()),
    };
    Globs { before, now }
}

fn is_server(source: &str) -> bool {
    source.starts_with("http")
}

/// Says how the globs have changed, and which collections of the mirror they, or what is `excluded`,
/// leave out.
pub fn say(
    mirror: &Mirror,
    store: &dyn Store,
    globs: &Globs,
    excluded: &[String],
) -> Result<(), MirrorError> {
    let is_changed = globs.before != globs.now;
    if !is_changed && excluded.is_empty() {
        return Ok(());
    }
    // A mirror that records no collection has nothing to compare with.
    let recorded = mirror.recorded()?;
    let ours = recorded.into_iter().filter(|(name, source)| *source == store.origin(name));
    let ours: Vec<_> = ours.map(|(name, _)| name).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let Ok(selection) = Selection::new(&globs.now) else { return Ok(()) };
    if is_changed {
        let text = |globs: &[String]| match globs.is_empty() {
            true => "the default".to_owned(),
            false => globs.join(","),
        };
        let (before, now) = (text(&globs.before), text(&globs.now));
        tracing::info!(
            "--collections was {before}, and is {now} from now on, if everything in it is found"
        );
        for name in ours.iter().filter(|name| !selection.wants(name)) {
            tracing::warn!(
                "`{}` is no longer followed, because --collections does not select it; its copy in \
                 the mirror is kept",
                name,
            );
        }
    }
    let selected: Vec<_> = ours.iter().filter(|name| selection.wants(name)).collect();
    let Ok(selection) = selection.without(excluded) else { return Ok(()) };
    for name in selected.into_iter().filter(|name| !selection.wants(name)) {
        tracing::warn!("`{name}` is not followed, because it is excluded; its copy is kept");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(entries: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
        entries.iter().map(|(key, glob)| ((*key).to_owned(), vec![(*glob).to_owned()])).collect()
    }

    #[test]
    fn globs_that_are_not_named_stay_as_they_were_for_each_source() {
        let mut all = remembered(&[("http://a", "x*"), ("feed:/f", "y*")]);
        assert_eq!(globs(&mut all, "http://a", None, false).now, ["x*"]);
        assert_eq!(globs(&mut all, "feed:/f", None, false).now, ["y*"]);
        assert!(globs(&mut all, "http://b", None, false).now.is_empty());
        let named = globs(&mut all, "http://a", Some(vec!["z".to_owned()]), false);
        assert_eq!((named.before, named.now), (vec!["x*".to_owned()], vec!["z".to_owned()]));
        assert_eq!(all["http://a"], ["z"]);
        assert!(globs(&mut all, "http://a", Some(Vec::new()), false).now.is_empty());
        assert!(!all.contains_key("http://a"), "the default is not written down");
    }

    #[test]
    fn a_server_that_moved_takes_its_globs_along_if_it_can_only_be_one() {
        let one = remembered(&[("http://a", "x*"), ("feed:/f", "y*")]);
        let mut moved = one.clone();
        assert_eq!(globs(&mut moved, "http://b", None, true).now, ["x*"]);
        assert_eq!(moved, remembered(&[("http://b", "x*"), ("feed:/f", "y*")]));
        let mut two = remembered(&[("http://a", "x*"), ("http://c", "y*")]);
        assert!(globs(&mut two, "http://b", None, true).now.is_empty());
        assert!(globs(&mut one.clone(), "http://b", None, false).now.is_empty());
        assert!(globs(&mut one.clone(), "feed:/g", None, true).now.is_empty());
    }
}
