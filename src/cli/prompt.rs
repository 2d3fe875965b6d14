//! Asks for a password on a terminal, if a URL names a user and nothing else says the password.
//!
//! Nothing that is typed is shown. If a signal ends the process, the terminal is left as it was.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Once};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::ExposeSecret as _;

use super::exit::Usage;
use super::output::{Lines, Stream};
use super::signals;
use crate::client::couchdb::credentials::{SecretKind, secret};
use crate::client::couchdb::{Address, Secret};

/// Where the password is typed, whatever standard input is.
const TERMINAL: &str = "/dev/tty";

/// The password of the user in a URL; `None` if the URL names no user, has the password itself, or no
/// person can be asked.
pub fn password(url: &str) -> Result<Option<Secret>, Usage> {
    let Some((user, server)) = user_of(url) else { return Ok(None) };
    let is_attended = io::stdin().is_terminal() && Stream::Stderr.is_terminal();
    let Some(terminal) = File::open(TERMINAL).ok().filter(|_| is_attended) else {
        return Ok(None);
    };
    let question = format!("Password of `{user}` at {server}: ");
    let typed = tokio::task::block_in_place(|| ask(&question, terminal));
    let typed = typed.map_err(|error| Usage(format!("the password cannot be read: {error:#}")))?;
    // It stands for bytes that are not UTF-8, and nobody types it.
    if typed.contains(char::REPLACEMENT_CHARACTER) {
        let what = "the password that was typed is not valid UTF-8: set the terminal to UTF-8, or save \
                    the password in a file as UTF-8 and name that with --password-file";
        return Err(Usage(what.to_owned()));
    }
    let secret = secret(typed.as_bytes(), "the password that was typed", SecretKind::Password);
    secret.map(|secret| Some(Secret::Fixed(secret))).map_err(|bad| Usage(bad.to_string()))
}

/// The user in a URL without a password, and where the user has one.
fn user_of(url: &str) -> Option<(String, String)> {
    let given = Address::parse(url).ok()?;
    let credentials = given.credentials?;
    let has_password =
        |secret: &Secret| secret.read().is_ok_and(|password| !password.expose_secret().is_empty());
    let user = credentials.user().filter(|user| !user.is_empty())?;
    let lacks = !has_password(credentials.secret());
    lacks.then(|| (user.to_owned(), given.address.to_string()))
}

fn ask(question: &str, terminal: File) -> anyhow::Result<String> {
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // The keys that end a program have to send their signals.
    silent.local_modes.insert(LocalModes::ICANON | LocalModes::ISIG);
    // Given as a reader, so that rpassword leaves the terminal's modes alone.
    let typing = rpassword::ConfigBuilder::new().input_reader(terminal.try_clone()?);
    let typing = typing.output_discard().build();
    let (terminal, undone) = (Arc::new(terminal), Arc::new(Once::new()));
    let undo = {
        let terminal = Arc::clone(&terminal);
        move || undone.call_once(|| leave(&terminal, &before))
    };
    signals::end_at_once(undo.clone())?;
    // Before the question, because somebody may type at once.
    tcsetattr(&terminal, OptionalActions::Now, &silent)?;
    let asked = Stream::Stderr.ask(question).map_err(io::Error::other);
    let typed = asked.and_then(|()| rpassword::read_password_with_config(typing));
    undo();
    signals::end_at_once(|| {})?;
    Ok(typed?)
}

/// Sets the terminal as it was, and ends the line, whose end was not shown when it was typed.
fn leave(terminal: &File, before: &Termios) {
    // What cannot be set was not changed either.
    let _set = tcsetattr(terminal, OptionalActions::Now, before);
    let _closed = Stream::Stderr.write("a line end", &Lines::of(""));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_without_a_password_is_asked_for_it() {
        for url in [
            "http://me@host:5984/books",
            "https://me@host",
            "http://me:@host",
            "http+unix://me@%2Frun%2Fcouch.sock/books",
        ] {
            assert_eq!(user_of(url).unwrap().0, "me", "{url}");
        }
        assert_eq!(user_of("http://a%40b@host/x").unwrap().0, "a@b");
        for url in
            ["http://host/books", "http://me:pw@host", "feed:me@host", "http://", "http://:pw@host"]
        {
            assert_eq!(user_of(url), None, "{url}");
        }
    }
}
