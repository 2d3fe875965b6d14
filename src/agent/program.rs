//! Runs a program that the config names, in bounded time.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A program that the config names.
pub struct Program<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    /// Variables of its environment.
    pub variables: &'a [(&'static str, &'a str)],
}

/// The processes of a program. Dropping it ends all of them.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Program<'_> {
    /// Runs it without a shell, with a document on its standard input. If it takes too long, or if this
    /// is dropped, it ends with everything that it has started.
    pub async fn run(&self, document: &[u8], patience: Duration) -> Result<(), String> {
        let Some((program, arguments)) = self.command.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir(Path::new("/")).process_group(0).kill_on_drop(true);
        // Any variable may hold a secret of a source.
        command.env_clear();
        let harmless = ["PATH", "HOME", "LANG", "TZ"];
        command.envs(harmless.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(self.variables.iter().copied());
        let mut child =
            command.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut group = Group(id);
        let input = child.stdin.take();
        let working = async {
            if let Some(mut input) = input {
                // A program that does not read it may still do its work.
                let _closed = input.write_all(document).await;
            }
            child.wait().await
        };
        let ended = tokio::time::timeout(patience, working).await;
        if ended.is_ok() {
            // What it leaves running in the background is its own affair.
            group.0 = None;
        }
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("it ended with {status}")),
            Ok(Err(error)) => Err(format!("it cannot be waited for: {error}")),
            Err(_) => Err(format!("it was ended after {} s", patience.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn run(command: &[String], document: &[u8], patience: Duration) -> Result<(), String> {
        let variables = [("PLAINFOLD_MIRROR", "books")];
        Program { command, variables: &variables }.run(document, patience).await
    }

    /// A program that does this.
    fn program(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("program");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    async fn run_it(program: &Path, argument: &str, patience: Duration) -> Result<(), String> {
        let command = [program.display().to_string(), argument.to_owned()];
        run(&command, b"{\"alert\":1}", patience).await
    }

    #[tokio::test]
    async fn a_command_gets_the_document_and_its_arguments_without_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let text = format!("{{ echo \"$1 $PLAINFOLD_MIRROR\"; cat; }} > '{}'", out.display());
        let program = program(dir.path(), &text);
        run_it(&program, "$(touch x); a b", PATIENCE).await.unwrap();
        assert_eq!(fs::read_to_string(out).unwrap(), "$(touch x); a b books\n{\"alert\":1}");
    }

    #[tokio::test]
    async fn a_command_that_fails_hangs_or_is_missing_is_an_error_in_bounded_time() {
        let dir = tempfile::tempdir().unwrap();
        let failing = program(dir.path(), "exit 3");
        let error = run_it(&failing, "secret", PATIENCE).await.unwrap_err();
        assert!(error.contains("exit status: 3") && !error.contains("secret"), "{error}");
        // What it has started ends too.
        let out = dir.path().join("out");
        let text = format!("(trap '' TERM; sleep 600) & echo $! > '{}'; wait", out.display());
        let hanging = program(dir.path(), &text);
        let error = run_it(&hanging, "", Duration::from_secs(1)).await.unwrap_err();
        assert!(error.contains("it was ended after 1 s"), "{error}");
        let child = fs::read_to_string(&out).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        while fs::read_to_string(&stat).is_ok_and(|state| !state.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let missing = dir.path().join("missing");
        let error = run_it(&missing, "", PATIENCE).await.unwrap_err();
        assert!(error.contains("cannot be started"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_reads_nothing_may_succeed() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), "exit 0");
        let command = [program.display().to_string()];
        let large = vec![b'x'; 1 << 20];
        run(&command, &large, PATIENCE).await.unwrap();
    }
}
