//! What the operator asks for by services, all of the type `std_srvs/srv/Trigger`.
//!
//! | service | what it does |
//! |---|---|
//! | `~/pause` | what is published from here on is left out, and counted as left out |
//! | `~/resume` | the end of that |
//! | `~/close_dataset` | closes the open dataset of every stream; answered when all that came before is durable |
//! | `~/status` | the counters as JSON; success says that nothing is stopped, refused, or without room |

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    thread,
};

use serde::Serialize;

use super::{
    Ros2Status,
    diagnostics::{Level, judge},
    rcl::{Node, RclError, RequestId, ServiceType, TriggerService},
    running::Shared,
};
use crate::machine::{Machine, StreamReport};

/// Requests of one service that are answered before the others have their turn.
const TURN: usize = 16;

/// An answer: success and text.
type Answer = (bool, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pause,
    Resume,
    CloseDataset,
    Status,
}

/// Datasets that are being closed.
struct Closing {
    answer: Receiver<Answer>,
    /// Who asked for it.
    requests: Vec<RequestId>,
    /// Who asked since. What came before such a request may be behind what is being closed, so another closing follows.
    later: Vec<RequestId>,
}

/// Requests that wait for one closing at most.
const MAX_CLOSING: usize = 64;

/// The services of the node.
pub(super) struct Services {
    services: Vec<(Kind, TriggerService)>,
    machine: Arc<Machine>,
    shared: Arc<Shared>,
    closing: Option<Closing>,
}

#[derive(Serialize)]
struct StatusText<'a> {
    #[serde(flatten)]
    ros2: &'a Ros2Status,
    streams: &'a [StreamReport],
}

impl Services {
    /// Offers them.
    pub(super) fn new(node: &Arc<Node>, machine: Arc<Machine>, shared: Arc<Shared>) -> Result<Self, String> {
        let service_type = ServiceType::trigger().map_err(|error| error.to_string())?;
        let named = [
            (Kind::Pause, "~/pause"),
            (Kind::Resume, "~/resume"),
            (Kind::CloseDataset, "~/close_dataset"),
            (Kind::Status, "~/status"),
        ];
        let offer = |(kind, name)| Ok((kind, TriggerService::new(node, name, service_type)?));
        let services = named.into_iter().map(offer).collect::<Result<_, RclError>>().map_err(|e| e.to_string())?;
        Ok(Self { services, machine, shared, closing: None })
    }

    /// What is waited for, in the order that [`Services::answer`] counts them in.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &TriggerService> {
        self.services.iter().map(|(_, service)| service)
    }

    /// Answers what has come to these services, and what has been carried out meanwhile. Whether the node was paused or resumed.
    pub(super) fn answer(&mut self, ready: &[usize]) -> Result<bool, RclError> {
        self.answer_closed()?;
        let mut changed = false;
        for at in ready {
            for _ in 0..TURN {
                let Some((kind, service)) = self.services.get_mut(*at) else { break };
                let kind = *kind;
                let Some(request) = service.take()? else { break };
                let answer = match kind {
                    Kind::Pause => {
                        changed = true;
                        Some(self.pause(true))
                    }
                    Kind::Resume => {
                        changed = true;
                        Some(self.pause(false))
                    }
                    Kind::CloseDataset => self.close(request),
                    Kind::Status => Some(self.status()),
                };
                if let Some((success, text)) = answer
                    && let Some((_, service)) = self.services.get_mut(*at)
                {
                    service.respond(request, success, &text)?;
                }
            }
        }
        Ok(changed)
    }

    fn pause(&self, paused: bool) -> Answer {
        let before = self.shared.paused.swap(paused, Ordering::Relaxed);
        self.shared.change_status(|status| status.paused = paused);
        if before != paused {
            tracing::info!(paused, "live topics");
        }
        let text = match (paused, before) {
            (true, false) => "paused: what is published is left out, and counted",
            (true, true) => "it was paused already",
            (false, true) => "resumed",
            (false, false) => "it was not paused",
        };
        (true, text.to_owned())
    }

    /// Begins to close datasets, on a thread of its own: a stream without room on the disk may wait long. `None` when the answer
    /// comes later.
    fn close(&mut self, request: RequestId) -> Option<Answer> {
        if let Some(closing) = &mut self.closing {
            if closing.later.len() >= MAX_CLOSING {
                return Some((false, "datasets are being closed; ask again later".to_owned()));
            }
            closing.later.push(request);
            return None;
        }
        self.begin_closing(vec![request]).err().map(|error| (false, format!("datasets cannot be closed now: {error}")))
    }

    fn begin_closing(&mut self, requests: Vec<RequestId>) -> std::io::Result<()> {
        let (done, answer) = sync_channel(1);
        let (machine, supervisor) = (Arc::clone(&self.machine), Arc::downgrade(&self.shared.supervisor));
        thread::Builder::new().name("ros2-close".to_owned()).spawn(move || {
            let result = match machine.close_datasets(None) {
                Ok(closed) => (true, format!("closed {} datasets", closed.len())),
                Err(error) => (false, error.to_string()),
            };
            drop(machine);
            let _ = done.try_send(result); // nobody waits when the node is stopping
            if let Some(supervisor) = supervisor.upgrade() {
                supervisor.trigger();
            }
        })?;
        self.closing = Some(Closing { answer, requests, later: Vec::new() });
        Ok(())
    }

    fn answer_closed(&mut self) -> Result<(), RclError> {
        let Some(closing) = &self.closing else { return Ok(()) };
        let (success, text) = match closing.answer.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => (false, "datasets cannot be closed; see the node's log".to_owned()),
        };
        let Some(Closing { requests, later, .. }) = self.closing.take() else { return Ok(()) };
        self.answer_all(&requests, success, &text)?;
        if later.is_empty() {
            return Ok(());
        }
        match self.begin_closing(later.clone()) {
            Ok(()) => Ok(()),
            Err(error) => self.answer_all(&later, false, &format!("datasets cannot be closed now: {error}")),
        }
    }

    fn answer_all(&mut self, requests: &[RequestId], success: bool, text: &str) -> Result<(), RclError> {
        let service = self.services.iter_mut().find(|(kind, _)| *kind == Kind::CloseDataset);
        let Some((_, service)) = service else { return Ok(()) };
        requests.iter().try_for_each(|request| service.respond(*request, success, text))
    }

    fn status(&self) -> Answer {
        let streams = match self.machine.report() {
            Ok(streams) => streams,
            Err(error) => return (false, error.to_string()),
        };
        let mut status = Ros2Status::default();
        self.shared.change_status(|own| status = own.clone());
        let live = streams.iter().filter_map(|stream| Some((stream, stream.source.as_ref()?)));
        let well = live.into_iter().all(|(stream, source)| judge(stream, source, false).0 != Level::Error);
        let text = serde_json::to_string(&StatusText { ros2: &status, streams: &streams });
        (well && status.trouble.is_empty(), text.unwrap_or_else(|error| error.to_string()))
    }
}
