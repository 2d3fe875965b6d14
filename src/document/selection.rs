//! Selects names by patterns.
//!
//! Pure.

use std::collections::VecDeque;

use globset::{Glob, GlobMatcher, GlobSetBuilder};

use super::CollectionName;

/// The characters that make a pattern more than a name.
const GLOB_CHARACTERS: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

/// The most bytes of a glob. The names of collections and documents that can be matched by longer ones are rare,
/// and requests from anywhere contain globs.
const LONGEST: usize = 1_024;

/// The most alternatives in braces in a glob. They are compiled by recursion, so a deep nesting of them would
/// exhaust the stack.
const MOST_BRACES: usize = 16;

/// A name, or a glob (`*`, `?`, `[a-z]`, `{a,b}`). An existing name is never treated as a glob, even
/// if it could be read as one.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    glob: Option<GlobMatcher>,
    /// Why it is not a valid glob, if it has the characters of one.
    broken: Option<String>,
}

/// The collections that a mirror follows, or that a restore writes.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty if nothing was selected: then all collections match, except those whose name starts
    /// with `_`.
    patterns: Vec<Pattern>,
    /// What is left out of these.
    excluded: Vec<Pattern>,
}

impl Pattern {
    /// Parses a pattern. An empty one is refused.
    pub fn new(text: &str) -> Result<Self, BadGlob> {
        if text.is_empty() {
            let reason = "it is empty".to_owned();
            return Err(BadGlob { pattern: String::new(), reason });
        }
        let mut pattern = Self { text: text.to_owned(), glob: None, broken: None };
        if text.contains(GLOB_CHARACTERS) {
            match compiled(text) {
                Ok(glob) => pattern.glob = Some(glob),
                Err(reason) => pattern.broken = Some(reason),
            }
        }
        Ok(pattern)
    }

    /// The pattern as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it can only be a name, because it has none of a glob's characters.
    pub fn is_exact(&self) -> bool {
        self.glob.is_none() && self.broken.is_none()
    }

    /// Whether it matches only one name. If that name does not exist, it was probably mistyped.
    pub fn is_a_name(&self) -> bool {
        self.glob.is_none()
    }

    /// Why it is not a glob, if it was perhaps intended as one.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Whether it equals this name, or is a glob that matches it.
    pub fn matches(&self, name: &str) -> bool {
        self.text == name || self.glob.as_ref().is_some_and(|glob| glob.is_match(name))
    }

    /// A message that it matches none of these names.
    pub fn no_match(&self, names: &[CollectionName]) -> String {
        /// The most names in the message: a mirror may hold thousands.
        const NAMED: usize = 20;
        let text = &self.text;
        let what = match (&self.broken, &self.glob) {
            (Some(reason), _) => format!("is named `{text}`, and it is not a glob: {reason}"),
            (None, None) => format!("is named `{text}`"),
            (None, Some(_)) => format!("matches `{text}`"),
        };
        let there = names.iter().take(NAMED).map(|name| name.to_string());
        let mut there = there.collect::<Vec<_>>().join(", ");
        if names.len() > NAMED {
            there.push_str(&format!(" and {} more", names.len() - NAMED));
        }
        match names.is_empty() {
            true => format!("no collection {what}: the mirror holds none"),
            false => format!("no collection {what}; the mirror holds: {there}"),
        }
    }

    /// The same pattern, known to be a name: it matches nothing else.
    pub fn as_name(self) -> Self {
        Self { glob: None, broken: None, ..self }
    }
}

impl Selection {
    /// The collections that match at least one of these patterns. Without patterns: all, except
    /// those whose name starts with `_`.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, BadGlob> {
        Ok(Self { patterns: read(patterns)?, excluded: Vec::new() })
    }

    /// One collection, whatever characters its name has.
    pub fn of(name: &CollectionName) -> Self {
        let pattern = Pattern { text: name.to_string(), glob: None, broken: None };
        Self { patterns: vec![pattern], excluded: Vec::new() }
    }

    /// The same without the collections that match one of these patterns.
    pub fn without<S: AsRef<str>>(self, patterns: &[S]) -> Result<Self, BadGlob> {
        Ok(Self { excluded: read(patterns)?, ..self })
    }

    /// The only names that it can select, if none of its patterns may be a glob: then no listing is
    /// needed.
    pub fn exact(&self) -> Option<Vec<CollectionName>> {
        let is_exact = !self.patterns.is_empty() && self.patterns.iter().all(Pattern::is_exact);
        let names = self.patterns.iter().map(|pattern| CollectionName::from(pattern.text.as_str()));
        is_exact.then(|| names.filter(|name| self.wants(name)).collect())
    }

    /// Whether each name can be decided alone, without knowing the others.
    pub fn is_simple(&self) -> bool {
        self.patterns.iter().chain(&self.excluded).all(Pattern::is_a_name)
    }

    /// Whether a collection of this name is selected, as far as that is known without the others.
    pub fn wants(&self, name: &CollectionName) -> bool {
        let any =
            |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name.as_str()));
        let is_selected = match self.patterns.is_empty() {
            true => !name.as_str().starts_with('_'),
            false => any(&self.patterns),
        };
        is_selected && !any(&self.excluded)
    }

    /// The selection among these names: a pattern that equals one of them is that name and not a
    /// glob.
    pub fn among(&self, names: &[CollectionName]) -> Self {
        let among = |pattern: &Pattern| match names.iter().any(|name| name.as_str() == pattern.text)
        {
            true => pattern.clone().as_name(),
            false => pattern.clone(),
        };
        Self {
            patterns: self.patterns.iter().map(among).collect(),
            excluded: self.excluded.iter().map(among).collect(),
        }
    }

    /// The patterns that match none of these names.
    pub fn unmatched(&self, names: &[CollectionName]) -> Vec<Pattern> {
        let matches = |pattern: &&Pattern| !names.iter().any(|name| pattern.matches(name.as_str()));
        self.patterns.iter().filter(matches).cloned().collect()
    }

    /// The selection among these names. Fails with a message if a pattern matches none of them,
    /// unless that is allowed.
    pub fn resolved(&self, names: &[CollectionName], allow_empty: bool) -> Result<Self, String> {
        match self.unmatched(names).first() {
            Some(pattern) if !allow_empty => Err(pattern.no_match(names)),
            _ => Ok(self.among(names)),
        }
    }
}

/// A glob, or why the text is not a glob. Nothing in the text makes this panic or exhaust the stack.
fn compiled(text: &str) -> Result<GlobMatcher, String> {
    if text.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    if text.matches('{').count() > MOST_BRACES {
        return Err(format!("it has more than {MOST_BRACES} `{{`"));
    }
    let reason = |error: globset::Error| error.kind().to_string();
    let glob = Glob::new(text).map_err(reason)?;
    // A set says what cannot be compiled, where a matcher panics.
    GlobSetBuilder::new().add(glob.clone()).build().map_err(reason)?;
    Ok(glob.compile_matcher())
}

fn read<S: AsRef<str>>(patterns: &[S]) -> Result<Vec<Pattern>, BadGlob> {
    joined(patterns).into_iter().map(|pattern| Pattern::new(&pattern)).collect()
}

/// The patterns. Parts that were split at a comma within braces are joined again: `{a` and `b}` are
/// the glob `{a,b}`.
fn joined<S: AsRef<str>>(pieces: &[S]) -> Vec<String> {
    let depth = |piece: &str| piece.matches('{').count() as i64 - piece.matches('}').count() as i64;
    let mut patterns: Vec<String> = Vec::new();
    let mut pieces = pieces.iter().map(AsRef::as_ref).collect::<VecDeque<&str>>();
    while let Some(first) = pieces.pop_front() {
        let mut open = depth(first);
        let mut closing = None;
        for (at, piece) in pieces.iter().enumerate().take(if open > 0 { usize::MAX } else { 0 }) {
            open += depth(piece);
            if open == 0 {
                closing = Some(at);
                break;
            }
        }
        let mut pattern = first.to_owned();
        for piece in pieces.drain(..closing.map_or(0, |last| last + 1)) {
            pattern.push(',');
            pattern.push_str(piece);
        }
        patterns.push(pattern);
    }
    patterns
}

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a name or a glob: {reason}")]
pub struct BadGlob {
    pattern: String,
    reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(patterns: &[&str], names: &[&str]) -> Vec<String> {
        let names: Vec<CollectionName> = names.iter().map(|name| (*name).into()).collect();
        let selection = Selection::new(patterns).unwrap().among(&names);
        names.iter().filter(|name| selection.wants(name)).map(ToString::to_string).collect()
    }

    fn unmatched(patterns: &[&str], names: &[&str]) -> Vec<(String, bool)> {
        let names: Vec<CollectionName> = names.iter().map(|name| (*name).into()).collect();
        let unmatched = Selection::new(patterns).unwrap().unmatched(&names).into_iter();
        unmatched.map(|one| (one.text().to_owned(), one.is_a_name())).collect()
    }

    #[test]
    fn without_a_pattern_everything_but_the_servers_own_collections_is_wanted() {
        let selection = Selection::default();
        assert!(selection.wants(&"books".into()));
        assert!(!selection.wants(&"_users".into()));
        assert!(selection.unmatched(&[]).is_empty() && selection.exact().is_none());
    }

    #[test]
    fn a_pattern_selects_what_it_names_even_the_servers_own() {
        let names = ["books", "_users", "members"];
        assert_eq!(wanted(&["b*", "_users"], &names), ["books", "_users"]);
    }

    #[test]
    fn a_name_that_exists_is_never_taken_for_a_glob() {
        let names = ["user[1]", "user1", "{4f3e}", "4f3e", "user[1", "a*b", "aab"];
        for name in ["user[1]", "{4f3e}", "user[1", "a*b"] {
            assert_eq!(wanted(&[name], &names), [name]);
        }
        assert_eq!(wanted(&["user[1]"], &["user1", "user2"]), ["user1"], "else it is a glob");
    }

    #[test]
    fn each_pattern_that_matches_nothing_is_known_by_itself() {
        let names = ["books", "user[1"];
        let patterns = ["b*", "boks", "l*", "user[1", "user[2"];
        let mistakes = [("boks", true), ("l*", false), ("user[2", true)];
        assert_eq!(unmatched(&patterns, &names), mistakes.map(|(one, is)| (one.to_owned(), is)));
        assert!(Pattern::new("user[2").unwrap().broken().is_some());
    }

    #[test]
    fn a_comma_within_braces_separates_no_patterns() {
        let names = ["books", "loans", "members", "{a", "x"];
        assert_eq!(wanted(&["{books", "loa*}", "x"], &names), ["books", "loans", "x"]);
        assert_eq!(wanted(&["{a", "x"], &names), ["{a", "x"]);
        assert_eq!(joined(&["{a", "{b", "c}}", "d"]), ["{a,{b,c}}", "d"]);
    }

    #[test]
    fn names_alone_need_no_listing() {
        let exact = |patterns: &[&str]| Selection::new(patterns).unwrap().exact();
        assert_eq!(exact(&["books", "loans"]), Some(vec!["books".into(), "loans".into()]));
        assert_eq!(exact(&["books", "l*"]), None);
        assert_eq!(exact(&["user[1"]), None, "it may be meant as a glob");
    }

    #[test]
    fn what_is_left_out_is_not_selected_and_need_not_exist() {
        let left_out = |patterns: &[&str], excluded: &[&str], names: &[&str]| {
            let names: Vec<CollectionName> = names.iter().map(|name| (*name).into()).collect();
            let selection = Selection::new(patterns).unwrap().without(excluded).unwrap();
            assert!(selection.unmatched(&names).is_empty());
            let selection = selection.among(&names);
            names.into_iter().filter(|name| selection.wants(name)).collect::<Vec<_>>()
        };
        let names = ["_users", "books", "loans-1", "loans-2", "user[1]", "user1"];
        let loans = ["loans-*", "gone"];
        assert_eq!(left_out(&[], &loans, &names), ["books", "user[1]", "user1"].map(Into::into));
        assert_eq!(left_out(&["loans-*"], &["loans-2"], &names), ["loans-1".into()]);
        assert_eq!(left_out(&["user*"], &["user[1]"], &names), ["user1".into()], "a name");
        let selection = Selection::new(&["books", "loans-1"]).unwrap();
        let exact = |excluded| selection.clone().without(&[excluded]).unwrap().exact();
        assert_eq!(exact("books"), Some(vec!["loans-1".into()]));
        assert_eq!(exact("b*"), Some(vec!["loans-1".into()]), "this needs no listing either");
    }

    #[test]
    fn a_glob_that_is_too_long_or_too_deep_is_broken_and_its_text_is_still_a_name() {
        let nested = |levels: usize| format!("{}a*{}", "{".repeat(levels), "}".repeat(levels));
        let letters = vec!["abc"; 400].join(",");
        let bad = [nested(17), nested(3_000), nested(20_000), format!("{{{letters}}}")];
        for text in bad {
            let pattern = Pattern::new(&text).unwrap();
            assert!(pattern.broken().is_some_and(|reason| reason.starts_with("it ")), "{text}");
            assert!(pattern.matches(&text) && !pattern.matches("ab"));
            assert_eq!(wanted(&[&text], &[&text, "ab"]), [text]);
        }
        let good = [nested(16), format!("{{{}}}", vec!["ab"; 300].join(",")), "?".repeat(1_024)];
        for text in &good {
            assert_eq!(Pattern::new(text).unwrap().broken(), None, "{text}");
        }
        assert!(Pattern::new(&good[0]).unwrap().matches("ab"));
        assert!(Pattern::new(&good[1]).unwrap().matches("ab"));
        let long_name = "a".repeat(2_000);
        assert!(Pattern::new(&long_name).unwrap().is_exact(), "without a glob's characters");
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        let error = Selection::new(&["books", ""]).unwrap_err().to_string();
        assert!(error.contains("it is empty"), "{error}");
    }
}
