//! `GET /metrics`: numbers for Prometheus, in its text format.
//!
//! Labels are the mirror, the collection and the cursor, never a document, so that the number of series has a bound.
//! Nothing here reads a disk: what hangs there must not hide the numbers that say so.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::chosen::ApiState;
use super::problem::ApiProblem;
use super::usage;
use crate::agent::{MirrorHandle, MirrorState};
use crate::checkpoint::CursorStatus;
use crate::document::plain;
use crate::pipeline::{Awaited, Phase, PipelineReport};
use crate::runner::{Lag, Watcher};
use crate::source::Behind;

/// A mirror, as its metrics are labelled.
pub struct Observed {
    /// Its name.
    pub name: String,
    /// What works on it, if anything does.
    pub watcher: Option<Watcher>,
    /// Whether it waits to be started again after a failure.
    pub has_failed: bool,
    /// Whether somebody has to mend something before it starts again.
    pub is_parked: bool,
    /// Whether it is being opened, or waits for its turn to be.
    pub is_starting: bool,
    /// Whether its last run in this process ended with something missing.
    pub was_incomplete: bool,
}

impl Observed {
    /// A mirror of an agent.
    pub fn of(mirror: &MirrorHandle) -> Self {
        let state = mirror.state();
        Self {
            name: mirror.name().to_string(),
            watcher: mirror.watcher(),
            has_failed: matches!(state, MirrorState::Failed { .. }),
            is_parked: matches!(state, MirrorState::Parked { .. }),
            is_starting: matches!(state, MirrorState::Starting),
            was_incomplete: mirror.last_run().is_some_and(|last| !last.complete),
        }
    }

    /// All mirrors that the process works on.
    pub fn all(state: &ApiState) -> Vec<Self> {
        match state {
            ApiState::One(watcher) => vec![Self {
                name: watcher.directory_name(),
                watcher: Some(watcher.clone()),
                has_failed: false,
                is_parked: false,
                is_starting: false,
                was_incomplete: false,
            }],
            ApiState::All(roster) => roster.mirrors().iter().map(Self::of).collect(),
        }
    }
}

/// A metric of each thing of a kind.
struct Measure<T> {
    name: &'static str,
    help: &'static str,
    /// `None` if it is not known.
    of: fn(&T) -> Option<f64>,
}

/// What is known of a collection.
type Collection = (PipelineReport, Lag);

/// A collection of a mirror.
const COLLECTION: [Measure<Collection>; 27] = [
    Measure {
        name: "plainfold_collection_lag_seconds",
        help: "Seconds since the mirror was last known to hold everything that the source held.",
        of: |(_, lag)| lag.seconds,
    },
    Measure {
        name: "plainfold_collection_heard_seconds",
        help: "Seconds since anything came from the source.",
        of: |(_, lag)| lag.heard_seconds,
    },
    Measure {
        name: "plainfold_collection_committed_seconds",
        help: "Seconds since the last durable commit.",
        of: |(_, lag)| lag.committed_seconds,
    },
    Measure {
        name: "plainfold_collection_behind_changes",
        help: "Changes after the checkpoint, as the source counted them.",
        of: |(_, lag)| match lag.behind {
            Some(Behind::Changes(changes)) => Some(changes as f64),
            _ => None,
        },
    },
    Measure {
        name: "plainfold_collection_behind_bytes",
        help: "Bytes of a recorded feed after the checkpoint.",
        of: |(_, lag)| match lag.behind {
            Some(Behind::Bytes(bytes)) => Some(bytes as f64),
            _ => None,
        },
    },
    Measure {
        name: "plainfold_collection_changed_timestamp_seconds",
        help: "Time of the last commit of a change, in seconds since 1970.",
        of: |(_, lag)| Some(lag.changed_at?.as_millisecond() as f64 / 1000.0),
    },
    Measure {
        name: "plainfold_collection_caught_up",
        help: "Whether it has caught up since its session started.",
        of: |(report, _)| flag(report.caught_up),
    },
    Measure {
        name: "plainfold_collection_live",
        help: "Whether it follows its source.",
        of: |(report, _)| flag(report.phase == Phase::Live),
    },
    Measure {
        name: "plainfold_collection_waiting",
        help: "Whether it waits for the source or the disk, and tries again.",
        of: |(report, _)| flag(report.phase == Phase::Waiting),
    },
    Measure {
        name: "plainfold_collection_out_of_room",
        help: "Whether it waits for room on the disk.",
        of: |(report, _)| flag(report.phase == Phase::Waiting && report.awaited == Awaited::Room),
    },
    Measure {
        name: "plainfold_collection_failed",
        help: "Whether it has ended with an error.",
        of: |(report, _)| flag(report.phase == Phase::Failed),
    },
    Measure {
        name: "plainfold_collection_paused",
        help: "Whether it was ordered to pause.",
        of: |(report, _)| flag(report.phase == Phase::Paused),
    },
    Measure {
        name: "plainfold_collection_vanished",
        help: "Whether the source no longer has it.",
        of: |(report, _)| flag(report.phase == Phase::Vanished),
    },
    Measure {
        name: "plainfold_collection_scanning",
        help: "Whether a full scan compares it with its source.",
        of: |(report, _)| flag(report.phase == Phase::Scanning),
    },
    Measure {
        name: "plainfold_collection_miscounted",
        help: "Whether the source counts other documents than the mirror, even after a full scan.",
        of: |(report, _)| flag(report.count_trouble.is_some()),
    },
    Measure {
        name: "plainfold_collection_unsecured",
        help: "Whether the security object could not be mirrored.",
        of: |(report, _)| flag(report.security_trouble.is_some()),
    },
    Measure {
        name: "plainfold_collection_verified_timestamp_seconds",
        help: "Time when every byte had been verified last, in seconds since 1970.",
        of: |(report, _)| Some(report.verified_at?.as_millisecond() as f64 / 1000.0),
    },
    Measure {
        name: "plainfold_collection_damaged_documents",
        help: "Documents that a verification found damaged, and that are still.",
        of: |(report, _)| Some(report.damaged as f64),
    },
    Measure {
        name: "plainfold_collection_watched",
        help: "Whether a change by somebody else is noticed at once.",
        of: |(report, _)| flag(report.watched),
    },
    Measure {
        name: "plainfold_collection_failed_documents",
        help: "Documents that could not be mirrored.",
        of: |(report, _)| Some(report.failures as f64),
    },
    Measure {
        name: "plainfold_collection_in_flight_documents",
        help: "Documents that are being fetched beside the feed.",
        of: |(report, _)| Some(report.in_flight as f64),
    },
    Measure {
        name: "plainfold_collection_held_back_deletions",
        help: "Deletions that are held back until somebody approves them.",
        of: |(report, _)| Some(report.held_back as f64),
    },
    Measure {
        name: "plainfold_collection_documents_written_total",
        help: "Documents written by this session.",
        of: |(report, _)| Some(report.documents as f64),
    },
    Measure {
        name: "plainfold_collection_documents_deleted_total",
        help: "Documents removed by this session.",
        of: |(report, _)| Some(report.deletions as f64),
    },
    Measure {
        name: "plainfold_collection_documents_unchanged_total",
        help: "Changes that the mirror already held.",
        of: |(report, _)| Some(report.unchanged as f64),
    },
    Measure {
        name: "plainfold_collection_attachments_written_total",
        help: "Attachments written by this session.",
        of: |(report, _)| Some(report.attachments as f64),
    },
    Measure {
        name: "plainfold_collection_written_bytes_total",
        help: "Bytes of bodies and attachments written by this session.",
        of: |(report, _)| Some(report.bytes as f64),
    },
];

/// A mirror.
const MIRROR: [Measure<Observed>; 8] = [
    Measure {
        name: "plainfold_mirror_running",
        help: "Whether a session works on the mirror.",
        of: |mirror| flag(mirror.watcher.is_some()),
    },
    Measure {
        name: "plainfold_mirror_failed",
        help: "Whether the mirror ended with an error, and is started again after a pause.",
        of: |mirror| flag(mirror.has_failed),
    },
    Measure {
        name: "plainfold_mirror_parked",
        help: "Whether the mirror ended with an error that somebody has to mend.",
        of: |mirror| flag(mirror.is_parked),
    },
    Measure {
        name: "plainfold_mirror_last_run_incomplete",
        help: "Whether the last run that ended left something missing.",
        of: |mirror| flag(mirror.was_incomplete),
    },
    Measure {
        name: "plainfold_mirror_caught_up",
        help: "Whether every collection has caught up since the session started.",
        of: |mirror| flag(mirror.watcher.as_ref()?.has_caught_up()),
    },
    Measure {
        name: "plainfold_mirror_collections",
        help: "Collections of the mirror.",
        of: |mirror| Some(mirror.watcher.as_ref()?.count() as f64),
    },
    Measure {
        name: "plainfold_mirror_batch_seconds",
        help: "Age of the batch that has been on its way to the disk for longest; 0 without one.",
        of: |mirror| {
            let busy = mirror.watcher.as_ref()?.longest_busy();
            Some(busy.map_or(0.0, |busy| busy.as_secs_f64()))
        },
    },
    Measure {
        name: "plainfold_mirror_events_total",
        help: "The number of the last write event.",
        of: |mirror| Some(mirror.watcher.as_ref()?.last_event() as f64),
    },
];

/// A cursor of a mirror.
const CURSOR: [Measure<CursorStatus>; 1] = [Measure {
    name: "plainfold_cursor_behind_events",
    help: "Numbers of events after the last one that the subscriber has acknowledged.",
    of: |cursor| Some(cursor.behind as f64),
}];

/// The process.
const PROCESS: [Measure<usage::Usage>; 5] = [
    Measure {
        name: "process_resident_memory_bytes",
        help: "Resident memory size in bytes.",
        of: |usage| usage.resident_bytes,
    },
    Measure {
        name: "process_open_fds",
        help: "Number of open file descriptors.",
        of: |usage| usage.open_files,
    },
    Measure {
        name: "process_max_fds",
        help: "Maximum number of open file descriptors.",
        of: |usage| usage.most_files,
    },
    Measure {
        name: "process_cpu_seconds_total",
        help: "Total user and system CPU time spent in seconds.",
        of: |usage| usage.cpu_seconds,
    },
    Measure {
        name: "process_start_time_seconds",
        help: "Start time of the process since unix epoch in seconds.",
        of: |usage| usage.started,
    },
];

/// The name of the metric that says which program this is.
const BUILD: &str = "plainfold_build_info";

/// Answers in the text format of Prometheus
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"))
)]
pub async fn read(State(state): State<ApiState>) -> Response {
    answer(&Observed::all(&state))
}

/// The numbers of these mirrors.
fn answer(mirrors: &[Observed]) -> Response {
    match text(mirrors) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => ApiProblem::internal(&error).into_response(),
    }
}

fn flag(is_so: bool) -> Option<f64> {
    Some(if is_so { 1.0 } else { 0.0 })
}

fn text(mirrors: &[Observed]) -> prometheus::Result<String> {
    let collections: Vec<(&str, Collection)> = mirrors
        .iter()
        .filter_map(|mirror| Some((mirror.name.as_str(), mirror.watcher.as_ref()?)))
        .flat_map(|(name, watcher)| watcher.lags().into_iter().map(move |known| (name, known)))
        .collect();
    let mut families = Vec::new();
    for measure in &COLLECTION {
        let each = collections.iter().filter_map(|(mirror, known)| {
            let labels = vec![("mirror", *mirror), ("collection", known.0.collection.as_str())];
            Some((labels, (measure.of)(known)?))
        });
        families.extend(family(measure.name, measure.help, each));
    }
    for measure in &MIRROR {
        let each = mirrors.iter().filter_map(|mirror| {
            Some((vec![("mirror", mirror.name.as_str())], (measure.of)(mirror)?))
        });
        families.extend(family(measure.name, measure.help, each));
    }
    let cursors: Vec<(&str, CursorStatus)> = mirrors
        .iter()
        .filter_map(|mirror| Some((mirror.name.as_str(), mirror.watcher.as_ref()?)))
        .flat_map(|(name, watcher)| watcher.cursors().into_iter().map(move |one| (name, one)))
        .collect();
    for measure in &CURSOR {
        let each = cursors.iter().filter_map(|(mirror, cursor)| {
            let labels = vec![("mirror", *mirror), ("cursor", cursor.cursor.as_str())];
            Some((labels, (measure.of)(cursor)?))
        });
        families.extend(family(measure.name, measure.help, each));
    }
    let usage = usage::Usage::now();
    for measure in &PROCESS {
        let one = (measure.of)(&usage).map(|value| (Vec::new(), value));
        families.extend(family(measure.name, measure.help, one.into_iter()));
    }
    let build = (vec![("version", env!("PLAINFOLD_VERSION"))], 1.0);
    families.extend(family(BUILD, "The program that answers.", std::iter::once(build)));
    TextEncoder::new().encode_to_string(&families)
}

/// All values of a metric; `None` without any.
fn family<'a>(
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) -> Option<MetricFamily> {
    let counts = name.ends_with("_total");
    let metrics: Vec<Metric> = values
        .map(|(labels, value)| {
            let mut metric = Metric::from_label(labels.into_iter().map(label).collect());
            if counts {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        })
        .collect();
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(if counts { MetricType::COUNTER } else { MetricType::GAUGE });
    let is_known = !metrics.is_empty();
    family.set_metric(metrics);
    is_known.then_some(family)
}

fn label((name, value): (&str, &str)) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    // Nothing foreign reaches a terminal: somebody may look with curl.
    label.set_value(plain::text(value).into_owned());
    label
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of all metrics.
    fn names() -> Vec<&'static str> {
        let collection = COLLECTION.iter().map(|one| one.name);
        let (mirror, process) =
            (MIRROR.iter().map(|one| one.name), PROCESS.iter().map(|one| one.name));
        let cursor = CURSOR.iter().map(|one| one.name);
        collection.chain(mirror).chain(cursor).chain(process).chain([BUILD]).collect()
    }

    #[test]
    fn every_metric_has_a_name_by_the_conventions_and_a_help() {
        let names = names();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        for name in names {
            assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
            assert!(name.starts_with("plainfold_") || name.starts_with("process_"), "{name}");
        }
        let helps = COLLECTION.iter().map(|one| one.help).chain(MIRROR.iter().map(|one| one.help));
        let helps = helps.chain(CURSOR.iter().map(|one| one.help));
        for help in helps.chain(PROCESS.iter().map(|one| one.help)) {
            assert!(help.ends_with('.') && !help.contains('\n'), "{help}");
        }
    }

    #[test]
    fn a_label_is_escaped_and_a_metric_without_values_is_left_out() {
        let one = family(
            "plainfold_x",
            "Help.",
            [(vec![("mirror", "a\"b\\c\nd\u{1b}")], 1.5)].into_iter(),
        );
        let text = TextEncoder::new().encode_to_string(&[one.unwrap()]).unwrap();
        assert!(text.starts_with("# HELP plainfold_x Help.\n# TYPE plainfold_x gauge\n"), "{text}");
        assert!(!text.contains('\u{1b}') && text.lines().count() == 3, "{text}");
        assert!(text.contains(r#"a\"b\\c"#) && text.ends_with(" 1.5\n"), "{text}");
        let total = family("x_total", "Help.", [(Vec::new(), 2.0)].into_iter()).unwrap();
        let text = TextEncoder::new().encode_to_string(&[total]).unwrap();
        assert!(text.ends_with("# TYPE x_total counter\nx_total 2\n"), "{text}");
        assert!(family("x", "Help.", std::iter::empty()).is_none());
    }

    /// The words of a text that look like a metric.
    fn metrics_in(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c == '_' || c.is_ascii_lowercase()));
        let is_ours =
            |word: &&str| ["plainfold_", "process_"].iter().any(|prefix| word.starts_with(prefix));
        words.filter(is_ours).collect()
    }

    #[test]
    fn the_rules_the_dashboard_and_the_page_name_metrics_that_exist_and_the_page_all() {
        let exported: BTreeSet<&str> = names().into_iter().collect();
        let read = |file: &str| {
            let path = format!("{}/docs/{file}", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).unwrap()
        };
        for (file, least) in [("monitoring/alerts.yml", 10), ("monitoring/grafana.json", 20)] {
            let text = read(file);
            let named = metrics_in(&text);
            assert!(named.len() >= least, "{named:?}");
            let unknown: Vec<_> = named.difference(&exported).collect();
            assert!(unknown.is_empty(), "{file}: {unknown:?}");
        }
        let board: serde_json::Value =
            serde_json::from_str(&read("monitoring/grafana.json")).unwrap();
        assert!(board["panels"].as_array().unwrap().len() > 10);
        let page = read("monitoring.md");
        assert_eq!(metrics_in(&page), exported);
    }

    #[test]
    fn the_process_and_the_program_are_described_without_any_mirror() {
        let text = text(&[]).unwrap();
        for name in PROCESS.iter().map(|one| one.name).chain([BUILD]) {
            assert!(
                text.contains(&format!("\n{name}")) || text.starts_with(name),
                "{name}: {text}"
            );
        }
        assert!(!text.contains("plainfold_collection"), "{text}");
    }
}
