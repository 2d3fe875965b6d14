//! Refuses phrases that have to be read twice, in messages, help texts, doc comments and comments.
//! `docs.rs` checks the pages for its part of the list.

use std::fs;
use std::path::{Path, PathBuf};

use crate::docs::REFUSED;
use crate::env::{files, root};

/// Further phrases that are refused in the source.
const QUAINT: [&str; 23] = [
    "tell of",
    "what stands beside",
    "none of its own",
    "for good",
    "lets go",
    "lets it go",
    "let go",
    "was come to",
    "as they like",
    "of old",
    "of late",
    "all the same",
    "for ever",
    "so long",
    "so much",
    "so large",
    "said no",
    "without a word",
    "over and over",
    "whom",
    "a fault of ours",
    "a fault of its own",
    "in good order",
];

/// The files and folders that are searched, below the root of the repository.
const PLACES: [&str; 9] = [
    "src",
    "tests",
    "benches",
    "fuzz",
    "clients/rxdb",
    "systemd",
    ".ci/run",
    "Cargo.toml",
    "examples",
];

/// Folders of test data.
const SKIPPED: [&str; 2] = ["corpus", "fixtures"];

/// The extensions of files that are searched.
const EXTENSIONS: [&str; 10] =
    ["rs", "py", "js", "mjs", "ts", "toml", "service", "socket", "timer", "sysusers"];

/// The files that contain the lists.
const LISTS: [&str; 2] = ["tests/it/words.rs", "tests/it/docs.rs"];

/// The files of a place that are searched.
fn searched(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let is_left_out = |path: &PathBuf| {
        let below = path.strip_prefix(place).unwrap();
        let has = |name: &&str| below.iter().any(|part| part == *name);
        SKIPPED.iter().any(has) || LISTS.iter().any(|list| path.ends_with(list))
    };
    let mut found = files(place, &EXTENSIONS);
    found.retain(|path| !is_left_out(path));
    found
}

/// The words of a text with their line numbers. Comment markers and the backslash that continues a
/// string are not words, and a name such as `put_back` is one word. An empty word ends a clause.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for raw in line.split_whitespace() {
            let word = raw.trim_matches(|c: char| c.is_ascii_punctuation() && !"`_".contains(c));
            if word.is_empty() {
                continue;
            }
            words.push((at + 1, word));
            if raw.ends_with(['.', ':', ';', '?', '!']) {
                words.push((at + 1, ""));
            }
        }
    }
    words
}

/// The line numbers of a phrase in a text. `None` in code is not the word "none".
fn places(words: &[(usize, &str)], phrase: &str) -> Vec<usize> {
    let phrase: Vec<_> = phrase.split(' ').collect();
    let first = |word: &str| {
        let rest =
            word.strip_prefix(|c: char| c.eq_ignore_ascii_case(&phrase[0].chars().next().unwrap()));
        rest == Some(&phrase[0][1..])
    };
    let windows = words.windows(phrase.len());
    let same = windows.filter(|window| {
        let others = window[1..].iter().map(|(_, word)| *word);
        first(window[0].1) && others.eq(phrase[1..].iter().copied())
    });
    same.map(|window| window[0].0).collect()
}

#[test]
fn the_source_is_in_plain_words() {
    let found: Vec<_> = PLACES.iter().flat_map(|place| searched(&root().join(place))).collect();
    assert!(found.len() > 250, "only {} files were found", found.len());
    let mut refused = Vec::new();
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().display();
        let words = words(&text);
        for phrase in REFUSED.iter().chain(&QUAINT) {
            let places = places(&words, phrase);
            refused.extend(places.iter().map(|line| format!("{path}:{line}: {phrase}")));
        }
    }
    refused.sort();
    assert!(refused.is_empty(), "phrases that are not plain English:\n{}", refused.join("\n"));
}

#[test]
fn a_phrase_is_found_across_lines_and_not_in_names_or_code() {
    let text = "/// It tells\n/// of `put_back`.\nlet x = \"So many, and so \\\n  often\"; if y is None {}\n// Where no digest can tell: of gzip.";
    let words = words(text);
    assert_eq!(places(&words, "tells of"), [1]);
    assert_eq!(places(&words, "so many"), [3]);
    assert_eq!(places(&words, "so often"), [3]);
    assert_eq!(places(&words, "is none"), [0; 0]);
    assert_eq!(places(&words, "put back"), [0; 0]);
    assert_eq!(places(&words, "tell of"), [0; 0]);
}
