//! What another machine publishes, package by package.
//!
//! A [`PackageStream`] is a live subscription with files: packages are pulled, verified and written to rolling NDJSON files first, and given to
//! the program when the subscription has noted them as durable. So a program that ends in the middle of its work begins again where it
//! says it was, with [`PackageStream::skip`], and neither a crash of it nor of the node loses a package.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::broadcast::{self, error::RecvError};
use tributary_protocol::{
    ids::Did,
    package::{DataPackage, PackageError},
};

use crate::{
    buyer::{Buyer, SinkTerms, SubscriptionError, SubscriptionState, SubscriptionStatus, SubscriptionTerms},
    feeds::{FeedEvent, FeedLink, FeedsError, FollowError, Streams},
    service::Node,
};

/// Seconds that are bought at a time; renewed before they end.
const LIVE_SECONDS: u32 = 15 * 60;
/// A file of this size is finished.
const ROTATE: u64 = 64 << 20;
/// How often it is looked without any news: what the subscription fetches late is no news of the feed.
const LOOK: Duration = Duration::from_millis(250);

/// Why there are no packages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackagesError {
    /// This node buys nothing.
    #[error("this node is no buyer: add the role `buyer` to its configuration")]
    NoBuyer,
    /// The machine cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The subscription cannot be made.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// What is stored cannot be read.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    /// The machine took access back, or refused it.
    #[error("the subscription to {stream} has ended: {reason}")]
    Ended {
        /// The stream.
        stream: String,
        /// What the machine said.
        reason: String,
    },
    /// A file that was written cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line of a file is no package: somebody changed it.
    #[error("a line of {} is no package", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PackageError,
    },
    /// The node stops.
    #[error("the node is stopping")]
    Stopped,
}

/// A package: one message, signed by its machine.
#[derive(Debug, Clone)]
pub struct Package {
    line: Vec<u8>,
    /// What it says, with the machine, the time and the number.
    pub package: DataPackage,
    /// How many packages of this subscription came before it.
    pub index: u64,
}

impl Package {
    /// The message as a type of yours.
    ///
    /// # Errors
    ///
    /// When it is not of that type. A field that a rule of the machine removed is not there.
    pub fn message<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        #[derive(Deserialize)]
        struct Line<T> {
            payload: T,
        }
        serde_json::from_slice::<Line<T>>(&self.line).map(|line| line.payload)
    }
}

/// The packages of a stream, from when it was subscribed to on.
pub struct PackageStream {
    node: Node,
    buyer: Buyer,
    machine: Did,
    stream: String,
    events: broadcast::Receiver<FeedEvent>,
    reader: Option<Reader>,
    /// Packages that were read from the files.
    read: u64,
    /// Packages that are noted as durable.
    durable: u64,
    skip: u64,
}

/// The file that is being read.
struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Node {
    /// Follows the machine behind `link` and subscribes to one of its streams, by its public name: keys are asked for and renewed as long as
    /// they are free, chunks are pulled as they are announced. The packages lie in `packages/` in the node's home; they must stay there while
    /// they are read. A second call goes on with the same subscription, from its first package.
    ///
    /// # Errors
    ///
    /// When this node is no buyer, or the machine is not found.
    pub async fn packages(&self, link: &FeedLink, stream: &str) -> Result<PackageStream, PackagesError> {
        let buyer = self.buyer().cloned().ok_or(PackagesError::NoBuyer)?;
        let events = buyer.feeds().watch();
        buyer.feeds().follow(link, Streams::All).await?;
        let terms = SubscriptionTerms {
            stream: stream.to_owned(),
            renew: true,
            live_seconds: LIVE_SECONDS,
            max_price: 0,
            pull: true,
            sink: Some(SinkTerms { dir: self.home().path().join("packages"), rotate_bytes: ROTATE }),
        };
        buyer.subscribe_live(link.did, terms).await?;
        Ok(PackageStream {
            node: self.clone(),
            buyer,
            machine: link.did,
            stream: stream.to_owned(),
            events,
            reader: None,
            read: 0,
            durable: 0,
            skip: 0,
        })
    }
}

impl PackageStream {
    /// Leaves out the first `packages` of the subscription: those that were dealt with before the program ended.
    #[must_use]
    pub fn skip(mut self, packages: u64) -> Self {
        self.skip = packages;
        self
    }

    /// The next package; waits for it. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// When the machine has ended the subscription, the files cannot be read, or the node stops. Trouble that may pass (no connection, a
    /// request that waits for the machine's operator) is waited for; [`PackageStream::state`] tells of it.
    pub async fn next(&mut self) -> Result<Package, PackagesError> {
        loop {
            while self.read < self.durable {
                let Some(line) = self.line()? else { break };
                let (path, line) = line;
                let index = self.read;
                self.read += 1;
                if index >= self.skip {
                    let package =
                        DataPackage::from_json(&line).map_err(|source| PackagesError::Package { path, source })?;
                    return Ok(Package { line, package, index });
                }
            }
            let status = self.state().await?;
            if status.packages > self.durable {
                self.durable = status.packages;
                if self.reader.is_none() {
                    self.reader = status.file.as_deref().map(first).transpose()?;
                }
                continue;
            }
            if status.state == SubscriptionState::Ended {
                let reason = status.reason.unwrap_or_default();
                return Err(PackagesError::Ended { stream: self.stream.clone(), reason });
            }
            let stopping = self.node.stopping().clone();
            tokio::select! {
                () = stopping.cancelled() => return Err(PackagesError::Stopped),
                () = tokio::time::sleep(LOOK) => {}
                event = self.events.recv() => match event {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(PackagesError::Stopped),
                },
            }
        }
    }

    /// Gives every package to `callback` until it says [`std::ops::ControlFlow::Break`].
    ///
    /// # Errors
    ///
    /// As [`PackageStream::next`].
    pub async fn for_each<B>(
        &mut self,
        mut callback: impl FnMut(Package) -> std::ops::ControlFlow<B>,
    ) -> Result<B, PackagesError> {
        loop {
            if let std::ops::ControlFlow::Break(value) = callback(self.next().await?) {
                return Ok(value);
            }
        }
    }

    /// How the subscription stands.
    ///
    /// # Errors
    ///
    /// When what is stored cannot be read, or the node has stopped.
    pub async fn state(&self) -> Result<SubscriptionStatus, PackagesError> {
        let all = self.buyer.subscriptions().await?;
        let own = |status: &SubscriptionStatus| status.machine == self.machine && status.stream == self.stream;
        all.into_iter().find(own).ok_or(PackagesError::Stopped)
    }

    /// The next line of the files, and the file; `None` when it is not there yet.
    fn line(&mut self) -> Result<Option<(PathBuf, Vec<u8>)>, PackagesError> {
        loop {
            let Some(reader) = &mut self.reader else { return Ok(None) };
            let io = |source| PackagesError::Io { path: reader.path.clone(), source };
            reader.file.read_until(b'\n', &mut reader.line).map_err(io)?;
            if reader.line.last() == Some(&b'\n') {
                reader.line.pop();
                return Ok(Some((reader.path.clone(), std::mem::take(&mut reader.line))));
            }
            // The end of a finished file is the beginning of the next one.
            let Some(next) = following(&reader.path)? else { return Ok(None) };
            *reader = open(next)?;
        }
    }
}

fn open(path: PathBuf) -> Result<Reader, PackagesError> {
    let file = File::open(&path).map_err(|source| PackagesError::Io { path: path.clone(), source })?;
    Ok(Reader { path, file: BufReader::new(file), line: Vec::new() })
}

/// The files of the subscription whose growing file is at `path`, by their numbers, which have one width.
fn files(path: &Path) -> Result<Vec<PathBuf>, PackagesError> {
    let stem = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".ndjson")?;
        Some(name.rsplit_once('-')?.0.to_owned())
    };
    let (wanted, dir) = (stem(path), path.parent().unwrap_or(Path::new("")));
    let io = |source| PackagesError::Io { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let found = entry.map_err(io)?.path();
        if wanted.is_some() && stem(&found) == wanted {
            files.push(found);
        }
    }
    files.sort();
    Ok(files)
}

fn first(path: &Path) -> Result<Reader, PackagesError> {
    let first = files(path)?.into_iter().next();
    open(first.unwrap_or_else(|| path.to_owned()))
}

fn following(path: &Path) -> Result<Option<PathBuf>, PackagesError> {
    Ok(files(path)?.into_iter().find(|found| found.as_path() > path))
}
