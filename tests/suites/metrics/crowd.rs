//! Connections that say nothing, and scrapes that get through.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tributary_tests::{
    home::Sandbox,
    http,
    node::NodeProcess,
    wait::{soon, until},
};

use crate::scrape::{offered, page};

const IDLE: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_do_not_stop_a_scrape() {
    // This process holds all of them; the node does not.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let sandbox = Sandbox::new();
    let (port, metrics) = offered(&sandbox, "buyer");
    let node = NodeProcess::start(&sandbox.buyer("buyer", &metrics)).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(soon("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap());
    }
    let shown = page(port).await;
    assert_eq!(http::get(port, "/readyz", &[]).await.status, 200);
    // All but the last gave way: the node never had files open for more than its places.
    let closed = until("idle connections to be closed", async || {
        let mut closed = 0;
        for stream in &mut idle {
            let mut byte = [0];
            let read = tokio::time::timeout(std::time::Duration::ZERO, stream.read(&mut byte)).await;
            closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
        }
        (closed >= IDLE - 64).then_some(closed)
    })
    .await;
    assert!(closed <= IDLE);
    assert!(shown.value("process_open_fds", &[]) < 300.0, "{}", shown.value("process_open_fds", &[]));
    assert_eq!(node.status().await.warnings, []);
}
