//! The names of folders: reversible, injective, and never a way out.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plainfold::tree::names::{Codec, Decoded};

fuzz_target!(|text: &str| {
    for codec in [Codec::Native, Codec::Portable] {
        let name = codec.encode(text);
        stays_inside(name.as_str());
        match codec.decode(name.as_str()) {
            Decoded::Exact(back) => assert_eq!(back, text),
            Decoded::Hashed => assert!(name.is_shortened()),
            Decoded::Foreign => panic!("{name} is foreign to its own codec"),
        }
        // The other way round: a name that has a text is the name of that text.
        if let Decoded::Exact(decoded) = codec.decode(text) {
            assert_eq!(codec.encode(&decoded).as_str(), text);
            stays_inside(text);
        }
        // Injective, as far as a pair at a time can show.
        for other in [text.to_uppercase(), text.replace('/', "%2F"), format!("{text}~")] {
            if other != text {
                assert_ne!(codec.encode(&other).as_str(), name.as_str());
            }
        }
    }
});

fn stays_inside(name: &str) {
    assert!(!name.is_empty() && name.len() <= 200, "{name:?}");
    assert!(!name.starts_with('.') && !name.contains(['/', '\\', '\0']), "{name:?}");
}
