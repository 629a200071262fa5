//! What comes over gossip: what it is worth, and what it leads to.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use libp2p::PeerId;
use tributary_protocol::{
    entry::{EntryBody, SignedEntry, SignedHead},
    feed::{Flags, HeadVerdict},
    ids::{LogId, StreamId},
    seal,
    wire::{FeedMessage, gossip, parse_topic, topic_stream},
};

use super::{
    super::{Feeds, blocking, error::FeedsError, feed::Applied},
    FeedEvent,
    background::Work,
    handle::Handle,
};
use crate::net::Acceptance;

/// What a gossip message leads to.
struct GossipOutcome {
    acceptance: Acceptance,
    catch_up: bool,
    bindings: bool,
    stream: Option<StreamId>,
}

impl From<Acceptance> for GossipOutcome {
    fn from(acceptance: Acceptance) -> Self {
        Self { acceptance, catch_up: false, bindings: false, stream: None }
    }
}

impl Feeds {
    /// Takes a gossip message and says what it was worth. Everything that counts is durable when this returns.
    pub async fn on_gossip(&self, topic: &str, source: PeerId, bytes: Vec<u8>) -> Acceptance {
        if bytes.len() > gossip::MAX_MESSAGE {
            return Acceptance::Reject;
        }
        let Some((did, log)) = parse_topic(topic) else { return Acceptance::Ignore };
        let Ok(handle) = self.handle(&did) else { return Acceptance::Ignore };
        let Ok(message) = FeedMessage::decode(&bytes) else { return Acceptance::Reject };
        let feeds = self.clone();
        let work = {
            let handle = Arc::clone(&handle);
            move || match message {
                FeedMessage::Entry { entry, attachment } => {
                    feeds.gossip_entry(&handle, log, &entry, attachment.as_deref())
                }
                FeedMessage::Head(head) => feeds.gossip_head(&handle, log, &head),
            }
        };
        let outcome = match blocking(work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::warn!(%did, %error, "a gossip message could not be stored");
                return Acceptance::Ignore;
            }
            Err(_) => return Acceptance::Ignore,
        };
        if outcome.acceptance != Acceptance::Reject {
            handle.remember(source);
        }
        if outcome.catch_up && (!outcome.bindings || handle.may_ask_bindings()) {
            self.inner.queue(Work::CatchUp { did, peer: Some(source) });
        }
        if let (Some(stream), Some(net)) = (outcome.stream, &self.inner.net)
            && let Err(error) = net.subscribe(topic_stream(&did, &stream)).await
        {
            tracing::warn!(%did, %stream, %error, "a new stream is followed without gossip");
        }
        outcome.acceptance
    }

    fn gossip_entry(
        &self,
        handle: &Handle,
        log: LogId,
        bytes: &[u8],
        attachment: Option<&[u8]>,
    ) -> Result<GossipOutcome, FeedsError> {
        let Ok(signed) = SignedEntry::decode(bytes) else { return Ok(Acceptance::Reject.into()) };
        let entry = signed.entry();
        if entry.did != handle.did || entry.log != log {
            return Ok(Acceptance::Reject.into());
        }
        let now = self.now();
        let mut feed = handle.feed();
        if !feed.row.streams.wants(&handle.did, &log) {
            return Ok(Acceptance::Ignore.into());
        }
        let one = std::slice::from_ref(&signed);
        let mut applied = feed.on_entries(one, attachment, now)?;
        if let ([Applied::UnknownKey], EntryBody::Binding(binding)) = (applied.as_slice(), &entry.body)
            && matches!(feed.on_bindings(std::slice::from_ref(binding))?, Ok(1))
        {
            applied = feed.on_entries(one, attachment, now)?;
        }
        let wanted = feed.row.streams.clone();
        drop(feed);
        let matches = match (attachment, &entry.body) {
            (None, _) => true,
            (Some(body), EntryBody::Chunk(record)) => seal::check_bytes(record, body).is_ok(),
            (Some(_), _) => false,
        };
        let good = if matches { Acceptance::Accept } else { Acceptance::Reject };
        let outcome = match applied.pop() {
            Some(Applied::New { flags, stream }) => {
                // A machine whose clock is ahead of ours counts as quick.
                self.inner.lag.record(Duration::from_millis(now.saturating_sub(entry.time_ms)));
                self.note(handle, &flags);
                self.inner.tell(FeedEvent::Entries {
                    did: handle.did,
                    log,
                    incarnation: entry.incarnation,
                    first: entry.seq,
                    count: 1,
                });
                let stream = stream.filter(|stream| wanted.wants(&handle.did, &LogId::from(*stream)));
                GossipOutcome { stream, ..good.into() }
            }
            Some(Applied::Ahead) => GossipOutcome { catch_up: true, ..good.into() },
            Some(Applied::UnknownKey) => GossipOutcome { catch_up: true, bindings: true, ..Acceptance::Ignore.into() },
            Some(Applied::Cut) => GossipOutcome { catch_up: true, ..good.into() },
            Some(Applied::Equivocation) => {
                self.inner.tell(FeedEvent::Equivocation { did: handle.did });
                // The machine signed both: whoever passes the proof on helps.
                Acceptance::Accept.into()
            }
            Some(Applied::Bad(_)) => Acceptance::Reject.into(),
            Some(Applied::Known | Applied::Noise(_)) | None => Acceptance::Ignore.into(),
        };
        Ok(outcome)
    }

    fn gossip_head(&self, handle: &Handle, log: LogId, bytes: &[u8]) -> Result<GossipOutcome, FeedsError> {
        let Ok(head) = SignedHead::decode(bytes) else { return Ok(Acceptance::Reject.into()) };
        if head.head().did != handle.did || head.head().log != log {
            return Ok(Acceptance::Reject.into());
        }
        let mut feed = handle.feed();
        if !feed.row.streams.wants(&handle.did, &log) {
            return Ok(Acceptance::Ignore.into());
        }
        let verdict = feed.on_head(&head)?;
        drop(feed);
        Ok(match verdict {
            HeadVerdict::Current => Acceptance::Accept.into(),
            HeadVerdict::Behind { .. } => GossipOutcome { catch_up: true, ..Acceptance::Accept.into() },
            HeadVerdict::Equivocation(_) => {
                self.inner.tell(FeedEvent::Equivocation { did: handle.did });
                Acceptance::Accept.into()
            }
            HeadVerdict::UnknownKey if head.verify_signature().is_err() => Acceptance::Reject.into(),
            HeadVerdict::UnknownKey => GossipOutcome { catch_up: true, bindings: true, ..Acceptance::Ignore.into() },
            HeadVerdict::BadSignature | HeadVerdict::WrongMachine => Acceptance::Reject.into(),
            _ => Acceptance::Ignore.into(),
        })
    }

    /// Counts what looks odd but counts all the same.
    pub(super) fn note(&self, handle: &Handle, flags: &Flags) {
        if *flags != Flags::default() {
            handle.flagged.fetch_add(1, Relaxed);
            tracing::warn!(did = %handle.did, ?flags, "an entry looks odd");
            if flags.second_close {
                self.inner.tell(FeedEvent::Equivocation { did: handle.did });
            }
        }
    }
}
