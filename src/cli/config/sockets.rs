//! Whether an agent can answer where the `[api]` of its config says, tried without making anything.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::DEFAULT;
use crate::api::mirrors::ask_agent;
use crate::cli::listeners::{OTHER_AGENT, OTHER_PROCESS, advice};
use crate::cli::name::{self, SERVICE};
use crate::config::file::{ApiConfig, Listen};

/// Says of each socket and address what works, or what does not. `agent` is the process id of the agent of this
/// config, if it answers.
pub async fn check(
    config: &Path,
    api: &ApiConfig,
    agent: Option<u32>,
) -> Vec<Result<String, String>> {
    let mut found = Vec::new();
    for listen in &api.listen {
        let one = match listen {
            Listen::Unix(path) if is_systemds(config, path) && agent.is_none() => {
                Ok("the service makes the folder when it starts".to_owned())
            }
            Listen::Unix(path) => socket(path, agent).await,
            Listen::Tcp(at) => address(*at, agent),
        };
        let said = |text: String| format!("{listen}: {text}");
        found.push(match one {
            Ok(text) => Ok(said(text)),
            Err(why) if why == OTHER_AGENT || why == OTHER_PROCESS => Err(said(why)),
            Err(why) => Err(said(format!("{why}: {}", advice(api)))),
        });
    }
    if found.is_empty() {
        found.push(Ok("nowhere, so no command can ask the agent".to_owned()));
    }
    found
}

/// Whether systemd makes the folder of this socket for the service, before the agent starts.
fn is_systemds(config: &Path, socket: &Path) -> bool {
    let folder = socket.parent().unwrap_or(socket);
    config == Path::new(DEFAULT) && socket == Path::new(SERVICE) && writable(folder).is_err()
}

async fn socket(path: &Path, agent: Option<u32>) -> Result<String, String> {
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            return Err("a file that is not a socket has this name".to_owned());
        }
        Ok(_) if name::is_listening(path) => {
            // If ours answers nowhere, it has been asked here in vain.
            let is_ours = match agent {
                Some(pid) => ask_agent(path).await.is_some_and(|list| list.pid == pid),
                None => false,
            };
            let ours = is_ours.then(|| "the agent answers there".to_owned());
            return ours.ok_or_else(|| OTHER_AGENT.to_owned());
        }
        _ => {}
    }
    let folder = path.parent().unwrap_or(path);
    match folder.is_dir() {
        true => writable(folder).map(|()| "can be made".to_owned()),
        false => writable(folder).map(|()| "can be made, with its folder".to_owned()),
    }
}

/// Whether this folder, or the nearest one above it that exists, can be written.
fn writable(folder: &Path) -> Result<(), String> {
    let nearest = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    if !nearest.is_dir() {
        return Err(format!("{} is not a folder", nearest.display()));
    }
    accessat(CWD, nearest, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|error| format!("the folder {} cannot be written: {error}", nearest.display()))
}

fn address(address: SocketAddr, agent: Option<u32>) -> Result<String, String> {
    match TcpListener::bind(address) {
        Ok(_) if address.port() == 0 => Ok("the system chooses a port".to_owned()),
        Ok(_) => Ok("is free".to_owned()),
        // Only one process can listen there.
        Err(error) if error.kind() == ErrorKind::AddrInUse && agent.is_some() => {
            Ok("in use, while the agent of this config runs".to_owned())
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(OTHER_PROCESS.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
