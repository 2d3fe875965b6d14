//! A mirror that is named as in the config of the agent, where a directory is expected.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::config::DEFAULT;
use super::variables::set;
use crate::api::mirrors::{ask_agent, ask_to_start};
use crate::config::file::{AgentConfig, Listen};
use crate::document::MirrorName;

/// Where the service of the whole machine answers.
const SERVICE: &str = "/run/plainfold/plainfold.sock";

/// The directory of a mirror that was named. Anything else, and everything that exists, stays what it is.
pub async fn directory(typed: &Path) -> Option<PathBuf> {
    let name: MirrorName = typed.to_str()?.parse().ok()?;
    if typed.symlink_metadata().is_ok() {
        return None;
    }
    let path = path();
    for socket in sockets(&path) {
        let Some(list) = ask_agent(&socket).await else { continue };
        let mut mirrors = list.mirrors.into_iter();
        if let Some(mirror) = mirrors.find(|mirror| mirror.name == name) {
            return Some(mirror.directory);
        }
    }
    let mut mirrors = AgentConfig::read(&path).ok()?.mirrors.into_iter();
    mirrors.find(|entry| entry.name == name).map(|entry| entry.directory)
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

/// The sockets at which the agent of a config may answer, even if the config is wrong now.
pub fn sockets(config: &Path) -> Vec<PathBuf> {
    let named = Listen::in_spite(config).into_iter().chain([Listen::default_socket()]);
    let mut sockets: Vec<PathBuf> = Vec::new();
    for listen in named.chain([Listen::Unix(SERVICE.into())]) {
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

/// The config of the agent.
fn path() -> PathBuf {
    set("PLAINFOLD_CONFIG").map_or_else(|| DEFAULT.into(), PathBuf::from)
}
