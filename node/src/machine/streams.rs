//! The streams of a machine: those that the configuration names, and those that its patterns come to mean while the node runs.
//!
//! A topic that a pattern means gets a stream of its own when it is first met, by a recording or live, and keeps it: its name is
//! remembered in the store, so that after a restart its data can be granted before the topic is met again. There is a bound on
//! all streams together, and a topic beyond it is refused by name.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tributary_protocol::ids::StreamId;
use tributary_store::{Store, StoreError, Table, WriteBatch};

use super::{
    Kind, LaneReport, Machine, MachineError, OwnBindingError, SourceStats, bindings, lane::Lane, publish::FileStream,
};
use crate::config::{MAX_STREAMS, StreamConfig, is_name};

/// Rows of the table `Meta` that remember a topic begin so.
const TOPIC: &[u8] = b"topic/";

/// A stream as it runs.
pub(super) struct Stream {
    pub(super) config: Arc<StreamConfig>,
    pub(super) id: StreamId,
    pub(super) kind: Kind,
    /// What a live source counts.
    pub(super) source: SourceStats,
}

impl Stream {
    /// Its lane, where it takes messages.
    pub(super) fn lane(&self) -> Option<&Lane> {
        match &self.kind {
            Kind::Messages(lane) => Some(lane),
            Kind::Files(..) => None,
        }
    }

    /// What it publishes files through, where it takes files.
    pub(super) fn files(&self) -> Option<&Mutex<FileStream>> {
        match &self.kind {
            Kind::Messages(_) => None,
            Kind::Files(files, _) => Some(files),
        }
    }

    /// What it counted. Does not wait for a file that is being published.
    pub(super) fn lane_report(&self) -> LaneReport {
        match &self.kind {
            Kind::Messages(lane) => lane.report(),
            Kind::Files(_, stats) => stats.report(0),
        }
    }
}

/// All streams that run, and the patterns that may add others.
pub(super) struct Streams {
    running: RwLock<Vec<Arc<Stream>>>,
    patterns: Vec<StreamConfig>,
    /// Held while a stream is added; `true` once none may be.
    ended: Mutex<bool>,
}

impl Streams {
    /// No stream yet; the patterns among `configured` are kept.
    pub(super) fn new(configured: &[StreamConfig]) -> Self {
        let patterns = configured.iter().filter(|config| config.pattern().is_some()).cloned().collect();
        Self { running: RwLock::default(), patterns, ended: Mutex::new(false) }
    }

    /// Those that run now, in the order in which they began.
    pub(super) fn all(&self) -> Vec<Arc<Stream>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn find(&self, wanted: impl Fn(&Stream) -> bool) -> Option<Arc<Stream>> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.iter().find(|stream| wanted(stream)).cloned()
    }

    /// The settings of a topic's own stream by the first pattern that means it, where no stream has the topic.
    pub(super) fn by_pattern(&self, topic: &str) -> Option<StreamConfig> {
        if self.find(|stream| stream.config.topic == topic).is_some() {
            return None;
        }
        pattern_of(&self.patterns, topic).map(|config| config.for_topic(topic))
    }

    pub(super) fn push(&self, stream: Stream) -> Arc<Stream> {
        let stream = Arc::new(stream);
        self.running.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&stream));
        stream
    }

    /// Adds no stream from here on, and gives all there are.
    pub(super) fn end(&self) -> Vec<Arc<Stream>> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.all()
    }
}

impl Machine {
    /// The stream that takes messages of `topic`: the one that names it, or else the one that the first pattern makes for it, which
    /// begins here if it does not run yet. `None` when nothing of the Data Event Map means the topic. Waits for the disk when a
    /// stream begins.
    pub(super) fn stream_of_topic(&self, topic: &str) -> Result<Option<Arc<Stream>>, MachineError> {
        if let Some(stream) = self.streams.find(|stream| stream.config.topic == topic) {
            return Ok(stream.lane().is_some().then_some(stream));
        }
        self.streams.by_pattern(topic).map(|config| self.add_stream(config)).transpose()
    }

    /// Whether a stream takes messages of `topic`, or a pattern would make one.
    pub(super) fn is_mapped(&self, topic: &str) -> bool {
        match self.streams.find(|stream| stream.config.topic == topic) {
            Some(stream) => stream.lane().is_some(),
            None => self.streams.by_pattern(topic).is_some(),
        }
    }

    fn add_stream(&self, config: StreamConfig) -> Result<Arc<Stream>, MachineError> {
        let ended = self.streams.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return Err(MachineError::Ended { topic: config.topic });
        }
        // Another source may have met the topic first.
        if let Some(stream) = self.streams.find(|stream| stream.config.topic == config.topic) {
            return Ok(stream);
        }
        if !is_name(&config.topic) {
            return Err(MachineError::BadName { topic: config.topic.chars().take(80).collect() });
        }
        let all = self.streams.all();
        if all.len() >= MAX_STREAMS {
            return Err(MachineError::TooManyStreams { topic: config.topic, limit: MAX_STREAMS });
        }
        if let Some(other) = all.iter().find(|stream| stream.config.name() == config.topic) {
            return Err(MachineError::NameTaken { other: other.config.topic.clone(), topic: config.topic });
        }
        remember(&self.store, &config.topic)?;
        let (chain, _) = bindings::load(&self.store, &self.keys.did)?.ok_or(OwnBindingError::None)?;
        let stream = self.start_stream(config, &chain)?;
        tracing::info!(topic = stream.config.topic, "a stream begins for a topic that a pattern means");
        Ok(self.streams.push(stream))
    }
}

/// The configured streams without their patterns, and one for each remembered topic that a pattern means: what a machine begins
/// with.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn known_streams(store: &Store, configured: &[StreamConfig]) -> Result<Vec<StreamConfig>, StoreError> {
    let (patterns, mut out): (Vec<_>, Vec<_>) =
        configured.iter().cloned().partition(|config| config.pattern().is_some());
    if patterns.is_empty() {
        return Ok(out);
    }
    for (key, _) in store.rows(Table::Meta, TOPIC, None, MAX_REMEMBERED)? {
        let Some(topic) = key.strip_prefix(TOPIC).and_then(|name| std::str::from_utf8(name).ok()) else { continue };
        let is_new = out.iter().all(|config| config.topic != topic && config.name() != topic);
        if is_new
            && out.len() < MAX_STREAMS
            && let Some(pattern) = pattern_of(&patterns, topic)
        {
            out.push(pattern.for_topic(topic));
        }
    }
    Ok(out)
}

/// Topics that are looked at after patterns were changed again and again; each was once among [`MAX_STREAMS`] streams.
const MAX_REMEMBERED: usize = 100_000;

fn remember(store: &Store, topic: &str) -> Result<(), StoreError> {
    let key = [TOPIC, topic.as_bytes()].concat();
    if store.row(Table::Meta, &key)?.is_some() {
        return Ok(());
    }
    let mut batch = WriteBatch::new();
    batch.put_row(Table::Meta, key, Vec::new());
    store.commit(batch)
}

/// The first of `patterns` that means `topic`.
fn pattern_of<'a>(patterns: &'a [StreamConfig], topic: &str) -> Option<&'a StreamConfig> {
    patterns.iter().find(|config| config.pattern().is_some_and(|pattern| pattern.matches(topic)))
}

#[cfg(test)]
mod tests;
