//! The Unix socket of a mirror: binding, finding and reaching it, however long its path is.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to, socket_with,
};
use tokio::net::UnixListener;

/// The longest path of a socket that the kernel accepts.
const LONGEST: usize = 107;

/// A path by which the kernel reaches a socket, valid while this value lives.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// Open if the path leads through it.
    _folder: Option<File>,
}

impl SocketPath {
    /// A path to the socket at `path`.
    pub fn to(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = File::open(folder)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path: short, _folder: Some(folder) })
    }

    /// The path itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Binds the socket at `path`, which is accessible for this user alone from the first moment. A
/// socket that a killed process left there is replaced, with `displaces` also one that answers;
/// anything else is not.
pub async fn bind(path: &Path, displaces: bool) -> io::Result<UnixListener> {
    let reach = SocketPath::to(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is not a socket"));
        }
        Ok(_) if !displaces && tokio::net::UnixStream::connect(reach.path()).await.is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    UnixListener::from_std(listen(reach.path())?)
}

/// The file of a socket that this process has bound.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    /// Its device and inode.
    file: Option<(u64, u64)>,
}

impl Bound {
    /// The file that is at `path` now.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), file: file(path) }
    }

    /// Removes the file, unless another process has bound another one there.
    pub fn remove(self) {
        if self.file.is_some() && file(&self.path) == self.file {
            // A path that is gone already is what we want.
            let _gone = std::fs::remove_file(self.path);
        }
    }
}

fn file(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// The file of a socket gets the mode of the socket when it is bound, less the umask.
fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    const WAITING: i32 = 1024;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind_to(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, WAITING)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_reached_at_the_end_of_a_very_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("socket");
        let _listener = bind(&path, false).await.unwrap();
        let reach = SocketPath::to(&path).unwrap();
        tokio::net::UnixStream::connect(reach.path()).await.unwrap();
    }

    #[test]
    fn a_socket_is_private_before_it_listens() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        for number in 0..20 {
            let path = dir.path().join(format!("socket-{number}"));
            let watched = path.clone();
            // The first thing that appears under the name.
            let first = std::thread::spawn(move || {
                loop {
                    if let Ok(found) = std::fs::symlink_metadata(&watched) {
                        return found.permissions().mode() & 0o777;
                    }
                }
            });
            let _listener = listen(&path).unwrap();
            assert_eq!(first.join().unwrap(), 0o600);
        }
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_a_file_or_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(bind(&path, false).await.unwrap());
        let live = bind(&path, false).await.unwrap();
        assert_eq!(bind(&path, false).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let bound = Bound::at(&path);
        let other = bind(&path, true).await.unwrap();
        bound.remove();
        assert!(path.exists(), "it is another one now");
        Bound::at(&path).remove();
        assert!(!path.exists());
        drop((live, other));
        let file = dir.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(bind(&file, false).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
    }
}
