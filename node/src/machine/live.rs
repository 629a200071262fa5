//! Streams as a live source feeds them: it cannot be asked to wait, so nothing here waits for the lane.

use std::sync::Arc;

use tributary_protocol::rules::native::SchemaPaths;

use super::{
    LaneError, Machine, MachineError, SourceStats,
    lane::{Lane, Offered, Room},
    lane_error, rules_of,
    streams::Stream,
};
use crate::{config::StreamConfig, ingest::SourceMessage};

/// Checks a stream's rules against the fields of a type: a rule for a path that is not there protects nothing.
///
/// # Errors
///
/// Names the rule.
pub fn check_schema(config: &StreamConfig, paths: &SchemaPaths) -> Result<(), String> {
    let rules = rules_of(config).map_err(|error| error.to_string())?;
    rules.map_or(Ok(()), |rules| rules.check_schema(paths).map_err(|error| error.to_string()))
}

/// A stream that a live source feeds. Clones share it.
#[derive(Clone)]
pub struct LiveStream {
    stream: Arc<Stream>,
}

impl Machine {
    /// The streams that take messages now, those of patterns included.
    #[must_use]
    pub fn live_streams(&self) -> Vec<LiveStream> {
        let takes = |stream: &Arc<Stream>| stream.lane().is_some();
        self.streams.all().into_iter().filter(takes).map(|stream| LiveStream { stream }).collect()
    }

    /// The settings that a stream of `topic` would have by the first pattern that means it. `None` when none does, or a stream has the
    /// topic already.
    #[must_use]
    pub fn pattern_config(&self, topic: &str) -> Option<StreamConfig> {
        self.streams.by_pattern(topic)
    }

    /// The stream that takes messages of `topic`; one that a pattern means begins here. Waits for the disk then. `None` when nothing
    /// of the Data Event Map means the topic.
    ///
    /// # Errors
    ///
    /// When a stream cannot begin.
    pub fn live_stream(&self, topic: &str) -> Result<Option<LiveStream>, MachineError> {
        Ok(self.stream_of_topic(topic)?.map(|stream| LiveStream { stream }))
    }
}

impl LiveStream {
    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &Arc<StreamConfig> {
        &self.stream.config
    }

    /// What its source counts.
    #[must_use]
    pub fn source(&self) -> &SourceStats {
        &self.stream.source
    }

    /// Prepares for [`LiveStream::offer`]. `room` is called, from another thread, when there may be room again after an offer found
    /// none; it must not wait.
    ///
    /// # Errors
    ///
    /// When the lane has stopped.
    pub fn go_live(&self, room: Room) -> Result<(), MachineError> {
        self.lane().and_then(|lane| lane.go_live(room)).map_err(|source| lane_error(&self.stream, source))
    }

    /// Hands a message over, if there is room for it.
    ///
    /// # Errors
    ///
    /// When the lane has stopped. The message is counted as refused.
    pub fn offer(&self, message: SourceMessage) -> Result<Offered, MachineError> {
        self.lane().and_then(|lane| lane.offer(message)).map_err(|source| lane_error(&self.stream, source))
    }

    /// Hands a message over as a recording does: waits for room where the stream says so, in the queue and on the disk. Not for live sources,
    /// which cannot wait.
    ///
    /// # Errors
    ///
    /// When the lane has stopped. The message is counted as refused.
    pub fn push(&self, message: SourceMessage) -> Result<(), MachineError> {
        self.lane().and_then(|lane| lane.push(message)).map_err(|source| lane_error(&self.stream, source))
    }

    /// Counts messages that were held for the lane and not handed over.
    pub fn count_dropped(&self, count: u64) {
        if let Ok(lane) = self.lane() {
            lane.count_dropped(count);
        }
    }

    fn lane(&self) -> Result<&Lane, LaneError> {
        self.stream.lane().ok_or_else(|| LaneError::Stopped { reason: "the stream takes files".to_owned() })
    }
}
