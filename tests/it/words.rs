//! The words of the source: no message, help text, doc comment or comment has a phrase that a reader
//! would have to read twice. `docs.rs` holds the pages to the same list.

use std::fs;
use std::path::Path;

use crate::docs::REFUSED;
use crate::env::root;

/// Further phrases that are refused in the source.
const QUAINT: [&str; 24] = [
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
    "but for",
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

/// What is searched, below the root of the repository.
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

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 4] = ["target", "node_modules", "corpus", "fixtures"];

/// The endings of files that hold words of ours; a file without an ending does too.
const ENDINGS: [&str; 11] =
    ["", "rs", "py", "js", "mjs", "ts", "md", "toml", "service", "timer", "sysusers"];

/// The files that hold the list.
const LISTS: [&str; 2] = ["tests/it/words.rs", "tests/it/docs.rs"];

fn files(place: &Path, found: &mut Vec<String>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            let entry = entry.unwrap();
            if !FOREIGN.iter().any(|foreign| entry.file_name() == *foreign) {
                files(&entry.path(), found);
            }
        }
        return;
    }
    let ending = place.extension().map_or("", |ending| ending.to_str().unwrap());
    let path = place.strip_prefix(root()).unwrap().to_str().unwrap();
    if ENDINGS.contains(&ending) && !LISTS.contains(&path) {
        found.push(path.to_owned());
    }
}

/// The words of a text, each with the number of its line. Marks of comments and the backslash that
/// continues a string are not words, and a name such as `put_back` is one word.
fn words(text: &str) -> Vec<(usize, &str)> {
    let punctuation = |c: char| c.is_ascii_punctuation() && !matches!(c, '`' | '_');
    let lines = text.lines().enumerate();
    let words =
        lines.flat_map(|(at, line)| line.split_whitespace().map(move |word| (at + 1, word)));
    let words = words.map(|(at, word)| (at, word.trim_matches(punctuation)));
    words.filter(|(_, word)| !word.is_empty()).collect()
}

/// The places of a phrase in a text, as numbers of lines. `None` in code is not the word "none".
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
    let mut found = Vec::new();
    for place in PLACES {
        files(&root().join(place), &mut found);
    }
    assert!(found.len() > 250, "only {} files were found", found.len());
    let mut refused = Vec::new();
    for path in found {
        let text = fs::read_to_string(root().join(&path)).unwrap();
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
    let text = "/// It tells\n/// of `put_back`.\nlet x = \"So many, and so \\\n  often\"; if y is None {}";
    let words = words(text);
    assert_eq!(places(&words, "tells of"), [1]);
    assert_eq!(places(&words, "so many"), [3]);
    assert_eq!(places(&words, "so often"), [3]);
    assert_eq!(places(&words, "is none"), [0; 0]);
    assert_eq!(places(&words, "put back"), [0; 0]);
}
