//! What a person types and what our own small files say: sources, globs, records, the format.
//!
//! No error may repeat the password of a URL.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plainfold::config::MirrorConfig;
use plainfold::mirror::fuzzing;

const PASSWORD: &str = "hunter2hunter2";

fuzz_target!(|text: &str| {
    fuzzing::read_small_files(text.as_bytes());
    let _ = MirrorConfig::new("feed:x", "m").map(|config| config.collections(&[text]).is_ok());
    for source in [text.to_owned(), format!("http://me:{PASSWORD}@{text}")] {
        match MirrorConfig::new(&source, "m") {
            Ok(config) => {
                assert!(text.contains(PASSWORD) || !format!("{config:?}").contains(PASSWORD))
            }
            Err(error) => {
                let said = format!("{error} {error:?}");
                assert!(text.contains(PASSWORD) || !said.contains(PASSWORD), "{said}");
            }
        }
    }
});
