//! One subscription, and where its messages go.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    account::{MessageInfo, Sequences},
    rcl::{RclError, Subscription, TakeError},
    running::{Shared, system_now_ns},
    type_name::TypeName,
};
use crate::{
    config::{History, Stamp},
    ingest::{DEFAULT_MAX_MESSAGE, LiveDecoder, SourceMessage},
    machine::{LiveStream, Offered},
};

/// What counts as the whole history of a topic, where that has no bound of its own.
const WHOLE_HISTORY: usize = 10_000;

/// A subscription and where its messages go.
pub(super) struct Feed {
    topic: Arc<str>,
    type_name: Arc<str>,
    subscription: Subscription,
    stream: LiveStream,
    decoder: LiveDecoder,
    stamp: Stamp,
    /// Messages that its history holds at most.
    depth: usize,
    sequences: Sequences,
    /// Taken, and the lane has no room for it.
    held: Option<SourceMessage>,
    buffer: Vec<u8>,
    /// The last trouble that was logged: the same one again is only counted.
    told: Option<String>,
}

impl Feed {
    pub(super) fn new(
        type_name: &TypeName,
        subscription: Subscription,
        stream: LiveStream,
        decoder: LiveDecoder,
    ) -> Self {
        let config = Arc::clone(stream.config());
        let depth = match config.qos.history {
            History::KeepLast => usize::try_from(config.qos.depth).unwrap_or(WHOLE_HISTORY),
            History::KeepAll => WHOLE_HISTORY,
        };
        Self {
            topic: config.topic.as_str().into(),
            type_name: type_name.to_string().into(),
            subscription,
            stream,
            decoder,
            stamp: config.stamp,
            depth,
            sequences: Sequences::default(),
            held: None,
            buffer: Vec::new(),
            told: None,
        }
    }

    /// The topic that the configuration names.
    pub(super) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// What is waited on.
    pub(super) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Messages that its history holds at most.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether a message waits here for room in the lane. Then nothing is taken.
    pub(super) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Takes up to `most` messages, and says how many. Stops early when there is none, or no room for one.
    pub(super) fn take(&mut self, most: usize, shared: &Shared) -> Result<usize, RclError> {
        let mut taken = 0;
        while taken < most && self.held.is_none() {
            match self.subscription.take(&mut self.buffer, DEFAULT_MAX_MESSAGE) {
                Ok(Some(info)) => self.message(&info, shared),
                Ok(None) => break,
                Err(error @ TakeError::TooLarge { .. }) => {
                    // It has a number like any other, which the next one shows as missing.
                    self.sequences.excuse();
                    self.stream.source().received(system_now_ns() / 1_000_000);
                    self.refuse(error.to_string());
                }
                Err(TakeError::Rcl(error)) => return Err(error),
            }
            taken += 1;
        }
        Ok(taken)
    }

    fn message(&mut self, info: &MessageInfo, shared: &Shared) {
        let now_ns = system_now_ns();
        let source = self.stream.source();
        source.lost(self.sequences.note(info));
        source.received(now_ns / 1_000_000);
        if shared.is_paused() {
            source.paused();
            return;
        }
        let received_ns = match &shared.sim_time {
            Some(time) => time.load(Relaxed),
            None if info.received_ns > 0 => info.received_ns,
            None => now_ns,
        };
        let stamp = match self.stamp {
            Stamp::Header => self.decoder.stamp(&self.buffer),
            Stamp::Receive => None,
        };
        let log_time_ns = stamp.unwrap_or(received_ns);
        let publish_time_ns = if info.published_ns > 0 { info.published_ns } else { log_time_ns };
        match self.decoder.content(&mut self.buffer) {
            Ok(content) => self.offer(SourceMessage {
                topic: Arc::clone(&self.topic),
                type_name: Arc::clone(&self.type_name),
                log_time_ns,
                publish_time_ns,
                content,
            }),
            Err(reason) => self.refuse(reason),
        }
    }

    fn offer(&mut self, message: SourceMessage) {
        match self.stream.offer(message) {
            Ok(Offered::Taken) => {}
            Ok(Offered::Full(message)) => self.held = Some(message),
            // Counted by the lane, which says why it has stopped.
            Err(error) => self.tell(error.to_string()),
        }
    }

    /// Hands the message that waits to the lane, if there is room now.
    pub(super) fn offer_held(&mut self) {
        if let Some(message) = self.held.take() {
            self.offer(message);
        }
    }

    fn refuse(&mut self, reason: String) {
        self.stream.source().refused(reason.clone());
        self.tell(reason);
    }

    fn tell(&mut self, reason: String) {
        if self.told.as_ref() != Some(&reason) {
            tracing::warn!(topic = &*self.topic, reason, "messages of the topic are refused");
            self.told = Some(reason);
        }
    }

    /// Counts what the middleware says that it lost.
    pub(super) fn count_lost(&mut self) {
        if let Some(total) = self.subscription.lost() {
            let news = self.sequences.told(total);
            self.stream.source().lost(news);
        }
    }

    /// Ends it: what waits finds no room any more.
    pub(super) fn end(&mut self) {
        self.offer_held();
        self.count_lost();
        if self.held.take().is_some() {
            self.stream.count_dropped(1);
        }
    }
}
