//! Reads a config file, and checks it as a whole: all mistakes are found at once.

use std::collections::HashMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::alerts::{ALERTS, AlertsConfig};
use super::entry::Draft;
use super::error::{FileError, FileProblem};
use super::keys::{API, MIRROR, OWN};
use super::listen::Listen;
use super::places;
use super::show::{self, Origins, ShownConfig};
use super::text::text_of;
use super::value::{Bad, Key, Reading, Value, fill, unknown};
use super::{AgentConfig, ApiConfig, MirrorEntry};

/// The file of the API's tokens beside the config, if the config names no other.
const TOKENS: &str = "tokens.json";

/// The keys of the whole file.
const TOP: [&str; 5] = ["allow_secrets", "alerts", "api", "defaults", "mirror"];

impl AgentConfig {
    /// Reads the file, and checks it; see [`parse`](Self::parse). One that holds secrets must not be
    /// readable by others. Blocks.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Parsed::read(path).map(|parsed| parsed.config)
    }

    /// Reads the text of the file at `path`, from whose folder relative paths count. Looks at the
    /// directories of the mirrors, which must not be inside each other, and, if an address of `[alerts]` begins
    /// with https, at the certificates of the machine.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        parse(text, path).map(|parsed| parsed.config)
    }
}

impl ShownConfig {
    /// Reads the file as [`AgentConfig::read`] does, and explains it.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let Parsed { config, api, alerts, mirrors, .. } = Parsed::read(path)?;
        let shown =
            config.mirrors.iter().zip(&mirrors).map(|(entry, origins)| entry.shown(origins));
        Ok(Self {
            api: config.api.shown(&api),
            alerts: config.alerts.shown(&alerts),
            mirrors: shown.collect(),
        })
    }
}

/// A config as it was read.
struct Parsed {
    config: AgentConfig,
    /// Whether the file holds a secret.
    has_secret: bool,
    /// Where the values of `[api]` come from.
    api: Origins,
    /// Where those of `[alerts]` come from.
    alerts: Origins,
    /// Where those of each mirror come from.
    mirrors: Vec<Origins>,
}

impl Parsed {
    fn read(path: &Path) -> Result<Self, FileError> {
        let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (text, mode) = text_of(path)?;
        let parsed = parse(&text, path)?;
        match parsed.has_secret && mode & 0o077 != 0 {
            true => Err(FileError::Exposed { path: path.clone(), mode }),
            false => Ok(parsed),
        }
    }
}

/// Reads and checks the text of the file at `path`.
fn parse(text: &str, path: &Path) -> Result<Parsed, FileError> {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = path.parent().unwrap_or(Path::new("/"));
    // Editors of other systems begin a file with a mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reading = Reading::new(text, base);
    let wrong = |mut problems: Vec<FileProblem>| {
        problems.sort();
        problems.dedup();
        FileError::Wrong { path: path.clone(), problems }
    };
    let root = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| reading.line(span.start));
        wrong(vec![FileProblem { line, text: format!("it is not TOML: {}", error.message()) }])
    })?;
    let root = root.get_ref();
    let mut problems = Vec::new();
    let top = |name: &str| root.get_key_value(name);
    if let Some((key, value)) = top("allow_secrets") {
        match value.get_ref().as_bool() {
            Some(allowed) => reading.allows_secrets = allowed,
            None => {
                let text = "`allow_secrets` must be true or false";
                problems.push(reading.problem(key.span().start, text));
            }
        }
    }
    let reading = reading;
    for (key, _) in root.iter().filter(|(key, _)| !TOP.contains(&&**key.get_ref())) {
        let text = unknown(key.get_ref(), "the config", &TOP);
        problems.push(reading.problem(key.span().start, text));
    }
    let mut api =
        ApiConfig { listen: vec![Listen::default_socket()], tokens: reading.base.join(TOKENS) };
    if let Some((key, value)) = top("api") {
        section(&reading, &mut api, API, (key, value), "[api]", &mut problems);
    }
    let mut alerts = AlertsConfig::default();
    if let Some((key, value)) = top("alerts") {
        section(&reading, &mut alerts, ALERTS, (key, value), "[alerts]", &mut problems);
    }
    let mut defaults = Draft::default();
    if let Some((key, value)) = top("defaults") {
        let at = key.span().start;
        if let Some((key, own)) = value.get_ref().as_table().and_then(|table| {
            MIRROR[..OWN].iter().find_map(|key| Some((table.get_key_value(key.name)?.0, key)))
        }) {
            let text =
                format!("`{}` belongs into each [[mirror]], and not into [defaults]", own.name);
            problems.push(reading.problem(key.span().start.max(at), text));
        } else {
            section(
                &reading,
                &mut defaults,
                &MIRROR[OWN..],
                (key, value),
                "[defaults]",
                &mut problems,
            );
        }
    }
    let mut has_secret = defaults.has_secret;
    let (mut mirrors, mut lines, mut origins) = (Vec::new(), Vec::new(), Vec::new());
    let section_of = |name| top(name).and_then(|(_, value)| value.get_ref().as_table());
    let (shared, of_api) = (section_of("defaults"), section_of("api"));
    for (line, table) in tables(&reading, top("mirror"), &mut problems) {
        let mut draft = defaults.clone();
        let before = problems.len();
        fill(&reading, &mut draft, table, MIRROR, "[[mirror]]", &mut problems);
        has_secret |= draft.holds_secret();
        // What follows from a mistake is not a second one.
        if problems.len() > before {
            continue;
        }
        match draft.finish(reading.allows_secrets) {
            Ok(entry) => {
                mirrors.push(entry);
                lines.push(line);
                origins.push(show::origins(&reading, MIRROR, Some(table), shared));
            }
            Err(found) => problems.extend(found.into_iter().map(|(key, text)| {
                let own = table.get_key_value(key).map(|(key, _)| reading.line(key.span().start));
                FileProblem { line: Some(own.unwrap_or(line)), text }
            })),
        }
    }
    same_names(&mirrors, &lines, &mut problems);
    places::check(&mirrors, &lines, path, &mut problems);
    if mirrors.is_empty() && problems.is_empty() {
        let text = "it names no mirror: add a [[mirror]] with `name`, `source` and `directory`, or write an \
                    example with `plainfold config init`";
        problems.push(FileProblem { line: None, text: text.to_owned() });
    }
    match problems.is_empty() {
        true => Ok(Parsed {
            config: AgentConfig { api, alerts, mirrors },
            has_secret,
            api: show::origins(&reading, API, of_api, None),
            alerts: show::origins(&reading, ALERTS, section_of("alerts"), None),
            mirrors: origins,
        }),
        false => Err(wrong(problems)),
    }
}

type Entry<'a> = (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>);

/// Reads a section of the file.
fn section<'a, T>(
    reading: &'a Reading<'a>,
    target: &mut T,
    keys: &[Key<T>],
    (key, value): Entry<'a>,
    name: &'static str,
    problems: &mut Vec<FileProblem>,
) {
    match Value::new(reading, value).fill(target, keys, name) {
        Ok(()) => {}
        Err(Bad::Inside(inside)) => problems.extend(inside),
        Err(Bad::Kind | Bad::Why(_)) => {
            let text = format!("`{}` must be a section that begins with {name}", key.get_ref());
            problems.push(reading.problem(key.span().start, text));
        }
    }
}

/// The `[[mirror]]` tables with the lines on which they begin.
fn tables<'a>(
    reading: &'a Reading<'a>,
    given: Option<Entry<'a>>,
    problems: &mut Vec<FileProblem>,
) -> Vec<(usize, &'a DeTable<'a>)> {
    let Some((key, value)) = given else { return Vec::new() };
    let all = Value::new(reading, value).array();
    let all = all.and_then(|all| {
        all.iter().map(|value| Ok((value.line(), value.table()?))).collect::<Result<_, _>>()
    });
    all.unwrap_or_else(|_| {
        let text = "each mirror is a section of its own that begins with [[mirror]], in two pairs of brackets";
        problems.push(reading.problem(key.span().start, text));
        Vec::new()
    })
}

/// Notes mirrors of the same name.
fn same_names(mirrors: &[MirrorEntry], lines: &[usize], problems: &mut Vec<FileProblem>) {
    let mut first = HashMap::new();
    for (entry, line) in mirrors.iter().zip(lines) {
        if let Some(other) = first.insert(&entry.name, line) {
            let text = format!(
                "the mirrors on line {other} and on line {line} have the same name `{}`: rename one of them",
                entry.name
            );
            problems.push(FileProblem { line: Some(*line), text });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "allow_secrets = true\n[api]\nlisten = '/s'\n[defaults]\ntrash = 3\n\
        schedule = { cron = '0 3 * * *', time_zone = 'UTC' }\n[[mirror]]\nname = 'a'\ndirectory = 'a'\n\
        source = 'http://me:hunter2@h/a'\n[[mirror]]\nname = 'b'\ndirectory = 'b'\nsource = 'http://h'\n\
        credentials = { token = 'hunter2' }\n";

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _read = AgentConfig::parse(&text, Path::new("/nowhere/plainfold.toml"));
        }

        #[test]
        fn a_config_with_a_mistake_anywhere_is_read_or_refused_and_never_shows_its_secrets(
            at in 0..SAMPLE.len(),
            length in 0..12_usize,
            put in "[ -~\n]{0,8}",
        ) {
            let end = SAMPLE.len().min(at + length);
            let text = format!("{}{put}{}", &SAMPLE[..at], &SAMPLE[end..]);
            let hidden = text.contains("me:hunter2@") && text.contains("token = 'hunter2'");
            let said = match AgentConfig::parse(&text, Path::new("/nowhere/plainfold.toml")) {
                Ok(config) => format!("{config:?}"),
                Err(error) => error.to_string(),
            };
            prop_assert!(!hidden || !said.contains("hunter2"), "{text}: {said}");
        }
    }
}
