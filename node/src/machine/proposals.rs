//! Binding a machine's keys anew, in two steps on the machine with the owner's signature between them.
//!
//! A binding names where each log stands. Under a new feed key, or in a new incarnation, nothing may be published between the two
//! steps: what the old key signs behind that place counts for nobody. So a machine whose rotation waits for its owner does not
//! open. A mere renewal keeps the key; it is proposed and applied while the node runs.
//!
//! The proposal that waits is kept in the home, so that a step that broke off goes on with the same bytes: the owner must never be
//! asked to sign two bindings of one serial.

use std::sync::PoisonError;

use libp2p::{PeerId, identity};
use tributary_protocol::{
    binding::{Binding, BindingChain, BindingError, ChainError, LogPosition, SignedBinding},
    entry::{EntryBody, SignedEntry},
    ids::{Did, LogId, LogKey},
    keys::{EncryptionPublicKey, FeedPublicKey},
};
use tributary_store::{Store, StoreError, WriteBatch};

use super::{
    Keys, Machine, MachineLogError, OwnBindingError, bindings,
    open::{bindings_written, keys_of, node_key},
};
use crate::{
    home::{Home, HomeError, MachineKeys},
    proposal::{Change, Proposal, ProposalError},
};

/// A proposal that waits is proposed again only while at least so much of its life is left, ms.
const WORTH_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Why a binding cannot be proposed or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The bindings of this machine cannot be read.
    #[error(transparent)]
    Own(#[from] OwnBindingError),
    /// The home cannot be read or written.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// Not a proposal.
    #[error(transparent)]
    Proposal(#[from] ProposalError),
    /// Another change waits already.
    #[error(
        "{waiting} is prepared already and waits for the owner's signature, as binding {serial}; apply it with `tributary key apply`, or give it up with `tributary key cancel`"
    )]
    Waiting {
        /// What waits.
        waiting: Change,
        /// Its serial.
        serial: u64,
    },
    /// Nothing waits.
    #[error("no binding is prepared here; nothing is given up")]
    NothingWaits,
    /// It is another machine's.
    #[error("the proposal is of {found}, and this is {own}; apply it there")]
    OtherMachine {
        /// This machine.
        own: Did,
        /// Whose it is.
        found: Did,
    },
    /// The owner has not signed it.
    #[error("the proposal is not signed; have the owner sign it with `tributary key sign`")]
    NotSigned,
    /// Somebody else than the owner signed it.
    #[error(transparent)]
    Signature(#[from] BindingError),
    /// It is in force.
    #[error("binding {serial} was applied already; there is nothing to do")]
    Applied {
        /// Its serial.
        serial: u64,
    },
    /// The binding that it follows is no longer the newest.
    #[error(
        "the proposal is out of date: it would be binding {found}, and binding {held} is in force here; prepare again"
    )]
    OutOfDate {
        /// The serial proposed.
        found: u64,
        /// The serial in force.
        held: u64,
    },
    /// The logs went on, or were restored.
    #[error("the proposal is out of date: {log} is not where it says any more; prepare again")]
    Moved {
        /// Which log.
        log: String,
    },
    /// The keys in the home are not those of the proposal.
    #[error("the proposal is out of date: it names another {what} than this home has; prepare again")]
    OtherKeys {
        /// Which key.
        what: &'static str,
    },
    /// It ended before it began.
    #[error("the proposal is out of date: it ended at {expires_ms} ms since 1970; prepare again")]
    Expired {
        /// When.
        expires_ms: u64,
    },
    /// Only renewals can be applied beside a node that runs.
    #[error("the proposal is {0}, which cannot begin while the node runs; stop the node, then run this again")]
    Running(Change),
    /// The chain does not take it.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The machine log cannot be written.
    #[error(transparent)]
    Log(#[from] MachineLogError),
}

/// What the home has now, as far as a binding names it.
struct Own {
    did: Did,
    feed: FeedPublicKey,
    next_feed: Option<FeedPublicKey>,
    encryption: EncryptionPublicKey,
    node: PeerId,
}

impl Own {
    fn of(home: &Home) -> Result<Self, HomeError> {
        let keys = home.public_keys()?;
        let next_feed = home.next_feed_public()?;
        Ok(Self { did: keys.did, feed: keys.feed, next_feed, encryption: keys.encryption, node: keys.peer })
    }

    /// Whether a proposed binding is for these keys, and for the logs as they stand.
    fn fits(&self, store: &Store, held: &Binding, change: Change, next: &Binding) -> Result<(), BindError> {
        let other = |what| Err(BindError::OtherKeys { what });
        // A key file that was replaced by hand is a rotation too.
        let waits = change == Change::Rotate && self.next_feed == Some(next.feed_key);
        if !waits && self.feed != next.feed_key {
            return other("feed key");
        }
        if self.encryption != next.encryption_key {
            return other("encryption key");
        }
        if !next.node_keys.iter().any(|key| peer_of(key) == Some(self.node)) {
            return other("node key");
        }
        let moved = |log: &LogId| {
            let log = if *log == LogId::MACHINE { "the machine log".to_owned() } else { format!("log {log}") };
            Err(BindError::Moved { log })
        };
        if change != Change::Renew {
            // The new key takes over exactly where the old one ended.
            let stand = bindings::heads(store, &self.did, held.incarnation)?;
            let differs = |a: &[LogPosition], b: &[LogPosition]| a.iter().find(|at| !b.contains(at)).copied();
            if let Some(position) = differs(&stand, &next.positions).or_else(|| differs(&next.positions, &stand)) {
                return moved(&position.log);
            }
            return Ok(());
        }
        for position in next.positions.iter().filter(|position| position.from_seq > 0) {
            let log = LogKey { did: self.did, log: position.log, incarnation: held.incarnation };
            let entry = store.entry(&log, position.from_seq - 1)?;
            let hash = entry.and_then(|bytes| SignedEntry::decode(&bytes).ok()).map(|entry| entry.hash());
            if hash != Some(position.prev_entry_hash) {
                return moved(&position.log);
            }
        }
        Ok(())
    }
}

fn peer_of(node_key: &[u8; 32]) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(node_key).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The proposal that waits in a home, unless its time is over: a binding of its serial is in force.
pub(super) fn waiting(home: &Home, held: &Binding) -> Result<Option<Proposal>, HomeError> {
    let Some(bytes) = home.pending_proposal()? else { return Ok(None) };
    let proposal = match Proposal::decode(&bytes) {
        Ok(proposal) => proposal,
        Err(error) => {
            // It only waits: what the owner signed is judged by the file that comes back.
            tracing::warn!(%error, "the binding that waits in this home cannot be read");
            return Ok(None);
        }
    };
    let next = proposal.next().binding();
    Ok((next.did == held.did && next.serial == held.serial + 1).then_some(proposal))
}

fn chain(store: &Store, did: &Did) -> Result<(BindingChain, Vec<SignedBinding>), BindError> {
    Ok(bindings::load(store, did)?.ok_or(OwnBindingError::None)?)
}

/// Proposes the next binding of a machine that is not open, and keeps the proposal in the home. The same change proposed again is
/// the same proposal, while it fits. For [`Change::Rotate`] the feed key in `keys` is the next one, which waits in the home too.
///
/// # Errors
///
/// When another change waits already, there is no binding yet, or something cannot be read or written.
pub fn propose(
    home: &Home,
    keys: &MachineKeys,
    store: &Store,
    change: Change,
    now_ms: u64,
) -> Result<Proposal, BindError> {
    propose_with(home, &keys_of(keys, home.owner()?.encryption), node_key(keys), store, change, now_ms)
}

fn propose_with(
    home: &Home,
    keys: &Keys,
    node_key: [u8; 32],
    store: &Store,
    change: Change,
    now_ms: u64,
) -> Result<Proposal, BindError> {
    let (chain, all) = chain(store, &keys.did)?;
    let held = chain.current();
    let renews = change == Change::Renew && keys.feed.public() == held.feed_key;
    let change = if change == Change::Renew && !renews { Change::Rotate } else { change };
    if let Some(proposal) = waiting(home, held)? {
        if proposal.change() != change {
            return Err(BindError::Waiting { waiting: proposal.change(), serial: held.serial + 1 });
        }
        let next = proposal.next().binding();
        if now_ms.saturating_add(WORTH_MS) < next.expires_ms && Own::of(home)?.fits(store, held, change, next).is_ok() {
            return Ok(proposal);
        }
    }
    let next = bindings::next(store, &chain, keys, node_key, change == Change::Incarnation, now_ms)?;
    let proposal = Proposal::new(all.last().cloned().ok_or(OwnBindingError::None)?, next)?;
    home.keep_proposal(&proposal.encode())?;
    Ok(proposal)
}

/// Checks a signed proposal against the chain, the home and the logs; `chain` ends in it then.
fn check(
    own: &Own,
    store: &Store,
    chain: &mut BindingChain,
    proposal: &Proposal,
    now_ms: u64,
) -> Result<(), BindError> {
    let (next, held) = (proposal.next(), chain.current().clone());
    let found = next.binding().serial;
    if proposal.machine() != own.did {
        return Err(BindError::OtherMachine { own: own.did, found: proposal.machine() });
    }
    if found <= held.serial && chain.accept(next).is_ok() {
        return Err(BindError::Applied { serial: found });
    }
    if found != held.serial + 1 || next.binding().prev != chain.current_hash() {
        return Err(BindError::OutOfDate { found, held: held.serial });
    }
    if !next.has_owner_signature() {
        return Err(BindError::NotSigned);
    }
    next.verify(Some(&held.owner_id))?;
    own.fits(store, &held, proposal.change(), next.binding())?;
    if next.binding().is_stale_at(now_ms) {
        return Err(BindError::Expired { expires_ms: next.binding().expires_ms });
    }
    chain.accept(next)?;
    Ok(())
}

/// Puts a signed proposal into force on a machine that is not open. One that broke off after its binding became durable only
/// moves the next feed key into place.
///
/// # Errors
///
/// Says why it does not fit, and what to do.
pub fn apply(home: &Home, store: &Store, proposal: &Proposal, now_ms: u64) -> Result<SignedBinding, BindError> {
    let own = Own::of(home)?;
    let (mut chain, _) = chain(store, &own.did)?;
    let next = proposal.next();
    match check(&own, store, &mut chain, proposal, now_ms) {
        Ok(()) => {
            let mut batch = WriteBatch::new();
            bindings::put(&mut batch, next);
            store.commit(batch)?;
        }
        Err(BindError::Applied { .. })
            if chain.current().feed_key == next.binding().feed_key
                && own.next_feed == Some(next.binding().feed_key) => {}
        Err(error) => return Err(error),
    }
    if own.next_feed == Some(next.binding().feed_key) {
        home.promote_feed_key()?;
    }
    home.drop_proposal()?;
    Ok(next.clone())
}

/// Gives up what waits for the owner's signature. Returns what it was.
///
/// # Errors
///
/// When nothing waits, or something cannot be read or removed.
pub fn cancel(home: &Home, store: &Store) -> Result<Proposal, BindError> {
    let own = Own::of(home)?;
    let (chain, _) = chain(store, &own.did)?;
    let proposal = waiting(home, chain.current())?.ok_or(BindError::NothingWaits)?;
    if own.next_feed.is_some_and(|key| !chain.has_feed_key(&key)) {
        home.drop_next_feed_key()?;
    }
    home.drop_proposal()?;
    Ok(proposal)
}

impl Machine {
    /// Proposes a renewal of the binding, while the machine publishes.
    ///
    /// # Errors
    ///
    /// As [`propose`].
    pub fn propose_renewal(&self) -> Result<Proposal, BindError> {
        let _no_other_takes_its_place = self.binding.lock().unwrap_or_else(PoisonError::into_inner);
        propose_with(&self.home, &self.keys, self.node_key, &self.store, Change::Renew, (self.clock)())
    }

    /// Puts a signed renewal into force: the binding and its entry in the machine log are one batch.
    ///
    /// # Errors
    ///
    /// As [`apply`]; [`BindError::Running`] for any other change.
    pub fn apply_renewal(&self, proposal: &Proposal) -> Result<SignedBinding, BindError> {
        let mut current = self.binding.lock().unwrap_or_else(PoisonError::into_inner);
        let own = Own::of(&self.home)?;
        let (mut chain, _) = chain(&self.store, &self.did())?;
        let (next, now_ms) = (proposal.next(), (self.clock)());
        if proposal.machine() == own.did
            && proposal.change() != Change::Renew
            && next.binding().serial > chain.current().serial
        {
            return Err(BindError::Running(proposal.change()));
        }
        check(&own, &self.store, &mut chain, proposal, now_ms)?;
        let mut batch = WriteBatch::new();
        bindings::put(&mut batch, next);
        batch.set_counter(bindings_written(self.incarnation()), next.binding().serial + 1);
        self.log.append(now_ms, EntryBody::Binding(next.clone()), batch)?;
        *current = next.binding().clone();
        drop(current);
        self.home.drop_proposal()?;
        Ok(next.clone())
    }

    /// The binding in force.
    pub(crate) fn binding(&self) -> Binding {
        self.binding.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
