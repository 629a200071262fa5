//! Streams that patterns make, and streams that a live source feeds.

use std::sync::mpsc::sync_channel;

use super::*;
use crate::{
    ingest::{Content, Fields, SourceMessage},
    machine::{
        IngestSummary, Offered, Room,
        tests::{Bench, Made, Open},
    },
};

const PATTERNS: &str = "
roles: [machine]
streams:
  - {topic: '/camera/*', mode: fields, default: exclude, retention: {bytes: 1MiB}}
  - {topic: /camera/left, alias: left, mode: fields, default: include}
  - {topic: '/**', mode: fields, default: include}
";

fn message(topic: &str) -> SourceMessage {
    let mut fields = Fields::default();
    fields.value.insert("x", 1i64);
    let content = Content::Fields(fields);
    SourceMessage { topic: topic.into(), type_name: "p/msg/T".into(), log_time_ns: 1, publish_time_ns: 1, content }
}

fn ingest(open: &Open, topics: &[&str]) -> IngestSummary {
    let messages: Vec<_> = topics.iter().map(|topic| message(topic)).collect();
    open.machine.ingest(&mut Made(messages.into_iter()), |_| {}).expect("read")
}

fn open(bench: &Bench, map: &str) -> Open {
    bench.try_open(map).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_topic_that_a_pattern_means_gets_a_stream_of_its_own_and_keeps_it() {
    let bench = Bench::new();
    let machine = open(&bench, PATTERNS);
    assert_eq!(machine.machine.stream_names(), ["left"], "patterns are no streams");
    let summary = ingest(&machine, &["/camera/right", "/camera/left", "/imu", "/camera/right"]);
    assert!(summary.is_clean(), "{summary:?}");
    assert_eq!(machine.machine.stream_names(), ["left", "/camera/right", "/imu"]);
    let default = |name: &str| {
        let id = machine.machine.stream_id(name).expect("runs");
        machine.machine.stream_config(&id).expect("runs").retention.bytes
    };
    assert_eq!([default("/camera/right"), default("left"), default("/imu")], [Some(1 << 20), None, None]);
    assert_eq!(machine.machine.close_datasets(None).expect("closed").len(), 3);
    machine.end();

    // Its data can be granted again before the topic is met again.
    let machine = open(&bench, PATTERNS);
    assert_eq!(machine.machine.stream_names(), ["left", "/camera/right", "/imu"]);
    machine.end();
    let known = |map: &str| {
        let machine = open(&bench, map);
        let names = machine.machine.stream_names();
        machine.end();
        names
    };
    assert_eq!(known("roles: [machine]\nstreams:\n  - {topic: '/i*', mode: raw}\n"), ["/imu"]);
    let named = "roles: [machine]\nstreams:\n  - {topic: '/i*', mode: raw}\n  - {topic: /imu, alias: i, mode: raw}\n";
    assert_eq!(known(named), ["i"]);
}

#[test]
fn a_topic_without_a_place_is_refused_by_name_and_the_others_go_on() {
    let bench = Bench::new();
    let map = "roles: [machine]\nstreams:\n  - {topic: /a, alias: /b, mode: fields, default: include}\n  - {topic: '/**', mode: fields, default: include}\n";
    let machine = open(&bench, map);
    let long = format!("/{}", "x".repeat(256));
    let topics: Vec<String> = (0..MAX_STREAMS).map(|i| format!("/t{i:03}")).collect();
    let mut all: Vec<&str> = vec!["/b", "/c\n", &long, "/a"];
    all.extend(topics.iter().map(String::as_str));
    let summary = ingest(&machine, &all);
    let trouble = |topic: &str| summary.topics[topic].trouble.clone().unwrap_or_default();
    assert!(trouble("/b").contains("the stream of the topic /a is published under that name"), "{}", trouble("/b"));
    assert!(trouble("/c\n").contains("control characters"), "{}", trouble("/c\n"));
    assert!(trouble(&long).contains("at most 256 bytes"), "{}", trouble(&long));
    assert!(trouble("/t149").contains("there are 150 streams already"), "{}", trouble("/t149"));
    assert_eq!(summary.messages(), 150, "the one that is named, and 149 of the pattern");
    assert_eq!(machine.machine.stream_names().len(), MAX_STREAMS);
    machine.end();
}

#[test]
fn after_the_end_no_stream_begins() {
    let bench = Bench::new();
    let machine = open(&bench, PATTERNS);
    machine.machine.shutdown().expect("ends");
    let error = machine.machine.live_stream("/late").err().expect("refused");
    assert!(error.to_string().contains("shutting down"), "{error}");
    let Open { machine, store, .. } = machine;
    drop(machine);
    store.close().expect("closes");
}

#[test]
fn what_is_offered_comes_back_until_there_is_room_and_nothing_is_lost() {
    let bench = Bench::new();
    let map = "roles: [machine]\nstreams:\n  - {topic: /a, mode: fields, default: include, queue: {messages: 4}}\n";
    let machine = open(&bench, map);
    let stream = machine.machine.live_stream("/a").expect("runs").expect("configured");
    assert!(machine.machine.live_stream("/b").expect("read").is_none());
    let (called, heard) = sync_channel(10_000);
    let room: Room = Arc::new(move || called.send(()).expect("heard"));
    stream.go_live(room).expect("live");
    let (mut came_back, mut waits) = (0, Some(message("/a")));
    for _ in 0..5000 {
        while let Some(message) = waits.take() {
            if let Offered::Full(message) = stream.offer(message).expect("runs") {
                came_back += 1;
                waits = Some(message);
                heard.recv().expect("room");
            }
        }
        waits = Some(message("/a"));
    }
    assert!(came_back > 0, "the queue was full, or no number was ready");
    machine.machine.close_datasets(None).expect("closed");
    let lane = machine.machine.report().expect("read")[0].lane.clone();
    let counted = (lane.received, lane.dropped, lane.refused, lane.durable_packages, lane.announced_packages);
    assert_eq!(counted, (5000, 0, 0, 5000, 5000));
    machine.machine.shutdown().expect("ends");
    assert!(stream.offer(message("/a")).is_err());
    assert_eq!(machine.machine.report().expect("read")[0].lane.refused, 1);
    let Open { machine, store, .. } = machine;
    drop((machine, stream));
    store.close().expect("closes");
}

#[test]
fn a_stream_that_may_drop_takes_every_offer_and_counts_what_it_drops() {
    let bench = Bench::new();
    let queue = "queue: {messages: 2, overflow: drop_oldest}";
    let map = format!("roles: [machine]\nstreams:\n  - {{topic: /a, mode: fields, default: include, {queue}}}\n");
    let machine = open(&bench, &map);
    let stream = machine.machine.live_stream("/a").expect("runs").expect("configured");
    stream.go_live(Arc::new(|| {})).expect("live");
    for _ in 0..5000 {
        assert!(matches!(stream.offer(message("/a")).expect("runs"), Offered::Taken));
    }
    stream.count_dropped(1);
    machine.machine.close_datasets(None).expect("closed");
    let lane = machine.machine.report().expect("read")[0].lane.clone();
    assert_eq!((lane.received, lane.durable_packages + lane.dropped), (5001, 5001));
    assert!(lane.dropped > 0);
    drop(stream);
    machine.end();
}
