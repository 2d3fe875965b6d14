//! The scanner against `serde_json`, and by itself.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn serde_agrees(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok() == validate(text).is_ok()
}

/// JSON of a few levels, with numbers and strings that are hard to read.
fn json() -> impl Strategy<Value = String> {
    let plain = prop_oneof![
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        "\"(\\\\u[0-9a-fA-F]{4}|\\\\[\"\\\\/bfnrt]|[ -!#-Z]){0,12}\"",
    ];
    plain.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|v| format!("[{}]", v.join(" , "))),
            prop::collection::vec(("[a-c]{0,2}", inner), 0..6).prop_map(|v| {
                let members: Vec<_> = v.iter().map(|(k, v)| format!("\"{k}\" :{v}")).collect();
                format!("{{{}\n}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn the_scanner_takes_what_serde_json_takes(text in json()) {
        prop_assert!(validate(&text).is_ok());
        prop_assert!(serde_agrees(&text));
    }

    #[test]
    fn the_scanner_and_serde_json_agree_on_damaged_json(
        text in json(), at in any::<prop::sample::Index>(), with in "[\\[\\]{}\",:0e.\\\\ut -]?",
    ) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..=at, with.chars());
        let text: String = chars.into_iter().collect();
        prop_assert!(serde_agrees(&text), "{text}");
    }

    #[test]
    fn the_scanner_and_serde_json_agree_on_noise(text in "[\\[\\]{}\",:0-9eE+.\\\\utrfalsn \u{0}-]{0,12}") {
        prop_assert!(serde_agrees(&text), "{text}");
    }

    #[test]
    fn any_text_at_all_is_judged_without_a_panic(text in any::<String>()) {
        prop_assert!(serde_agrees(&text), "{text}");
    }

    #[test]
    fn walking_an_object_member_by_member_covers_it(
        members in prop::collection::vec((any::<String>(), json()), 0..6),
    ) {
        let quoted = |s: &str| serde_json::to_string(s).unwrap();
        let text: Vec<_> = members.iter().map(|(k, v)| format!("{} : {v}", quoted(k))).collect();
        let text = format!(" {{ {} }} ", text.join(" , "));
        let mut scanner = Scanner::new(&text);
        let mut object = scanner.object().unwrap();
        for (key, value) in &members {
            let found = scanner.member(&mut object).unwrap().unwrap();
            prop_assert!(found.is(key));
            prop_assert_eq!(scanner.skip().unwrap(), value);
        }
        prop_assert!(scanner.member(&mut object).unwrap().is_none());
        prop_assert!(scanner.finish().is_ok());
    }

    #[test]
    fn a_run_of_plain_bytes_ends_where_a_byte_by_byte_search_says(bytes in any::<Vec<u8>>()) {
        let slow = bytes.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20);
        prop_assert_eq!(plain_run(&bytes), slow.unwrap_or(bytes.len()));
    }
}

#[test]
fn nesting_ten_thousand_deep_is_passed() {
    let deep = format!("{}{}", "[{\"a\":".repeat(10_000), "}]".repeat(10_000));
    assert_eq!(validate(&deep).unwrap_err().expected, "a value");
    let deep = format!("{}1{}", "[{\"a\":".repeat(10_000), "}]".repeat(10_000));
    validate(&deep).unwrap();
}

#[test]
fn an_escaped_key_is_recognised_and_a_lone_surrogate_is_no_text() {
    let mut scanner = Scanner::new(r#"{"\u005fid":1}"#);
    let mut object = scanner.object().unwrap();
    assert!(scanner.member(&mut object).unwrap().unwrap().is("_id"));
    assert_eq!(string(r#""\ud83d\ude00""#).unwrap(), "😀");
    assert_eq!(string(r#""\ud83d""#), Err(LoneSurrogate));
    assert!(validate(r#""\ud83d""#).is_ok());
}
