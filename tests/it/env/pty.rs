//! A terminal that the binary runs in, with somebody who types.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::plainfold::command_of;

/// Runs its arguments from the second on in a terminal of their own. The first holds pairs of what is
/// waited for and what is then typed.
const DRIVER: &str = r#"
import fcntl, json, os, pty, select, signal, sys, termios, time
master, slave = pty.openpty()
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(slave, fd)
    os.execv(sys.argv[2], sys.argv[2:])
shown, typing, status = b'', json.loads(sys.argv[1]), None
silent, limit = [], time.monotonic() + 100
while True:
    if select.select([master], [], [], 0.05)[0]:
        shown += os.read(master, 65536)
        continue
    if status is not None:
        break
    if typing and typing[0][0].encode() in shown:
        silent.append(not termios.tcgetattr(slave)[3] & termios.ECHO)
        os.write(master, typing.pop(0)[1].encode())
    if time.monotonic() > limit:
        os.kill(child, signal.SIGKILL)
    ended, code = os.waitpid(child, os.WNOHANG)
    if ended:
        status = os.waitstatus_to_exitcode(code)
echoes = bool(termios.tcgetattr(slave)[3] & termios.ECHO and termios.tcgetattr(slave)[3] & termios.ICANON)
print(json.dumps({'code': status, 'shown': shown.decode(), 'silent': silent, 'echoes': echoes}))
"#;

/// What a terminal showed, and how the process ended that ran in it.
#[derive(Debug)]
pub struct Shown {
    pub code: i64,
    pub text: String,
    /// For each time that something was typed, whether the terminal did not show it.
    pub silent: Vec<bool>,
    /// Whether the terminal shows what is typed, now that the process has ended.
    pub echoes: bool,
}

impl Shown {
    /// The lines that the terminal shows at the end, after all that it was told to clear.
    pub fn screen(&self) -> Vec<String> {
        let (mut rows, mut row, mut column) = (vec![Vec::new()], 0_usize, 0_usize);
        let mut text = self.text.chars();
        while let Some(c) = text.next() {
            match c {
                '\n' => row += 1,
                '\r' => column = 0,
                '\u{1b}' => {
                    let is_code = |c: &char| !c.is_ascii_alphabetic();
                    let rest: String = text.clone().skip(1).take_while(is_code).collect();
                    match text.nth(rest.len() + 1) {
                        Some('A') => row -= rest.parse::<usize>().unwrap_or(1),
                        Some('J') => {
                            rows.truncate(row + 1);
                            rows[row].truncate(column);
                        }
                        Some('K') => rows[row].truncate(column),
                        _ => {}
                    }
                }
                c => {
                    let line: &mut Vec<char> = &mut rows[row];
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = c;
                    column += 1;
                }
            }
            rows.resize(rows.len().max(row + 1), Vec::new());
        }
        rows.into_iter().map(String::from_iter).collect()
    }
}

/// Runs the binary in a terminal, to its end, or kills it after 100 seconds. When the first text of a pair is shown, the second is
/// typed.
pub fn run(arguments: &[&str], typing: &[(&str, &str)], variables: &[(&str, &str)]) -> Shown {
    let inner = command_of(Path::new(env!("CARGO_BIN_EXE_plainfold")), arguments);
    let mut outer = Command::new("python3");
    outer.args(["-c", DRIVER, &serde_json::to_string(typing).unwrap()]);
    outer.arg(inner.get_program()).args(inner.get_args());
    for (variable, _) in inner.get_envs() {
        outer.env_remove(variable);
    }
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        outer.env_remove(variable);
    }
    outer.env("TERM", "xterm").envs(variables.iter().copied());
    let output = outer.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let value: Value = serde_json::from_str(&told).unwrap_or_else(|error| {
        panic!("{error}: {told}{}", String::from_utf8_lossy(&output.stderr))
    });
    let silent = value["silent"].as_array().unwrap().iter().map(|one| one.as_bool().unwrap());
    Shown {
        code: value["code"].as_i64().unwrap(),
        text: value["shown"].as_str().unwrap().to_owned(),
        silent: silent.collect(),
        echoes: value["echoes"].as_bool().unwrap(),
    }
}
