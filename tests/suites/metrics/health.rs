//! Readiness that tells the truth: real faults, and the end of them.

use std::io::Write as _;

use serde_json::Value;
use tributary::control::{
    ClientError,
    api::{BytesProgress, GcRequest, GcResult, IngestProgress, IngestRequest, IngestResult, PublishRequest, Published},
};
use tributary_tests::{
    home::{Sandbox, head},
    http, lines,
    node::{NodeProcess, command},
    wait::{soon, until},
};

use crate::scrape::{offered, page};

/// The parts that `/readyz` complains about; `None` when it is ready.
async fn complaints(port: u16) -> Option<Vec<(String, String)>> {
    let answer = http::get(port, "/readyz", &[("Accept", "application/json")]).await;
    let health: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(health["ready"].as_bool().unwrap(), answer.status == 200, "{answer:?}");
    let problems = health["problems"].as_array().unwrap();
    let texts = |problem: &Value| ["part", "message"].map(|key| problem[key].as_str().unwrap().to_owned()).into();
    (answer.status != 200).then(|| problems.iter().map(texts).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_not_ready_until_there_is_room_again() {
    let sandbox = Sandbox::new();
    let (port, metrics) = offered(&sandbox, "machine");
    let config = head("machine", sandbox.port("machine"), "")
        .replace("store: { ballast: none }", "store: { quota: 256MiB, ballast: 96MiB, retention: { bytes: 16MiB } }");
    let streams = "streams:\n  - { topic: rec, mode: file, access: { policy: free }, chunk: { bytes: 1MiB } }\n";
    let home = sandbox.home("machine", &format!("{metrics}{config}{streams}"));
    let node = NodeProcess::start(&home).await;
    assert_eq!(complaints(port).await, None);
    let healthy = command(&home, &["health"]).await;
    assert_eq!((healthy.code, healthy.stdout.as_str()), (Some(0), "ready\n"), "{healthy:?}");

    // More than fits: what remains of the quota beside the ballast.
    let input = sandbox.path().join("input");
    let mut file = std::fs::File::create(&input).unwrap();
    for part in 0..200_u32 {
        file.write_all(&part.to_be_bytes().repeat(1 << 18)).unwrap();
    }
    drop(file);
    let client = node.client().clone();
    let job = tokio::spawn(async move {
        let request = PublishRequest { path: input, stream: "rec".to_owned() };
        client.run::<_, Published>("/v1/publish", &request, |_: BytesProgress| {}).await
    });
    let found = until("the store to be full", async || {
        let found = complaints(port).await?;
        // The stream's own word comes when its batch was refused.
        found.iter().any(|(part, _)| part == "ingest").then_some(found)
    })
    .await;
    assert!(
        found.iter().any(|(_, message)| message.starts_with("stream rec waits: ") && message.contains("quota")),
        "{found:?}"
    );
    assert!(!job.is_finished(), "it waits for room");
    // The page, the health on the control socket and the command say the same, while the file is held up.
    let shown = until("a page of the full store", async || {
        let shown = page(port).await;
        (shown.value("tributary_ready", &[]) == 0.0).then_some(shown)
    })
    .await;
    assert_eq!(shown.value("tributary_stream_stalled", &[("stream", "rec")]), 1.0);
    assert_eq!(shown.value("tributary_warnings", &[("code", "lane_stalled")]), 1.0);
    let sick = command(&home, &["health"]).await;
    assert_eq!(sick.code, Some(1), "{sick:?}");
    assert!(sick.stdout.starts_with("not ready\n") && sick.stdout.contains("stream rec waits"), "{sick:?}");
    let alive = command(&home, &["health", "--alive"]).await;
    assert_eq!(alive.code, Some(0), "{alive:?}");
    assert_eq!(http::get(port, "/healthz", &[]).await.status, 200, "a restart would not help");

    let collected: GcResult = soon("gc", node.client().post("/v1/store/gc", &GcRequest::default())).await.unwrap();
    assert!(collected.expired_chunks > 0, "{collected:?}");
    soon("the rest of the file", job).await.unwrap().unwrap();
    until("the node to be ready again", async || complaints(port).await.is_none().then_some(())).await;
    let healthy = command(&home, &["health", "--json"]).await;
    assert_eq!(healthy.json()["ready"], true);
    node.stop().await;
    let gone = command(&home, &["health"]).await;
    assert!(gone.code == Some(1) && gone.stderr.contains("no node is running"), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_stream_is_not_ready_until_the_node_is_started_again() {
    let sandbox = Sandbox::new();
    let (port, metrics) = offered(&sandbox, "machine");
    let rules = "rules: [{ path: serial, action: exclude }]";
    let streams = format!(
        "streams:\n  - {{ topic: /imu, mode: fields, default: include, {rules}, access: {{ policy: free }} }}\n"
    );
    let config = head("machine", sandbox.port("machine"), "");
    let home = sandbox.home("machine", &format!("{metrics}{config}{streams}"));
    let mut node = NodeProcess::start(&home).await;
    assert_eq!(complaints(port).await, None);

    // The messages lack the field that must not leave.
    let path = lines::file(sandbox.path(), "/imu", 0, 5);
    let request = IngestRequest { path: Some(path), ..lines::by_topic() };
    let run = node.client().run::<_, IngestResult>("/v1/ingest", &request, |_: IngestProgress| {});
    let _: Result<IngestResult, ClientError> = soon("ingest", run).await;
    let found = until("the stream to stop", async || complaints(port).await).await;
    let [(part, message)] = found.as_slice() else { panic!("{found:?}") };
    assert!(
        part == "ingest" && message.starts_with("stream /imu has stopped: ") && message.contains("serial"),
        "{found:?}"
    );
    let shown = until("a page of the stopped stream", async || {
        let shown = page(port).await;
        (shown.value("tributary_ready", &[]) == 0.0).then_some(shown)
    })
    .await;
    assert_eq!(shown.value("tributary_stream_stopped", &[("stream", "/imu")]), 1.0);
    let text = http::get(port, "/readyz", &[]).await;
    assert!(text.status == 503 && text.body.starts_with("not ready\ningest: stream /imu has stopped"), "{text:?}");
    assert_eq!(http::get(port, "/healthz", &[]).await.status, 200);
    node.kill();
    let _node = NodeProcess::start(&home).await;
    assert_eq!(complaints(port).await, None);
}
