//! Where the agent's API listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::text::text_of;

/// Where the agent's API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On a Unix socket.
    Unix(PathBuf),
    /// On an address and a port.
    Tcp(SocketAddr),
}

/// The name of the socket in its folder.
const SOCKET: &str = "plainfold.sock";

impl Listen {
    /// The default: the socket in the folder that systemd gives to the service; for root, or where a user
    /// has no such folder, in `/run/plainfold`.
    pub fn default_socket() -> Self {
        let folder = |name| {
            let value = std::env::var_os(name)?.into_string().ok()?;
            // systemd separates several by colons.
            let first = value.split(':').next().unwrap_or_default();
            Path::new(first).is_absolute().then(|| PathBuf::from(first))
        };
        let of_user = || {
            let is_root = rustix::process::geteuid().is_root();
            let of_user = folder("XDG_RUNTIME_DIR").filter(|_| !is_root);
            of_user.map(|folder| folder.join("plainfold"))
        };
        let folder = folder("RUNTIME_DIRECTORY").or_else(of_user);
        Self::Unix(folder.unwrap_or_else(|| PathBuf::from("/run/plainfold")).join(SOCKET))
    }

    /// Reads `unix:PATH`, a path with a slash, or `ADDRESS:PORT`. A relative path counts from `base`.
    pub(super) fn parse(text: &str, base: &Path) -> Option<Self> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Some(Self::Unix(base.join(path)));
        }
        match text.parse() {
            Ok(address) => Some(Self::Tcp(address)),
            Err(_) => match text.strip_prefix("localhost:").map(str::parse) {
                Some(Ok(port)) => Some(Self::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))),
                _ => (text.contains('/') && !text.contains("://"))
                    .then(|| Self::Unix(base.join(text))),
            },
        }
    }
}

impl Listen {
    /// Whether only processes of this machine can ask there.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
        }
    }

    /// Where the config at `path` has the API listen, if it says so and that much of it can be read,
    /// whatever else is wrong with it. `None` if it does not say so. Blocks.
    pub fn in_spite(path: &Path) -> Option<Vec<Self>> {
        let base = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let base = base.parent().unwrap_or(Path::new("/"));
        let text = text_of(path).ok();
        let table: Option<toml::Table> = text.and_then(|(text, _)| text.parse().ok());
        let listen = table.as_ref().and_then(|table| table.get("api")?.get("listen"))?;
        let one = listen.as_str().into_iter();
        let all = listen.as_array().into_iter().flatten().filter_map(toml::Value::as_str);
        Some(one.chain(all).filter_map(|text| Self::parse(text, base)).collect())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_socket_and_an_address_has_a_port() {
        let parse = |text| Listen::parse(text, Path::new("/etc/plainfold"));
        let unix = |path: &str| Some(Listen::Unix(path.into()));
        assert_eq!(parse("/run/p.sock"), unix("/run/p.sock"));
        assert_eq!(parse("unix:/run/p.sock"), unix("/run/p.sock"));
        assert_eq!(parse("unix:p.sock"), unix("/etc/plainfold/p.sock"));
        assert_eq!(parse("./p.sock"), unix("/etc/plainfold/./p.sock"));
        for (text, address) in [
            ("127.0.0.1:5985", "127.0.0.1:5985"),
            ("localhost:5985", "127.0.0.1:5985"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(parse(text), Some(Listen::Tcp(address.parse().unwrap())), "{text}");
        }
        for text in ["", "unix:", "5985", ":5985", "host:5985", "127.0.0.1", "127.0.0.1:65536"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("http://127.0.0.1:5985"), None);
        let is_local = |text| parse(text).unwrap().is_local();
        for text in ["./s", "localhost:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_local(text), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!is_local(text), "{text}");
        }
    }
}
