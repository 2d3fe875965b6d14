//! What a test has happen, by the variable `FAILPOINTS` of the crate `fail`: aborts at named points
//! (`publish=2*off->return` aborts at the third passing of `publish`), and failures of the file system
//! (`io-rename=2*off->1*return(EIO)` fails the third time that something is renamed). These begin when
//! the file that `PLAINFOLD_FAILING` names is there, or at once without that variable.

use std::io::Write as _;
use std::path::Path;

use rustix::io::Errno;

/// Passes a point at which a test may have the process abort.
pub fn pass(point: &str) {
    fail::fail_point!(point, |_| {
        // Whoever reads this wants to know that the abort was meant; nobody there is no reason to stay.
        let _ = writeln!(std::io::stderr(), "aborted at the failpoint `{point}`");
        std::process::abort()
    });
}

/// The most bytes of a name, where that is less than the file system says: `PLAINFOLD_NAME_MAX`.
pub fn longest_name() -> Option<u64> {
    std::env::var("PLAINFOLD_NAME_MAX").ok()?.parse().ok()
}

/// Refuses a name that is longer.
pub fn limited(name: &str) -> Result<(), Errno> {
    let last = name.rsplit('/').next().unwrap_or(name);
    match longest_name().is_some_and(|most| last.len() as u64 > most) {
        true => Err(Errno::NAMETOOLONG),
        false => Ok(()),
    }
}

/// Does something to the file system, which a test may have fail.
pub fn attempt<T>(operation: &str, run: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    if std::env::var_os("PLAINFOLD_FAILING").is_some_and(|file| !Path::new(&file).exists()) {
        return run();
    }
    fail::fail_point!(operation, |code: Option<String>| {
        let code = code.unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "`{operation}` fails with {code}");
        Err(match code.as_str() {
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
    run()
}
