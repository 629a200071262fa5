//! Work that a running node does for whoever asks: reading sources into its streams. It ends when the asker goes away, when
//! the source ends, or when the node stops; what was read by then is kept.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use tokio_util::sync::CancellationToken;
use tributary_protocol::rules::native::SchemaPaths;

use super::Node;
use crate::{
    ingest::{IngestError, Source, SourceItem},
    machine::{IngestProgress, IngestSummary, PublishError, Published},
};

/// Why a job ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// This node has no streams to put messages into.
    #[error("this node is no machine: add the role `machine` to its configuration")]
    NoMachine,
    /// The source cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The file cannot be published.
    #[error(transparent)]
    Publish(Box<PublishError>),
    /// The node stops.
    #[error("the node is stopping")]
    Stopped,
}

impl From<PublishError> for JobError {
    fn from(error: PublishError) -> Self {
        Self::Publish(Box::new(error))
    }
}

/// A source that ends when it is told to.
struct Stoppable {
    source: Box<dyn Source + Send>,
    stop: CancellationToken,
}

impl Source for Stoppable {
    fn next(&mut self) -> Result<Option<SourceItem>, IngestError> {
        if self.stop.is_cancelled() { Ok(None) } else { self.source.next() }
    }

    fn schema_paths(&self, topic: &str) -> Option<SchemaPaths> {
        self.source.schema_paths(topic)
    }
}

/// A file that ends, with an error, when it is told to.
struct StoppableFile {
    file: std::fs::File,
    stop: CancellationToken,
}

impl Read for StoppableFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("the node is stopping"));
        }
        self.file.read(buf)
    }
}

impl Node {
    /// Reads a source into the machine's streams, to its end or until the node stops. Everything read is durable when this
    /// returns. Dropping the future ends the reading.
    ///
    /// # Errors
    ///
    /// When this node is no machine, or the source cannot be read on.
    pub async fn ingest(
        &self,
        source: Box<dyn Source + Send>,
        progress: impl FnMut(IngestProgress) + Send + 'static,
    ) -> Result<IngestSummary, JobError> {
        let machine = self.machine().cloned().ok_or(JobError::NoMachine)?;
        let stop = self.job()?;
        let _ends = stop.clone().drop_guard();
        let mut source = Stoppable { source, stop };
        let read = self.inner.jobs.spawn_blocking(move || machine.ingest(&mut source, progress));
        Ok(read.await.map_err(|_| JobError::Stopped)??)
    }

    /// Publishes a file as one dataset of a file stream. `progress` hears the bytes read so far. Dropping the future ends the
    /// reading; the part that was sealed stays as a dataset.
    ///
    /// # Errors
    ///
    /// When this node is no machine, the stream is not for files, or the file cannot be read.
    pub async fn publish(
        &self,
        stream: &str,
        path: &Path,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Published, JobError> {
        let machine = self.machine().cloned().ok_or(JobError::NoMachine)?;
        let stop = self.job()?;
        let _ends = stop.clone().drop_guard();
        let (stream, path): (String, PathBuf) = (stream.to_owned(), path.to_owned());
        let published = self.inner.jobs.spawn_blocking(move || {
            let unreadable = |source| PublishError::Read { path: path.clone(), source };
            let file = std::fs::File::open(&path).map_err(unreadable)?;
            machine.publish(&stream, &mut StoppableFile { file, stop }, &path, progress)
        });
        Ok(published.await.map_err(|_| JobError::Stopped)??)
    }

    /// A token that ends with the node.
    fn job(&self) -> Result<CancellationToken, JobError> {
        let stopping = self.stopping();
        if stopping.is_cancelled() { Err(JobError::Stopped) } else { Ok(stopping.child_token()) }
    }
}
