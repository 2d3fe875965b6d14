//! Every text has a name of its own, and is read back from it.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const FORMAT: &str = include_str!("../../../docs/format.md");
const CODECS: [Codec; 2] = [Codec::Native, Codec::Portable];
const LONGEST_PREFIX: usize = LONGEST_NAME - HASH_DIGITS - 1;

/// The cells of the rows of the table under a heading, with `\|` unescaped.
fn table_rows(heading: &str) -> Vec<Vec<String>> {
    let section = FORMAT.split_once(heading).expect("the heading").1;
    section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let line = line.replace("\\|", "\0");
            let cells = line.trim().trim_matches('|').split('|');
            cells.map(|cell| cell.trim().trim_matches('`').replace('\0', "|")).collect()
        })
        .collect()
}

#[test]
fn every_published_example_is_true() {
    let rows = table_rows("### Examples");
    assert!(rows.len() >= 15, "only {} examples were found", rows.len());
    for row in rows {
        let [id, native, portable] = row.try_into().expect("three cells");
        let id: String = serde_json::from_str(&id).expect("an id as a JSON string");
        for (codec, name) in [(Codec::Native, &native), (Codec::Portable, &portable)] {
            assert_eq!(codec.encode(&id).as_str(), name, "{codec:?} {id:?}");
            let expected = match name.len() > 1 && name.contains(MARK) {
                true => Decoded::Hashed,
                false => Decoded::Exact(id.clone()),
            };
            assert_eq!(codec.decode(name), expected, "{codec:?} {name}");
        }
    }
}

#[test]
fn a_device_name_is_never_left_as_it_is() {
    let devices = ["CON", "prn", "AUX", "nul", "COM0", "com9", "LPT¹", "com³", "ConIn$"];
    for device in devices {
        for text in [device.to_owned(), format!("{device}.txt"), format!("{device}  .tar.gz")] {
            let name = Codec::Native.encode(&text);
            assert!(name.as_str().starts_with('%'), "{text} became {name}");
            assert_eq!(Codec::Native.decode(&text), Decoded::Foreign, "{text}");
        }
    }
    for text in ["console", "com", "com10", "com¹²", "lpt ", "a.con", "con-1.txt", "nul\u{e9}"] {
        assert!(!Codec::Native.encode(text).as_str().starts_with('%'), "{text}");
    }
}

#[test]
fn a_name_that_nobody_could_have_encoded_is_foreign() {
    let hash = "0123456789abcdef0123456789abcdef";
    let long = "a".repeat(LONGEST_PREFIX);
    let names = [
        "".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        ".plainfold".to_owned(),
        "a ".to_owned(),
        "a/b".to_owned(),
        "a%2fb".to_owned(),     // lower case
        "%61".to_owned(),       // a needless escape
        "a.b%2Ec".to_owned(),   // a needless escape of a dot
        "a%".to_owned(),        // cut short
        "a%2".to_owned(),       // cut short
        "a%+1".to_owned(),      // a sign is no digit
        "%FF".to_owned(),       // not UTF-8
        "%ED%A0%80".to_owned(), // half a surrogate pair
        "%C0%AF".to_owned(),    // an overlong slash
        "con".to_owned(),       // a device
        "~~".to_owned(),        // two marks
        "a~".to_owned(),        // no hash
        format!("~{hash}"),     // no readable part
        format!("a~{hash}"),    // too short to have needed a hash
        format!("{long}~{}", hash.to_uppercase()),
        format!("{long}a~{hash}"), // too long
        format!(".{}~{hash}", &long[1..]),
        format!("%61{}~{hash}", &long[3..]),
        format!("%6g{}~{hash}", &long[3..]),
        format!("{}~~{hash}", &long[1..]),
        format!("con.{}~{hash}", &long[4..]),
        format!("%63on {}~{hash}", &long[6..]),
        "a".repeat(LONGEST_NAME + 1),
    ];
    for codec in CODECS {
        for name in &names {
            assert_eq!(codec.decode(name), Decoded::Foreign, "{codec:?} {name:?}");
        }
    }
    for name in ["Book", "caf\u{e9}"] {
        assert_eq!(Codec::Native.decode(name), Decoded::Exact(name.to_owned()));
        assert_eq!(Codec::Portable.decode(name), Decoded::Foreign);
    }
}

#[test]
fn a_shortened_device_name_is_known_by_the_dot_that_follows_or_does_not() {
    let spaces = " ".repeat(300);
    for text in [format!("con{spaces}.txt"), format!("con{spaces}x"), format!("con.{spaces}x")] {
        for codec in CODECS {
            let name = codec.encode(&text);
            assert_eq!(name.as_str().starts_with("%63on"), is_device(&text), "{name}");
            assert_eq!(codec.decode(name.as_str()), Decoded::Hashed, "{name}");
        }
    }
}

#[test]
fn a_name_is_shortened_only_beyond_two_hundred_bytes() {
    let fits = "a".repeat(200);
    assert_eq!(Codec::Native.encode(&fits).as_str(), fits);
    assert_eq!(Codec::Native.decode(&fits), Decoded::Exact(fits.clone()));
    let slashes = "/".repeat(66); // 198 bytes as a name
    assert_eq!(Codec::Native.encode(&format!("{slashes}ab")).as_str().len(), 200);
    for longer in [format!("{slashes}abc"), "a".repeat(201)] {
        let name = Codec::Native.encode(&longer);
        assert!(name.as_str().contains(MARK), "{name}");
        assert_eq!(Codec::Native.decode(name.as_str()), Decoded::Hashed);
    }
}

#[test]
fn a_shortened_name_never_cuts_a_character_in_two() {
    for character in ["%", "é", "€", "😀", "\u{85}"] {
        for shift in 0..12 {
            for codec in CODECS {
                let text = format!("{}{}", "a".repeat(shift), character.repeat(300));
                let name = codec.encode(&text);
                let (prefix, _) = name.as_str().split_once(MARK).expect("a shortened name");
                let read = unescape(prefix).expect("whole characters");
                assert!(text.starts_with(&read) && read.len() > 10, "{name}");
                assert_eq!(codec.decode(name.as_str()), Decoded::Hashed, "{name}");
            }
        }
    }
}

/// Any text: random strings, and strings of fragments that have broken such codecs.
fn texts() -> impl Strategy<Value = String> {
    #[rustfmt::skip]
    const HOSTILE: [&str; 64] = [
        ".", "..", "/", "\\", "\0", "%", "%2F", "%2f", "%25", "%C3%A9", "~", " ", ":", "*", "?",
        "\"", "<", ">", "|", "\n", "\r", "\t", "\u{1b}", "\u{7f}", "\u{80}", "\u{9f}", "\u{a0}",
        "\u{2028}", "\u{202e}", "\u{feff}", "\u{fffd}", "\u{ffff}", "\u{10ffff}", "é",
        "e\u{301}", "É", "ß", "ẞ", "ss", "SS", "ı", "İ", "i", "I", "ſ", "K", "k", "\u{212a}",
        "Å", "😀", "con", "CON", "nul", "com1", "LPT¹", "conin$", "a", "A", "b", ".txt",
        "0123456789abcdef0123456789abcdef", ".plainfold", "document.json", "attachments",
    ];
    let fragments = |most| prop::collection::vec(prop::sample::select(&HOSTILE[..]), 0..most);
    prop_oneof![
        3 => any::<String>(),
        6 => fragments(8).prop_map(|parts| parts.concat()),
        1 => (fragments(4), any::<String>(), 1_usize..80)
            .prop_map(|(parts, tail, times)| parts.concat().repeat(times) + &tail),
        1 => ("[a-zA-Zé]{150,210}", fragments(4)).prop_map(|(head, parts)| head + &parts.concat()),
    ]
}

/// Spellings of each codec, with names of all lengths.
fn codecs() -> impl Strategy<Value = Spelling> {
    let lengths = prop::option::of(64..200_u16);
    (prop::sample::select(&CODECS[..]), lengths)
        .prop_map(|(codec, longest)| Spelling::new(codec, longest).unwrap())
}

/// Texts to which a careless codec would give the name of `text`.
fn neighbours(codec: Spelling, text: &str) -> Vec<String> {
    let name = codec.encode(text);
    vec![
        name.as_str().to_owned(),
        codec.encode(name.as_str()).as_str().to_owned(),
        text.to_uppercase(),
        text.to_lowercase(),
        text.to_ascii_uppercase(),
        text.to_ascii_lowercase(),
        text.replace('é', "e\u{301}"),
        text.replace("e\u{301}", "é"),
        text.replace('%', "%25"),
        text.replace('/', "%2F"),
        text.replace('/', "%2f"),
        unescape(text).unwrap_or_default(),
        text.trim_end_matches(['.', ' ']).to_owned(),
        text.trim_start_matches('.').to_owned(),
        format!("{text} "),
        format!("{text}."),
        format!("{text}\0"),
        format!(".{text}"),
        text.chars().take(codec.longest_prefix()).collect(),
    ]
}

#[test]
fn a_file_system_with_short_names_gets_shorter_ones_and_one_with_too_short_names_none() {
    let within = |most| Spelling::within(Codec::Native, most).map(Spelling::longest);
    assert_eq!([255, 1530, 232, 231].map(within), [Some(200), Some(200), Some(200), Some(199)]);
    assert_eq!([175, 143, 96, 95, 0].map(within), [Some(143), Some(111), Some(64), None, None]);
    assert!(
        [63, 200, 999].iter().all(|longest| Spelling::new(Codec::Native, Some(*longest)).is_none())
    );
    let short = Spelling::within(Codec::Native, 143).unwrap();
    assert!(short.fits_within(143) && !short.fits_within(142));
    let text = "a".repeat(112);
    let name = short.encode(&text);
    assert_eq!((name.as_str().len(), short.decode(name.as_str())), (111, Decoded::Hashed));
    assert_eq!(Codec::Native.decode(name.as_str()), Decoded::Foreign, "no other mirror made it");
    assert_eq!(short.encode(&text[1..]).as_str(), &text[1..]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn a_text_is_read_back_from_its_name(codec in codecs(), text in texts()) {
        let name = codec.encode(&text);
        match codec.decode(name.as_str()) {
            Decoded::Exact(read) => prop_assert_eq!(read, text),
            Decoded::Hashed => {
                let all_escaped: usize = text.len() * 3;
                prop_assert!(all_escaped > codec.longest(), "{} needed no hash", name);
            }
            Decoded::Foreign => prop_assert!(false, "{} was taken for foreign", name),
        }
    }

    #[test]
    fn the_quick_look_and_the_spelling_agree(codec in codecs(), text in texts()) {
        let name = codec.encode(&text);
        prop_assert_eq!(codec.spell(&text), name.as_str());
    }

    #[test]
    fn a_name_stays_inside_its_folder(codec in codecs(), text in texts()) {
        let name = codec.encode(&text);
        let name = name.as_str();
        prop_assert!((1..=codec.longest()).contains(&name.len()));
        prop_assert!(!name.starts_with('.'));
        prop_assert!(!name.ends_with(['.', ' ']));
        prop_assert!(!name.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|']));
        prop_assert!(!name.chars().any(char::is_control));
        prop_assert!(!is_device(name));
        prop_assert!(codec.codec() == Codec::Native || name.is_ascii());
    }

    #[test]
    fn two_texts_never_share_a_name(codec in codecs(), left in texts(), right in texts()) {
        let mut names = HashMap::new();
        let mut texts = neighbours(codec, &left);
        texts.extend([left, right]);
        for text in texts {
            let mut name = codec.encode(&text).as_str().to_owned();
            if codec.codec() == Codec::Portable {
                name = name.to_lowercase();
            }
            if let Some(other) = names.insert(name, text.clone()) {
                prop_assert_eq!(other, text);
            }
        }
    }

    #[test]
    fn what_decodes_exactly_is_what_was_encoded(codec in codecs(), name in texts()) {
        match codec.decode(&name) {
            Decoded::Exact(text) => {
                let again = codec.encode(&text);
                prop_assert_eq!(again.as_str(), name);
            }
            Decoded::Hashed => prop_assert!(name.len() <= codec.longest()),
            Decoded::Foreign => {
                let own = codec.encode(&name);
                prop_assert_ne!(own.as_str(), name);
            }
        }
    }
}
