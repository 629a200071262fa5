//! The thread that watches the graph and answers the operator.
//!
//! It may wait for the disk: beginning a stream writes to the store. What could wait long, closing datasets, is done by a thread of
//! its own.

use std::{
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use super::{
    Ros2Error,
    rcl::{Node, RclError, WaitSet, Waiting},
    receiver::Order,
    reporter::Reporter,
    running::Shared,
    services::Services,
    survey::Survey,
};
use crate::{config::Ros2Config, ingest::Installed, machine::Machine};

/// The graph is looked at when it says that it changed, and this often in any case.
const SURVEY_EVERY: Duration = Duration::from_secs(1);
/// Changes of the graph come in bursts; they are looked at together after this long.
const SETTLE: Duration = Duration::from_millis(50);
/// How long to wait before the middleware is asked again after it failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What a turn brought.
enum Came {
    /// The operator changed something.
    Change,
    /// The graph changed.
    Graph,
    /// Nothing that the survey must know of.
    Other,
}

/// The supervising thread.
pub(super) struct Supervisor {
    node: Arc<Node>,
    machine: Arc<Machine>,
    shared: Arc<Shared>,
    set: WaitSet,
    survey: Survey,
    services: Option<Services>,
    reporter: Option<Reporter>,
}

impl Supervisor {
    pub(super) fn new(
        node: Arc<Node>,
        machine: Arc<Machine>,
        config: &Ros2Config,
        shared: Arc<Shared>,
        orders: SyncSender<Order>,
    ) -> Result<Self, Ros2Error> {
        let set = WaitSet::new(node.context())?;
        let installed = Installed::ament();
        // What is missing here is no reason not to ingest.
        let trouble = |what: &str, reason: String| {
            tracing::warn!(reason, "{what}");
            shared.change_status(|status| status.trouble.push(format!("{what}: {reason}")));
        };
        let services = Services::new(&node, Arc::clone(&machine), Arc::clone(&shared));
        let services =
            services.map_err(|reason| trouble("the services ~/pause and others are not offered", reason)).ok();
        let reporter = config.diagnostics.and_then(|every| {
            let reporter = Reporter::new(&node, &installed, &machine, every);
            reporter.map_err(|reason| trouble("nothing is published on /diagnostics", reason)).ok()
        });
        let survey = Survey::new(Arc::clone(&node), Arc::clone(&machine), Arc::clone(&shared), orders, installed);
        Ok(Self { node, machine, shared, set, survey, services, reporter })
    }

    pub(super) fn run(mut self) {
        let mut survey_at = Instant::now();
        while !self.shared.is_stopping() {
            if !self.node.context().is_valid() {
                self.shared.ended.cancel();
                break;
            }
            if Instant::now() >= survey_at {
                let soon = self.survey.look();
                let at_last = Instant::now() + SURVEY_EVERY;
                survey_at = soon.map_or(at_last, |soon| soon.min(at_last));
            }
            if let Some(reporter) = &mut self.reporter {
                reporter.report(&self.machine, &self.shared);
            }
            let due = self.reporter.as_ref().map_or(survey_at, |reporter| reporter.due().min(survey_at));
            match self.turn(due.saturating_duration_since(Instant::now())) {
                Ok(Came::Graph) => survey_at = survey_at.min(Instant::now() + SETTLE),
                Ok(Came::Change) => survey_at = Instant::now(),
                Ok(Came::Other) => {}
                Err(error) => {
                    tracing::error!(%error, "watching the ROS graph failed; it is tried again");
                    std::thread::sleep(AFTER_FAILURE);
                }
            }
        }
    }

    /// Waits for what may come, at most `timeout`, and answers requests.
    fn turn(&mut self, timeout: Duration) -> Result<Came, RclError> {
        let guards = vec![&*self.shared.supervisor];
        let services = self.services.iter().flat_map(Services::waiting).collect();
        let waiting = Waiting { guards, services, graph: Some(&self.node), ..Waiting::default() };
        let ready = self.set.wait(&waiting, timeout)?;
        drop(waiting);
        let changed = match &mut self.services {
            Some(services) => services.answer(&ready.services)?,
            None => false,
        };
        Ok(match (changed, ready.graph) {
            (true, _) => Came::Change,
            (false, true) => Came::Graph,
            (false, false) => Came::Other,
        })
    }
}
