//! A machine delivers to peaq's buyers.
//!
//! Owns the delivery sessions of a node and the streams that buyers open. Whoever sells opens a session ([`Deliveries::prepare`],
//! then [`Deliveries::open`] when the marketplace has named session and buyer; [`Deliveries::offer`] does both), passes the URL
//! on, and hears what became of it ([`Deliveries::watch`]). A transfer that breaks leaves the session open, so that the buyer can
//! come again until the handoff expires. It never judges who may buy, and it stops when it is dropped or the network is.
//!
//! Bounds: [`MAX_SESSIONS`] sessions; strangers that have not said what they want are limited per peer and in all, and the
//! oldest one gives way to a newcomer, so that silent connections keep nobody out; transfers are limited in all, and each must
//! make progress. A transfer holds three chunks.

mod agent;
mod greet;
mod send;
mod state;
mod waiting;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, Stream, multiaddr::Protocol};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};
use tributary_protocol::{
    package::timestamp_text,
    peaq::{
        connect_url::ConnectUrl,
        sessions::{MAX_SESSIONS, Opening, SessionError, Sessions},
    },
};

pub use self::state::{DeliveryError, DeliveryEvent, DeliveryLimits, DeliveryState, DeliveryStatus, Handoff};
use self::waiting::Waiting;
use super::chunks::ChunkSource;
use crate::{
    machine::Clock,
    net::{Client, PeaqStreams, Way},
};

/// Events that a slow listener may fall behind before it loses the oldest.
const EVENTS: usize = 1024;

/// A stream that a buyer opened.
struct Caller {
    peer: PeerId,
    stream: Stream,
}

struct Offer {
    source: Arc<dyn ChunkSource>,
    names: Option<(String, String)>,
    expires_ms: u64,
    attempts: u32,
    /// Places of chunks that a buyer of the agent's kind has had.
    asked: HashSet<u64>,
    state: DeliveryState,
}

#[derive(Default)]
struct State {
    sessions: Sessions<Caller>,
    /// By purchase; those that are over stay until they would have expired.
    offers: HashMap<String, Offer>,
}

struct Inner {
    net: Client,
    external: Vec<Multiaddr>,
    clock: Clock,
    limits: DeliveryLimits,
    state: Mutex<State>,
    waiting: Mutex<Waiting>,
    transfers: Semaphore,
    events: broadcast::Sender<DeliveryEvent>,
    stop: CancellationToken,
}

/// The deliveries of a node. Clones share them; the last one dropped ends them.
#[derive(Clone)]
pub struct Deliveries {
    inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deliveries {
    /// Offers the protocol to peers; `None` when somebody does already. `external` are addresses to give out before those the
    /// node listens on.
    #[must_use]
    pub fn start(net: Client, external: Vec<Multiaddr>, clock: Clock, limits: DeliveryLimits) -> Option<Self> {
        let streams = net.take_peaq_streams()?;
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            net,
            external,
            clock,
            state: Mutex::default(),
            waiting: Mutex::new(Waiting::new(limits.handshakes, limits.handshakes_per_peer)),
            transfers: Semaphore::new(limits.transfers.max(1)),
            events: broadcast::channel(EVENTS).0,
            stop: stop.clone(),
            limits,
        });
        tokio::spawn(Arc::clone(&inner).accept(streams));
        Some(Self { inner, _stop: Arc::new(stop.drop_guard()) })
    }

    /// Begins a session for a purchase whose delivery session is not named yet: a buyer that comes early waits.
    ///
    /// # Errors
    /// There is one, there just was one, there are too many; the node cannot be dialled; the network has stopped.
    pub async fn prepare(
        &self,
        purchase: &str,
        source: Arc<dyn ChunkSource>,
        expires_ms: u64,
    ) -> Result<Handoff, DeliveryError> {
        let now_ms = (self.inner.clock)();
        if expires_ms <= now_ms {
            return Err(DeliveryError::Expired);
        }
        let url = self.connect_url(purchase).await?;
        {
            let mut state = lock(&self.inner.state);
            state.offers.retain(|_, offer| !offer.state.is_over() || offer.expires_ms > now_ms);
            if state.offers.len() >= MAX_SESSIONS {
                return Err(SessionError::Full.into());
            }
            state.sessions.prepare(purchase, expires_ms, now_ms)?;
            let (asked, state_now) = (HashSet::new(), DeliveryState::Preparing);
            let offer = Offer { source, names: None, expires_ms, attempts: 0, asked, state: state_now };
            state.offers.insert(purchase.to_owned(), offer);
        }
        let (inner, name) = (Arc::downgrade(&self.inner), purchase.to_owned());
        let (stop, left) = (self.inner.stop.clone(), Duration::from_millis(expires_ms - now_ms));
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(left) => {
                    if let Some(inner) = inner.upgrade() {
                        inner.expire(&name, expires_ms);
                    }
                }
            }
        });
        let expires_at = format!("{}Z", &timestamp_text(expires_ms.saturating_mul(1_000_000))[..23]);
        Ok(Handoff { url, expires_at, expires_ms })
    }

    /// Opens a prepared session: this buyer may have the chunks now.
    ///
    /// # Errors
    /// The purchase is not being prepared.
    pub fn open(&self, purchase: &str, session: &str, buyer: &str) -> Result<(), DeliveryError> {
        let opening = {
            let mut state = lock(&self.inner.state);
            let opening = state.sessions.open(purchase, session, buyer)?;
            if let Some(offer) = state.offers.get_mut(purchase) {
                offer.names = Some((session.to_owned(), buyer.to_owned()));
                offer.state = DeliveryState::Waiting;
            }
            opening
        };
        match opening {
            Opening::Waiting => {}
            Opening::Claimed(caller) => {
                let (inner, purchase) = (Arc::clone(&self.inner), purchase.to_owned());
                tokio::spawn(async move { inner.serve(&purchase, caller).await });
            }
            Opening::Refused(caller, error) => {
                tokio::spawn(greet::refuse(caller.stream, error));
            }
        }
        Ok(())
    }

    /// Prepares and opens a session at once.
    ///
    /// # Errors
    /// As [`Deliveries::prepare`].
    pub async fn offer(
        &self,
        purchase: &str,
        session: &str,
        buyer: &str,
        source: Arc<dyn ChunkSource>,
        expires_ms: u64,
    ) -> Result<Handoff, DeliveryError> {
        let handoff = self.prepare(purchase, source, expires_ms).await?;
        self.open(purchase, session, buyer)?;
        Ok(handoff)
    }

    /// Ends a session that is not over; `false` when there is none. A transfer under way breaks.
    #[must_use]
    pub fn close(&self, purchase: &str, reason: &str) -> bool {
        self.inner.fail(purchase, reason.to_owned())
    }

    /// What becomes of deliveries from now on. A listener that falls behind loses the oldest events and is told how many.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<DeliveryEvent> {
        self.inner.events.subscribe()
    }

    /// One delivery, also for a while after it is over.
    #[must_use]
    pub fn get(&self, purchase: &str) -> Option<DeliveryStatus> {
        lock(&self.inner.state).offers.get(purchase).map(|offer| offer.status(purchase))
    }

    /// All deliveries, also for a while after they are over.
    #[must_use]
    pub fn list(&self) -> Vec<DeliveryStatus> {
        let mut all: Vec<_> =
            lock(&self.inner.state).offers.iter().map(|(purchase, offer)| offer.status(purchase)).collect();
        all.sort_by(|a, b| a.purchase.cmp(&b.purchase));
        all
    }

    /// Streams whose peer has not said what it wants.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.inner.waiting).len()
    }

    /// The first address that peaq's buyers can dial: TCP, and loopback only where there is nothing else.
    async fn connect_url(&self, purchase: &str) -> Result<String, DeliveryError> {
        let me = self.inner.net.peer_id();
        let own = self.inner.net.listen_addrs().await?;
        let (near, far): (Vec<_>, Vec<_>) = own.into_iter().partition(is_loopback);
        let all = self.inner.external.iter().cloned().chain(far).chain(near);
        let address = all.into_iter().find(is_tcp).ok_or(DeliveryError::NoAddress)?;
        let whole = matches!(address.iter().last(), Some(Protocol::P2p(_)));
        let address = if whole { address } else { address.with(Protocol::P2p(me)) };
        Ok(ConnectUrl::build(&me.to_string(), &address.to_string(), purchase))
    }
}

fn is_tcp(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = parts.next();
    let tcp = matches!(parts.next(), Some(Protocol::Tcp(_)));
    tcp && matches!(host, Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_)))
        && parts.all(|part| matches!(part, Protocol::P2p(_)))
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

impl Offer {
    fn status(&self, purchase: &str) -> DeliveryStatus {
        let (session, buyer) = self.names.clone().unzip();
        DeliveryStatus {
            purchase: purchase.to_owned(),
            session,
            buyer,
            chunks: self.source.count(),
            attempts: self.attempts,
            expires_ms: self.expires_ms,
            state: self.state.clone(),
        }
    }
}

impl Inner {
    async fn accept(self: Arc<Self>, mut streams: PeaqStreams) {
        loop {
            let next = tokio::select! {
                () = self.stop.cancelled() => return,
                next = streams.next() => next,
            };
            let Some((peer, stream)) = next else { return };
            self.greet(Caller { peer, stream });
        }
    }

    fn tell(&self, purchase: &str, state: DeliveryState) {
        tracing::info!(purchase, ?state, "delivery");
        let event = DeliveryEvent { purchase: purchase.to_owned(), state };
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    /// Ends a session that is not over.
    fn fail(&self, purchase: &str, reason: String) -> bool {
        let state = DeliveryState::Failed { reason };
        let parked = {
            let mut all = lock(&self.state);
            let Some(offer) = all.offers.get_mut(purchase).filter(|offer| !offer.state.is_over()) else {
                return false;
            };
            offer.state = state.clone();
            all.sessions.end(purchase)
        };
        // Closes it.
        drop(parked);
        self.tell(purchase, state);
        true
    }

    /// The handoff that was good until `expires_ms` has expired: whoever has not come comes too late. A transfer under way goes
    /// on, and so does a later session for the same purchase.
    fn expire(&self, purchase: &str, expires_ms: u64) {
        let late = lock(&self.state)
            .offers
            .get(purchase)
            .is_some_and(|offer| offer.expires_ms == expires_ms && offer.state != DeliveryState::Sending);
        if late {
            self.fail(purchase, "the buyer did not come, or did not get everything, before the handoff expired".into());
        }
    }

    /// Sends everything to the buyer who has claimed the session.
    async fn serve(&self, purchase: &str, caller: Caller) {
        let source = {
            let mut state = lock(&self.state);
            let Some(offer) = state.offers.get_mut(purchase).filter(|offer| !offer.state.is_over()) else { return };
            offer.attempts += 1;
            offer.state = DeliveryState::Sending;
            Arc::clone(&offer.source)
        };
        // It must not give way to newcomers while it waits for a place. That it cannot be told is the end of the network.
        let _ = self.net.keep(caller.peer).await;
        self.tell(purchase, DeliveryState::Sending);
        let chunks = source.count();
        let pace = self.net.pace(Way::Up, caller.peer);
        let transfer = async {
            let permit = tokio::time::timeout(self.limits.queue_timeout, self.transfers.acquire()).await;
            let _permit = permit.map_err(|_| send::SendError::Busy)?;
            send::deliver(source, caller.stream, self.limits.stall_timeout, &pace).await
        };
        let closed = self.closed(purchase);
        let result = tokio::select! {
            () = self.stop.cancelled() => return,
            () = closed => return,
            result = transfer => result,
        };
        match result {
            Ok(sent) => {
                let state = DeliveryState::Completed { chunks, bytes: sent.bytes, confirmed: sent.confirmed };
                self.finish(purchase, state);
            }
            Err(error) => self.broke(purchase, &error),
        }
    }

    /// Ends when the session is over, for whatever reason.
    async fn closed(&self, purchase: &str) {
        let mut events = self.events.subscribe();
        loop {
            let over = lock(&self.state).offers.get(purchase).is_none_or(|offer| offer.state.is_over());
            // Lagging behind is as good as an event: the state is looked at again.
            if over || matches!(events.recv().await, Err(broadcast::error::RecvError::Closed)) {
                return;
            }
        }
    }

    fn finish(&self, purchase: &str, end: DeliveryState) {
        {
            let mut state = lock(&self.state);
            let Some(offer) = state.offers.get_mut(purchase).filter(|offer| !offer.state.is_over()) else { return };
            offer.state = end.clone();
            state.sessions.end(purchase);
        }
        self.tell(purchase, end);
    }

    /// A transfer broke: the buyer may come again while its handoff lasts.
    fn broke(&self, purchase: &str, error: &send::SendError) {
        tracing::info!(purchase, %error, "a delivery was interrupted");
        let again = {
            let mut state = lock(&self.state);
            let now_ms = (self.clock)();
            let Some(offer) = state.offers.get_mut(purchase).filter(|offer| !offer.state.is_over()) else { return };
            let again = offer.attempts < self.limits.attempts && now_ms < offer.expires_ms && !error.is_ours();
            if again {
                offer.state = DeliveryState::Waiting;
                state.sessions.reopen(purchase);
            }
            again
        };
        if again {
            self.tell(purchase, DeliveryState::Waiting);
        } else {
            self.fail(purchase, error.to_string());
        }
    }
}

#[cfg(test)]
mod tests;
