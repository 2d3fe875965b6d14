//! What the framer promises, whatever pieces the bytes arrive in.

use proptest::prelude::*;

use super::*;

/// All frames of a body that arrives in these pieces.
fn frames(shape: Shape, pieces: &[&[u8]]) -> Result<Vec<Frame>, BrokenFeed> {
    let mut rows = Rows::with_limit(shape, 1 << 10);
    let mut frames = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(frame) = rows.next(&mut input)? {
            frames.push(frame);
        }
        assert!(input.is_empty());
    }
    rows.finish()?;
    Ok(frames)
}

fn row(text: &'static str) -> Frame {
    Frame::Row(Bytes::from_static(text.as_bytes()))
}

fn tail(text: &'static str) -> Frame {
    Frame::Tail(Bytes::from_static(text.as_bytes()))
}

#[test]
fn couchdbs_lines_and_pouchdbs_single_line_are_the_same_feed() {
    let lines = b"{\"results\":[\n{\"a\":[1]},\r\n{\"b\":\"]}\\\"\"}\n],\n\"last_seq\":\"2-x\",\"pending\":0}\n\n";
    let single = br#"{"results":[{"a":[1]},{"b":"]}\""}],"last_seq":"2-x","pending":0}"#;
    let found = frames(Shape::Normal, &[lines]).unwrap();
    assert_eq!(found[..2], [row(r#"{"a":[1]}"#), row(r#"{"b":"]}\""}"#)]);
    assert_eq!(found[2], tail("{\n\"last_seq\":\"2-x\",\"pending\":0}"));
    assert_eq!(frames(Shape::Normal, &[single]).unwrap()[..2], found[..2]);
}

#[test]
fn a_blank_line_is_a_heartbeat_and_the_line_end_after_a_row_is_not() {
    let found = frames(Shape::Continuous, &[b"\n\n{\"a\":1}\n", b"\n"]).unwrap();
    assert_eq!(found, [Frame::Blank, Frame::Blank, row(r#"{"a":1}"#), Frame::Blank]);
}

#[test]
fn a_feed_that_is_cut_anywhere_is_broken_and_never_ended() {
    let whole = br#"{"results":[{"a":1},{"b":"x"}],"last_seq":2}"#;
    assert!(frames(Shape::Normal, &[whole]).is_ok());
    for length in 0..whole.len() {
        let cut = frames(Shape::Normal, &[&whole[..length]]);
        assert_eq!(cut, Err(BrokenFeed::CutShort), "cut at {length}");
    }
    assert_eq!(frames(Shape::Continuous, &[b"{\"a\":1}\n{\"b"]), Err(BrokenFeed::CutShort));
}

#[test]
fn a_feed_without_a_tail_says_so_with_an_empty_one() {
    assert_eq!(frames(Shape::Normal, &[b"{\"results\":[]}"]).unwrap(), [tail("{}")]);
}

#[test]
fn garbage_is_named_and_never_skipped() {
    let raw = b"{\"results\":[\n{\"a\":1}\nHTTP/1.1 500 Internal Server Error\r\n";
    for (shape, body) in [
        (Shape::Normal, &raw[..]),
        (Shape::Normal, b"{\"error\":\"x\"}"),
        (Shape::Normal, b"{\"results\":[],\"last_seq\":1}{"),
        (Shape::Normal, b"{\"results\":[null]}"),
        (Shape::Continuous, b"{\"a\":1}\nHTTP/1.1 500"),
        (Shape::Continuous, b"<html>"),
    ] {
        assert!(matches!(frames(shape, &[body]), Err(BrokenFeed::Garbage(_))));
    }
}

/// A row that is larger than the limit, in the order of CouchDB or of pouchdb-server.
fn large(seq_first: bool) -> String {
    let doc = format!(r#""doc":{{"_id":"big","_rev":"2-b","x":"{{]\"{}"}}"#, "x".repeat(2000));
    let rest = r#""id":"big","changes":[{"rev":"1-a"}]"#;
    match seq_first {
        true => format!(r#"{{"seq":"5-x",{rest},{doc}}}"#),
        false => format!(r#"{{{rest},{doc},"seq":"5-x"}}"#),
    }
}

#[test]
fn a_row_that_is_too_large_is_named_and_passed_by() {
    for seq_first in [true, false] {
        let large = large(seq_first);
        let normal =
            format!("{{\"results\":[{{\"a\":1}},\n{large},\n{{\"b\":2}}],\"last_seq\":9}}");
        let continuous = format!("\n{{\"a\":1}}\n{large}\n{{\"b\":2}}\n");
        for size in [1, 100, 10_000] {
            for (shape, body) in [(Shape::Normal, &normal), (Shape::Continuous, &continuous)] {
                let pieces: Vec<_> = body.as_bytes().chunks(size).collect();
                let mut found = frames(shape, &pieces).unwrap();
                found.retain(|frame| !matches!(frame, Frame::Blank | Frame::Tail(_)));
                let [first, Frame::Oversized(oversized), last] = &found[..] else {
                    panic!("{found:?}")
                };
                assert_eq!((first, last), (&row(r#"{"a":1}"#), &row(r#"{"b":2}"#)));
                assert_eq!(oversized.length, large.len() as u64);
                assert_eq!(oversized.surface, Surface::of(large.as_bytes()));
                assert_eq!(oversized.surface.seq.as_deref(), Some(r#""5-x""#));
                assert_eq!(oversized.surface.id, Some("big".into()));
                assert_eq!(oversized.surface.revision, Some("2-b".into()));
            }
        }
    }
}

#[test]
fn a_row_that_is_too_large_and_cut_is_cut() {
    let body = format!("{{\"results\":[{}", large(true));
    let cut = &body.as_bytes()[..body.len() - 5];
    assert_eq!(frames(Shape::Normal, &[cut]), Err(BrokenFeed::CutShort));
}

#[test]
fn an_end_that_is_too_large_is_an_error() {
    let body = format!("{{\"results\":[],\"x\":\"{}\"}}", "x".repeat(2000));
    assert_eq!(frames(Shape::Normal, &[body.as_bytes()]), Err(BrokenFeed::Oversized(1 << 10)));
}

#[test]
fn a_feed_of_nothing_is_broken_off_at_the_limit() {
    for nothing in [" ", ",", "\r\t"] {
        let body = format!("{{\"results\":[{}", nothing.repeat(2000));
        assert_eq!(frames(Shape::Normal, &[body.as_bytes()]), Err(BrokenFeed::Empty(1 << 10)));
    }
    let blank = " ".repeat(2000);
    assert_eq!(frames(Shape::Continuous, &[blank.as_bytes()]), Err(BrokenFeed::Empty(1 << 10)));
    let beats = "\n".repeat(2000);
    assert_eq!(frames(Shape::Continuous, &[beats.as_bytes()]).unwrap().len(), 2000);
}

#[test]
fn a_row_within_one_piece_is_not_copied() {
    let body = Bytes::from_static(b"{\"results\":[{\"a\":1}");
    let mut input = body.clone();
    let Some(Frame::Row(found)) = Rows::new(Shape::Normal).next(&mut input).unwrap() else {
        panic!("no row")
    };
    assert_eq!(found.as_ptr(), body[12..].as_ptr());
}

proptest! {
    #[test]
    fn any_chunking_of_the_bytes_gives_the_same_rows(
        texts in prop::collection::vec(any::<String>(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        continuous in any::<bool>(),
    ) {
        let objects: Vec<String> =
            texts.iter().map(|text| serde_json::json!({"id": text, "x": [{}, text]}).to_string()).collect();
        let (shape, body) = if continuous {
            (Shape::Continuous, format!("\n{}\n\n", objects.join("\n")))
        } else {
            (Shape::Normal, format!("{{\"results\":[\n{}\n],\n\"last_seq\":\"1\"}}\n", objects.join(",\r\n")))
        };
        let body = body.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
        let found = frames(shape, &pieces).unwrap();
        prop_assert_eq!(&found, &frames(shape, &[body]).unwrap());
        let rows: Vec<&[u8]> = found.iter().filter_map(|frame| match frame {
            Frame::Row(row) => Some(&row[..]),
            _ => None,
        }).collect();
        prop_assert_eq!(rows, objects.iter().map(|object| object.as_bytes()).collect::<Vec<_>>());
    }
}
