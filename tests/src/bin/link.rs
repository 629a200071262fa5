//! `tributary-link CONDITIONS`: the link emulator of the tests as a process, see `tributary_tests::link`.
//!
//! Makes two TUN devices where it is started, prints their names, and carries packets between them. For each line that it reads it
//! prints one with its counters. It ends with its input.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test ends where something is wrong")]

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_tun::{Tun, TunBuilder};
use tributary_tests::link::{Conditions, Counted, Direction};

/// Longest packet: more than the 1,500 bytes that a device takes.
const PACKET: usize = 2048;

fn device(prefix: char) -> Tun {
    let made = TunBuilder::new().name(&format!("{prefix}{}", std::process::id())).build();
    made.unwrap_or_else(|error| panic!("a TUN device: {error}")).remove(0)
}

/// Carries packets until a device is gone.
async fn carry(from: Arc<Tun>, to: Arc<Tun>, direction: Arc<Mutex<Direction>>) -> std::io::Result<()> {
    let mut packet = [0; PACKET];
    loop {
        let due = direction.lock().unwrap().due();
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            len = from.recv(&mut packet) => direction.lock().unwrap().take(&packet[..len?], Instant::now()),
            () = wait => {
                let bytes = direction.lock().unwrap().deliver(Instant::now());
                if let Some(bytes) = bytes {
                    // Refused by a device that is not up yet, or no more: as on a cable that is not plugged in.
                    let _ = to.send(&bytes).await;
                }
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let conditions = std::env::args().nth(1).unwrap_or_default();
    let conditions: Conditions = serde_json::from_str(&conditions).expect("conditions as JSON");
    let ends = ['a', 'b'].map(|prefix| Arc::new(device(prefix)));
    println!("{}", serde_json::to_string(&ends.each_ref().map(|end| end.name())).unwrap());
    let directions = [0, 1].map(|number| Arc::new(Mutex::new(Direction::new(conditions, number))));
    for (number, direction) in directions.iter().enumerate() {
        let (from, to) = (Arc::clone(&ends[number]), Arc::clone(&ends[1 - number]));
        tokio::spawn(carry(from, to, Arc::clone(direction)));
    }
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(_)) = orders.next_line().await {
        let counted: [Counted; 2] = directions.each_ref().map(|direction| direction.lock().unwrap().counted());
        println!("{}", serde_json::to_string(&counted).unwrap());
    }
    // The thread that reads the input would keep the process.
    std::process::exit(0);
}
