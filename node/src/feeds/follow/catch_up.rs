//! Catching up with a feed over sync: bindings, heads, entries in pages, each durable before the next is asked for.

use std::sync::Arc;

use libp2p::PeerId;
use serde::Serialize;
use tributary_protocol::{
    entry::SignedHead,
    feed::HeadVerdict,
    ids::{Did, LogId, LogKey},
    wire::{SyncRequest, SyncResponse},
};

use super::{
    super::{
        Feeds, blocking,
        error::{FeedsError, FollowError},
        feed::{Applied, JoinPoint},
    },
    FeedEvent,
    ask::{ask, ask_bindings, decode_page, odd},
    handle::Handle,
    join::Beginning,
};
use crate::net::Offence;

/// Entries asked for at a time.
const PAGE: u32 = 256;
/// Peers beside the machine's own nodes that are asked in one catch-up.
const MAX_OTHERS: usize = 3;

/// What catching up brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CatchUpReport {
    /// New bindings.
    pub bindings: u64,
    /// New entries.
    pub entries: u64,
    /// Bytes of entries that were sent to us.
    pub bytes: u64,
    /// Logs that are followed.
    pub logs: u64,
}

impl CatchUpReport {
    /// What another peer brought.
    fn add(&mut self, other: &Self) {
        self.bindings += other.bindings;
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.logs = self.logs.max(other.logs);
    }
}

impl Feeds {
    /// Brings the feed of a followed machine up to date, from the first peer that can: bindings, then all followed logs.
    ///
    /// # Errors
    ///
    /// What happened with the last peer. Everything that came before is kept.
    pub async fn catch_up(&self, did: &Did) -> Result<CatchUpReport, FollowError> {
        let handle = self.handle(did)?;
        self.catch_up_with(&handle, None).await
    }

    pub(super) async fn catch_up_with(
        &self,
        handle: &Arc<Handle>,
        first: Option<PeerId>,
    ) -> Result<CatchUpReport, FollowError> {
        let _turn = handle.turn.acquire().await.map_err(|_| FeedsError::Stopped)?;
        let (own, connected) = (self.machine_peers(handle).await?, self.connected().await?);
        let mut peers = self.peers_of(handle).await?;
        if let Some(first) = first {
            peers.retain(|peer| *peer != first);
            peers.insert(0, first);
        }
        // A machine that is gone keeps nobody waiting who has others to ask: it is dialled meanwhile.
        if peers.iter().any(|peer| connected.contains(peer)) {
            for peer in own.iter().copied().filter(|peer| !connected.contains(peer)) {
                let (feeds, handle) = (self.clone(), Arc::clone(handle));
                tokio::spawn(async move { feeds.reach(&handle, peer).await });
            }
            peers.sort_by_key(|peer| (Some(*peer) != first, !connected.contains(peer)));
        }
        let (mut asked, mut brought) = (0, None);
        let mut last = FollowError::NoAddress(handle.did);
        let mut looked = false;
        loop {
            for peer in std::mem::take(&mut peers) {
                if let Err(error) = self.reach(handle, peer).await {
                    last = error;
                    continue;
                }
                let machine = own.contains(&peer);
                match self.catch_up_from(handle, peer, machine).await {
                    // It showed nothing of the machine: it may serve no feeds, or know nothing of this one.
                    Ok(report) if report == CatchUpReport::default() => {
                        last = FollowError::Unknown { peer, did: handle.did };
                    }
                    Ok(report) => {
                        let total = brought.get_or_insert(CatchUpReport::default());
                        total.add(&report);
                        if !machine {
                            handle.remember(peer);
                        }
                        asked += 1;
                        // Of others nobody knows who has the newest.
                        if machine || Some(peer) == first || asked >= MAX_OTHERS {
                            return Ok(*total);
                        }
                    }
                    // About the machine, not about the peer: another peer would say the same.
                    Err(error @ (FollowError::Feeds(_) | FollowError::Equivocation(_) | FollowError::Closed(_))) => {
                        return Err(error);
                    }
                    Err(error) => {
                        tracing::debug!(did = %handle.did, %peer, %error, "catching up failed");
                        last = error;
                    }
                }
            }
            if let Some(report) = brought {
                return Ok(report);
            }
            if looked || self.discover(handle).await? == 0 {
                return Err(last);
            }
            looked = true;
            peers = handle.reach().providers.clone();
        }
    }

    /// Fetches a log up to `end` (exclusive), from one peer after the other until it is here. `Ok` when a peer answered all
    /// questions, even if it does not have that much.
    pub(in crate::feeds) async fn catch_up_log(
        &self,
        handle: &Arc<Handle>,
        log: LogKey,
        end: u64,
    ) -> Result<(), FollowError> {
        let _turn = handle.turn.acquire().await.map_err(|_| FeedsError::Stopped)?;
        // Without a network there is nobody to look for.
        self.net()?;
        let mut outcome = Err(FollowError::NoAddress(handle.did));
        for peer in self.peers_of(handle).await? {
            if let Err(error) = self.reach(handle, peer).await {
                if outcome.is_err() {
                    outcome = Err(error);
                }
                continue;
            }
            match self.fetch_log_until(handle, peer, log, end).await {
                Ok(next) if next >= end => return Ok(()),
                Ok(_) => outcome = Ok(()),
                Err(error @ (FollowError::Feeds(_) | FollowError::Equivocation(_) | FollowError::Closed(_))) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(did = %handle.did, %peer, %error, "a part of a log could not be fetched");
                    if outcome.is_err() {
                        outcome = Err(error);
                    }
                }
            }
        }
        outcome
    }

    async fn fetch_log_until(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        log: LogKey,
        end: u64,
    ) -> Result<u64, FollowError> {
        self.fetch_bindings(handle, peer).await?;
        let next = || {
            let known = Arc::clone(handle);
            blocking(move || known.feed().follower().next(&log.log, log.incarnation))
        };
        self.fetch_log(handle, peer, log, next().await?, Some(end), &mut CatchUpReport::default()).await?;
        Ok(next().await?)
    }

    /// Fetches the bindings that are missing. A fork of the bindings is the machine's, all else the peer's fault.
    pub(crate) async fn fetch_bindings(&self, handle: &Arc<Handle>, peer: PeerId) -> Result<u64, FollowError> {
        let net = self.net()?;
        let mut new = 0;
        loop {
            let known = Arc::clone(handle);
            let from_serial = blocking(move || known.feed().follower().next_serial()).await?;
            let (page, more) = ask_bindings(net, peer, handle.did, from_serial).await?;
            if page.is_empty() {
                return Ok(new);
            }
            let known = Arc::clone(handle);
            match blocking(move || known.feed().on_bindings(&page)).await?? {
                Ok(0) => return Err(odd(net, peer, "it sends bindings that were not asked for").await),
                Ok(count) => new += count as u64,
                Err(source) => {
                    net.penalize(peer, Offence::BadProof).await?;
                    return Err(FollowError::Chain { peer, did: handle.did, source: Box::new(source) });
                }
            }
            if !more {
                return Ok(new);
            }
        }
    }

    /// Asks `peer` for everything that is not here. `own` says whether it is one of the machine's own nodes, whose heads are
    /// always new.
    async fn catch_up_from(&self, handle: &Arc<Handle>, peer: PeerId, own: bool) -> Result<CatchUpReport, FollowError> {
        let net = self.net()?;
        let did = handle.did;
        let mut report =
            CatchUpReport { bindings: self.fetch_bindings(handle, peer).await?, ..CatchUpReport::default() };
        let known = Arc::clone(handle);
        let (machine, streams): (Vec<_>, Vec<_>) = blocking(move || known.feed().closed_logs())
            .await?
            .into_iter()
            .partition(|(log, ..)| log.log == LogId::MACHINE);
        for (log, from, to) in machine {
            report.logs += 1;
            self.fetch_log(handle, peer, log, from, Some(to), &mut report).await?;
        }
        // Known when the machine log is here, which is the first.
        let mut beginning = None;
        let mut from_log = LogId::MACHINE;
        'heads: loop {
            let (heads, more) = match ask(net, peer, &SyncRequest::Heads { did, from_log }).await? {
                SyncResponse::Heads { heads, more } => (heads, more),
                SyncResponse::NotFound => (Vec::new(), false),
                _ => return Err(odd(net, peer, "it was asked for heads").await),
            };
            for bytes in &heads {
                let head = match SignedHead::decode(bytes) {
                    Ok(head) => head,
                    Err(source) => {
                        net.penalize(peer, Offence::Malformed).await?;
                        return Err(FollowError::Entry { peer, source: Box::new(source) });
                    }
                };
                let (log, said) = (head.head().log, head.head().key());
                if said.did != did || log < from_log {
                    return Err(odd(net, peer, "it was asked for the heads of one machine, in order").await);
                }
                // Ascending by log, and the last one again ends a page: every answer makes progress.
                let Some(next_log) = after(&log) else { break 'heads };
                from_log = next_log;
                let known = Arc::clone(handle);
                let verdict = blocking(move || {
                    let mut feed = known.feed();
                    if !feed.row.streams.wants(&known.did, &log) {
                        return Ok(None);
                    }
                    feed.on_head(&head).map(Some)
                })
                .await??;
                let Some(mut verdict) = verdict else { continue };
                report.logs += 1;
                if said.log != LogId::MACHINE && beginning.is_none() {
                    beginning = Some(self.join_from(handle).await?);
                }
                if let Some(Some(from)) = &beginning
                    && matches!(verdict, HeadVerdict::Behind { .. })
                {
                    verdict = self.join_if_new(handle, peer, from, &head, verdict).await?;
                }
                match verdict {
                    HeadVerdict::Behind { from, .. } => {
                        self.fetch_log(handle, peer, said, from, None, &mut report).await?;
                    }
                    HeadVerdict::Equivocation(_) => {
                        self.inner.tell(FeedEvent::Equivocation { did });
                        return Err(FollowError::Equivocation(did));
                    }
                    HeadVerdict::BadSignature => {
                        net.penalize(peer, Offence::BadProof).await?;
                        return Err(FollowError::Answer { peer, what: "a head with a wrong signature" });
                    }
                    HeadVerdict::UnknownKey => {
                        return Err(FollowError::Answer { peer, what: "a head by a key that no binding names" });
                    }
                    _ => {}
                }
            }
            if !more || heads.is_empty() {
                break;
            }
        }
        if !own {
            self.fetch_unannounced(handle, peer, &mut report).await?;
        }
        let from = match beginning {
            Some(from) => from,
            None => self.join_from(handle).await?,
        };
        for (log, next, to) in streams {
            let wanted = match &from {
                Some(from) if next == 0 => self.join_closed(handle, peer, from, log, to).await?,
                // Only what was begun with goes on: the others were over before.
                None if next == 0 => self.wants_all(handle).await?,
                _ => true,
            };
            if wanted {
                report.logs += 1;
                let known = Arc::clone(handle);
                let next = blocking(move || known.feed().follower().next(&log.log, log.incarnation)).await?;
                self.fetch_log(handle, peer, log, next, Some(to), &mut report).await?;
            }
        }
        if let Some(from) = &from {
            self.extend_logs(handle, peer, from, &mut report).await?;
            let known = Arc::clone(handle);
            blocking(move || known.feed().all_joined()).await??;
        }
        self.subscribe(handle).await?;
        Ok(report)
    }

    /// Asks for what comes behind the end of each log. Others than the machine cannot sign how far a log goes: they may hold more
    /// than the newest head that they have says, or no head at all.
    async fn fetch_unannounced(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        report: &mut CatchUpReport,
    ) -> Result<(), FollowError> {
        self.fetch_on(handle, peer, LogId::MACHINE, report).await?;
        // Known when the machine log is here.
        let (feeds, known) = (self.clone(), Arc::clone(handle));
        let streams = blocking(move || {
            let announced = feeds.stream_infos(&known.did)?;
            let feed = known.feed();
            let wanted = announced.keys().map(|stream| LogId::from(*stream));
            Ok::<_, FeedsError>(wanted.filter(|log| feed.row.streams.wants(&known.did, log)).collect::<Vec<LogId>>())
        });
        for log in streams.await?? {
            self.fetch_on(handle, peer, log, report).await?;
        }
        Ok(())
    }

    /// Asks for what comes behind the end of a log in the machine's incarnation.
    async fn fetch_on(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        log: LogId,
        report: &mut CatchUpReport,
    ) -> Result<(), FollowError> {
        let known = Arc::clone(handle);
        let place = blocking(move || {
            let feed = known.feed();
            let incarnation = feed.follower().chain()?.current().incarnation;
            let key = LogKey { did: known.did, log, incarnation };
            (!feed.must_join(&key)).then(|| (key, feed.follower().next(&log, incarnation)))
        });
        match place.await? {
            Some((key, next)) => self.fetch_log(handle, peer, key, next, None, report).await,
            None => Ok(()),
        }
    }

    /// Begins with a log that is not followed yet. Returns what its head means then.
    async fn join_if_new(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        from: &Beginning,
        head: &SignedHead,
        verdict: HeadVerdict,
    ) -> Result<HeadVerdict, FollowError> {
        let (known, key) = (Arc::clone(handle), head.head().key());
        if !blocking(move || known.feed().must_join(&key)).await? {
            return Ok(verdict);
        }
        self.join_log(handle, peer, from, head).await?;
        let (known, head) = (Arc::clone(handle), *head);
        Ok(blocking(move || known.feed().on_head(&head)).await??)
    }

    /// Whether a machine is followed from its start.
    async fn wants_all(&self, handle: &Arc<Handle>) -> Result<bool, FollowError> {
        let known = Arc::clone(handle);
        Ok(blocking(move || known.feed().row.from == JoinPoint::Start).await?)
    }

    /// Fetches a log from a position on, page by page, each durable before the next is asked for. `end` is exclusive.
    async fn fetch_log(
        &self,
        handle: &Arc<Handle>,
        peer: PeerId,
        log: LogKey,
        mut from: u64,
        end: Option<u64>,
        report: &mut CatchUpReport,
    ) -> Result<(), FollowError> {
        let net = self.net()?;
        let mut cuts = 0;
        while end.is_none_or(|end| from < end) {
            let max = end.map_or(PAGE, |end| u32::try_from(end - from).unwrap_or(PAGE).min(PAGE));
            let (page, more) = match ask(net, peer, &SyncRequest::Entries { log, from, max }).await? {
                SyncResponse::Entries { entries, more } => (entries, more),
                SyncResponse::NotFound => return Ok(()),
                _ => return Err(odd(net, peer, "it was asked for entries").await),
            };
            if page.is_empty() {
                return Ok(());
            }
            report.bytes += page.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            let entries = decode_page(net, peer, log, from, &page).await?;
            let (known, now) = (Arc::clone(handle), self.now());
            let applied = blocking(move || {
                let mut feed = known.feed();
                feed.on_entries(&entries, None, now)
                    .map(|applied| (applied, feed.follower().next(&log.log, log.incarnation)))
            })
            .await??;
            let (applied, next) = applied;
            let mut new = 0;
            let mut restart = false;
            for (what, seq) in applied.iter().zip(from..) {
                let bad = |reason| FollowError::BadEntry { peer, seq, reason };
                match what {
                    Applied::New { flags, .. } => {
                        new += 1;
                        self.note(handle, flags);
                    }
                    Applied::Known => {}
                    Applied::Cut => {
                        cuts += 1;
                        restart = cuts < 4;
                        if !restart {
                            return Err(bad("the peer tells another story every time"));
                        }
                    }
                    Applied::Ahead => restart = true,
                    Applied::UnknownKey => return Err(bad("no binding names its key")),
                    Applied::Equivocation => {
                        self.inner.tell(FeedEvent::Equivocation { did: handle.did });
                        return Err(FollowError::Equivocation(handle.did));
                    }
                    Applied::Noise(reason) => return Err(bad(reason)),
                    Applied::Bad(reason) => {
                        net.penalize(peer, Offence::BadProof).await?;
                        return Err(bad(reason));
                    }
                }
            }
            report.entries += new;
            if new > 0 {
                self.inner.tell(FeedEvent::Entries {
                    did: handle.did,
                    log: log.log,
                    incarnation: log.incarnation,
                    first: next.saturating_sub(new),
                    count: new,
                });
            }
            if next <= from && !restart {
                return Err(odd(net, peer, "entries that lead nowhere").await);
            }
            from = next;
            if !more && !restart {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The log id behind this one; `None` behind the last.
fn after(log: &LogId) -> Option<LogId> {
    let mut bytes = *log.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            return Some(LogId::from_bytes(bytes));
        }
    }
    None
}
