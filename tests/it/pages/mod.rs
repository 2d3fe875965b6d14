//! Every command that a page prints in an `sh` block is run as it is printed, against a server that
//! wants credentials. A page is a session: its commands run in their order in one scene, and each must
//! end with exit code 0.
//!
//! A page or a block that needs nothing else needs no line here. [`plan`] has what pages need beforehand,
//! what must hold after a block, and other exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::env::http;
use crate::env::plainfold::Outcome;
use crate::env::root;

mod blocks;
mod messages;
mod operations;
mod plan;
pub(crate) mod scene;

use blocks::{Block, blocks};
use scene::{Scene, has};

/// How the blocks of a page are run.
struct Page {
    /// Its path in the repository.
    file: &'static str,
    /// What is done before its first block.
    before: fn(&mut Scene),
    /// The blocks that need more than to be run.
    steps: &'static [Step],
}

/// What a block needs beforehand, and what holds afterwards.
#[derive(Clone, Copy)]
struct Step {
    /// A text that one of the block's commands holds, and no block before it that has a step.
    prints: &'static str,
    /// Whether the block is a procedure that begins with the scene of the page's beginning.
    fresh: bool,
    before: fn(&mut Scene),
    /// The exit code of each command; if the list is empty, each command ends with 0.
    codes: &'static [i32],
    after: fn(&Scene, &[Outcome]),
    /// Programs that not every machine has: without them the block is not run.
    tools: &'static [&'static str],
}

impl Step {
    const fn of(prints: &'static str) -> Self {
        Self { prints, fresh: false, before: |_| (), codes: &[], after: |_, _| (), tools: &[] }
    }

    const fn fresh(self) -> Self {
        Self { fresh: true, ..self }
    }

    const fn before(self, before: fn(&mut Scene)) -> Self {
        Self { before, ..self }
    }

    const fn codes(self, codes: &'static [i32]) -> Self {
        Self { codes, ..self }
    }

    const fn after(self, after: fn(&Scene, &[Outcome])) -> Self {
        Self { after, ..self }
    }

    const fn needs(self, tools: &'static [&'static str]) -> Self {
        Self { tools, ..self }
    }
}

/// A page that is not in the plan.
const PLAIN: Page = Page { file: "", before: |scene| scene.mirror_all(), steps: &[] };

/// How many pages are run at the same time.
const AT_ONCE: usize = 4;

/// The pages for users and for those who change the program. The READMEs of benches and of fuzzing
/// print measurements of minutes and hours.
fn pages() -> Vec<(String, Vec<Block>)> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["", "docs", "systemd", "clients/rxdb"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let pages = entries.map(|entry| entry.unwrap().path());
        files.extend(pages.filter(|file| file.extension().is_some_and(|end| end == "md")));
    }
    files.sort();
    let name = |file: &Path| file.strip_prefix(root()).unwrap().display().to_string();
    files.iter().map(|file| (name(file), blocks(&fs::read_to_string(file).unwrap()))).collect()
}

/// Whether a command is one of [`plan::NOT_HERE`].
fn is_not_here(command: &str) -> bool {
    plan::NOT_HERE.iter().any(|(begin, _)| command.starts_with(begin))
}

/// Runs the blocks of a page in their order.
fn run(file: &str, page: &Page, printed: &[Block]) {
    let mut steps: Vec<&Step> = page.steps.iter().collect();
    let mut scene = None;
    for block in printed {
        let at = steps.iter().position(|step| block.prints(step.prints));
        let step = at.map_or(Step::of(""), |at| *steps.remove(at));
        let commands: Vec<_> = block.commands.iter().filter(|one| !is_not_here(one)).collect();
        if commands.is_empty() {
            continue;
        }
        if let Some(tool) = step.tools.iter().find(|tool| !has(tool)) {
            eprintln!("NOT RUN, as {tool} is not installed: {commands:?}");
            continue;
        }
        if step.fresh {
            drop(scene.take());
        }
        let scene = scene.get_or_insert_with(|| {
            let mut scene = Scene::new();
            (page.before)(&mut scene);
            scene
        });
        (step.before)(scene);
        let place = format!("{file}, {}", block.heading);
        assert!(
            step.codes.is_empty() || step.codes.len() == commands.len(),
            "{place}: there is an exit code for each command"
        );
        let mut outcomes = Vec::new();
        for (number, command) in commands.iter().enumerate() {
            let code = step.codes.get(number).copied().unwrap_or(0);
            if let Some(outcome) = scene.run(command) {
                let ended = outcome.status.code() == Some(code);
                assert!(
                    ended,
                    "{place}:\n{command}\nends with another code than {code}: {outcome}"
                );
                outcomes.push(outcome);
            }
        }
        (step.after)(scene, &outcomes);
    }
    if let Some(mut scene) = scene {
        scene.end();
    }
    let left: Vec<_> = steps.iter().map(|step| step.prints).collect();
    assert!(left.is_empty(), "{file} does not print {left:?}");
}

#[test]
fn every_command_of_every_page_does_what_it_says() {
    let mut pages = pages();
    pages.retain(|(_, blocks)| !blocks.is_empty());
    let plain = |(file, _): &(String, Vec<Block>)| plan::PAGES.iter().all(|page| page.file != file);
    let others = pages.iter().filter(|page| plain(page)).count();
    assert_eq!(pages.len(), plan::PAGES.len() + others, "each page in the plan prints commands");
    // To run a single page while it is being written.
    let wanted = std::env::var("PLAINFOLD_TEST_PAGE").unwrap_or_default();
    pages.retain(|(file, _)| file.contains(&wanted));
    let (waiting, failed) = (Mutex::new(pages), Mutex::new(Vec::new()));
    let work = || {
        while let Some((file, blocks)) = { waiting.lock().unwrap().pop() } {
            let page = plan::PAGES.iter().find(|page| page.file == file).unwrap_or(&PLAIN);
            let ran = std::thread::scope(|scope| scope.spawn(|| run(&file, page, &blocks)).join());
            if ran.is_err() {
                failed.lock().unwrap().push(file);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "commands of {failed:?} do not do what their page says: see above");
}

#[test]
fn what_is_not_run_is_still_printed() {
    let pages = pages();
    let commands: Vec<_> =
        pages.iter().flat_map(|(_, blocks)| blocks).flat_map(|block| &block.commands).collect();
    for (begin, reason) in plan::NOT_HERE {
        let printed = commands.iter().any(|command| command.starts_with(begin));
        assert!(printed, "no page prints {begin}, which is not run: {reason}");
    }
}

#[test]
fn the_server_of_the_pages_answers_nobody_without_credentials() {
    let scene = Scene::new();
    for target in ["/", "/_all_dbs", "/books", "/books/_changes", "/books/_all_docs"] {
        let answer = http::request(scene.server.address(), "GET", target, &[], b"").unwrap();
        assert_eq!(answer.status, 401, "{target}");
    }
    let url = format!("http://{}/books", scene.server.address());
    crate::env::plainfold::mirror(&url, &scene.mirror()).assert_code(4);
}
