//! Where `plainfold run` answers: the sockets that systemd passes, or those of the config.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;

use super::exit::Usage;
use super::output::create_folder;
use crate::api::listen::Listener;
use crate::api::tokens;
use crate::config::file::{AgentConfig, ApiConfig, FileError, FileProblem, Listen};

/// A socket that systemd has bound, and passes.
#[derive(Debug)]
pub enum Passed {
    /// A Unix socket.
    Unix(UnixListener),
    /// An address with a port.
    Tcp(TcpListener),
}

/// The sockets that systemd passes. To be called before there are threads: the variables that name the sockets
/// are removed, so that no child takes them for its own.
pub fn passed() -> Result<Vec<Passed>, Usage> {
    let own = std::process::id().to_string();
    if std::env::var("LISTEN_PID").ok().as_deref() != Some(own.as_str()) {
        return Ok(Vec::new());
    }
    let mut all = ListenFd::from_env();
    let count = all.len();
    let take = |at: usize| {
        let wrong = |error: std::io::Error| {
            Usage(format!(
                "socket {} of those that systemd passes cannot be used: {error}; give `ListenStream=` a path or \
                 an address with a port",
                at + 1
            ))
        };
        match all.take_unix_listener(at) {
            Ok(socket) => Ok(socket.map(Passed::Unix)),
            Err(_) => all.take_tcp_listener(at).map(|it| it.map(Passed::Tcp)).map_err(wrong),
        }
    };
    (0..count).map(take).filter_map(Result::transpose).collect()
}

/// The listeners of these sockets.
pub fn take(passed: Vec<Passed>, tokens: &Path) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for socket in passed {
        let listener = match socket {
            Passed::Unix(socket) => Listener::passed_unix(socket),
            Passed::Tcp(socket) => Listener::passed_tcp(socket),
        };
        listeners.push(listener.map_err(|error| {
            Usage(format!("a socket that systemd passes cannot be used: {error}"))
        })?);
    }
    let mut addresses = listeners.iter().filter_map(|it| Some((it.address()?, it.is_local())));
    if let Some(first) = addresses.next() {
        let open = [first].into_iter().chain(addresses).find(|(_, is_local)| !is_local);
        if let Some(trouble) = token_trouble(open.map(|(address, _)| address.to_string()), tokens) {
            return Err(Usage(format!("a socket that systemd passes: {trouble}")).into());
        }
    }
    tracing::info!(
        "the API answers at the sockets that systemd passes, and not at those of the config"
    );
    Ok(listeners)
}

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
    let trouble = token_trouble(open.map(ToString::to_string), &api.tokens)?;
    Some(format!("[api] listen: {trouble}"))
}

/// Why requests to an address cannot be answered; `open` is one that other machines reach.
fn token_trouble(open: Option<String>, path: &Path) -> Option<String> {
    match (tokens::read(path), open) {
        (Err(error), _) => Some(error.to_string()),
        (Ok(found), Some(address)) if found.as_ref().is_none_or(Vec::is_empty) => Some(format!(
            "other machines reach {address}, and there is no token in {}: make one with \
             `plainfold token add NAME --role read`, or listen on 127.0.0.1",
            path.display()
        )),
        _ => None,
    }
}

/// What to do if another agent answers at a socket.
pub const OTHER_AGENT: &str = "another `plainfold run` answers there: end it first, or give this config another \
                               `[api] listen`";

/// What to do if another process has an address.
pub const OTHER_PROCESS: &str = "another process listens there: end it first, or give this config another \
                                 `[api] listen`";

/// What to do if a socket or an address cannot be used.
pub fn advice(api: &ApiConfig) -> &'static str {
    match api.listen == [Listen::default_socket()] {
        true => "add the section [api] with listen = \"./plainfold.sock\" to the config",
        false => "give the config another `[api] listen`",
    }
}

/// Binds the sockets of the API.
pub async fn listen(api: &ApiConfig) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for listen in &api.listen {
        let (kind, listener) = match listen {
            Listen::Unix(path) => {
                if let Some(folder) = path.parent() {
                    create_folder("the folder of the socket", folder)
                        .map_err(|error| Usage(format!("{error}: {}", advice(api))))?;
                }
                ("the socket", Listener::unix(path, false).await)
            }
            Listen::Tcp(address) => ("the address", Listener::tcp(*address).await),
        };
        listeners.push(listener.map_err(|error| {
            let what = match (error.kind(), listen) {
                (std::io::ErrorKind::AddrInUse, Listen::Unix(_)) => OTHER_AGENT.to_owned(),
                (std::io::ErrorKind::AddrInUse, Listen::Tcp(_)) => OTHER_PROCESS.to_owned(),
                _ => format!("{error}: {}", advice(api)),
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
