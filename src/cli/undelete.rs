//! What `restore --undelete` brings back: asked of the process that works on the mirror, or of its
//! state.

use std::path::Path;

use anyhow::Context;
use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};

use super::exit::Usage;
use crate::api::socket::Reach;
use crate::checkpoint::Bounds;
use crate::config::open_state;
use crate::mirror::{Mirror, Ours};
use crate::restore::Undelete;
use crate::runner::HeldDocument;
use crate::tree::{Holder, MirrorError};

/// A time that a deletion may have been mirrored at.
#[derive(Clone, Copy, Debug)]
pub struct Since(Timestamp);

/// Reads a date, or a time with its offset.
pub fn since(text: &str) -> Result<Since, Usage> {
    let midnight = |date: Date| date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    let read = text.parse::<Timestamp>().or_else(|error| match text.parse::<Date>() {
        Ok(date) if !text.contains(['T', 't', ' ']) => midnight(date),
        _ => Err(error),
    });
    read.map(Since).map_err(|_| {
        Usage(format!(
            "`{text}` is not a time: give a date such as 2025-01-31, or a time with its offset such \
             as 2025-01-31T17:30:00Z"
        ))
    })
}

/// What is to be brought back of this mirror.
pub async fn find(directory: &Path, since: Option<Since>) -> anyhow::Result<Undelete> {
    let held = match Ours::find(directory)?.holder()? {
        None => at_rest(directory)?,
        Some(Holder { socket: Some(socket), .. }) => ask(&socket).await?,
        Some(holder) => {
            return Err(MirrorError::Locked { path: directory.to_owned(), holder }.into());
        }
    };
    let mut undelete = Undelete::default();
    let wanted = |one: &HeldDocument| since.is_none_or(|Since(since)| one.since >= since);
    for one in held.into_iter().filter(wanted) {
        undelete.held.entry(one.collection).or_default().insert(one.document);
    }
    undelete.since = since.map(|Since(since)| since.to_zoned(TimeZone::UTC).date());
    Ok(undelete)
}

fn at_rest(directory: &Path) -> anyhow::Result<Vec<HeldDocument>> {
    let mirror = Mirror::open_existing(directory, &Holder::this_process("restore"))?;
    let state = open_state(&mirror, Bounds::DEFAULT)?;
    Ok(HeldDocument::all(&state)?)
}

async fn ask(socket: &Path) -> anyhow::Result<Vec<HeldDocument>> {
    let reach = Reach::to(socket)?;
    let client = reqwest::Client::builder().unix_socket(reach.path()).build()?;
    let silent = || {
        format!(
            "the mirror's process at {} does not say which deletions it holds back: restart it with \
             this version, or stop it",
            socket.display()
        )
    };
    let answer = client.get("http://mirror/held").send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status).with_context(silent)?;
    answer.json().await.with_context(silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_and_a_time_with_an_offset_are_read_and_nothing_else() {
        let read = |text| since(text).map(|Since(time)| time.to_string()).ok();
        assert_eq!(read("2025-01-31").unwrap(), "2025-01-31T00:00:00Z");
        assert_eq!(read("2025-01-31T17:30:00+01:00").unwrap(), "2025-01-31T16:30:00Z");
        for bad in ["yesterday", "2025-01-31T17:30:00", "2026-13-01", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
