//! A testnet's status as a table, and as a screen that is drawn again and again.
//!
//! Plain text and two escape sequences: a node runs on robots, and a terminal library would be a quarter more code in it for one screen.

use std::fmt::Write as _;

use super::{
    Phase,
    status::{NetStatus, NodeLife, NodeLine},
};

/// Clears the screen and goes to its upper left corner (ECMA-48: ED, CUP).
pub const CLEAR: &str = "\x1b[2J\x1b[H";

const HEADER: [&str; 13] =
    ["NODE", "STATE", "UP", "PEERS", "FEEDS", "CHUNKS", "/S", "LAG", "GRANTS", "PACKAGES", "DISK", "MEMORY", "CPU"];

/// The status as text, a line for each node.
#[must_use]
pub fn render(status: &NetStatus) -> String {
    let mut rows: Vec<[String; 13]> = vec![HEADER.map(str::to_owned)];
    rows.extend(status.nodes.iter().map(row));
    let widths: Vec<usize> =
        (0..HEADER.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let running = status.nodes.iter().filter(|node| node.life == NodeLife::Running).count();
    let phase = match status.phase {
        Phase::Starting => ", being brought up",
        Phase::Up => "",
        Phase::Ending => ", being taken down",
    };
    let fed = if status.fed { "fed" } else { "NOT FED (tributary testnet restart feeder)" };
    let mut text =
        format!("testnet {}: {running} of {} nodes run{phase}, {fed}\n", status.dir.display(), status.nodes.len());
    if !status.partition.is_empty() {
        let groups: Vec<String> = status.partition.iter().map(|group| group.join(",")).collect();
        let dropped: u64 = status.dropped.values().sum();
        let _ = writeln!(text, "partition {}: {dropped} packets dropped", groups.join(" | "));
    }
    text.push('\n');
    for row in &rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Words to the left, numbers to the right.
            let _ = if at < 2 { write!(line, "{cell:width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for node in &status.nodes {
        for warning in &node.warnings {
            // Every home here has its owner's key in it.
            if !warning.contains("owner") {
                let _ = writeln!(text, "\n{}: {warning}", node.name);
            }
        }
    }
    text
}

fn row(node: &NodeLine) -> [String; 13] {
    if node.life != NodeLife::Running {
        let mut row: [String; 13] = std::array::from_fn(|_| "-".to_owned());
        (row[0], row[1]) = (node.name.clone(), node.life.name().to_owned());
        return row;
    }
    [
        node.name.clone(),
        node.life.name().to_owned(),
        crate::config::show_duration(std::time::Duration::from_secs(node.uptime_s)),
        node.peers.to_string(),
        node.feeds.to_string(),
        node.chunks.to_string(),
        format!("{:.1}", node.chunks_per_second),
        node.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
        node.grants.to_string(),
        node.packages.to_string(),
        size(node.disk_bytes),
        size(node.memory_bytes),
        format!("{:.1}s", node.cpu_s),
    ]
}

fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use tributary_protocol::ids::Did;

    use super::*;
    use crate::testnet::NodeRole;

    #[test]
    fn a_table_has_a_line_for_every_node_and_tells_what_is_wrong() {
        let line = |name: &str, life| NodeLine {
            name: name.to_owned(),
            role: NodeRole::Buyer,
            did: Did::from_bytes([1; 20]),
            pid: Some(1),
            life,
            uptime_s: 61,
            peers: 2,
            feeds: 1,
            chunks: 1234,
            chunks_per_second: 1.25,
            lag: Some(3),
            grants: 4,
            packages: 5,
            disk_bytes: 1 << 20,
            served_bytes: 0,
            memory_bytes: 1 << 24,
            cpu_s: 0.5,
            warnings: vec!["the owner's key is here".to_owned(), "a stream has stopped".to_owned()],
        };
        let status = NetStatus {
            dir: "/net".into(),
            id: String::new(),
            phase: Phase::Up,
            fed: false,
            partition: vec![vec!["a".to_owned()], vec!["b".to_owned()]],
            dropped: [("a".to_owned(), 7)].into(),
            nodes: vec![line("buyer-1", NodeLife::Running), line("buyer-2", NodeLife::Crashed)],
            now_ms: 0,
        };
        let text = render(&status);
        for wanted in [
            "1 of 2 nodes run",
            "NOT FED",
            "a | b: 7 packets",
            "1234",
            "16.00 MiB",
            "1m1s",
            "CRASHED",
            "a stream has stopped",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("owner"), "{text}");
    }
}
