//! How a server is entered, as options and variables say it, so that no secret stands in a process
//! list. The secrets themselves are read where those of a config file are.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::exit::Usage;
use super::help::CONNECTION;
use super::prompt;
pub use crate::client::couchdb::ServerRole;
use crate::client::couchdb::Tls;
use crate::config::{self, Access, AccessOptions, SecretPlace};

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
        let mut options = AccessOptions {
            password: self.password_file.clone().map(SecretPlace::File),
            token: match (&self.token_file, &self.token_command) {
                (Some(path), _) => Some(SecretPlace::File(path.clone())),
                (None, Some(command)) => Some(SecretPlace::Command(command.clone())),
                (None, None) => None,
            },
            session: self.auth == Auth::Session,
            tls: Tls {
                ca_file: self.ca_file.clone(),
                client_cert: self.client_cert.clone(),
                client_key: self.client_key.clone(),
            },
        };
        if options.password.is_none() && options.token.is_none() {
            options.password = variable(side.password_variable());
            options.token = variable(side.token_variable());
        }
        let mut access = options.access(url, side).map_err(|error| Usage(error.to_string()))?;
        if options.password.is_none() && options.token.is_none() && config::feed(url).is_none() {
            access.password = prompt::password(url)?;
        }
        Ok(access)
    }
}

/// The secret in an environment variable, if that is set.
fn variable(name: &str) -> Option<SecretPlace> {
    std::env::var_os(name).map(|_| SecretPlace::Variable(name.to_owned()))
}
