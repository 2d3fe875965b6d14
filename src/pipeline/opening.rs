//! Where the feed is opened: after the checkpoint, from its beginning, or as a full scan.

use super::report::shown;
use super::{Pipeline, PipelineError};
use crate::source::Since;

impl Pipeline {
    /// Where to open the feed, according to the state and the tree.
    pub(super) fn since(&self, again: bool) -> Result<Since, PipelineError> {
        let checkpoint = self.checkpoints.checkpoint(self.collection.name())?.unwrap_or_default();
        let checkpoint = self.settle_copy(checkpoint)?;
        if let Some(reason) = checkpoint.scanning {
            return Ok(Since::Scan(reason));
        }
        // A collection that was new at the start of the run counts as empty until its end.
        let filled = again && checkpoint.position.is_some();
        if !filled && self.collection.is_empty()? {
            return Ok(match (checkpoint.position, self.collection.is_new()) {
                // All its documents are deleted, or it never had any.
                (Some(position), false) => Since::Position(position),
                (_, true) if !again && self.collection.has_inventory()? => {
                    Since::Scan("the folder of the collection was gone".to_owned())
                }
                (_, _) => Since::Start,
            });
        }
        let Some(position) = checkpoint.position else {
            if checkpoint.open_since.is_some() {
                // The first run was interrupted before its first checkpoint.
                return Ok(Since::Start);
            }
            return Ok(Since::Scan("the mirror holds documents but no checkpoint".to_owned()));
        };
        let (kept, before) = (self.collection.kept(), checkpoint.kept);
        let news = [
            (
                self.collection.mirrors_attachments() && !checkpoint.attachments,
                "attachments are mirrored",
            ),
            (kept.revisions && !before.revisions, "all revisions are kept"),
            (kept.deleted && !before.deleted, "deleted documents are kept"),
        ];
        if let Some((_, what)) = news.iter().find(|(is_new, _)| *is_new) {
            return Ok(Since::Scan(format!("{what} from now on")));
        }
        self.reporter.update(|report| {
            report.position = Some(shown(&position));
            report.evidence.position = Some(position.clone());
        });
        Ok(Since::Position(position))
    }
}
