//! What a server sends as a change feed: cut into rows whatever pieces it comes in, and each row
//! read.
//!
//! The first byte chooses the shape of the feed and how long its pieces are.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use plainfold::client::couchdb::rows::{BrokenFeed, Frame, Rows, Shape};
use plainfold::source::couchdb::fuzzing;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, feed)) = data.split_first() else { return };
    let shape = if choice & 1 == 0 { Shape::Normal } else { Shape::Continuous };
    let whole = frames(shape, feed, feed.len().max(1));
    let pieces = frames(shape, feed, usize::from(choice >> 1).max(1));
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        // What an error repeats of the feed is as much as came with the last piece.
        (Err(BrokenFeed::Garbage(_)), Err(BrokenFeed::Garbage(_))) => {}
        (whole, pieces) => assert_eq!(whole, pieces),
    }
    for frame in whole.into_iter().flatten() {
        if let Frame::Row(row) = frame {
            assert!(fuzzing::body_is_verbatim(&row));
        }
    }
});

fn frames(shape: Shape, feed: &[u8], piece: usize) -> Result<Vec<Frame>, BrokenFeed> {
    let (mut rows, mut frames) = (Rows::new(shape), Vec::new());
    for piece in feed.chunks(piece) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(frame) = rows.next(&mut input)? {
            frames.push(frame);
        }
    }
    rows.finish()?;
    Ok(frames)
}
