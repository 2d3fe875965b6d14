//! The files of a release: the Debian package is installed, started, upgraded and removed in a Debian root
//! that nothing else uses, and the state stays. The archive and the SBOM hold what they should.
//!
//! This needs root, debootstrap and cargo-deb, and the network once: the root stays below `target/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::env::plainfold::{Stream, spawn_command};
use crate::env::{files, root};

/// Where dpkg and the maintainer scripts look for programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The version of the second package. The first one has that of `Cargo.toml`.
const NEWER: &str = "99.0.0-1";

/// Writes down what the maintainer scripts want of systemd.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >>/systemctl.log\n";

/// A moment, for the times in packages.
const EPOCH: &str = "1700000000";

/// Runs a command to its end, however long that takes; it must succeed.
#[track_caller]
fn done(command: &mut Command) -> String {
    let output: Output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{}{}", output.status, said[0], said[1]);
    said.concat()
}

/// The folder of tools that `.ci/run` installs.
fn tools() -> PathBuf {
    root().join("target/ci-tools/bin")
}

/// A command of this machine, which finds the tools.
fn host(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command
        .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", tools().display()))
        .current_dir(root());
    command
}

/// What is missing on this machine, if anything is.
fn missing() -> Option<&'static str> {
    let has = |program: &str, option| {
        host(program).arg(option).output().is_ok_and(|it| it.status.success())
    };
    if done(host("id").arg("-u")).trim() != "0" {
        return Some("not root");
    }
    for (program, option) in
        [("debootstrap", "--version"), ("cargo-deb", "--version"), ("dpkg-deb", "--version")]
    {
        if !has(program, option) {
            assert!(std::env::var_os("CI").is_none(), "{program} is missing");
            return Some(program);
        }
    }
    None
}

/// Makes the files of a release from the program of the tests.
fn release(folder: &Path, options: &[&str]) {
    let mut make = host(".ci/release");
    make.arg(folder).arg("--fast").args(options).env("SOURCE_DATE_EPOCH", EPOCH);
    done(make.env("PLAINFOLD_PROGRAM", env!("CARGO_BIN_EXE_plainfold")));
}

/// The file of a folder whose name ends so.
fn ending(folder: &Path, end: &str) -> PathBuf {
    let mut entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.to_str().unwrap().ends_with(end)).unwrap()
}

/// A Debian as small as can be, of this machine's release and from where this machine gets its packages.
fn debian() -> PathBuf {
    let system = fs::read_to_string("/etc/os-release").unwrap();
    let codename = system.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.expect("this machine is a Debian").trim_matches('"');
    let made = root().join("target/debian").join(codename);
    if made.exists() {
        return made;
    }
    let format = "$(CODENAME) $(REPO_URI)";
    let sources =
        done(host("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]));
    let source =
        sources.lines().find_map(|line| line.strip_prefix(&format!("{codename} "))).unwrap();
    let making = made.with_extension("making");
    _ = fs::remove_dir_all(&making);
    fs::create_dir_all(&making).unwrap();
    done(host("debootstrap").args(["--variant=minbase", codename]).arg(&making).arg(source));
    fs::rename(&making, &made).unwrap();
    made
}

/// A command that sees only a folder, as if it were a machine, and its own processes below `/proc`.
fn alone(folder: &Path, user: &str) -> Command {
    const ENTER: &str = r#"mkdir -p "$0/proc"; mount -t proc proc "$0/proc"; exec chroot "--userspec=$1" "$0" "${@:2}""#;
    let mut unshare = host("unshare");
    unshare.args(["--mount", "bash", "-euc", ENTER]).arg(folder).arg(user);
    unshare
}

/// A machine with a Debian of its own.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let debian = debian();
        let folder =
            tempfile::Builder::new().prefix("machine-").tempdir_in(root().join("target")).unwrap();
        done(host("cp").args(["-a", "--reflink=auto"]).arg(debian.join(".")).arg(folder.path()));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// A path of the machine, as it is seen from here.
    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    /// A command on the machine, as this user.
    fn command(&self, user: &str, line: &str) -> Command {
        let mut chroot = alone(self.folder.path(), &format!("{user}:{user}"));
        chroot.args(["/usr/bin/env", "-i", &format!("PATH={PATH}"), "HOME=/nonexistent"]);
        chroot.arg("RUNTIME_DIRECTORY=/run/plainfold").args(line.split(' '));
        chroot
    }

    #[track_caller]
    fn run(&self, user: &str, line: &str) -> String {
        done(&mut self.command(user, line))
    }

    /// Installs a package, and says what dpkg and the scripts print.
    #[track_caller]
    fn install(&self, package: &Path) -> String {
        fs::copy(package, self.at("/tmp/package.deb")).unwrap();
        self.run("root", "dpkg --install /tmp/package.deb")
    }

    /// What the scripts wanted of systemd since this was asked before.
    fn asked(&self) -> Vec<String> {
        let log = self.at("/systemctl.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(log, "").unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Runs the service as its unit does, until it has caught up; says what it has printed.
    fn serve(&self) -> String {
        let unit =
            fs::read_to_string(self.at("/usr/lib/systemd/system/plainfold.service")).unwrap();
        let line = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let run = self.at("/run/plainfold");
        fs::create_dir_all(&run).unwrap();
        done(host("chown").arg("--reference").arg(self.at("/var/lib/plainfold")).arg(&run));
        let mut service = spawn_command(self.command(line("User="), line("ExecStart=")));
        service.wait_for_line(Stream::Stderr, |line| line.contains("caught up with"));
        let mirrors = self.run("root", "plainfold mirrors --format json");
        let mirrors: Value = serde_json::from_str(&mirrors).unwrap();
        assert_eq!(mirrors["mirrors"][0]["documents"], 389, "{mirrors}");
        service.terminate();
        service.wait().assert_code(0).stderr
    }

    /// Every file of the mirror but the state, with what changes if it is written again.
    fn mirror(&self) -> BTreeMap<PathBuf, (u64, i64, i64)> {
        let all = files(&self.at("/var/lib/plainfold"), &["json", "pdf", "png"]);
        let documents =
            all.into_iter().filter(|path| !path.to_str().unwrap().contains("/.plainfold/"));
        documents
            .map(|path| {
                let data = fs::metadata(&path).unwrap();
                (path, (data.ino(), data.mtime(), data.mtime_nsec()))
            })
            .collect()
    }
}

#[test]
fn a_package_is_installed_started_upgraded_and_removed_and_the_mirror_stays() {
    if let Some(missing) = missing() {
        eprintln!("NOT RUN: the Debian package is not tested here: {missing}");
        return;
    }
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| release(first.path(), &[]));
        debian();
    });
    release(second.path(), &["--deb-version", NEWER]);
    the_files_are_right(first.path(), second.path());

    let machine = Machine::new();
    machine.install(&ending(first.path(), ".deb"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        machine.run("root", "plainfold --version").starts_with(&format!("plainfold {version}"))
    );
    the_installed_files_are_right(&machine);

    machine.run("root", "runuser -u plainfold -- plainfold config init");
    machine.run("root", "runuser -u plainfold -- plainfold config check");
    machine.serve();
    let mirrored = machine.mirror();
    assert!(mirrored.len() > 389, "{}", mirrored.len());

    // From here on the machine has a systemd.
    fs::create_dir_all(machine.at("/run/systemd/system")).unwrap();
    fs::write(machine.at("/usr/bin/systemctl"), SYSTEMCTL).unwrap();
    fs::set_permissions(machine.at("/usr/bin/systemctl"), fs::Permissions::from_mode(0o755))
        .unwrap();
    machine.install(&ending(second.path(), ".deb"));
    let restarted =
        ["daemon-reload", "try-restart --no-block plainfold.service plainfold@*.service"];
    assert_eq!(machine.asked(), restarted);
    assert!(machine.run("root", "dpkg-query --show plainfold").contains(NEWER));
    let said = machine.serve();
    assert!(said.contains("0 documents written"), "{said}");
    assert!(machine.mirror() == mirrored, "nothing is fetched again");

    let wants = machine.at("/etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink("/usr/lib/systemd/system/plainfold@.service", wants.join("plainfold@books.service"))
        .unwrap();
    symlink("/usr/lib/systemd/system/other.service", wants.join("other.service")).unwrap();
    machine.run("root", "dpkg --remove plainfold");
    assert_eq!(
        machine.asked(),
        ["stop plainfold.* plainfold@* plainfold-catch-up@*", "daemon-reload"]
    );
    assert!(!machine.at("/usr/bin/plainfold").exists());
    assert!(machine.at("/etc/plainfold/plainfold.toml").is_file() && machine.mirror() == mirrored);

    let said = machine.run("root", "dpkg --purge plainfold");
    for kept in ["/etc/plainfold is kept", "/var/lib/plainfold is kept"] {
        assert!(said.contains(kept), "{said}");
    }
    assert!(machine.at("/etc/plainfold/plainfold.toml").is_file() && machine.mirror() == mirrored);
    assert!(fs::symlink_metadata(wants.join("plainfold@books.service")).is_err());
    assert!(fs::symlink_metadata(wants.join("other.service")).is_ok());

    // Who never used it has nothing left.
    for folder in ["/etc/plainfold", "/var/lib/plainfold"] {
        fs::remove_dir_all(machine.at(folder)).unwrap();
    }
    machine.install(&ending(first.path(), ".deb"));
    let said = machine.run("root", "dpkg --purge plainfold");
    assert!(!said.contains("is kept"), "{said}");
    for folder in ["/etc/plainfold", "/var/lib/plainfold"] {
        assert!(!machine.at(folder).exists(), "{folder}");
    }
}

/// What the package has put onto the machine.
fn the_installed_files_are_right(machine: &Machine) {
    for folder in ["/var/lib/plainfold", "/etc/plainfold"] {
        let data = fs::metadata(machine.at(folder)).unwrap();
        let owner = machine.run("root", &format!("stat -c %U:%G {folder}"));
        assert_eq!(
            (data.mode() & 0o7777, owner.trim()),
            (0o750, "plainfold:plainfold"),
            "{folder}"
        );
        assert_eq!(fs::read_dir(machine.at(folder)).unwrap().count(), 0, "{folder}");
    }
    for unit in fs::read_dir(root().join("systemd")).unwrap().map(|entry| entry.unwrap().path()) {
        if unit
            .extension()
            .is_some_and(|end| ["service", "socket", "timer"].iter().any(|one| end == *one))
        {
            let name = unit.file_name().unwrap().to_str().unwrap();
            let installed = fs::read(machine.at("/usr/lib/systemd/system").join(name));
            assert_eq!(installed.unwrap_or_default(), fs::read(&unit).unwrap(), "{name}");
        }
    }
    for file in [
        "/usr/lib/sysusers.d/plainfold.conf",
        "/usr/share/bash-completion/completions/plainfold",
        "/usr/share/zsh/vendor-completions/_plainfold",
        "/usr/share/fish/vendor_completions.d/plainfold.fish",
        "/usr/share/doc/plainfold/copyright",
        "/usr/share/doc/plainfold/README.md",
        "/usr/share/doc/plainfold/docs/operations.md",
        "/usr/share/doc/plainfold/docs/page/overview.png",
        "/usr/share/doc/plainfold/benches/README.md",
        "/usr/share/doc/plainfold/benches/results.svg",
        "/usr/share/doc/plainfold/clients/rxdb/README.md",
        "/usr/share/doc/plainfold/Dockerfile",
        "/usr/share/doc/plainfold/examples/plainfold.toml",
        "/usr/share/doc/plainfold/plainfold.cdx.json",
    ] {
        let data = fs::metadata(machine.at(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(data.len() > 0 && data.mode() & 0o777 == 0o644, "{file}");
    }
    machine.run("root", "bash -n /usr/share/bash-completion/completions/plainfold");
    let pages = machine.at("/usr/share/man/man1");
    assert!(fs::read_dir(&pages).unwrap().count() >= 20);
    let page = done(host("gzip").args(["-dc"]).arg(pages.join("plainfold-mirror.1.gz")));
    assert!(page.contains(".TH plainfold-mirror 1"), "{page}");
    if host("man").arg("--version").output().is_ok() {
        let mut man = host("man");
        let shown = done(
            man.args(["-l", "--warnings"]).arg(pages.join("plainfold.1.gz")).env("PAGER", "cat"),
        );
        assert!(shown.contains("plainfold-mirror(1)"), "{shown}");
    } else {
        eprintln!("NOT SHOWN, as man is not installed: the manual page");
    }
}

/// What lies in the folders of two releases of one program.
fn the_files_are_right(first: &Path, second: &Path) {
    for end in [".tar.gz", ".cdx.json"] {
        let same = fs::read(ending(first, end)).unwrap() == fs::read(ending(second, end)).unwrap();
        assert!(same, "the same program gives the same bytes: {end}");
    }
    done(host("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(first));
    let archive = ending(first, ".tar.gz");
    let name =
        archive.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz").to_owned();
    let listed = done(host("tar").arg("--list").arg("--file").arg(&archive));
    let listed: BTreeSet<_> = listed.lines().collect();
    for file in [
        "plainfold",
        "LICENSE-MIT",
        "README.md",
        "man/plainfold.1.gz",
        "plainfold.bash",
        "docs/page/overview.png",
        "benches/README.md",
        "benches/results.svg",
        "clients/rxdb/README.md",
        "Dockerfile",
    ] {
        assert!(listed.contains(&*format!("{name}/{file}")), "{file}: {listed:?}");
    }
    // What cargo-binstall looks for.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("/{ name }-{ version }-{ target }.tar.gz\""));
    assert!(name.starts_with(concat!("plainfold-", env!("CARGO_PKG_VERSION"), "-")), "{name}");

    let bom: Value =
        serde_json::from_slice(&fs::read(ending(first, ".cdx.json")).unwrap()).unwrap();
    let parts = bom["components"].as_array().unwrap();
    let part = |name: &str| parts.iter().find(|part| part["name"] == name);
    let sled = part("sled").unwrap();
    assert_eq!(sled["purl"], "pkg:cargo/sled@0.34.7");
    assert_eq!(sled["hashes"][0]["content"].as_str().unwrap().len(), 64);
    assert!(part("proptest").is_none(), "tests are not a part of the program");
    assert!(parts.len() > 100 && parts.iter().all(|part| part["licenses"].is_array()));
}

#[test]
fn an_image_runs_with_nothing_else() {
    if done(host("id").arg("-u")).trim() != "0" {
        eprintln!("NOT RUN: the image of a container is not tested here: not root");
        return;
    }
    let image = tempfile::tempdir().unwrap();
    let at = |path: &str| image.path().join(path);
    done(host(".ci/image").arg(env!("CARGO_BIN_EXE_plainfold")).arg(image.path()));
    assert!(!at("bin").exists() && at("etc/ssl/certs/ca-certificates.crt").is_file());
    // What the last steps of the Dockerfile make.
    let docker = fs::read_to_string(root().join("Dockerfile")).unwrap();
    assert!(docker.contains("RUN .ci/image target/release/plainfold /image"));
    the_layer_of_dependencies_is_made(&docker);
    for copied in ["etc/plainfold", "run/plainfold", "var/lib/plainfold"] {
        let line = format!("COPY --from=build --chown=10001:10001 /empty /{copied}\n");
        assert!(docker.contains(&line) && docker.contains("USER 10001:10001"), "{copied}");
        fs::create_dir_all(at(copied)).unwrap();
        done(host("chown").arg("10001:10001").arg(at(copied)));
    }
    fs::set_permissions(image.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let command = |arguments: &[&str]| {
        let mut plainfold = alone(image.path(), "10001:10001");
        plainfold.arg("/usr/bin/plainfold").args(arguments);
        plainfold.env("RUNTIME_DIRECTORY", "/run/plainfold").env_remove("PLAINFOLD_CONFIG");
        plainfold
    };
    done(&mut command(&["config", "init"]));
    let sick = command(&["mirrors"]).output().unwrap();
    assert_eq!(sick.status.code(), Some(5), "no agent runs");
    assert!(docker.contains("CMD [\"run\"]"));
    let mut agent = spawn_command(command(&["run"]));
    agent.wait_for_line(Stream::Stderr, |line| line.contains("caught up with"));
    assert!(docker.contains("CMD [\"/usr/bin/plainfold\", \"mirrors\"]"));
    assert!(done(&mut command(&["mirrors"])).contains("library"));
    agent.terminate();
    agent.wait().assert_code(0);
    let owner = fs::metadata(at("var/lib/plainfold/library/books")).unwrap().uid();
    assert_eq!(owner, 10001);
}

/// The step that fetches the dependencies makes, of two files, a package that Cargo reads.
fn the_layer_of_dependencies_is_made(docker: &str) {
    assert!(docker.contains("\nCOPY Cargo.toml Cargo.lock ./\n"));
    let step = docker.lines().find_map(|line| line.strip_suffix(" && cargo fetch --locked"));
    let step = step.and_then(|line| line.strip_prefix("RUN ")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(root().join(file), folder.path().join(file)).unwrap();
    }
    let read = "cargo metadata --format-version 1 --no-deps --offline --locked";
    let script = format!("{step} && {read}");
    done(host("sh").args(["-euc", &script]).current_dir(folder.path()));
    assert!(folder.path().join("src/main.rs").is_file());
}
