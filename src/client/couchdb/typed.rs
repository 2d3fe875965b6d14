//! What a person typed in the place of a server's URL, and what was probably meant.
//!
//! Pure. None of its texts repeats a password.

use super::address::{Address, encode};

/// The user with its `@`, without the password, and the path after it.
fn apart(text: &str) -> (String, &str) {
    match text.rsplit_once('@') {
        // An `@` may belong to the path.
        Some((before, _)) if before.contains('/') && !before.contains(':') => (String::new(), text),
        Some((before, path)) => {
            let user = before.split(':').next().unwrap_or_default().trim_start_matches('/');
            let user = if user.is_empty() { String::new() } else { encode(user) + "@" };
            (user, path)
        }
        None => (String::new(), text),
    }
}

/// What to type, if it can be guessed from a text that does not begin as a URL of a server does.
pub fn meant(text: &str) -> Option<String> {
    const QUOTES: [char; 8] = ['\'', '"', '`', '“', '”', '‘', '’', '<'];
    let text = text.trim();
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    if text.starts_with(QUOTES) {
        return Some("leave out the quotation marks around it".to_owned());
    }
    let hidden = Address::hidden(text);
    // A query is left out.
    let hidden = hidden.trim_end_matches(['…', '?', '#']);
    let lower = text.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("feed:") {
        return Some(match rest {
            "" => "name the file, as in feed:library.ndjson".to_owned(),
            _ => "`feed:` takes a file: give the URL of a server without it".to_owned(),
        });
    }
    if let Some(path) = ["file://", "file:"].iter().find_map(|scheme| lower.strip_prefix(scheme)) {
        let (_, path) = apart(&text[text.len() - path.len()..]);
        return Some(format!("for a recorded feed, write feed:{path}"));
    }
    if let Some(path) = lower.strip_prefix("unix:") {
        let (user, path) = apart(text[text.len() - path.len()..].trim_start_matches("//"));
        let path = encode(path);
        return Some(format!("for a Unix socket, write http+unix://{user}{path}/DATABASE"));
    }
    for scheme in ["https", "http"] {
        let Some(rest) = lower.strip_prefix(scheme) else { continue };
        // One of `:` and `/` is missing, or both.
        if rest.starts_with([':', '/']) {
            let rest = hidden[scheme.len()..].trim_start_matches([':', '/']);
            return Some(format!("write {scheme}://{rest}"));
        }
    }
    if let Some((_, rest)) = hidden.split_once("://") {
        return Some(format!("write http://{rest} or https://{rest}"));
    }
    let rest = hidden.trim_start_matches('/');
    let named = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let (host, port) = match named.split('/').next().unwrap_or_default().split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (named.split('/').next().unwrap_or_default(), None),
    };
    let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
    let is_host = is_port || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok();
    let is_path = text.starts_with(['.', '/']) && !text.starts_with("//");
    if (is_host || rest.contains('@') || text.starts_with("//")) && !is_path {
        return Some(format!("write http://{rest} or https://{rest}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::BadAddress;
    use super::*;

    #[test]
    fn the_urls_of_what_is_not_a_database_name_the_database() {
        for (url, meant) in [
            ("http://h/books/_all_docs", "http://h/books"),
            ("http://h/books/_all_docs?include_docs=true", "http://h/books"),
            ("http://h/a%2Fb/_changes?feed=continuous", "http://h/a%2Fb"),
            ("http://me:hunter2@h/books/_design/x/_view/y", "http://me@h/books"),
            ("http://me@h/books/_changes", "http://me@h/books"),
            ("http://h/couch/books/_local/x", "http://h/couch/books"),
            ("http://h/_utils/#database/books/_all_docs", "http://h/books"),
            ("http://h/_utils/#/database/a%2Fb/doc@x", "http://h/a%2Fb"),
            ("http://me:hunter2@h/couch/_utils/#/_all_dbs", "http://me@h/couch for all"),
            ("http://h/_utils/database.html?books", "http://h/books"),
            ("http://h/_all_dbs", "http://h/DATABASE"),
            ("http://h/_node/_local", "http://h/DATABASE"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(meant) && !error.contains("hunter2"), "{url}: {error}");
        }
        for database in ["_users", "_replicator", "_global_changes", "shelf/_mine"] {
            assert!(Address::parse(&format!("http://h/{database}")).is_ok(), "{database}");
        }
    }

    #[test]
    fn a_character_of_a_password_that_a_url_cannot_hold_is_named_and_the_password_is_not() {
        for password in ["pa#ss", "pa/ss", "pa?ss", "pa\\ss", "12/34", "#hunter2", "p#a@b", "1#4"] {
            let error = Address::parse(&format!("http://me:{password}@h:1/books")).unwrap_err();
            assert_eq!(error, BadAddress::At, "{password}");
            let text = error.to_string();
            assert!(text.contains("--password-file") && text.contains("%23"), "{text}");
            assert!(!text.contains(password), "{text}");
        }
        for password in ["pa@ss", "pa:ss", "pa%zz", "pa ss", "a[b"] {
            let given = Address::parse(&format!("http://me:{password}@h:1/books")).unwrap();
            let secret = given.credentials.unwrap().secret().read().unwrap();
            assert_eq!(secrecy::ExposeSecret::expose_secret(&secret), password);
        }
    }

    #[test]
    fn what_is_wrong_before_the_path_is_named() {
        for (url, expected) in [
            ("http://::1:5984/books", BadAddress::Brackets),
            ("http://me:hunter2@fe80::1/books", BadAddress::Brackets),
            ("http://h:159840/books", BadAddress::PortOrUser),
            ("http://me:hunter2@h:159840/books", BadAddress::Port),
            ("http://me:hunter2", BadAddress::PortOrUser),
            ("http://[::1]:70000/books", BadAddress::PortOrUser),
            ("http://[::1/books", BadAddress::Bracket),
            ("http://me:hunter2@[::1:5984/books", BadAddress::Bracket),
            ("http://::1]:5984/books", BadAddress::Bracket),
            ("http:///books", BadAddress::NoHost),
            ("http://me:hunter2@/books", BadAddress::NoHost),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error, expected, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for valid in ["http://[::1]:5984/books", "http://h:/books", "HTTP://H/b", " http://h/b "] {
            assert!(Address::parse(valid).is_ok(), "{valid}");
        }
    }

    #[test]
    fn what_is_not_a_url_says_what_to_type() {
        for (typed, say) in [
            ("localhost:5984/books", "http://localhost:5984/books"),
            ("localhost/books", "http://localhost/books"),
            ("127.0.0.1:5984/books", "http://127.0.0.1:5984/books"),
            ("//h/books", "http://h/books"),
            ("me:hunter2@h/books", "@h/books"),
            ("couchdb://me:hunter2@h/books", "https://me:…@h/books"),
            ("me@h/books", "http://me@h/books"),
            ("couchdb://me@h/books?token=hunter2", "https://me@h/books"),
            ("http:/h/books", "http://h/books"),
            ("https:h/books", "https://h/books"),
            ("https//h/books", "https://h/books"),
            ("'http://h/books'", "quotation marks"),
            ("“http://h/books”", "quotation marks"),
            ("file:///tmp/x.ndjson", "feed:/tmp/x.ndjson"),
            ("file:/tmp/x.ndjson", "feed:/tmp/x.ndjson"),
            ("file:///tmp/a@b.ndjson", "feed:/tmp/a@b.ndjson"),
            ("file://me:hunter2@h/b", "feed:h/b"),
            ("file:/me:hunter2@h/b", "feed:h/b"),
            ("unix:/run/x.sock", "http+unix://%2Frun%2Fx.sock/DATABASE"),
            ("unix://me:hunter2@/run/x.sock", "http+unix://me@%2Frun%2Fx.sock/DATABASE"),
            ("unix://me:hun/ter2@/run/x.sock", "http+unix://me@%2Frun%2Fx.sock/DATABASE"),
            ("feed:", "feed:library.ndjson"),
            ("feed:http://me:hunter2@h/books", "without it"),
            ("", "empty"),
        ] {
            let text = meant(typed).unwrap();
            assert!(text.contains(say) && !text.contains("hunter2"), "{typed}: {text}");
        }
        for unknown in ["books", "/srv/mirror", "./a:1/b"] {
            assert_eq!(meant(unknown), None, "{unknown}");
        }
    }
}
