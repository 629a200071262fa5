//! Where this node's own deliveries are handed over: the seller's side of peaq's peer-to-peer transport.
//!
//! [`DeliveryDesk`] is the interface, [`PeerDesk`] the one over [`Deliveries`], and `OpenSessions` what is known of deliveries that are
//! open.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{broadcast::error::RecvError, mpsc},
    task::JoinSet,
};
use tributary_protocol::peaq::{access::AccessEntry, sessions::SessionError};

use super::goods::Sold;
use crate::peaq::{Deliveries, DeliveryError, DeliveryState};

/// Events of deliveries that may wait to be noted.
const EVENTS: usize = 256;

/// Deliveries that can be open at a time.
const MAX_OPEN: usize = 256;
/// Sealed keys in all of them, 500 bytes each.
const MAX_KEYS: usize = 1 << 18;

/// A delivery to a buyer.
pub struct Handoff {
    /// The purchase.
    pub purchase_id: String,
    /// The session. Nobody can guess it, and only the buyer's token is told.
    pub session_id: String,
    /// What the buyer calls itself.
    pub buyer_id: String,
    /// Until when the buyer can come, ms since 1970.
    pub expires_ms: u64,
    /// What it gets.
    pub sold: Sold,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeskEvent {
    /// The purchase.
    pub purchase_id: String,
    /// The session.
    pub session_id: String,
    /// What happened.
    pub what: Progress,
}

/// How a delivery goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The buyer has come.
    Claimed,
    /// The connection broke; the buyer can come again.
    Broken,
    /// Everything was written. Whether it arrived, only the buyer can say.
    Sent,
    /// It broke off, or nobody came.
    Failed(String),
}

/// Why a handoff cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeskError {
    /// One is open, or was a moment ago.
    #[error("the last delivery of this purchase is not over yet; ask again in a few minutes")]
    Busy,
    /// It cannot be made now.
    #[error("the delivery cannot be prepared: {0}")]
    Trouble(String),
}

/// Hands deliveries over. Blocks.
pub trait DeliveryDesk: Send + Sync {
    /// Opens a delivery; returns the `peaqos-p2p://` URL where the buyer gets it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened. No event comes then.
    fn open(&self, handoff: Handoff) -> Result<String, DeskError>;

    /// Gives up the delivery of a purchase, if it is open.
    fn close(&self, purchase_id: &str, reason: &str);
}

/// Deliveries over peaq's peer-to-peer transport.
pub struct PeerDesk {
    deliveries: Deliveries,
    runtime: Handle,
}

impl PeerDesk {
    /// A desk over `deliveries`, and what becomes of them. Its task ends when the receiver is dropped.
    #[must_use]
    pub fn start(deliveries: Deliveries, tasks: &mut JoinSet<()>) -> (Self, mpsc::Receiver<DeskEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS);
        tasks.spawn(watch(deliveries.clone(), sender));
        (Self { deliveries, runtime: Handle::current() }, receiver)
    }
}

/// Passes on what becomes of deliveries. After falling behind it tells how each stands.
async fn watch(deliveries: Deliveries, events: mpsc::Sender<DeskEvent>) {
    let mut changes = deliveries.watch();
    loop {
        let changed = match changes.recv().await {
            Ok(event) => deliveries.get(&event.purchase).map(|status| (status, event.state)).into_iter().collect(),
            Err(RecvError::Lagged(_)) => {
                deliveries.list().into_iter().map(|status| (status.clone(), status.state)).collect::<Vec<_>>()
            }
            Err(RecvError::Closed) => return,
        };
        for (status, state) in changed {
            let what = match state {
                DeliveryState::Sending => Progress::Claimed,
                DeliveryState::Waiting if status.attempts > 0 => Progress::Broken,
                DeliveryState::Completed { .. } => Progress::Sent,
                DeliveryState::Failed { reason } => Progress::Failed(reason),
                _ => continue,
            };
            let session_id = status.session.unwrap_or_default();
            let event = DeskEvent { purchase_id: status.purchase, session_id, what };
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

impl DeliveryDesk for PeerDesk {
    fn open(&self, handoff: Handoff) -> Result<String, DeskError> {
        let Handoff { purchase_id, session_id, buyer_id, expires_ms, sold } = handoff;
        let offered = self.deliveries.offer(&purchase_id, &session_id, &buyer_id, Arc::new(sold), expires_ms);
        match self.runtime.block_on(offered) {
            Ok(handoff) => Ok(handoff.url),
            Err(DeliveryError::Session(SessionError::Concurrent | SessionError::Consumed)) => Err(DeskError::Busy),
            Err(error) => Err(DeskError::Trouble(error.to_string())),
        }
    }

    fn close(&self, purchase_id: &str, reason: &str) {
        // It may be over already.
        let _ = self.deliveries.close(purchase_id, reason);
    }
}

/// A delivery that was handed out and not taken up yet, or is under way.
pub(super) struct OpenSession {
    pub(super) session_id: String,
    pub(super) url: String,
    pub(super) expires_ms: u64,
    pub(super) access: Arc<Vec<AccessEntry>>,
    pub(super) claimed: bool,
}

/// Deliveries by purchase.
#[derive(Default)]
pub(super) struct OpenSessions(BTreeMap<String, OpenSession>);

impl OpenSessions {
    /// The delivery of a purchase that a buyer can still take up, for at least `margin_ms` more.
    pub(super) fn usable(&self, purchase_id: &str, now_ms: u64, margin_ms: u64) -> Option<&OpenSession> {
        let usable = |session: &&OpenSession| !session.claimed && session.expires_ms > now_ms.saturating_add(margin_ms);
        self.0.get(purchase_id).filter(usable)
    }

    /// Notes a new one; there has to be room for it.
    pub(super) fn insert(&mut self, purchase_id: &str, session: OpenSession) {
        self.0.insert(purchase_id.to_owned(), session);
    }

    /// Whether there is a place for a delivery of so many chunks, in the place of what this purchase had before.
    pub(super) fn has_room(&mut self, purchase_id: &str, chunks: u32, now_ms: u64) -> bool {
        self.0.retain(|_, session| session.claimed || session.expires_ms > now_ms);
        let others = || self.0.iter().filter(|(id, _)| *id != purchase_id);
        let keys: usize = others().map(|(_, session)| session.access.len()).sum();
        let wanted = usize::try_from(chunks).unwrap_or(usize::MAX);
        others().count() < MAX_OPEN && keys.saturating_add(wanted) <= MAX_KEYS
    }

    /// Marks it as taken up, or as free again.
    pub(super) fn claim(&mut self, purchase_id: &str, session_id: &str, claimed: bool) {
        if let Some(session) = self.0.get_mut(purchase_id).filter(|session| session.session_id == session_id) {
            session.claimed = claimed;
        }
    }

    /// Forgets it; without a session, whichever it is.
    pub(super) fn end(&mut self, purchase_id: &str, session_id: Option<&str>) {
        let same = |session: &OpenSession| session_id.is_none_or(|id| session.session_id == id);
        if self.0.get(purchase_id).is_some_and(same) {
            self.0.remove(purchase_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, expires_ms: u64, keys: usize) -> OpenSession {
        let buyer = tributary_protocol::peaq::envelope::RecipientEntry {
            recipient_id: String::new(),
            recipient_type: String::new(),
            algorithm: String::new(),
            public_key_hex: String::new(),
            wrapped_key_hex: String::new(),
        };
        let access = Arc::new(vec![AccessEntry { chunk_id: String::new(), buyer }; keys]);
        OpenSession { session_id: id.to_owned(), url: String::new(), expires_ms, access, claimed: false }
    }

    #[test]
    fn a_delivery_is_handed_out_again_until_somebody_takes_it_up() {
        let mut open = OpenSessions::default();
        open.insert("p", session("s", 100, 1));
        assert!(open.usable("p", 0, 50).is_some());
        assert!(open.usable("p", 50, 50).is_none(), "too little of it is left");
        open.claim("p", "other", true);
        assert!(open.usable("p", 0, 50).is_some());
        open.claim("p", "s", true);
        assert!(open.usable("p", 0, 50).is_none());
        open.claim("p", "s", false);
        assert!(open.usable("p", 0, 50).is_some());
        open.end("p", Some("other"));
        assert!(open.usable("p", 0, 50).is_some());
        open.end("p", None);
        assert!(open.usable("p", 0, 50).is_none());
    }

    #[test]
    fn open_deliveries_and_their_keys_are_bounded() {
        let mut open = OpenSessions::default();
        for n in 0..MAX_OPEN {
            assert!(open.has_room(&n.to_string(), 1, 0));
            open.insert(&n.to_string(), session("s", 100, 1));
        }
        assert!(!open.has_room("one more", 1, 0));
        assert!(open.has_room("0", 1, 0), "in its own place");
        assert!(open.has_room("one more", 1, 100), "the others have expired");
        open.insert("large", session("s", 200, MAX_KEYS - 1));
        assert!(open.has_room("one more", 1, 100));
        assert!(!open.has_room("one more", 2, 100));
    }
}
