//! The message on `/diagnostics`: for the node and for each live stream whether all is well, and the counters.
//!
//! The levels are those of `diagnostic_msgs/DiagnosticStatus`. A loss is a warning for a while after it happened, so that whoever
//! looks now and then sees it; the counters keep it for ever.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tributary_protocol::json::{Object, Value};

use super::status::Ros2Status;
use crate::{
    export::{EncodeError, encode_cdr},
    ingest::msgdef::Plan,
    machine::{SourceReport, SourceState, StreamReport},
};

/// How long a loss is a warning.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok = 0,
    Warn = 1,
    Error = 2,
}

/// Losses of one stream that were seen.
#[derive(Debug, Default)]
struct Losses {
    total: u64,
    grew: Option<Instant>,
}

/// Makes the messages.
pub(super) struct Diagnostics {
    plan: Plan,
    /// What the node's tasks are called after.
    node: String,
    /// The machine, as the hardware that is diagnosed.
    hardware: String,
    losses: HashMap<String, Losses>,
}

impl Diagnostics {
    /// `plan` is that of `diagnostic_msgs/msg/DiagnosticArray`.
    pub(super) fn new(plan: Plan, node: &str, hardware: String) -> Self {
        let node = node.trim_start_matches('/').to_owned();
        Self { plan, node, hardware, losses: HashMap::new() }
    }

    /// The message, serialized. `time_ns` is its stamp, nanoseconds since 1970.
    pub(super) fn message(
        &mut self,
        status: &Ros2Status,
        streams: &[StreamReport],
        time_ns: u64,
        now: Instant,
    ) -> Result<Vec<u8>, EncodeError> {
        let mut tasks = vec![self.of_node(status)];
        for stream in streams {
            if let Some(source) = &stream.source {
                tasks.push(self.of_stream(stream, source, now));
            }
        }
        let mut stamp = Object::new();
        stamp.insert("sec", i64::try_from(time_ns / 1_000_000_000).unwrap_or(0).min(i64::from(i32::MAX)));
        stamp.insert("nanosec", i64::try_from(time_ns % 1_000_000_000).unwrap_or(0));
        let mut header = Object::new();
        header.insert("stamp", stamp);
        header.insert("frame_id", "");
        let mut array = Object::new();
        array.insert("header", header);
        array.insert("status", Value::Array(tasks));
        encode_cdr(&self.plan, &array, &[])
    }

    fn of_node(&self, status: &Ros2Status) -> Value {
        let (level, text) = if let Some(trouble) = status.trouble.first() {
            (Level::Error, trouble.clone())
        } else if status.refused_count > 0 {
            (Level::Warn, format!("{} topics that patterns mean are refused", status.refused_count))
        } else if status.paused {
            (Level::Warn, "paused".to_owned())
        } else {
            (Level::Ok, "running".to_owned())
        };
        let mut values = vec![("middleware", status.middleware.clone()), ("paused", status.paused.to_string())];
        for refused in &status.refused {
            values.push(("refused topic", format!("{}: {}", refused.topic, refused.reason)));
        }
        self.task("node", level, &text, &values)
    }

    fn of_stream(&mut self, stream: &StreamReport, source: &SourceReport, now: Instant) -> Value {
        let losses = self.losses.entry(stream.name.clone()).or_default();
        let total = lost(stream, source);
        if total > losses.total {
            *losses = Losses { total, grew: Some(now) };
        }
        let lossy = losses.grew.is_some_and(|grew| now.saturating_duration_since(grew) < REMEMBERED);
        let (level, text) = judge(stream, source, lossy);
        let lane = &stream.lane;
        let mut values = vec![
            ("topic", source.topic.clone()),
            ("type", source.message_type.clone().unwrap_or_default()),
            ("publishers", source.publishers.to_string()),
            ("received", source.received.to_string()),
            ("lost in the middleware", source.lost.to_string()),
            ("dropped by the queue", lane.dropped.to_string()),
            ("refused", source.refused.saturating_add(lane.refused).to_string()),
            ("left out while paused", source.paused.to_string()),
            ("queued", lane.queued.to_string()),
            ("sealed and durable", lane.durable_packages.to_string()),
            ("announced", lane.announced_packages.to_string()),
        ];
        for faulty in &source.faulty {
            values.push(("faulty publisher", format!("{}: {}", faulty.node, faulty.reason)));
        }
        self.task(&stream.name, level, &text, &values)
    }

    fn task(&self, name: &str, level: Level, text: &str, values: &[(&str, String)]) -> Value {
        let pair = |(key, value): &(&str, String)| {
            let mut pair = Object::new();
            pair.insert("key", *key);
            pair.insert("value", plain(value));
            Value::Object(pair)
        };
        let mut task = Object::new();
        task.insert("level", level as i64);
        task.insert("name", format!("{}: {}", self.node, plain(name)));
        task.insert("message", plain(text));
        task.insert("hardware_id", self.hardware.as_str());
        task.insert("values", Value::Array(values.iter().map(pair).collect()));
        Value::Object(task)
    }
}

/// How a live stream stands, in one line.
pub(super) fn judge(stream: &StreamReport, source: &SourceReport, lossy: bool) -> (Level, String) {
    let lane = &stream.lane;
    if let Some(reason) = &lane.stopped {
        return (Level::Error, format!("stopped: {reason}"));
    }
    if source.state == SourceState::Refused {
        return (Level::Error, format!("refused: {}", source.reason.as_deref().unwrap_or("no reason is known")));
    }
    if let Some(reason) = &lane.stalled {
        return (Level::Error, format!("nothing can be stored: {reason}"));
    }
    if lossy {
        let refused = source.refused.saturating_add(lane.refused);
        let text = format!(
            "{} lost in the middleware, {} dropped by the queue, {refused} refused since the start",
            source.lost, lane.dropped
        );
        return (Level::Warn, text);
    }
    if source.faulty_count > 0 {
        return (
            Level::Warn,
            format!("nothing comes from {} of {} publishers", source.faulty_count, source.publishers),
        );
    }
    match source.state {
        SourceState::Paused => (Level::Warn, "paused".to_owned()),
        SourceState::Waiting => (Level::Ok, "waits for a publisher".to_owned()),
        SourceState::Subscribed | SourceState::Refused => (Level::Ok, "receiving".to_owned()),
    }
}

/// Everything of a stream that did not get through.
fn lost(stream: &StreamReport, source: &SourceReport) -> u64 {
    [source.lost, source.refused, stream.lane.dropped, stream.lane.refused].into_iter().fold(0, u64::saturating_add)
}

/// A text in CDR ends at its first zero.
fn plain(text: &str) -> String {
    text.replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use tributary_protocol::ids::StreamId;

    use super::*;
    use crate::{
        ingest::{cdr, definitions::Builtin, msgdef::Lookup},
        machine::{FaultyPublisher, LaneReport},
        ros2::RefusedTopic,
    };

    fn diagnostics() -> Diagnostics {
        let name = "diagnostic_msgs/msg/DiagnosticArray";
        let text = Builtin.find("diagnostic_msgs/DiagnosticArray").unwrap();
        Diagnostics::new(Plan::compile(name, &text, &Builtin).unwrap(), "/fleet/tributary", "did:peaq:0x1".to_owned())
    }

    fn stream(source: SourceReport, lane: LaneReport) -> StreamReport {
        StreamReport {
            name: "imu".to_owned(),
            stream: StreamId::from_bytes([1; 32]),
            entries: 0,
            lane,
            source: Some(source),
        }
    }

    /// Level, name, text and values of every task.
    fn read(diagnostics: &Diagnostics, message: &[u8]) -> Vec<(i64, String, String, HashMap<String, String>)> {
        let fields = cdr::decode(&diagnostics.plan, message).unwrap().fields.value;
        let text = |object: &Object, key: &str| object.get(key).unwrap().as_str().unwrap().to_owned();
        let tasks = fields.get("status").unwrap().as_array().unwrap();
        let task = |task: &Value| {
            let task = task.as_object().unwrap();
            let pairs = task.get("values").unwrap().as_array().unwrap();
            let pair = |pair: &Value| {
                let pair = pair.as_object().unwrap();
                (text(pair, "key"), text(pair, "value"))
            };
            let level = match task.get("level").unwrap() {
                Value::Number(tributary_protocol::json::Number::Int(level)) => *level,
                other => panic!("{other:?}"),
            };
            assert_eq!(text(task, "hardware_id"), "did:peaq:0x1");
            (level, text(task, "name"), text(task, "message"), pairs.iter().map(pair).collect())
        };
        tasks.iter().map(task).collect()
    }

    #[test]
    fn each_live_stream_has_a_task_with_its_counters() {
        let mut diagnostics = diagnostics();
        let source = SourceReport {
            topic: "/imu".to_owned(),
            state: SourceState::Subscribed,
            received: 70,
            ..SourceReport::default()
        };
        let lane = LaneReport { durable_packages: 60, announced_packages: 50, ..LaneReport::default() };
        let silent = StreamReport { source: None, ..stream(source.clone(), lane.clone()) };
        let status = Ros2Status { middleware: "rmw_x".to_owned(), ..Ros2Status::default() };
        let message =
            diagnostics.message(&status, &[stream(source, lane), silent], 5_000_000_007, Instant::now()).unwrap();
        let [node, imu] = &read(&diagnostics, &message)[..] else { panic!("two tasks") };
        assert_eq!((node.0, node.1.as_str(), node.2.as_str()), (0, "fleet/tributary: node", "running"));
        assert_eq!((imu.0, imu.1.as_str(), imu.2.as_str()), (0, "fleet/tributary: imu", "receiving"));
        let expected = [("received", "70"), ("sealed and durable", "60"), ("announced", "50"), ("topic", "/imu")];
        assert!(expected.iter().all(|(key, value)| imu.3[*key] == *value), "{:?}", imu.3);
    }

    #[test]
    fn a_loss_is_a_warning_for_a_while_and_a_stop_an_error() {
        let mut diagnostics = diagnostics();
        let began = Instant::now();
        let mut level = |lost: u64, dropped: u64, stopped: Option<&str>, after: u64| {
            let source = SourceReport { state: SourceState::Subscribed, lost, ..SourceReport::default() };
            let lane = LaneReport { dropped, stopped: stopped.map(str::to_owned), ..LaneReport::default() };
            let streams = [stream(source, lane)];
            let now = began + Duration::from_secs(after);
            let message = diagnostics.message(&Ros2Status::default(), &streams, 0, now).unwrap();
            read(&diagnostics, &message)[1].0
        };
        assert_eq!([level(0, 0, None, 0), level(1, 0, None, 1), level(1, 0, None, 60)], [0, 1, 1]);
        assert_eq!([level(1, 0, None, 61), level(1, 2, None, 62), level(1, 2, Some("rules"), 63)], [0, 1, 2]);
    }

    #[test]
    fn what_keeps_messages_away_is_said() {
        let judge = |source: SourceReport| judge(&stream(source.clone(), LaneReport::default()), &source, false);
        let source = |state, reason: Option<&str>, faulty_count| SourceReport {
            state,
            reason: reason.map(str::to_owned),
            faulty_count,
            publishers: 3,
            ..SourceReport::default()
        };
        assert_eq!(
            judge(source(SourceState::Refused, Some("two types"), 0)),
            (Level::Error, "refused: two types".into())
        );
        assert_eq!(
            judge(source(SourceState::Subscribed, None, 2)),
            (Level::Warn, "nothing comes from 2 of 3 publishers".into())
        );
        assert_eq!(judge(source(SourceState::Paused, None, 0)).0, Level::Warn);
        assert_eq!(judge(source(SourceState::Waiting, None, 0)), (Level::Ok, "waits for a publisher".into()));
        let mut diagnostics = diagnostics();
        let status = Ros2Status {
            refused: vec![RefusedTopic { topic: "/a".into(), reason: "zero\0inside".into() }],
            refused_count: 1,
            ..Ros2Status::default()
        };
        let faulty = FaultyPublisher { node: "/n".into(), message_type: "p/msg/T".into(), reason: "type".into() };
        let source = SourceReport { faulty: vec![faulty], faulty_count: 1, ..SourceReport::default() };
        let streams = [stream(source, LaneReport::default())];
        let message = diagnostics.message(&status, &streams, u64::MAX, Instant::now()).unwrap();
        let tasks = read(&diagnostics, &message);
        assert_eq!((tasks[0].0, tasks[0].3["refused topic"].as_str()), (1, "/a: zero inside"));
        assert_eq!((tasks[1].0, tasks[1].3["faulty publisher"].as_str()), (1, "/n: type"));
    }
}
