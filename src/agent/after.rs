//! What the end of a session means for its mirror: a table, and the words for people.

use std::any::Any;
use std::time::Duration;

use crate::config::StartError;
use crate::config::file::LowerError;
use crate::document::plain;
use crate::pipeline::PipelineError;
use crate::runner::{self, Remedy, SessionError};
use crate::source::retry::RetryPolicy;
use crate::tree::MirrorError;

/// What follows from the end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterRun {
    /// It was told to end.
    Stopped,
    /// It ran to its end; what is missing, if anything.
    Done {
        /// In words.
        trouble: Option<String>,
    },
    /// Time, or somebody else, may mend it: it starts again after a pause.
    Again {
        /// The error.
        error: String,
        /// How long the pauses are.
        pauses: RetryPolicy,
    },
    /// It would end the same way: it waits for somebody.
    Park {
        /// The error.
        error: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// The pauses where time may mend it: a full disk, a server that is down.
const SOON: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(5),
    longest: Duration::from_secs(300),
    ..RetryPolicy::FOLLOW
};

/// The pauses where somebody has to mend it. CouchDB locks a user out after five failures in five minutes,
/// so the first pause is longer than a minute.
const LATER: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(90),
    longest: Duration::from_secs(3600),
    ..RetryPolicy::FOLLOW
};

const MEND: &str =
    "mend it, then start the mirror with `plainfold catch-up NAME`, or reload the agent";
const REPORT: &str = "report this with the log; `plainfold catch-up NAME` starts the mirror again";

impl AfterRun {
    /// A mirror whose options or secrets cannot be used.
    pub fn of_entry(error: &LowerError) -> Self {
        Self::Park { error: plain::with_causes(error), remedy: MEND }
    }

    /// A session that was not started, because a program that runs before it has failed.
    pub fn of_hook(error: String) -> Self {
        Self::Again { error, pauses: SOON }
    }

    /// A session that could not be started.
    pub fn of_start(error: StartError) -> Self {
        match error {
            StartError::Mirror(error) => Self::of(&error.into()),
            StartError::State(error) => Self::of(&error.into()),
            StartError::Source(error) => Self::of(&error.into()),
            StartError::Glob(_) => Self::Park { error: plain::with_causes(&error), remedy: MEND },
        }
    }

    /// A session that has ended. One that `follows` does not end by itself.
    pub fn of_outcome(outcome: runner::Outcome, follows: bool) -> Self {
        let lacks = lacking(&outcome);
        let fates = outcome.errors.into_iter().map(|error| match error {
            SessionError::Source(error) => Self::of(&error.into()),
            SessionError::Mirror(error) => Self::of(&error.into()),
            SessionError::Collection { collection, error } => {
                Self::of(&error).about(collection.as_str())
            }
        });
        let worst = fates.max_by_key(|fate| match fate {
            Self::Stopped | Self::Done { .. } => 0,
            Self::Again { pauses, .. } => pauses.first.as_secs(),
            Self::Park { .. } => u64::MAX,
        });
        match worst {
            Some(fate) => fate,
            None if follows => {
                Self::Again { error: "the session ended by itself".to_owned(), pauses: SOON }
            }
            None => Self::Done { trouble: lacks },
        }
    }

    /// A session that panicked.
    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        let words = words.and_then(|words| words.lines().next()).unwrap_or("no reason given");
        Self::Park {
            error: format!("internal error (a bug in Plainfold): {}", plain::text(words)),
            remedy: REPORT,
        }
    }

    fn of(error: &PipelineError) -> Self {
        let text = plain::with_causes(error);
        match error {
            // Another command, which ends.
            PipelineError::Mirror(MirrorError::Locked { .. }) => {
                Self::Again { error: text, pauses: SOON }
            }
            // The next run resumes there.
            PipelineError::TooManyFailures { .. } => Self::Done { trouble: Some(text) },
            error => match Remedy::of(error) {
                Remedy::Soon => Self::Again { error: text, pauses: SOON },
                Remedy::Later => Self::Again { error: text, pauses: LATER },
                Remedy::Park | Remedy::End => Self::Park { error: text, remedy: MEND },
            },
        }
    }

    fn about(self, collection: &str) -> Self {
        let about = |text: String| format!("{collection}: {text}");
        match self {
            Self::Again { error, pauses } => Self::Again { error: about(error), pauses },
            Self::Park { error, remedy } => Self::Park { error: about(error), remedy },
            Self::Done { trouble } => Self::Done { trouble: trouble.map(about) },
            Self::Stopped => Self::Stopped,
        }
    }
}

/// What a session that ran to its end lacks.
fn lacking(outcome: &runner::Outcome) -> Option<String> {
    if outcome.is_complete() {
        return None;
    }
    let parts = [
        (outcome.failures.len() as u64, "documents failed"),
        (outcome.in_flight(), "documents are still to be fetched"),
        (outcome.held_back(), "deletions are held back"),
        (outcome.absent.len() as u64, "collections are missing at the source"),
        (outcome.unsecured().count() as u64, "security objects were not mirrored"),
        (outcome.miscounted() as u64, "collections have another count than the source"),
        (outcome.behind() as u64, "collections are behind"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = parts.map(|(count, what)| format!("{what}: {count}")).collect();
    Some(parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceError;
    use crate::tree::Holder;

    #[test]
    fn a_server_that_is_down_is_tried_again_and_a_refused_password_not_so_soon() {
        let fate = |error: SourceError| AfterRun::of_start(error.into());
        assert!(matches!(fate(SourceError::transient("x")), AfterRun::Again { pauses: SOON, .. }));
        let refused = SourceError::Refused { what: "the password".to_owned() };
        assert!(matches!(fate(refused), AfterRun::Again { pauses: LATER, .. }));
        assert!(LATER.first > Duration::from_secs(60));
        let other = SourceError::NotAFeed { what: "it is a picture".to_owned() };
        assert!(matches!(fate(other), AfterRun::Park { .. }));
    }

    #[test]
    fn a_mirror_in_use_or_a_full_disk_is_waited_for_and_a_damaged_mirror_is_parked() {
        let fate = |error: MirrorError| AfterRun::of_start(error.into());
        let path = || "/mirror".into();
        let locked = MirrorError::Locked { path: path(), holder: Holder::default() };
        assert!(matches!(fate(locked), AfterRun::Again { pauses: SOON, .. }));
        let full = MirrorError::io("write", "/mirror", std::io::ErrorKind::StorageFull);
        assert!(matches!(fate(full), AfterRun::Again { pauses: SOON, .. }));
        for error in [
            MirrorError::BadFormat { path: path(), reason: "no JSON".to_owned() },
            MirrorError::NotOurs { path: path(), example: "x".to_owned() },
            MirrorError::TakenOver { path: path(), holder: Holder::default() },
        ] {
            assert!(matches!(fate(error), AfterRun::Park { .. }));
        }
    }

    #[test]
    fn a_panic_is_said_in_a_line() {
        let panic: Box<dyn Any + Send> = Box::new("first\nsecond".to_owned());
        let AfterRun::Park { error, .. } = AfterRun::of_panic(&*panic) else { panic!() };
        assert!(error.ends_with(": first"), "{error}");
    }
}
