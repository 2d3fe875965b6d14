//! Imports point down only, along the layers of `docs/architecture.md`; checked by reading the
//! source.

use std::path::PathBuf;

use crate::env::{files, root};

/// Each module, and the modules that it may import.
const MAY_IMPORT: [(&str, &[&str]); 19] = [
    ("trial", &[]),
    ("place", &[]),
    ("clock", &["place"]),
    ("json", &[]),
    ("document", &["json"]),
    ("client", &["document", "json"]),
    ("event", &["document"]),
    ("source", &["json", "document", "client"]),
    ("tree", &["trial", "place", "json", "document", "archive"]),
    ("archive", &["json", "document", "tree", "mirror"]),
    ("mirror", &["trial", "place", "clock", "json", "document", "tree", "archive"]),
    ("checkpoint", &["trial", "place", "clock", "document"]),
    ("pipeline", &["trial", "document", "event", "source", "tree", "mirror", "checkpoint"]),
    ("verify", &["document", "source", "tree", "archive", "mirror"]),
    ("restore", &["json", "document", "client", "tree", "archive", "mirror"]),
    ("runner", &["document", "event", "source", "tree", "mirror", "checkpoint", "pipeline"]),
    ("config", &["document", "client", "source", "tree", "mirror", "checkpoint", "runner"]),
    ("api", &["document", "tree", "mirror", "checkpoint", "runner"]),
    (
        "cli",
        &[
            "document",
            "client",
            "tree",
            "archive",
            "mirror",
            "checkpoint",
            "pipeline",
            "source",
            "verify",
            "restore",
            "runner",
            "config",
            "api",
        ],
    ),
];

fn rust_files(folder: &str) -> Vec<PathBuf> {
    files(&root().join(folder), &["rs"])
}

/// The modules that a line names by `crate::`.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_point_down_only() {
    let source = root().join("src");
    let (mut checked, mut wrong) = (0, Vec::new());
    for file in rust_files("src") {
        let below = file.strip_prefix(&source).unwrap();
        let module = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("`{module}` has no place among the layers"));
        for (number, line) in std::fs::read_to_string(&file).unwrap().lines().enumerate() {
            for import in named(line) {
                checked += 1;
                if import != module && !allowed.contains(&import) {
                    wrong.push(format!("{}:{}: {import}", below.display(), number + 1));
                }
            }
        }
    }
    assert!(checked > 100, "only {checked} imports were found");
    assert!(wrong.is_empty(), "imports that point up:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|file| !std::fs::read_to_string(file).unwrap().starts_with("//! "))
        .collect();
    assert!(silent.is_empty(), "files without a `//!` line: {silent:?}");
}
