//! The first words of whoever opens a stream: which of the two dialects, and what it wants.

use std::{sync::Arc, time::Duration};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::Stream;
use tributary_protocol::peaq::{
    agent::{self, frames::Frames, messages::ChunkRequest},
    frame::{ErrorFrame, Frame, FrameError, Handshake, lines::Lines},
    sessions::{Verdict, first_frame},
};

use super::{Caller, Inner, agent as agents, lock};

/// The longest first words, bytes. The protocol allows a line of 1 MiB, but a handshake is three names, and many strangers may
/// be speaking at once. For the agent it is room for 1,700 chunks in one request.
const MAX_FIRST: usize = 128 << 10;
/// How long writing an answer to a stranger may take.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What a stream begins with.
enum First {
    Frames(Result<Handshake, ErrorFrame>),
    Agent(Result<ChunkRequest, String>),
}

impl Inner {
    /// Hears a stream out, in a task of its own.
    pub(super) fn greet(self: &Arc<Self>, caller: Caller) {
        let Some(id) = lock(&self.waiting).enter(caller.peer) else {
            tracing::debug!(peer = %caller.peer, "a stream was closed: the peer has too many that say nothing");
            return;
        };
        let inner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let stop = inner.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = inner.hear(id, caller) => {}
            }
        });
        lock(&self.waiting).attach(id, task.abort_handle());
    }

    async fn hear(&self, id: u64, mut caller: Caller) {
        let first = tokio::time::timeout(self.limits.handshake_timeout, first_words(&mut caller.stream)).await;
        // From here on it is bounded by the sessions, or by the time an answer may take.
        lock(&self.waiting).leave(id);
        match first.unwrap_or_else(|_| First::Frames(first_frame(Some(Err(FrameError::Malformed))))) {
            First::Frames(Ok(handshake)) => self.judge(handshake, caller).await,
            First::Frames(Err(error)) => refuse(caller.stream, error).await,
            First::Agent(Ok(request)) => self.answer_agent(request, caller).await,
            First::Agent(Err(message)) => {
                write_and_close(caller.stream, &agent::messages::error("", agents::FAILED, &message)).await;
            }
        }
    }

    async fn judge(&self, handshake: Handshake, caller: Caller) {
        let purchase = handshake.purchase_id.clone();
        let verdict = lock(&self.state).sessions.handshake(handshake, caller, (self.clock)());
        match verdict {
            Verdict::Claimed(caller) => self.serve(&purchase, caller).await,
            Verdict::Parked => {}
            Verdict::Refused(caller, error) => {
                tracing::debug!(peer = %caller.peer, reason = error.reason, "a handshake was refused");
                refuse(caller.stream, error).await;
            }
        }
    }
}

/// Reads until it is clear what a stream wants.
async fn first_words(stream: &mut Stream) -> First {
    let mut buffer = vec![0; 4096];
    let (mut lines, mut frames) = (Lines::bounded(MAX_FIRST as u64), Frames::new(MAX_FIRST));
    let (mut heard, mut is_agent) = (0, false);
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return if is_agent {
                First::Agent(Err("the stream ended before the request was whole".to_owned()))
            } else {
                First::Frames(first_frame(lines.finish().err().map(Err)))
            };
        }
        let mut input = &buffer[..read];
        is_agent = is_agent || heard == 0 && agent::is_agent(input[0]);
        heard += read;
        if is_agent {
            match frames.next(&mut input) {
                Ok(None) => {}
                Ok(Some(json)) => return First::Agent(ChunkRequest::parse(json).map_err(|error| error.to_string())),
                Err(error) => return First::Agent(Err(error.to_string())),
            }
        } else {
            match lines.next(&mut input) {
                Ok(None) if heard > MAX_FIRST => return First::Frames(first_frame(Some(Err(FrameError::TooLarge)))),
                Ok(None) => {}
                Ok(Some(line)) => return First::Frames(first_frame(Some(Frame::parse(line)))),
                Err(error) => return First::Frames(first_frame(Some(Err(error)))),
            }
        }
    }
}

/// Answers an error and closes the stream.
pub(super) async fn refuse(stream: Stream, error: ErrorFrame) {
    write_and_close(stream, &Frame::Error(error).encode()).await;
}

pub(super) async fn write_and_close(mut stream: Stream, bytes: &[u8]) {
    let answer = async {
        stream.write_all(bytes).await?;
        stream.close().await
    };
    // A stranger that does not listen is none to wait for.
    let _ = tokio::time::timeout(ANSWER_TIME, answer).await;
}
