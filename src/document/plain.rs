//! Makes foreign text safe to print, and foreign JSON one line. Pure.
//!
//! Ids, names, revisions, positions and error texts come from servers, feeds and file systems that
//! may be hostile. They must be readable, but must not move a terminal's cursor, reorder or hide
//! other text, or look like another line.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;

/// Whether a character must not reach a terminal: it is a control character, ends a line, reorders
/// text, or is invisible. Two invisible characters are allowed, because some words are spelled with
/// them: the zero-width joiner and non-joiner.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A word for a shell, as a message quotes it in a command.
pub fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// The text of an error, and of those causes that it does not contain.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| (*error).source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Text as a part of one printed line. Characters that must not reach a terminal are escaped as in
/// Rust: `\n`, `\u{1b}`. Nothing else changes.
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match (is_obeyed(c), c) {
            (false, c) => escaped.push(c),
            (true, '\n' | '\r' | '\t' | '\0') => escaped.extend(c.escape_debug()),
            (true, c) => escaped.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(escaped)
}

/// JSON without characters in strings that must not reach a terminal: they become `\u` escapes, so
/// that it parses to the same value. White space between tokens stays.
pub fn json(json: &str) -> Cow<'_, str> {
    json_but(json, |c| c)
}

/// The same, as one line: white space between tokens becomes spaces.
pub fn json_line(json: &str) -> Cow<'_, str> {
    json_but(json, |_| ' ')
}

/// In valid JSON a line feed, a carriage return and a tab are only between tokens. All other
/// characters of concern are only within strings, and never directly after a backslash.
fn json_but(json: &str, space: impl Fn(char) -> char) -> Cow<'_, str> {
    let concerns = |c: char| match c {
        '\n' | '\r' | '\t' => space(c) != c,
        c => is_obeyed(c),
    };
    if !json.contains(concerns) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => escaped.push(space(c)),
            c if is_obeyed(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _infallible = write!(escaped, "\\u{unit:04x}");
                }
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Raw JSON on one line, without the white space between its tokens, so that its layout does not
/// matter. No string and no number changes.
pub fn compact(json: &str) -> Cow<'_, str> {
    let is_space = |c: char| matches!(c, ' ' | '\n' | '\r' | '\t');
    if !json.contains(is_space) {
        return Cow::Borrowed(json);
    }
    let (mut in_string, mut escaped) = (false, false);
    let stays = |c: &char| {
        match (in_string, escaped, c) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (_, false, '"') => in_string = !in_string,
            _ => {}
        }
        in_string || !is_space(*c)
    };
    Cow::Owned(json.chars().filter(stays).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_all_else_stays() {
        let same = "a \"b\" \\ é\u{1f4d6} می\u{200c}خواهم \u{a0}\u{3000}\u{e000}";
        assert!(matches!(text(same), Cow::Borrowed(found) if found == same));
        assert_eq!(text("\u{1b}[2J\n\u{9b}\u{202e}\t\0x"), r"\u{1b}[2J\n\u{9b}\u{202e}\t\0x");
        assert_eq!(
            json("{\n\"a\": \"\u{9b}\u{e0041}\u{7f}\"}"),
            "{\n\"a\": \"\\u009b\\udb40\\udc41\\u007f\"}"
        );
        assert_eq!(json_line("[\r\n\t1]"), "[   1]");
        assert_eq!(compact("[\r\n\t1.0, \"a \\\" b\\\\\" , {} ]\n"), "[1.0,\"a \\\" b\\\\\",{}]");
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_is_left_in_text_and_it_is_escaped_once(s: String) {
            let escaped = text(&s);
            prop_assert!(!escaped.contains(is_obeyed));
            prop_assert_eq!(&text(&escaped), &escaped);
        }

        #[test]
        fn json_stays_the_same_value(strings: Vec<String>, number: i64) {
            let value = serde_json::json!({"strings": strings, "number": number});
            for laid_out in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let same = |text: &str| serde_json::from_str::<Value>(text).unwrap() == value;
                let (kept, line, small) = (json(&laid_out), json_line(&laid_out), compact(&laid_out));
                prop_assert!(same(&kept) && same(&line) && same(&small));
                prop_assert!(!kept.contains(|c| c != '\n' && is_obeyed(c)));
                prop_assert!(!line.contains(is_obeyed));
                prop_assert_eq!(&*small, &value.to_string());
            }
        }
    }

    #[test]
    fn words_for_a_shell_are_quoted_where_they_must_be() {
        assert_eq!(quoted("/a/b.json"), "/a/b.json");
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
    }
}
