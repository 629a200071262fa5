//! The chain of bindings of one machine, and what it says about every position of every log.
//!
//! Owns the order of bindings. It keeps them decoded, at most [`MAX_BINDINGS`] of them; the signed bytes are for the caller to
//! store and to serve.

use super::{Binding, BindingError, SignedBinding};
use crate::{
    ids::{Did, Hash, LogId},
    keys::FeedPublicKey,
};

/// At most this many bindings of one machine: one a month for 85 years. A chain that is full accepts no further one.
pub const MAX_BINDINGS: usize = 1024;

/// Why a binding does not continue a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The binding itself is bad.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// It is another machine's.
    #[error("the binding is {found}'s, this is the feed of {expected}")]
    OtherMachine {
        /// Whose chain this is.
        expected: Did,
        /// Whose binding came.
        found: Did,
    },
    /// Bindings before it are missing.
    #[error("binding {found} came, binding {expected} is next; fetch the ones between")]
    Gap {
        /// The next serial.
        expected: u64,
        /// The serial that came.
        found: u64,
    },
    /// It continues another chain.
    #[error("binding {serial} does not name the binding before it that is held here")]
    Predecessor {
        /// The serial that came.
        serial: u64,
    },
    /// Another binding of this serial, fully signed, is held already.
    #[error(
        "a second binding {serial} of {did} is signed by all who must: its keys are not in one hand; ask the owner"
    )]
    Fork {
        /// The machine.
        did: Did,
        /// The serial that stands twice.
        serial: u64,
    },
    /// The incarnation falls.
    #[error("binding {serial} falls back to incarnation {found} from {held}")]
    Incarnation {
        /// The serial that came.
        serial: u64,
        /// The incarnation held.
        held: u32,
        /// The incarnation found.
        found: u32,
    },
    /// A feed key that was retired before comes back.
    #[error("binding {serial} brings back a retired feed key; make a new one")]
    RetiredKey {
        /// The serial that came.
        serial: u64,
    },
    /// A log is said to begin otherwise than it began.
    #[error("binding {serial} gives log {log} another beginning than the bindings before")]
    Origin {
        /// The serial that came.
        serial: u64,
        /// The log.
        log: LogId,
    },
    /// The chain is full.
    #[error("{did} has {MAX_BINDINGS} bindings, which is the limit")]
    Full {
        /// The machine.
        did: Did,
    },
}

/// What became of a binding that is no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is the newest one now.
    New,
    /// It was held already.
    Known,
}

/// The boundary at which a binding takes a log over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin {
    /// The first position behind the boundary.
    pub at: u64,
    /// Hash of the entry at `at - 1`; for `at` 0 what entry 0 names as its predecessor.
    pub prev: Hash,
}

/// A stretch of positions that one feed key may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// Where it begins, and what its first entry follows.
    pub start: Pin,
    /// The key.
    pub key: FeedPublicKey,
    /// Serial of the binding that says so.
    pub serial: u64,
    /// When that binding becomes stale, ms since 1970.
    pub expires_ms: u64,
}

/// Who may write which positions of one log in one incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reigns {
    /// Ascending by start, without overlap: each ends where the next begins, or at `closed`.
    list: Vec<Reign>,
    closed: Option<Pin>,
}

impl Reigns {
    fn cut(&mut self, at: u64) {
        while self.list.last().is_some_and(|reign| reign.start.at >= at) {
            self.list.pop();
        }
    }

    /// The reign that covers position `seq`; `None` behind the end of a closed log, and in an incarnation without a binding.
    #[must_use]
    pub fn at(&self, seq: u64) -> Option<&Reign> {
        if self.closed.is_some_and(|pin| seq >= pin.at) {
            return None;
        }
        self.list.iter().rev().find(|reign| reign.start.at <= seq)
    }

    /// The first boundary above position `seq`, that is with `at > seq`: what everything up to it must lead to.
    #[must_use]
    pub fn pin_above(&self, seq: u64) -> Option<Pin> {
        self.list.iter().map(|reign| reign.start).chain(self.closed).find(|pin| pin.at > seq)
    }

    /// The last boundary at or below position `seq`.
    #[must_use]
    pub fn pin_at_or_below(&self, seq: u64) -> Option<Pin> {
        let closed = self.closed.filter(|pin| pin.at <= seq);
        closed.or_else(|| self.list.iter().rev().map(|reign| reign.start).find(|pin| pin.at <= seq))
    }

    /// Where the log ends for good because a later incarnation follows it.
    #[must_use]
    pub fn closed(&self) -> Option<Pin> {
        self.closed
    }

    /// Whether no binding speaks about this incarnation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.closed.is_none()
    }
}

struct Link {
    binding: Binding,
    hash: Hash,
}

/// The bindings of one machine from serial 0 to the newest, each checked against the one before.
pub struct BindingChain {
    links: Vec<Link>,
}

impl BindingChain {
    /// Begins a chain with binding 0. Whoever names a machine by its DID trusts exactly this: the identity key.
    ///
    /// # Errors
    ///
    /// [`ChainError::Gap`] for a later serial, else what is wrong with the binding.
    pub fn new(first: &SignedBinding) -> Result<Self, ChainError> {
        let serial = first.binding().serial;
        if serial != 0 {
            return Err(ChainError::Gap { expected: 0, found: serial });
        }
        first.verify(None)?;
        Ok(Self { links: vec![Link { binding: first.binding().clone(), hash: first.hash() }] })
    }

    /// Begins the chain with its first binding, or adds the next one: what a loop over stored bindings does with each.
    ///
    /// # Errors
    ///
    /// As [`BindingChain::new`] and [`BindingChain::accept`]. Nothing changes then.
    pub fn extend(chain: &mut Option<Self>, next: &SignedBinding) -> Result<(), ChainError> {
        match chain {
            None => *chain = Some(Self::new(next)?),
            Some(chain) => drop(chain.accept(next)?),
        }
        Ok(())
    }

    /// Adds the next binding. On an error nothing changes.
    ///
    /// # Errors
    ///
    /// See [`ChainError`].
    pub fn accept(&mut self, next: &SignedBinding) -> Result<Accepted, ChainError> {
        let (held, binding) = (self.newest(), next.binding());
        let (did, serial) = (held.binding.did, binding.serial);
        if binding.did != did {
            return Err(ChainError::OtherMachine { expected: did, found: binding.did });
        }
        if let Some(known) = self.by_serial(serial) {
            if known.hash == next.hash() {
                return Ok(Accepted::Known);
            }
            // Only what everybody who must has signed is a fork; the rest is noise.
            next.verify(serial.checked_sub(1).and_then(|s| self.get(s)).map(|b| &b.owner_id))?;
            return Err(ChainError::Fork { did, serial });
        }
        let expected = held.binding.serial + 1;
        if serial != expected {
            return Err(ChainError::Gap { expected, found: serial });
        }
        if binding.prev != held.hash {
            return Err(ChainError::Predecessor { serial });
        }
        if self.links.len() >= MAX_BINDINGS {
            return Err(ChainError::Full { did });
        }
        let (held_inc, found) = (held.binding.incarnation, binding.incarnation);
        if found < held_inc {
            return Err(ChainError::Incarnation { serial, held: held_inc, found });
        }
        let renewed = binding.feed_key == held.binding.feed_key;
        if !renewed && self.has_feed_key(&binding.feed_key) {
            return Err(ChainError::RetiredKey { serial });
        }
        for position in binding.positions.iter().filter(|p| p.from_seq == 0) {
            if position.prev_entry_hash != self.origin(&position.log, held_inc) {
                return Err(ChainError::Origin { serial, log: position.log });
            }
        }
        next.verify(Some(&held.binding.owner_id))?;
        self.links.push(Link { binding: binding.clone(), hash: next.hash() });
        Ok(Accepted::New)
    }

    fn newest(&self) -> &Link {
        self.links.last().expect("a chain is made with its first binding, and none is ever taken away")
    }

    fn by_serial(&self, serial: u64) -> Option<&Link> {
        self.links.get(usize::try_from(serial).ok()?)
    }

    /// The machine.
    #[must_use]
    pub fn did(&self) -> Did {
        self.current().did
    }

    /// The newest binding.
    #[must_use]
    pub fn current(&self) -> &Binding {
        &self.newest().binding
    }

    /// Hash of the newest binding: what the next one names.
    #[must_use]
    pub fn current_hash(&self) -> Hash {
        self.newest().hash
    }

    /// The binding with this serial.
    #[must_use]
    pub fn get(&self, serial: u64) -> Option<&Binding> {
        self.by_serial(serial).map(|link| &link.binding)
    }

    /// Whether the key is, or once was, a feed key of the machine.
    #[must_use]
    pub fn has_feed_key(&self, key: &FeedPublicKey) -> bool {
        self.links.iter().any(|link| link.binding.feed_key == *key)
    }

    /// What entry 0 of the log names as its predecessor: the last entry of the incarnation before, or zeros.
    #[must_use]
    pub fn origin(&self, log: &LogId, incarnation: u32) -> Hash {
        let first = self.links.iter().position(|link| link.binding.incarnation == incarnation);
        match first {
            // Binding 0 lists no log, so the first incarnation falls under this too.
            Some(at) => self.links[at].binding.position(log).map_or(Hash::ZERO, |p| p.prev_entry_hash),
            None => Hash::ZERO,
        }
    }

    /// Who may write which positions of a log. When a later binding takes a log over further down than an earlier one did, the
    /// later one counts.
    #[must_use]
    pub fn reigns(&self, log: &LogId, incarnation: u32) -> Reigns {
        let origin = Pin { at: 0, prev: self.origin(log, incarnation) };
        let mut reigns = Reigns::default();
        let mut begun = false;
        for Link { binding, .. } in &self.links {
            if binding.incarnation < incarnation {
                continue;
            }
            if binding.incarnation > incarnation && !begun {
                break;
            }
            let listed = binding.position(log).map(|p| Pin { at: p.from_seq, prev: p.prev_entry_hash });
            let pin = listed.filter(|_| begun).unwrap_or(origin);
            reigns.cut(pin.at);
            if binding.incarnation > incarnation {
                reigns.closed = Some(pin);
                break;
            }
            begun = true;
            reigns.list.push(Reign {
                start: pin,
                key: binding.feed_key,
                serial: binding.serial,
                expires_ms: binding.expires_ms,
            });
        }
        reigns
    }

    /// The feed key that may write position `seq` of a log; `None` where nobody may, or where no binding speaks yet.
    #[must_use]
    pub fn key_for(&self, log: &LogId, incarnation: u32, seq: u64) -> Option<FeedPublicKey> {
        self.reigns(log, incarnation).at(seq).map(|reign| reign.key)
    }
}
