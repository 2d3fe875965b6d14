//! Benchmarks of the hot functions that use no file and no server.
//!
//! ```sh
//! cargo bench --bench parts
//! ```

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use plainfold::client::couchdb::rows::{Frame, Rows, Shape};
use plainfold::document::Head;
use plainfold::tree::names::{Codec, Decoded};

fn main() {
    divan::main();
}

const KINDS: [&str; 3] = ["plain", "escaped", "long"];

/// An id that needs nothing, one that needs escapes, one that is too long for a name.
fn id(kind: &str) -> &'static str {
    match kind {
        "plain" => "book-0001",
        "escaped" => "loan/2024:0117 \"ж\"",
        _ => LONG,
    }
}

const LONG: &str = "A letter of the librarian to the readers, in which it is explained at length why \
                    the names of some folders in this mirror end in a tilde and 32 digits instead of \
                    ending in the way in which their ids end";

#[divan::bench(args = KINDS)]
fn name_of_an_id(bencher: Bencher<'_, '_>, kind: &str) {
    let id = id(kind);
    bencher.counter(ItemsCount::new(1_usize)).bench(|| Codec::Native.encode(divan::black_box(id)));
}

#[divan::bench(args = KINDS)]
fn id_of_a_name(bencher: Bencher<'_, '_>, kind: &str) {
    let name = Codec::Native.encode(id(kind));
    bencher.counter(ItemsCount::new(1_usize)).bench(|| {
        matches!(Codec::Native.decode(divan::black_box(name.as_str())), Decoded::Foreign)
    });
}

/// A body of about `size` bytes.
fn body(number: usize, size: usize) -> String {
    let text = "x".repeat(size.saturating_sub(90));
    format!(
        r#"{{"_id":"doc-{number:07}","_rev":"1-0123456789abcdef0123456789abcdef","n":{number},"text":"{text}"}}"#
    )
}

#[divan::bench(args = [500, 50_000])]
fn rows_of_a_feed(bencher: Bencher<'_, '_>, size: usize) {
    let row = |number| {
        let body = body(number, size);
        format!("{{\"seq\":{number},\"id\":\"doc-{number:07}\",\"changes\":[],\"doc\":{body}}}\n")
    };
    let feed = Bytes::from((0..2_000_000 / size).map(row).collect::<String>());
    // As they come from a socket.
    let pieces: Vec<Bytes> = (0..feed.len())
        .step_by(64 << 10)
        .map(|start| feed.slice(start..feed.len().min(start + (64 << 10))))
        .collect();
    bencher.counter(BytesCount::new(feed.len())).bench(|| {
        let (mut rows, mut count) = (Rows::new(Shape::Continuous), 0);
        for piece in &pieces {
            let mut input = piece.clone();
            while let Ok(Some(frame)) = rows.next(&mut input) {
                count += usize::from(matches!(frame, Frame::Row(_)));
            }
        }
        count
    });
}

#[divan::bench(args = [500, 50_000])]
fn head_of_a_body(bencher: Bencher<'_, '_>, size: usize) {
    let body = body(1, size);
    bencher.counter(BytesCount::new(body.len())).bench(|| {
        Head::read(divan::black_box(body.as_bytes())).is_ok_and(|head| head.revision.is_some())
    });
}
