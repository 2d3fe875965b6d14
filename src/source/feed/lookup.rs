//! Reads one document out of a feed file again, from the row that a position names.
//!
//! Blocking.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::content::Fault;
use super::file::FeedFile;
use super::lines::{Line, Lines};
use super::loaded::{Loaded, SHORT_LINE, Stop, each_line};
use super::place::{FeedPlace, Positions, line_start};
use super::row::Broken;
use crate::document::{CollectionName, DocumentId, Position};
use crate::source::{Reading, SourceError};

/// The last row of a document, from the row that ends at `position` on.
pub(super) fn look_up(
    feed: &FeedFile,
    collection: &CollectionName,
    id: &DocumentId,
    position: &Position,
) -> Result<Reading, SourceError> {
    let file = feed.open_again()?.text;
    let failed = |error: io::Error| feed.unreadable(&error);
    let Some(place) = FeedPlace::of(position) else { return Ok(Reading::Unknown) };
    if !place.stands_in(&file).map_err(failed)? {
        return Ok(Reading::Unknown);
    }
    // A lookup runs to its end: no caller can abandon it.
    let check = || Ok(());
    let ours =
        |named: Option<&str>| named.unwrap_or(feed.collection().as_str()) == collection.as_str();
    let mut last = None;
    let mut see = |line: Line<'_>| {
        let loaded = Loaded::load(&file, line, &check)?;
        let found = match loaded.parse() {
            Ok(Some(row)) => ours(row.collection.as_deref()) && row.id == *id,
            Ok(None) => false,
            Err(broken) => ours(broken.collection.as_deref()) && broken.id.as_ref() == Some(id),
        };
        if found {
            last = Some(line.start);
        }
        Ok(())
    };
    let mut lines = Lines::new(line_start(&file, place.offset).map_err(failed)?, SHORT_LINE);
    let result = each_line(&file, &mut lines, &check, &mut see).and_then(|()| {
        let Some(rest) = lines.rest() else { return Ok(()) };
        if Loaded::load(&file, rest, &check)?.is_whole() { see(rest) } else { Ok(()) }
    });
    match (result, last) {
        (Ok(()), Some(start)) => read_row(feed, &file, start),
        (Err(Stop::Failed(error)), _) => Err(failed(error)),
        (Ok(()) | Err(Stop::Abandoned), _) => Ok(Reading::Unknown),
    }
}

/// The change in the row that begins here.
fn read_row(feed: &FeedFile, file: &Arc<File>, start: u64) -> Result<Reading, SourceError> {
    let check = || Ok(());
    let mut reading = None;
    let mut see = |line: Line<'_>| {
        let loaded = Loaded::load(file, line, &check)?;
        let position = Positions::new().at(line.end, file)?;
        reading = Some(match loaded.parse() {
            Ok(None) => Ok(Reading::Unknown),
            Ok(Some(row)) => loaded
                .change(row, Some(position), Some(file), feed.folder(), &check)
                .map(Reading::Found),
            Err(broken) => Err(broken),
        });
        // One row is all that is wanted.
        Err(Stop::Abandoned)
    };
    let mut lines = Lines::new(start, SHORT_LINE);
    let result = each_line(file, &mut lines, &check, &mut see)
        .and_then(|()| lines.rest().map_or(Ok(()), &mut see));
    match (reading, result) {
        (Some(Ok(reading)), _) => Ok(reading),
        (Some(Err(Broken { fault, .. })), _) => Err(match fault {
            Fault::Missing(what) => SourceError::Missing { what },
            Fault::Wrong(what) => SourceError::Permanent { what },
        }),
        (None, Err(Stop::Failed(error))) => Err(feed.unreadable(&error)),
        (None, _) => Ok(Reading::Unknown),
    }
}
