//! The page of metrics of real nodes that trade.

use tributary::{control::api::NodeStatus, metrics::catalog};
use tributary_tests::{
    home::{Sandbox, stream},
    http,
    node::NodeProcess,
    openmetrics::{Page, parse},
    trade,
    wait::until,
};

/// What makes a node offer its metrics at a port of the sandbox.
pub(crate) fn offered(sandbox: &Sandbox, name: &str) -> (u16, String) {
    let port = sandbox.port(&format!("{name}-metrics"));
    (port, format!("metrics: {{ listen: '127.0.0.1:{port}', hosts: [robot.example] }}\n"))
}

/// The page of the node that offers it at `port`.
pub(crate) async fn page(port: u16) -> Page {
    let answer = http::get(port, "/metrics", &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    parse(&answer.body).unwrap_or_else(|error| panic!("{error}"))
}

/// Numbers of the page beside the same numbers of the status.
fn compared(page: &Page, status: &NodeStatus) -> Vec<(&'static str, f64, u64)> {
    let one = |name: &'static str, expected: u64| (name, page.value(name, &[]), expected);
    let with = |name: &'static str, labels: &[(&str, &str)], expected: u64| (name, page.value(name, labels), expected);
    let mut all = vec![
        one("tributary_store_used_bytes", status.store.used_bytes),
        one("tributary_store_chunks", status.store.chunks),
        one("tributary_store_entries", status.store.entries),
        one("tributary_store_rows", status.store.rows),
        one("tributary_connections", status.peers.iter().map(|peer| peer.paths.len() as u64).sum()),
        one("tributary_inbound_connections", status.inbound.established),
        one("tributary_inbound_connections_limit", status.inbound.limit.into()),
        with("tributary_peers", &[("path", "direct"), ("transport", "tcp")], status.peers.len() as u64),
        one("tributary_gossip_sent_messages_total", status.traffic.gossip.sent),
        one("tributary_gossip_arrived_messages_total", status.traffic.gossip.arrived),
        one("tributary_gossip_received_messages_total", status.traffic.gossip.received),
        one("tributary_gossip_duplicate_messages_total", status.traffic.gossip.duplicates),
        with("tributary_requests_received_total", &[("protocol", "sync")], status.traffic.sync.received),
        with("tributary_requests_received_total", &[("protocol", "access")], status.traffic.access.received),
        with(
            "tributary_requests_sent_total",
            &[("protocol", "sync"), ("result", "answered")],
            status.traffic.sync.answered,
        ),
        with("tributary_sync_served_requests_total", &[("request", "entries")], status.traffic.sync_served.entries),
        with("tributary_sync_served_requests_total", &[("request", "heads")], status.traffic.sync_served.heads),
        with("tributary_access_orders_total", &[("state", "quoted")], status.access.quoted),
        with("tributary_access_orders_total", &[("state", "granted")], status.access.granted),
        one("tributary_access_grants_total", status.access.grants),
        one("tributary_access_pending_orders", status.pending_requests),
        with("tributary_pull_server_transfers_total", &[("result", "completed")], status.served.transfers),
        one("tributary_pull_server_chunks_total", status.served.chunks),
        one("tributary_pull_server_bytes_total", status.served.bytes),
        with("tributary_pull_client_transfers_total", &[("result", "completed")], status.traffic.pulled.completed),
        one("tributary_pull_client_chunks_total", status.traffic.pulled.chunks),
        one("tributary_pull_client_bytes_total", status.traffic.pulled.bytes),
        one("tributary_feeds", status.followed.len() as u64),
    ];
    for stream in &status.streams {
        let lane = &stream.lane;
        for (name, expected) in [
            ("tributary_stream_received_messages_total", lane.received),
            ("tributary_stream_refused_messages_total", lane.refused),
            ("tributary_stream_packages_total", lane.packages),
            ("tributary_stream_durable_packages_total", lane.durable_packages),
            ("tributary_stream_announced_packages_total", lane.announced_packages),
            ("tributary_stream_input_bytes_total", lane.bytes_in),
            ("tributary_stream_chunks_total", lane.chunks),
            ("tributary_stream_sealed_bytes_total", lane.bytes_sealed),
            ("tributary_stream_datasets_total", lane.datasets),
            ("tributary_stream_log_entries", stream.entries),
            ("tributary_stream_queue_messages", lane.queued),
            ("tributary_stream_queue_limit_messages", stream.queue_limit),
        ] {
            all.push((name, page.value(name, &[("stream", &stream.name)]), expected));
        }
        let dropped = [("stream", stream.name.as_str()), ("by", "queue")];
        all.push(with("tributary_stream_dropped_messages_total", &dropped, lane.dropped));
    }
    if let Some(outbox) = status.outbox {
        all.push(one("tributary_outbox_announced_entries_total", outbox.announced));
        all.push(one("tributary_outbox_sent_entries_total", outbox.sent));
        all.push(one("tributary_outbox_unheard_entries_total", outbox.unheard));
    }
    for feed in &status.followed {
        let held: u64 = feed.logs.iter().map(|log| log.entries - log.first).sum();
        all.push(with("tributary_feed_entries", &[("machine", &feed.did.to_string())], held));
    }
    all
}

/// Takes page and status until they were taken while nothing changed; what then differs is shown.
async fn agreeing(node: &NodeProcess, port: u16) -> (Page, NodeStatus) {
    let mut differing = Vec::new();
    let found = until("page and status to agree", async || {
        let (page, status) = (page(port).await, node.status().await);
        let all = compared(&page, &status);
        let differs: Vec<_> = all
            .into_iter()
            .filter(|(_, shown, expected)| *shown != *expected as f64)
            .map(|it| format!("{it:?}"))
            .collect();
        if differs.is_empty() {
            return Some((page, status));
        }
        if differing != differs {
            println!("not yet: {differs:?}");
            differing = differs;
        }
        None
    });
    found.await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_machine_and_its_buyer_say_what_their_status_says() {
    let sandbox = Sandbox::new();
    let (machine_port, metrics) = offered(&sandbox, "machine");
    let config = tributary_tests::home::machine_config(
        sandbox.port("machine"),
        &[stream("/imu", ", chunk: { bytes: 4KiB, max_age: 100ms }"), stream("/odom", "")],
    );
    let machine = NodeProcess::start(&sandbox.home("machine", &format!("{metrics}{config}"))).await;
    let (buyer_port, metrics) = offered(&sandbox, "buyer");
    let buyer = NodeProcess::start(&sandbox.buyer("buyer", &metrics)).await;
    let before = page(machine_port).await;
    assert_eq!(before.value("tributary_stream_received_messages_total", &[("stream", "/imu")]), 0.0);
    assert_eq!(before.value("tributary_peers", &[("path", "direct"), ("transport", "tcp")]), 0.0);

    // What was there before somebody followed did not come with the feed: it has to be pulled.
    let dataset = trade::ingest(&machine, "/imu", 0, 500).await;
    trade::follow(&buyer, &machine).await;
    trade::know(&buyer, dataset).await;
    trade::buy(&buyer, dataset).await;
    // Entries of which gossip brought the news, not catching up.
    let mut first = 500;
    until("news over gossip", async || {
        let heard = page(buyer_port).await.value("tributary_feed_lag_seconds_count", &[]);
        if heard > 0.0 {
            return Some(());
        }
        trade::ingest(&machine, "/odom", first, 10).await;
        first += 10;
        None
    })
    .await;

    let (shown, status) = agreeing(&machine, machine_port).await;
    assert_eq!(shown.value("tributary_stream_received_messages_total", &[("stream", "/imu")]), 500.0);
    assert!(status.served.chunks > 3 && status.access.granted == 1 && status.access.quoted == 1, "{status:?}");
    for (name, labels) in [
        ("tributary_stream_commit_seconds_count", vec![("stream", "/imu")]),
        ("tributary_sync_answer_seconds_count", vec![]),
        ("tributary_access_answer_seconds_count", vec![]),
        ("tributary_requests_received_total", vec![("protocol", "sync")]),
        ("process_resident_memory_bytes", vec![]),
        ("process_open_fds", vec![]),
        ("process_cpu_seconds_total", vec![]),
    ] {
        assert!(shown.value(name, &labels) > 0.0, "{name}");
    }
    let completed = shown.value("tributary_pull_server_transfers_total", &[("result", "completed")]);
    assert_eq!(shown.value("tributary_pull_server_transfer_seconds_count", &[]), completed);
    assert_eq!(shown.value("tributary_ready", &[]), 1.0);
    assert!(shown.value("tributary_binding_expiry_timestamp_seconds", &[]) > 1.7e9);
    let kinds = ["chunks", "index", "log"].map(|kind| shown.value("tributary_store_bytes", &[("kind", kind)]));
    assert_eq!(kinds.iter().sum::<f64>(), shown.value("tributary_store_used_bytes", &[]));

    let (bought, status) = agreeing(&buyer, buyer_port).await;
    assert_eq!(status.streams.len(), 0, "a buyer has no streams");
    assert_eq!(
        bought.value("tributary_pull_client_chunks_total", &[]),
        shown.value("tributary_pull_server_chunks_total", &[])
    );
    assert_eq!(
        bought.value("tributary_pull_client_bytes_total", &[]),
        shown.value("tributary_pull_server_bytes_total", &[])
    );
    for (name, labels) in [
        ("tributary_request_seconds_count", vec![("protocol", "sync")]),
        ("tributary_request_seconds_count", vec![("protocol", "access")]),
        ("tributary_pull_client_transfer_seconds_count", vec![]),
        ("tributary_gossip_validation_seconds_count", vec![]),
        ("tributary_gossip_arrived_bytes_total", vec![]),
    ] {
        assert!(bought.value(name, &labels) > 0.0, "{name}");
    }

    // Everything on the pages is in the catalog, with its type and its labels. A node of one role lacks the other's.
    let known: Vec<_> = catalog().into_iter().flat_map(|(_, metrics)| metrics).collect();
    for page in [&shown, &bought] {
        for (family, told) in &page.families {
            let metric = known.iter().find(|metric| metric.family == family).unwrap_or_else(|| panic!("{family}"));
            assert_eq!(told.kind, metric.kind.name(), "{family}");
            let unit = if matches!(metric.unit, "seconds" | "bytes") { metric.unit } else { "" };
            assert_eq!(told.unit, unit, "{family}");
            for sample in page.samples.iter().filter(|sample| metric.series().contains(&sample.name)) {
                let mut labels: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
                labels.retain(|label| !(*label == "le" && sample.name.ends_with("_bucket")));
                let mut expected = metric.labels.to_vec();
                expected.sort_unstable();
                assert_eq!(labels, expected, "{}", sample.name);
            }
        }
        let names: Vec<String> = known.iter().flat_map(|metric| metric.series()).collect();
        assert!(page.samples.iter().all(|sample| names.contains(&sample.name)));
    }
    // Neither peers nor buyers are labels.
    let strangers = [status.did.to_string(), status.peer.clone(), machine.status().await.peer];
    let values = [&shown, &bought].into_iter().flat_map(|page| &page.samples).flat_map(|sample| sample.labels.values());
    assert!(values.into_iter().all(|value| !strangers.contains(value)));
}

#[tokio::test]
async fn foreign_hosts_and_web_pages_are_refused_and_the_paths_are_named() {
    let sandbox = Sandbox::new();
    let (port, metrics) = offered(&sandbox, "buyer");
    let _node = NodeProcess::start(&sandbox.buyer("buyer", &metrics)).await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        for host in ["robot.example", "localhost"] {
            let host = format!("{host}:{port}");
            assert_eq!(http::get(port, path, &[("Host", &host)]).await.status, 200, "{path} {host}");
        }
        for host in ["evil.example", "127.0.0.1", ""] {
            let refused = http::get(port, path, &[("Host", host)]).await;
            assert_eq!(refused.status, 421, "{path} {host}: {refused:?}");
            assert!(refused.body.contains("metrics.hosts"), "{refused:?}");
        }
        let page = http::get(port, path, &[("Origin", "https://evil.example")]).await;
        assert_eq!(page.status, 403, "{page:?}");
    }
    let lost = http::get(port, "/", &[]).await;
    assert_eq!((lost.status, lost.body.as_str()), (404, "there are /metrics, /healthz and /readyz\n"));
    let json = http::get(port, "/readyz", &[("Accept", "application/json")]).await;
    let said: serde_json::Value = serde_json::from_str(&json.body).unwrap();
    assert_eq!(said, serde_json::json!({ "alive": true, "ready": true, "problems": [] }));
    assert_eq!(http::get(port, "/healthz", &[]).await.body, "alive\n");
}

#[tokio::test]
async fn metrics_are_off_by_default_and_a_taken_address_is_named() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("metrics");
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let home = sandbox.buyer("buyer", &format!("metrics: {{ listen: '127.0.0.1:{port}' }}\n"));
    let status = NodeProcess::try_start(&home).await.err().expect("the address is taken");
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(home.with_extension("log")).unwrap();
    assert!(log.contains("for metrics") && log.contains("set `metrics.listen` to a free address"), "{log}");
    drop(taken);
    let without = sandbox.buyer("without", "");
    let _node = NodeProcess::start(&without).await;
    assert!(http::try_get(port, "/metrics", &[]).await.is_err(), "somebody listens");
}
