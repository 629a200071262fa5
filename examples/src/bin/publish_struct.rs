//! A machine that publishes a struct of its own.
//!
//! ```sh
//! cargo run -p tributary-examples --bin publish_struct -- /tmp/thermometer
//! ```
//!
//! Prints the link to its feed, for `follow_callback`, and publishes a reading every 100 ms until Ctrl-C.

#![expect(clippy::print_stdout, reason = "this is a command")]

use std::{error::Error, time::Duration};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tributary::Node;

/// What this machine measures. Any type that serde makes a JSON object of can be published.
#[derive(Serialize)]
struct Reading {
    number: u64,
    celsius: f64,
    /// A rule keeps this back: it never leaves the machine.
    location: &'static str,
}

const CONFIG: &str = "
roles: [machine]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
streams:
  - topic: /temperature
    mode: fields
    default: include
    rules: [{ path: location, action: exclude }]
    chunk: { max_age: 200ms }
    access: { policy: free }
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let home = std::env::args().nth(1).ok_or("usage: publish_struct HOME")?;
    let node = Node::builder(home).config(CONFIG).create_home().start().await?;
    let temperature = node.publisher::<Reading>("/temperature")?;
    println!("{}", node.links().await?.first().ok_or("the node has no address")?);

    let mut timer = tokio::time::interval(Duration::from_millis(100));
    for number in 0.. {
        tokio::select! {
            _ = timer.tick() => {}
            _ = interrupt.recv() => break,
        }
        let celsius = 20.0 + (number as f64 / 10.0).sin();
        temperature.publish(&Reading { number, celsius, location: "hall 3" }).await?;
    }
    // Everything that was handed over is sealed, stored and announced before this returns.
    node.shutdown().await?;
    Ok(())
}
