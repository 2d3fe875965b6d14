//! What this process uses, as the kernel counts it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What this process uses. What the kernel does not say is absent.
#[derive(Debug, Default)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: Option<f64>,
    /// Open files, sockets and pipes.
    pub open_files: Option<f64>,
    /// How many may be open.
    pub most_files: Option<f64>,
    /// Processor time, of the process and of the kernel for it.
    pub cpu_seconds: Option<f64>,
    /// When it was started, in seconds since 1970.
    pub started: Option<f64>,
}

impl Usage {
    /// Now.
    pub fn now() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        let stat = read("/proc/self/stat").and_then(|text| Times::parse(&text));
        let ticks = clock_ticks_per_second() as f64;
        let boot = read("/proc/stat").and_then(|text| booted(&text));
        Self {
            resident_bytes: read("/proc/self/statm").and_then(|text| resident(&text)),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64),
            most_files: getrlimit(Resource::Nofile).current.map(|most| most as f64),
            cpu_seconds: stat.as_ref().map(|stat| stat.used / ticks),
            started: stat.zip(boot).map(|(stat, boot)| boot + stat.started / ticks),
        }
    }
}

/// Two fields of `/proc/PID/stat`, in ticks.
#[derive(Debug, PartialEq)]
struct Times {
    used: f64,
    started: f64,
}

impl Times {
    /// `123 (name) S …`; the name may hold anything, parentheses too.
    fn parse(text: &str) -> Option<Self> {
        let (_, after) = text.rsplit_once(')')?;
        let field = |at: usize| after.split_ascii_whitespace().nth(at)?.parse::<f64>().ok();
        Some(Self { used: field(11)? + field(12)?, started: field(19)? })
    }
}

/// The second number of `/proc/PID/statm`, in bytes.
fn resident(text: &str) -> Option<f64> {
    let pages: f64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as f64)
}

/// The line `btime` of `/proc/stat`.
fn booted(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_read_whatever_the_name_of_the_process() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 500 70 9 9 20 0 8 0 12345 1 2\n";
        assert_eq!(Times::parse(text), Some(Times { used: 570.0, started: 12345.0 }));
        assert_eq!(Times::parse("7 (a) S 1"), None);
        assert_eq!(booted("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        assert_eq!(resident("1 2 3"), Some(2.0 * page_size() as f64));
    }

    #[test]
    fn this_process_uses_something_of_everything() {
        let Usage { resident_bytes, open_files, most_files, cpu_seconds, started } = Usage::now();
        assert!(resident_bytes.unwrap() > 1e6 && open_files.unwrap() >= 3.0);
        assert!(cpu_seconds.unwrap() >= 0.0 && started.unwrap() > 1e9);
        assert!(most_files.is_none_or(|most| most >= open_files.unwrap()));
    }
}
