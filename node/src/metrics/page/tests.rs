use std::{collections::BTreeSet, time::Duration};

use tributary_protocol::ids::{Did, LogId, StreamId};

use super::*;
use crate::{
    durations::Durations,
    machine::LaneReport,
    metrics::catalog,
    service::{
        health::{HealthProblem, Part},
        status::{
            AccessStatus, DepositCounts, FollowedLogStatus, FollowedStatus, HookStatus, InboundStatus, MirrorStatus,
            MirroredStatus, OutboxStatus, PathStatus, PeerStatus, ProcessStatus, ReachStatus, Ros2Status, ServedStatus,
            SourceReport, SourceState, StoreStatus, StreamStatus, SubscriptionState, SubscriptionStatus, TrafficStatus,
            Warning, WarningCode,
        },
    },
};

const DOCS: &str = include_str!("../../../../docs/metrics.md");

fn followed(n: u8, entries: u64) -> FollowedStatus {
    let log = |log, head_age_s| FollowedLogStatus {
        log,
        incarnation: 0,
        first: 2,
        entries: entries + 2,
        announced: Some(entries + 5),
        head_age_s,
    };
    FollowedStatus {
        sources: Vec::new(),
        did: Did::from_bytes([n; 20]),
        from: "start".to_owned(),
        binding_serial: Some(0),
        stale_binding: true,
        equivocations: 1,
        proofs: Vec::new(),
        noise: 2,
        flagged: 3,
        clock_offset_s: None,
        logs: vec![log(LogId::MACHINE, Some(4)), log(LogId::from(StreamId::from_bytes([9; 32])), Some(90))],
    }
}

fn mirrored(n: u8) -> MirroredStatus {
    MirroredStatus {
        did: Did::from_bytes([n; 20]),
        followed: true,
        entries: 50,
        behind: 0,
        head_age_s: None,
        chunks_known: 40,
        bytes_known: 400,
        chunks: 30,
        bytes: 300,
        missing: 2,
        dropped: 8,
        fetched: 31,
        fetched_bytes: 310,
        deposits: 6,
        deposit_bytes: 60,
        limit_bytes: None,
        trouble: None,
    }
}

/// A node that does everything, with `names` for its streams.
fn busy(names: &[&str]) -> Snapshot {
    let lane = LaneReport { received: 7, dropped: 2, stalled: Some("full".to_owned()), ..LaneReport::default() };
    let source = SourceReport {
        received: 11,
        lost: 4,
        paused: 5,
        state: SourceState::Subscribed,
        last_ms: Some(1500),
        ..SourceReport::default()
    };
    let stream = |name: &&str| StreamStatus {
        source: Some(source.clone()),
        name: (*name).to_owned(),
        stream: StreamId::from_bytes([1; 32]),
        policy: "free".to_owned(),
        entries: 3,
        queue_limit: 1024,
        lane: lane.clone(),
    };
    let path = PathStatus {
        addr: "/ip4/192.0.2.1/tcp/1".to_owned(),
        direct: false,
        relay: Some("r".to_owned()),
        transport: "quic".to_owned(),
        inbound: true,
    };
    let peer = PeerStatus {
        peer: "p".to_owned(),
        addr: "/ip4/192.0.2.1/tcp/1".to_owned(),
        agent: String::new(),
        transport: "quic".to_owned(),
        inbound: true,
        direct: false,
        relay: Some("r".to_owned()),
        paths: vec![path.clone(), path],
        upgrade: None,
        rtt_ms: None,
        score: 0.0,
        topics: 0,
    };
    let subscription = SubscriptionStatus {
        machine: Did::from_bytes([3; 20]),
        stream: "gps".to_owned(),
        state: SubscriptionState::Live,
        reason: None,
        until_ms: None,
        chunks: 4,
        packages: 5,
        skipped: 6,
        behind: 7,
        file: None,
    };
    let warning = |code| Warning { code, message: String::new() };
    let status = NodeStatus {
        version: "1.2.3".to_owned(),
        did: Did::from_bytes([0; 20]),
        roles: Vec::new(),
        peer: String::new(),
        now_ms: 0,
        uptime_s: 0,
        listen: Vec::new(),
        links: Vec::new(),
        peers: vec![peer.clone(), peer],
        banned: Vec::new(),
        reach: ReachStatus::default(),
        inbound: InboundStatus { limit: 256, ..InboundStatus::default() },
        traffic: TrafficStatus::default(),
        incarnation: Some(0),
        binding_expires_ms: Some(5_000),
        streams: names.iter().map(stream).collect(),
        logs: Vec::new(),
        ros2: Some(Ros2Status { refused_count: 3, ..Ros2Status::default() }),
        outbox: Some(OutboxStatus { announced: 9, ..OutboxStatus::default() }),
        pending_requests: 1,
        access: AccessStatus::default(),
        hooks: HookStatus::default(),
        followed: vec![followed(1, 10)],
        mirror: Some(MirrorStatus {
            feeds: vec![mirrored(4)],
            deposits: DepositCounts { refused: 3, ..DepositCounts::default() },
            space_bytes: None,
        }),
        leaving: Vec::new(),
        subscriptions: vec![subscription],
        store: StoreStatus {
            used_bytes: 100,
            index_bytes: 10,
            chunk_bytes: 60,
            quota_bytes: Some(1),
            free_bytes: Some(2),
            ..StoreStatus::default()
        },
        served: ServedStatus::default(),
        process: ProcessStatus { cpu_s: 1.5, ..ProcessStatus::default() },
        warnings: vec![
            warning(WarningCode::LaneStalled),
            warning(WarningCode::LaneStalled),
            warning(WarningCode::HookFailed),
        ],
    };
    let took = Durations::default();
    took.record(Duration::from_millis(3));
    took.record(Duration::from_secs(100));
    let timings = Timings {
        commits: names.iter().map(|name| ((*name).to_owned(), took.report())).collect(),
        ..Timings::default()
    };
    let problem = HealthProblem { part: Part::Store, message: "full".to_owned() };
    Snapshot { status, timings, health: Health { alive: true, ready: false, problems: vec![problem] } }
}

fn has(page: &str, line: &str) {
    assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
}

#[test]
fn a_node_that_does_everything_shows_every_metric_and_nothing_else() {
    let page = write(busy(&["imu"])).expect("text");
    let shown: Vec<(&str, &str)> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let known: Vec<(&str, &str)> =
        catalog().iter().flat_map(|(_, metrics)| *metrics).map(|metric| (metric.family, metric.kind.name())).collect();
    // The name of a family of the type info has no suffix either.
    assert_eq!(shown, known);
    assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), known.len(), "a name is given twice");
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn values_and_labels_are_those_of_the_status() {
    let page = write(busy(&["imu", "/gps/\"fix\"\\\n"])).expect("text");
    for line in [
        "tributary_build_info{version=\"1.2.3\"} 1",
        "tributary_ready 0",
        "tributary_warnings{code=\"lane_stalled\"} 2",
        "tributary_warnings{code=\"hook_failed\"} 1",
        "tributary_binding_expiry_timestamp_seconds 5",
        "process_cpu_seconds_total 1.5",
        "tributary_stream_received_messages_total{stream=\"imu\"} 7",
        "tributary_stream_received_messages_total{stream=\"/gps/\\\"fix\\\"\\\\\\n\"} 7",
        "tributary_stream_dropped_messages_total{stream=\"imu\",by=\"queue\"} 2",
        "tributary_stream_dropped_messages_total{stream=\"imu\",by=\"middleware\"} 4",
        "tributary_stream_dropped_messages_total{stream=\"imu\",by=\"pause\"} 5",
        "tributary_source_received_messages_total{stream=\"imu\"} 11",
        "tributary_source_state{stream=\"imu\",state=\"subscribed\"} 1",
        "tributary_source_last_message_timestamp_seconds{stream=\"imu\"} 1.5",
        "tributary_ros2_refused_topics 3",
        "tributary_stream_stalled{stream=\"imu\"} 1",
        "tributary_stream_stopped{stream=\"imu\"} 0",
        "tributary_stream_commit_seconds_bucket{le=\"0.0025\",stream=\"imu\"} 0",
        "tributary_stream_commit_seconds_bucket{le=\"60.0\",stream=\"imu\"} 1",
        "tributary_stream_commit_seconds_bucket{le=\"+Inf\",stream=\"imu\"} 2",
        "tributary_stream_commit_seconds_count{stream=\"imu\"} 2",
        "tributary_stream_commit_seconds_sum{stream=\"imu\"} 100.003",
        "tributary_outbox_announced_entries_total 9",
        "tributary_store_bytes{kind=\"chunks\"} 60",
        "tributary_store_bytes{kind=\"index\"} 10",
        "tributary_store_bytes{kind=\"log\"} 30",
        "tributary_peers{path=\"relayed\",transport=\"quic\"} 2",
        "tributary_peers{path=\"direct\",transport=\"tcp\"} 0",
        "tributary_connections 4",
        "tributary_inbound_connections_limit 256",
        "tributary_subscriptions{state=\"live\"} 1",
        "# UNIT tributary_store_bytes bytes",
        "# UNIT process_cpu_seconds seconds",
    ] {
        has(&page, line);
    }
    let machine = Did::from_bytes([1; 20]);
    has(&page, &format!("tributary_feed_entries{{machine=\"{machine}\"}} 20"));
    has(&page, &format!("tributary_feed_missing_entries{{machine=\"{machine}\"}} 6"));
    has(&page, &format!("tributary_feed_head_age_seconds{{machine=\"{machine}\"}} 90"));
    let machine = Did::from_bytes([3; 20]);
    has(&page, &format!("tributary_subscription_behind_chunks{{machine=\"{machine}\",stream=\"gps\"}} 7"));
    let machine = Did::from_bytes([4; 20]);
    has(&page, "tributary_mirror_deposit_messages_total{result=\"refused\"} 3");
    has(&page, &format!("tributary_mirror_deposits{{machine=\"{machine}\"}} 6"));
    has(&page, &format!("tributary_mirror_bytes{{machine=\"{machine}\"}} 300"));
    has(&page, &format!("tributary_mirror_dropped_chunks_total{{machine=\"{machine}\"}} 8"));
}

#[test]
fn of_many_machines_and_subscriptions_the_first_are_named_and_the_others_added_up() {
    let mut snapshot = busy(&["imu"]);
    snapshot.status.followed = (0..=u8::MAX).map(|n| followed(n, 10)).collect();
    let one = snapshot.status.subscriptions[0].clone();
    let many = (0..1000).map(|n| SubscriptionStatus { stream: format!("s{n}"), ..one.clone() });
    snapshot.status.subscriptions = many.collect();
    let page = write(snapshot).expect("text");
    let count = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(count("tributary_feed_entries{"), MAX_NAMED + 1);
    assert_eq!(count("tributary_subscription_behind_chunks{"), MAX_NAMED + 1);
    has(&page, "tributary_feeds 256");
    has(&page, &format!("tributary_feed_entries{{machine=\"other\"}} {}", 20 * (256 - MAX_NAMED)));
    let rest = 7 * (1000 - MAX_NAMED);
    has(&page, &format!("tributary_subscription_behind_chunks{{machine=\"other\",stream=\"other\"}} {rest}"));
    assert!(page.len() < 1 << 20, "{}", page.len());
}

#[test]
fn the_documentation_says_what_there_is() {
    let mut expected = Vec::new();
    for (heading, metrics) in catalog() {
        expected.push(format!("## {heading}"));
        for metric in metrics {
            let Metric { kind, unit, help, .. } = metric;
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, labels) = (metric.name(), labels.join(", "));
            expected.push(format!("| `{name}` | {} | {unit} | {labels} | {help} |", kind.name()));
        }
    }
    let table = DOCS.lines().filter(|line| {
        line.starts_with("| `") || catalog().iter().any(|(heading, _)| *line == format!("## {heading}"))
    });
    let found: Vec<&str> = table.collect();
    let missing: Vec<&String> = expected.iter().filter(|line| !found.contains(&line.as_str())).collect();
    assert!(missing.is_empty(), "lines that docs/metrics.md lacks: {missing:#?}");
    assert_eq!(found, expected, "docs/metrics.md has these lines in another order, or more");
}
