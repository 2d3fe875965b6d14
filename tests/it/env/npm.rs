//! Packages of npm that tests need.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder below `target/` in which these packages are installed. The first process that needs them
/// installs them; others wait.
pub fn installed(folder: &str, options: &[&str], packages: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = target.join(folder);
    let complete = folder.join("complete");
    if complete.exists() {
        return folder;
    }
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    if !complete.exists() {
        let mut npm = Command::new("npm");
        npm.current_dir(&folder).args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]);
        npm.args(options).args(["--prefix", "."]).args(packages);
        let output = npm.output().expect("npm runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "npm cannot install {packages:?}: {said}");
        fs::write(&complete, packages.join("\n")).unwrap();
    }
    folder
}
