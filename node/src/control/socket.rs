//! The Unix socket of the control API: made so that nobody else can open it, removed when it is done.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, fchmod};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// The longest path a Unix socket can have on Linux, bytes.
const MAX_SOCKET_PATH: usize = 107;
/// Connections that may wait.
const BACKLOG: u32 = 64;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The path does not fit into a socket address.
    #[error(
        "the path of the control socket has {} bytes, and the system allows {MAX_SOCKET_PATH}: {}; set `control.socket` in the configuration to a shorter path, such as /run/user/1000/tributary.sock",
        path.as_os_str().len(), path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Another node answers there.
    #[error("another node answers on {}; stop it, or set `control.socket` in the configuration to another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error("{} is there and is no socket, so it is not removed; move it away, or set `control.socket` to another path", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} the control socket {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Refuses a path that no socket address can hold.
pub(super) fn check_length(path: &Path) -> Result<(), SocketError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(SocketError::TooLong { path: path.to_owned() });
    }
    Ok(())
}

/// A control socket that listens. Removed from the file system when dropped.
#[derive(Debug)]
pub struct ControlListener {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of the socket, so that only our own is removed.
    identity: (u64, u64),
}

impl ControlListener {
    /// Makes the socket at `path`, mode 0600. One that a node left behind when it was killed is removed first; the caller holds
    /// the home's lock, so it is nobody else's.
    ///
    /// # Errors
    ///
    /// Says what is in the way and what to do.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        check_length(path)?;
        let io = |action| move |source| SocketError::Io { action, path: path.to_owned(), source };
        remove_stale(path).await?;
        let socket = UnixSocket::new_stream().map_err(io("make"))?;
        // Before it has a name: Linux gives the file the mode of the open socket, so there is no moment in which others could
        // connect.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| io("protect")(error.into()))?;
        socket.bind(path).map_err(io("make"))?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(io("protect"))?;
        let metadata = fs::symlink_metadata(path).map_err(io("look at"))?;
        let listener = socket.listen(BACKLOG).map_err(io("listen on"))?;
        Ok(Self { path: path.to_owned(), listener, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket stays behind; the next start removes it");
        }
    }
}

async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let io = |action| move |source| SocketError::Io { action, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::Occupied { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io("remove")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("look at")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn only_the_owner_can_open_it_and_it_goes_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let listener = ControlListener::bind(&path).await.expect("binds");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_node_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        // The standard library's listener leaves its file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists());
        let listener = ControlListener::bind(&path).await.expect("binds");
        assert!(matches!(ControlListener::bind(&path).await, Err(SocketError::InUse { .. })));
        drop(listener);
    }

    #[tokio::test]
    async fn a_file_in_its_place_is_never_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(ControlListener::bind(&path).await, Err(SocketError::Occupied { .. })));
        assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_explained() {
        let path = Path::new("/tmp").join("x".repeat(MAX_SOCKET_PATH));
        let error = ControlListener::bind(&path).await.expect_err("too long").to_string();
        assert!(error.contains("allows 107") && error.contains("control.socket"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_somebody_else_made_meanwhile_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let listener = ControlListener::bind(&path).await.expect("binds");
        fs::remove_file(&path).expect("removed");
        let other = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        drop(listener);
        assert!(path.exists());
        drop(other);
    }
}
