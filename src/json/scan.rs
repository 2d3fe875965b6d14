//! Reads JSON text in place: checks it, finds the byte ranges of members, decodes a string.
//!
//! Nothing is built and nothing recurses, so that a body keeps its exact bytes and a document
//! nested ten thousand deep costs a bit per level instead of the stack. Pure: it must not know
//! feeds, documents or I/O, and any source may use it.

use std::borrow::Cow;

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {at}")]
pub(crate) struct Invalid {
    /// Where, in bytes from the beginning of the text.
    pub at: usize,
    /// What JSON would have there.
    pub expected: &'static str,
}

/// A string whose escapes do not make up text: half of a surrogate pair stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds half of a surrogate pair")]
pub(crate) struct LoneSurrogate;

/// Walks over a JSON text and checks what it passes.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    nesting: Nesting,
}

/// An object or array that the scanner is inside of.
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

/// The key of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Key<'a> {
    /// The key as it stands in the text, quotes included.
    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// Whether it says `name`, however it is escaped.
    pub fn is(self, name: &str) -> bool {
        self.plain() == name || (self.escaped && string(self.raw).is_ok_and(|key| key == name))
    }

    /// The key without its quotes, not unescaped.
    pub fn plain(self) -> &'a str {
        &self.raw[1..self.raw.len() - 1]
    }
}

/// Checks that the text is one JSON value with nothing but white space around it.
pub(crate) fn validate(text: &str) -> Result<(), Invalid> {
    let mut scanner = Scanner::new(text);
    scanner.skip()?;
    scanner.finish()
}

/// The text that a JSON string, given with its quotes and known to be valid, stands for.
pub(crate) fn string(raw: &str) -> Result<Cow<'_, str>, LoneSurrogate> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).map(Cow::Owned).map_err(|_| LoneSurrogate)
}

impl<'a> Scanner<'a> {
    /// Begins at the beginning of the text.
    pub fn new(text: &'a str) -> Self {
        Self::starting_at(text, 0)
    }

    /// Begins at this byte, which must be the beginning of a value.
    pub fn starting_at(text: &'a str, at: usize) -> Self {
        Self { text, at, nesting: Nesting::default() }
    }

    /// Where the next value begins, or what stands there instead.
    pub fn offset(&mut self) -> usize {
        self.skip_space();
        self.at
    }

    /// Where the value or member that was passed last ended.
    pub fn passed(&self) -> usize {
        self.at
    }

    /// The first byte of what comes next: it tells the kind of a value.
    pub fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.byte()
    }

    /// Passes over one value of any kind and returns its text.
    pub fn skip(&mut self) -> Result<&'a str, Invalid> {
        self.skip_space();
        let start = self.at;
        self.nesting.clear();
        loop {
            match self.byte() {
                Some(b'{') => {
                    self.at += 1;
                    if self.peek() == Some(b'}') {
                        self.at += 1;
                    } else {
                        self.nesting.push(true);
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if self.peek() == Some(b']') {
                        self.at += 1;
                    } else {
                        self.nesting.push(false);
                        continue;
                    }
                }
                Some(b'"') => _ = self.pass_string()?,
                _ => self.pass_plain()?,
            }
            if self.leave_finished()? {
                return Ok(&self.text[start..self.at]);
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
    pub fn member(&mut self, object: &mut Container) -> Result<Option<Key<'a>>, Invalid> {
        Ok(if self.element(object)? { Some(self.key()?) } else { None })
    }

    /// Moves to the next element of an array, which must be passed before this is asked again.
    /// `false` when the array has ended.
    pub fn element(&mut self, array: &mut Container) -> Result<bool, Invalid> {
        let next = self.peek();
        match array.state {
            Reached::Closed => return Ok(false),
            Reached::Opening if next == Some(array.close) => {}
            Reached::Opening => {
                array.state = Reached::Inside;
                return Ok(true);
            }
            Reached::Inside if next == Some(b',') => {
                self.at += 1;
                self.skip_space();
                return Ok(true);
            }
            Reached::Inside if next == Some(array.close) => {}
            Reached::Inside => return Err(self.expected(closing(array.close == b'}'))),
        }
        self.at += 1;
        array.state = Reached::Closed;
        Ok(false)
    }

    /// Checks that nothing but white space is left.
    pub fn finish(&mut self) -> Result<(), Invalid> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end")),
        }
    }

    fn enter(&mut self, open: u8, close: u8) -> Option<Container> {
        (self.peek() == Some(open)).then(|| {
            self.at += 1;
            Container { close, state: Reached::Opening }
        })
    }

    /// After a value: leaves the containers that end here and moves to the next value, if one is
    /// due. `true` when the outermost value has ended.
    fn leave_finished(&mut self) -> Result<bool, Invalid> {
        while let Some(object) = self.nesting.last() {
            match (self.peek(), object) {
                (Some(b','), true) => {
                    self.at += 1;
                    self.skip_space();
                    self.key()?;
                    return Ok(false);
                }
                (Some(b','), false) => {
                    self.at += 1;
                    self.skip_space();
                    return Ok(false);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    self.nesting.pop();
                }
                _ => return Err(self.expected(closing(object))),
            }
        }
        Ok(true)
    }

    fn key(&mut self) -> Result<Key<'a>, Invalid> {
        let start = self.at;
        if self.byte() != Some(b'"') {
            return Err(self.expected("a key"));
        }
        let escaped = self.pass_string()?;
        let raw = &self.text[start..self.at];
        if self.peek() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        self.skip_space();
        Ok(Key { raw, escaped })
    }

    /// Passes a string whose opening quote comes next; `true` when it holds an escape.
    fn pass_string(&mut self) -> Result<bool, Invalid> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_run(&self.text.as_bytes()[self.at..]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    self.at += 1;
                    escaped = true;
                    self.pass_escape()?;
                }
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.expected("the end of a string")),
            }
        }
    }

    fn pass_escape(&mut self) -> Result<(), Invalid> {
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.byte().is_some_and(|b| b.is_ascii_hexdigit()) {
                        return Err(self.expected("four hexadecimal digits"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.expected("an escape")),
        }
        Ok(())
    }

    /// Passes a number, `true`, `false` or `null`.
    fn pass_plain(&mut self) -> Result<(), Invalid> {
        match self.byte() {
            Some(b't') => self.pass_word("true"),
            Some(b'f') => self.pass_word("false"),
            Some(b'n') => self.pass_word("null"),
            Some(b'-' | b'0'..=b'9') => self.pass_number(),
            _ => Err(self.expected("a value")),
        }
    }

    fn pass_word(&mut self, word: &'static str) -> Result<(), Invalid> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.expected(word));
        }
        self.at += word.len();
        Ok(())
    }

    fn pass_number(&mut self) -> Result<(), Invalid> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.pass_digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.pass_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.pass_digits()?;
        }
        Ok(())
    }

    fn pass_digits(&mut self) -> Result<(), Invalid> {
        let rest = &self.text.as_bytes()[self.at..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return Err(self.expected("a digit"));
        }
        self.at += digits;
        Ok(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> Invalid {
        Invalid { at: self.at, expected }
    }
}

fn closing(object: bool) -> &'static str {
    if object { "`,` or `}`" } else { "`,` or `]`" }
}

/// How many bytes at the beginning are neither a quote nor a backslash nor a control character.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // Eight bytes at a time: a byte's high bit is set where it is one that stops the run. A borrow
    // can only set bits above the first such byte, so that the lowest one is exact.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut run = 0;
    for chunk in bytes.chunks_exact(8) {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        let word = u64::from_le_bytes(eight);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let stops = control
            | zero(word ^ (ONES * u64::from(b'"')))
            | zero(word ^ (ONES * u64::from(b'\\')));
        if stops != 0 {
            return run + stops.trailing_zeros() as usize / 8;
        }
        run += 8;
    }
    let stops = |b: &u8| *b == b'"' || *b == b'\\' || *b < 0x20;
    run + bytes[run..].iter().position(stops).unwrap_or(bytes.len() - run)
}

/// The open containers, a bit each: set for an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nesting {
    words: Vec<u64>,
    depth: usize,
}

impl Nesting {
    /// How many containers are open.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Opens one.
    pub fn push(&mut self, object: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.words.len() {
            self.words.push(0);
        }
        self.words[word] = self.words[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
    }

    /// Closes the innermost.
    pub fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Whether the innermost is an object, if one is open.
    pub fn last(&self) -> Option<bool> {
        let last = self.depth.checked_sub(1)?;
        Some(self.words[last / 64] >> (last % 64) & 1 == 1)
    }

    fn clear(&mut self) {
        self.depth = 0;
    }
}

#[cfg(test)]
mod tests;
