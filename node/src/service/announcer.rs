//! From durable entries to gossip.
//!
//! [`FeedAnnouncer`] takes entries from the machine's lanes without ever making them wait: its queue is bounded, and what does
//! not fit, or finds nobody who listens, is not sent again. It need not be: followers see from a head how far a log goes, and
//! fetch what they lack. So heads are published every minute, whenever somebody subscribes, and soon after something could not
//! be sent. What is known of that is the [`Outbox`], for the status. A machine that must not publish publishes no head either.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tributary_protocol::{
    entry::SignedEntry,
    ids::{Did, LogId, LogKey},
    wire::{
        FeedMessage,
        gossip::{MAX_ATTACHMENT, parse_topic, topic_log},
    },
};

use super::status::OutboxStatus;
use crate::{
    machine::{Announcer, Machine},
    net::{Client, PeerEvent, PublishOutcome},
};

/// Entries that wait to be published; with their attachments at most 16 MiB.
const QUEUE: usize = 512;
/// How often heads are renewed, so that followers can tell silence from being cut off.
const HEADS_EVERY: Duration = Duration::from_secs(60);
/// Several peers that come at once, or several topics of one peer, are answered with one round of heads.
const SETTLE: Duration = Duration::from_millis(200);
/// How soon heads go out again after the queues to the peers were full.
const RETRY: Duration = Duration::from_secs(5);

/// An entry on its way.
struct Announcement {
    entry: Arc<SignedEntry>,
    body: Option<Arc<[u8]>>,
}

/// What became of the entries of one log.
#[derive(Debug, Clone, Copy, Default)]
struct Reach {
    /// Peers that listened when something was last sent.
    listeners: usize,
    /// Something was not sent since the last head that was.
    unsent: bool,
}

/// What was announced, and whether anybody heard it. The table of logs is as long as the machine has logs.
#[derive(Default)]
pub(super) struct Outbox {
    announced: AtomicU64,
    attached: AtomicU64,
    sent: AtomicU64,
    overflowed: AtomicU64,
    unheard: AtomicU64,
    logs: Mutex<BTreeMap<LogId, Reach>>,
}

impl Outbox {
    /// Grows with every entry that the machine made durable.
    pub(super) fn version(&self) -> u64 {
        self.announced.load(Relaxed)
    }

    pub(super) fn status(&self) -> OutboxStatus {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        OutboxStatus {
            announced: self.announced.load(Relaxed),
            attached: self.attached.load(Relaxed),
            sent: self.sent.load(Relaxed),
            overflowed: self.overflowed.load(Relaxed),
            unheard: self.unheard.load(Relaxed),
            logs_unheard: logs.values().filter(|reach| reach.unsent).count(),
            listeners: logs.values().map(|reach| reach.listeners).max().unwrap_or(0),
        }
    }

    fn missed(&self, log: LogId) {
        self.unheard.fetch_add(1, Relaxed);
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).entry(log).or_default().unsent = true;
    }

    fn heard(&self, log: LogId, listeners: usize, whole: bool) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let reach = logs.entry(log).or_default();
        reach.listeners = listeners;
        if whole {
            reach.unsent = false;
        }
    }
}

/// What the machine announces through.
pub(super) struct FeedAnnouncer {
    queue: mpsc::Sender<Announcement>,
    outbox: Arc<Outbox>,
    /// The longest body that goes with its entry, bytes.
    max_body: usize,
}

/// The other end, for [`run`].
pub(super) struct Announcements(mpsc::Receiver<Announcement>);

impl FeedAnnouncer {
    /// Bodies of at most `max_body` bytes go with their entries.
    pub(super) fn new(max_body: usize) -> (Self, Announcements, Arc<Outbox>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let outbox = Arc::new(Outbox::default());
        (
            Self { queue, outbox: Arc::clone(&outbox), max_body: max_body.min(MAX_ATTACHMENT) },
            Announcements(receiver),
            outbox,
        )
    }
}

impl Announcer for FeedAnnouncer {
    fn announce(&self, entry: &Arc<SignedEntry>, body: Option<Arc<[u8]>>) {
        self.outbox.announced.fetch_add(1, Relaxed);
        // Dropped here and not when it is sent: a waiting entry must not hold a megabyte.
        let body = body.filter(|body| body.len() <= self.max_body);
        if self.queue.try_send(Announcement { entry: Arc::clone(entry), body }).is_err() {
            self.outbox.overflowed.fetch_add(1, Relaxed);
            self.outbox.missed(entry.entry().log);
        }
    }
}

/// Publishes announcements and heads until `stop`; then what is still waiting, and the last heads.
pub(super) async fn run(
    net: Client,
    machine: Arc<Machine>,
    mut announcements: Announcements,
    outbox: Arc<Outbox>,
    mut peers: broadcast::Receiver<PeerEvent>,
    stop: CancellationToken,
) {
    let mut publisher = Publisher { did: machine.did(), net, machine, outbox, listening: HashSet::new() };
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(announcement) = announcements.0.recv() => {
                if publisher.entry(announcement).await == Sent::QueuesFull {
                    due = due.min(Instant::now() + RETRY);
                }
            }
            event = peers.recv() => match event {
                Ok(PeerEvent::Subscribed { topic, .. }) if publisher.is_ours(&topic) => {
                    due = due.min(Instant::now() + SETTLE);
                }
                Ok(_) => {}
                // Some of the events that were lost may have been subscriptions.
                Err(broadcast::error::RecvError::Lagged(_)) => due = due.min(Instant::now() + SETTLE),
                Err(broadcast::error::RecvError::Closed) => break,
            },
            () = tokio::time::sleep_until(due) => {
                let again = if publisher.heads().await == Sent::QueuesFull { RETRY } else { HEADS_EVERY };
                due = Instant::now() + again;
            }
        }
    }
    while let Ok(announcement) = announcements.0.try_recv() {
        publisher.entry(announcement).await;
    }
    publisher.heads().await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Yes,
    /// Nobody listens; whoever subscribes will be told.
    Unheard,
    QueuesFull,
}

struct Publisher {
    did: Did,
    net: Client,
    machine: Arc<Machine>,
    outbox: Arc<Outbox>,
    /// Logs whose topics this node listens to itself; as many as the machine has logs.
    listening: HashSet<LogId>,
}

impl Publisher {
    fn is_ours(&self, topic: &str) -> bool {
        parse_topic(topic).is_some_and(|(did, _)| did == self.did)
    }

    /// A machine listens to its own topics: who listens is in the mesh that its entries travel through, and an entry of its own
    /// that it does not know tells of a twin. Streams may begin at any time.
    async fn listen(&mut self, log: LogId) {
        if self.listening.contains(&log) {
            return;
        }
        match self.net.subscribe(topic_log(&self.did, &log)).await {
            Ok(_) => drop(self.listening.insert(log)),
            Err(error) => tracing::warn!(%error, "the machine cannot listen to a topic of its own"),
        }
    }

    async fn entry(&mut self, announcement: Announcement) -> Sent {
        let Announcement { entry, body } = announcement;
        let LogKey { did, log, .. } = entry.entry().key();
        self.listen(log).await;
        if self.machine.displaced().is_some() {
            self.outbox.missed(log);
            return Sent::Unheard;
        }
        let attached = body.is_some();
        let message = FeedMessage::Entry { entry: entry.bytes().to_vec(), attachment: body.map(|body| body.to_vec()) };
        let sent = self.publish(topic_log(&did, &log), &message).await;
        match sent {
            Ok(listeners) => {
                self.outbox.sent.fetch_add(1, Relaxed);
                self.outbox.attached.fetch_add(u64::from(attached), Relaxed);
                self.outbox.heard(log, listeners, false);
                Sent::Yes
            }
            Err(sent) => {
                self.outbox.missed(log);
                sent
            }
        }
    }

    async fn heads(&mut self) -> Sent {
        if self.machine.displaced().is_some() {
            return Sent::Unheard;
        }
        let machine = Arc::clone(&self.machine);
        let heads = match tokio::task::spawn_blocking(move || machine.heads()).await {
            Ok(Ok(heads)) => heads,
            Ok(Err(error)) => {
                tracing::error!(%error, "heads cannot be published");
                return Sent::QueuesFull;
            }
            // The runtime is going down.
            Err(_) => return Sent::Unheard,
        };
        let mut worst = Sent::Yes;
        for head in heads {
            let log = head.head().log;
            self.listen(log).await;
            let message = FeedMessage::Head(head.bytes().to_vec());
            match self.publish(topic_log(&self.did, &log), &message).await {
                Ok(listeners) => self.outbox.heard(log, listeners, true),
                Err(Sent::QueuesFull) => worst = Sent::QueuesFull,
                Err(_) => self.outbox.heard(log, 0, false),
            }
        }
        worst
    }

    /// Sends a message; returns how many peers listen.
    async fn publish(&self, topic: String, message: &FeedMessage) -> Result<usize, Sent> {
        let bytes = message.encode().map_err(|error| {
            tracing::error!(topic, %error, "a feed message cannot be encoded");
            Sent::Unheard
        })?;
        match self.net.publish(topic, bytes).await {
            Ok(PublishOutcome::Sent { listeners }) => Ok(listeners),
            Ok(PublishOutcome::Duplicate) => Ok(0),
            Ok(PublishOutcome::NoPeers) => Err(Sent::Unheard),
            Ok(PublishOutcome::QueuesFull) => Err(Sent::QueuesFull),
            Err(error) => {
                tracing::debug!(%error, "not published");
                Err(Sent::Unheard)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tributary_protocol::{
        entry::{Entry, EntryBody, Mode, Policy, StreamInfo},
        ids::{Hash, StreamId},
        keys::FeedKey,
    };

    use super::*;

    #[test]
    fn a_full_queue_makes_nobody_wait_and_is_counted() {
        let did = Did::from_bytes([1; 20]);
        let info = StreamInfo {
            stream: StreamId::of(&did, "imu"),
            name: "imu".to_owned(),
            message_type: String::new(),
            mode: Mode::Raw,
            policy: Policy::Free,
            price: String::new(),
            chunk_target: 4096,
        };
        let (log, body) = (LogId::MACHINE, EntryBody::Stream(info));
        let entry = Entry { did, log, incarnation: 0, seq: 0, prev: Hash::ZERO, time_ms: 1, body };
        let entry = Arc::new(SignedEntry::sign(entry, &FeedKey::generate(&mut rand::rng())).expect("signed"));
        let (announcer, mut waiting, outbox) = FeedAnnouncer::new(MAX_ATTACHMENT);
        let (small, large): (Arc<[u8]>, Arc<[u8]>) =
            (vec![0; MAX_ATTACHMENT].into(), vec![0; MAX_ATTACHMENT + 1].into());
        for body in [None, Some(small), Some(large)].into_iter().cycle().take(QUEUE + 3) {
            announcer.announce(&entry, body);
        }
        let status = outbox.status();
        assert_eq!((status.announced, status.overflowed, status.logs_unheard), (QUEUE as u64 + 3, 3, 1));
        let bodies: Vec<Option<usize>> = std::iter::from_fn(|| waiting.0.try_recv().ok())
            .map(|announcement| announcement.body.map(|body| body.len()))
            .collect();
        assert_eq!(bodies.len(), QUEUE);
        assert_eq!(bodies[..3], [None, Some(MAX_ATTACHMENT), None], "large bodies are left to pulls");
    }
}
