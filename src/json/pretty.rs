//! Indents JSON for people, token by token, so that no number, key or escape changes. Pure.

/// The deepest indentation, in levels: with a million nested brackets, white space alone would fill
/// a disk.
const DEEPEST: usize = 100;

/// `json` with every member on a separate line, indented by two spaces. The text must be valid JSON;
/// only the white space between its tokens changes.
pub fn pretty(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + json.len() / 4);
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let end = string_length(after);
                out.push(byte);
                out.extend_from_slice(&after[..end]);
                rest = &after[end..];
            }
            b'{' | b'[' => {
                out.push(byte);
                let next = after.iter().position(|byte| !byte.is_ascii_whitespace());
                match next.map(|at| (at, after[at])) {
                    Some((at, close @ (b'}' | b']'))) => {
                        out.push(close);
                        rest = &after[at + 1..];
                    }
                    _ => {
                        depth += 1;
                        new_line(&mut out, depth);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    out
}

/// The length of the string in bytes, including its closing quote, if `text` starts after the
/// opening quote.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(step) = memchr::memchr2(b'"', b'\\', &text[at..]) {
        at += step + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        at += 1;
        if at > text.len() {
            break;
        }
    }
    text.len()
}

fn new_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth.min(DEEPEST), b' ');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn laid_out(json: &str) -> String {
        String::from_utf8(pretty(json.as_bytes())).unwrap()
    }

    #[test]
    fn members_stand_on_lines_of_their_own() {
        let expected = "{\n  \"a\": [\n    1.0,\n    {}\n  ],\n  \"b\": \"x, y: {\\\"}\"\n}";
        assert_eq!(laid_out(r#"{"a":[1.0,{ }],"b":"x, y: {\"}"}"#), expected);
    }

    #[test]
    fn white_space_between_tokens_makes_no_difference() {
        let spaced = "\t{ \"a\" : [ 1.0 ,\r\n { } ] , \"b\" : \"x  y\" } ";
        assert_eq!(laid_out(spaced), laid_out(r#"{"a":[1.0,{}],"b":"x  y"}"#));
    }

    #[test]
    fn a_string_without_an_end_is_survived() {
        for text in ["\"", "\"\\", "\"a\\\"", "[\"a\\"] {
            assert!(laid_out(text).ends_with(text.trim_start_matches('[')), "{text}");
        }
    }

    #[test]
    fn numbers_keys_and_escapes_stay_as_they_are() {
        let json = r#"{"b":1e400,"a":123456789012345678901234567890,"a":"\u00e9\/"}"#;
        assert_eq!(laid_out(json).replace([' ', '\n'], ""), json);
    }

    #[test]
    fn nesting_of_a_million_is_laid_out_in_little_space() {
        let json = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(laid_out(&json).len() < 500_000_000);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            pretty(&bytes);
        }

        #[test]
        fn a_string_stays_itself(text in any::<String>()) {
            let json = serde_json::to_string(&[&text]).unwrap();
            let back: Vec<String> = serde_json::from_slice(&pretty(json.as_bytes())).unwrap();
            prop_assert_eq!(back, vec![text]);
        }
    }
}
