//! The lines that show how far a command is, laid out for the width and height that there is.

use console::{measure_text_width, truncate_str};
use indicatif::{HumanBytes, HumanCount};

use super::output::many;
use super::shown::{Activity, Shown, Speed};
use crate::document::plain;

/// The most lines that are drawn, however high the terminal is.
const MOST: usize = 8;

/// The widest part of a line that the bar itself takes.
const WIDEST_BAR: usize = 24;

/// Bars are drawn from this width on: what narrower lines have room for differs from line to line.
const WITH_BARS: usize = 100;

/// Lays out the collections that there is room for, the busy ones first, and counts the others in
/// one more line. No line is as wide as `width`, so that none is wrapped.
pub fn lines(all: &[(Shown, Speed)], width: usize, height: usize) -> Vec<String> {
    let width = width.saturating_sub(1);
    let room = MOST.min(height.saturating_sub(2)).max(1);
    let drawn: Vec<usize> = if all.len() <= room {
        (0..all.len()).collect()
    } else {
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|number| all.get(*number).map(urgency));
        order.truncate(room.saturating_sub(1));
        order.sort_unstable();
        order
    };
    let shown: Vec<_> = drawn.iter().filter_map(|number| all.get(*number)).collect();
    let names: Vec<_> = shown.iter().map(|(one, _)| name(&one.name, width / 3)).collect();
    let widest = names.iter().map(|name| measure_text_width(name)).max().unwrap_or_default();
    let mut lines: Vec<_> = shown
        .iter()
        .zip(&names)
        .map(|((one, speed), name)| line(one, *speed, name, widest, width))
        .collect();
    if drawn.len() < all.len() {
        let others = (0..all.len()).filter(|number| !drawn.contains(number));
        let others: Vec<_> = others.filter_map(|number| all.get(number)).collect();
        lines.push(truncate_str(&counted(&others), width, "…").into_owned());
    }
    lines
}

/// Where a collection comes in the order of who is drawn: the smallest first.
fn urgency((shown, speed): &(Shown, Speed)) -> (u8, u64) {
    let rank = match shown.state {
        Activity::Failed => 0,
        Activity::Busy => 1,
        Activity::Waiting => 2,
        Activity::Live => 3,
        Activity::Queued => 4,
        Activity::Done => 5,
    };
    (rank, u64::MAX - speed.last_minute)
}

/// The collections that are not drawn, by what they are doing.
fn counted(others: &[&(Shown, Speed)]) -> String {
    let mut words: Vec<(&str, usize)> = Vec::new();
    for (one, _) in others {
        match words.iter_mut().find(|(word, _)| *word == one.word) {
            Some((_, count)) => *count += 1,
            None => words.push((one.word, 1)),
        }
    }
    let words: Vec<_> = words.iter().map(|(word, count)| format!("{count} {word}")).collect();
    format!("+{} more: {}", others.len(), words.join(", "))
}

/// One collection.
fn line(shown: &Shown, speed: Speed, name: &str, widest: usize, width: usize) -> String {
    let pad = " ".repeat(widest.saturating_sub(measure_text_width(name)));
    let left = width.saturating_sub(widest + 2);
    let fraction = shown.measured.filter(|(_, total)| *total > 0 && shown.state == Activity::Busy);
    let mut text = String::new();
    // What there is no room for is left out, the least important part first.
    for parts in (0..=LEAST).map(|less| parts(shown, speed, less)) {
        text = parts.join("  ");
        if measure_text_width(&text) <= left {
            break;
        }
    }
    let text = truncate_str(&text, left, "…").into_owned();
    let bar = left.saturating_sub(measure_text_width(&text) + 2).min(WIDEST_BAR);
    let bar = match fraction.filter(|_| width >= WITH_BARS && bar > 2) {
        Some((done, total)) => drawn(done, total, bar) + "  ",
        None => String::new(),
    };
    format!("{name}{pad}  {bar}{text}")
}

/// The last step of what [`parts`] leaves out.
const LEAST: u8 = 4;

/// What is said of a collection, without its least important parts.
fn parts(shown: &Shown, speed: Speed, less: u8) -> Vec<String> {
    let mut parts = Vec::new();
    match shown.state {
        Activity::Live => {
            let mut live = vec![shown.word.to_owned()];
            live.extend(shown.lag.map(|lag| format!("lag {lag:.1} s")));
            live.push(format!("{}/min", HumanCount(speed.last_minute)));
            parts.push(live.join(", "));
        }
        Activity::Busy if shown.word.is_empty() => {}
        _ => parts.push(shown.word.to_owned()),
    }
    match (shown.documents, shown.total) {
        _ if less >= 4 || shown.state == Activity::Queued => {}
        (done, Some(total)) if shown.state == Activity::Busy => {
            let word = if less >= 1 { "" } else { plural(total) };
            parts.push(format!("{} of {}{word}", HumanCount(done), HumanCount(total)));
        }
        (done, _) => {
            let word = if less >= 1 && shown.state == Activity::Busy { "" } else { plural(done) };
            parts.push(format!("{}{word}", HumanCount(done)));
        }
    }
    if less == 0 && shown.bytes > 0 {
        parts.push(HumanBytes(shown.bytes).to_string());
    }
    if shown.state == Activity::Busy {
        if let Some((done, total)) = shown.measured.filter(|(_, total)| *total > 0) {
            // The source may have grown, or lost documents, since it was asked.
            let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
            parts.push(format!("{percent} %"));
        }
        if let Some(rate) = speed.per_second.filter(|_| less < 3) {
            parts.push(format!("{}/s", HumanCount(rate)));
        }
        if let Some(seconds) = speed.seconds_left.filter(|_| less < 2) {
            parts.push(format!("{} left", duration(seconds)));
        }
    }
    if shown.failures > 0 {
        parts.push(format!("{} failed", HumanCount(shown.failures)));
    }
    parts
}

fn plural(count: u64) -> &'static str {
    if count == 1 { " document" } else { " documents" }
}

/// A bar of a width in columns.
fn drawn(done: u64, total: u64, width: usize) -> String {
    let inner = width.saturating_sub(2);
    let full = u128::from(done.min(total)) * inner as u128 / u128::from(total.max(1));
    let full = usize::try_from(full).unwrap_or(inner).min(inner);
    let head = if full < inner { ">" } else { "" };
    format!("[{}{head}{}]", "=".repeat(full), " ".repeat(inner - full - head.len()))
}

/// A name in at most a number of columns.
fn name(name: &str, most: usize) -> String {
    truncate_str(&plain::text(name), most.clamp(8, 30), "…").into_owned()
}

/// A time in its largest unit.
fn duration(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", (seconds + 30) / 60),
        6_000..172_800 => format!("{} h", (seconds + 1_800) / 3_600),
        _ => many((seconds + 43_200) / 86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, state: Activity, word: &'static str) -> Shown {
        Shown {
            name: name.to_owned(),
            work: None,
            state,
            word,
            documents: 12_345,
            total: Some(40_000),
            measured: Some((12_345, 40_000)),
            worked: 12_345,
            bytes: 0,
            lag: None,
            failures: 0,
        }
    }

    const FAST: Speed = Speed { per_second: Some(812), seconds_left: Some(34), last_minute: 14 };

    #[test]
    fn a_busy_collection_counts_its_documents_against_those_of_the_source() {
        let all = [(shown("books", Activity::Busy, ""), FAST)];
        let line = lines(&all, 81, 24).remove(0);
        for part in ["books", "12,345 of 40,000 documents", "30 %", "812/s", "34 s left"] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn no_line_is_as_wide_as_the_terminal_whatever_the_names_are() {
        let names = [
            "books",
            "a-database-with-a-very-long-name-that-fits-nowhere",
            "図書館の蔵書目録データベース",
        ];
        let mut all = Vec::new();
        for name in names {
            for (state, word) in [
                (Activity::Busy, ""),
                (Activity::Busy, "full scan"),
                (Activity::Live, "live"),
                (Activity::Waiting, "waiting"),
                (Activity::Done, "caught up"),
                (Activity::Queued, "queued"),
            ] {
                let one = Shown { lag: Some(0.21), failures: 1_234, ..shown(name, state, word) };
                all.push((one, FAST));
            }
        }
        for width in [20, 40, 60, 80, 120] {
            for (some, height) in [(&all[..3], 24), (&all[..], 24), (&all[..], 5)] {
                let lines = lines(some, width, height);
                assert!(lines.len() <= MOST.min(height), "{lines:#?}");
                for line in &lines {
                    assert!(measure_text_width(line) < width, "{width}: {line}");
                    assert!(!line.contains("position"), "{line}");
                }
            }
        }
    }

    #[test]
    fn of_many_collections_the_busy_ones_are_drawn_and_the_others_counted() {
        let mut all = vec![(shown("done", Activity::Done, "caught up"), Speed::default()); 180];
        all.extend(vec![(shown("next", Activity::Queued, "queued"), Speed::default()); 17]);
        all.extend(vec![(shown("books", Activity::Busy, ""), FAST); 3]);
        let lines = lines(&all, 80, 24);
        assert_eq!(lines.len(), MOST);
        assert_eq!(lines.iter().filter(|line| line.starts_with("books")).count(), 3, "{lines:#?}");
        let last = lines.last().unwrap();
        assert!(last.contains("+193 more") && last.contains("180 caught up"), "{last}");
    }

    #[test]
    fn what_follows_shows_its_lag_and_the_last_minute() {
        let live = Shown { lag: Some(0.2), ..shown("books", Activity::Live, "live") };
        let line = lines(&[(live, FAST)], 80, 24).remove(0);
        assert!(line.contains("live, lag 0.2 s, 14/min"), "{line}");
    }

    #[test]
    fn one_is_a_singular_and_times_have_one_unit() {
        let one =
            Shown { documents: 1, total: Some(1), ..shown("books", Activity::Done, "caught up") };
        assert!(lines(&[(one, Speed::default())], 80, 24).remove(0).ends_with("1 document"));
        let texts: Vec<_> = [5, 240, 7_000, 90_000, 200_000].map(duration).into();
        assert_eq!(texts, ["5 s", "4 min", "2 h", "25 h", "2 days"]);
    }
}
