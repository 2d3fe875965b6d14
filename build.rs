//! Tells the program which commit it is built from: `PLAINFOLD_VERSION` is `0.1.0 (abc1234 2026-11-26)`.
//!
//! A package has no repository, but cargo notes the commit in it. If neither says anything, the version
//! stands alone.

use std::path::Path;
use std::process::Command;

/// Digits of a commit that are shown.
const DIGITS: usize = 7;

/// Where cargo notes the commit of a package.
const NOTE: &str = ".cargo_vcs_info.json";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let commit = if Path::new(NOTE).exists() { noted() } else { of_repository() };
    let version = env!("CARGO_PKG_VERSION");
    let version = match commit {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    };
    println!("cargo:rustc-env=PLAINFOLD_VERSION={version}");
}

/// The commit that cargo has noted: `{"git":{"sha1":"…"}}`.
fn noted() -> Option<String> {
    println!("cargo:rerun-if-changed={NOTE}");
    let note = std::fs::read_to_string(NOTE).ok()?;
    let after = note.split_once("\"sha1\"")?.1;
    let commit: String = after.split('"').nth(1)?.chars().take(DIGITS).collect();
    let is_commit = commit.len() == DIGITS && commit.chars().all(|c| c.is_ascii_hexdigit());
    is_commit.then_some(commit)
}

/// The commit and its date, if this folder is the top of a repository: a package that was unpacked
/// within somebody else's repository is not at its commit.
fn of_repository() -> Option<String> {
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    let head = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(head.as_deref());
    for file in files {
        // A file that does not exist would have cargo run this at each build.
        if let Some(path) = git(&["rev-parse", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let abbrev = format!("--abbrev={DIGITS}");
    let commit = ["show", "--no-patch", "--no-show-signature", &abbrev, "--format=%h %cs", "HEAD"];
    git(&commit).filter(|text| !text.is_empty())
}

/// What git prints, in one line. The repository may belong to another user, as in a container.
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*"]).args(arguments);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
