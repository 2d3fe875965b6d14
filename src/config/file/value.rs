//! The values of a config file with their places in it, and the tables of keys that read them.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::error::FileProblem;

/// A file that is being read.
pub(super) struct Reading<'a> {
    /// The folder from which its relative paths count.
    pub base: &'a Path,
    /// Whether it may hold secrets.
    pub allows_secrets: bool,
    /// Where its lines begin.
    starts: Vec<usize>,
}

/// A value in it.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub reading: &'a Reading<'a>,
    value: &'a Spanned<DeValue<'a>>,
}

/// A key that a table may have.
pub(super) struct Key<T> {
    /// The key.
    pub name: &'static str,
    /// Which values it may have, as the object of "must be".
    pub allowed: &'static str,
    /// Takes a value.
    pub read: fn(&mut T, Value<'_>) -> Result<(), Bad>,
}

/// Why a value cannot be used. No reason repeats a secret.
pub(super) enum Bad {
    /// It is not one of the allowed values.
    Kind,
    /// The reason, as a clause.
    Why(String),
    /// It is a table, in which these are wrong.
    Inside(Vec<FileProblem>),
}

impl<'a> Reading<'a> {
    pub fn new(text: &str, base: &'a Path) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { base, allows_secrets: false, starts }
    }

    /// The line of a byte.
    pub fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    pub fn problem(&self, at: usize, text: impl Into<String>) -> FileProblem {
        FileProblem { line: Some(self.line(at)), text: text.into() }
    }
}

impl<'a> Value<'a> {
    pub fn new(reading: &'a Reading<'a>, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { reading, value }
    }

    /// The line on which it begins.
    pub fn line(&self) -> usize {
        self.reading.line(self.value.span().start)
    }

    pub fn text(&self) -> Result<&'a str, Bad> {
        self.value.get_ref().as_str().ok_or(Bad::Kind)
    }

    pub fn table(&self) -> Result<&'a DeTable<'a>, Bad> {
        self.value.get_ref().as_table().ok_or(Bad::Kind)
    }

    /// The values of an array.
    pub fn array(&self) -> Result<Vec<Self>, Bad> {
        let array = self.value.get_ref().as_array().ok_or(Bad::Kind)?;
        Ok(array.iter().map(|value| Self::new(self.reading, value)).collect())
    }

    /// A value that serde reads. Its own error is dropped, because it would repeat the value.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, Bad> {
        T::deserialize(ValueDeserializer::from(self.value.clone())).map_err(|_| Bad::Kind)
    }

    /// A text with a meaning, whose error says what is wrong with it.
    pub fn parse<T: FromStr<Err: ToString>>(&self) -> Result<T, Bad> {
        self.text()?.parse().map_err(|error: T::Err| Bad::Why(error.to_string()))
    }

    /// A text that is neither empty nor holds a character that ends a line or a name.
    pub fn word(&self) -> Result<&'a str, Bad> {
        match self.text()? {
            text if text.trim().is_empty() => Err(Bad::Why("it is empty".to_owned())),
            text if text.contains(char::is_control) => {
                Err(Bad::Why("it holds control characters".to_owned()))
            }
            text => Ok(text),
        }
    }

    /// A path, which counts from the folder of the config.
    pub fn path(&self) -> Result<PathBuf, Bad> {
        self.word().map(|path| self.reading.base.join(path))
    }

    /// Fills a table's keys into `target`.
    pub fn fill<T>(&self, target: &mut T, keys: &[Key<T>], name: &str) -> Result<(), Bad> {
        let mut problems = Vec::new();
        fill(self.reading, target, self.table()?, keys, name, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(Bad::Inside(problems)) }
    }

    /// What it is, in words.
    fn kind(&self) -> &'static str {
        match self.value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or a time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        }
    }
}

/// Fills the keys of a table called `name` into `target`, and notes what is wrong with them.
pub(super) fn fill<'a, T>(
    reading: &'a Reading<'a>,
    target: &mut T,
    table: &'a DeTable<'a>,
    keys: &[Key<T>],
    name: &str,
    problems: &mut Vec<FileProblem>,
) {
    for (key, value) in table {
        let at = key.span().start;
        match keys.iter().find(|one| one.name == key.get_ref()) {
            Some(one) => take(reading, target, one, value, at, problems),
            None => {
                let names: Vec<_> = keys.iter().map(|key| key.name).collect();
                problems.push(reading.problem(at, unknown(key.get_ref(), name, &names)));
            }
        }
    }
}

/// Takes the value of a key that stands at `at`.
fn take<'a, T>(
    reading: &'a Reading<'a>,
    target: &mut T,
    key: &Key<T>,
    value: &'a Spanned<DeValue<'a>>,
    at: usize,
    problems: &mut Vec<FileProblem>,
) {
    let value = Value::new(reading, value);
    let (name, allowed) = (key.name, key.allowed);
    match (key.read)(target, value) {
        Ok(()) => {}
        Err(Bad::Kind) => {
            let text = match value.text() {
                Ok(_) => format!("`{name}` must be {allowed}"),
                Err(_) => format!("`{name}` must be {allowed}, and is {}", value.kind()),
            };
            problems.push(reading.problem(at, text));
        }
        Err(Bad::Why(why)) => {
            problems.push(reading.problem(at, format!("`{name}` must be {allowed}: {why}")));
        }
        Err(Bad::Inside(inside)) => problems.extend(inside),
    }
}

/// The message about a key that a table does not have, with the key that was probably meant.
pub(super) fn unknown(key: &str, table: &str, known: &[&str]) -> String {
    /// As clap has it for options.
    const LIKE: f64 = 0.7;
    let like = |name: &&&str| strsim::jaro(key, name);
    let best = known.iter().max_by(|one, other| like(one).total_cmp(&like(other)));
    // A key may be of any length.
    let shown: Cow<'_, str> = match key.char_indices().nth(64) {
        Some((at, _)) => format!("{}…", &key[..at]).into(),
        None => key.into(),
    };
    match best.filter(|best| like(best) > LIKE) {
        Some(best) => format!("{table} has no key `{shown}`: did you mean `{best}`?"),
        None => format!("{table} has no key `{shown}`: its keys are {}", known.join(", ")),
    }
}
