//! Walks over JSON text: members and elements in their order, the byte ranges of values, the text of
//! a string.
//!
//! `serde_json` reads every key and value; this module adds the punctuation between them and the
//! place of each. Nothing is built, so that a body keeps its exact bytes, and nothing recurses, so
//! that a document nested ten thousand deep costs a byte per level instead of the stack. What was
//! passed before an error stays known. Pure.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// Why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wrong} at byte {at}")]
pub(crate) struct Invalid {
    /// Where, in bytes from the beginning of the text.
    pub at: usize,
    /// What is wrong there.
    pub wrong: Cow<'static, str>,
}

/// A string whose escapes do not make up text: half of a surrogate pair stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds half of a surrogate pair")]
pub(crate) struct LoneSurrogate;

/// A place in a JSON text. Whatever it passes is checked.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// An object or array that the cursor is inside of.
#[derive(Debug)]
pub(crate) struct Container {
    close: u8,
    state: Reached,
}

#[derive(Debug, PartialEq, Eq)]
enum Reached {
    Opening,
    Inside,
    Closed,
}

/// The key of a member, as it stands in the text, quotes included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawKey<'a>(pub &'a str);

impl<'a> RawKey<'a> {
    /// Whether it says `name`, however it is escaped.
    pub fn is(self, name: &str) -> bool {
        let plain = self.plain();
        plain == name || (plain.contains('\\') && string(self.0).is_ok_and(|key| key == name))
    }

    /// The key without its quotes, not unescaped.
    pub fn plain(self) -> &'a str {
        &self.0[1..self.0.len() - 1]
    }
}

/// Checks that the text is one JSON value with nothing but white space around it.
pub(crate) fn validate(text: &str) -> Result<(), Invalid> {
    let mut cursor = Cursor::new(text);
    cursor.skip()?;
    cursor.finish()
}

/// The text that a JSON string, given with its quotes and known to be valid, stands for.
pub(crate) fn string(raw: &str) -> Result<Cow<'_, str>, LoneSurrogate> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).map(Cow::Owned).map_err(|_| LoneSurrogate)
}

impl<'a> Cursor<'a> {
    /// Begins at the beginning of the text.
    pub fn new(text: &'a str) -> Self {
        Self::starting_at(text, 0)
    }

    /// Begins at this byte, which must be the beginning of a value.
    pub fn starting_at(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// Where the next value begins, or what stands there instead.
    pub fn offset(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// Where the value or member that was passed last ended.
    pub fn passed(&self) -> usize {
        self.at
    }

    /// The first byte of what comes next: it tells the kind of a value.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Passes over one value of any kind and returns its text.
    pub fn skip(&mut self) -> Result<&'a str, Invalid> {
        let rest = &self.text[self.offset()..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        let outcome = values.next();
        // `serde_json` also looks at what follows a number, which is the next step's to judge.
        match (values.byte_offset(), outcome) {
            (0, Some(Err(error))) => Err(self.invalid(rest, &error)),
            (0, _) => Err(self.expected("a value")),
            (length, _) => {
                self.at += length;
                Ok(&rest[..length])
            }
        }
    }

    /// Enters an object, or `None` when the next value is something else.
    pub fn object(&mut self) -> Option<Container> {
        self.enter(b'{', b'}')
    }

    /// Enters an array, or `None` when the next value is something else.
    pub fn array(&mut self) -> Option<Container> {
        self.enter(b'[', b']')
    }

    /// Moves to the next member of an object and passes its key; its value comes next and must be
    /// passed before this is asked again. `None` when the object has ended.
    pub fn member(&mut self, object: &mut Container) -> Result<Option<RawKey<'a>>, Invalid> {
        if !self.element(object)? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key"));
        }
        let key = RawKey(self.skip()?);
        if self.peek() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Moves to the next element of an array, which must be passed before this is asked again.
    /// `false` when the array has ended.
    pub fn element(&mut self, array: &mut Container) -> Result<bool, Invalid> {
        let next = self.peek();
        match array.state {
            Reached::Closed => return Ok(false),
            _ if next == Some(array.close) => {
                self.at += 1;
                array.state = Reached::Closed;
                return Ok(false);
            }
            Reached::Opening => array.state = Reached::Inside,
            Reached::Inside if next == Some(b',') => self.at += 1,
            Reached::Inside => {
                return Err(self.expected(match array.close {
                    b'}' => "`,` or `}`",
                    _ => "`,` or `]`",
                }));
            }
        }
        Ok(true)
    }

    /// Checks that nothing but white space is left.
    pub fn finish(&mut self) -> Result<(), Invalid> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end")),
        }
    }

    /// What is wrong where the cursor is.
    pub fn expected(&self, what: &str) -> Invalid {
        Invalid { at: self.at, wrong: format!("expected {what}").into() }
    }

    fn enter(&mut self, open: u8, close: u8) -> Option<Container> {
        (self.peek() == Some(open)).then(|| {
            self.at += 1;
            Container { close, state: Reached::Opening }
        })
    }

    /// An error of `serde_json` in `rest`, the text from the cursor on.
    fn invalid(&self, rest: &str, error: &serde_json::Error) -> Invalid {
        let before: usize =
            rest.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let wrong = error.to_string();
        let wrong = wrong.split(" at line ").next().unwrap_or_default().to_owned();
        Invalid { at: self.at + before + error.column().saturating_sub(1), wrong: wrong.into() }
    }
}

#[cfg(test)]
mod tests;
