//! The seller's delivery sessions: who may have what, and what a stranger is told.
//!
//! A session is *preparing* until the marketplace has named session and buyer, then *unclaimed* until that buyer connects,
//! then *claimed*. When it ends, a *tombstone* refuses its buyer until the handoff would have expired. A handshake that
//! comes while the session is being prepared is parked and judged when it opens. Answers and their texts are those of
//! peaq's seller. A handshake proves nothing: it names three strings, and whoever knows them is taken for the buyer.
//!
//! Owns no stream and no clock: streams are handles of type `C`, times are ms since 1970.

use std::collections::HashMap;

use super::frame::{ErrorFrame, Frame, FrameCode, FrameError, Handshake};

/// Sessions at a time, and as many tombstones.
pub const MAX_SESSIONS: usize = 4096;

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Session and buyer are not known yet.
    Preparing,
    /// Nobody has come.
    Unclaimed,
    /// The buyer has come.
    Claimed,
}

/// Why a session cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// There is one already.
    #[error("this purchase is being delivered already; wait until that ends, or close it")]
    Concurrent,
    /// There was one, and its handoff has not expired.
    #[error("this purchase was delivered or given up a moment ago; try again when its handoff has expired")]
    Consumed,
    /// Too many.
    #[error("there are {MAX_SESSIONS} delivery sessions already; try again when some have ended")]
    Full,
    /// No such session, or it is past preparing.
    #[error("this purchase is not being prepared")]
    NotPreparing,
}

/// What becomes of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<C> {
    /// It is the buyer: send the chunks on this stream.
    Claimed(C),
    /// Kept until the session opens.
    Parked,
    /// Answer this and close the stream.
    Refused(C, ErrorFrame),
}

/// What became of a parked handshake when its session opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening<C> {
    /// Nobody had come.
    Waiting,
    /// The buyer had.
    Claimed(C),
    /// Somebody else had: answer this and close the stream. The session waits for its buyer.
    Refused(C, ErrorFrame),
}

struct Session<C> {
    state: SessionState,
    /// Session and buyer id, once known.
    names: Option<(String, String)>,
    expires_ms: u64,
    parked: Option<(Handshake, C)>,
}

/// All sessions of a seller.
pub struct Sessions<C> {
    live: HashMap<String, Session<C>>,
    /// Purchase and session, with the time until which they are refused.
    tombstones: HashMap<(String, String), u64>,
}

impl<C> Default for Sessions<C> {
    fn default() -> Self {
        Self { live: HashMap::new(), tombstones: HashMap::new() }
    }
}

/// The handshake in what a peer sent first, or what it is told; `None` is a stream that ended before its first byte.
///
/// # Errors
/// The answer to anything else.
pub fn first_frame(frame: Option<Result<Frame<'_>, FrameError>>) -> Result<Handshake, ErrorFrame> {
    match frame {
        Some(Ok(Frame::Handshake(handshake))) => Ok(handshake),
        Some(Err(_)) => Err(ErrorFrame::new(FrameCode::MalformedFrame, "malformed handshake")),
        Some(Ok(_)) | None => Err(ErrorFrame::new(FrameCode::MalformedFrame, "expected handshake")),
    }
}

fn mismatch(reason: &str) -> ErrorFrame {
    ErrorFrame::new(FrameCode::SessionMismatch, reason)
}

const ALREADY_CLAIMED: &str = "session already claimed";
const MISMATCH: &str = "session or buyer mismatch";

impl<C> Sessions<C> {
    /// No sessions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to prepare a session for a purchase, whose handoff is good until `expires_ms`.
    ///
    /// # Errors
    /// There is one, there just was one, or there are too many.
    pub fn prepare(&mut self, purchase_id: &str, expires_ms: u64, now_ms: u64) -> Result<(), SessionError> {
        self.tombstones.retain(|_, until| *until > now_ms);
        if self.live.contains_key(purchase_id) {
            return Err(SessionError::Concurrent);
        }
        if self.tombstones.keys().any(|(purchase, _)| purchase == purchase_id) {
            return Err(SessionError::Consumed);
        }
        if self.live.len() + self.tombstones.len() >= MAX_SESSIONS {
            return Err(SessionError::Full);
        }
        let session = Session { state: SessionState::Preparing, names: None, expires_ms, parked: None };
        self.live.insert(purchase_id.to_owned(), session);
        Ok(())
    }

    /// Opens a prepared session for its buyer.
    ///
    /// # Errors
    /// [`SessionError::NotPreparing`].
    pub fn open(&mut self, purchase_id: &str, session_id: &str, buyer_id: &str) -> Result<Opening<C>, SessionError> {
        let session = self.live.get_mut(purchase_id).ok_or(SessionError::NotPreparing)?;
        if session.state != SessionState::Preparing {
            return Err(SessionError::NotPreparing);
        }
        session.names = Some((session_id.to_owned(), buyer_id.to_owned()));
        session.state = SessionState::Unclaimed;
        Ok(match session.parked.take() {
            None => Opening::Waiting,
            Some((handshake, stream)) if handshake.session_id == session_id && handshake.buyer_id == buyer_id => {
                session.state = SessionState::Claimed;
                Opening::Claimed(stream)
            }
            Some((_, stream)) => Opening::Refused(stream, mismatch(MISMATCH)),
        })
    }

    /// Judges a handshake that came on `stream`.
    pub fn handshake(&mut self, handshake: Handshake, stream: C, now_ms: u64) -> Verdict<C> {
        let key = (handshake.purchase_id, handshake.session_id);
        if self.tombstones.get(&key).is_some_and(|until| *until > now_ms) {
            return Verdict::Refused(stream, mismatch("session already consumed"));
        }
        let (purchase_id, session_id) = key;
        let Some(session) = self.live.get_mut(&purchase_id) else {
            return Verdict::Refused(stream, mismatch("unknown session"));
        };
        match session.state {
            SessionState::Preparing if session.parked.is_some() => Verdict::Refused(stream, mismatch(ALREADY_CLAIMED)),
            SessionState::Preparing => {
                session.parked = Some((Handshake { purchase_id, session_id, ..handshake }, stream));
                Verdict::Parked
            }
            SessionState::Claimed => Verdict::Refused(stream, mismatch(ALREADY_CLAIMED)),
            SessionState::Unclaimed if session.names != Some((session_id, handshake.buyer_id)) => {
                Verdict::Refused(stream, mismatch(MISMATCH))
            }
            SessionState::Unclaimed => {
                session.state = SessionState::Claimed;
                Verdict::Claimed(stream)
            }
        }
    }

    /// Whether a handshake is the buyer's, without taking the session for it: the ROS 2 agent's buyers ask more than once.
    ///
    /// # Errors
    /// The answer to anybody else.
    pub fn admits(&self, handshake: &Handshake, now_ms: u64) -> Result<(), ErrorFrame> {
        let Handshake { purchase_id, session_id, buyer_id } = handshake;
        let key = (purchase_id.clone(), session_id.clone());
        if self.tombstones.get(&key).is_some_and(|until| *until > now_ms) {
            return Err(mismatch("session already consumed"));
        }
        match self.live.get(purchase_id).map(|session| &session.names) {
            None | Some(None) => Err(mismatch("unknown session")),
            Some(Some((session, buyer))) if session == session_id && buyer == buyer_id => Ok(()),
            Some(Some(_)) => Err(mismatch(MISMATCH)),
        }
    }

    /// Lets the buyer come again after a transfer that broke; `false` when the session is not claimed.
    pub fn reopen(&mut self, purchase_id: &str) -> bool {
        match self.live.get_mut(purchase_id) {
            Some(session) if session.state == SessionState::Claimed => {
                session.state = SessionState::Unclaimed;
                true
            }
            _ => false,
        }
    }

    /// Ends a session, delivered or not, and returns a handshake that was still parked. A session whose buyer was known
    /// leaves a tombstone.
    pub fn end(&mut self, purchase_id: &str) -> Option<C> {
        let session = self.live.remove(purchase_id)?;
        if let Some((session_id, _)) = session.names {
            self.tombstones.insert((purchase_id.to_owned(), session_id), session.expires_ms);
        }
        session.parked.map(|(_, stream)| stream)
    }

    /// How far the session of a purchase is.
    #[must_use]
    pub fn state(&self, purchase_id: &str) -> Option<SessionState> {
        self.live.get(purchase_id).map(|session| session.state)
    }

    /// Sessions that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether every session has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(session_id: &str, buyer_id: &str) -> Handshake {
        Handshake { purchase_id: "p".into(), session_id: session_id.into(), buyer_id: buyer_id.into() }
    }

    fn reason<C>(verdict: Verdict<C>) -> String {
        match verdict {
            Verdict::Refused(_, error) => error.reason,
            Verdict::Claimed(_) => "claimed".into(),
            Verdict::Parked => "parked".into(),
        }
    }

    #[test]
    fn a_parked_buyer_is_served_when_its_session_opens() {
        let mut sessions = Sessions::new();
        sessions.prepare("p", 100, 0).unwrap();
        assert_eq!(sessions.handshake(handshake("s", "b"), 1, 0), Verdict::Parked);
        assert_eq!(reason(sessions.handshake(handshake("s", "b"), 2, 0)), "session already claimed");
        assert_eq!(sessions.open("p", "s", "b"), Ok(Opening::Claimed(1)));
        assert_eq!(sessions.state("p"), Some(SessionState::Claimed));
        assert_eq!(sessions.open("p", "s", "b"), Err(SessionError::NotPreparing));
    }

    #[test]
    fn a_parked_stranger_does_not_keep_the_buyer_out() {
        let mut sessions = Sessions::new();
        sessions.prepare("p", 100, 0).unwrap();
        assert_eq!(sessions.handshake(handshake("guess", "b"), 1, 0), Verdict::Parked);
        let Ok(Opening::Refused(1, error)) = sessions.open("p", "s", "b") else { panic!("the stranger was taken") };
        assert_eq!(error.reason, "session or buyer mismatch");
        assert_eq!(reason(sessions.handshake(handshake("s", "x"), 2, 0)), "session or buyer mismatch");
        assert_eq!(sessions.handshake(handshake("s", "b"), 3, 0), Verdict::Claimed(3));
        assert_eq!(reason(sessions.handshake(handshake("s", "b"), 4, 0)), "session already claimed");
    }

    #[test]
    fn a_session_that_ended_is_refused_until_its_handoff_expires() {
        let mut sessions = Sessions::new();
        sessions.prepare("p", 100, 0).unwrap();
        assert_eq!(sessions.prepare("p", 100, 0), Err(SessionError::Concurrent));
        assert_eq!(sessions.open("p", "s", "b"), Ok(Opening::Waiting));
        assert_eq!(sessions.end("p"), None::<u8>);
        assert_eq!(reason(sessions.handshake(handshake("s", "b"), 1, 99)), "session already consumed");
        assert_eq!(reason(sessions.handshake(handshake("s", "b"), 1, 100)), "unknown session");
        assert_eq!(sessions.prepare("p", 200, 99), Err(SessionError::Consumed));
        assert_eq!(sessions.prepare("p", 200, 100), Ok(()));
        // It never learned its buyer, so it leaves nothing.
        assert_eq!(sessions.handshake(handshake("s", "b"), 7, 101), Verdict::Parked);
        assert_eq!(sessions.end("p"), Some(7));
        assert_eq!(sessions.prepare("p", 300, 102), Ok(()));
    }

    #[test]
    fn a_buyer_whose_transfer_broke_may_come_again() {
        let mut sessions = Sessions::new();
        sessions.prepare("p", 100, 0).unwrap();
        assert!(!sessions.reopen("p"));
        assert_eq!(sessions.admits(&handshake("s", "b"), 0).unwrap_err().reason, "unknown session");
        sessions.open("p", "s", "b").unwrap();
        assert_eq!(sessions.handshake(handshake("s", "b"), 1, 0), Verdict::Claimed(1));
        assert_eq!(sessions.admits(&handshake("s", "b"), 0), Ok(()));
        assert_eq!(sessions.admits(&handshake("s", "x"), 0).unwrap_err().reason, "session or buyer mismatch");
        assert!(sessions.reopen("p"));
        assert_eq!(sessions.handshake(handshake("s", "b"), 2, 0), Verdict::Claimed(2));
        sessions.end("p");
        assert!(!sessions.reopen("p"));
        assert_eq!(sessions.admits(&handshake("s", "b"), 0).unwrap_err().reason, "session already consumed");
    }

    #[test]
    fn sessions_and_tombstones_are_bounded_together() {
        let mut sessions = Sessions::<u8>::new();
        for n in 0..MAX_SESSIONS {
            sessions.prepare(&n.to_string(), 100, 0).unwrap();
            if n % 2 == 0 {
                sessions.open(&n.to_string(), "s", "b").unwrap();
                sessions.end(&n.to_string());
            }
        }
        assert_eq!(sessions.len(), MAX_SESSIONS / 2);
        assert_eq!(sessions.prepare("p", 100, 0), Err(SessionError::Full));
        assert_eq!(sessions.prepare("p", 200, 100), Ok(()));
    }
}
