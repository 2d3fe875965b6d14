//! How a server is entered: the one place where options and variables say who asks, so that no secret
//! stands in a process list. What cannot be right is refused before it costs an attempt to log in.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::exit::Usage;
use super::help::CONNECTION;
use super::prompt;
pub use crate::client::couchdb::ServerRole;
use crate::client::couchdb::credentials::{SecretKind, secret};
use crate::client::couchdb::{Secret, Tls};
use crate::config::{self, Access};

/// How a server is entered.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Options {
    /// A file with the password of the user in the URL, on one line.
    ///
    /// PLAINFOLD_SOURCE_PASSWORD (in `restore`, PLAINFOLD_TARGET_PASSWORD) may hold the password
    /// itself. If neither is given, Plainfold asks for the password on a terminal.
    #[arg(long, value_name = "FILE", help_heading = CONNECTION)]
    password_file: Option<PathBuf>,

    /// How the user is authenticated
    #[arg(long, value_enum, value_name = "HOW", default_value = "basic", help_heading = CONNECTION)]
    auth: Auth,

    /// A file with a bearer token, such as a JSON Web Token, on one line.
    ///
    /// The file is read again if the server refuses the token. PLAINFOLD_SOURCE_TOKEN (in
    /// `restore`, PLAINFOLD_TARGET_TOKEN) may hold the token itself.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "password_file",
        help_heading = CONNECTION
    )]
    token_file: Option<PathBuf>,

    /// A shell command that prints a bearer token.
    ///
    /// The command is run again if the server refuses the token.
    #[arg(
        long,
        value_name = "COMMAND",
        conflicts_with_all = ["password_file", "token_file"],
        help_heading = CONNECTION
    )]
    token_command: Option<String>,

    /// A PEM file with the only certificates that are trusted.
    ///
    /// It holds certificates of authorities, or the server's own certificate. PLAINFOLD_CA_FILE may
    /// name the file.
    #[arg(
        long,
        value_name = "FILE",
        env = "PLAINFOLD_CA_FILE",
        hide_env = true,
        help_heading = CONNECTION
    )]
    ca_file: Option<PathBuf>,

    /// A PEM file with the client certificate that is sent to the server; it may hold the key too
    #[arg(long, value_name = "FILE", help_heading = CONNECTION)]
    client_cert: Option<PathBuf>,

    /// A PEM file with the key of --client-cert, not encrypted
    #[arg(long, value_name = "FILE", requires = "client_cert", help_heading = CONNECTION)]
    client_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Auth {
    /// Send the password with each request
    Basic,
    /// Log in once, then send the server's cookie
    Session,
}

impl Options {
    /// What they say of a server. `url` is where it is; a feed is entered without any of this.
    pub fn lower(&self, url: &str, side: ServerRole) -> Result<Access, Usage> {
        let mut access = Access { side, ..Access::default() };
        if config::feed(url).is_some() {
            return Ok(access);
        }
        access.session = self.auth == Auth::Session;
        access.password =
            self.password_file.clone().map(|path| Secret::File(path, SecretKind::Password));
        access.token = match (&self.token_file, &self.token_command) {
            (Some(path), _) => Some(Secret::File(path.clone(), SecretKind::Token)),
            (None, Some(command)) => Some(Secret::Command(command.clone())),
            (None, None) => None,
        };
        if access.password.is_none() && access.token.is_none() {
            access.password = variable(side, SecretKind::Password)?;
            access.token = variable(side, SecretKind::Token)?;
        }
        if access.password.is_none() && access.token.is_none() {
            access.password = prompt::password(url)?;
        }
        let read = [&access.password, &access.token].into_iter().flatten();
        for secret in read.filter(|secret| matches!(secret, Secret::File(..))) {
            secret.read().map_err(|bad| Usage(bad.to_string()))?;
        }
        if url.trim_start().to_ascii_lowercase().starts_with("https:") {
            access.tls = Tls {
                ca_file: self.ca_file.clone(),
                client_cert: self.client_cert.clone(),
                client_key: self.client_key.clone(),
            };
            access.tls.check().map_err(|bad| Usage(bad.to_string()))?;
        }
        Ok(access)
    }
}

/// The secret in an environment variable.
fn variable(side: ServerRole, kind: SecretKind) -> Result<Option<Secret>, Usage> {
    let name = match kind {
        SecretKind::Password => side.password_variable(),
        SecretKind::Token => side.token_variable(),
    };
    let text = match std::env::var(name) {
        Ok(text) => text,
        Err(std::env::VarError::NotPresent) => return Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(Usage(format!("{name} is not valid UTF-8")));
        }
    };
    let secret = secret(text.as_bytes(), name, kind);
    secret.map(|secret| Some(Secret::Fixed(secret))).map_err(|bad| Usage(bad.to_string()))
}
