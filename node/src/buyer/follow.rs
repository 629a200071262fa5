//! Finding machines, following their feeds, and catching up.
//!
//! Owns what is asked of peers about feeds and in which order. Nothing a peer says counts before it is checked from the
//! machine's DID. One catch-up per feed at a time; what gossip cannot apply at once (a gap, a new key) is left to it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use libp2p::{Multiaddr, PeerId, identity, multiaddr::Protocol};
use serde::Serialize;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tributary_protocol::{
    binding::{Binding, SignedBinding},
    entry::{EntryBody, SignedEntry, SignedHead},
    feed::HeadVerdict,
    ids::{Did, LogId, LogKey, StreamId},
    keys::{EncryptionPublicKey, FeedPublicKey},
    seal,
    wire::{FeedMessage, SyncRequest, SyncResponse, gossip, parse_topic, topic_machine, topic_stream},
};

use super::{
    Buyer, Inner, MAX_FEEDS, blocking,
    error::{BuyerError, FollowError},
    feed::{Applied, Feed, FollowRow, Streams, chain_of},
    link::FeedLink,
};
use crate::net::{Acceptance, Client, Offence, PeerEvent};

/// Entries asked for at a time.
const PAGE: u32 = 256;
/// Bindings of a machine are asked for at most this often because of gossip.
const BINDINGS_EVERY: Duration = Duration::from_secs(5);
/// Every feed is caught up with at least this often.
const TICK: Duration = Duration::from_secs(60);
/// Peers remembered per feed beside the machine's own nodes.
const MAX_PEERS: usize = 16;
/// How often a busy peer is asked again.
const BUSY_RETRIES: usize = 6;
/// Longest wait for a busy peer.
const MAX_BUSY_WAIT: Duration = Duration::from_secs(10);
/// Work that waits; more is dropped, the next head or tick brings it again.
pub(super) const WORK_QUEUE: usize = 64;
/// Events a slow watcher may fall behind.
pub(super) const EVENT_QUEUE: usize = 1024;

/// What was found at a link.
#[derive(Debug, Clone, Serialize)]
pub struct MachineInfo {
    /// The machine.
    pub did: Did,
    /// The node that answered, proven to be one of the machine's.
    #[serde(serialize_with = "text")]
    pub peer: PeerId,
    /// Where it answered.
    #[serde(serialize_with = "text")]
    pub addr: Multiaddr,
    /// Serial of the newest binding.
    pub binding_serial: u64,
    /// How often the machine was restored.
    pub incarnation: u32,
    /// Its owner.
    pub owner: Did,
    /// Its feed key.
    pub feed_key: FeedPublicKey,
    /// What is sealed to it.
    pub encryption_key: EncryptionPublicKey,
    /// When the binding becomes stale, ms since 1970.
    pub expires_ms: u64,
    /// Whether it is stale already.
    pub stale: bool,
}

fn text<T: ToString, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

/// What catching up brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CatchUpReport {
    /// New bindings.
    pub bindings: u64,
    /// New entries.
    pub entries: u64,
    /// Bytes of entries that were sent to us.
    pub bytes: u64,
    /// Logs that are followed.
    pub logs: u64,
}

/// How a feed stands.
#[derive(Debug, Clone, Serialize)]
pub struct FeedStatus {
    /// The machine.
    pub did: Did,
    /// Which streams are followed.
    pub streams: Streams,
    /// Since when, ms since 1970.
    pub since_ms: u64,
    /// Where its nodes were found.
    pub addrs: Vec<String>,
    /// Serial of the newest binding.
    pub binding_serial: Option<u64>,
    /// Whether the newest binding is past its time: the machine should have renewed it.
    pub stale_binding: bool,
    /// Proofs that the machine signs two stories. Anything but 0 means: do not trust its newest statements.
    pub equivocations: u64,
    /// Entries and heads that counted for nothing.
    pub noise: u64,
    /// Entries whose time or binding looked odd.
    pub flagged: u64,
    /// Its logs.
    pub logs: Vec<LogStatus>,
}

/// How a log of a feed stands.
#[derive(Debug, Clone, Serialize)]
pub struct LogStatus {
    /// The log.
    pub log: LogId,
    /// Its incarnation.
    pub incarnation: u32,
    /// Entries from the first to the next one to come.
    pub next: u64,
    /// Up to here (exclusive) everything is certain.
    pub settled: u64,
    /// Time of the newest entry, ms since 1970.
    pub time_ms: u64,
    /// How far the machine says that it goes: one behind the newest entry.
    pub announced: Option<u64>,
    /// When it said so, ms since 1970: an old head may mean that somebody hides newer ones.
    pub head_ms: Option<u64>,
}

/// Something that happened on a followed feed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FeedEvent {
    /// Entries were stored.
    Entries {
        /// The machine.
        did: Did,
        /// The log.
        log: LogId,
        /// Its incarnation.
        incarnation: u32,
        /// Position of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The machine contradicted itself.
    Equivocation {
        /// The machine.
        did: Did,
    },
}

/// Work for the background task.
pub(super) enum Work {
    CatchUp { did: Did, peer: Option<PeerId> },
}

/// A followed feed and what is known about reaching it.
pub(super) struct Handle {
    pub(super) did: Did,
    /// Taken only where blocking is allowed, and for one step at a time.
    pub(super) feed: Mutex<Feed>,
    /// One catch-up at a time.
    turn: Semaphore,
    state: Mutex<Reach>,
    flagged: AtomicU64,
}

#[derive(Default)]
struct Reach {
    /// Who told something about the feed, the newest first.
    peers: Vec<PeerId>,
    /// Who was named as a provider of its chunks.
    providers: Vec<PeerId>,
    bindings_asked: Option<Instant>,
}

impl Handle {
    pub(super) fn new(feed: Feed) -> Arc<Self> {
        Arc::new(Self {
            did: feed.did,
            feed: Mutex::new(feed),
            turn: Semaphore::new(1),
            state: Mutex::default(),
            flagged: AtomicU64::new(0),
        })
    }

    pub(super) fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a peer that may have the feed; the newest first.
    fn remember(&self, peer: PeerId) {
        let mut reach = self.reach();
        reach.peers.retain(|known| *known != peer);
        reach.peers.insert(0, peer);
        reach.peers.truncate(MAX_PEERS);
    }

    /// Whether bindings may be asked for because of gossip.
    fn may_ask_bindings(&self) -> bool {
        let mut reach = self.reach();
        let due = reach.bindings_asked.is_none_or(|at| at.elapsed() >= BINDINGS_EVERY);
        if due {
            reach.bindings_asked = Some(Instant::now());
        }
        due
    }
}

/// The peers that a binding names.
pub(super) fn node_peers(binding: &Binding) -> Vec<PeerId> {
    let peer = |key: &[u8; 32]| {
        let key = identity::ed25519::PublicKey::try_from_bytes(key).ok()?;
        Some(identity::PublicKey::from(key).to_peer_id())
    };
    binding.node_keys.iter().filter_map(peer).collect()
}

/// Waits between questions to a busy peer: grows, bounded, with jitter.
pub(super) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_BUSY_WAIT)
        .with_jitter()
        .with_max_times(BUSY_RETRIES)
        .build()
}

/// Asks a peer, again while it is busy.
async fn ask(net: &Client, peer: PeerId, request: &SyncRequest) -> Result<SyncResponse, FollowError> {
    let bytes = request.encode().map_err(|source| FollowError::Malformed { peer, source: Box::new(source) })?;
    let mut waits = backoff();
    loop {
        let answer = net
            .sync(peer, bytes.clone())
            .await
            .map_err(|source| FollowError::Request { peer, source: Box::new(source) })?;
        let answer = match SyncResponse::decode(&answer) {
            Ok(answer) => answer,
            Err(source) => {
                net.penalize(peer, Offence::Malformed).await?;
                return Err(FollowError::Malformed { peer, source: Box::new(source) });
            }
        };
        let SyncResponse::Busy { retry_ms } = answer else { return Ok(answer) };
        let Some(wait) = waits.next() else { return Err(FollowError::Busy { peer }) };
        let asked = Duration::from_millis(retry_ms.into()).min(MAX_BUSY_WAIT);
        tokio::time::sleep(wait.max(asked)).await;
    }
}

/// A page of bindings.
async fn ask_bindings(
    net: &Client,
    peer: PeerId,
    did: Did,
    from_serial: u64,
) -> Result<(Vec<SignedBinding>, bool), FollowError> {
    match ask(net, peer, &SyncRequest::Bindings { did, from_serial }).await? {
        SyncResponse::Bindings { bindings, more } => {
            let decoded: Result<Vec<_>, _> = bindings.iter().map(|bytes| SignedBinding::decode(bytes)).collect();
            match decoded {
                Ok(bindings) => Ok((bindings, more)),
                Err(source) => {
                    net.penalize(peer, Offence::Malformed).await?;
                    Err(FollowError::Entry { peer, source: Box::new(source.into()) })
                }
            }
        }
        SyncResponse::NotFound => Ok((Vec::new(), false)),
        _ => Err(odd(net, peer, "it was asked for bindings").await),
    }
}

async fn odd(net: &Client, peer: PeerId, what: &'static str) -> FollowError {
    match net.penalize(peer, Offence::Malformed).await {
        Ok(()) => FollowError::Answer { peer, what },
        Err(closed) => closed.into(),
    }
}

impl Buyer {
    pub(super) fn net(&self) -> Result<&Client, FollowError> {
        self.inner.net.as_ref().ok_or(FollowError::Offline)
    }

    /// Dials the addresses of a link one after the other until a node answers that is proven to be the machine's, from the
    /// DID alone.
    ///
    /// # Errors
    ///
    /// What happened at the last address.
    pub async fn find(&self, link: &FeedLink) -> Result<MachineInfo, FollowError> {
        Ok(self.look_up(link).await?.0)
    }

    async fn look_up(&self, link: &FeedLink) -> Result<(MachineInfo, Vec<SignedBinding>), FollowError> {
        let net = self.net()?;
        let did = link.did;
        if did == self.inner.did {
            return Err(FollowError::Myself(did));
        }
        let mut last = FollowError::NoAddress(did);
        for addr in &link.addrs {
            let peer = match net.dial(addr.clone()).await {
                Ok(peer) => peer,
                Err(source) => {
                    last = FollowError::Dial { did, source: Box::new(source) };
                    continue;
                }
            };
            match self.prove(peer, did).await {
                Ok((binding, bindings)) => {
                    let info = MachineInfo {
                        did,
                        peer,
                        addr: addr.clone(),
                        binding_serial: binding.serial,
                        incarnation: binding.incarnation,
                        owner: binding.owner_id,
                        feed_key: binding.feed_key,
                        encryption_key: binding.encryption_key,
                        expires_ms: binding.expires_ms,
                        stale: binding.is_stale_at(self.now()),
                    };
                    return Ok((info, bindings));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Fetches all bindings from a peer and checks that it is one of the nodes the newest one names.
    async fn prove(&self, peer: PeerId, did: Did) -> Result<(Binding, Vec<SignedBinding>), FollowError> {
        let net = self.net()?;
        let mut bindings: Vec<SignedBinding> = Vec::new();
        loop {
            let from_serial = bindings.len() as u64;
            let (page, more) = ask_bindings(net, peer, did, from_serial).await?;
            let room = tributary_protocol::binding::chain::MAX_BINDINGS.saturating_sub(bindings.len());
            bindings.extend(page.into_iter().take(room));
            if !more || bindings.len() >= tributary_protocol::binding::chain::MAX_BINDINGS {
                break;
            }
        }
        let chain = match chain_of(&did, &bindings) {
            Ok(Some(chain)) => chain,
            Ok(None) => return Err(FollowError::Unknown { peer, did }),
            Err(source) => {
                net.penalize(peer, Offence::BadProof).await?;
                return Err(FollowError::Chain { peer, did, source: Box::new(source) });
            }
        };
        let binding = chain.current().clone();
        if !node_peers(&binding).contains(&peer) {
            return Err(FollowError::NotTheMachine { peer, did });
        }
        Ok((binding, bindings))
    }

    /// Finds a machine, follows its feed from the start, and catches up. Following again changes which streams are followed.
    ///
    /// # Errors
    ///
    /// When the machine is not found, nothing is stored. When catching up fails, the feed is followed all the same, and
    /// [`Buyer::catch_up`] continues.
    pub async fn follow(&self, link: &FeedLink, streams: Streams) -> Result<(MachineInfo, CatchUpReport), FollowError> {
        if let Streams::Names(names) = &streams
            && (names.len() > 256 || names.iter().any(|name| name.len() > 256))
        {
            return Err(FollowError::Streams);
        }
        let (info, bindings) = self.look_up(link).await?;
        let mut addrs: Vec<String> = vec![info.addr.to_string()];
        addrs.extend(link.addrs.iter().map(ToString::to_string).filter(|addr| *addr != info.addr.to_string()));
        let row = FollowRow { version: 1, streams, addrs, since_ms: self.now() };
        let buyer = self.clone();
        let did = link.did;
        let handle = blocking(move || buyer.keep(did, row, &bindings)).await??;
        handle.remember(info.peer);
        self.leave_others(&handle).await?;
        self.subscribe(&handle).await?;
        let report = self.catch_up_with(&handle, Some(info.peer)).await?;
        Ok((info, report))
    }

    fn keep(&self, did: Did, row: FollowRow, bindings: &[SignedBinding]) -> Result<Arc<Handle>, FollowError> {
        if let Ok(handle) = self.handle(&did) {
            let mut feed = handle.feed();
            let since_ms = feed.row.since_ms;
            feed.set_row(FollowRow { since_ms, ..row })?;
            drop(feed);
            return Ok(handle);
        }
        if self.feeds().len() >= MAX_FEEDS {
            return Err(FollowError::TooManyFeeds(MAX_FEEDS));
        }
        let feed = Feed::create(&self.inner.store, did, row, bindings)?;
        let handle = Handle::new(feed);
        Ok(Arc::clone(self.feeds().entry(did).or_insert(handle)))
    }

    /// Stops following a machine: no more gossip, no more catching up. What is stored stays.
    ///
    /// # Errors
    ///
    /// [`BuyerError::NotFollowed`], or the store.
    pub async fn unfollow(&self, did: &Did) -> Result<(), FollowError> {
        let handle = self.handle(did)?;
        let (store, key) = (self.inner.store.clone(), *did);
        blocking(move || {
            let mut batch = tributary_store::WriteBatch::new();
            batch.delete_row(tributary_store::Table::Follow, key.as_bytes().to_vec());
            store.commit(batch)
        })
        .await??;
        self.feeds().remove(did);
        if let Ok(net) = self.net() {
            for topic in self.topics(handle).await? {
                net.unsubscribe(topic).await?;
            }
        }
        Ok(())
    }

    /// The topics of a feed as far as its streams are known.
    async fn topics(&self, handle: Arc<Handle>) -> Result<Vec<String>, FollowError> {
        let buyer = self.clone();
        Ok(blocking(move || -> Result<Vec<String>, BuyerError> {
            let (did, streams) = (handle.did, handle.feed().row.streams.clone());
            let mut topics = vec![topic_machine(&did)];
            match &streams {
                Streams::Names(names) => {
                    topics.extend(names.iter().map(|name| topic_stream(&did, &StreamId::of(&did, name))));
                }
                Streams::All => {
                    let announced = buyer.stream_infos(&did)?;
                    topics.extend(announced.keys().map(|stream| topic_stream(&did, stream)));
                }
            }
            Ok(topics)
        })
        .await??)
    }

    /// Leaves the gossip of streams that are no longer followed.
    async fn leave_others(&self, handle: &Arc<Handle>) -> Result<(), FollowError> {
        let (net, buyer, handle) = (self.net()?, self.clone(), Arc::clone(handle));
        let others = blocking(move || -> Result<Vec<String>, BuyerError> {
            let (did, streams) = (handle.did, handle.feed().row.streams.clone());
            let announced = buyer.stream_infos(&did)?;
            let other = announced.keys().filter(|stream| !streams.wants(&did, &LogId::from(**stream)));
            Ok(other.map(|stream| topic_stream(&did, stream)).collect())
        })
        .await??;
        for topic in others {
            net.unsubscribe(topic).await?;
        }
        Ok(())
    }

    /// Subscribes to the gossip of a feed.
    async fn subscribe(&self, handle: &Arc<Handle>) -> Result<(), FollowError> {
        let net = self.net()?;
        for topic in self.topics(Arc::clone(handle)).await? {
            net.subscribe(topic).await?;
        }
        Ok(())
    }

    /// Takes a gossip message and says what it was worth. Everything that counts is durable when this returns.
    pub async fn on_gossip(&self, topic: &str, source: PeerId, bytes: Vec<u8>) -> Acceptance {
        if bytes.len() > gossip::MAX_MESSAGE {
            return Acceptance::Reject;
        }
        let Some((did, log)) = parse_topic(topic) else { return Acceptance::Ignore };
        let Ok(handle) = self.handle(&did) else { return Acceptance::Ignore };
        let Ok(message) = FeedMessage::decode(&bytes) else { return Acceptance::Reject };
        let buyer = self.clone();
        let work = {
            let handle = Arc::clone(&handle);
            move || match message {
                FeedMessage::Entry { entry, attachment } => {
                    buyer.gossip_entry(&handle, log, &entry, attachment.as_deref())
                }
                FeedMessage::Head(head) => buyer.gossip_head(&handle, log, &head),
            }
        };
        let outcome = match blocking(work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::warn!(%did, %error, "a gossip message could not be stored");
                return Acceptance::Ignore;
            }
            Err(_) => return Acceptance::Ignore,
        };
        if outcome.acceptance != Acceptance::Reject {
            handle.remember(source);
        }
        if outcome.catch_up && (!outcome.bindings || handle.may_ask_bindings()) {
            self.inner.queue(Work::CatchUp { did, peer: Some(source) });
        }
        if let (Some(stream), Some(net)) = (outcome.stream, &self.inner.net)
            && let Err(error) = net.subscribe(topic_stream(&did, &stream)).await
        {
            tracing::warn!(%did, %stream, %error, "a new stream is followed without gossip");
        }
        outcome.acceptance
    }

    fn gossip_entry(
        &self,
        handle: &Handle,
        log: LogId,
        bytes: &[u8],
        attachment: Option<&[u8]>,
    ) -> Result<GossipOutcome, BuyerError> {
        let Ok(signed) = SignedEntry::decode(bytes) else { return Ok(Acceptance::Reject.into()) };
        let entry = signed.entry();
        if entry.did != handle.did || entry.log != log {
            return Ok(Acceptance::Reject.into());
        }
        let now = self.now();
        let mut feed = handle.feed();
        if !feed.row.streams.wants(&handle.did, &log) {
            return Ok(Acceptance::Ignore.into());
        }
        let one = std::slice::from_ref(&signed);
        let mut applied = feed.on_entries(one, attachment, now)?;
        if let ([Applied::UnknownKey], EntryBody::Binding(binding)) = (applied.as_slice(), &entry.body)
            && matches!(feed.on_bindings(std::slice::from_ref(binding))?, Ok(1))
        {
            applied = feed.on_entries(one, attachment, now)?;
        }
        let wanted = feed.row.streams.clone();
        drop(feed);
        let matches = match (attachment, &entry.body) {
            (None, _) => true,
            (Some(body), EntryBody::Chunk(record)) => seal::check_bytes(record, body).is_ok(),
            (Some(_), _) => false,
        };
        let good = if matches { Acceptance::Accept } else { Acceptance::Reject };
        let outcome = match applied.pop() {
            Some(Applied::New { flags, stream }) => {
                self.note(handle, &flags);
                self.inner.tell(FeedEvent::Entries {
                    did: handle.did,
                    log,
                    incarnation: entry.incarnation,
                    first: entry.seq,
                    count: 1,
                });
                let stream = stream.filter(|stream| wanted.wants(&handle.did, &LogId::from(*stream)));
                GossipOutcome { stream, ..good.into() }
            }
            Some(Applied::Ahead) => GossipOutcome { catch_up: true, ..good.into() },
            Some(Applied::UnknownKey) => GossipOutcome { catch_up: true, bindings: true, ..Acceptance::Ignore.into() },
            Some(Applied::Cut) => GossipOutcome { catch_up: true, ..good.into() },
            Some(Applied::Equivocation) => {
                self.inner.tell(FeedEvent::Equivocation { did: handle.did });
                // The machine signed both: whoever passes the proof on helps.
                Acceptance::Accept.into()
            }
            Some(Applied::Bad(_)) => Acceptance::Reject.into(),
            Some(Applied::Known | Applied::Noise(_)) | None => Acceptance::Ignore.into(),
        };
        Ok(outcome)
    }

    fn gossip_head(&self, handle: &Handle, log: LogId, bytes: &[u8]) -> Result<GossipOutcome, BuyerError> {
        let Ok(head) = SignedHead::decode(bytes) else { return Ok(Acceptance::Reject.into()) };
        if head.head().did != handle.did || head.head().log != log {
            return Ok(Acceptance::Reject.into());
        }
        let mut feed = handle.feed();
        if !feed.row.streams.wants(&handle.did, &log) {
            return Ok(Acceptance::Ignore.into());
        }
        let verdict = feed.on_head(&head)?;
        drop(feed);
        Ok(match verdict {
            HeadVerdict::Current => Acceptance::Accept.into(),
            HeadVerdict::Behind { .. } => GossipOutcome { catch_up: true, ..Acceptance::Accept.into() },
            HeadVerdict::Equivocation(_) => {
                self.inner.tell(FeedEvent::Equivocation { did: handle.did });
                Acceptance::Accept.into()
            }
            HeadVerdict::UnknownKey if head.verify_signature().is_err() => Acceptance::Reject.into(),
            HeadVerdict::UnknownKey => GossipOutcome { catch_up: true, bindings: true, ..Acceptance::Ignore.into() },
            HeadVerdict::BadSignature | HeadVerdict::WrongMachine => Acceptance::Reject.into(),
            _ => Acceptance::Ignore.into(),
        })
    }

    /// Counts what looks odd but counts all the same.
    fn note(&self, handle: &Handle, flags: &tributary_protocol::feed::Flags) {
        if *flags != tributary_protocol::feed::Flags::default() {
            handle.flagged.fetch_add(1, Relaxed);
            tracing::warn!(did = %handle.did, ?flags, "an entry looks odd");
            if flags.second_close {
                self.inner.tell(FeedEvent::Equivocation { did: handle.did });
            }
        }
    }

    /// Brings the feed of a followed machine up to date, from the first peer that can: bindings, then all followed logs.
    ///
    /// # Errors
    ///
    /// What happened with the last peer. Everything that came before is kept.
    pub async fn catch_up(&self, did: &Did) -> Result<CatchUpReport, FollowError> {
        let handle = self.handle(did)?;
        self.catch_up_with(&handle, None).await
    }

    async fn catch_up_with(&self, handle: &Arc<Handle>, first: Option<PeerId>) -> Result<CatchUpReport, FollowError> {
        let _turn = handle.turn.acquire().await.map_err(|_| BuyerError::Stopped)?;
        let mut peers = self.peers_of(handle).await?;
        if let Some(first) = first {
            peers.retain(|peer| *peer != first);
            peers.insert(0, first);
        }
        let mut last = FollowError::NoAddress(handle.did);
        for peer in peers {
            if let Err(error) = self.reach(handle, peer).await {
                last = error;
                continue;
            }
            match self.catch_up_from(handle, peer).await {
                Ok(report) => return Ok(report),
                // About the machine, not about the peer: another peer would say the same.
                Err(error @ (FollowError::Buyer(_) | FollowError::Equivocation(_) | FollowError::Closed(_))) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(did = %handle.did, %peer, %error, "catching up failed");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The peers to ask about a feed: the machine's own nodes first.
    pub(super) async fn peers_of(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let mut peers = self.machine_peers(handle).await?;
        let others: Vec<PeerId> = handle.reach().peers.clone();
        peers.extend(others.into_iter().filter(|peer| !peers.contains(peer)).collect::<Vec<_>>());
        Ok(peers)
    }

    /// The nodes that the machine's newest binding names.
    pub(super) async fn machine_peers(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let handle = Arc::clone(handle);
        Ok(blocking(move || handle.feed().follower().chain().map(|chain| node_peers(chain.current())))
            .await?
            .unwrap_or_default())
    }

    /// Makes sure that there is a connection to a peer.
    pub(super) async fn reach(&self, handle: &Arc<Handle>, peer: PeerId) -> Result<(), FollowError> {
        let net = self.net()?;
        let known = Arc::clone(handle);
        let addrs = blocking(move || known.feed().row.addrs.clone()).await?;
        let fits = |addr: &Multiaddr| match addr.iter().last() {
            Some(Protocol::P2p(named)) => named == peer,
            _ => true,
        };
        let addrs = addrs.iter().filter_map(|addr| addr.parse().ok()).filter(fits).collect();
        net.connect(peer, addrs).await.map_err(|source| FollowError::Dial { did: handle.did, source: Box::new(source) })
    }

    /// Adds a peer that may have a machine's feed and chunks, such as a mirror. At most 16 are kept per machine.
    ///
    /// # Errors
    ///
    /// [`BuyerError::NotFollowed`].
    pub fn add_provider(&self, did: &Did, peer: PeerId) -> Result<(), BuyerError> {
        let handle = self.handle(did)?;
        handle.remember(peer);
        let mut reach = handle.reach();
        if !reach.providers.contains(&peer) && reach.providers.len() < MAX_PEERS {
            reach.providers.push(peer);
        }
        Ok(())
    }

    /// The peers to pull from: the machine's own nodes, then those named as providers.
    pub(super) async fn providers_of(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let mut peers = self.machine_peers(handle).await?;
        let named: Vec<PeerId> = handle.reach().providers.clone();
        peers.extend(named.into_iter().filter(|peer| !peers.contains(peer)).collect::<Vec<_>>());
        Ok(peers)
    }

    /// Fetches the bindings that are missing. A fork of the bindings is the machine's, all else the peer's fault.
    pub(super) async fn fetch_bindings(&self, handle: &Arc<Handle>, peer: PeerId) -> Result<u64, FollowError> {
        let net = self.net()?;
        let mut new = 0;
        loop {
            let known = Arc::clone(handle);
            let from_serial = blocking(move || known.feed().follower().next_serial()).await?;
            let (page, more) = ask_bindings(net, peer, handle.did, from_serial).await?;
            if page.is_empty() {
                return Ok(new);
            }
            let known = Arc::clone(handle);
            match blocking(move || known.feed().on_bindings(&page)).await?? {
                Ok(0) => return Err(odd(net, peer, "it sends bindings that were not asked for").await),
                Ok(count) => new += count as u64,
                Err(source) => {
                    net.penalize(peer, Offence::BadProof).await?;
                    return Err(FollowError::Chain { peer, did: handle.did, source: Box::new(source) });
                }
            }
            if !more {
                return Ok(new);
            }
        }
    }

    async fn catch_up_from(&self, handle: &Arc<Handle>, peer: PeerId) -> Result<CatchUpReport, FollowError> {
        let net = self.net()?;
        let did = handle.did;
        let mut report =
            CatchUpReport { bindings: self.fetch_bindings(handle, peer).await?, ..CatchUpReport::default() };
        let known = Arc::clone(handle);
        for (log, from, to) in blocking(move || known.feed().closed_logs()).await? {
            report.logs += 1;
            self.fetch_log(handle, peer, log, from, Some(to), &mut report).await?;
        }
        let mut from_log = LogId::MACHINE;
        loop {
            let (heads, more) = match ask(net, peer, &SyncRequest::Heads { did, from_log }).await? {
                SyncResponse::Heads { heads, more } => (heads, more),
                SyncResponse::NotFound => (Vec::new(), false),
                _ => return Err(odd(net, peer, "it was asked for heads").await),
            };
            for bytes in &heads {
                let head = match SignedHead::decode(bytes) {
                    Ok(head) => head,
                    Err(source) => {
                        net.penalize(peer, Offence::Malformed).await?;
                        return Err(FollowError::Entry { peer, source: Box::new(source) });
                    }
                };
                let (log, said) = (head.head().log, head.head().key());
                if said.did != did || log < from_log {
                    return Err(odd(net, peer, "it was asked for the heads of one machine, in order").await);
                }
                // Ascending by log, and the last one again ends a page: every answer makes progress.
                let Some(next_log) = after(&log) else { return Ok(report) };
                from_log = next_log;
                let known = Arc::clone(handle);
                let verdict = blocking(move || {
                    let mut feed = known.feed();
                    if !feed.row.streams.wants(&known.did, &log) {
                        return Ok(None);
                    }
                    feed.on_head(&head).map(Some)
                })
                .await??;
                let Some(verdict) = verdict else { continue };
                report.logs += 1;
                match verdict {
                    HeadVerdict::Behind { from, .. } => {
                        self.fetch_log(handle, peer, said, from, None, &mut report).await?;
                    }
                    HeadVerdict::Equivocation(_) => {
                        self.inner.tell(FeedEvent::Equivocation { did });
                        return Err(FollowError::Equivocation(did));
                    }
                    HeadVerdict::BadSignature => {
                        net.penalize(peer, Offence::BadProof).await?;
                        return Err(FollowError::Answer { peer, what: "a head with a wrong signature" });
                    }
                    HeadVerdict::UnknownKey => {
                        return Err(FollowError::Answer { peer, what: "a head by a key that no binding names" });
                    }
                    _ => {}
                }
            }
            if !more || heads.is_empty() {
                break;
            }
        }
        self.subscribe(handle).await?;
        Ok(report)
    }

    /// Fetches a log from a position on, page by page, each durable before the next is asked for. `end` is exclusive.
    async fn fetch_log(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        log: LogKey,
        mut from: u64,
        end: Option<u64>,
        report: &mut CatchUpReport,
    ) -> Result<(), FollowError> {
        let net = self.net()?;
        let mut cuts = 0;
        while end.is_none_or(|end| from < end) {
            let max = end.map_or(PAGE, |end| u32::try_from(end - from).unwrap_or(PAGE).min(PAGE));
            let (page, more) = match ask(net, peer, &SyncRequest::Entries { log, from, max }).await? {
                SyncResponse::Entries { entries, more } => (entries, more),
                SyncResponse::NotFound => return Ok(()),
                _ => return Err(odd(net, peer, "it was asked for entries").await),
            };
            if page.is_empty() {
                return Ok(());
            }
            report.bytes += page.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            let mut entries = Vec::with_capacity(page.len());
            for (bytes, seq) in page.iter().zip(from..) {
                match SignedEntry::decode(bytes) {
                    Ok(entry) if entry.entry().key() == log && entry.entry().seq == seq => entries.push(entry),
                    Ok(_) => return Err(odd(net, peer, "other entries than were asked for").await),
                    Err(source) => {
                        net.penalize(peer, Offence::Malformed).await?;
                        return Err(FollowError::Entry { peer, source: Box::new(source) });
                    }
                }
            }
            let (known, now) = (Arc::clone(handle), self.now());
            let applied = blocking(move || {
                let mut feed = known.feed();
                feed.on_entries(&entries, None, now)
                    .map(|applied| (applied, feed.follower().next(&log.log, log.incarnation)))
            })
            .await??;
            let (applied, next) = applied;
            let mut new = 0;
            let mut restart = false;
            for (what, seq) in applied.iter().zip(from..) {
                let bad = |reason| FollowError::BadEntry { peer, seq, reason };
                match what {
                    Applied::New { flags, .. } => {
                        new += 1;
                        self.note(handle, flags);
                    }
                    Applied::Known => {}
                    Applied::Cut => {
                        cuts += 1;
                        restart = cuts < 4;
                        if !restart {
                            return Err(bad("the peer tells another story every time"));
                        }
                    }
                    Applied::Ahead => restart = true,
                    Applied::UnknownKey => return Err(bad("no binding names its key")),
                    Applied::Equivocation => {
                        self.inner.tell(FeedEvent::Equivocation { did: handle.did });
                        return Err(FollowError::Equivocation(handle.did));
                    }
                    Applied::Noise(reason) => return Err(bad(reason)),
                    Applied::Bad(reason) => {
                        net.penalize(peer, Offence::BadProof).await?;
                        return Err(bad(reason));
                    }
                }
            }
            report.entries += new;
            if new > 0 {
                self.inner.tell(FeedEvent::Entries {
                    did: handle.did,
                    log: log.log,
                    incarnation: log.incarnation,
                    first: next.saturating_sub(new),
                    count: new,
                });
            }
            if next <= from && !restart {
                return Err(odd(net, peer, "entries that lead nowhere").await);
            }
            from = next;
            if !more && !restart {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Newest heads of a followed machine's logs, as they were signed, for peers that ask this node. Call it where blocking is
    /// allowed.
    #[must_use]
    pub fn heads(&self, did: &Did) -> Vec<Vec<u8>> {
        let Ok(handle) = self.handle(did) else { return Vec::new() };
        let feed = handle.feed();
        let follower = feed.follower();
        let head = |tip: tributary_protocol::feed::LogTip| {
            let newest = follower.newest_head(&tip.log.log, tip.log.incarnation)?;
            Some(newest.bytes().to_vec())
        };
        follower.tips().filter_map(head).collect()
    }

    /// How a followed feed stands.
    ///
    /// # Errors
    ///
    /// [`BuyerError::NotFollowed`].
    pub async fn status(&self, did: &Did) -> Result<FeedStatus, BuyerError> {
        let (handle, now) = (self.handle(did)?, self.now());
        blocking(move || {
            let feed = handle.feed();
            let follower = feed.follower();
            let log = |tip: tributary_protocol::feed::LogTip| {
                let LogKey { log, incarnation, .. } = tip.log;
                let head = follower.newest_head(&log, incarnation).map(SignedHead::head);
                LogStatus {
                    log,
                    incarnation,
                    next: tip.next,
                    settled: follower.settled(&log, incarnation),
                    time_ms: tip.time_ms,
                    announced: head.map(|head| head.seq.saturating_add(1)),
                    head_ms: head.map(|head| head.time_ms),
                }
            };
            let binding = follower.chain().map(tributary_protocol::binding::BindingChain::current);
            FeedStatus {
                did: handle.did,
                streams: feed.row.streams.clone(),
                since_ms: feed.row.since_ms,
                addrs: feed.row.addrs.clone(),
                binding_serial: binding.map(|binding| binding.serial),
                stale_binding: binding.is_some_and(|binding| binding.is_stale_at(now)),
                equivocations: feed.evidence(),
                noise: follower.noise(),
                flagged: handle.flagged.load(Relaxed),
                logs: follower.tips().map(log).collect(),
            }
        })
        .await
    }

    /// What happens on followed feeds from now on. A reader that falls behind loses the oldest events.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<FeedEvent> {
        self.inner.events.subscribe()
    }
}

/// The log id behind this one; `None` behind the last.
fn after(log: &LogId) -> Option<LogId> {
    let mut bytes = *log.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            return Some(LogId::from_bytes(bytes));
        }
    }
    None
}

/// What a gossip message leads to.
struct GossipOutcome {
    acceptance: Acceptance,
    catch_up: bool,
    bindings: bool,
    stream: Option<StreamId>,
}

impl From<Acceptance> for GossipOutcome {
    fn from(acceptance: Acceptance) -> Self {
        Self { acceptance, catch_up: false, bindings: false, stream: None }
    }
}

/// Runs until the buyer is gone: catches up where gossip left a gap, when a peer comes, and every minute.
pub(super) async fn background(inner: Weak<Inner>, net: Client, mut work: mpsc::Receiver<Work>) {
    let mut peers = net.watch_peers();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    drop(net);
    let mut peers_open = true;
    let running: Arc<Mutex<BTreeMap<Did, ()>>> = Arc::default();
    loop {
        let wanted: Vec<(Did, Option<PeerId>)> = tokio::select! {
            item = work.recv() => match item {
                Some(Work::CatchUp { did, peer }) => vec![(did, peer)],
                None => return,
            },
            event = peers.recv(), if peers_open => match event {
                Ok(PeerEvent::Subscribed { peer, topic }) => {
                    parse_topic(&topic).filter(|(_, log)| *log == LogId::MACHINE).map(|(did, _)| (did, Some(peer))).into_iter().collect()
                }
                Err(broadcast::error::RecvError::Closed) => { peers_open = false; Vec::new() }
                _ => Vec::new(),
            },
            _ = tick.tick() => {
                let Some(inner) = inner.upgrade() else { return };
                Buyer { inner }.feeds().keys().map(|did| (*did, None)).collect()
            }
        };
        for (did, peer) in wanted {
            let Some(inner) = inner.upgrade() else { return };
            let buyer = Buyer { inner };
            let Ok(handle) = buyer.handle(&did) else { continue };
            // One at a time per feed: what is asked for while one runs is what that one brings, or the next head does.
            if running.lock().unwrap_or_else(PoisonError::into_inner).insert(did, ()).is_some() {
                continue;
            }
            let running = Arc::clone(&running);
            tokio::spawn(async move {
                if let Err(error) = buyer.catch_up_with(&handle, peer).await {
                    tracing::debug!(%did, %error, "catching up failed");
                }
                if let Err(error) = buyer.subscribe(&handle).await {
                    tracing::debug!(%did, %error, "a feed is followed without gossip");
                }
                running.lock().unwrap_or_else(PoisonError::into_inner).remove(&did);
            });
        }
    }
}
