//! What a testnet is made of, in `testnet.json` in its folder, and the lock under which that changes.
//!
//! The file is replaced whole, so a reader sees one state or the next. The lock is held for the time of one command; the system takes it
//! back when the process ends, however it ends.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use tributary_protocol::ids::Did;

use super::{
    Feed, NodeRole, TestnetError,
    process::{ProcessId, boot_id},
};
use crate::control::ControlClient;

const VERSION: u32 = 1;
const STATE: &str = "testnet.json";
const LOCK: &str = "lock";
/// How the drafts of the description are called.
const DRAFT: &str = ".testnet-";
/// The feeder, among the logs.
pub(super) const FEEDER: &str = "feeder";
/// The processes that keep networks, among the logs.
pub(super) const NETWORKS: &str = "networks";
/// The recording that comes with the program, written out.
pub(super) const OWN_RECORDING: &str = "robot.mcap";
/// How long a command waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far a testnet has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is being brought up, or whoever did that has failed.
    Starting,
    /// It runs.
    Up,
    /// It is being taken down.
    Ending,
}

/// What a testnet is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// 32 hex digits, in the environment of each of its processes.
    pub id: String,
    /// The start of the computer that its processes belong to.
    boot: String,
    /// How far it has come.
    pub phase: Phase,
    /// The program that the nodes run.
    pub program: PathBuf,
    /// What the machines are fed with.
    pub feed: Feed,
    /// The streams of each machine.
    pub streams: Vec<String>,
    /// The nodes.
    pub nodes: Vec<NodeState>,
    /// The process that feeds the machines.
    pub feeder: Option<ProcessId>,
    /// The networks, where each node has one of its own.
    pub world: Option<World>,
    /// Groups of nodes that are cut off from each other; empty when nothing is.
    pub partition: Vec<Vec<String>>,
}

/// Networks of the nodes' own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// The process that keeps the bridge between them.
    pub bridge: ProcessId,
    /// Whether it lives in a user namespace, because whoever started it is not root.
    pub own_user: bool,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its name, such as `machine-1`.
    pub name: String,
    /// What it does.
    pub role: NodeRole,
    /// Its peaqID.
    pub did: Did,
    /// Its peer id.
    pub peer: String,
    /// Where it listens.
    pub address: String,
    /// The machine that it follows.
    pub follows: Option<String>,
    /// The streams that it buys.
    pub buys: Vec<String>,
    /// Its process; `None` when it was never started, or was ended on purpose.
    pub process: Option<ProcessId>,
    /// The process that keeps its network, where it has one of its own.
    pub host: Option<ProcessId>,
}

impl NodeState {
    /// Whether its process lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.process.is_some_and(ProcessId::is_alive)
    }
}

impl State {
    /// A testnet of which nothing is there yet.
    pub(super) fn new(program: PathBuf, feed: Feed) -> Self {
        let id: [u8; 16] = rand::random();
        Self {
            version: VERSION,
            id: hex::encode(id),
            boot: boot_id(),
            phase: Phase::Starting,
            program,
            feed,
            streams: Vec::new(),
            nodes: Vec::new(),
            feeder: None,
            world: None,
            partition: Vec::new(),
        }
    }

    /// A node by its name.
    ///
    /// # Errors
    ///
    /// [`TestnetError::NoNode`], with the names that there are.
    pub fn node(&self, name: &str) -> Result<&NodeState, TestnetError> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| self.no_node(name))
    }

    pub(super) fn node_mut(&mut self, name: &str) -> Result<&mut NodeState, TestnetError> {
        let error = self.no_node(name);
        self.nodes.iter_mut().find(|node| node.name == name).ok_or(error)
    }

    fn no_node(&self, name: &str) -> TestnetError {
        let known: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        TestnetError::NoNode { name: name.to_owned(), known: known.join(", ") }
    }

    /// The machines.
    pub fn machines(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.iter().filter(|node| node.role == NodeRole::Machine)
    }

    /// The buyers.
    pub fn buyers(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.iter().filter(|node| node.role == NodeRole::Buyer)
    }
}

/// The folder of a testnet.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// Held while a testnet changes.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Folder {
    /// The folder at `path`, which need not be there.
    ///
    /// # Errors
    ///
    /// When it is no path.
    pub fn new(path: &Path) -> Result<Self, TestnetError> {
        let path = std::path::absolute(path).map_err(|source| TestnetError::Io { path: path.to_owned(), source })?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The home of a node.
    #[must_use]
    pub fn home(&self, node: &str) -> PathBuf {
        self.path.join(node)
    }

    /// The log of a node, or of the feeder.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// A client of a node's control socket.
    #[must_use]
    pub fn client(&self, node: &str) -> ControlClient {
        ControlClient::new(self.home(node).join("control.sock"))
    }

    fn io(&self, path: &Path) -> impl FnOnce(std::io::Error) -> TestnetError {
        let path = path.to_owned();
        move |source| TestnetError::Io { path, source }
    }

    /// Makes the folder for a new testnet and locks it. It must be empty or not there.
    pub(super) async fn create(&self) -> Result<Lock, TestnetError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(self.io(&self.path))?;
        if self.path.join(STATE).exists() {
            return Err(TestnetError::Exists { dir: self.path.clone() });
        }
        for entry in fs::read_dir(&self.path).map_err(self.io(&self.path))? {
            if entry.map_err(self.io(&self.path))?.file_name() != LOCK {
                return Err(TestnetError::Occupied { dir: self.path.clone() });
            }
        }
        let lock = self.lock().await?;
        // Again under the lock: of two at once, one makes it.
        if self.path.join(STATE).exists() {
            return Err(TestnetError::Exists { dir: self.path.clone() });
        }
        Ok(lock)
    }

    /// Locks the testnet; another command that is at work is waited for, for a while.
    pub(super) async fn lock(&self) -> Result<Lock, TestnetError> {
        let path = self.path.join(LOCK);
        if !self.path.is_dir() {
            return Err(TestnetError::None { dir: self.path.clone() });
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.map_err(self.io(&path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // A lock on a file that was removed meanwhile keeps nobody out.
                Ok(()) if same_file(&file, &path) => return Ok(Lock { _file: file }),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {}
                Err(Errno::WOULDBLOCK) => return Err(TestnetError::Busy { dir: self.path.clone() }),
                Err(error) => return Err(self.io(&path)(error.into())),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The testnet in it. Of another start of the computer nothing lives any more.
    ///
    /// # Errors
    ///
    /// [`TestnetError::None`], [`TestnetError::State`], or the file system.
    pub fn load(&self) -> Result<State, TestnetError> {
        let path = self.path.join(STATE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(TestnetError::None { dir: self.path.clone() });
            }
            Err(source) => return Err(TestnetError::Io { path, source }),
        };
        let mut state: State = serde_json::from_slice(&bytes)
            .map_err(|error| TestnetError::State { path: path.clone(), reason: error.to_string() })?;
        if state.version != VERSION {
            let reason = format!("it is of version {}, and this program knows version {VERSION}", state.version);
            return Err(TestnetError::State { path, reason });
        }
        if state.boot != boot_id() {
            (state.feeder, state.world) = (None, None);
            for node in &mut state.nodes {
                (node.process, node.host) = (None, None);
            }
        }
        Ok(state)
    }

    /// Replaces the description: durable and whole when this returns.
    pub(super) fn save(&self, state: &State, _lock: &Lock) -> Result<(), TestnetError> {
        let path = self.path.join(STATE);
        let mut text = serde_json::to_vec_pretty(state)
            .map_err(|error| TestnetError::State { path: path.clone(), reason: error.to_string() })?;
        text.push(b'\n');
        let mut file = tempfile::Builder::new().prefix(DRAFT).tempfile_in(&self.path).map_err(self.io(&path))?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(self.io(&path))?;
        file.persist(&path).map_err(|error| TestnetError::Io { path, source: error.error })?;
        Ok(())
    }

    /// Removes what a testnet leaves in its folder, the description last, and the folder when nothing else is in it.
    pub(super) fn remove(&self, state: &State, _lock: Lock) -> Result<(), TestnetError> {
        let gone = |result: std::io::Result<()>, path: &Path| match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.io(path)(error)),
            _ => Ok(()),
        };
        for node in &state.nodes {
            let home = self.home(&node.name);
            gone(fs::remove_dir_all(&home), &home)?;
        }
        let logs = state.nodes.iter().map(|node| node.name.as_str()).chain([FEEDER, NETWORKS]);
        let mut files: Vec<PathBuf> = logs.map(|name| self.log(name)).collect();
        files.push(self.path.join(OWN_RECORDING));
        // What a crash left of a description that was being written.
        for entry in fs::read_dir(&self.path).map_err(self.io(&self.path))? {
            let path = entry.map_err(self.io(&self.path))?.path();
            files
                .extend(path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(DRAFT)).then_some(path));
        }
        for path in files {
            gone(fs::remove_file(&path), &path)?;
        }
        for path in [self.path.join(STATE), self.path.join(LOCK)] {
            gone(fs::remove_file(&path), &path)?;
        }
        // What is not ours stays, and its folder with it.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }

    /// Forgets the testnet and keeps its homes and logs.
    pub(super) fn forget(&self, _lock: Lock) -> Result<(), TestnetError> {
        for path in [self.path.join(STATE), self.path.join(LOCK)] {
            fs::remove_file(&path).map_err(self.io(&path))?;
        }
        Ok(())
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(held), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new("/bin/true".into(), Feed::Recording { path: None, speed: 1.0 })
    }

    #[tokio::test]
    async fn a_folder_holds_one_testnet_and_only_where_nothing_else_is() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(&place.path().join("net")).unwrap();
        assert!(matches!(folder.load(), Err(TestnetError::None { .. })));
        let lock = folder.create().await.unwrap();
        let state = state();
        folder.save(&state, &lock).unwrap();
        assert_eq!(folder.load().unwrap(), state);
        drop(lock);
        assert!(matches!(folder.create().await, Err(TestnetError::Exists { .. })));
        let lock = folder.lock().await.unwrap();
        fs::write(folder.path().join("letter.txt"), "mine").unwrap();
        folder.remove(&state, lock).unwrap();
        assert!(folder.path().join("letter.txt").exists(), "what is not the testnet's stays");
        assert!(matches!(folder.create().await, Err(TestnetError::Occupied { .. })));
    }

    #[test]
    fn of_another_start_of_the_computer_nothing_lives() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path()).unwrap();
        let mut state = state();
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap());
        (state.boot, state.feeder) = ("another".to_owned(), own);
        fs::write(place.path().join(STATE), serde_json::to_vec(&state).unwrap()).unwrap();
        assert_eq!(folder.load().unwrap().feeder, None);
        fs::write(place.path().join(STATE), "{}").unwrap();
        assert!(matches!(folder.load(), Err(TestnetError::State { .. })));
    }
}
