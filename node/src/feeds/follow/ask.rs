//! Questions to peers over `/tributary/sync/1`: asked again while the peer is busy, answers decoded before anybody sees them.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use libp2p::PeerId;
use tributary_protocol::{
    binding::SignedBinding,
    entry::SignedEntry,
    ids::{Did, LogKey},
    wire::{SyncRequest, SyncResponse},
};

use super::super::error::FollowError;
use crate::net::{Client, Offence};

/// How often a busy peer is asked again.
const BUSY_RETRIES: usize = 6;
/// Longest wait for a busy peer.
const MAX_BUSY_WAIT: Duration = Duration::from_secs(10);

/// Waits between questions to a busy peer: grows, bounded, with jitter.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_BUSY_WAIT)
        .with_jitter()
        .with_max_times(BUSY_RETRIES)
        .build()
}

/// Asks a peer, again while it is busy.
pub(super) async fn ask(net: &Client, peer: PeerId, request: &SyncRequest) -> Result<SyncResponse, FollowError> {
    let bytes = request.encode().map_err(|source| FollowError::Malformed { peer, source: Box::new(source) })?;
    let mut waits = backoff();
    loop {
        let answer = net
            .sync(peer, bytes.clone())
            .await
            .map_err(|source| FollowError::Request { peer, source: Box::new(source) })?;
        let answer = match SyncResponse::decode(&answer) {
            Ok(answer) => answer,
            Err(source) => {
                net.penalize(peer, Offence::Malformed).await?;
                return Err(FollowError::Malformed { peer, source: Box::new(source) });
            }
        };
        let SyncResponse::Busy { retry_ms } = answer else { return Ok(answer) };
        let Some(wait) = waits.next() else { return Err(FollowError::Busy { peer }) };
        let asked = Duration::from_millis(retry_ms.into()).min(MAX_BUSY_WAIT);
        tokio::time::sleep(wait.max(asked)).await;
    }
}

/// A page of bindings.
pub(super) async fn ask_bindings(
    net: &Client,
    peer: PeerId,
    did: Did,
    from_serial: u64,
) -> Result<(Vec<SignedBinding>, bool), FollowError> {
    match ask(net, peer, &SyncRequest::Bindings { did, from_serial }).await? {
        SyncResponse::Bindings { bindings, more } => {
            let decoded: Result<Vec<_>, _> = bindings.iter().map(|bytes| SignedBinding::decode(bytes)).collect();
            match decoded {
                Ok(bindings) => Ok((bindings, more)),
                Err(source) => {
                    net.penalize(peer, Offence::Malformed).await?;
                    Err(FollowError::Entry { peer, source: Box::new(source.into()) })
                }
            }
        }
        SyncResponse::NotFound => Ok((Vec::new(), false)),
        _ => Err(odd(net, peer, "it was asked for bindings").await),
    }
}

/// The entries of a page, which must be those of `log` from `from` on, one after the other. Their signatures are not checked.
pub(super) async fn decode_page(
    net: &Client,
    peer: PeerId,
    log: LogKey,
    from: u64,
    page: &[Vec<u8>],
) -> Result<Vec<SignedEntry>, FollowError> {
    let mut entries = Vec::with_capacity(page.len());
    for (bytes, seq) in page.iter().zip(from..) {
        match SignedEntry::decode(bytes) {
            Ok(entry) if entry.entry().key() == log && entry.entry().seq == seq => entries.push(entry),
            Ok(_) => return Err(odd(net, peer, "other entries than were asked for").await),
            Err(source) => {
                net.penalize(peer, Offence::Malformed).await?;
                return Err(FollowError::Entry { peer, source: Box::new(source) });
            }
        }
    }
    Ok(entries)
}

/// What an odd answer is called; its sender is penalized.
pub(super) async fn odd(net: &Client, peer: PeerId, what: &'static str) -> FollowError {
    match net.penalize(peer, Offence::Malformed).await {
        Ok(()) => FollowError::Answer { peer, what },
        Err(closed) => closed.into(),
    }
}
