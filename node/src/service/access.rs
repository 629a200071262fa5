//! The access protocol, from the machine's side: quotes, requests, decisions, grants.
//!
//! A request is decided by the policies of the streams it touches; one that touches several needs all of them. An order, its
//! grants and its lines in the audit log become durable in one batch, before the buyer hears of it, so asking again gives the
//! same answer. The quote travels with the request and is known by our own signature on it, so quoting leaves no state behind
//! but the audit line. Rates are checked before anything is decoded, verified or stored: peers and buyers are free to mint.
//!
//! A live grant ends with its key epoch. When an epoch ended early because somebody's access was revoked, the others get the
//! rest of what they were granted from the next `Fetch` of their request.
//!
//! What the operator calls waits for the disk: call it on a thread that may block.

mod audit;
mod desk;
mod hook;
mod meter;
mod order;

use std::{sync::Arc, time::Instant};

use tokio::sync::{Semaphore, watch};
use tributary_protocol::{
    access::{DepositError, Grant, GrantError, QuoteError, Selection},
    entry::LayoutError,
    ids::{Did, Hash, StreamId},
    keys::EncryptionPublicKey,
    wire::{AccessMessage, AccessReply, DenyCode},
};
use tributary_store::{Store, StoreError};

pub(crate) use self::audit::read as audit_log;
pub(super) use self::desk::ToLeave;
pub(super) use self::hook::{Hooks, hooks};
pub use self::{
    audit::{AuditEvent, AuditRecord},
    desk::{AccessPolicy, AccessQuestion, Admission, PolicyDecision},
    hook::HookStatus,
    meter::AccessStatus,
    order::{BadOrder, Given, Order, OrderRange, OrderState},
};
use self::{desk::Desk, meter::AccessMeter};
use super::rates::{PeerRates, per_minute};
use crate::{
    durations::DurationsReport,
    machine::{Clock, EpochError, Machine, MachineError, OwnBindingError, SelectionError},
    mirror::Deposits,
    net::{Client, InboundRequest, Offence, PeerId},
};

/// All peers together may ask for as much as this many of them.
const PEERS_AT_FULL_RATE: u32 = 16;
/// Messages that are answered at a time; the others wait.
const AT_A_TIME: usize = 4;
/// What a buyer is told about data whose keys the machine has no more.
const FORGOTTEN: &str = "the machine keeps no keys of data this old: ask its owner for them";
/// When to ask again while nothing can be stored or published, in ms.
const TROUBLE_MS: u32 = 60_000;

/// Why access could not be decided or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// This node publishes nothing.
    #[error("this node is no machine: add the role `machine` to its configuration")]
    NoMachine,
    /// The machine must not publish, so it grants nothing either.
    #[error("nothing is granted while the machine must not publish: {reason}")]
    Displaced {
        /// Why it must not.
        reason: String,
    },
    /// There is no such request.
    #[error("no access request {id}; `tributary access ls` lists them")]
    NoOrder {
        /// What was asked for.
        id: Hash,
    },
    /// The request was decided before.
    #[error("access request {id} was decided already: {state}")]
    Decided {
        /// The request.
        id: Hash,
        /// What became of it.
        state: String,
    },
    /// The request is over.
    #[error("access request {id} expired at {expires_ms} ms since 1970; the buyer has to ask again")]
    Expired {
        /// The request.
        id: Hash,
        /// When.
        expires_ms: u64,
    },
    /// There is no such stream.
    #[error("no stream {name:?} in the configuration, by name or id")]
    NoStream {
        /// What was asked for.
        name: String,
    },
    /// The selection falls into too many ranges of keys.
    #[error("the selection falls into {found} ranges of keys, at most {max} are granted at once; ask for less")]
    TooManyRanges {
        /// How many.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// The request cannot be granted as it is.
    #[error("the request cannot be granted: {0}")]
    Machine(#[source] Box<MachineError>),
    /// The grant cannot be made.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// What mirrors are told cannot be said.
    #[error(transparent)]
    Deposit(#[from] DepositError),
    /// The quote cannot be made.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The selection cannot be made.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The machine's bindings cannot be read.
    #[error(transparent)]
    Binding(Box<OwnBindingError>),
    /// A stored order cannot be read.
    #[error(transparent)]
    Order(#[from] BadOrder),
    /// The store failed.
    #[error("the order could not be stored or read: {0}")]
    Store(#[from] StoreError),
}

impl AccessError {
    /// Whether it is about keys that the machine has forgotten.
    fn is_forgotten(&self) -> bool {
        let Self::Machine(error) = self else { return false };
        matches!(&**error, MachineError::Selection(SelectionError::Epoch(EpochError::Forgotten { .. })))
    }
}

impl From<MachineError> for AccessError {
    fn from(error: MachineError) -> Self {
        Self::Machine(Box::new(error))
    }
}

impl From<OwnBindingError> for AccessError {
    fn from(error: OwnBindingError) -> Self {
        Self::Binding(Box::new(error))
    }
}

/// What a revocation did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revocation {
    /// The stream's public name.
    pub stream: String,
    /// Whose access.
    pub buyer: Did,
    /// Waiting requests that were refused by it.
    pub refused: Vec<Hash>,
    /// Whether a new key epoch begins with the next chunk, so that keys the buyer has already open nothing more.
    pub epoch_renewed: bool,
}

/// Who keeps grants for whom.
#[derive(Default)]
pub(super) struct AtMirrors {
    /// The mirrors with which this machine leaves its grants.
    pub(super) mirrors: Vec<PeerId>,
    /// What other machines left here.
    pub(super) deposits: Option<Arc<Deposits>>,
}

/// Answers buyers, and the operator who decides.
pub struct AccessService {
    desk: Option<Desk>,
    /// What other machines left here.
    deposits: Option<Arc<Deposits>>,
    rates: PeerRates,
    places: Arc<Semaphore>,
    meter: Arc<AccessMeter>,
}

impl AccessService {
    /// `machine` is `None` on a node that publishes nothing: it answers that there is nothing to have.
    pub(super) fn open(
        machine: Option<Arc<Machine>>,
        store: Store,
        clock: Clock,
        per_minute_and_peer: u32,
        hooks: Option<Hooks>,
        at_mirrors: AtMirrors,
    ) -> Result<Self, AccessError> {
        let AtMirrors { mirrors, deposits } = at_mirrors;
        let each = per_minute(per_minute_and_peer);
        let all = per_minute(per_minute_and_peer.saturating_mul(PEERS_AT_FULL_RATE));
        let meter = Arc::new(AccessMeter::default());
        let count = Arc::clone(&meter);
        Ok(Self {
            desk: machine.map(|machine| Desk::open(machine, store, clock, hooks, count, mirrors)).transpose()?,
            deposits,
            meter,
            rates: PeerRates::new(each, all),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
        })
    }

    /// Lets `policy` decide what would otherwise wait for the operator.
    pub(super) fn with_policy(mut self, policy: Option<Arc<dyn AccessPolicy>>) -> Self {
        if let Some(desk) = &mut self.desk {
            desk.policy = policy;
        }
        self
    }

    /// The desk of a machine without a node: nobody asks, the operator gives.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub(crate) fn without_node(machine: Arc<Machine>, store: Store, clock: Clock) -> Result<Self, AccessError> {
        Self::open(Some(machine), store, clock, 1, None, AtMirrors::default())
    }

    /// Issues grants that nobody asked for, and notes them with their line in the audit log, durably.
    ///
    /// # Errors
    ///
    /// When there is nothing to grant, or nothing can be stored.
    pub fn give(
        &self,
        buyer: Did,
        key: EncryptionPublicKey,
        selection: &Selection,
    ) -> Result<(Given, Vec<Grant>), AccessError> {
        self.desk()?.give(buyer, key, selection)
    }

    /// What was given by hand, newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn given(&self, limit: usize) -> Result<Vec<Given>, AccessError> {
        self.desk()?.given(limit)
    }

    /// What became of the programs that tell the operator about requests.
    #[must_use]
    pub fn hooks(&self) -> HookStatus {
        self.desk.as_ref().and_then(Desk::hooks).unwrap_or_default()
    }

    /// What became of access messages since the start.
    #[must_use]
    pub fn status(&self) -> AccessStatus {
        self.meter.status()
    }

    /// How long answers to access messages took.
    #[must_use]
    pub fn durations(&self) -> DurationsReport {
        self.meter.durations()
    }

    /// The orders, newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn orders(&self, only_pending: bool, limit: usize) -> Result<Vec<Order>, AccessError> {
        self.desk()?.orders(only_pending, limit)
    }

    /// One order.
    ///
    /// # Errors
    ///
    /// When there is none with this id.
    pub fn order(&self, id: &Hash) -> Result<Order, AccessError> {
        self.desk()?.order(id)
    }

    /// Grants a request that waits. The buyer gets the grants when it asks again.
    ///
    /// # Errors
    ///
    /// When it does not wait, has expired, or there is nothing to grant.
    pub fn approve(&self, id: &Hash) -> Result<Order, AccessError> {
        self.desk()?.approve(id)
    }

    /// Refuses a request that waits; the buyer is told `reason`.
    ///
    /// # Errors
    ///
    /// When it does not wait.
    pub fn deny(&self, id: &Hash, reason: &str) -> Result<Order, AccessError> {
        self.desk()?.deny(id, reason)
    }

    /// Stops a buyer's access to a stream (by public name or id): nothing more is granted or renewed. Keys that the buyer has
    /// cannot be taken back; with `now`, a new key epoch begins, so that they open nothing that is sealed from now on.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or nothing can be stored.
    pub fn revoke(&self, buyer: &Did, stream: &str, now: bool) -> Result<Revocation, AccessError> {
        self.desk()?.revoke(buyer, stream, now)
    }

    /// Lifts a revocation: further requests are decided by the stream's policy again.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or nothing can be stored.
    pub fn reinstate(&self, buyer: &Did, stream: &str) -> Result<(), AccessError> {
        self.desk()?.reinstate(buyer, stream)
    }

    /// Lines of the audit log from number `from` on, at most `limit`, each with its number.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn audit(&self, from: u64, limit: usize) -> Result<Vec<(u64, AuditRecord)>, AccessError> {
        Ok(audit::read(&self.desk()?.store, from, limit)?)
    }

    /// How many requests wait for the operator. Waits for a decision that is being stored.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.desk.as_ref().map_or(0, Desk::pending)
    }

    /// Whether a buyer may have a stream by its policy, for orders that come another way than the access protocol. A name that
    /// is not proven is good for no list; `None` is a buyer without a peaqID.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn admission(&self, buyer: Option<&Did>, proven: bool, stream: &StreamId) -> Result<Admission, AccessError> {
        self.desk()?.admission(buyer, proven, stream)
    }

    /// Whether the access of a buyer to a stream was revoked.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn revoked(&self, buyer: &Did, stream: &StreamId) -> Result<bool, AccessError> {
        Ok(self.desk()?.is_revoked(stream, buyer)?)
    }

    /// Refuses what waited too long and forgets orders whose grants are over.
    pub(super) fn keep_house(&self) -> Result<(), AccessError> {
        self.desk.as_ref().map_or(Ok(()), Desk::keep_house)
    }

    /// The answer while there is no time for another one.
    pub(super) fn busy(retry_ms: u32) -> Vec<u8> {
        AccessReply::Busy { retry_ms }.encode().unwrap_or_default()
    }

    /// Answers one message. Waits for the disk, never for the peer.
    pub(super) async fn answer(self: Arc<Self>, net: Client, inbound: InboundRequest) {
        let InboundRequest { peer, bytes, responder } = inbound;
        let reply = match self.rates.admit(peer) {
            Ok(()) => {
                let (begun, meter) = (Instant::now(), Arc::clone(&self.meter));
                let reply = self.reply(&net, peer, bytes).await;
                meter.answered(begun);
                reply
            }
            Err(refused) => {
                self.meter.refused();
                if refused.flood {
                    let _ = net.penalize(peer, Offence::Flood).await; // fails only when the network has shut down
                }
                AccessReply::Busy { retry_ms: refused.retry_ms }
            }
        };
        match reply.encode() {
            Ok(bytes) => drop(responder.send(bytes).await),
            Err(error) => tracing::error!(%error, "an access reply cannot be encoded"),
        }
    }

    async fn reply(self: Arc<Self>, net: &Client, peer: PeerId, bytes: Vec<u8>) -> AccessReply {
        let message = match AccessMessage::decode(&bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%peer, %error, "malformed access message");
                self.meter.malformed();
                let _ = net.penalize(peer, Offence::Malformed).await;
                return denied(DenyCode::Invalid, "not a message of the access protocol");
            }
        };
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return AccessReply::Busy { retry_ms: TROUBLE_MS };
        };
        let answered = tokio::task::spawn_blocking(move || {
            let _place = place;
            self.handle(message)
        });
        answered.await.unwrap_or_else(|error| {
            tracing::error!(%error, "an access task failed");
            AccessReply::Busy { retry_ms: TROUBLE_MS }
        })
    }

    fn handle(&self, message: AccessMessage) -> AccessReply {
        if let AccessMessage::Deposit { deposit, first, grants } = &message {
            let Some(deposits) = &self.deposits else {
                return denied(DenyCode::NotFound, "this node keeps no grants for others");
            };
            return deposits.take(deposit, *first, grants).unwrap_or_else(|error| {
                tracing::error!(%error, "a deposit cannot be stored");
                AccessReply::Busy { retry_ms: TROUBLE_MS }
            });
        }
        let fetched = match &message {
            AccessMessage::Fetch { request_id, from } => Some((*request_id, *from)),
            _ => None,
        };
        let reply = self.sell(message);
        match (fetched, &reply, &self.deposits) {
            (Some((id, from)), AccessReply::Denied { code: DenyCode::NotFound, .. }, Some(deposits)) => {
                match deposits.fetch(&id, from) {
                    Ok(kept) => kept.unwrap_or(reply),
                    Err(error) => {
                        tracing::error!(%error, "a deposit cannot be read");
                        AccessReply::Busy { retry_ms: TROUBLE_MS }
                    }
                }
            }
            _ => reply,
        }
    }

    fn sell(&self, message: AccessMessage) -> AccessReply {
        let Some(desk) = &self.desk else {
            return denied(DenyCode::NotFound, "this node sells nothing; ask the machine's own node");
        };
        let answered = match message {
            AccessMessage::Quote { machine, buyer, selection } => desk.quote(&machine, buyer, selection),
            AccessMessage::Request { quote, request } => desk.request(&quote, &request),
            AccessMessage::Fetch { request_id, from } => desk.fetch(&request_id, from),
            // Taken before it comes here.
            AccessMessage::Deposit { .. } => Ok(denied(DenyCode::NotFound, "this node keeps no grants for others")),
        };
        answered.unwrap_or_else(|error| refusal(&error))
    }

    /// Told when there may be something to leave with mirrors.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.desk.as_ref().map_or_else(|| watch::channel(0).1, Desk::changes)
    }

    /// Notes which mirrors there are.
    pub(super) fn know_mirrors(&self) -> Result<(), AccessError> {
        self.desk.as_ref().map_or(Ok(()), Desk::know_mirrors)
    }

    /// What a mirror is to hear of.
    pub(super) fn to_leave(&self, mirror: &PeerId) -> Result<Vec<ToLeave>, AccessError> {
        self.desk()?.to_leave(mirror)
    }

    /// What it is told about an order.
    pub(super) fn parts(&self, request: &Hash) -> Result<Vec<AccessMessage>, AccessError> {
        self.desk()?.parts(request)
    }

    /// It has heard of an order.
    pub(super) fn left(&self, mirror: &PeerId, order: ToLeave) -> Result<(), AccessError> {
        self.desk()?.left(mirror, order)
    }

    fn desk(&self) -> Result<&Desk, AccessError> {
        self.desk.as_ref().ok_or(AccessError::NoMachine)
    }
}

/// What a buyer is told when its message could not be answered: its own mistakes, but nothing about our troubles.
fn refusal(error: &AccessError) -> AccessReply {
    match error {
        AccessError::Machine(inner) => match &**inner {
            MachineError::Selection(SelectionError::Empty { .. }) => denied(DenyCode::NotFound, &inner.to_string()),
            MachineError::Selection(SelectionError::Cover { .. }) => denied(DenyCode::Invalid, &inner.to_string()),
            MachineError::Selection(SelectionError::Epoch(EpochError::Forgotten { .. })) => {
                denied(DenyCode::Policy, FORGOTTEN)
            }
            _ => trouble(error),
        },
        AccessError::TooManyRanges { .. } => denied(DenyCode::Policy, &error.to_string()),
        // The only thing in a grant that is the buyer's is the key it is sealed to.
        AccessError::Grant(GrantError::Sealing(_)) => denied(DenyCode::Invalid, &error.to_string()),
        _ => trouble(error),
    }
}

fn trouble(error: &AccessError) -> AccessReply {
    tracing::error!(%error, "an access message cannot be answered");
    AccessReply::Busy { retry_ms: TROUBLE_MS }
}

fn denied(code: DenyCode, reason: &str) -> AccessReply {
    AccessReply::Denied { code, reason: order::clip(reason) }
}
