//! Where requests come in: a Unix socket, or an address with a port.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::socket::{Bound, bind};

/// A socket that accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// The file of the socket, if this process has made it.
    bound: Option<Bound>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) enum Connection {
    /// From a process that may open the socket.
    Unix(UnixStream),
    /// From anywhere.
    Tcp(TcpStream),
}

impl Listener {
    /// Binds the Unix socket at `path`, as [`bind`] does.
    pub async fn unix(path: &Path, displaces: bool) -> io::Result<Self> {
        let socket = Socket::Unix(bind(path, displaces).await?);
        Ok(Self { socket, bound: Some(Bound::at(path)) })
    }

    /// Binds an address.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: Socket::Tcp(TcpListener::bind(address).await?), bound: None })
    }

    /// A Unix socket that another process has bound, and which stays when this one ends.
    pub fn passed_unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Unix(UnixListener::from_std(socket)?), bound: None })
    }

    /// An address that another process has bound.
    pub fn passed_tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Tcp(TcpListener::from_std(socket)?), bound: None })
    }

    /// The address, unless it is a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Unix(_) => None,
            Socket::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// Whether it is a Unix socket, whose file says who may ask.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    /// Whether only processes of this machine reach it.
    pub fn is_local(&self) -> bool {
        match &self.socket {
            Socket::Unix(_) => true,
            Socket::Tcp(listener) => {
                listener.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback())
            }
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match &self.socket {
            Socket::Unix(listener) => Ok(Connection::Unix(listener.accept().await?.0)),
            Socket::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                // Without them, events come later, and a peer that is gone is noticed later.
                let _usual = stream.set_nodelay(true).and_then(|()| keep_alive(&stream));
                Ok(Connection::Tcp(stream))
            }
        }
    }
}

impl Drop for Listener {
    /// Removes the file of the socket, if this process has made it and no other has replaced it.
    fn drop(&mut self) {
        if let Some(bound) = self.bound.take() {
            bound.remove();
        }
    }
}

/// Notices a peer that has vanished: an event stream may have nothing to send for days.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    const IDLE: Duration = Duration::from_secs(60);
    const EVERY: Duration = Duration::from_secs(20);
    const TIMES: u32 = 4;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, EVERY)?;
    Ok(sockopt::set_tcp_keepcnt(stream, TIMES)?)
}
