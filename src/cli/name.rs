//! A mirror that is named as in the config of the agent, where a directory is expected.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::config::DEFAULT;
use super::exit::Usage;
use super::variables::set;
use crate::api::mirrors::{MirrorList, ask_agent, ask_to_start};
use crate::config::file::{AgentConfig, FileError, Listen};
use crate::document::{MirrorName, plain};

/// Where the service of the whole machine answers.
pub const SERVICE: &str = "/run/plainfold/plainfold.sock";

/// The agent that was asked for.
pub enum Asked {
    /// It answers.
    Ours(MirrorList),
    /// At this socket, the agent of another config answers.
    Other(PathBuf, MirrorList),
    /// No agent answers.
    Nobody,
}

/// The directory of a mirror that was named. `None` for anything else, and for everything that exists: it stays
/// what it is.
pub async fn directory(typed: &Path) -> Result<Option<PathBuf>, Usage> {
    let name: Option<MirrorName> = typed.to_str().and_then(|name| name.parse().ok());
    let Some(name) = name.filter(|_| typed.symlink_metadata().is_err()) else { return Ok(None) };
    let path = path();
    for socket in sockets(&path) {
        let Some(list) = ask_agent(&socket).await else { continue };
        let mut mirrors = list.mirrors.into_iter();
        if let Some(mirror) = mirrors.find(|mirror| mirror.name == name) {
            return Ok(Some(mirror.directory));
        }
    }
    let no_directory = |why: String| {
        let advice = "PLAINFOLD_CONFIG names another config";
        Usage(format!(
            "{name} is neither a directory nor the name of a mirror in {why}, and {advice}"
        ))
    };
    let shown = path.display();
    let config = match AgentConfig::read(&path) {
        Ok(config) => config,
        Err(FileError::Missing { .. }) => {
            return Err(no_directory(format!("{shown}: there is no such file")));
        }
        Err(error) => {
            let error = plain::with_causes(&error);
            return Err(Usage(format!(
                "{name} is not a directory, and the names of mirrors cannot be read: {error}"
            )));
        }
    };
    let mut mirrors = config.mirrors.into_iter();
    match mirrors.find(|entry| entry.name == name) {
        Some(entry) => Ok(Some(entry.directory)),
        None => Err(no_directory(format!("{shown}: `plainfold mirrors` lists the names"))),
    }
}

/// Starts the mirror in a directory at once, if an agent keeps it and it waits.
pub async fn start(directory: &Path) -> bool {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    for socket in sockets(&path()) {
        let Some(list) = ask_agent(&socket).await else { continue };
        let mut mirrors = list.mirrors.iter();
        if let Some(mirror) = mirrors.find(|mirror| mirror.directory == directory) {
            return ask_to_start(&socket, &mirror.name).await.unwrap_or(false);
        }
    }
    false
}

/// Asks the agent of a config.
pub async fn agent(config: &Path) -> Asked {
    let mut other = None;
    for socket in own_sockets(config) {
        let Some(list) = ask_agent(&socket).await else { continue };
        if is_of(&list, config) {
            return Asked::Ours(list);
        }
        other = other.or(Some((socket, list)));
    }
    other.map_or(Asked::Nobody, |(socket, list)| Asked::Other(socket, list))
}

/// Whether an agent has this config. If the config does not exist, every agent is taken for the one that is meant.
fn is_of(list: &MirrorList, config: &Path) -> bool {
    let Ok(config) = config.canonicalize() else { return true };
    let of_agent = Path::new(&list.config);
    list.config.is_empty() || of_agent.canonicalize().map_or(of_agent == config, |it| it == config)
}

/// The sockets at which the agent of a config answers, even if the config is wrong now.
pub fn own_sockets(config: &Path) -> Vec<PathBuf> {
    match Listen::in_spite(config) {
        Some(named) => unix(named),
        None if config == Path::new(DEFAULT) || !config.exists() => {
            unix([Listen::default_socket(), Listen::Unix(SERVICE.into())])
        }
        None => unix([Listen::default_socket()]),
    }
}

/// The sockets at which an agent may answer that has a mirror of a certain name: those of the config, and those that
/// are usual.
pub fn sockets(config: &Path) -> Vec<PathBuf> {
    let named = Listen::in_spite(config).unwrap_or_default().into_iter();
    unix(named.chain([Listen::default_socket(), Listen::Unix(SERVICE.into())]))
}

fn unix(all: impl IntoIterator<Item = Listen>) -> Vec<PathBuf> {
    let mut sockets: Vec<PathBuf> = Vec::new();
    for listen in all {
        if let Listen::Unix(path) = listen
            && !sockets.contains(&path)
        {
            sockets.push(path);
        }
    }
    sockets
}

/// Whether somebody listens at a socket.
pub fn is_listening(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// The config of the agent, if none was named on the command line.
pub fn path() -> PathBuf {
    set("PLAINFOLD_CONFIG").map_or_else(|| DEFAULT.into(), PathBuf::from)
}
