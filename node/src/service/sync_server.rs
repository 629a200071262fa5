//! Answers what other nodes ask to catch up: bindings, heads, entries, datasets and proofs, from the store.
//!
//! Everything in the store is either the machine's own or was verified when it was followed, so it is served to whoever asks;
//! of other machines only their bindings, unless the node passes on what it follows.
//! What an answer may cost is bounded before it is begun: requests per peer and second, requests at a time, bytes of an
//! answer, entries that one lookup reads. Beyond a bound the answer is "busy", with the time after which to ask again. A
//! machine that must not publish does not serve its own logs either.

mod datasets;
mod meter;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use tributary_protocol::{
    ids::{Did, LogId, LogKey},
    wire::{
        SyncRequest, SyncResponse,
        sync::{ENVELOPE, MAX_RESPONSE},
    },
};
use tributary_store::{Store, StoreError, Table};

pub use self::meter::SyncStatus;
use self::{datasets::Datasets, meter::SyncMeter};
use super::{
    announcer::Outbox,
    rates::{PeerRates, per_second},
};
use crate::{
    durations::DurationsReport,
    machine::{Machine, MachineError},
    net::{Client, InboundRequest, Offence, PeerId},
};

/// Requests of one peer a second; catching up on a long log takes one request for each 256 entries, so that is 50,000 entries
/// a second.
const PER_PEER: u32 = 200;
/// Requests of everybody a second.
const PER_NODE: u32 = 1000;
/// Answers that are read from the disk at a time; the others wait.
const AT_A_TIME: usize = 8;
/// Entries or bindings in one answer.
const PAGE: usize = 256;
/// When to ask again after the store could not be read, or for logs that may not be published, in ms.
const TROUBLE_MS: u32 = 60_000;
/// Signed heads are used again for so long if nothing was appended: they carry the time, which should be about right.
const HEADS_LIVE: Duration = Duration::from_secs(5);

/// Newest heads of a followed machine, as they were signed.
pub(super) type FollowedHeads = Box<dyn Fn(&Did) -> Vec<Vec<u8>> + Send + Sync>;

/// What is served, and how much of it.
pub(super) struct SyncServer {
    store: Store,
    machine: Option<(Arc<Machine>, Arc<Outbox>)>,
    /// `None` serves nothing of other machines but their bindings.
    followed: Option<FollowedHeads>,
    rates: PeerRates,
    places: Arc<Semaphore>,
    heads: Mutex<Option<OwnHeads>>,
    datasets: Datasets,
    meter: SyncMeter,
}

/// The machine's own heads as of some version of the outbox, with their logs.
struct OwnHeads {
    version: u64,
    made: Instant,
    heads: Vec<(LogId, Vec<u8>)>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl SyncServer {
    pub(super) fn new(
        store: Store,
        machine: Option<(Arc<Machine>, Arc<Outbox>)>,
        followed: Option<FollowedHeads>,
    ) -> Self {
        Self {
            datasets: Datasets::new(store.clone()),
            store,
            machine,
            followed,
            rates: PeerRates::new(per_second(PER_PEER), per_second(PER_NODE)),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            heads: Mutex::default(),
            meter: SyncMeter::default(),
        }
    }

    /// What was asked since the start.
    pub(super) fn status(&self) -> SyncStatus {
        self.meter.status()
    }

    /// How long answers took that were looked up.
    pub(super) fn durations(&self) -> DurationsReport {
        self.meter.durations()
    }

    /// The answer while there is no time for another one.
    pub(super) fn busy(retry_ms: u32) -> Vec<u8> {
        SyncResponse::Busy { retry_ms }.encode().unwrap_or_default()
    }

    /// Answers one request. Waits for the disk, never for the peer.
    pub(super) async fn answer(self: Arc<Self>, net: Client, inbound: InboundRequest) {
        let InboundRequest { peer, bytes, responder } = inbound;
        let response = self.respond(&net, peer, &bytes).await;
        let Some(response) = response else { return };
        // Larger than the protocol allows would be a bug here; the peer then sees a closed stream.
        match response.encode() {
            Ok(bytes) => drop(responder.send(bytes).await),
            Err(error) => tracing::error!(%error, "a sync response cannot be encoded"),
        }
    }

    /// `None` closes the stream without a word.
    async fn respond(self: Arc<Self>, net: &Client, peer: PeerId, bytes: &[u8]) -> Option<SyncResponse> {
        if let Err(refused) = self.rates.admit(peer) {
            if refused.flood {
                let _ = net.penalize(peer, Offence::Flood).await; // fails only when the network has shut down
            }
            self.meter.refused();
            return Some(SyncResponse::Busy { retry_ms: refused.retry_ms });
        }
        let request = match SyncRequest::decode(bytes) {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%peer, %error, "malformed sync request");
                self.meter.malformed();
                let _ = net.penalize(peer, Offence::Malformed).await;
                return None;
            }
        };
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let answered = tokio::task::spawn_blocking(move || {
            let (_place, begun) = (place, Instant::now());
            let response = self.look_up(&request);
            self.meter.looked_up(&request, response.is_ok(), begun);
            response.map_err(|error| (request, error))
        });
        match answered.await {
            Ok(Ok(response)) => Some(response),
            Ok(Err((request, error))) => {
                tracing::warn!(%peer, ?request, %error, "a sync request cannot be answered");
                Some(SyncResponse::Busy { retry_ms: TROUBLE_MS })
            }
            Err(error) => {
                tracing::error!(%error, "a sync task failed");
                None
            }
        }
    }

    fn look_up(&self, request: &SyncRequest) -> Result<SyncResponse, Unanswered> {
        let did = match request {
            SyncRequest::Bindings { did, .. }
            | SyncRequest::Heads { did, .. }
            | SyncRequest::Dataset { did, .. }
            | SyncRequest::Inclusion { did, .. } => *did,
            SyncRequest::Entries { log, .. } => log.did,
        };
        if self.machine.as_ref().is_some_and(|(machine, _)| machine.did() == did && machine.displaced().is_some()) {
            return Ok(SyncResponse::Busy { retry_ms: TROUBLE_MS });
        }
        let own = self.machine.as_ref().is_some_and(|(machine, _)| machine.did() == did);
        // Bindings are few, and it is by them that a machine learns that another copy of it publishes.
        let bindings = matches!(request, SyncRequest::Bindings { .. });
        if !own && !bindings && self.followed.is_none() {
            return Ok(SyncResponse::NotFound);
        }
        match *request {
            SyncRequest::Bindings { did, from_serial } => Ok(self.bindings(&did, from_serial)?),
            SyncRequest::Heads { did, from_log } => self.heads(&did, from_log),
            SyncRequest::Entries { log, from, max } => Ok(self.entries(&log, from, max)?),
            SyncRequest::Dataset { did, dataset } => Ok(self.datasets.closing(&did, &dataset)?),
            SyncRequest::Inclusion { did, dataset, index } => Ok(self.datasets.inclusion(&did, &dataset, index)?),
        }
    }

    fn bindings(&self, did: &Did, from_serial: u64) -> Result<SyncResponse, StoreError> {
        // Keys are the DID and the serial (big endian); the row before the first one wanted comes just before it.
        let after =
            from_serial.checked_sub(1).map(|serial| [did.as_bytes().as_slice(), &serial.to_be_bytes()].concat());
        let rows = self.store.rows(Table::Binding, did.as_bytes(), after.as_deref(), PAGE + 1)?;
        let (bindings, more) = page(rows.into_iter().map(|(_, binding)| binding), PAGE);
        Ok(if bindings.is_empty() { SyncResponse::NotFound } else { SyncResponse::Bindings { bindings, more } })
    }

    fn heads(&self, did: &Did, from_log: LogId) -> Result<SyncResponse, Unanswered> {
        let all = match &self.machine {
            Some((machine, outbox)) if machine.did() == *did => self.own_heads(machine, outbox)?,
            _ => self
                .followed
                .iter()
                .flat_map(|followed| followed(did))
                .filter_map(|head| Some((log_of_head(&head)?, head)))
                .collect(),
        };
        let mut wanted: Vec<(LogId, Vec<u8>)> = all.into_iter().filter(|(log, _)| *log >= from_log).collect();
        wanted.sort_by_key(|(log, _)| *log);
        let (heads, more) = page(wanted.into_iter().map(|(_, head)| head), PAGE);
        Ok(if heads.is_empty() { SyncResponse::NotFound } else { SyncResponse::Heads { heads, more } })
    }

    fn own_heads(&self, machine: &Machine, outbox: &Outbox) -> Result<Vec<(LogId, Vec<u8>)>, MachineError> {
        // Read before the heads are made: what is appended in between makes them old, not new.
        let version = outbox.version();
        let mut kept = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = &*kept
            && own.version == version
            && own.made.elapsed() < HEADS_LIVE
        {
            return Ok(own.heads.clone());
        }
        let heads: Vec<(LogId, Vec<u8>)> =
            machine.heads()?.iter().map(|head| (head.head().log, head.bytes().to_vec())).collect();
        *kept = Some(OwnHeads { version, made: Instant::now(), heads: heads.clone() });
        Ok(heads)
    }

    fn entries(&self, log: &LogKey, from: u64, max: u32) -> Result<SyncResponse, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX).clamp(1, PAGE);
        // One more than is sent says whether there is more; a gap ends the answer, which promises none.
        let found = self.store.entries(log, from, max + 1, MAX_RESPONSE - ENVELOPE - 5 * (max + 1))?;
        let joined = found.into_iter().zip(from..).take_while(|(entry, seq)| entry.seq == *seq);
        let mut entries: Vec<Vec<u8>> = joined.map(|(entry, _)| entry.bytes).collect();
        let Some(last) = u64::try_from(entries.len()).ok().filter(|len| *len > 0) else {
            return Ok(SyncResponse::NotFound);
        };
        let more = if entries.len() > max {
            entries.truncate(max);
            true
        } else {
            self.store.entry(log, from.saturating_add(last))?.is_some()
        };
        Ok(SyncResponse::Entries { entries, more })
    }
}

fn log_of_head(bytes: &[u8]) -> Option<LogId> {
    tributary_protocol::entry::SignedHead::decode(bytes).ok().map(|head| head.head().log)
}

/// The first `count` objects that fit in an answer, and whether more were offered.
fn page(objects: impl Iterator<Item = Vec<u8>>, count: usize) -> (Vec<Vec<u8>>, bool) {
    let mut room = MAX_RESPONSE - ENVELOPE;
    let mut taken = Vec::new();
    for object in objects {
        let needed = object.len() + 5;
        if taken.len() == count || needed > room {
            return (taken, true);
        }
        room -= needed;
        taken.push(object);
    }
    (taken, false)
}
