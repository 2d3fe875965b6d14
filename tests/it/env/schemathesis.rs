//! Schemathesis, which makes requests from the description of an interface; installed once into
//! `target/test-servers`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "schemathesis==4.32.5";

/// The program; `None`, with a line that says so, if it cannot be installed. Where `CI` is set, that is a
/// failure.
pub fn installed() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = target.join("test-servers/schemathesis-4.32.5");
    let (complete, program) = (folder.join("complete"), folder.join("bin/schemathesis"));
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    if !complete.exists() {
        let steps: [(PathBuf, &[&str]); 2] = [
            ("python3".into(), &["-m", "venv", "."]),
            (folder.join("bin/pip"), &["install", "--quiet", "--retries", "1", PACKAGE]),
        ];
        for (step, arguments) in steps {
            let output = Command::new(&step).current_dir(&folder).args(arguments).output();
            let trouble = match output {
                Ok(output) if output.status.success() => continue,
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error.to_string(),
            };
            assert!(std::env::var_os("CI").is_none(), "{PACKAGE} cannot be installed: {trouble}");
            eprintln!("NOT RUN, as {PACKAGE} cannot be installed: {trouble}");
            return None;
        }
        fs::write(&complete, PACKAGE).unwrap();
    }
    Some(program)
}
