//! A running node: everything inside `tributary run`, joined together.
//!
//! [`Node::start`] takes the home for this process, opens the store, the network, the selling and the buying side, and starts
//! the tasks between them. [`Node::shutdown`] ends them in the order in which nothing gets lost: sources stop, what was taken
//! in is sealed and durable, announced, and only then the network and the store close. The node owns no protocol and no
//! state of its own; it decides nothing that its parts can decide.
//!
//! ```text
//! sources -> machine --durable--> announcer -> gossip
//!               |                                  \
//!             store <- sync server <- requests ---- network
//!               |   <- access service <- requests -/  |
//!               |   <- pull server <- streams -------/
//!             buyer <------------- gossip -----------/
//! ```

pub mod access;
mod announcer;
mod chunks;
mod depositor;
mod error;
pub mod health;
mod jobs;
mod keeper;
mod memory;
mod rates;
mod router;
mod settings;
pub mod status;
mod sync_server;
mod timings;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use libp2p::multiaddr::Protocol;
use tokio::{
    sync::{OnceCell, Semaphore},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tributary_protocol::{
    ids::Did,
    wire::{topic_machine, topic_stream},
};
use tributary_store::{OpenReport, Store};

use self::{
    access::{AccessPolicy, AccessService, AtMirrors},
    announcer::{FeedAnnouncer, Outbox},
    chunks::StoredChunks,
    depositor::Depositor,
    health::Health,
    keeper::Kept,
    memory::Memory,
    router::Routes,
    settings::{delivery_limits, max_attachment, net_config, parties, pull_config, store_options},
    status::NodeStatus,
    sync_server::{FollowedHeads, SyncServer},
};
use crate::{
    buyer::Buyer,
    config::{Config, Role, Ros2Config},
    durations::Durations,
    feeds::{FeedLink, Feeds, FeedsOptions, MAX_LINK_ADDRS},
    home::{Home, HomeLock, MachineKeys, Passphrase},
    machine::{Clock, Machine, MachineOptions, system_clock},
    mirror::{Mirror, MirrorOptions},
    net::{self, AddressState, Client, Multiaddr, NetError, NetEvents, PullServer},
    peaq::{
        Deliveries, Parties,
        orchestration::{Orchestration, OrchestrationParts, desk::PeerDesk},
    },
    ros2::{Ros2, Ros2Error, Ros2Options},
};

pub use self::{
    error::{NodeError, ShutdownError},
    jobs::JobError,
    timings::Timings,
};

/// How long a source may take to notice that the node stops.
const SOURCES_END: Duration = Duration::from_secs(10);
/// How long sealing and storing what was taken in may take; a slow disk with full queues needs its time.
const LANES_END: Duration = Duration::from_secs(120);
/// How long the last announcements may take.
const ANNOUNCER_END: Duration = Duration::from_secs(5);
/// What was published last gets so long to leave the machine.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long writing down peers and bans may take.
const MEMORY_END: Duration = Duration::from_secs(5);
/// How long closing the sockets may take.
const NET_END: Duration = Duration::from_secs(5);
/// How long closing the store may take.
const STORE_END: Duration = Duration::from_secs(60);

/// What a node is started with.
pub struct NodeOptions {
    /// Its home.
    pub home: Home,
    /// Its configuration.
    pub config: Config,
    /// Opens its keys, if they are sealed.
    pub passphrase: Option<Passphrase>,
    /// ROS arguments of the command line, `--ros-args` first. With them, live topics are ingested whether the configuration says so or
    /// not.
    pub ros_arguments: Option<Vec<String>>,
}

/// A running node. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    home: Home,
    config: Config,
    did: Did,
    started: Instant,
    clock: Clock,
    store: Store,
    net: Client,
    memory: Arc<Memory>,
    machine: Option<Arc<Machine>>,
    outbox: Option<Arc<Outbox>>,
    feeds: Option<Feeds>,
    buyer: Option<Buyer>,
    mirror: Option<Mirror>,
    depositor: Arc<Depositor>,
    access: Arc<AccessService>,
    sync: Arc<SyncServer>,
    gossip_took: Arc<Durations>,
    pulls: Mutex<Option<PullServer>>,
    deliveries: Option<Deliveries>,
    orchestration: Option<Arc<Orchestration>>,
    /// The place of who looks at the node's health.
    looking: Arc<Semaphore>,
    ros2: Option<Arc<Ros2>>,
    /// Cancelled when the node begins to stop.
    stopping: CancellationToken,
    /// Ingests and publications under way.
    jobs: TaskTracker,
    ends: tokio::sync::Mutex<Ends>,
    stopped: OnceCell<Result<(), ShutdownError>>,
}

/// What is waited for at the end.
struct Ends {
    announcer: Option<JoinHandle<()>>,
    quiet: CancellationToken,
    tasks: JoinSet<()>,
    lock: Option<HomeLock>,
}

impl Node {
    /// Starts a node. Returns when it listens and its streams take messages.
    ///
    /// # Errors
    ///
    /// Names what is wrong; nothing is left running then.
    pub async fn start(options: NodeOptions) -> Result<Self, NodeError> {
        Self::start_with(options, None).await
    }

    /// As [`Node::start`], with what decides requests that would otherwise wait for the operator.
    ///
    /// # Errors
    ///
    /// As [`Node::start`].
    pub async fn start_with(options: NodeOptions, policy: Option<Arc<dyn AccessPolicy>>) -> Result<Self, NodeError> {
        let NodeOptions { home, mut config, passphrase, ros_arguments } = options;
        if ros_arguments.is_some() {
            config.ros2.get_or_insert_default();
        }
        let lock = home.lock()?;
        let opened = {
            let (home, settings) = (home.clone(), store_options(&config));
            // Opening sealed keys is slow on purpose, and a store may have much to replay.
            blocking(move || -> Result<_, NodeError> {
                let keys = home.keys(passphrase.as_ref())?;
                let (store, report) = Store::open(home.store_path(), &settings)?;
                Ok((keys, store, report))
            })
            .await?
        };
        let (keys, store, report) = opened?;
        log_open(&report);
        let clock = system_clock();
        let memory = Arc::new(Memory::new(home.clone(), Arc::clone(&clock)));
        let mut settings = net_config(&config);
        settings.remembered = {
            let (memory, longest) = (Arc::clone(&memory), settings.ban_time);
            match blocking(move || memory.load(longest)).await {
                Ok(remembered) => remembered,
                Err(error) => {
                    close(store).await;
                    return Err(error);
                }
            }
        };
        let (net, events, _) = match net::start(keys.node.clone(), settings).await {
            Ok(started) => started,
            Err(error) => {
                close(store).await;
                return Err(error.into());
            }
        };
        let parts = Parts {
            home,
            config,
            lock,
            keys,
            store: store.clone(),
            net: net.clone(),
            clock,
            memory,
            ros_arguments,
            policy,
        };
        match Self::assemble(parts, events).await {
            Ok(node) => Ok(node),
            Err(error) => {
                net.shutdown().await;
                close(store).await;
                Err(error)
            }
        }
    }

    async fn assemble(parts: Parts, events: NetEvents) -> Result<Self, NodeError> {
        let Parts { home, config, lock, keys, store, net, clock, memory, ros_arguments, policy } = parts;
        let did = keys.identity.did();
        // From here on nobody who subscribes is missed.
        let peer_events = net.watch_peers();
        let (announcer, announcements, outbox) = FeedAnnouncer::new(max_attachment(&config));
        let opened = {
            let (store, net, clock, config) = (store.clone(), net.clone(), Arc::clone(&clock), config.clone());
            let (home, runtime) = (home.clone(), tokio::runtime::Handle::current());
            blocking(move || {
                let _runtime = runtime.enter();
                open_sides(&home, &keys, &config, &store, net, Arc::new(announcer), &clock)
            })
            .await?
        };
        let Sides { machine, feeds, buyer, mirror } = opened?;
        let finish = machine.clone();
        let finished = async move {
            let outbox = machine.is_some().then_some(outbox);
            let rate = config.network.limits.access_per_minute;
            let (hooks, hook_runner) = access::hooks(home.path());
            let access = {
                let (machine, store, clock) = (machine.clone(), store.clone(), Arc::clone(&clock));
                let at_mirrors = AtMirrors {
                    mirrors: depositor::peers_of(&config.mirrors),
                    deposits: mirror.as_ref().and_then(|mirror| mirror.deposits().cloned()),
                };
                blocking(move || -> Result<_, access::AccessError> {
                    let access = AccessService::open(machine, store, clock, rate, Some(hooks), at_mirrors)?;
                    access.know_mirrors()?;
                    Ok(access)
                })
                .await??
            };
            let access = Arc::new(access.with_policy(policy));
            let with_outbox = machine.clone().zip(outbox.clone());
            let (serves_followed, followed) = (config.serves_followed(), feeds.clone());
            let followed = serves_followed.then(|| -> FollowedHeads {
                Box::new(move |did| followed.as_ref().map(|feeds| feeds.heads(did)).unwrap_or_default())
            });
            let sync = Arc::new(SyncServer::new(store.clone(), with_outbox, followed));
            let provider = StoredChunks { store: store.clone(), only: (!serves_followed).then_some(did) };
            // Who has nothing to serve does not offer the protocol: peers need not ask then.
            let pulls = match serves_followed || machine.is_some() {
                true => Some(PullServer::start(&net, Arc::new(provider), pull_config(&config))?),
                false => None,
            };
            if let Some(machine) = &machine {
                listen_to_own(&net, machine).await?;
            }
            let external = config.network.external.clone();
            let deliveries = machine
                .as_ref()
                .and_then(|_| Deliveries::start(net.clone(), external, Arc::clone(&clock), delivery_limits(&config)));
            let stopping = CancellationToken::new();
            let quiet = CancellationToken::new();
            let mut tasks = JoinSet::new();
            let announcer = machine.clone().zip(outbox.clone()).map(|(machine, outbox)| {
                let run = announcer::run(net.clone(), machine, announcements, outbox, peer_events, quiet.clone());
                tokio::spawn(run)
            });
            let gossip_took = Arc::new(Durations::default());
            let routes = Routes {
                net: net.clone(),
                store: store.clone(),
                machine: machine.clone(),
                feeds: feeds.clone(),
                sync: Arc::clone(&sync),
                access: Arc::clone(&access),
                gossip_took: Arc::clone(&gossip_took),
            };
            router::start(routes, events, &mut tasks);
            let kept = Kept {
                net: &net,
                store: &store,
                machine: machine.as_ref(),
                buyer: buyer.as_ref(),
                access: &access,
                config: &config,
                did,
                clock: &clock,
            };
            keeper::start(&kept, &mut tasks);
            if let Some(mirror) = &mirror {
                mirror.start(&mut tasks);
            }
            let depositor = Arc::new(Depositor::default());
            depositor.start(&net, &access, &config.mirrors, &mut tasks);
            tasks.spawn(hook_runner.run());
            {
                let (memory, net) = (Arc::clone(&memory), net.clone());
                tasks.spawn(async move { memory.keep(net).await });
            }
            let orchestration = match (&config.peaq.orchestration, &machine, &deliveries) {
                (Some(settings), Some(machine), Some(deliveries)) => {
                    let (desk, events) = PeerDesk::start(deliveries.clone(), &mut tasks);
                    let parts = OrchestrationParts {
                        config: settings.clone(),
                        machine: Arc::clone(machine),
                        store: store.clone(),
                        policies: Arc::clone(&access),
                        parties: parties(&config, &home)?,
                        desk: Box::new(desk),
                        events,
                        clock: Arc::clone(&clock),
                    };
                    Some(Arc::new(Orchestration::start(parts, stopping.clone(), &mut tasks).await?))
                }
                _ => None,
            };
            let jobs = TaskTracker::new();
            let ros2 = match &config.ros2 {
                Some(ros2) => Some(start_ros2(ros2, ros_arguments, machine.as_ref(), &jobs, &stopping).await?),
                None => None,
            };
            let ends = Ends { announcer, quiet, tasks, lock: Some(lock) };
            let inner = Inner {
                home,
                config,
                did,
                started: Instant::now(),
                clock,
                store,
                net,
                memory,
                machine,
                outbox,
                feeds,
                buyer,
                mirror,
                depositor,
                access,
                sync,
                gossip_took,
                pulls: Mutex::new(pulls),
                deliveries,
                orchestration,
                looking: Arc::new(Semaphore::new(1)),
                ros2,
                stopping,
                jobs,
                ends: tokio::sync::Mutex::new(ends),
                stopped: OnceCell::new(),
            };
            Ok(Self { inner: Arc::new(inner) })
        };
        let result: Result<Self, NodeError> = finished.await;
        if result.is_err()
            && let Some(machine) = finish
        {
            // Its threads hold the store.
            let _ = blocking(move || machine.shutdown()).await;
        }
        result
    }

    /// The selling side, with the role machine.
    #[must_use]
    pub fn machine(&self) -> Option<&Arc<Machine>> {
        self.inner.machine.as_ref()
    }

    /// The feeds of other machines that it follows, with the roles buyer and mirror.
    #[must_use]
    pub fn feeds(&self) -> Option<&Feeds> {
        self.inner.feeds.as_ref()
    }

    /// The buying side, with the role buyer.
    #[must_use]
    pub fn buyer(&self) -> Option<&Buyer> {
        self.inner.buyer.as_ref()
    }

    /// The feeds that it keeps for others, with the role mirror.
    #[must_use]
    pub fn mirror(&self) -> Option<&Mirror> {
        self.inner.mirror.as_ref()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The network.
    #[must_use]
    pub fn net(&self) -> &Client {
        &self.inner.net
    }

    /// Orders, decisions, revocations. What it does waits for the disk.
    #[must_use]
    pub fn access(&self) -> &Arc<AccessService> {
        &self.inner.access
    }

    /// Deliveries to peaq's buyers, with the role machine.
    #[must_use]
    pub fn deliveries(&self) -> Option<&Deliveries> {
        self.inner.deliveries.as_ref()
    }

    /// The orchestration API, where it is offered.
    #[must_use]
    pub fn orchestration(&self) -> Option<&Arc<Orchestration>> {
        self.inner.orchestration.as_ref()
    }

    /// Who stands in envelopes for peaq's software.
    ///
    /// # Errors
    ///
    /// When the home's public keys cannot be read.
    pub fn peaq_parties(&self) -> Result<Parties, NodeError> {
        parties(&self.inner.config, &self.inner.home)
    }

    /// The ROS side, where live topics are ingested.
    #[must_use]
    pub fn ros2(&self) -> Option<&Arc<Ros2>> {
        self.inner.ros2.as_ref()
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.inner.home
    }

    /// The configuration it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Its peaqID.
    #[must_use]
    pub fn did(&self) -> Did {
        self.inner.did
    }

    /// Cancelled as soon as the node begins to stop: whoever reads a source for it should end then.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.inner.stopping
    }

    /// Links to pass the machine's feed on with, the most useful first: one with all addresses under which others are known to
    /// reach it (configured, tested, through relays), then those that others may reach, and loopback addresses only where there
    /// is nothing else. Empty without the role machine.
    ///
    /// # Errors
    ///
    /// When the network has shut down.
    pub async fn links(&self) -> Result<Vec<FeedLink>, NetError> {
        if self.inner.machine.is_none() {
            return Ok(Vec::new());
        }
        let reach = self.inner.net.reach().await?;
        let me = Protocol::P2p(self.inner.net.peer_id());
        let direct = reach.addresses.into_iter().filter(|own| {
            matches!(own.state, AddressState::Configured | AddressState::Mapped | AddressState::Reachable)
        });
        let direct = direct.map(|own| own.address.with(me.clone()));
        let circuits = reach.relays.into_iter().filter_map(|relay| relay.circuit);
        let known: Vec<Multiaddr> = direct.chain(circuits).take(MAX_LINK_ADDRS).collect();
        let (near, far): (Vec<_>, Vec<_>) = self.inner.net.listen_addrs().await?.into_iter().partition(is_loopback);
        let mut links = Vec::new();
        if !known.is_empty() {
            links.push(FeedLink::new(self.inner.did, known.clone()));
        }
        let others = far.into_iter().filter(|addr| !known.contains(addr));
        links.extend(others.map(|addr| FeedLink::new(self.inner.did, vec![addr])));
        if links.is_empty() {
            links.extend(near.into_iter().map(|addr| FeedLink::new(self.inner.did, vec![addr])));
        }
        Ok(links)
    }

    /// How the node stands. What cannot be read is left out, and a warning says so.
    pub async fn status(&self) -> NodeStatus {
        status::gather::collect(self).await
    }

    /// How long things took since the start.
    #[must_use]
    pub fn timings(&self) -> Timings {
        Timings::of(&self.inner)
    }

    /// Whether the node is alive, and whether it is ready. Bounded in time: what does not answer is named.
    pub async fn health(&self) -> Health {
        health::look(&self.inner).await
    }

    /// Stops the node: sources, then streams (sealed, durable, announced), then the network and the store. Calls after the
    /// first wait for it and get its result. Bounded in time: what takes too long is left behind and named.
    ///
    /// # Errors
    ///
    /// The first thing that did not go well; the node has stopped all the same.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        self.inner.stopped.get_or_init(|| self.inner.stop()).await.clone()
    }
}

/// What a node is assembled from.
struct Parts {
    home: Home,
    config: Config,
    lock: HomeLock,
    keys: MachineKeys,
    store: Store,
    net: Client,
    clock: Clock,
    memory: Arc<Memory>,
    ros_arguments: Option<Vec<String>>,
    policy: Option<Arc<dyn AccessPolicy>>,
}

impl Inner {
    async fn stop(&self) -> Result<(), ShutdownError> {
        tracing::info!("the node stops");
        self.stopping.cancel();
        let mut first = Ok(());
        let mut note = |result: Result<(), ShutdownError>| {
            if let Err(error) = result {
                tracing::error!(%error, "while the node stopped");
                if first.is_ok() {
                    first = Err(error);
                }
            }
        };
        if let Some(buyer) = &self.buyer {
            buyer.end_subscriptions();
        }
        self.jobs.close();
        note(within("ending the sources", SOURCES_END, self.jobs.wait()).await);
        if let Some(machine) = self.machine.clone() {
            let ended = tokio::task::spawn_blocking(move || machine.shutdown());
            note(match timeout(LANES_END, ended).await {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(error))) => Err(ShutdownError::Machine(error.to_string())),
                Ok(Err(error)) => Err(ShutdownError::Machine(error.to_string())),
                Err(_) => Err(ShutdownError::Late { what: "storing what was taken in", limit: LANES_END }),
            });
        }
        let mut ends = self.ends.lock().await;
        ends.quiet.cancel();
        if let Some(announcer) = ends.announcer.take() {
            let told = async { drop(announcer.await) };
            note(within("announcing what was taken in", ANNOUNCER_END, told).await);
            let heard = self.outbox.as_ref().is_some_and(|outbox| outbox.status().listeners > 0);
            if heard {
                // What was published is in the queues of connections; closing them now would drop it.
                tokio::time::sleep(LAST_WORDS).await;
            }
        }
        drop(self.pulls.lock().unwrap_or_else(PoisonError::into_inner).take());
        note(within("remembering peers", MEMORY_END, self.memory.save(&self.net)).await);
        note(within("closing the network", NET_END, self.net.shutdown()).await);
        ends.tasks.shutdown().await;
        let store = self.store.clone();
        let closed = tokio::task::spawn_blocking(move || store.close());
        note(match timeout(STORE_END, closed).await {
            Ok(Ok(result)) => result.map_err(ShutdownError::from),
            Ok(Err(error)) => Err(ShutdownError::Machine(error.to_string())),
            Err(_) => Err(ShutdownError::Late { what: "closing the store", limit: STORE_END }),
        });
        ends.lock = None;
        tracing::info!("the node has stopped");
        first
    }
}

/// What the roles of a node bring.
struct Sides {
    machine: Option<Arc<Machine>>,
    feeds: Option<Feeds>,
    buyer: Option<Buyer>,
    mirror: Option<Mirror>,
}

/// Opens the sides that the roles name.
fn open_sides(
    home: &Home,
    keys: &MachineKeys,
    config: &Config,
    store: &Store,
    net: Client,
    announcer: Arc<FeedAnnouncer>,
    clock: &Clock,
) -> Result<Sides, NodeError> {
    let feeds = if config.has_role(Role::Buyer) || config.has_role(Role::Mirror) {
        let (did, clock) = (keys.identity.did(), Arc::clone(clock));
        Some(Feeds::open(FeedsOptions { did, store: store.clone(), net: Some(net.clone()), clock })?)
    } else {
        None
    };
    let buyer = match &feeds {
        Some(feeds) if config.has_role(Role::Buyer) => Some(Buyer::open(keys, feeds.clone())?),
        _ => None,
    };
    let machine = if config.has_role(Role::Machine) {
        let options = MachineOptions {
            home,
            keys,
            store: store.clone(),
            streams: &config.streams,
            forget_epochs: config.forget_epochs,
            announcer,
            clock: Arc::clone(clock),
        };
        Some(Arc::new(Machine::open(options)?))
    } else {
        None
    };
    let mirror = match &feeds {
        Some(feeds) if config.has_role(Role::Mirror) => Some(Mirror::open(MirrorOptions {
            config: config.mirror.clone(),
            feeds: feeds.clone(),
            store: store.clone(),
            net,
            clock: Arc::clone(clock),
        })?),
        _ => None,
    };
    Ok(Sides { machine, feeds, buyer, mirror })
}

/// Starts the ROS side, which ends as a source does: when the node stops, before the lanes.
async fn start_ros2(
    config: &Ros2Config,
    arguments: Option<Vec<String>>,
    machine: Option<&Arc<Machine>>,
    jobs: &TaskTracker,
    stopping: &CancellationToken,
) -> Result<Arc<Ros2>, NodeError> {
    let machine = Arc::clone(machine.ok_or(Ros2Error::NoMachine)?);
    let options = Ros2Options { config: config.clone(), arguments: arguments.unwrap_or_default(), machine };
    let ros2 = Arc::new(blocking(move || Ros2::start(options)).await??);
    let (ends, stopping) = (Arc::clone(&ros2), stopping.clone());
    jobs.spawn(async move {
        stopping.cancelled().await;
        // Only the end of the runtime keeps it from ending, and then it ends with the process.
        let _ = tokio::task::spawn_blocking(move || ends.stop()).await;
    });
    Ok(ros2)
}

/// A machine listens to its own topics: who listens is in the mesh that its entries travel through, and an entry of its own
/// that it does not know tells of a twin.
async fn listen_to_own(net: &Client, machine: &Machine) -> Result<(), NodeError> {
    let did = machine.did();
    net.subscribe(topic_machine(&did)).await?;
    for stream in machine.report()? {
        net.subscribe(topic_stream(&did, &stream.stream)).await?;
    }
    Ok(())
}

fn is_loopback(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

fn log_open(report: &OpenReport) {
    let OpenReport { recovery, replayed_frames, cut_bytes, lost_frames, elapsed, damage, .. } = report;
    tracing::info!(?recovery, replayed_frames, cut_bytes, ?elapsed, "store open");
    for damage in damage {
        tracing::error!(?damage, lost_frames, "the store is damaged; run `tributary store check`");
    }
}

/// Runs what blocks where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a blocking task failed");
        NodeError::Stopped
    })
}

async fn close(store: Store) {
    // The error that brought us here is the one to tell.
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
}

async fn within(what: &'static str, limit: Duration, work: impl Future<Output = ()>) -> Result<(), ShutdownError> {
    timeout(limit, work).await.map_err(|_| ShutdownError::Late { what, limit })
}
