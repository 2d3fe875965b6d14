//! Where `plainfold run` answers: the sockets that systemd passes, or those of the config.

use std::path::Path;

use super::exit::Usage;
use super::output::create_folder;
use crate::api::listen::Listener;
use crate::api::tokens;
use crate::config::file::{AgentConfig, ApiConfig, FileError, FileProblem, Listen};

/// The config, unless its API may not listen as it says.
pub fn admissible(config: AgentConfig, path: &Path) -> Result<AgentConfig, FileError> {
    match trouble(&config.api) {
        None => Ok(config),
        Some(text) => {
            let problems = vec![FileProblem { line: None, text }];
            Err(FileError::Wrong { path: path.to_owned(), problems })
        }
    }
}

/// Why it may not.
fn trouble(api: &ApiConfig) -> Option<String> {
    let mut addresses = api.listen.iter().filter(|one| matches!(one, Listen::Tcp(_)));
    addresses.next()?;
    let open = api.listen.iter().find(|one| !one.is_local());
    token_trouble(open.map(ToString::to_string), &api.tokens)
}

/// Why requests to an address cannot be answered; `open` is one that other machines reach.
fn token_trouble(open: Option<String>, path: &Path) -> Option<String> {
    match (tokens::read(path), open) {
        (Err(error), _) => Some(format!("[api] tokens: {error}")),
        (Ok(found), Some(address)) if found.as_ref().is_none_or(Vec::is_empty) => Some(format!(
            "[api] listen: other machines reach {address}, and there is no token in {}: make one with \
             `plainfold token add NAME --role read`, or listen on 127.0.0.1",
            path.display()
        )),
        _ => None,
    }
}

/// Binds the sockets of the API.
pub async fn listen(api: &ApiConfig) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for listen in &api.listen {
        let listener = match listen {
            Listen::Unix(path) => {
                if let Some(folder) = path.parent() {
                    create_folder("the folder of the socket", folder)?;
                }
                Listener::unix(path, false).await
            }
            Listen::Tcp(address) => Listener::tcp(*address).await,
        };
        let kind = match listen {
            Listen::Unix(_) => "the socket",
            Listen::Tcp(_) => "the address",
        };
        listeners.push(listener.map_err(|error| {
            let what = match (error.kind(), listen) {
                (std::io::ErrorKind::AddrInUse, Listen::Unix(_)) => {
                    "another `plainfold run` answers there: end it first, or give this config another \
                     `[api] listen`"
                        .to_owned()
                }
                (std::io::ErrorKind::AddrInUse, Listen::Tcp(_)) => {
                    "another process listens there: end it first, or give this config another \
                     `[api] listen`"
                        .to_owned()
                }
                _ => format!("{error}: give the config another `[api] listen`"),
            };
            Usage(format!("{kind} {listen} cannot be used: {what}"))
        })?);
    }
    Ok(listeners)
}

/// Logs where the API can be asked over the network, and what follows from that.
pub fn announce(listeners: &[Listener], tokens: &Path) {
    for listener in listeners {
        let Some(address) = listener.address() else { continue };
        tracing::info!("the API answers at http://{address}");
        if !listener.is_local() {
            tracing::warn!(
                "tokens for {address} are sent over the network without encryption: put a proxy with TLS \
                 before it"
            );
        } else if !tokens.exists() {
            tracing::warn!(
                "every user of this machine may give orders at {address}, because there is no token: \
                 `plainfold token add NAME --role read` makes one"
            );
        }
    }
}
