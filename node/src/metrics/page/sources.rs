//! Live sources of streams, in ROS 2.

use std::fmt;

use super::{Page, Snapshot};
use crate::{
    metrics::catalog::metrics,
    service::status::{SourceReport, SourceState},
};

metrics! {
    RECEIVED = Counter "tributary_source_received_messages" in "messages" by ["stream"]: "Messages taken from the middleware.";
    REFUSED = Counter "tributary_source_refused_messages" in "messages" by ["stream"]: "Messages of the middleware that could not be read.";
    PUBLISHERS = Gauge "tributary_source_publishers" in "publishers" by ["stream"]: "Publishers of the topic, faulty ones included.";
    FAULTY = Gauge "tributary_source_faulty_publishers" in "publishers" by ["stream"]: "Publishers whose messages do not come: another type, or a quality of service that does not fit.";
    STATE = Gauge "tributary_source_state" in "0 or 1" by ["stream", "state"]: "The state of the source: `waiting` (nobody publishes), `subscribed`, `paused`, `refused`. The one that holds is 1; the others are missing.";
    LAST = Gauge "tributary_source_last_message_timestamp_seconds" in "seconds" by ["stream"]: "When the last message was received, since 1970.";
    PAUSED = Gauge "tributary_ros2_paused" in "0 or 1" by []: "Whether the operator paused the node.";
    REFUSED_TOPICS = Gauge "tributary_ros2_refused_topics" in "topics" by []: "Topics that a pattern means and that have no stream.";
}

fn state_name(state: SourceState) -> &'static str {
    match state {
        SourceState::Waiting => "waiting",
        SourceState::Subscribed => "subscribed",
        SourceState::Paused => "paused",
        SourceState::Refused => "refused",
    }
}

pub(super) fn write(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let status = &snapshot.status;
    let sources: Vec<(&str, &SourceReport)> =
        status.streams.iter().filter_map(|stream| Some((stream.name.as_str(), stream.source.as_ref()?))).collect();
    let of = |value: fn(&SourceReport) -> u64| sources.iter().map(move |(stream, source)| ([*stream], value(source)));
    page.each(&RECEIVED, of(|source| source.received))?;
    page.each(&REFUSED, of(|source| source.refused))?;
    page.each(&PUBLISHERS, of(|source| source.publishers))?;
    page.each(&FAULTY, of(|source| source.faulty_count))?;
    page.each(&STATE, sources.iter().map(|(stream, source)| ([*stream, state_name(source.state)], true)))?;
    let last = sources.iter().filter_map(|(stream, source)| Some(([*stream], source.last_ms? as f64 / 1000.0)));
    page.each(&LAST, last)?;
    page.maybe(&PAUSED, status.ros2.as_ref().map(|ros2| ros2.paused))?;
    page.maybe(&REFUSED_TOPICS, status.ros2.as_ref().map(|ros2| ros2.refused_count))
}
