//! The layers of `docs/architecture.md` as data, checked by reading the source: what a module
//! imports, which words it does not know, circles between files, and names of types.

use std::collections::BTreeSet;

use self::house::HOUSE;
use crate::env::{files, root};

mod house;
mod tokens;

/// Each module with its level, and the modules that it may import. It may import only modules above
/// it in this list.
const MODULES: [(u8, &str, &[&str]); 22] = [
    (0, "trial", &[]),
    (0, "place", &[]),
    (0, "clock", &["place"]),
    (1, "json", &[]),
    (1, "document", &["json"]),
    (1, "client", &["json", "document"]),
    (2, "event", &["json", "document"]),
    (2, "source", &["json", "document", "client"]),
    (2, "tree", &["trial", "place", "clock", "json", "document"]),
    (2, "checkpoint", &["trial", "place", "clock", "document", "event"]),
    (3, "archive", &["place", "json", "document", "tree"]),
    (3, "mirror", &["trial", "place", "clock", "json", "document", "tree"]),
    (
        4,
        "pipeline",
        &["trial", "clock", "document", "event", "source", "tree", "checkpoint", "mirror"],
    ),
    (4, "restore", &["json", "document", "client", "tree", "archive"]),
    (4, "verify", &["document", "source", "tree", "archive"]),
    (5, "job", &["document"]),
    (
        5,
        "runner",
        &[
            "clock",
            "document",
            "event",
            "source",
            "tree",
            "checkpoint",
            "archive",
            "mirror",
            "pipeline",
            "verify",
            "job",
        ],
    ),
    (
        6,
        "config",
        &[
            "document",
            "client",
            "source",
            "tree",
            "checkpoint",
            "archive",
            "mirror",
            "restore",
            "runner",
        ],
    ),
    (
        6,
        "agent",
        &[
            "clock",
            "document",
            "client",
            "source",
            "tree",
            "checkpoint",
            "mirror",
            "pipeline",
            "runner",
            "config",
        ],
    ),
    (7, "web", &[]),
    (
        7,
        "api",
        &[
            "place",
            "document",
            "event",
            "source",
            "tree",
            "checkpoint",
            "archive",
            "mirror",
            "pipeline",
            "job",
            "runner",
            "config",
            "agent",
            "web",
        ],
    ),
    (
        8,
        "cli",
        &[
            "document",
            "client",
            "source",
            "tree",
            "checkpoint",
            "archive",
            "mirror",
            "pipeline",
            "restore",
            "verify",
            "job",
            "runner",
            "config",
            "agent",
            "api",
        ],
    ),
];

/// Words of code that only these modules may contain, or only this file of a module.
const WORDS: [(&str, &[&str]); 19] = [
    // The libraries of one layer each.
    ("sled", &["checkpoint"]),
    ("reqwest", &["client", "api::process"]),
    ("axum", &["api", "web"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
    ("ExitCode", &["cli"]),
    ("indicatif", &["cli"]),
    ("console", &["cli"]),
    ("rpassword", &["cli"]),
    ("tracing_subscriber", &["cli"]),
    ("zstd", &["source"]),
    // No I/O among values, and none that waits in a tree.
    (
        "tokio",
        &[
            "agent", "api", "cli", "client", "config", "event", "job", "pipeline", "restore",
            "runner", "source", "verify",
        ],
    ),
    (
        "fs",
        &[
            "agent::watch",
            "api",
            "archive",
            "checkpoint",
            "cli",
            "client",
            "clock",
            "config::file",
            "mirror",
            "place",
            "restore",
            "runner::drift::tree_watch",
            "source",
            "tree",
            "trial",
            "verify",
        ],
    ),
    // Which store it is.
    ("couchdb", &["client", "source", "restore", "config", "cli"]),
    ("CouchStore", &["source", "config"]),
    ("FeedStore", &["source", "config"]),
    // Names on disk.
    ("layout", &["tree", "archive", "mirror", "restore", "verify"]),
    // Where a feed has come to.
    ("Position", &["document", "source", "checkpoint", "pipeline", "verify"]),
    ("Subscription", &["runner", "api"]),
];

fn layer(module: &str) -> &str {
    module.split("::").next().unwrap()
}

#[test]
fn the_list_of_modules_is_in_the_order_of_levels() {
    for (at, (level, module, imports)) in MODULES.iter().enumerate() {
        for import in *imports {
            let below = MODULES[..at].iter().find(|(_, name, _)| name == import);
            let (other, ..) = below.unwrap_or_else(|| panic!("`{module}` imports `{import}`"));
            assert!(other <= level, "`{module}` of level {level} imports `{import}` of {other}");
        }
    }
}

#[test]
fn imports_point_down_only() {
    let (mut checked, mut upwards) = (0, BTreeSet::new());
    for (name, _) in HOUSE.modules() {
        let module = layer(name);
        let (.., allowed) = MODULES
            .iter()
            .find(|(_, one, _)| *one == module)
            .unwrap_or_else(|| panic!("`{module}` has no place among the layers"));
        for import in HOUSE.imports(name) {
            let import = layer(&import);
            checked += 1;
            if !import.is_empty() && import != module && !allowed.contains(&import) {
                upwards.insert((module.to_owned(), import.to_owned()));
            }
        }
    }
    assert!(checked > 300, "only {checked} imports were found");
    assert!(upwards.is_empty(), "imports that point up: {upwards:?}");
}

#[test]
fn no_module_says_a_word_of_another_layer() {
    let mut wrong = Vec::new();
    for (word, places) in WORDS {
        let mut said = false;
        for (name, module) in HOUSE.modules().filter(|(_, module)| module.words.contains(word)) {
            said = true;
            let is_in = |place: &&str| name == *place || name.starts_with(&format!("{place}::"));
            if !places.iter().any(is_in) {
                wrong.push(format!("{}: {word}", module.file));
            }
        }
        assert!(said, "nothing says `{word}`");
    }
    assert!(wrong.is_empty(), "words of other layers:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = HOUSE.circles();
    assert!(circles.is_empty(), "files that import each other: {circles:#?}");
}

#[test]
fn a_public_type_has_a_name_of_its_own_or_is_written_with_its_module() {
    let types = HOUSE.types();
    let mut uses = Vec::new();
    for (module, _) in HOUSE.modules() {
        for (name, at) in HOUSE.taken(module) {
            let has_namesake = types.get(name.as_str()).is_some_and(|places| places.len() > 1);
            if has_namesake && layer(module) != layer(&at) {
                uses.push(format!("{module} takes {at}::{name}"));
            }
        }
    }
    assert!(uses.is_empty(), "write these with their module:\n{}", uses.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(|folder| files(&root().join(folder), &["rs"]))
        .filter(|file| !std::fs::read_to_string(file).unwrap().starts_with("//! "))
        .collect();
    assert!(silent.is_empty(), "files without a `//!` line: {silent:?}");
}
