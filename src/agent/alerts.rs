//! What is wrong with the mirrors, as alerts that begin and end once each.
//!
//! Pure: it compares what is seen now with what was seen before. It sends nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::clock::Moment;
use crate::document::{CollectionName, MirrorName};
use crate::pipeline::{Awaited, Phase, PipelineReport};
use crate::runner::Lag;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A collection may have been behind its source for too long.
    Late,
    /// Documents of a collection, or the collection itself, could not be mirrored.
    Failing,
    /// Deletions of a collection are held back.
    Braked,
    /// A collection waits for room on the disk.
    OutOfRoom,
    /// Documents of a collection are damaged on the disk.
    Damaged,
    /// A mirror ended with an error, and is started again.
    Down,
    /// A mirror ended with an error that somebody has to mend, such as damage.
    Parked,
}

impl AlertKind {
    /// What to do about it.
    fn remedy(self) -> &'static str {
        match self {
            Self::Late => {
                "look at `phase` and `trouble` in `plainfold status`: the source does not answer, \
                           the disk is slow, or more changes come than can be written"
            }
            Self::Failing => {
                "look at `failed` and `trouble` in `plainfold status`: each failure says what \
                              to do"
            }
            Self::Braked => {
                "compare the mirror with its source by `plainfold diff`; if the deletions are \
                             right, run `plainfold release`"
            }
            Self::OutOfRoom => {
                "make room on the mirror's file system; the mirror then resumes by itself"
            }
            Self::Damaged => {
                "look at `damage` in `plainfold status`, and at the disk; `plainfold verify NAME` lists all \
                 of it, and a repair fetches the documents again"
            }
            Self::Down => {
                "nothing if it ends soon, because the mirror is started again; otherwise look at \
                           the error"
            }
            Self::Parked => "mend what the error names, then start the mirror again",
        }
    }

    /// How long it must last before it is reported.
    fn patience(self) -> Duration {
        match self {
            // A document that fails may be read at the next attempt, and a mirror starts again.
            Self::Failing | Self::Down => Duration::from_secs(60),
            Self::OutOfRoom => Duration::from_secs(10),
            Self::Late | Self::Braked | Self::Damaged | Self::Parked => Duration::ZERO,
        }
    }
}

/// How long it must be well before an alert ends: what comes and goes is one alert.
const CALM: Duration = Duration::from_secs(60);

const BEHIND: &str = "it may have been behind its source";

/// A late collection is well again below this part of the limit.
const CLOSE: f64 = 0.5;

/// What an alert is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Subject {
    /// The mirror.
    pub mirror: MirrorName,
    /// The collection, if it is about one.
    pub collection: Option<CollectionName>,
    /// What is wrong with it.
    #[serde(rename = "alert")]
    pub kind: AlertKind,
}

impl Subject {
    /// What is wrong, in a word.
    pub fn word(&self) -> String {
        let kind = serde_json::to_value(self.kind).unwrap_or_default();
        kind.as_str().unwrap_or_default().to_owned()
    }

    /// What it is about, in words.
    pub fn place(&self) -> String {
        let mirror = &self.mirror;
        match &self.collection {
            Some(collection) => format!("mirror {mirror}, collection {collection}"),
            None => format!("mirror {mirror}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\": {}", self.word(), self.place())
    }
}

/// A mirror as it is seen now.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name.
    pub mirror: MirrorName,
    /// Why it does not run, although it should, and what is wrong then.
    pub fault: Option<(AlertKind, String)>,
    /// After which lag its collections are late.
    pub late_after: Duration,
    /// Whether nothing can be said of it as a whole yet: it is being started, or has not caught up since.
    pub is_unsettled: bool,
    /// Its collections; `None` while nothing is known of them, because no session runs. Empty if nothing was
    /// missing when the last one ended.
    pub collections: Option<Vec<(PipelineReport, Lag)>>,
    /// How long its session has run.
    pub runs_for: Duration,
}

/// An alert that has begun, or ended.
#[derive(Clone, Debug, Serialize)]
pub struct Alert {
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// Whether it begins or ends.
    pub state: AlertState,
    /// What is wrong, or was.
    pub reason: String,
    /// What to do.
    pub remedy: &'static str,
    /// When it began.
    pub since: Timestamp,
    /// When this was noticed.
    pub at: Timestamp,
    /// The version of Plainfold.
    pub version: &'static str,
}

/// Whether an alert begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertState {
    /// It begins.
    Raised,
    /// All is well again.
    Resolved,
}

/// The alerts of an agent.
#[derive(Debug, Default)]
pub struct Alerts {
    known: BTreeMap<Subject, Known>,
}

/// Something that is, or was, wrong.
#[derive(Debug)]
struct Known {
    reason: String,
    since: Moment,
    /// Since when it has been well again.
    well: Option<Moment>,
    is_raised: bool,
}

/// How one thing is now.
enum Found {
    Wrong(String),
    /// Not as wrong as that an alert begins, nor as well as that one ends.
    Between,
}

impl Alerts {
    /// Compares what is seen with what was seen, and returns the alerts that begin or end.
    pub fn look(&mut self, seen: &[Seen], now: Moment) -> Vec<Alert> {
        let mut found = BTreeMap::new();
        for mirror in seen {
            note(mirror, &mut found);
        }
        let is_unknown = |subject: &Subject| {
            let mirror = seen.iter().find(|mirror| mirror.mirror == subject.mirror);
            // What is not seen is not well, nor worse than it was.
            mirror.is_some_and(|mirror| match subject.collection {
                Some(_) => mirror.collections.is_none(),
                None => mirror.is_unsettled,
            })
        };
        for (subject, known) in &mut self.known {
            match found.remove(subject) {
                Some(Found::Wrong(reason)) => (known.reason, known.well) = (reason, None),
                Some(Found::Between) => known.well = None,
                None if is_unknown(subject) => {}
                None => _ = known.well.get_or_insert(now),
            }
        }
        for (subject, is) in found {
            if let Found::Wrong(reason) = is {
                let known = Known { reason, since: now, well: None, is_raised: false };
                self.known.insert(subject, known);
            }
        }
        let mut changed = Vec::new();
        self.known.retain(|subject, known| match (known.is_raised, known.well) {
            (false, None) => {
                if known.since.age(now) >= subject.kind.patience() {
                    known.is_raised = true;
                    changed.push(alert(subject, known, AlertState::Raised));
                }
                true
            }
            (true, Some(well)) if well.age(now) >= CALM && !is_unknown(subject) => {
                changed.push(alert(subject, known, AlertState::Resolved));
                false
            }
            (true, _) => true,
            (false, Some(_)) => false,
        });
        changed
    }

    /// Whether nothing is wrong, as far as is known.
    pub fn are_well(&self) -> bool {
        self.known.is_empty()
    }
}

fn alert(subject: &Subject, known: &Known, state: AlertState) -> Alert {
    Alert {
        subject: subject.clone(),
        state,
        reason: known.reason.clone(),
        remedy: subject.kind.remedy(),
        since: known.since.on_the_wall(),
        at: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// Notes what is wrong with a mirror.
fn note(seen: &Seen, found: &mut BTreeMap<Subject, Found>) {
    let subject = |collection: Option<&CollectionName>, kind| Subject {
        mirror: seen.mirror.clone(),
        collection: collection.cloned(),
        kind,
    };
    if let Some((kind, reason)) = &seen.fault {
        found.insert(subject(None, *kind), Found::Wrong(reason.clone()));
    }
    for (report, lag) in seen.collections.iter().flatten() {
        let name = Some(&report.collection);
        let mut wrong = |kind, reason| found.insert(subject(name, kind), Found::Wrong(reason));
        if let Some(reason) = failing(report) {
            wrong(AlertKind::Failing, reason);
        }
        if report.held_back > 0 {
            wrong(AlertKind::Braked, format!("{} deletions are held back", report.held_back));
        }
        if report.damaged > 0 {
            let damage = report.damage.as_deref().unwrap_or("documents are damaged");
            wrong(AlertKind::Damaged, damage.to_owned());
        }
        let trouble = || report.trouble.clone().unwrap_or_default();
        if report.phase == Phase::Waiting && report.awaited == Awaited::Room {
            wrong(AlertKind::OutOfRoom, trouble());
        }
        if let Some(late) = late(report, lag, seen) {
            found.insert(subject(name, AlertKind::Late), late);
        }
    }
}

/// Why a collection fails, if it does.
fn failing(report: &PipelineReport) -> Option<String> {
    if matches!(report.phase, Phase::Failed | Phase::Vanished) {
        return Some(report.trouble.clone().unwrap_or_else(|| "it has ended".to_owned()));
    }
    if report.failures > 0 {
        return Some(format!("{} documents could not be mirrored", report.failures));
    }
    report.count_trouble.clone().or_else(|| report.security_trouble.clone())
}

/// Whether a collection is late, or only just not late. A collection that is being read for the first time
/// is late only if the source is silent.
fn late(report: &PipelineReport, lag: &Lag, seen: &Seen) -> Option<Found> {
    if matches!(report.phase, Phase::Paused | Phase::Vanished | Phase::CaughtUp) {
        return None;
    }
    let runs_for = seen.runs_for.as_secs_f64();
    let works = matches!(report.phase, Phase::CatchingUp | Phase::Scanning);
    let silence = lag.heard_seconds.unwrap_or(runs_for).min(runs_for);
    let (seconds, what) = match lag.seconds {
        _ if works && !report.caught_up => (silence, "nothing has come from its source"),
        Some(seconds) if report.caught_up => (seconds, BEHIND),
        // What an earlier process has left counts from the start of this one.
        Some(seconds) => (seconds.min(runs_for), BEHIND),
        None => (runs_for, BEHIND),
    };
    let limit = seen.late_after.as_secs_f64();
    if seconds > limit {
        let trouble = report.trouble.as_ref().map(|trouble| format!(": {trouble}"));
        let reason = format!("{what} for {seconds:.0} s{}", trouble.unwrap_or_default());
        return Some(Found::Wrong(reason));
    }
    (seconds > limit * CLOSE).then_some(Found::Between)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;

    fn at(seconds: u64) -> Moment {
        Moment::at(1_000_000 + seconds * 1_000)
    }

    fn report() -> PipelineReport {
        let new = PipelineReport::new("books".into());
        PipelineReport { phase: Phase::Live, caught_up: true, ..new }
    }

    fn seen(report: PipelineReport, lag: f64) -> Seen {
        let lag = Lag { seconds: Some(lag), heard_seconds: Some(lag), ..Lag::default() };
        Seen {
            mirror: "shop".parse().unwrap(),
            fault: None,
            is_unsettled: false,
            late_after: Duration::from_secs(5 * MINUTE),
            collections: Some(vec![(report, lag)]),
            runs_for: Duration::from_secs(24 * 60 * MINUTE),
        }
    }

    /// What happens in a row of looks, each at its second.
    fn changes(looks: Vec<(u64, Seen)>) -> Vec<(u64, AlertKind, AlertState)> {
        let (mut alerts, mut all) = (Alerts::default(), Vec::new());
        for (second, seen) in looks {
            for alert in alerts.look(&[seen], at(second)) {
                assert!(!alert.reason.is_empty() && !alert.remedy.is_empty());
                all.push((second, alert.subject.kind, alert.state));
            }
        }
        all
    }

    #[test]
    fn each_trouble_has_its_alert_and_each_alert_an_end() {
        use AlertState::{Raised, Resolved};
        let waiting = |awaited| {
            let mut report = report();
            report.wait(awaited, "why".to_owned(), Duration::ZERO);
            report
        };
        let table: Vec<(&str, Seen, AlertKind, u64)> = vec![
            ("late", seen(report(), 301.0), AlertKind::Late, 0),
            (
                "a document failed",
                seen(PipelineReport { failures: 1, ..report() }, 0.0),
                AlertKind::Failing,
                60,
            ),
            (
                "the collection failed",
                seen(PipelineReport { phase: Phase::Failed, ..report() }, 0.0),
                AlertKind::Failing,
                60,
            ),
            (
                "braked",
                seen(PipelineReport { held_back: 9, ..report() }, 0.0),
                AlertKind::Braked,
                0,
            ),
            (
                "damaged",
                seen(PipelineReport { damaged: 2, ..report() }, 0.0),
                AlertKind::Damaged,
                0,
            ),
            ("out of room", seen(waiting(Awaited::Room), 0.0), AlertKind::OutOfRoom, 10),
            (
                "parked",
                Seen {
                    fault: Some((AlertKind::Parked, "why".to_owned())),
                    collections: None,
                    ..seen(report(), 0.0)
                },
                AlertKind::Parked,
                0,
            ),
            (
                "down",
                Seen {
                    fault: Some((AlertKind::Down, "why".to_owned())),
                    collections: None,
                    ..seen(report(), 0.0)
                },
                AlertKind::Down,
                60,
            ),
        ];
        for (what, wrong, kind, after) in table {
            let mut looks: Vec<_> = (0..30).map(|one| (one * 10, wrong.clone())).collect();
            looks.extend((30..60).map(|one| (one * 10, seen(report(), 1.0))));
            let expected = [(after, kind, Raised), (360, kind, Resolved)];
            assert_eq!(changes(looks), expected, "{what}");
        }
    }

    #[test]
    fn what_comes_and_goes_is_one_alert() {
        let braked = || seen(PipelineReport { held_back: 1, ..report() }, 0.0);
        let well = || seen(report(), 0.0);
        let looks = (0..20).map(|one| (one * 20, if one % 2 == 0 { braked() } else { well() }));
        assert_eq!(changes(looks.collect()), [(0, AlertKind::Braked, AlertState::Raised)]);
        // A failure that the next attempt mends is not reported.
        let failing = || seen(PipelineReport { failures: 1, ..report() }, 0.0);
        assert!(changes(vec![(0, failing()), (50, well()), (100, failing())]).is_empty());
    }

    #[test]
    fn a_lag_about_the_limit_neither_begins_nor_ends_an_alert() {
        let lags = [301.0, 290.0, 310.0, 200.0, 299.0];
        let looks = lags.iter().cycle().take(50).zip(0..);
        let looks = looks.map(|(lag, one)| (one * 30, seen(report(), *lag))).collect();
        assert_eq!(changes(looks), [(0, AlertKind::Late, AlertState::Raised)]);
        let below = [290.0, 200.0, 299.0].iter().cycle().take(50).zip(0..);
        let below = below.map(|(lag, one)| (one * 30, seen(report(), *lag))).collect();
        assert!(changes(below).is_empty());
    }

    #[test]
    fn what_is_not_seen_is_not_well_and_what_is_gone_is() {
        let mut alerts = Alerts::default();
        let braked = seen(PipelineReport { held_back: 1, ..report() }, 0.0);
        assert_eq!(alerts.look(std::slice::from_ref(&braked), at(0)).len(), 1);
        let resting = Seen { collections: None, ..braked };
        assert!(alerts.look(std::slice::from_ref(&resting), at(10)).is_empty());
        assert!(
            alerts.look(std::slice::from_ref(&resting), at(10_000)).is_empty()
                && !alerts.are_well()
        );
        // One look at which it was well does not end the alert while nothing is known.
        let well = seen(report(), 0.0);
        assert!(alerts.look(std::slice::from_ref(&well), at(10_001)).is_empty());
        assert!(alerts.look(&[resting], at(10_200)).is_empty());
        assert_eq!(alerts.look(&[well], at(10_201))[0].state, AlertState::Resolved);
        assert!(alerts.are_well());
    }

    #[test]
    fn the_alerts_of_a_mirror_that_is_removed_end() {
        let braked = seen(PipelineReport { held_back: 1, ..report() }, 0.0);
        let mut alerts = Alerts::default();
        assert_eq!(alerts.look(&[braked], at(0)).len(), 1);
        assert!(alerts.look(&[], at(10)).is_empty());
        let ended = alerts.look(&[], at(100));
        assert_eq!(ended[0].state, AlertState::Resolved);
        assert!(alerts.are_well());
    }

    #[test]
    fn a_mirror_that_catches_up_by_schedule_fails_between_its_runs_and_is_well_after_a_complete_one()
     {
        let fault = Some((AlertKind::Failing, "6 documents failed".to_owned()));
        let lacks = Seen { fault, collections: None, ..seen(report(), 0.0) };
        let starts = Seen { fault: None, is_unsettled: true, ..lacks.clone() };
        let whole = Seen { collections: Some(Vec::new()), fault: None, ..lacks.clone() };
        let mut looks = Vec::new();
        for (from, wait) in [(0, &lacks), (100, &lacks), (200, &whole), (300, &whole)] {
            looks.push((from, starts.clone()));
            looks.extend((1..20).map(|one| (from + one * 5, wait.clone())));
        }
        let kinds: Vec<_> = changes(looks).iter().map(|(_, kind, state)| (*kind, *state)).collect();
        let expected =
            [AlertState::Raised, AlertState::Resolved].map(|it| (AlertKind::Failing, it));
        assert_eq!(kinds, expected);
    }

    #[test]
    fn a_first_copy_is_late_only_if_the_source_is_silent() {
        let first = PipelineReport { phase: Phase::CatchingUp, caught_up: false, ..report() };
        let lag = |heard| Lag { heard_seconds: Some(heard), ..Lag::default() };
        let with = |report: &PipelineReport, heard| Seen {
            collections: Some(vec![(report.clone(), lag(heard))]),
            ..seen(report.clone(), 0.0)
        };
        assert!(changes(vec![(0, with(&first, 2.0))]).is_empty());
        assert_eq!(changes(vec![(0, with(&first, 400.0))]).len(), 1);
        let mut waiting = first.clone();
        waiting.wait(Awaited::Source, "no answer".to_owned(), Duration::ZERO);
        assert_eq!(changes(vec![(0, with(&waiting, 2.0))]).len(), 1, "it has never caught up");
        let young = Seen { runs_for: Duration::from_secs(9), ..with(&waiting, 900.0) };
        assert!(changes(vec![(0, young)]).is_empty(), "the agent has just begun");
        let paused = PipelineReport { phase: Phase::Paused, ..report() };
        assert!(changes(vec![(0, seen(paused, 9_999.0))]).is_empty(), "somebody wants it");
    }

    #[test]
    fn an_alert_is_a_document_with_what_to_do() {
        let mut alerts = Alerts::default();
        let braked = seen(PipelineReport { held_back: 1, ..report() }, 0.0);
        let raised = alerts.look(&[braked], at(0));
        assert_eq!(raised[0].subject.to_string(), "\"braked\": mirror shop, collection books");
        let value = serde_json::to_value(&raised[0]).unwrap();
        assert_eq!(value["alert"], "braked");
        assert_eq!((&value["mirror"], &value["collection"]), (&"shop".into(), &"books".into()));
        assert_eq!(value["state"], "raised");
        assert!(value["remedy"].as_str().unwrap().contains("release"));
    }
}
