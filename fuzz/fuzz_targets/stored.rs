//! A `document.json` with anything in it, as a restore and a verification read it: what would be
//! sent is JSON with the data in its place, or the document is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plainfold::document::Head;
use plainfold::restore::fuzzing;
use serde_json::value::RawValue;

fuzz_target!(|body: &[u8]| {
    if let Ok(head) = Head::read(body) {
        let _ = head.stubs();
    }
    for sent in fuzzing::texts_of(body) {
        assert!(
            serde_json::from_slice::<&RawValue>(&sent).is_ok(),
            "not JSON: {}",
            String::from_utf8_lossy(&sent)
        );
    }
    if serde_json::from_slice::<&RawValue>(body).is_ok() {
        let laid_out = plainfold::mirror::fuzzing::pretty(body);
        let tokens = |json: &[u8]| json.iter().filter(|byte| !byte.is_ascii_whitespace()).count();
        assert!(serde_json::from_slice::<&RawValue>(&laid_out).is_ok());
        assert_eq!(tokens(&laid_out), tokens(body));
    }
});
