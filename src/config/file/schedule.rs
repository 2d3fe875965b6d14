//! When a mirror runs, and durations as people write them.
//!
//! Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use serde::{Serialize, Serializer};

/// When a mirror runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// It follows its source all the time.
    Live,
    /// It catches up, and again after this time, counted from start to start.
    Every(Duration),
    /// It catches up at the times of a cron expression.
    Cron(CronSchedule),
}

/// The times of a cron expression in a time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct CronSchedule {
    text: String,
    zone: TimeZone,
    cron: Arc<Cron>,
}

/// A schedule that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSchedule(String);

/// The longest time between two runs. It also keeps the time of the next run within the calendar.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

impl Schedule {
    /// A run each time this much time has passed.
    pub fn every(period: Duration) -> Result<Self, BadSchedule> {
        match period {
            Duration::ZERO => Err(BadSchedule("a run every 0 s is not possible".to_owned())),
            period if period < Duration::from_secs(1) => {
                Err(BadSchedule("the shortest time between two runs is 1 s".to_owned()))
            }
            period if period > LONGEST => {
                Err(BadSchedule("the longest time between two runs is ten years".to_owned()))
            }
            period => Ok(Self::Every(period)),
        }
    }

    /// A run at each of the times of a cron expression: minute, hour, day of the month, month, day of the
    /// week. The time zone is a name such as `Europe/Berlin`.
    pub fn cron(expression: &str, zone: &str) -> Result<Self, BadSchedule> {
        let bad =
            |why: String| BadSchedule(format!("`{expression}` is not a cron expression: {why}"));
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let parsed = parser.build().parse(expression);
        let cron = parsed.map_err(|error| {
            let why = error.to_string();
            let why = why.strip_prefix("Component error: ").unwrap_or(&why);
            bad(format!("{}; it has five fields, such as `0 3 * * *`", why.trim_end_matches('.')))
        })?;
        let zone = TimeZone::get(zone).map_err(|_| {
            BadSchedule(format!(
                "the time zone `{zone}` is not known: give a name such as `Europe/Berlin` or `UTC`"
            ))
        })?;
        let schedule =
            CronSchedule { text: expression.trim().to_owned(), zone, cron: Arc::new(cron) };
        // From the beginning of a period of 400 years, after which the calendar repeats itself.
        if schedule.next(Timestamp::UNIX_EPOCH).is_none() {
            return Err(bad("there is no such day".to_owned()));
        }
        Ok(Self::Cron(schedule))
    }

    /// Whether the mirror follows its source all the time.
    pub fn is_live(&self) -> bool {
        *self == Self::Live
    }

    /// When the next run begins, if the last one began at `after`. `None` if there is only one.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Live => None,
            Self::Every(period) => after.checked_add(SignedDuration::try_from(*period).ok()?).ok(),
            Self::Cron(cron) => cron.next(after),
        }
    }
}

impl CronSchedule {
    /// The expression.
    pub fn expression(&self) -> &str {
        &self.text
    }

    /// The name of the time zone.
    pub fn time_zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp())
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str("live"),
            Self::Every(period) => write!(f, "every {}", Period(*period)),
            Self::Cron(cron) => write!(f, "`{}` in {}", cron.expression(), cron.time_zone()),
        }
    }
}

/// As the config has it.
impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Live => serializer.serialize_str("live"),
            Self::Every(period) => serializer.collect_map([("every", Period(*period).to_string())]),
            Self::Cron(cron) => serializer
                .collect_map([("cron", cron.expression()), ("time_zone", cron.time_zone())]),
        }
    }
}

/// A duration as people write it: `90s`, `1h 30m`, `2 days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let bad = || {
            BadSchedule(format!(
                "`{text}` is not a duration: give a number and a unit, such as `90s`, `15m`, `1h` or `1d`"
            ))
        };
        if text.trim() == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let span: Span = text.trim().parse().map_err(|_| bad())?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
        Duration::try_from(duration).map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 24 * 60 * 60;
        let days = self.0.as_secs() / DAY;
        let rest = self.0.saturating_sub(Duration::from_secs(days * DAY));
        match (days, rest.is_zero(), SignedDuration::try_from(rest)) {
            (1.., true, _) => write!(f, "{days}d"),
            (1.., false, Ok(rest)) => write!(f, "{days}d {rest:#}"),
            (_, _, Ok(rest)) => write!(f, "{rest:#}"),
            (.., Err(_)) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn durations_have_units_and_are_printed_as_they_are_read() {
        for (text, seconds) in [
            ("90s", 90),
            ("1h", 3600),
            ("1 hour", 3600),
            ("1h 30m", 5400),
            ("15 min", 900),
            ("1d", 86_400),
            ("2 weeks", 14 * 86_400),
            ("0", 0),
            ("0s", 0),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.0, Duration::from_secs(seconds), "{text}");
            assert_eq!(period.to_string().parse(), Ok(period), "{period}");
        }
        for (seconds, shown) in [(7 * 86_400, "7d"), (36 * 3600, "1d 12h"), (5400, "1h 30m")] {
            let period = Period(Duration::from_secs(seconds));
            assert_eq!(period.to_string(), shown);
            assert_eq!(shown.parse(), Ok(period));
        }
        for text in ["", "90", "1.5", "h", "-1h", "1h ago", "1 month", "1 year", "1x", "NaN", "∞"]
        {
            let error = text.parse::<Period>().unwrap_err().to_string();
            assert!(error.contains("is not a duration"), "{error}");
        }
    }

    #[test]
    fn a_period_is_counted_from_start_to_start() {
        let hourly = Schedule::every(Duration::from_secs(3600)).unwrap();
        assert_eq!(hourly.next(at("2026-01-01T00:59:00Z")), Some(at("2026-01-01T01:59:00Z")));
        assert_eq!(hourly.next(Timestamp::MAX), None);
        assert_eq!(Schedule::Live.next(Timestamp::UNIX_EPOCH), None);
        for period in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            assert!(Schedule::every(period).is_err(), "{period:?}");
        }
    }

    #[test]
    fn a_cron_expression_counts_in_its_time_zone() {
        let next = |expression, zone, after| {
            Schedule::cron(expression, zone).unwrap().next(at(after)).unwrap().to_string()
        };
        let berlin = "Europe/Berlin";
        assert_eq!(next("0 3 * * *", "UTC", "2026-01-01T03:00:00Z"), "2026-01-02T03:00:00Z");
        assert_eq!(next("0 3 * * *", berlin, "2026-01-01T01:59:59Z"), "2026-01-01T02:00:00Z");
        assert_eq!(next("0 3 * * *", berlin, "2026-07-01T00:00:00Z"), "2026-07-01T01:00:00Z");
        assert_eq!(next("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z"), "2028-02-29T00:00:00Z");
        assert_eq!(next("@daily", "UTC", "2026-01-01T00:00:00Z"), "2026-01-02T00:00:00Z");
    }

    #[test]
    fn a_run_is_neither_lost_nor_doubled_when_the_clocks_change() {
        let nightly = Schedule::cron("30 2 * * *", "Europe/Berlin").unwrap();
        let runs = |from: &str| {
            let next = |last: &Timestamp| nightly.next(*last);
            let runs = std::iter::successors(nightly.next(at(from)), next).take(3);
            runs.map(|run| run.to_string()).collect::<Vec<_>>()
        };
        let spring = runs("2026-03-28T12:00:00Z");
        assert_eq!(spring.len(), 3);
        assert!(spring[0].starts_with("2026-03-29T") && spring[1].starts_with("2026-03-30T"));
        let autumn = runs("2026-10-24T12:00:00Z");
        assert!(autumn[0].starts_with("2026-10-25T") && autumn[1].starts_with("2026-10-26T"));
    }

    #[test]
    fn what_is_not_a_schedule_is_refused() {
        for (expression, zone, why) in [
            ("", "UTC", "five fields"),
            ("nonsense", "UTC", "five fields"),
            ("0 3 * *", "UTC", "five fields"),
            ("0 0 3 * * *", "UTC", "five fields"),
            ("61 * * * *", "UTC", "five fields"),
            ("* * * * * * * *", "UTC", "five fields"),
            ("0 0 30 2 *", "UTC", "no such day"),
            ("0 3 * * *", "Europe/Atlantis", "is not known"),
            ("0 3 * * *", "../../etc/passwd", "is not known"),
            ("0 3 * * *", "", "is not known"),
        ] {
            let error = Schedule::cron(expression, zone).unwrap_err().to_string();
            assert!(error.contains(why), "{expression} {zone}: {error}");
        }
    }

    #[test]
    fn a_schedule_is_shown_as_it_is_written() {
        let json = |schedule| serde_json::to_string(&schedule).unwrap();
        assert_eq!(json(Schedule::Live), r#""live""#);
        assert_eq!(json(Schedule::Every(Duration::from_secs(5400))), r#"{"every":"1h 30m"}"#);
        let cron = Schedule::cron("0 3 * * *", "Europe/Berlin").unwrap();
        assert_eq!(json(cron.clone()), r#"{"cron":"0 3 * * *","time_zone":"Europe/Berlin"}"#);
        assert_eq!(cron.to_string(), "`0 3 * * *` in Europe/Berlin");
    }
}
