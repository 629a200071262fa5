//! How far the logs go: what is told to others, and what a twin with the same keys tells.

use std::sync::PoisonError;

use tributary_protocol::{
    entry::{Head, SignedEntry, SignedHead},
    ids::LogKey,
};

use super::{Displaced, Machine, MachineError};

impl Machine {
    /// Signed heads of all logs of this incarnation, and the note of how far others may have seen them, which is durable first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or the note not written.
    pub fn heads(&self) -> Result<Vec<SignedHead>, MachineError> {
        let now_ms = (self.clock)();
        let mut heads = Vec::new();
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = false;
        for log in self.store.logs(Some(&self.keys.did))?.into_iter().filter(|l| l.incarnation == self.incarnation()) {
            let Some((seq, bytes)) = self.store.head(&log)? else { continue };
            let Ok(entry) = SignedEntry::decode(&bytes) else { continue };
            news |= origin.published(log.log, seq + 1);
            let LogKey { did, log, incarnation } = log;
            let head = Head { did, log, incarnation, seq, entry_hash: entry.hash(), time_ms: now_ms };
            heads.push(SignedHead::sign(head, &self.keys.feed));
        }
        if news {
            origin.save()?;
        }
        Ok(heads)
    }

    /// Tells the machine that an entry signed with its keys arrived. If it does not hold that entry, it has a twin, and stops
    /// publishing.
    pub fn met_own_entry(&self, entry: &SignedEntry) {
        let (log, seq) = (entry.entry().key(), entry.entry().seq);
        if self.is_ours(&log) && self.store.entry(&log, seq).ok().flatten().as_deref() != Some(entry.bytes()) {
            self.meet_twin(log, seq);
        }
    }

    /// Tells the machine that a head signed with its keys arrived. If it goes beyond the machine's log, it is a twin's.
    pub fn met_own_head(&self, head: &SignedHead) {
        let (log, seq) = (head.head().key(), head.head().seq);
        if self.is_ours(&log) && self.store.entry(&log, seq).is_ok_and(|held| held.is_none()) {
            self.meet_twin(log, seq);
        }
    }

    /// Logs of past incarnations are closed, and what somebody adds to them counts for nobody. Those of a later one exist only
    /// where a copy of this home was bound anew.
    fn is_ours(&self, log: &LogKey) -> bool {
        log.did == self.keys.did && log.incarnation >= self.incarnation()
    }

    fn meet_twin(&self, log: LogKey, seq: u64) {
        let mut displaced = self.displaced.lock().unwrap_or_else(PoisonError::into_inner);
        if displaced.is_none() {
            let reason = Displaced::Twin { log, seq };
            tracing::error!(%reason, "publishing stopped");
            *displaced = Some(reason);
        }
    }

    /// Why the machine must not publish, if it must not.
    #[must_use]
    pub fn displaced(&self) -> Option<Displaced> {
        self.displaced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
