//! How old the copy of a collection is, in numbers that grow while nothing comes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::pipeline::{Evidence, Phase, PipelineReport, Stated, seconds_since};
use crate::source::Behind;

/// How old the copy of a collection is, when it was asked. What this process knows is measured with the
/// machine's own count of seconds; what an earlier process knew, with the wall clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Lag {
    /// The number of seconds for which the mirror may have been behind the source.
    #[serde(rename = "lag_seconds")]
    pub seconds: Option<f64>,
    /// How far the checkpoint is behind the source's end, as the source states it.
    #[serde(default)]
    pub behind: Option<Behind>,
    /// The seconds since it stated that.
    #[serde(default)]
    pub behind_seconds: Option<f64>,
    /// The seconds since anything came from the source.
    #[serde(default)]
    pub heard_seconds: Option<f64>,
    /// The seconds since the last durable commit.
    #[serde(default)]
    pub committed_seconds: Option<f64>,
    /// The time of the last commit of a change.
    #[serde(default)]
    pub changed_at: Option<Timestamp>,
    /// Whether some of these seconds count from before this process, by the wall clock.
    #[serde(default)]
    pub by_wall_clock: bool,
}

impl Lag {
    /// What is known of a collection.
    pub fn of(report: &PipelineReport) -> Self {
        let Evidence { heard, committed, committed_at, changed_at, current, stated, .. } =
            report.evidence;
        let now = Moment::now();
        let age = |at: Moment| at.age(now).as_secs_f64();
        // A mirror that is current, or has read something, has heard the source.
        let heard_at = report.current_at.max(committed_at);
        let before = |at: Option<Timestamp>| at.map(seconds_since);
        let silence = heard.map(age);
        let stated = stated.filter(|stated| holds(stated, report.phase, silence));
        let lacks = |known: Option<Moment>, at: Option<Timestamp>| known.is_none() && at.is_some();
        Self {
            seconds: report.lag_seconds(),
            behind: stated.map(|stated| stated.behind),
            behind_seconds: stated.map(|stated| age(stated.at)),
            heard_seconds: silence.or_else(|| before(heard_at)),
            committed_seconds: committed.map(age).or_else(|| before(committed_at)),
            changed_at,
            by_wall_clock: lacks(current, report.current_at)
                || lacks(heard, heard_at)
                || lacks(committed, committed_at),
        }
    }
}

/// Whether what the source stated may still be repeated: not if it, or the disk, is waited for. That nothing is
/// missing is only said while the source is heard.
fn holds(stated: &Stated, phase: Phase, silence: Option<f64>) -> bool {
    /// Longer than the pause between two heartbeats, or two sweeps.
    const LONGEST: f64 = 60.0;
    let works = matches!(
        phase,
        Phase::CatchingUp | Phase::Scanning | Phase::Live | Phase::CaughtUp | Phase::Queued
    );
    let is_heard = silence.is_some_and(|silence| silence < LONGEST);
    works && (is_heard || !stated.behind.is_nothing())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn ago(seconds: u64) -> Option<Moment> {
        Some(Moment::at(Moment::now().millis().saturating_sub(seconds * 1_000)))
    }

    #[test]
    fn every_number_grows_while_nothing_comes() {
        let mut report = PipelineReport::new("books".into());
        report.phase = Phase::Live;
        report.evidence.heard = ago(5);
        report.evidence.committed = ago(7);
        report.be_current(ago(6).unwrap());
        let lag = Lag::of(&report);
        assert!(lag.heard_seconds.unwrap() >= 5.0 && lag.committed_seconds.unwrap() >= 7.0);
        assert!(lag.seconds.unwrap() >= 6.0 && !lag.by_wall_clock);
        let later = Lag::of(&report);
        assert!(later.heard_seconds >= lag.heard_seconds && later.seconds >= lag.seconds);
    }

    #[test]
    fn what_an_earlier_process_knew_is_measured_with_the_wall_clock_and_never_negative() {
        let mut report = PipelineReport::new("books".into());
        let nothing = Lag::of(&report);
        assert_eq!(
            (nothing.seconds, nothing.heard_seconds, nothing.by_wall_clock),
            (None, None, false)
        );
        let at = Timestamp::now().checked_sub(HOUR).ok();
        (report.evidence.committed_at, report.evidence.changed_at) = (at, at);
        let lag = Lag::of(&report);
        assert!(lag.committed_seconds.unwrap() >= 3600.0 && lag.heard_seconds.unwrap() >= 3600.0);
        assert!(lag.by_wall_clock && lag.changed_at == at);
        let ahead = Timestamp::now().checked_add(HOUR).ok();
        (report.current_at, report.evidence.committed_at) = (ahead, ahead);
        let lag = Lag::of(&report);
        let seconds = [lag.seconds, lag.heard_seconds, lag.committed_seconds];
        assert_eq!(seconds, [Some(0.0); 3]);
        (report.evidence.heard, report.evidence.committed) = (ago(1), ago(1));
        report.be_current(ago(1).unwrap());
        assert!(!Lag::of(&report).by_wall_clock);
    }

    #[test]
    fn nobody_says_that_nothing_is_missing_while_the_source_or_the_disk_is_waited_for() {
        let mut report = PipelineReport::new("books".into());
        let stated = |behind| Stated { behind, at: ago(3).unwrap(), rows: 0 };
        report.evidence.stated = Some(stated(Behind::Changes(0)));
        report.evidence.heard = ago(3);
        report.phase = Phase::Live;
        let lag = Lag::of(&report);
        assert_eq!(lag.behind, Some(Behind::Changes(0)));
        assert!(lag.behind_seconds.unwrap() >= 3.0);
        for phase in [Phase::Waiting, Phase::Failed, Phase::Vanished, Phase::Stopped, Phase::Paused]
        {
            report.phase = phase;
            let lag = Lag::of(&report);
            assert_eq!((lag.behind, lag.behind_seconds), (None, None), "{phase:?}");
        }
        report.phase = Phase::Live;
        report.evidence.heard = Some(Moment::at(Moment::now().millis().saturating_sub(61_000)));
        if Moment::now().millis() > 61_000 {
            assert_eq!(Lag::of(&report).behind, None, "it has been silent");
            report.evidence.stated = Some(stated(Behind::Changes(7)));
            assert_eq!(Lag::of(&report).behind, Some(Behind::Changes(7)), "they were missing then");
        }
    }
}
