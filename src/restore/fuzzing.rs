//! Access for the fuzz targets to how a restore rewrites bodies. Not part of the library's
//! interface.

use bytes::Bytes;

use super::body::{BodyContext, BodyText, Piece, Stubs, on_top};

/// The texts that targets would receive for a body, as it is and on top of another revision, with
/// each attachment's data inserted.
pub fn texts_of(body: &[u8]) -> Vec<Vec<u8>> {
    let (id, body) = ("d".into(), Bytes::copy_from_slice(body));
    let beside = BodyContext { history: Some(r#"{"start":1,"ids":["a"]}"#), deleted: true };
    let mut texts = Vec::new();
    for (beside, stubs) in [(BodyContext::default(), Stubs::Feed), (beside, Stubs::Server)] {
        let Ok(text) = BodyText::new(&id, &body, beside, stubs, |_| Some(3)) else { continue };
        let on_top = on_top(&id, &text.revision, &"7-w".into());
        for pieces in [text.rendered(None), text.rendered(on_top.as_ref())] {
            let bytes = pieces.iter().map(|piece| match piece {
                Piece::Text(text) => &text[..],
                _ => b"YWJj",
            });
            texts.push(bytes.collect::<Vec<_>>().concat());
        }
    }
    texts
}
