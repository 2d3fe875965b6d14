//! What an error means for a collection whose mirror follows its source.

use std::time::Duration;

use crate::checkpoint::StateError;
use crate::pipeline::PipelineError;
use crate::source::SourceError;
use crate::source::retry::RetryPolicy;
use crate::tree::MirrorError;

/// What follows when the run of a collection ends with an error. The other collections continue,
/// unless the mirror ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Time may mend it: the collection tries again after short pauses.
    Soon,
    /// Somebody has to mend it, at the source or in Plainfold: the collection tries again after long pauses.
    Later,
    /// The collection does not try again in this process: the same would happen again.
    Park,
    /// The collections share the cause, or the user has to decide: the mirror ends.
    End,
}

impl Remedy {
    /// The remedy for an error.
    pub fn of(error: &PipelineError) -> Self {
        match error {
            PipelineError::Source(error) => Self::of_source(error),
            PipelineError::Disagrees(_) => Self::Soon,
            PipelineError::TooManyFailures { .. } => Self::Park,
            PipelineError::Mirror(
                MirrorError::OtherSource { .. } | MirrorError::Discards { .. },
            ) => Self::End,
            // Another collection may have no such document.
            PipelineError::Task(_) | PipelineError::State(StateError::Abandoned) => Self::Later,
            error if error.is_disk() || !is_shared(error) => Self::Soon,
            PipelineError::Mirror(_) | PipelineError::State(_) => Self::End,
        }
    }

    fn of_source(error: &SourceError) -> Self {
        match error {
            SourceError::Transient { .. }
            | SourceError::Expired { .. }
            | SourceError::Missing { .. } => Self::Soon,
            SourceError::Refused { .. } | SourceError::Permanent { .. } => Self::Later,
            SourceError::NotAFeed { .. } => Self::Park,
        }
    }

    /// The pauses before the next tries; `None` if there is no other try.
    pub(super) fn pauses(self, retry: RetryPolicy) -> Option<RetryPolicy> {
        match self {
            Self::Soon => Some(retry),
            Self::Later => {
                Some(RetryPolicy { first: FIRST_LATER, longest: LONGEST_LATER, ..retry })
            }
            Self::Park | Self::End => None,
        }
    }

    /// Whether nothing that this process does mends it.
    pub(super) fn is_hopeless(self) -> bool {
        self != Self::Soon
    }
}

/// Whether all collections share the cause of an error: the disk, or the state.
pub(super) fn is_shared(error: &PipelineError) -> bool {
    match error {
        PipelineError::Mirror(MirrorError::OtherSource { .. } | MirrorError::Discards { .. }) => {
            false
        }
        PipelineError::Mirror(error) => !error.is_of_collection(),
        PipelineError::State(error) => !matches!(error, StateError::Abandoned),
        PipelineError::Task(_)
        | PipelineError::Source(_)
        | PipelineError::Disagrees(_)
        | PipelineError::TooManyFailures { .. } => false,
    }
}

/// The first pause when somebody has to mend something.
const FIRST_LATER: Duration = Duration::from_secs(60);

/// The longest such pause.
const LONGEST_LATER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn io(kind: std::io::ErrorKind) -> MirrorError {
        MirrorError::Io { action: "write", path: "/mirror".into(), source: kind.into() }
    }

    #[test]
    fn each_error_has_its_remedy() {
        let text = || "why".to_owned();
        let table: Vec<(PipelineError, Remedy)> = vec![
            (SourceError::transient("500").into(), Remedy::Soon),
            (SourceError::missing("deleted").into(), Remedy::Soon),
            (SourceError::Expired { reason: text() }.into(), Remedy::Soon),
            (PipelineError::Disagrees(text()), Remedy::Soon),
            (SourceError::permanent("400").into(), Remedy::Later),
            (SourceError::Refused { what: text() }.into(), Remedy::Later),
            (SourceError::NotAFeed { what: text() }.into(), Remedy::Park),
            (PipelineError::TooManyFailures { limit: 1, place: text() }, Remedy::Park),
            (StateError::Abandoned.into(), Remedy::Later),
            (io(std::io::ErrorKind::StorageFull).into(), Remedy::Soon),
            (io(std::io::ErrorKind::PermissionDenied).into(), Remedy::End),
            (
                MirrorError::OtherSource { collection: text(), recorded: text(), given: text() }
                    .into(),
                Remedy::End,
            ),
        ];
        for (error, remedy) in table {
            assert_eq!(Remedy::of(&error), remedy, "{error}");
        }
    }

    #[test]
    fn a_fault_of_the_disk_is_shared_and_one_of_a_source_is_not() {
        assert!(is_shared(&io(std::io::ErrorKind::StorageFull).into()));
        assert!(!is_shared(&SourceError::permanent("400").into()));
        assert!(!is_shared(&StateError::Abandoned.into()));
        let text = || "why".to_owned();
        let other =
            MirrorError::OtherSource { collection: text(), recorded: text(), given: text() };
        assert!(!is_shared(&other.into()));
    }

    #[test]
    fn what_a_person_has_to_mend_is_tried_less_often() {
        let soon = Remedy::Soon.pauses(RetryPolicy::FOLLOW).unwrap();
        let later = Remedy::Later.pauses(RetryPolicy::FOLLOW).unwrap();
        assert!(soon.longest < later.first && later.first < later.longest);
        assert!(Remedy::Park.pauses(RetryPolicy::FOLLOW).is_none());
        assert!(Remedy::End.pauses(RetryPolicy::FOLLOW).is_none());
        assert!(!Remedy::Soon.is_hopeless() && Remedy::Later.is_hopeless());
    }
}
