//! Driving a source into the lanes of a machine.

use std::{collections::BTreeMap, sync::Arc};

use super::{Machine, check_schema};
use crate::ingest::{IngestError, Source, SourceItem};
use serde::{Deserialize, Serialize};

/// What happened to one topic of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSummary {
    /// Messages handed to the topic's stream.
    pub messages: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
    /// Why the topic was lost, undecoded or refused.
    pub trouble: Option<String>,
    /// Whether a stream of the Data Event Map takes it.
    pub mapped: bool,
}

/// Something about the source that is not about one topic.
pub type SourceTrouble = String;

/// What happened to a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestSummary {
    /// By topic.
    pub topics: BTreeMap<String, TopicSummary>,
    /// Damaged places of the source.
    pub damaged: Vec<SourceTrouble>,
}

impl IngestSummary {
    /// Messages handed to streams.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.topics.values().map(|topic| topic.messages).sum()
    }

    /// Whether nothing was lost, refused or damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.topics.values().all(|topic| topic.trouble.is_none() && topic.unreadable == 0)
    }
}

/// How far an ingest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestProgress {
    /// Messages handed to streams so far.
    pub messages: u64,
}

/// Damaged places that a summary lists; a source with more is not worth listing.
const MAX_DAMAGED: usize = 64;
/// Topics that a summary lists.
const MAX_TOPICS: usize = 4096;
/// How often progress is told, in messages.
const PROGRESS: u64 = 1024;

impl Machine {
    /// Reads `source` to its end, into the lanes of its topics, and makes everything durable. Topics without a stream are
    /// counted and left out. A lane that stops costs its topic only.
    ///
    /// # Errors
    ///
    /// When the source cannot be read on. What was read before is durable.
    pub fn ingest(
        &self,
        source: &mut dyn Source,
        mut progress: impl FnMut(IngestProgress),
    ) -> Result<IngestSummary, IngestError> {
        let mut summary = IngestSummary::default();
        let mut messages = 0;
        let result = loop {
            match source.next() {
                Ok(Some(item)) => {
                    self.take(item, source, &mut summary);
                    messages += 1;
                    if messages % PROGRESS == 0 {
                        progress(IngestProgress { messages });
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        for stream in self.streams.all() {
            if let Some(lane) = stream.lane()
                && let Some(topic) = summary.topics.get_mut(&stream.config.topic)
                && let Err(error) = lane.flush()
            {
                topic.trouble.get_or_insert(error.to_string());
            }
        }
        progress(IngestProgress { messages });
        result.map(|()| summary)
    }

    fn take(&self, item: SourceItem, source: &dyn Source, summary: &mut IngestSummary) {
        match item {
            SourceItem::Message(message) => {
                let topic = Arc::clone(&message.topic);
                let known = summary.topics.contains_key(&*topic);
                let Some(entry) = entry_of(summary, &topic) else { return };
                if entry.trouble.is_some() {
                    return;
                }
                let stream = match self.stream_of_topic(&topic) {
                    Ok(Some(stream)) => stream,
                    Ok(None) => return,
                    Err(error) => {
                        entry.mapped = true;
                        entry.trouble = Some(error.to_string());
                        return;
                    }
                };
                let Some(lane) = stream.lane() else { return };
                entry.mapped = true;
                if !known
                    && let Some(paths) = source.schema_paths(&stream.config.topic)
                    && let Err(reason) = check_schema(&stream.config, &paths)
                {
                    entry.trouble = Some(reason);
                    return;
                }
                match lane.push(message) {
                    Ok(()) => entry.messages += 1,
                    Err(error) => entry.trouble = Some(error.to_string()),
                }
            }
            SourceItem::TopicLost { topic, reason } | SourceItem::TopicUndecoded { topic, reason } => {
                let mapped = self.is_mapped(&topic);
                if let Some(entry) = entry_of(summary, &topic) {
                    entry.mapped = mapped;
                    entry.trouble = Some(reason);
                }
            }
            SourceItem::Dropped { topic, reason } => {
                tracing::warn!(topic = &*topic, reason, "message left out");
                if let Some(entry) = entry_of(summary, &topic) {
                    entry.unreadable += 1;
                }
            }
            SourceItem::Damaged { reason } => {
                if summary.damaged.len() < MAX_DAMAGED {
                    summary.damaged.push(reason);
                }
            }
        }
    }
}

fn entry_of<'a>(summary: &'a mut IngestSummary, topic: &str) -> Option<&'a mut TopicSummary> {
    if !summary.topics.contains_key(topic) {
        if summary.topics.len() >= MAX_TOPICS {
            return None;
        }
        summary.topics.insert(topic.to_owned(), TopicSummary::default());
    }
    summary.topics.get_mut(topic)
}
