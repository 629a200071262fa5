//! A buyer that follows a feed into a callback.
//!
//! ```sh
//! cargo run -p tributary-examples --bin follow_callback -- /tmp/buyer 'tributary://did:peaq:0x…' /temperature 10
//! ```
//!
//! Prints each package's fields as a line, and ends after as many as it is told. Started again, it goes on with the next one: how many it has
//! dealt with stands in the file `done` in its home. A machine that refuses it ends it with an error.

#![expect(clippy::print_stdout, reason = "this is a command")]

use std::{error::Error, fs, ops::ControlFlow, path::Path};

use serde_json::Value;
use tributary::{FeedLink, Node, Package};

const CONFIG: &str = "
roles: [buyer]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, link, stream, count] = arguments.as_slice() else {
        return Err("usage: follow_callback HOME LINK STREAM COUNT".into());
    };
    let (link, count): (FeedLink, u64) = (link.parse()?, count.parse()?);
    let node = Node::builder(home).config(CONFIG).create_home().start().await?;

    let done = Path::new(home).join("done");
    let before: u64 = fs::read_to_string(&done).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut packages = node.packages(&link, stream).await?.skip(before);
    let callback = |package: Package| match handle(&package, &done) {
        Err(error) => ControlFlow::Break(Err(error)),
        Ok(()) if package.index + 1 >= before + count => ControlFlow::Break(Ok(())),
        Ok(()) => ControlFlow::Continue(()),
    };
    let ended = packages.for_each(callback).await;
    node.shutdown().await?;
    ended?
}

/// Deals with one package, and notes that it did.
fn handle(package: &Package, done: &Path) -> Result<(), Box<dyn Error>> {
    let message: Value = package.message()?;
    println!("{message}");
    fs::write(done, (package.index + 1).to_string())?;
    Ok(())
}
