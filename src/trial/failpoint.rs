//! Injected aborts and failures, set by the variable `FAILPOINTS` of the crate `fail`: aborts at
//! named points (`publish=2*off->return` aborts when `publish` is passed for the third time), and
//! failures of the file system (`io-rename=2*off->1*return(EIO)` lets the third rename fail).
//! With `return(hold)` the thread waits there until the file that `PLAINFOLD_HELD` names exists.
//! Failures begin when the file that `PLAINFOLD_FAILING` names exists, or at once without that
//! variable.

use std::io::Write as _;
use std::path::Path;

use rustix::io::Errno;

/// A point at which a test may abort the process.
pub fn pass(point: &str) {
    fail::fail_point!(point, |action: Option<String>| {
        if is_held(point, action.as_deref()) {
            return;
        }
        // The message shows that the abort was intended; if it cannot be printed, the abort still
        // happens.
        let _ = writeln!(std::io::stderr(), "aborted at the failpoint `{point}`");
        std::process::abort()
    });
}

/// Waits for the file that lets the thread go on, if it is to be held here.
fn is_held(point: &str, action: Option<&str>) -> bool {
    let Some(file) = std::env::var_os("PLAINFOLD_HELD").filter(|_| action == Some("hold")) else {
        return false;
    };
    let _ = writeln!(std::io::stderr(), "held at the failpoint `{point}`");
    while !Path::new(&file).exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    true
}

/// The longest name in bytes, if lower than the limit of the file system: `PLAINFOLD_NAME_MAX`.
pub fn longest_name() -> Option<u64> {
    std::env::var("PLAINFOLD_NAME_MAX").ok()?.parse().ok()
}

/// Refuses a longer name.
pub fn limited(name: &str) -> Result<(), Errno> {
    let last = name.rsplit('/').next().unwrap_or(name);
    match longest_name().is_some_and(|most| last.len() as u64 > most) {
        true => Err(Errno::NAMETOOLONG),
        false => Ok(()),
    }
}

/// Runs an operation of the file system, which a test may let fail.
pub fn attempt<T>(operation: &str, run: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    match failure(operation) {
        Some(error) => Err(error),
        None => run(),
    }
}

fn failure(operation: &str) -> Option<Errno> {
    if std::env::var_os("PLAINFOLD_FAILING").is_some_and(|file| !Path::new(&file).exists()) {
        return None;
    }
    fail::fail_point!(operation, |code: Option<String>| {
        if is_held(operation, code.as_deref()) {
            return None;
        }
        let code = code.unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "`{operation}` fails with {code}");
        Some(match code.as_str() {
            "EACCES" => Errno::ACCESS,
            "EDQUOT" => Errno::DQUOT,
            "EFBIG" => Errno::FBIG,
            "EILSEQ" => Errno::ILSEQ,
            "EINVAL" => Errno::INVAL,
            "EMFILE" => Errno::MFILE,
            "ENAMETOOLONG" => Errno::NAMETOOLONG,
            "EPERM" => Errno::PERM,
            "ENOSPC" => Errno::NOSPC,
            "EXDEV" => Errno::XDEV,
            "EROFS" => Errno::ROFS,
            _ => Errno::IO,
        })
    });
    None
}
