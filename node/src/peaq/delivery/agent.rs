//! Answers to buyers of the ROS 2 agent's kind, which ask for chunks by id and may have the start of some already.
//!
//! The agent itself serves whoever asks; here only the session's buyer is answered. It may ask as often as it likes until the
//! handoff expires; when it has had every chunk, the delivery is complete.

use std::{sync::Arc, time::Duration};

use futures::{AsyncWriteExt as _, io};
use tokio::time::timeout;
use tributary_protocol::peaq::{
    agent::messages::{self, ChunkRequest},
    frame::Handshake,
};

use super::{
    Caller, DeliveryState, Inner,
    greet::write_and_close,
    lock,
    send::{SendError, made_ahead, write_slices},
};
use crate::{
    net::{Pace, Way},
    peaq::chunks::{ChunkError, ChunkSource},
};

/// `code` of a request that cannot be answered.
pub(super) const FAILED: &str = "delivery_failed";

impl Inner {
    pub(super) async fn answer_agent(&self, request: ChunkRequest, caller: Caller) {
        let Caller { peer, stream } = caller;
        let (source, places) = match self.admitted(&request) {
            Ok(admitted) => admitted,
            Err(reason) => {
                tracing::debug!(%peer, reason, "a request in the agent's dialect was refused");
                write_and_close(stream, &messages::error(&request.request_id, FAILED, &reason)).await;
                return;
            }
        };
        let _ = self.net.keep(peer).await;
        let Ok(permit) = timeout(self.limits.queue_timeout, self.transfers.acquire()).await else {
            write_and_close(stream, &messages::error(&request.request_id, FAILED, "busy; ask again")).await;
            return;
        };
        let (purchase, request_id) = (request.purchase_id.clone(), request.request_id.clone());
        let (mut stream, stall) = (stream, self.limits.stall_timeout);
        let sent = answer(source, places.clone(), request, &mut stream, stall, &self.net.pace(Way::Up, peer)).await;
        drop(permit);
        match sent {
            Ok(bytes) => self.had(&purchase, &places, bytes),
            Err(SendError::Chunk(error)) => {
                tracing::warn!(purchase, %error, "a chunk cannot be delivered");
                write_and_close(stream, &messages::error(&request_id, FAILED, &error.to_string())).await;
            }
            Err(error) => tracing::info!(purchase, %error, "a delivery was interrupted"),
        }
    }

    /// The chunks of a request, if it is the buyer's: where they are.
    fn admitted(&self, request: &ChunkRequest) -> Result<(Arc<dyn ChunkSource>, Vec<u64>), String> {
        let handshake = Handshake {
            purchase_id: request.purchase_id.clone(),
            session_id: request.delivery_session_id.clone(),
            buyer_id: request.buyer_id.clone(),
        };
        let state = lock(&self.state);
        state.sessions.admits(&handshake, (self.clock)()).map_err(|error| error.reason)?;
        let offer = state.offers.get(&request.purchase_id).ok_or("unknown session")?;
        let places = request.chunk_ids.iter().map(|id| {
            let short: String = id.chars().take(80).collect();
            offer.source.find(id).ok_or_else(|| format!("chunk {short} is not part of this delivery"))
        });
        Ok((Arc::clone(&offer.source), places.collect::<Result<_, _>>()?))
    }

    /// Notes what the buyer has had.
    fn had(&self, purchase: &str, places: &[u64], bytes: u64) {
        let chunks = {
            let mut state = lock(&self.state);
            let Some(offer) = state.offers.get_mut(purchase).filter(|offer| !offer.state.is_over()) else { return };
            offer.attempts += 1;
            offer.asked.extend(places);
            let chunks = offer.source.count();
            if (offer.asked.len() as u64) < chunks {
                return;
            }
            chunks
        };
        self.finish(purchase, DeliveryState::Completed { chunks, bytes, confirmed: false });
    }
}

/// Manifest, data and end of each chunk.
async fn answer(
    source: Arc<dyn ChunkSource>,
    places: Vec<u64>,
    request: ChunkRequest,
    stream: &mut libp2p::Stream,
    stall: Duration,
    pace: &Pace,
) -> Result<u64, SendError> {
    let mut frames = made_ahead(places.len() as u64, move |at| {
        let damaged = |reason: &str| ChunkError::Damaged { index: at, reason: reason.to_owned() };
        let place = usize::try_from(at).ok().and_then(|at| places.get(at)).ok_or_else(|| damaged("no such chunk"))?;
        let chunk = source.read(*place)?;
        let id = &chunk.envelope.chunk_id;
        let offset = request.resume_offsets.get(id).copied().unwrap_or(0);
        let rest = usize::try_from(offset).ok().and_then(|offset| chunk.ciphertext.get(offset..));
        let rest = rest.ok_or_else(|| damaged("the resume offset is behind its end"))?;
        let mut frames = request.manifest(&chunk.envelope);
        frames.extend(request.data(id, offset, rest));
        frames.extend(request.end(id, chunk.ciphertext.len() as u64));
        Ok(frames)
    });
    let mut bytes = 0;
    while let Some(chunk) = frames.recv().await {
        let chunk = chunk?;
        write_slices(stream, &chunk, stall, pace).await?;
        bytes += chunk.len() as u64;
    }
    let close = async {
        stream.close().await?;
        Ok::<_, io::Error>(())
    };
    timeout(stall, close).await.map_err(|_| SendError::Stalled(stall))??;
    Ok(bytes)
}
