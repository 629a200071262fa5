//! Bringing a testnet up, changing it, and taking it down.
//!
//! Every step that starts a process is written down right behind it. A command that fails or is killed in between leaves a testnet that
//! [`down`] takes apart: what was not written down carries the testnet's mark.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde::Serialize;

use super::{
    Feed, Folder, NodeRole, NodeState, Phase, ProcessId, State, TestnetError, Topology, buying,
    namespaces::beyond,
    plan::{self, NodePlan},
    process::{Start, marked, start, tail},
    state::{FEEDER, Lock, NETWORKS, OWN_RECORDING, World},
};
use crate::{
    control::ControlClient,
    demo::plan::Plan,
    home::{Home, InitOptions},
    service::status::NodeStatus,
};

/// How long a node may take to answer; there may be a hundred that start.
const START: Duration = Duration::from_secs(180);
/// How long a node may take to end in order, before it is killed.
const STOP: Duration = Duration::from_secs(60);
/// How long the system may take to end what was killed; it may be busy writing what the process had begun.
const KILL: Duration = Duration::from_secs(30);
/// Lines of a log that an error shows.
const LOG_LINES: usize = 12;
/// How many nodes are started before the first of them is waited for. More of them at once would each only take longer.
const TOGETHER: usize = 8;

/// What a testnet is brought up with.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Its folder, which is empty or not there.
    pub dir: PathBuf,
    /// The program that the nodes run; `None` is this one.
    pub program: Option<PathBuf>,
    /// How many nodes.
    pub topology: Topology,
    /// What the machines are fed with.
    pub feed: Feed,
    /// A network of each node's own, so that it can be cut.
    pub namespaces: bool,
}

/// A testnet that is up.
#[derive(Debug, Clone, Serialize)]
pub struct Brought {
    /// Its folder.
    pub dir: PathBuf,
    /// What it is made of.
    pub state: State,
    /// Seconds it took.
    pub seconds: f64,
}

/// What was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Processes that lived, and do no longer.
    pub processes: usize,
    /// Whether the homes and logs were kept.
    pub kept: bool,
}

/// A partition that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Healed {
    /// Packets that were dropped at each node.
    pub dropped: BTreeMap<String, u64>,
}

/// A testnet under its lock.
struct Held {
    folder: Folder,
    state: State,
    lock: Lock,
}

impl Held {
    async fn take(dir: &Path) -> Result<Self, TestnetError> {
        let folder = Folder::new(dir)?;
        // Before the lock, so that a folder without a testnet is left as it is.
        folder.load()?;
        let lock = folder.lock().await?;
        let state = folder.load()?;
        Ok(Self { folder, state, lock })
    }

    fn save(&self) -> Result<(), TestnetError> {
        self.folder.save(&self.state, &self.lock)
    }

    /// Starts the node and writes that down. Does not wait for it.
    fn start_node(&mut self, name: &str) -> Result<(), TestnetError> {
        let node = self.state.node(name)?;
        let home = self.folder.home(name);
        let mut command: Vec<OsString> = match (&self.state.world, node.host) {
            (Some(world), Some(host)) => world.enter(host),
            _ => Vec::new(),
        };
        command.push(self.state.program.clone().into());
        command.extend(["run", "-v", "--home"].map(OsString::from));
        command.push(home.into());
        let process = self.start(&command, name)?;
        self.state.node_mut(name)?.process = Some(process);
        self.save()
    }

    fn start(&self, command: &[OsString], log: &str) -> Result<ProcessId, TestnetError> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| TestnetError::Plan("there is nothing to start".to_owned()))?;
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        start(&Start { program: Path::new(program), arguments, id: &self.state.id, log: self.folder.log(log) })
    }

    fn start_feeder(&mut self) -> Result<(), TestnetError> {
        let mut command: Vec<OsString> = vec![self.state.program.clone().into()];
        command.extend(["testnet", "feed", "--dir"].map(OsString::from));
        command.push(self.folder.path().into());
        self.state.feeder = Some(self.start(&command, FEEDER)?);
        self.save()
    }

    /// Waits until a node answers.
    async fn ready(&self, name: &str) -> Result<NodeStatus, TestnetError> {
        let node = self.state.node(name)?;
        let failed = |what: &str| {
            let log = tail(&self.folder.log(name), LOG_LINES);
            TestnetError::Node { node: name.to_owned(), what: format!("{what}; its log ends with:\n  {log}") }
        };
        let client = self.folder.client(name);
        let deadline = Instant::now() + START;
        let mut wait = Duration::from_millis(5);
        loop {
            if let Ok(status) = client.get::<NodeStatus>("/v1/status").await
                && (!status.links.is_empty() || node.role != NodeRole::Machine)
            {
                return Ok(status);
            }
            if !node.is_alive() {
                return Err(failed("ended at once"));
            }
            if Instant::now() >= deadline {
                return Err(failed("does not answer"));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(200));
        }
    }

    /// Starts these nodes, a few at a time, and waits until they answer.
    async fn start_all(&mut self, names: &[String]) -> Result<(), TestnetError> {
        for some in names.chunks(TOGETHER) {
            for name in some {
                self.start_node(name)?;
            }
            for name in some {
                self.ready(name).await?;
            }
        }
        Ok(())
    }

    /// The address of a node in a network of its own.
    fn own_address(&self, name: &str) -> Result<Ipv4Addr, TestnetError> {
        let at = self.state.nodes.iter().position(|node| node.name == name);
        at.map(plan::own_address).ok_or(TestnetError::OneNetwork)
    }
}

/// Brings a testnet up: when this returns every node answers, every machine is fed, and every buyer has bought. `say` hears of every step.
/// Dropping the future leaves what was started until then; [`down`] ends it.
///
/// # Errors
///
/// What did not work; nothing is left then, unless taking it down failed, too.
pub async fn up(options: &UpOptions, say: &mut dyn FnMut(&str)) -> Result<Brought, TestnetError> {
    let began = Instant::now();
    options.topology.check()?;
    options.feed.check()?;
    let folder = Folder::new(&options.dir)?;
    let longest = folder.home("machine-100").join("control.sock");
    if longest.as_os_str().len() > 107 {
        return Err(TestnetError::Plan(format!(
            "the path {} is too long for the control sockets in it; give a shorter one",
            folder.path().display()
        )));
    }
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()
            .map_err(|source| TestnetError::Io { path: PathBuf::from("/proc/self/exe"), source })?,
    };
    let lock = folder.create().await?;
    let mut held = Held { state: State::new(program, options.feed.clone()), folder, lock };
    held.save()?;
    match bring_up(&mut held, options, say).await {
        Ok(()) => {
            let (dir, seconds) = (held.folder.path().to_owned(), began.elapsed().as_secs_f64());
            Ok(Brought { dir, state: held.state, seconds })
        }
        Err(error) => {
            // What went wrong first is what is told.
            if let Err(left) = take_down(held, false).await {
                tracing::error!(%left, "the testnet could not be taken down");
            }
            Err(error)
        }
    }
}

async fn bring_up(held: &mut Held, options: &UpOptions, say: &mut dyn FnMut(&str)) -> Result<(), TestnetError> {
    let streams = Streams::of(&options.feed, held.folder.path())?;
    held.state.streams.clone_from(&streams.names);
    let nodes = plan::nodes(options.topology, &streams.names);
    make_homes(held, &nodes, options.namespaces)?;
    if options.namespaces {
        let log = held.folder.log(NETWORKS);
        held.state.world = Some(World::make(&held.state.id, log.clone()).await?);
        held.save()?;
        for number in 0..nodes.len() {
            let Some(world) = &held.state.world else { break };
            let host = world.host(&held.state.id, log.clone(), number, plan::own_address(number)).await?;
            held.state.nodes[number].host = Some(host);
            held.save()?;
        }
        say(&format!("networks    {} namespaces, joined by a bridge", nodes.len()));
    }
    write_configs(held, &streams)?;
    let of = |role: NodeRole| -> Vec<String> {
        nodes.iter().filter(|node| node.role == role).map(|node| node.name.clone()).collect()
    };
    let (machines, mirrors, buyers) = (of(NodeRole::Machine), of(NodeRole::Mirror), of(NodeRole::Buyer));
    held.start_all(&machines).await?;
    say(&format!("machines    {} run", machines.len()));
    if !mirrors.is_empty() {
        held.start_all(&mirrors).await?;
        say(&format!("mirrors     {} run", mirrors.len()));
    }
    held.start_feeder()?;
    buying::wait_for_data(&held.folder, &held.state).await?;
    say(&format!("feed        {}", shown(&options.feed)));
    held.start_all(&buyers).await?;
    buying::buy(&held.folder, &held.state).await?;
    say(&format!("buyers      {} run, and have bought", buyers.len()));
    held.state.phase = Phase::Up;
    held.save()
}

fn shown(feed: &Feed) -> String {
    match feed {
        Feed::Recording { path, speed } => {
            let name = path.as_deref().and_then(Path::file_name).unwrap_or(OsStr::new(OWN_RECORDING));
            format!("{}, over and over, {speed} times as fast as recorded", name.to_string_lossy())
        }
        Feed::Packages { bytes, every } => format!("a package of {bytes} bytes every {} ms", every.as_millis()),
    }
}

/// The streams of each machine.
struct Streams {
    names: Vec<String>,
    recording: Option<Plan>,
}

impl Streams {
    /// Looks through the recording; the program's own one is written into the folder.
    fn of(feed: &Feed, folder: &Path) -> Result<Self, TestnetError> {
        match feed {
            Feed::Packages { .. } => Ok(Self { names: vec![plan::LOAD.to_owned()], recording: None }),
            Feed::Recording { path, .. } => {
                let recording = Plan::make(path.as_deref(), folder).map_err(TestnetError::Recording)?;
                Ok(Self { names: recording.readable().cloned().collect(), recording: Some(recording) })
            }
        }
    }

    fn config(&self, buyers: &[(tributary_protocol::ids::Did, Vec<String>)]) -> String {
        match &self.recording {
            Some(recording) => recording.streams(|stream| plan::access(stream, buyers)),
            None => plan::load_stream(&plan::access(plan::LOAD, buyers)),
        }
    }
}

/// Homes with new keys. Their configurations come later: they name each other's keys.
fn make_homes(held: &mut Held, nodes: &[NodePlan], namespaces: bool) -> Result<(), TestnetError> {
    let mut taken = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let told = |source| TestnetError::Home { node: node.name.clone(), source: Box::new(source) };
        let options = InitOptions { owner: None, identity: None, passphrase: None, config: String::new() };
        let home = Home::init(&held.folder.home(&node.name), options, &mut rand::rng()).map_err(told)?;
        let keys = home.public_keys().map_err(told)?;
        let address = if namespaces {
            format!("/ip4/{}/tcp/{}", plan::own_address(number), plan::PORT)
        } else {
            let port = free_port(&taken)?;
            taken.push(port);
            format!("/ip4/127.0.0.1/tcp/{port}")
        };
        held.state.nodes.push(NodeState {
            name: node.name.clone(),
            role: node.role,
            did: keys.did,
            peer: keys.peer.to_string(),
            address,
            follows: node.follows.clone(),
            buys: node.buys.clone(),
            process: None,
            host: None,
        });
        held.save()?;
    }
    Ok(())
}

fn write_configs(held: &Held, streams: &Streams) -> Result<(), TestnetError> {
    let at = |node: &NodeState| format!("{}/p2p/{}", node.address, node.peer);
    let of = |role: NodeRole| held.state.nodes.iter().filter(move |node| node.role == role);
    let mirrors: Vec<String> = of(NodeRole::Mirror).map(at).collect();
    for node in &held.state.nodes {
        let config = match (node.role, &node.follows) {
            (NodeRole::Mirror, _) => {
                let machines: Vec<_> = held.state.machines().map(|machine| (machine.did, at(machine))).collect();
                plan::mirror_config(&node.address, &machines)
            }
            (NodeRole::Buyer, Some(machine)) => {
                let machine = held.state.node(machine)?;
                plan::buyer_config(&node.address, &mirrors, &machine.did, &at(machine), &node.buys)
            }
            (NodeRole::Machine | NodeRole::Buyer, _) => {
                let customers = held.state.buyers().filter(|buyer| buyer.follows.as_ref() == Some(&node.name));
                let buyers: Vec<_> = customers.map(|buyer| (buyer.did, buyer.buys.clone())).collect();
                plan::machine_config(&node.address, &mirrors, &streams.config(&buyers))
            }
        };
        let path = held.folder.home(&node.name).join("config.yaml");
        std::fs::write(&path, config).map_err(|source| TestnetError::Io { path, source })?;
    }
    Ok(())
}

/// A port of loopback that nobody listens on. It is below those that the system gives to outgoing connections, so that nobody gets it by
/// chance while its node is killed.
fn free_port(taken: &[u16]) -> Result<u16, TestnetError> {
    let free = |port: &u16| !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let found = (0..1000).map(|_| rand::random_range(12_000..30_000)).find(free);
    found.ok_or_else(|| TestnetError::Plan("no port of loopback is free".to_owned()))
}

/// Takes a testnet down: its processes, its networks, and its folder unless that is kept. With `keep` nodes end in order, otherwise at once.
///
/// # Errors
///
/// When there is none, or something cannot be ended or removed.
pub async fn down(dir: &Path, keep: bool) -> Result<Ended, TestnetError> {
    take_down(Held::take(dir).await?, keep).await
}

async fn take_down(mut held: Held, keep: bool) -> Result<Ended, TestnetError> {
    held.state.phase = Phase::Ending;
    held.save()?;
    let mut ended = 0;
    // Who feeds goes first, and what keeps networks last: nodes end in order only while they can reach each other.
    let nodes: Vec<ProcessId> = held.state.nodes.iter().filter_map(|node| node.process).collect();
    let keepers = held.state.nodes.iter().filter_map(|node| node.host);
    let keepers: Vec<ProcessId> = keepers.chain(held.state.world.as_ref().map(|world| world.bridge)).collect();
    ended += end(held.state.feeder.as_slice(), Signal::KILL, KILL).await?;
    if keep {
        ended += end(&nodes, Signal::TERM, STOP).await?;
    }
    ended += end(&nodes, Signal::KILL, KILL).await?;
    ended += end(&keepers, Signal::KILL, KILL).await?;
    // What was started and not written down before a crash, and what the nodes themselves started.
    ended += end(&marked(&held.state.id), Signal::KILL, KILL).await?;
    if let Some(left) = marked(&held.state.id).first() {
        return Err(TestnetError::Late { what: format!("process {} does not end", left.pid), seconds: KILL.as_secs() });
    }
    let Held { folder, state, lock } = held;
    if keep {
        folder.forget(lock)?
    } else {
        folder.remove(&state, lock)?
    }
    Ok(Ended { processes: ended, kept: keep })
}

/// Ends processes, and returns how many of them lived. Those that outlive their time are left to the next step.
async fn end(processes: &[ProcessId], signal: Signal, patience: Duration) -> Result<usize, TestnetError> {
    let mut living = Vec::new();
    for process in processes {
        let sent = process.signal(signal);
        let path = || PathBuf::from(format!("/proc/{}", process.pid));
        if sent.map_err(|source| TestnetError::Io { path: path(), source })? {
            living.push(*process);
        }
    }
    let deadline = Instant::now() + patience;
    let mut ended = 0;
    for process in living {
        ended += usize::from(process.gone(deadline.saturating_duration_since(Instant::now())).await);
    }
    Ok(ended)
}

/// Ends a node with SIGKILL, which it cannot see coming.
///
/// # Errors
///
/// When there is no such node, or it does not run.
pub async fn kill(dir: &Path, name: &str) -> Result<ProcessId, TestnetError> {
    let mut held = Held::take(dir).await?;
    let node = held.state.node(name)?;
    let not_running = || TestnetError::Node { node: name.to_owned(), what: "does not run".to_owned() };
    let process = node.process.ok_or_else(not_running)?;
    if end(&[process], Signal::KILL, KILL).await? == 0 {
        return Err(not_running());
    }
    held.state.node_mut(name)?.process = None;
    held.save()?;
    Ok(process)
}

/// Starts a node again; one that runs ends in order before. `feeder` restarts what feeds the machines.
///
/// # Errors
///
/// When there is no such node, or it does not start.
pub async fn restart(dir: &Path, name: &str) -> Result<ProcessId, TestnetError> {
    let mut held = Held::take(dir).await?;
    if name == FEEDER {
        end(held.state.feeder.as_slice(), Signal::KILL, KILL).await?;
        held.start_feeder()?;
        return held.state.feeder.ok_or_else(|| TestnetError::Plan("there is no feeder".to_owned()));
    }
    let old = held.state.node(name)?.process;
    end(old.as_slice(), Signal::TERM, STOP).await?;
    end(old.as_slice(), Signal::KILL, KILL).await?;
    held.start_node(name)?;
    held.ready(name).await?;
    held.state.node(name)?.process.ok_or_else(|| TestnetError::Plan("the node has no process".to_owned()))
}

/// Cuts groups of nodes off from each other. Nodes that are in no group reach everybody. A partition that is there already is replaced.
///
/// # Errors
///
/// [`TestnetError::OneNetwork`] where the nodes have no networks of their own; an unknown node, or one in two groups.
pub async fn partition(dir: &Path, groups: Vec<Vec<String>>) -> Result<(), TestnetError> {
    let mut held = Held::take(dir).await?;
    let world = held.state.world.clone().ok_or(TestnetError::OneNetwork)?;
    let mut seen = std::collections::BTreeSet::new();
    for name in groups.iter().flatten() {
        held.state.node(name)?;
        if !seen.insert(name) {
            return Err(TestnetError::Plan(format!("{name} is named twice")));
        }
    }
    if groups.len() < 2 || groups.iter().any(Vec::is_empty) {
        return Err(TestnetError::Plan("a partition has two groups of nodes or more".to_owned()));
    }
    heal_all(&held, &world).await?;
    for (name, others) in beyond(&groups) {
        let Some(host) = held.state.node(name)?.host else { continue };
        let others = others.into_iter().map(|other| held.own_address(other)).collect::<Result<_, _>>()?;
        world.cut(host, &others).await?;
    }
    held.state.partition = groups;
    held.save()
}

/// Ends the partition.
///
/// # Errors
///
/// [`TestnetError::OneNetwork`] where the nodes have no networks of their own.
pub async fn heal(dir: &Path) -> Result<Healed, TestnetError> {
    let mut held = Held::take(dir).await?;
    let world = held.state.world.clone().ok_or(TestnetError::OneNetwork)?;
    let dropped = heal_all(&held, &world).await?;
    held.state.partition.clear();
    held.save()?;
    Ok(Healed { dropped })
}

async fn heal_all(held: &Held, world: &World) -> Result<BTreeMap<String, u64>, TestnetError> {
    let mut dropped = BTreeMap::new();
    for name in held.state.partition.iter().flatten() {
        let Some(host) = held.state.node(name)?.host else { continue };
        dropped.insert(name.clone(), world.dropped(host).await?);
        world.heal(host).await?;
    }
    Ok(dropped)
}

/// Packets that the partition has dropped until now, at each node; empty where there is none.
pub(super) async fn dropped(state: &State) -> Result<BTreeMap<String, u64>, TestnetError> {
    let Some(world) = &state.world else { return Ok(BTreeMap::new()) };
    let mut dropped = BTreeMap::new();
    for name in state.partition.iter().flatten() {
        if let Some(host) = state.node(name)?.host {
            dropped.insert(name.clone(), world.dropped(host).await?);
        }
    }
    Ok(dropped)
}

/// A request to a node, with the node and the step in its error.
pub(super) fn step<T>(
    node: &str,
    step: &'static str,
    result: Result<T, crate::control::ClientError>,
) -> Result<T, TestnetError> {
    result.map_err(|source| TestnetError::Step { node: node.to_owned(), step, source })
}

/// How a node stands.
pub(super) async fn status_of(node: &str, client: &ControlClient) -> Result<NodeStatus, TestnetError> {
    step(node, "status", client.get("/v1/status").await)
}
