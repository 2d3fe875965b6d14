//! Every procedure that `docs/operations.md` prints is run as it is printed. Only paths and hosts are
//! the test's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::env::plainfold::{self, Outcome};
use crate::env::pouchdb::PouchServer;
use crate::env::{Place, oracle, root};

/// A source with its mirror, as the page has them.
struct Scene {
    place: Place,
    server: PouchServer,
}

/// What is done before a block, what its commands end with, and what holds then.
struct Procedure {
    /// The heading that the block stands under.
    heading: &'static str,
    before: fn(&Scene),
    /// The exit code of each command, in order.
    codes: &'static [i32],
    after: fn(&Scene, &[Outcome]),
}

const PROCEDURES: &[Procedure] = &[
    Procedure {
        heading: "Monitoring",
        before: nothing,
        codes: &[0],
        // Nobody works on the mirror, which is what the answer is to say.
        after: |_, said| assert_eq!(said[0].stdout.trim(), "false", "{}", said[0]),
    },
    Procedure {
        heading: "Deletions are held back",
        before: lose_most,
        codes: &[1],
        after: |_, said| assert!(said[0].stdout.contains("book:070"), "{}", said[0]),
    },
    Procedure {
        heading: "Deletions are held back",
        before: lose_most,
        codes: &[0, 0],
        after: |scene, _| {
            assert_eq!((scene.held_back(), scene.at_the_source()), (0, BOOKS));
            scene.assert_mirrored();
        },
    },
    Procedure {
        heading: "Deletions are held back",
        before: lose_most,
        codes: &[0, 0],
        after: |scene, _| {
            assert_eq!((scene.held_back(), scene.at_the_source()), (0, BOOKS - LOST));
            scene.assert_mirrored();
        },
    },
    Procedure {
        heading: "Deletions that were wrong",
        before: lose_a_few,
        codes: &[0],
        after: |_, said| assert_eq!(said[0].stdout.lines().count(), 3, "{}", said[0]),
    },
    Procedure {
        heading: "Deletions that were wrong",
        before: lose_a_few,
        codes: &[0, 0],
        after: |scene, _| {
            assert_eq!(scene.at_the_source(), BOOKS);
            scene.assert_mirrored();
        },
    },
    Procedure {
        heading: "A lost or damaged state",
        before: nothing,
        codes: &[0, 0],
        after: |scene, _| scene.assert_mirrored(),
    },
    Procedure {
        heading: "A lost or damaged state",
        before: |scene| fs::write(scene.mirror().join(BODY), "{\"_id\":").unwrap(),
        codes: &[0],
        after: |scene, _| scene.assert_mirrored(),
    },
    Procedure {
        heading: "Moving a mirror",
        before: |scene| {
            fs::create_dir_all(scene.place.join("backup")).unwrap();
            fs::create_dir_all(scene.place.join("remote/mirror")).unwrap();
        },
        codes: &[0, 0],
        after: |scene, _| {
            for copy in ["backup/mirror", "remote/mirror"] {
                assert!(scene.place.join(copy).join(BODY).exists(), "{copy}");
            }
        },
    },
    Procedure {
        heading: "Moving a source",
        before: |scene| {
            let record = scene.mirror().join(".plainfold/collections/books.json");
            let text = fs::read_to_string(&record).unwrap();
            let host = scene.server.address().to_string();
            assert!(text.contains(&host), "{text}");
            fs::write(record, text.replace(&host, "old-host:5984")).unwrap();
        },
        codes: &[0],
        after: |scene, _| scene.assert_mirrored(),
    },
];

/// How many books there are, and how many of them are deleted at once.
const BOOKS: u64 = 100;
const LOST: u64 = 90;

/// One of them.
const BODY: &str = "books/book%3A001/document.json";

impl Scene {
    fn new() -> Self {
        let scene =
            Self { place: Place::new(), server: PouchServer::start_with_admin("admin", "secret") };
        fs::write(scene.place.join("password"), "secret\n").unwrap();
        scene.server.create_db("books");
        for number in 0..BOOKS {
            scene.server.put_doc("books", &format!("book:{number:03}"), &json!({"n": number}));
        }
        scene.mirror_now().assert_code(0);
        scene
    }

    fn mirror(&self) -> std::path::PathBuf {
        self.place.mirror()
    }

    fn url(&self) -> String {
        format!("{}/books", self.server.url())
    }

    fn mirror_now(&self) -> Outcome {
        let (url, mirror) = (self.url(), self.mirror());
        plainfold::run(["mirror", &url, mirror.to_str().unwrap(), "--trash", "30"])
    }

    fn delete(&self, count: u64) {
        for number in 0..count {
            self.server.delete_doc("books", &format!("book:{number:03}"));
        }
    }

    fn held_back(&self) -> u64 {
        plainfold::status(&self.mirror())["collections"][0]["held_back"].as_u64().unwrap()
    }

    fn at_the_source(&self) -> u64 {
        let info = self.server.request("GET", "/books", b"").assert_ok().json();
        info["doc_count"].as_u64().unwrap()
    }

    fn assert_mirrored(&self) {
        oracle::assert_equals_server(&self.url(), &self.mirror(), "books");
    }

    /// A command of the page, with this scene's paths and hosts.
    fn run(&self, printed: &str) -> Outcome {
        let path = |name: &str| self.place.join(name).display().to_string();
        let here = format!("admin@{}", self.server.address());
        let mut command = printed.to_owned();
        for (theirs, ours) in [
            ("backup:/srv/mirror", &path("remote/mirror")),
            ("/backup/mirror", &path("backup/mirror")),
            ("/srv/mirror", &path("mirror")),
            ("/etc/plainfold/password", &path("password")),
            ("admin@localhost:5984", &here),
            ("admin@new-host:5984", &here),
        ] {
            command = command.replace(theirs, ours);
        }
        let elsewhere = ["/srv/", "localhost", "-host", "/etc/", "backup:"];
        let left = elsewhere.iter().find(|part| command.contains(**part));
        assert!(left.is_none(), "{left:?} is left in {command}");
        let mut shell = Command::new("sh");
        shell.args(["-euc", &command]).current_dir(self.place.path());
        let binaries = Path::new(env!("CARGO_BIN_EXE_plainfold")).parent().unwrap().to_owned();
        let tools = self.stand_ins();
        let old = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{}:{}:{old}", binaries.display(), tools.display()));
        plainfold::run_command(shell)
    }

    /// A folder of programs for those that this machine lacks: `rsync` is a copy here.
    fn stand_ins(&self) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.place.join("tools");
        fs::create_dir_all(&folder).unwrap();
        if Command::new("rsync").arg("--version").output().is_err() {
            let script =
                "#!/bin/sh\nfor last; do from=${to:-}; to=$last; done\ncp -a \"$from.\" \"$to\"\n";
            let file = folder.join("rsync");
            fs::write(&file, script).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }
}

fn nothing(_: &Scene) {}

fn lose_most(scene: &Scene) {
    scene.delete(LOST);
    scene.mirror_now().assert_code(1);
    assert!(scene.held_back() > 0);
}

fn lose_a_few(scene: &Scene) {
    scene.delete(3);
    scene.mirror_now().assert_code(0);
}

/// The blocks of the page with the headings that they stand under. A command that ends with `|` or `\`
/// continues in the next line.
fn blocks(page: &str) -> Vec<(String, Vec<String>)> {
    let (mut heading, mut open) = (String::new(), false);
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.to_owned();
        } else if line == "```sh" {
            open = true;
            blocks.push((heading.clone(), Vec::new()));
        } else if line == "```" {
            open = false;
        } else if open && let Some((_, commands)) = blocks.last_mut() {
            match commands.last_mut() {
                Some(last) if last.ends_with(['|', '\\']) => {
                    last.push('\n');
                    last.push_str(line);
                }
                _ => commands.push(line.to_owned()),
            }
        }
    }
    blocks
}

#[test]
fn every_procedure_of_the_operations_page_does_what_it_says() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let blocks = blocks(&page);
    let printed: Vec<&str> = blocks.iter().map(|(heading, _)| heading.as_str()).collect();
    let tested: Vec<&str> = PROCEDURES.iter().map(|one| one.heading).collect();
    assert_eq!(printed, tested, "each block of the page has its place in this table");
    let run = |(procedure, (heading, commands)): (&Procedure, &(String, Vec<String>))| {
        assert_eq!(commands.len(), procedure.codes.len(), "{heading}: {commands:?}");
        let scene = Scene::new();
        (procedure.before)(&scene);
        let said: Vec<_> = commands
            .iter()
            .zip(procedure.codes)
            .map(|(command, code)| scene.run(command).assert_code(*code))
            .collect();
        (procedure.after)(&scene, &said);
    };
    PROCEDURES.iter().zip(&blocks).for_each(run);
}
