//! The messages that `docs/operations.md` explains are those that the program prints.

use std::fs;

use crate::env::{files, root};

/// The text of all sources, without comments, and with literals that continue over lines joined.
fn sources() -> String {
    let mut all = String::new();
    for file in files(&root().join("src"), &["rs"]) {
        let text = fs::read_to_string(file).unwrap();
        let mut joins = false;
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let line = if joins { line.trim_start() } else { line };
            joins = line.ends_with('\\');
            all += line.trim_end_matches('\\');
            all += if joins { "" } else { "\n" };
        }
    }
    all
}

/// What a table's first cell holds between backticks, one or two of them.
fn quoted(cell: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), cell);
    while let Some(start) = rest.find('`') {
        let fence = if rest[start..].starts_with("``") { "``" } else { "`" };
        let inner = &rest[start + fence.len()..];
        let end = inner.find(fence).unwrap_or_else(|| panic!("{cell} has an open quotation"));
        found.push(inner[..end].trim());
        rest = &inner[end + fence.len()..];
    }
    found
}

/// The parts of a message that do not change: `…`, `N` and numbers stand for others, and so does what is
/// in backticks. Short parts say nothing.
fn fixed(message: &str) -> impl Iterator<Item = String> {
    const SHORTEST: usize = 9;
    let outside = message.split('`').step_by(2);
    let changes = |word: &&str| {
        let bare = word.trim_end_matches('s');
        *word == "N"
            || *word == "M"
            || (!bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit()))
    };
    outside
        .flat_map(|part| part.split(['…', ':', ',', ';', '(', ')']))
        .flat_map(move |part| {
            let words: Vec<&str> = part.split_whitespace().collect();
            let parts: Vec<_> =
                words.split(|word| changes(word)).map(|one| one.join(" ")).collect();
            parts
        })
        .filter(|part| part.len() >= SHORTEST)
}

#[test]
fn every_message_that_the_operations_page_explains_is_one_of_the_program() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, rest) = page.split_once("\n## What each message means\n").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let sources = sources();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let messages: Vec<&str> = cells.flat_map(quoted).collect();
    assert!(messages.len() >= 30, "{messages:?}");
    let strange: Vec<_> = messages
        .iter()
        .flat_map(|message| fixed(message).map(move |part| (message, part)))
        .filter(|(_, part)| !sources.contains(part))
        .collect();
    assert!(strange.is_empty(), "the program does not print these parts of messages: {strange:#?}");
}
