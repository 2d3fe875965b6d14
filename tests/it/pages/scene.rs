//! Where a page's commands run: a server that wants credentials, the fixture's library in it, a folder
//! with `./password` and `./mirror`, and the names that a page has for all of them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::json;

use crate::env::plainfold::{self, Outcome, Running, Stream};
use crate::env::pouchdb::{PouchServer, encoded, free_port};
use crate::env::{Place, library, oracle, root};

/// A server, and a folder to stand in.
pub(crate) struct Scene {
    pub(crate) place: Place,
    pub(crate) server: PouchServer,
    /// Where commands run; the place itself at first.
    folder: PathBuf,
    /// The port of the page's application.
    pub(crate) app_port: u16,
    app: Option<(Running, ChildStdin)>,
    live: Option<Running>,
    /// Readers of the live mirror's events, which end when it does.
    readers: Vec<Running>,
}

impl Scene {
    /// The library in databases of their names, the admin's password in `./password`, and no mirror yet.
    pub(crate) fn new() -> Self {
        let place = Place::new();
        let scene = Self {
            server: PouchServer::start_closed("admin", "secret"),
            folder: place.path().to_owned(),
            app_port: free_port(),
            app: None,
            live: None,
            readers: Vec::new(),
            place,
        };
        let (feed, made) = (format!("feed:{}", library().display()), Place::new());
        plainfold::mirror(&feed, &made.mirror()).assert_code(0);
        let from = made.mirror().display().to_string();
        plainfold::run(["restore", &from, &scene.server.url()]).assert_code(0);
        scene.write("password", "secret\n");
        fs::set_permissions(scene.place.join("password"), fs::Permissions::from_mode(0o600))
            .unwrap();
        scene
    }

    /// The path of `./mirror`.
    pub(crate) fn mirror(&self) -> PathBuf {
        self.place.mirror()
    }

    /// A database's URL with the admin's credentials.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.server.url())
    }

    /// Mirrors the whole server into `./mirror`.
    pub(crate) fn mirror_all(&self) {
        plainfold::mirror(&self.server.url(), &self.mirror()).assert_code(0);
    }

    /// Writes a file of the scene, and the folders that it lies in.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = self.place.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// From now on commands run in this folder of the scene.
    pub(crate) fn stand_in(&mut self, folder: &str) {
        self.folder = self.place.join(folder);
    }

    pub(crate) fn assert_mirrored(&self, database: &str) {
        oracle::assert_equals_server(&self.url(database), &self.mirror(), database);
    }

    /// Runs a command as it is printed, with this scene's hosts and paths. A command that runs beside the next
    /// ones has no outcome: an application, a live mirror, an agent, and a
    /// reader of events.
    pub(crate) fn run(&mut self, printed: &str) -> Option<Outcome> {
        let command = self.named(printed);
        if printed.starts_with("node ") {
            self.end();
            let (mut app, input) = plainfold::spawn_with_input(self.shell(&command));
            app.wait_for_line(Stream::Stdout, |line| line.contains("http"));
            self.app = Some((app, input));
            None
        } else if ["plainfold mirror", "--repair", "--stamp"]
            .iter()
            .any(|one| printed.contains(one))
        {
            self.end_live();
            if !printed.contains("--live") {
                return Some(plainfold::run_command(self.shell(&command)));
            }
            // In the place of the shell, which would not pass a signal on.
            let command = format!("exec env {command}");
            self.live = Some(plainfold::live_command(self.shell(&command)));
            None
        } else if printed.starts_with("plainfold run") {
            self.end_live();
            // In the place of the shell, which would not pass a signal on.
            let command = format!("exec env {command}");
            let mut agent = plainfold::spawn_command(self.shell(&command));
            agent.wait_for_line(Stream::Stderr, |line| line.contains("have been started"));
            self.live = Some(agent);
            None
        } else if self.live.is_some()
            && ["plainfold tail", "/events"].iter().any(|one| printed.contains(one))
        {
            let mut reader = plainfold::spawn_command(self.shell(&command));
            self.write_until(|| _ = reader.wait_for_line(Stream::Stdout, |_| true));
            self.readers.push(reader);
            None
        } else {
            Some(plainfold::run_command(self.shell(&command)))
        }
    }

    /// Writes documents, to the page's application or to the server, until something has been seen: it
    /// is not known when a reader begins to listen.
    fn write_until(&mut self, seen: impl FnOnce()) {
        const PAUSE: Duration = Duration::from_millis(200);
        let (server, app) = (&self.server, &mut self.app);
        let (done, until) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0.. {
                    match app {
                        Some((_, input)) => writeln!(input, "Volume {number}").unwrap(),
                        None => _ = server.put_doc("books", "new", &json!({"volume": number})),
                    }
                    if until.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                }
            });
            seen();
            drop(done);
        });
    }

    /// Ends what still runs, each as its page says that it is ended.
    pub(crate) fn end(&mut self) {
        self.end_live();
        self.end_app();
    }

    fn end_live(&mut self) {
        if let Some(live) = self.live.take() {
            live.terminate();
            live.wait().assert_code(0);
        }
        for reader in self.readers.drain(..) {
            reader.wait().assert_code(0);
        }
    }

    fn end_app(&mut self) {
        if let Some((app, input)) = self.app.take() {
            drop(input);
            app.wait().assert_code(0);
        }
    }

    /// A command with this scene's hosts and paths.
    fn named(&self, printed: &str) -> String {
        let path = |name: &str| self.place.join(name).display().to_string();
        let here = self.server.address().to_string();
        let app = format!("127.0.0.1:{}", self.app_port);
        let socket = encoded(&path("feed.sock"));
        let mut command = printed.to_owned();
        for (theirs, ours) in [
            ("backup:/srv/mirror", path("remote/mirror").as_str()),
            ("/backup/mirror", &path("backup/mirror")),
            ("/srv/mirror", &path("mirror")),
            ("/etc/plainfold", &path("etc/plainfold")),
            ("/etc/systemd", &path("etc/systemd")),
            ("/run/plainfold/plainfold.sock", &path("plainfold.sock")),
            ("/usr/bin/plainfold", &path("usr/bin/plainfold")),
            ("/usr/lib/sysusers.d", &path("usr/lib/sysusers.d")),
            ("/path/to/plainfold", root().to_str().unwrap()),
            ("%2Frun%2Flibrary%2Ffeed.sock", &socket),
            ("127.0.0.1:5990", &app),
            ("app.example:5990", &app),
            ("localhost:5984", &here),
            ("127.0.0.1:5984", &here),
            ("new-host:5984", &here),
            ("couch.example.org", &here),
            // The versions that the package is tested with, of those that the page allows.
            ("rxdb@17 rxjs ", "rxdb@17.6.0 rxjs@7.8.2 "),
        ] {
            command = command.replace(theirs, ours);
        }
        let elsewhere = ["/srv/", "localhost", "-host:", ":5984", ":5990", ".example", "backup:/"];
        let left = elsewhere.iter().find(|part| command.contains(**part));
        assert!(left.is_none(), "{left:?} is left in {command}");
        command
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-euc", command.trim_end().trim_end_matches('&')]).current_dir(&self.folder);
        let binaries = Path::new(env!("CARGO_BIN_EXE_plainfold")).parent().unwrap();
        let old = std::env::var("PATH").unwrap();
        let tools = self.stand_ins();
        shell.env("PATH", format!("{}:{}:{old}", binaries.display(), tools.display()));
        let home = std::env::var("HOME").unwrap_or_default();
        // What npm has once downloaded is not downloaded again.
        shell
            .env("npm_config_cache", format!("{home}/.npm"))
            .env("npm_config_prefer_offline", "true");
        // Where an agent answers.
        shell.env("RUNTIME_DIRECTORY", self.place.path());
        shell.env("HOME", self.place.path()).env("PORT", self.app_port.to_string());
        for who in ["AUTHOR", "COMMITTER"] {
            shell
                .env(format!("GIT_{who}_NAME"), "Reader")
                .env(format!("GIT_{who}_EMAIL"), "reader@example.org");
        }
        for variable in
            ["PLAINFOLD_SOURCE_PASSWORD", "PLAINFOLD_TARGET_PASSWORD", "http_proxy", "HTTP_PROXY"]
        {
            shell.env_remove(variable);
        }
        shell
    }

    /// A folder of programs for those that this machine lacks: `rsync` is a copy here.
    fn stand_ins(&self) -> PathBuf {
        let folder = self.place.join("tools");
        let file = folder.join("rsync");
        if !has("rsync") && !file.exists() {
            let script =
                "#!/bin/sh\nfor last; do from=${to:-}; to=$last; done\ncp -a \"$from.\" \"$to\"\n";
            self.write("tools/rsync", script);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    /// Copies a folder of the repository.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let copied =
            Command::new("cp").arg("-r").arg(root().join(from)).arg(self.place.join(to)).status();
        assert!(copied.unwrap().success(), "{from}");
    }

    /// What a checkout has at its top, and the built program beside it.
    pub(crate) fn check_out(&self) {
        symlink(root().join("systemd"), self.place.join("systemd")).unwrap();
        symlink(env!("CARGO_BIN_EXE_plainfold"), self.place.join("plainfold")).unwrap();
    }
}

/// Whether this machine has a program.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\" > /dev/null", program]).status();
    found.unwrap().success()
}
