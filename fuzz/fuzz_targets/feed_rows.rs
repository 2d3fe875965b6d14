//! A line of a recorded feed as a change: the change is always JSON, and a line without a row never
//! becomes a change.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plainfold::source::feed::fuzzing;
use serde_json::value::RawValue;

fuzz_target!(|line: &[u8]| {
    let Some(body) = fuzzing::body_of(line) else { return };
    assert!(serde_json::from_slice::<&RawValue>(line).is_ok(), "a change out of no JSON");
    assert!(serde_json::from_slice::<&RawValue>(&body).is_ok(), "a body that is no JSON");
});
