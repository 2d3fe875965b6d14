//! What `restore --undelete` brings back.

use std::path::Path;

use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};

use super::exit::Usage;
use crate::api::client::Door;
use crate::restore::Undelete;
use crate::runner::HeldDocument;

/// A time that a deletion may have been mirrored at.
#[derive(Clone, Copy, Debug)]
pub struct DeletedSince(Timestamp);

/// Reads a date, or a time with its offset.
pub fn since(text: &str) -> Result<DeletedSince, Usage> {
    let midnight = |date: Date| date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    let read = text.parse::<Timestamp>().or_else(|error| match text.parse::<Date>() {
        Ok(date) if !text.contains(['T', 't', ' ']) => midnight(date),
        _ => Err(error),
    });
    read.map(DeletedSince).map_err(|_| {
        Usage(format!(
            "`{text}` is not a time: give a date such as 2025-01-31, or a time with its offset such \
             as 2025-01-31T17:30:00Z"
        ))
    })
}

/// What is to be brought back of this mirror.
pub async fn find(directory: &Path, since: Option<DeletedSince>) -> anyhow::Result<Undelete> {
    let held = Door::find(directory)?.held("restore").await?;
    let mut undelete = Undelete::default();
    let wanted = |one: &HeldDocument| since.is_none_or(|DeletedSince(since)| one.since >= since);
    for one in held.into_iter().filter(wanted) {
        undelete.held.entry(one.collection).or_default().insert(one.document);
    }
    undelete.since = since.map(|DeletedSince(since)| since.to_zoned(TimeZone::UTC).date());
    Ok(undelete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_and_a_time_with_an_offset_are_read_and_nothing_else() {
        let read = |text| since(text).map(|DeletedSince(time)| time.to_string()).ok();
        assert_eq!(read("2025-01-31").unwrap(), "2025-01-31T00:00:00Z");
        assert_eq!(read("2025-01-31T17:30:00+01:00").unwrap(), "2025-01-31T16:30:00Z");
        for bad in ["yesterday", "2025-01-31T17:30:00", "2026-13-01", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
