//! The request-response protocols: our requests and their answers, and requests of peers on their way to a queue.

use std::time::Duration;

use libp2p::{
    PeerId,
    request_response::{self, InboundFailure, InboundRequestId, Message, OutboundFailure, OutboundRequestId},
};
use tokio::sync::mpsc;
use tributary_protocol::wire::SyncResponse;

use super::{Answered, Task, answer};
use crate::net::{
    MAX_ACCESS_MESSAGE, MAX_SYNC_RESPONSE,
    error::RequestError,
    event::{InboundRequest, Reply, Responder, Which, count},
    frame::{FrameError, frame_error},
    reputation::Offence,
    shaping::{Class, Way},
};

impl Task {
    pub(super) fn request(&mut self, which: Which, peer: PeerId, bytes: Vec<u8>, back: Answered) {
        let open = self.asked.len();
        if open >= self.config.queues.outbound_requests {
            answer(back, Err(RequestError::TooManyOpen { open }));
            return;
        }
        if which == Which::Sync {
            self.shaper.spend(Class::Sync, Way::Up, Some(peer), bytes.len());
        }
        let behaviour = self.swarm.behaviour_mut();
        let id = match which {
            Which::Sync => behaviour.sync.send_request(&peer, Ok(bytes)),
            Which::Access => behaviour.access.send_request(&peer, Ok(bytes)),
        };
        self.asked.insert((which, id), back);
    }

    pub(super) fn on_reply(&mut self, reply: Reply) {
        if reply.which == Which::Sync {
            self.shaper.spend(Class::Sync, Way::Up, Some(reply.peer), reply.bytes.len());
        }
        let behaviour = self.swarm.behaviour_mut();
        let sent = match reply.which {
            Which::Sync => behaviour.sync.send_response(reply.channel, reply.bytes),
            Which::Access => behaviour.access.send_response(reply.channel, reply.bytes),
        };
        if sent.is_err() {
            tracing::debug!(protocol = reply.which.protocol(), "the peer no longer waits for this answer");
        }
    }

    pub(super) fn on_request_event(
        &mut self,
        which: Which,
        event: request_response::Event<Result<Vec<u8>, FrameError>, Vec<u8>>,
    ) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request_id, request, channel } => match request {
                    Ok(request) => self.on_request(which, peer, request_id, request, channel),
                    // The channel is dropped, which closes the stream.
                    Err(error) => self.bad_frame(peer, error),
                },
                Message::Response { request_id, response } => self.answered(which, request_id, Ok(response)),
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                let error = self.outbound_failure(which, peer, error);
                self.answered(which, request_id, Err(error));
            }
            request_response::Event::InboundFailure { peer, request_id, error, .. } => {
                self.answering.remove(&(which, request_id));
                if matches!(error, InboundFailure::Timeout | InboundFailure::Io(_)) {
                    tracing::debug!(%peer, protocol = which.protocol(), %error, "request without an answer");
                }
            }
            request_response::Event::ResponseSent { request_id, .. } => {
                self.answering.remove(&(which, request_id));
            }
        }
    }

    fn on_request(
        &mut self,
        which: Which,
        peer: PeerId,
        id: InboundRequestId,
        bytes: Vec<u8>,
        channel: request_response::ResponseChannel<Vec<u8>>,
    ) {
        let (queue, max) = match which {
            Which::Sync => (&self.sync_tx, MAX_SYNC_RESPONSE),
            Which::Access => (&self.access_tx, MAX_ACCESS_MESSAGE),
        };
        let open = self.answering.iter().filter(|((of, _), who)| *of == which && **who == peer).count();
        let mut wait = Duration::ZERO;
        if which == Which::Sync {
            self.shaper.spend(Class::Sync, Way::Down, Some(peer), bytes.len());
            // Answers that have gone are paid for before the next one is made; nothing waits here meanwhile.
            wait = self.shaper.take(Class::Sync, Way::Up, Some(peer), 0).err().unwrap_or_default();
        }
        let responder = Responder { which, peer, max, channel, replies: self.reply_tx.clone() };
        let request = InboundRequest { peer, bytes, responder };
        let refused = if open >= self.config.requests_per_peer || !wait.is_zero() {
            Some(request)
        } else {
            match queue.try_send(request) {
                Ok(()) => None,
                Err(mpsc::error::TrySendError::Full(request) | mpsc::error::TrySendError::Closed(request)) => {
                    Some(request)
                }
            }
        };
        let Some(request) = refused else {
            count(&self.counters.of(which).received);
            self.answering.insert((which, id), peer);
            return;
        };
        count(&self.counters.of(which).busy);
        let busy = match which {
            Which::Sync if !wait.is_zero() => {
                let retry_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
                SyncResponse::Busy { retry_ms }.encode().unwrap_or_default()
            }
            Which::Sync => self.config.sync_busy.clone(),
            Which::Access => self.config.access_busy.clone(),
        };
        if !busy.is_empty() {
            self.on_reply(Reply { which, peer, channel: request.responder.channel, bytes: busy });
        }
    }

    fn answered(&mut self, which: Which, id: OutboundRequestId, result: Result<Vec<u8>, RequestError>) {
        if let Some(back) = self.asked.remove(&(which, id)) {
            answer(back, result);
        }
    }

    fn outbound_failure(&mut self, which: Which, peer: PeerId, error: OutboundFailure) -> RequestError {
        match error {
            OutboundFailure::DialFailure => RequestError::Unreachable(peer),
            OutboundFailure::Timeout => RequestError::Timeout(peer),
            OutboundFailure::UnsupportedProtocols => RequestError::Unsupported { peer, protocol: which.protocol() },
            OutboundFailure::ConnectionClosed => RequestError::Broken { peer, reason: "it was closed".into() },
            // Streams that merely break are nobody's fault.
            OutboundFailure::Io(error) => match frame_error(&error) {
                Some(error) => {
                    self.bad_frame(peer, error);
                    error.into()
                }
                None => RequestError::Broken { peer, reason: error.to_string() },
            },
        }
    }

    /// Holds a broken frame against its sender.
    fn bad_frame(&mut self, peer: PeerId, error: FrameError) {
        count(&self.counters.bad_frames);
        tracing::debug!(%peer, %error, "bad frame");
        let offence = match error {
            FrameError::TooLarge { .. } => Offence::Oversized,
            FrameError::Truncated { .. } => Offence::Stalled,
        };
        self.penalize(peer, offence);
    }
}
