//! Publishing values of a program's own type.

use std::marker::PhantomData;

use serde::Serialize;
use tributary_protocol::ids::DatasetId;

use crate::{
    ingest::SourceMessage,
    machine::{LiveStream, MachineError},
    service::Node,
};

/// Why a value was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublisherError {
    /// This node sells nothing.
    #[error("this node is no machine: add the role `machine` to its configuration")]
    NoMachine,
    /// Nothing in the configuration takes the topic.
    #[error("no stream of the configuration takes the topic {topic:?}; write one under `streams`")]
    NoStream {
        /// The topic.
        topic: String,
    },
    /// The value cannot be a message.
    #[error("the value cannot be a message: {reason}")]
    Value {
        /// Why.
        reason: String,
    },
    /// The stream takes nothing.
    #[error(transparent)]
    Machine(Box<MachineError>),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

impl From<MachineError> for PublisherError {
    fn from(error: MachineError) -> Self {
        Self::Machine(Box::new(error))
    }
}

/// Publishes values of one type on one topic. Clones share the stream.
pub struct Publisher<T> {
    node: Node,
    stream: LiveStream,
    topic: String,
    kind: PhantomData<fn(&T)>,
}

impl<T> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        let Self { node, stream, topic, .. } = self;
        Self { node: node.clone(), stream: stream.clone(), topic: topic.clone(), kind: PhantomData }
    }
}

impl Node {
    /// Publishes values of type `T` on `topic`, which a stream of the configuration must take (`mode: fields`).
    ///
    /// # Errors
    ///
    /// When this node is no machine, or no stream takes the topic.
    pub fn publisher<T: Serialize>(&self, topic: &str) -> Result<Publisher<T>, PublisherError> {
        let machine = self.machine().ok_or(PublisherError::NoMachine)?;
        let stream = machine.live_streams().into_iter().find(|stream| stream.config().topic == topic);
        let stream = stream.ok_or_else(|| PublisherError::NoStream { topic: topic.to_owned() })?;
        Ok(Publisher { node: self.clone(), stream, topic: topic.to_owned(), kind: PhantomData })
    }
}

impl<T: Serialize> Publisher<T> {
    /// Hands a value over: the rules of the stream are applied to its fields, and it becomes a signed package in the next chunk. Waits while
    /// the stream's queue is full and the stream says so (`queue: { overflow: pause }`). A value that was handed over is on the disk after
    /// `chunk.max_age` at the latest, or when a dataset is closed.
    ///
    /// # Errors
    ///
    /// When the value is no JSON object (a struct or a map), or the stream has stopped.
    pub async fn publish(&self, value: &T) -> Result<(), PublisherError> {
        let message = SourceMessage::of(&self.topic, value).map_err(|reason| PublisherError::Value { reason })?;
        let stream = self.stream.clone();
        let pushed = tokio::task::spawn_blocking(move || stream.push(message));
        Ok(pushed.await.map_err(|_| PublisherError::Stopped)??)
    }

    /// Closes the dataset that is being written, so that it can be bought as a whole. What was handed over before is in it, and durable.
    /// `None` when nothing was.
    ///
    /// # Errors
    ///
    /// When the stream has stopped.
    pub async fn close_dataset(&self) -> Result<Option<DatasetId>, PublisherError> {
        let machine = self.node.machine().cloned().ok_or(PublisherError::NoMachine)?;
        let name = self.stream.config().name().to_owned();
        let closed = tokio::task::spawn_blocking(move || machine.close_datasets(Some(&name)));
        Ok(closed.await.map_err(|_| PublisherError::Stopped)??.into_iter().next())
    }
}
