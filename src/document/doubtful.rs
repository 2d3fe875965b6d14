//! Names of collections that no CouchDB has, and what was probably meant.

/// What may be wrong with the name of a database that a server does not have.
pub fn doubtful_name(name: &str) -> Option<String> {
    if name.contains("%2F") || name.contains("%2f") {
        let plain = name.replace("%2F", "/").replace("%2f", "/");
        return Some(format!(
            "names are given as they are, as in `{plain}`: only in a URL is `/` `%2F`"
        ));
    }
    if let Some(plain) = name.strip_suffix('/') {
        return Some(format!("leave out the slash at the end: `{plain}`"));
    }
    if name.chars().any(char::is_uppercase) {
        return Some(format!("CouchDB's names are in lower case: `{}`", name.to_lowercase()));
    }
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "_$()+-/".contains(c);
    if !name.chars().all(is_legal) {
        return Some(
            "CouchDB's names hold only a to z, 0 to 9 and the characters _ $ ( ) + - /".to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_couchdb_does_not_allow_is_doubtful() {
        for (name, say) in [
            ("Books", "`books`"),
            ("a%2Fb", "`a/b`"),
            ("books/", "`books`"),
            ("my books", "a to z"),
        ] {
            assert!(doubtful_name(name).unwrap().contains(say), "{name}");
        }
        assert_eq!(doubtful_name("a/b-c"), None);
    }
}
