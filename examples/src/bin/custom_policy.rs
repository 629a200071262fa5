//! A machine that decides by itself who gets its data: here, whoever stands in a file of customers when he asks.
//!
//! ```sh
//! cargo run -p tributary-examples --bin custom_policy -- /tmp/lidar customers.txt
//! ```
//!
//! Prints the link to its feed and publishes a scan every 100 ms until Ctrl-C. The file has a peaqID on each line and may change at any time. A
//! subscription asks again for every range, so who is struck off gets no more keys when the range he has is over.

#![expect(clippy::print_stdout, reason = "this is a command")]

use std::{error::Error, fs, path::PathBuf, time::Duration};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tributary::{AccessPolicy, AccessQuestion, Node, PolicyDecision};

// The policy is asked about what would otherwise wait for the operator: `manual`.
const CONFIG: &str = "
roles: [machine]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
streams:
  - { topic: /scan, mode: fields, default: include, chunk: { max_age: 200ms }, access: { policy: manual, live: 15m } }
";

struct Customers {
    file: PathBuf,
}

impl AccessPolicy for Customers {
    fn decide(&self, question: &AccessQuestion<'_>) -> PolicyDecision {
        // What cannot be decided now waits for the operator: `tributary access ls`.
        let Ok(customers) = fs::read_to_string(&self.file) else { return PolicyDecision::Wait };
        let buyer = question.buyer.to_string();
        if customers.lines().any(|line| line.trim() == buyer) {
            return PolicyDecision::Grant;
        }
        PolicyDecision::Deny(format!("{} is for customers", question.streams.join(", ")))
    }
}

#[derive(Serialize)]
struct Scan {
    number: u64,
    ranges: [f32; 4],
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, file] = arguments.as_slice() else { return Err("usage: custom_policy HOME CUSTOMERS".into()) };
    let policy = Customers { file: file.into() };
    let node = Node::builder(home).config(CONFIG).create_home().access_policy(policy).start().await?;
    let scans = node.publisher::<Scan>("/scan")?;
    println!("{}", node.links().await?.first().ok_or("the node has no address")?);

    let mut timer = tokio::time::interval(Duration::from_millis(100));
    for number in 0.. {
        tokio::select! {
            _ = timer.tick() => {}
            _ = interrupt.recv() => break,
        }
        scans.publish(&Scan { number, ranges: [1.5, 2.0, 2.5, f32::MAX] }).await?;
    }
    node.shutdown().await?;
    Ok(())
}
