//! The npm package that exposes an RxDB to Plainfold: its own tests, with this binary.

use std::fs::File;
use std::process::Command;

use crate::env::pouchdb::PouchServer;
use crate::env::root;

/// Runs npm in the package's folder, which must end well.
fn npm(arguments: &[&str]) -> String {
    let mut npm = Command::new("npm");
    npm.current_dir(root().join("clients/rxdb")).args(arguments);
    let output = npm.env("PLAINFOLD", env!("CARGO_BIN_EXE_plainfold")).output().expect("npm runs");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "npm {arguments:?}:\n{stdout}{stderr}");
    stdout
}

#[test]
fn the_rxdb_package_passes_its_tests() {
    // The bench, too, installs into this folder.
    let lock = File::open(root().join("clients/rxdb/package.json")).unwrap();
    lock.lock().unwrap();
    npm(&["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    npm(&["run", "types"]);
    // Installed by its first start: they send a mirror through it too.
    drop(PouchServer::start());
    let said = npm(&["test"]);
    assert!(said.contains("\n# skipped 0"), "{said}");
    // A run that found no tests would end well too.
    assert!(said.contains("a mirror is restored with revisions and attachments"), "{said}");
}
