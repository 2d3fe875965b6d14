//! Requests to the process that holds a mirror, in bounded time, and the error if it does not
//! answer.
//!
//! It must not know what it is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::socket::Reach;
use crate::tree::Holder;

/// The process that holds a mirror does not answer.
#[derive(Debug, thiserror::Error)]
#[error("{} is in use by {holder}, and {trouble}", mirror.display())]
pub struct Unanswered {
    mirror: PathBuf,
    holder: Holder,
    /// What is known of it, as a clause, and what to do.
    pub trouble: String,
}

/// A process that may be asked.
#[derive(Debug)]
pub struct Process {
    mirror: PathBuf,
    holder: Holder,
}

impl Process {
    /// The holder of the mirror's lock.
    pub fn new(mirror: &Path, holder: Holder) -> Self {
        Self { mirror: mirror.to_owned(), holder }
    }

    /// Who that is.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Sends a request to the process, and waits at most `patience` for the beginning of its
    /// answer.
    pub async fn ask(
        &self,
        socket: &Path,
        patience: Duration,
        request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> anyhow::Result<reqwest::Response> {
        let asked = async {
            let reach = Reach::to(socket).map_err(anyhow::Error::from)?;
            let client = reqwest::Client::builder().unix_socket(reach.path()).build()?;
            anyhow::Ok(request(&client).send().await?)
        };
        let answered = tokio::select! {
            answered = asked => Some(answered),
            () = tokio::time::sleep(patience) => None,
            () = self.until_stopped() => None,
        };
        match answered {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) if is_forbidden(&error) => {
                let pid = self.holder.pid;
                let trouble = format!(
                    "process {pid} answers only its own user: run this command as that \
                             user"
                );
                Err(self.troubled(trouble).into())
            }
            Some(Err(error)) => {
                let error = super::exit::text(&error);
                Err(self.unanswered(&format!("at {}: {error}", socket.display())).into())
            }
            None => {
                let (at, seconds) = (socket.display(), patience.as_secs());
                Err(self.unanswered(&format!("at {at} within {seconds} s")).into())
            }
        }
    }

    /// Ends when the process has been stopped for a while: it will not answer then.
    async fn until_stopped(&self) {
        const EVERY: Duration = Duration::from_millis(300);
        const LOOKS: usize = 4;
        let mut looks = 0;
        while looks < LOOKS {
            tokio::time::sleep(EVERY).await;
            looks = if self.stopped().is_some() { looks + 1 } else { 0 };
        }
    }

    /// What is said of a process that has not answered; `how` says where or how it was asked.
    pub fn unanswered(&self, how: &str) -> Unanswered {
        let pid = self.holder.pid;
        let trouble = self.stopped().unwrap_or_else(|| {
            format!(
                "process {pid} does not answer {how}: look at its log, or end it and start it again"
            )
        });
        self.troubled(trouble)
    }

    fn troubled(&self, trouble: String) -> Unanswered {
        Unanswered { mirror: self.mirror.clone(), holder: self.holder.clone(), trouble }
    }

    /// The trouble of a process that is stopped, without asking it; `None` if it runs.
    pub fn stopped(&self) -> Option<String> {
        let pid = self.holder.pid;
        let mine = Stat::of("self")?;
        // In a container the same number may belong to another process.
        let stat = Stat::of(&pid.to_string()).filter(|stat| stat.name == mine.name)?;
        let is_stopped = matches!(stat.state, 'T' | 't');
        is_stopped.then(|| {
            format!(
                "process {pid} is stopped (by SIGSTOP or a debugger): `kill -CONT {pid}` resumes it"
            )
        })
    }
}

/// Whether another user's socket was asked.
fn is_forbidden(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.map(std::io::Error::kind).any(|kind| kind == std::io::ErrorKind::PermissionDenied)
}

/// What the kernel says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
}

impl Stat {
    fn of(process: &str) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{process}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// `123 (name) S …`; the name may hold anything, parentheses too.
    fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        Some(Self { name, state: after.trim_start().chars().next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_name_of_the_process() {
        let stat = Stat::parse("12 (a) (b) R) T 1 12 12\n").unwrap();
        assert_eq!(stat, Stat { name: "a) (b) R".to_owned(), state: 'T' });
        assert!(Stat::parse("").is_none());
        assert!(Stat::of("self").is_some_and(|own| own.state != 'T'));
    }
}
