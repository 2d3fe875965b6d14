//! A real Chromium of the machine, steered by scripts through `playwright-core`, which is installed once into
//! `target/test-browser` together with `axe-core`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Command};

use super::npm;
use super::plainfold::{self, Outcome, Running, Stream};
use super::root;

/// What steers the browser, and what judges whether a page is accessible. Neither has dependencies.
const PACKAGES: [&str; 2] = ["playwright-core@1.65.1", "axe-core@4.14.1"];

/// The names of the program, as distributions call it.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A script of `tests/it/page` that steers a browser. It says `step: NAME` when the test has something to
/// do, and waits until that is done.
pub struct Script {
    running: Running,
    input: ChildStdin,
}

impl Script {
    /// Starts a script against the page at `url`. `None` on a machine without Chromium, which is said; where
    /// `CI` is set, that is an error.
    pub fn start(name: &str, url: &str, more: &[(&str, &str)]) -> Option<Self> {
        let Some(chromium) = chromium() else {
            assert!(std::env::var_os("CI").is_none(), "Chromium is not installed, and CI needs it");
            eprintln!("NOT RUN, as Chromium is not installed: tests/it/page/{name}");
            return None;
        };
        let mut command = Command::new("node");
        command.arg(root().join("tests/it/page").join(name));
        command.env("PAGE_URL", url).env("PAGE_CHROMIUM", chromium);
        command.env("PAGE_PACKAGES", installed().join("node_modules"));
        command.envs(more.iter().copied());
        let (running, input) = plainfold::spawn_with_input(command);
        Some(Self { running, input })
    }

    /// Waits until the script has come to a step, does `work`, and lets the script continue.
    #[track_caller]
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        let line = format!("step: {name}");
        self.running.wait_for_line(Stream::Stdout, |said| said == line);
        let done = work();
        self.input.write_all(b"done\n").unwrap();
        done
    }

    /// Waits for the end of the script, which must be a success.
    #[track_caller]
    pub fn end(self) -> Outcome {
        let outcome = self.running.wait().assert_code(0);
        assert!(outcome.stdout.contains("all is as it should be"), "{outcome}");
        outcome
    }
}

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let places = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|program| program.is_file())
}

/// The folder of the installed packages.
fn installed() -> PathBuf {
    npm::installed("test-browser/playwright-1.65.1", &["--save-exact"], &PACKAGES)
}
