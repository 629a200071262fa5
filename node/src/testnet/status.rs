//! How the nodes of a testnet stand: what they say, put together.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use futures::StreamExt as _;
use serde::Serialize;
use tributary_protocol::ids::{Did, LogId};

use super::{Folder, NodeRole, NodeState, Phase, ProcessId, State, TestnetError, running::dropped};
use crate::{
    control::{ControlClient, api::AccessList},
    service::status::NodeStatus,
};

/// How long a node may take to answer before it counts as silent.
const ANSWER: Duration = Duration::from_secs(5);
/// How many nodes are asked at once.
const TOGETHER: usize = 8;

/// How a node's process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeLife {
    /// It runs and answers.
    Running,
    /// It runs and does not answer.
    Silent,
    /// It was killed on purpose, or never started.
    Down,
    /// It has ended by itself.
    Crashed,
}

impl NodeLife {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Silent => "SILENT",
            Self::Down => "down",
            Self::Crashed => "CRASHED",
        }
    }
}

/// How a node stands. Counts are since its last start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: NodeRole,
    /// Its peaqID.
    pub did: Did,
    /// Its process id, while it runs.
    pub pid: Option<i32>,
    /// Whether it runs.
    pub life: NodeLife,
    /// Seconds since it was started.
    pub uptime_s: u64,
    /// Peers that it is connected to.
    pub peers: u64,
    /// Feeds: of a machine its streams, of a buyer those it follows, of a mirror those it keeps.
    pub feeds: u64,
    /// Chunks: of a machine those sealed, of a buyer those held.
    pub chunks: u64,
    /// Chunks a second: since the status before, or since the start.
    pub chunks_per_second: f64,
    /// Entries of its machine's logs that a buyer does not have yet; of a mirror, those it has heard of and lacks.
    pub lag: Option<u64>,
    /// Grants: of a machine those issued, of a buyer those held.
    pub grants: u64,
    /// Packages that a buyer wrote into files.
    pub packages: u64,
    /// Bytes on the disk.
    pub disk_bytes: u64,
    /// Bytes of chunks that it served to others.
    pub served_bytes: u64,
    /// Physical memory, bytes.
    pub memory_bytes: u64,
    /// Processor time, seconds.
    pub cpu_s: f64,
    /// Things that somebody should look at.
    pub warnings: Vec<String>,
}

/// How a testnet stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetStatus {
    /// Its folder.
    pub dir: PathBuf,
    /// Its id.
    pub id: String,
    /// How far it has come.
    pub phase: Phase,
    /// Whether the machines are fed.
    pub fed: bool,
    /// Groups that are cut off from each other.
    pub partition: Vec<Vec<String>>,
    /// Packets that the partition has dropped, at each node.
    pub dropped: BTreeMap<String, u64>,
    /// The nodes.
    pub nodes: Vec<NodeLine>,
    /// When this was gathered, ms since 1970.
    pub now_ms: u64,
}

/// What one node answered.
struct Answer {
    status: NodeStatus,
    grants: u64,
}

/// How the testnet in this folder stands. `before` is an earlier status, against which rates are counted.
///
/// # Errors
///
/// When there is none.
pub async fn status(folder: &Folder, before: Option<&NetStatus>) -> Result<NetStatus, TestnetError> {
    let state = folder.load()?;
    let asked = futures::stream::iter(&state.nodes).map(|node| async move {
        let client = folder.client(&node.name);
        let asked = async { if node.is_alive() { ask(node.role, &client).await } else { None } };
        (node.name.as_str(), tokio::time::timeout(ANSWER, asked).await.ok().flatten())
    });
    let answers: BTreeMap<&str, Option<Answer>> = asked.buffer_unordered(TOGETHER).collect().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let answer = |name: &str| answers.get(name).and_then(Option::as_ref);
    let nodes = state.nodes.iter().map(|node| {
        let machine = node.follows.as_deref().and_then(answer).map(|answer| &answer.status);
        let old =
            before.and_then(|before| Some((before.nodes.iter().find(|line| line.name == node.name)?, before.now_ms)));
        line(node, answer(&node.name), machine, old, now_ms)
    });
    Ok(NetStatus {
        dir: folder.path().to_owned(),
        id: state.id.clone(),
        phase: state.phase,
        fed: state.feeder.is_some_and(ProcessId::is_alive),
        partition: state.partition.clone(),
        // A network that is gone is told by its nodes.
        dropped: dropped_or_none(&state).await,
        nodes: nodes.collect(),
        now_ms,
    })
}

async fn dropped_or_none(state: &State) -> BTreeMap<String, u64> {
    dropped(state).await.unwrap_or_default()
}

async fn ask(role: NodeRole, client: &ControlClient) -> Option<Answer> {
    let status: NodeStatus = client.get("/v1/status").await.ok()?;
    let grants = match role {
        NodeRole::Machine => status.access.grants,
        NodeRole::Mirror => 0,
        NodeRole::Buyer => {
            let list: AccessList = client.post("/v1/access/list", &serde_json::json!({})).await.ok()?;
            list.grants.len() as u64
        }
    };
    Some(Answer { status, grants })
}

fn line(
    node: &NodeState,
    answer: Option<&Answer>,
    machine: Option<&NodeStatus>,
    before: Option<(&NodeLine, u64)>,
    now_ms: u64,
) -> NodeLine {
    let life = match (node.process, node.is_alive(), answer) {
        (_, true, Some(_)) => NodeLife::Running,
        (_, true, None) => NodeLife::Silent,
        (None, false, _) => NodeLife::Down,
        (Some(_), false, _) => NodeLife::Crashed,
    };
    let mut line = NodeLine {
        name: node.name.clone(),
        role: node.role,
        did: node.did,
        pid: node.process.filter(|process| process.is_alive()).map(|process| process.pid),
        life,
        uptime_s: 0,
        peers: 0,
        feeds: 0,
        chunks: 0,
        chunks_per_second: 0.0,
        lag: None,
        grants: 0,
        packages: 0,
        disk_bytes: 0,
        served_bytes: 0,
        memory_bytes: 0,
        cpu_s: 0.0,
        warnings: Vec::new(),
    };
    let Some(Answer { status, grants }) = answer else { return line };
    line.uptime_s = status.uptime_s;
    line.peers = status.peers.len() as u64;
    line.grants = *grants;
    match node.role {
        NodeRole::Machine => {
            line.feeds = status.streams.len() as u64;
            line.chunks = status.streams.iter().map(|stream| stream.lane.chunks).sum();
        }
        NodeRole::Mirror => {
            let feeds = status.mirror.iter().flat_map(|mirror| &mirror.feeds);
            (line.feeds, line.chunks) = (feeds.clone().count() as u64, feeds.clone().map(|feed| feed.chunks).sum());
            line.lag = Some(feeds.map(|feed| feed.behind).sum());
        }
        NodeRole::Buyer => {
            line.feeds = status.followed.len() as u64;
            line.chunks = status.store.chunks;
            line.packages = status.subscriptions.iter().map(|subscription| subscription.packages).sum();
            line.lag = lag(status, machine);
        }
    }
    let same = before.filter(|(old, _)| old.pid == line.pid && old.life == NodeLife::Running);
    line.chunks_per_second = match same {
        Some((old, then_ms)) => rate(line.chunks.saturating_sub(old.chunks), now_ms.saturating_sub(then_ms)),
        None => rate(line.chunks, status.uptime_s.saturating_mul(1000)),
    };
    line.disk_bytes = status.store.used_bytes;
    line.served_bytes = status.served.bytes;
    line.memory_bytes = status.process.resident_bytes;
    line.cpu_s = status.process.cpu_s;
    line.warnings = status.warnings.iter().map(|warning| warning.message.clone()).collect();
    line
}

fn rate(count: u64, ms: u64) -> f64 {
    // Counts below 2^53 are exact in a float.
    if ms == 0 { 0.0 } else { count as f64 * 1000.0 / ms as f64 }
}

/// Entries of the machine's logs that the buyer lacks: by what the machine says of itself, or else by the newest heads the buyer heard.
fn lag(buyer: &NodeStatus, machine: Option<&NodeStatus>) -> Option<u64> {
    let followed = buyer.followed.first()?;
    let held: BTreeMap<(LogId, u32), u64> =
        followed.logs.iter().map(|log| ((log.log, log.incarnation), log.entries)).collect();
    Some(match machine {
        Some(machine) => machine
            .logs
            .iter()
            .map(|log| log.entries.saturating_sub(held.get(&(log.log, log.incarnation)).copied().unwrap_or(0)))
            .sum(),
        None => {
            let behind =
                followed.logs.iter().map(|log| log.announced.unwrap_or(log.entries).saturating_sub(log.entries));
            behind.sum()
        }
    })
}
