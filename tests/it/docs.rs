//! What the documentation says is what the program does, as far as a test can tell: options, exit
//! codes, links, the example, the tree that a page shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::env::{Place, files, library, plainfold, root};

/// The commands that the pages describe.
pub const COMMANDS: [&str; 19] = [
    "mirror",
    "restore",
    "verify",
    "diff",
    "tail",
    "status",
    "release",
    "pause",
    "resume",
    "catch-up",
    "rescan",
    "path",
    "id",
    "run",
    "mirrors",
    "config",
    "token",
    "completions",
    "man",
];

/// The commands below `config` and `token`.
pub const CONFIG: [&str; 6] =
    ["config init", "config check", "config show", "token add", "token list", "token remove"];

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn help(arguments: &[&str]) -> String {
    let words = arguments.iter().flat_map(|words| words.split(' '));
    plainfold::run(words.chain(["--help"])).assert_code(0).stdout
}

/// What stands under a heading of the second level, up to the next one.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n## {heading}")).unwrap_or_else(|| panic!("no {heading}"));
    let section = &text[start + 1..];
    &section[..section.find("\n## ").unwrap_or(section.len())]
}

/// The cells of a text's tables, row by row.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// The options that a line begins with: `-h, --help` has one.
fn options(line: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
    let words = line.split(move |c| !is_name(c)).filter(|word| word.starts_with("--"));
    words.filter(|word| word.chars().any(|c| c != '-'))
}

/// The options that `--help` lists.
fn offered(command: &[&str]) -> BTreeSet<String> {
    let help = help(command);
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines.filter_map(|line| options(line).next()).map(str::to_owned).collect()
}

/// The options in the first cells of a section's tables.
fn documented(page: &str, heading: &str) -> BTreeSet<String> {
    let first = rows(section(page, heading)).map(|row| row[0]);
    first.flat_map(options).map(str::to_owned).collect()
}

#[test]
fn every_option_is_documented_and_every_documented_option_exists() {
    let page = read("docs/configuration.md");
    let global = documented(&page, "With every command");
    assert_eq!(offered(&[]), global, "plainfold --help");
    for command in COMMANDS.into_iter().chain(CONFIG) {
        let mut expected = documented(&page, &format!("plainfold {command}"));
        assert!(!expected.is_empty(), "{command}");
        expected.extend(global.iter().cloned());
        assert_eq!(offered(&[command]), expected, "plainfold {command} --help");
    }
}

#[test]
fn every_command_is_documented() {
    let help = help(&[]);
    let commands = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names.filter(|name| *name != "help").collect();
    assert_eq!(names, COMMANDS);
}

#[test]
fn every_variable_that_help_names_is_documented() {
    let page = read("docs/configuration.md");
    let help: String = COMMANDS.iter().chain(&CONFIG).map(|command| help(&[command])).collect();
    let words = help.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
    let variables: BTreeSet<_> = words.filter(|word| word.starts_with("PLAINFOLD_")).collect();
    assert!(variables.len() >= 2, "{variables:?}");
    for variable in variables {
        assert!(page.contains(&format!("`{variable}`")), "{variable}");
    }
}

#[test]
fn the_documented_exit_codes_are_those_of_help() {
    let page = read("docs/configuration.md");
    let table: BTreeMap<u8, String> = rows(section(&page, "Exit codes"))
        .filter_map(|row| Some((row[0].parse().ok()?, row[1].to_owned())))
        .collect();
    // A line that has no code belongs to the one before.
    let help = help(&[]).replace("\n       ", " ");
    let codes = help.split_once("Exit codes:\n").unwrap().1.split("\n\n").next().unwrap();
    let listed: BTreeMap<u8, String> = codes
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(code, meaning)| (code.parse().unwrap(), meaning.trim().to_owned()))
        .collect();
    assert!(listed.len() >= 7, "{listed:?}");
    assert_eq!(table, listed);
}

/// All pages below a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    files(folder, &["md"])
}

/// A page without its blocks of code.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    };
    text.lines().filter(outside).collect::<Vec<_>>().join("\n")
}

/// The targets of a page's links.
fn links(text: &str) -> Vec<String> {
    let ends = prose(text);
    let targets = ends.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// What the headings of a page are called in links.
fn anchors(text: &str) -> BTreeSet<String> {
    let page = prose(text);
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|title| title.chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let found = pages(root());
    assert!(found.len() >= 6, "{found:?}");
    let mut checked = 0;
    for page in found {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{} links to {link}", page.display());
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&target).unwrap());
                assert!(anchors.contains(anchor), "{} links to {link}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked >= 20, "only {checked} links were found");
}

/// Phrases that are no plain technical English.
pub const REFUSED: [&str; 16] = [
    "put back",
    "tells of",
    "told of",
    "so many",
    "so often",
    "is none",
    "are none",
    "in hand",
    "anew",
    "goes on",
    "whoever",
    "who may do what",
    "be had",
    "is had",
    "comes to it",
    "stands beside",
];

#[test]
fn pages_and_help_are_in_plain_words() {
    let mut texts: Vec<(String, String)> = Vec::new();
    for page in pages(root()) {
        texts.push((page.display().to_string(), fs::read_to_string(&page).unwrap()));
    }
    texts.push(("--help".to_owned(), help(&[])));
    texts.extend(
        COMMANDS.into_iter().chain(CONFIG).map(|command| (command.to_owned(), help(&[command]))),
    );
    for (place, text) in texts {
        let words = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        let bare = |part: &str| {
            part.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect::<String>()
        };
        let words = format!(" {} ", bare(&words));
        for phrase in REFUSED {
            assert!(!words.contains(&format!(" {phrase} ")), "{place}: {phrase}");
        }
    }
}

#[test]
fn the_tree_and_the_document_that_a_page_shows_are_those_of_the_fixture() {
    let place = Place::new();
    let feed = format!("feed:{}", library().display());
    plainfold::mirror(&feed, &place.mirror()).assert_code(0);
    let page = read("docs/mirror.md");
    let shown: Vec<_> = page.lines().filter(|line| line.starts_with("mirror/")).collect();
    assert!(shown.len() >= 5, "{shown:?}");
    for path in &shown {
        assert!(place.join(path).is_file(), "{path}");
    }
    let body = page.lines().find(|line| line.starts_with("{\"_id\"")).unwrap();
    let holds =
        |path: &&&str| fs::read(place.join(path)).unwrap() == format!("{body}\n").as_bytes();
    assert_eq!(shown.iter().filter(holds).count(), 1, "{body}");
}

#[test]
fn readme_is_short_and_names_the_stores_the_two_commands_rust_and_the_licences() {
    let (readme, manifest) = (read("README.md"), read("Cargo.toml"));
    let lines = readme.lines().count();
    assert!(lines <= 150, "{lines} lines");
    let first = readme.split("\n\n").nth(2).unwrap().split('.').next().unwrap();
    for store in ["CouchDB", "PouchDB", "RxDB"] {
        assert!(first.contains(store), "the first sentence names {store}: {first}");
    }
    for command in
        ["cargo run --release -- mirror feed:fixtures/library.ndjson ./mirror", "cargo test"]
    {
        assert!(readme.lines().any(|line| line == command), "{command}");
    }
    let value = |key: &str| {
        let line = manifest.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        line.and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("no {key}"))
    };
    let rust = value("rust-version");
    for page in ["README.md", "CONTRIBUTING.md"] {
        assert!(read(page).contains(&format!("Rust {rust} or newer")), "{page}: Rust {rust}");
    }
    assert!(readme.contains(&format!("badge/rust-{rust}%2B-")), "the badge says Rust {rust}");
    for licence in value("license").split(" OR ") {
        assert!(readme.contains(&licence.replace('-', "--")), "the badge says {licence}");
    }
}

#[test]
fn the_recorded_session_is_what_its_commands_print() {
    let folder = root().join("docs/session");
    let mut check = Command::new("python3");
    check.arg(folder.join("record.py")).args([env!("CARGO_BIN_EXE_plainfold"), "--check"]);
    let output = check.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::metadata(folder.join("session.svg")).unwrap().len() < 100_000);
    assert!(read("README.md").contains("(docs/session/session.svg)"));
}

#[test]
fn every_guarantee_in_readme_names_a_test() {
    let readme = read("README.md");
    let guarantees = rows(section(&readme, "Guarantees")).skip(2);
    let tested = |row: Vec<&str>| assert!(row[1].contains("(tests/it/"), "{row:?}");
    assert!(guarantees.map(tested).count() >= 8);
}

#[test]
fn the_index_names_every_page() {
    let index = links(&read("docs/README.md"));
    for page in pages(&root().join("docs")) {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(name == "README.md" || index.iter().any(|link| link == name), "{name}");
    }
}

#[test]
fn the_example_mirrors_the_library() {
    let place = Place::new();
    let example = Path::new(env!("CARGO_BIN_EXE_plainfold")).with_file_name("examples/follow");
    let feed = format!("feed:{}", library().display());
    assert!(example.exists(), "`cargo test` builds it; with `--test it`, `cargo build --examples`");
    let output = Command::new(example).arg(feed).arg(place.mirror()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("wrote members/about:library"), "{told}");
    assert!(told.trim_end().ends_with(" 0 failures"), "{told}");
    assert!(place.mirror().join("members/about%3Alibrary/document.json").is_file());
}

/// The words that stand in backticks in a page's prose.
fn quoted(text: &str) -> Vec<String> {
    let prose = prose(text);
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rust_text(folder: &str) -> String {
    let read = |file: &PathBuf| fs::read_to_string(file).unwrap();
    files(&root().join(folder), &["rs"]).iter().map(read).collect()
}

#[test]
fn the_files_and_tests_that_the_architecture_names_exist() {
    let code = rust_text("src") + &rust_text("tests");
    let (mut files, mut tests) = (0, 0);
    let pages = read("docs/architecture.md") + &read("docs/mechanisms.md");
    for word in quoted(&pages) {
        if word.ends_with(".rs") {
            // `fetch.rs` stands beside the file that is named before it.
            let below = ["", "src", "src/pipeline", "src/source/couchdb"];
            assert!(below.iter().any(|folder| root().join(folder).join(&word).is_file()), "{word}");
            files += 1;
        } else if word.matches('_').count() >= 3
            && word.chars().all(|c| c == '_' || c.is_ascii_lowercase())
        {
            assert!(code.contains(&format!("fn {word}(")), "{word}");
            tests += 1;
        }
    }
    assert!(files >= 20 && tests >= 5, "{files} files, {tests} tests");
}
