//! Catching up with one peer: bindings, then heads, then the entries of each log that is behind, page by page. Decides what is asked
//! next; what answers mean is the [`peer`](super::peer)'s business.

use std::collections::VecDeque;

use tributary_protocol::{
    ids::{Did, LogId, LogKey},
    wire::SyncRequest,
};

/// Entries of a page, as the node asks for.
pub(crate) const PAGE: u32 = 256;

/// Where it is.
#[derive(Debug)]
pub(crate) enum Step {
    Bindings,
    Heads,
    /// These logs are behind, the first is being fetched.
    Entries(VecDeque<LogKey>),
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(crate) struct CatchUp {
    pub(crate) peer: usize,
    pub(crate) step: Step,
    /// Number of the question: an answer that comes too late is for none.
    pub(crate) question: u64,
    pub(crate) asked: u64,
}

impl CatchUp {
    /// The question. `serial` is that of the binding to ask for, `next` the position that a log has come to.
    pub(crate) fn request(&self, did: Did, serial: u64, next: impl Fn(&LogKey) -> u64) -> Option<SyncRequest> {
        Some(match &self.step {
            Step::Bindings => SyncRequest::Bindings { did, from_serial: serial },
            Step::Heads => SyncRequest::Heads { did, from_log: LogId::MACHINE },
            Step::Entries(logs) => {
                let log = *logs.front()?;
                SyncRequest::Entries { log, from: next(&log), max: PAGE }
            }
        })
    }
}
