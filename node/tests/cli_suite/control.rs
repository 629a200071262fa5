//! The control socket as a careless or hostile client meets it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::{Value, json};
use tributary::control::{
    ClientError, ControlClient,
    api::{Code, Empty, Event, NodeStatus, Problem},
};

use crate::support::Home;

/// Sends bytes as they are, and returns what comes back until the server ends the connection.
fn raw(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("connects");
    // A server that has seen enough may close before everything is written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(socket: &Path, route: &str, body: &str) -> (u16, Value) {
    let head = format!(
        "POST {route} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = raw(socket, [head.as_bytes(), body.as_bytes()].concat().as_slice());
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let document = body.find('{').and_then(|at| body.rfind('}').map(|end| &body[at..=end])).unwrap_or("null");
    (status, serde_json::from_str(document).unwrap_or(Value::Null))
}

#[test]
fn malformed_requests_get_a_problem_and_the_node_goes_on() {
    let machine = Home::machine();
    let node = machine.start();
    let socket = machine.socket();
    for (route, body, status) in [
        ("/v1/ingest", "", 400),
        ("/v1/ingest", "{", 400),
        ("/v1/ingest", "\"x\"", 422),
        ("/v1/ingest", r#"{"path":7}"#, 422),
        ("/v1/ingest", r#"{"no_such_key":1}"#, 422),
        ("/v1/publish", r#"{"path":"/x"}"#, 422),
        ("/v1/grant", r#"{"buyer":"me","key":"00","selection":{}}"#, 422),
        ("/v1/access/approve", r#"{"request":null}"#, 422),
        ("/v1/nothing", "{}", 404),
        ("/v2/status", "{}", 404),
        ("/v1/status", "{}", 405),
        ("/v1/access/approve", r#"{"request":"%00../.."}"#, 404),
    ] {
        let (found, problem) = post(&socket, route, body);
        assert_eq!(found, status, "{route} {body}: {problem}");
        assert!(problem["code"].is_string() && problem["message"].is_string(), "{route} {body}: {problem}");
    }
    // No type, and too much.
    let answer =
        raw(&socket, b"POST /v1/ingest HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
    assert!(answer.contains(" 415 ") && answer.contains("no JSON document"), "{answer}");
    let (status, problem) =
        post(&socket, "/v1/publish", &format!(r#"{{"path":"{}","stream":"x"}}"#, "x".repeat(2 << 20)));
    assert!(status == 413 && problem["code"] == "usage", "{status} {problem}");
    // Not HTTP at all, and a connection that says nothing.
    raw(&socket, b"\x00\xff\x13\x37 hello\r\n\r\n");
    drop(UnixStream::connect(&socket).expect("connects"));
    raw(&socket, &[b'A'; 1 << 20]);
    // Lines without the line that explains them.
    for body in ["", "\n", "not json\n{}\n", "{\"streams\":7}\n"] {
        let (status, problem) = post(&socket, "/v1/ingest/lines", body);
        assert!(status == 400 && problem["code"] == "usage", "{body:?}: {status} {problem}");
    }
    assert_eq!(machine.json(&["status"])["did"], node.ready["did"]);
    node.stop();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn the_client_tells_problems_from_a_node_that_is_not_there() {
    let machine = Home::machine();
    let client = ControlClient::new(machine.socket());
    runtime().block_on(async {
        assert!(!client.is_running().await.expect("answers"));
        let missing = client.get::<NodeStatus>("/v1/status").await.expect_err("nobody is there");
        assert!(matches!(missing, ClientError::NotRunning { .. }), "{missing}");
    });
    let node = machine.start();
    runtime().block_on(async {
        assert!(client.is_running().await.expect("answers"));
        let status: NodeStatus = client.get("/v1/status").await.expect("answers");
        assert_eq!(Value::from(status.did.to_string()), node.ready["did"]);
        let problem = client.post::<Empty>("/v1/nothing", &json!({})).await.expect_err("no such route");
        assert!(matches!(problem, ClientError::Problem(Problem { code: Code::NotFound, .. })), "{problem}");
        let request = json!({ "path": "/nowhere/x.mcap" });
        let problem = client.run::<Value, Value>("/v1/ingest", &request, |_| {}).await.expect_err("no such file");
        assert!(matches!(problem, ClientError::Problem(Problem { code: Code::NotFound, .. })), "{problem}");
        let links: Vec<String> = client.get("/v1/links").await.expect("answers");
        assert_eq!(links[0], node.link());
        assert_eq!(client.get::<Value>("/v1/streams").await.expect("answers")[0]["name"], "/imu");
        assert_eq!(client.get::<Value>("/v1/datasets").await.expect("answers"), json!([]));
        // The last request ends the node.
        client.post::<Empty>("/v1/shutdown", &json!({})).await.expect("answers");
    });
    assert_eq!(node.wait().0, Some(0));
}

#[test]
fn events_have_one_form() {
    let progress: Event<Value, Value> =
        serde_json::from_str(r#"{"event":"progress","data":{"messages":1}}"#).expect("read");
    assert_eq!(progress, Event::Progress(json!({ "messages": 1 })));
    let text = r#"{"event":"problem","data":{"code":"access_denied","message":"no"}}"#;
    let problem: Event<Value, Value> = serde_json::from_str(text).expect("read");
    assert_eq!(serde_json::to_string(&problem).expect("written"), text);
}
