//! A record of all operations of the file system, in the file that `PLAINFOLD_RECORD` names: one
//! line of JSON per operation, in an order that is possible for the operations of one thread, and of
//! threads that wait for one another. Files and folders are identified by their inodes.
//!
//! A sync has a line before and one after it, so that operations in between do not count as durable.
//! After each commit the state is copied beside the record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::AtFlags;
use serde_json::{Value, json};

use super::Reach;

struct Record {
    path: PathBuf,
    lines: Mutex<Lines>,
}

struct Lines {
    file: File,
    /// The number of started syncs, and of copied commits.
    syncs: u64,
    commits: u64,
}

/// The record of this process, if a test requests one.
fn record() -> Option<&'static Record> {
    static RECORD: OnceLock<Option<Record>> = OnceLock::new();
    let open = || {
        let path = PathBuf::from(std::env::var_os("PLAINFOLD_RECORD")?);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let lines = Lines { file: give_up_on_error(file), syncs: 0, commits: 0 };
        Some(Record { path, lines: Mutex::new(lines) })
    };
    RECORD.get_or_init(open).as_ref()
}

/// An incomplete record would prove nothing, so the process ends.
fn give_up_on_error<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "the record cannot be kept: {error}");
        std::process::abort()
    })
}

impl Record {
    fn line(&self, line: impl FnOnce(&mut Lines) -> Value) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{}\n", line(&mut lines));
        give_up_on_error(lines.file.write_all(text.as_bytes()));
    }
}

fn inode(of: impl AsFd) -> u64 {
    give_up_on_error(rustix::fs::fstat(of)).st_ino
}

/// The folder that directly contains a name, and the last part of the name.
fn place(folder: impl AsFd, name: &str) -> (u64, &str) {
    match name.rsplit_once('/') {
        None => (inode(folder), name),
        Some((above, last)) => {
            let stat = rustix::fs::statat(folder, above, AtFlags::SYMLINK_NOFOLLOW);
            (give_up_on_error(stat).st_ino, last)
        }
    }
}

/// Records that a file or folder was created.
pub fn made(folder: impl AsFd, name: &str) {
    let Some(record) = record() else { return };
    let stat = give_up_on_error(rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW));
    let is_folder = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    let place = place(folder, name);
    record.line(|_| json!({"op": "make", "in": place, "inode": stat.st_ino, "folder": is_folder}));
}

fn two_names(op: &str, one: impl AsFd, name: &str, other: impl AsFd, other_name: &str) {
    let Some(record) = record() else { return };
    let (from, to) = (place(one, name), place(other, other_name));
    record.line(|_| json!({"op": op, "in": from, "to": to}));
}

/// Records that a name replaced another.
pub fn renamed(folder: impl AsFd, name: &str, to: impl AsFd, new_name: &str) {
    two_names("rename", folder, name, to, new_name);
}

/// Records that two names were swapped.
pub fn exchanged(folder: impl AsFd, name: &str, other: impl AsFd, other_name: &str) {
    two_names("exchange", folder, name, other, other_name);
}

/// Records that a file was given a second name.
pub fn linked(folder: impl AsFd, name: &str, to: impl AsFd, new_name: &str) {
    two_names("link", folder, name, to, new_name);
}

/// Records that a name was removed.
pub fn removed(folder: impl AsFd, name: &str) {
    let Some(record) = record() else { return };
    let place = place(folder, name);
    record.line(|_| json!({"op": "remove", "in": place}));
}

/// Records that bytes were appended to a file.
pub fn written(file: impl AsFd, bytes: &[u8]) {
    let Some(record) = record().filter(|_| !bytes.is_empty()) else { return };
    let inode = inode(file);
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    record.line(|_| json!({"op": "write", "inode": inode, "bytes": bytes, "at": at}));
}

/// Runs `sync`, which makes `what` durable as far as `reach` says.
pub fn synced<E>(
    what: impl AsFd,
    reach: Reach,
    sync: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let Some(record) = record() else { return sync() };
    let inode = (reach == Reach::Itself).then(|| inode(what));
    let mut number = 0;
    record.line(|lines| {
        lines.syncs += 1;
        number = lines.syncs;
        json!({"op": "sync", "number": number, "inode": inode})
    });
    sync()?;
    record.line(|_| json!({"op": "synced", "number": number}));
    Ok(())
}

/// Records that the state in this folder was committed durably.
pub fn committed(state: &Path) {
    let Some(record) = record() else { return };
    record.line(|lines| {
        let mut copy = record.path.clone().into_os_string();
        copy.push(format!(".state-{}", lines.commits));
        give_up_on_error(copy_state(state, Path::new(&copy)));
        lines.commits += 1;
        json!({"op": "commit", "state": lines.commits - 1})
    });
}

/// Copies the state's folder, and the other files that begin with its name.
fn copy_state(state: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to.join("state"))?;
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join("state").join(entry.file_name()))?;
        }
    }
    let mark = state.with_extension("high-water");
    fs::copy(&mark, to.join("state.high-water")).map(|_| ())
}
