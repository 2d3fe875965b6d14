//! `plainfold token`: makes, lists and removes the tokens with which the agent is asked over the network.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::config::{ConfigFile, refused};
use super::exit::{self, Exit};
use super::help::{self, OUTPUT, SAFETY};
use super::output::{Lines, Stream, many};
use super::verify::ReportFormat;
use crate::api::role::Role;
use crate::api::tokens::{self, Token, TokenName};
use crate::config::file::AgentConfig;

/// What `plainfold token` takes.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token, and print it once.
    ///
    /// Only its SHA-256 is kept, so the token cannot be printed again. A running agent accepts it at
    /// once.
    #[command(after_help = help::TOKEN_ADD)]
    Add(AddOptions),
    /// List the names and roles of all tokens.
    #[command(after_help = help::TOKEN_LIST)]
    List(ListOptions),
    /// Remove a token. A running agent refuses it at once.
    #[command(after_help = help::TOKEN_REMOVE)]
    Remove(RemoveOptions),
}

/// What `plainfold token add` takes.
#[derive(Debug, Args)]
pub struct AddOptions {
    /// The name of the token: its owner or its use
    #[arg(value_name = "NAME")]
    name: TokenName,

    #[command(flatten)]
    file: ConfigFile,

    /// What its owner may ask
    #[arg(long, value_enum, value_name = "ROLE", help_heading = SAFETY)]
    role: RoleName,
}

/// What `plainfold token list` takes.
#[derive(Debug, Args)]
pub struct ListOptions {
    #[command(flatten)]
    file: ConfigFile,

    /// How the tokens are printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

/// What `plainfold token remove` takes.
#[derive(Debug, Args)]
pub struct RemoveOptions {
    /// The name of the token
    #[arg(value_name = "NAME")]
    name: TokenName,

    #[command(flatten)]
    file: ConfigFile,
}

/// A role as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    /// Reads everything, and changes nothing
    Read,
    /// Also gives orders, except `release` and `repair`
    Operate,
    /// Gives all orders
    Admin,
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Read => Self::Read,
            RoleName::Operate => Self::Operate,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// A token as it is listed.
#[derive(Serialize)]
struct Listed {
    name: TokenName,
    role: Role,
    created_at: jiff::Timestamp,
}

impl From<Token> for Listed {
    fn from(token: Token) -> Self {
        Self { name: token.name, role: token.role, created_at: token.created_at }
    }
}

/// Does what was asked for. Blocks.
pub fn run(options: Options) -> anyhow::Result<Exit> {
    let file = match &options.command {
        Command::Add(options) => &options.file,
        Command::List(options) => &options.file,
        Command::Remove(options) => &options.file,
    };
    let path = match AgentConfig::read(&file.path) {
        Ok(config) => config.api.tokens,
        Err(error) => return refused(error),
    };
    match options.command {
        Command::Add(options) => add(&path, options),
        Command::List(options) => list(&path, options.format),
        Command::Remove(options) => remove(&path, &options.name),
    }
}

fn add(path: &Path, options: AddOptions) -> anyhow::Result<Exit> {
    let token = tokens::add(path, options.name.clone(), options.role.into())?;
    let printed = Stream::Stdout.report("the token", &Lines::of(token.expose_secret()));
    if printed.is_err() {
        // Nobody has seen it.
        tokens::remove(path, &options.name)?;
    }
    printed?;
    exit::say(&format!(
        "added the token {} with the role {} to {}; keep it in a safe place, it is not printed again",
        options.name,
        Role::from(options.role),
        path.display()
    ));
    Ok(Exit::Done)
}

fn list(path: &Path, format: ReportFormat) -> anyhow::Result<Exit> {
    let all = tokens::read(path)?.unwrap_or_default();
    let lines = match format {
        ReportFormat::Json => {
            Lines::pretty(&all.into_iter().map(Listed::from).collect::<Vec<_>>())?
        }
        ReportFormat::Text => {
            let width = all.iter().map(|token| token.name.as_str().len()).max().unwrap_or(0);
            let mut lines = Lines::default();
            for Token { name, role, created_at, .. } in &all {
                let (name, role) = (name.as_str(), role.to_string());
                writeln!(lines, "{name:width$}  {role:7}  {created_at:.0}")?;
            }
            lines
        }
    };
    Stream::Stdout.report("the tokens", &lines)?;
    Ok(Exit::Done)
}

fn remove(path: &Path, name: &TokenName) -> anyhow::Result<Exit> {
    let left = tokens::remove(path, name)?;
    exit::say(&match left {
        0 => format!(
            "removed the token {name}, the last one; addresses of [api] answer nobody until a token is added"
        ),
        _ => format!("removed the token {name}; {} left", many(left as u64, "token")),
    });
    Ok(Exit::Done)
}
