//! A link that takes its time and loses packets, between two hosts of a test.
//!
//! Kernels without `netem` have no delay to offer. So a program of ours, `tributary-link`, stands between two TUN devices, one in
//! each host, and carries packets from one to the other as a [`Direction`] tells. It runs in the namespace of the test's world and
//! ends with the [`Link`], and the devices with it. What it did to packets is counted: a test asserts that its fault happened.

mod direction;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

pub use direction::Direction;
use serde::{Deserialize, Serialize};

use crate::{cleanup, namespace::Namespace, node::program_named};

/// What a link does to packets, the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// How long a packet is on the way at least, ms.
    pub delay_ms: u32,
    /// Up to so much longer, at random, ms. Packets keep their order.
    pub jitter_ms: u32,
    /// How many of a thousand packets are lost, at random.
    pub loss_per_mille: u32,
    /// Packets that may be on the way; those that come then are dropped.
    pub queue: usize,
    /// What chance begins with: the same packets with the same seed are lost.
    pub seed: u64,
}

/// What became of the packets of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Packets that were sent into the link.
    pub taken: u64,
    /// Of those, lost by chance.
    pub lost: u64,
    /// Of those, dropped because too many were on the way.
    pub overflowed: u64,
    /// Of those, delivered.
    pub delivered: u64,
    /// The shortest time that a delivered packet was on the way, microseconds; 0 before the first.
    pub shortest_us: u64,
    /// All of them together.
    pub total_us: u64,
}

/// A running link; it ends when it is dropped.
pub struct Link {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    devices: [String; 2],
}

impl Link {
    /// Starts the emulator in a namespace, with both devices there.
    pub(crate) fn start(namespace: &Namespace, conditions: Conditions) -> Result<Self, String> {
        let mut command = namespace.command(program_named("tributary-link"));
        command.arg(serde_json::to_string(&conditions).unwrap());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        cleanup::child(child.id());
        let (orders, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut line = String::new();
        answers.read_line(&mut line).map_err(|error| error.to_string())?;
        let Ok(devices) = serde_json::from_str(&line) else {
            drop(orders);
            let pid = child.id();
            let output = child.wait_with_output().unwrap();
            cleanup::ended(pid);
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        };
        Ok(Self { child, orders, answers, devices })
    }

    /// The names that its devices have at first.
    pub(crate) fn devices(&self) -> [String; 2] {
        self.devices.clone()
    }

    /// What became of the packets so far: of those from the first host, and of those from the second.
    ///
    /// # Panics
    ///
    /// When the emulator has ended.
    pub fn counted(&mut self) -> [Counted; 2] {
        self.orders.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the link emulator has ended: {error}"))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        cleanup::ended(self.child.id());
    }
}
