//! The cursor against `serde_json`, and by itself.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

/// Steps into every object and array down to its plain values.
fn step_through(text: &str) -> Result<(), Invalid> {
    let mut cursor = Cursor::new(text);
    let mut open: Vec<Container> = Vec::new();
    loop {
        if let Some(container) = cursor.object().or_else(|| cursor.array()) {
            open.push(container);
        } else {
            cursor.skip()?;
        }
        loop {
            let Some(container) = open.last_mut() else { return cursor.finish() };
            let more = match container.close {
                b'}' => cursor.member(container)?.is_some(),
                _ => cursor.element(container)?,
            };
            if more {
                break;
            }
            open.pop();
        }
    }
}

fn serde_agrees(text: &str) -> bool {
    let valid = serde_json::from_str::<IgnoredAny>(text).is_ok();
    valid == validate(text).is_ok() && valid == step_through(text).is_ok()
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
    fn the_cursor_takes_what_serde_json_takes(text in json()) {
        prop_assert!(step_through(&text).is_ok());
        prop_assert!(serde_agrees(&text));
    }

    #[test]
    fn the_cursor_and_serde_json_agree_on_damaged_json(
        text in json(), at in any::<prop::sample::Index>(), with in "[\\[\\]{}\",:0e.\\\\ut -]?",
    ) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..=at, with.chars());
        let text: String = chars.into_iter().collect();
        prop_assert!(serde_agrees(&text), "{text}");
    }

    #[test]
    fn the_cursor_and_serde_json_agree_on_noise(text in "[\\[\\]{}\",:0-9eE+.\\\\utrfalsn \u{0}-]{0,12}") {
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
        let mut cursor = Cursor::new(&text);
        let mut object = cursor.object().unwrap();
        for (key, value) in &members {
            let found = cursor.member(&mut object).unwrap().unwrap();
            prop_assert!(found.is(key));
            prop_assert_eq!(cursor.skip().unwrap(), value);
        }
        prop_assert!(cursor.member(&mut object).unwrap().is_none());
        prop_assert!(cursor.finish().is_ok());
    }
}

#[test]
fn nesting_ten_thousand_deep_is_passed() {
    let deep =
        |inside: &str| format!("{}{inside}{}", "[{\"a\":".repeat(10_000), "}]".repeat(10_000));
    for judge in [validate, step_through] {
        judge(&deep("1")).unwrap();
        assert_eq!(judge(&deep("")).unwrap_err().at, 60_000);
    }
}

#[test]
fn an_error_names_its_byte_and_what_came_before_it_is_known() {
    for (text, error) in [
        ("", "expected a value at byte 0"),
        ("{\"a\":1,}", "expected a key at byte 7"),
        ("{\"a\" 1}", "expected `:` at byte 5"),
        ("[1\n 2]", "expected `,` or `]` at byte 4"),
        ("[[1,\n 2,\n x]]", "expected value at byte 10"),
        ("[1]]", "expected the end at byte 3"),
    ] {
        assert_eq!(step_through(text).unwrap_err().to_string(), error, "{text}");
    }
    let mut cursor = Cursor::new(r#"{"a":12x,"b":1}"#);
    let mut object = cursor.object().unwrap();
    assert!(cursor.member(&mut object).unwrap().unwrap().is("a"));
    assert_eq!(cursor.skip().unwrap(), "12");
    assert_eq!(cursor.member(&mut object).unwrap_err().at, 7);
}

#[test]
fn an_escaped_key_is_recognised_and_a_lone_surrogate_is_no_text() {
    let mut cursor = Cursor::new(r#"{"\u005fid":1}"#);
    let mut object = cursor.object().unwrap();
    assert!(cursor.member(&mut object).unwrap().unwrap().is("_id"));
    assert_eq!(string(r#""\ud83d\ude00""#).unwrap(), "😀");
    assert_eq!(string(r#""\ud83d""#), Err(LoneSurrogate));
    assert!(validate(r#""\ud83d""#).is_ok());
}
