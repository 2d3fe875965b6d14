//! A checkpoint as a text that does not depend on the state: a copy of the mirror resumes from it
//! if the copy has no state.

use serde::{Deserialize, Serialize};

use super::Checkpoint;

/// What the text says.
#[derive(Debug, Serialize, Deserialize)]
pub struct PortableCheckpoint {
    /// The source that the collection followed, without credentials.
    source: String,
    checkpoint: Checkpoint,
}

impl Checkpoint {
    /// The token of the inventory, if the run that committed this ended normally and had seen
    /// everything up to a position.
    pub fn at_rest(&self) -> Option<&str> {
        let Self { position, inventory, open_since, scanning, .. } = self;
        match (position, inventory, open_since, scanning) {
            (Some(_), Some(token), None, None) => Some(token),
            _ => None,
        }
    }

    /// Whether nothing is known of earlier runs.
    pub fn is_unknown(&self) -> bool {
        !self.was_followed() && self.open_since.is_none()
    }
}

impl PortableCheckpoint {
    /// The text of a checkpoint at the normal end of a run that followed `source`; `None` if the run
    /// did not end so.
    pub fn text(source: &str, checkpoint: &Checkpoint) -> Option<String> {
        checkpoint.at_rest()?;
        let one = Self { source: source.to_owned(), checkpoint: checkpoint.clone() };
        let mut text = serde_json::to_string_pretty(&one).ok()?;
        text.push('\n');
        Some(text)
    }

    /// Reads a checkpoint of the same source. The error says what is wrong, as a clause.
    pub fn read(text: &[u8], source: &str) -> Result<Checkpoint, String> {
        let one: Self = serde_json::from_slice(text)
            .map_err(|error| format!("it is not a checkpoint ({error})"))?;
        if one.source != source {
            return Err(format!("it is of another source ({})", one.source));
        }
        match one.checkpoint.at_rest() {
            Some(_) => Ok(one.checkpoint),
            None => Err("it is not of a run that ended normally".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::position;

    #[test]
    fn only_a_run_that_ended_normally_leaves_one_and_only_its_source_reads_it() {
        let inventory = Some("token".to_owned());
        let ended =
            Checkpoint { position: Some(position("7")), inventory, ..Checkpoint::default() };
        let text = PortableCheckpoint::text("http://here/books", &ended).unwrap();
        assert_eq!(PortableCheckpoint::read(text.as_bytes(), "http://here/books").unwrap(), ended);
        let other = PortableCheckpoint::read(text.as_bytes(), "http://there/books").unwrap_err();
        assert!(other.contains("another source (http://here/books)"), "{other}");
        for end in 0..text.len() - 2 {
            let torn = PortableCheckpoint::read(&text.as_bytes()[..end], "http://here/books");
            assert!(torn.unwrap_err().contains("not a checkpoint"), "{end}");
        }
        let open = Checkpoint { open_since: Some(jiff::Timestamp::now()), ..ended.clone() };
        let scanning = Checkpoint { scanning: Some("x".into()), ..ended.clone() };
        let unlisted = Checkpoint { inventory: None, ..ended };
        for one in [open, scanning, unlisted] {
            assert!(PortableCheckpoint::text("x", &one).is_none(), "{one:?}");
        }
    }
}
