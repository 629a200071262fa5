//! Publishing `/diagnostics`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Ros2Status,
    diagnostics::Diagnostics,
    rcl::{MessageType, Node, Publisher},
    running::Shared,
    type_name::TypeName,
};
use crate::{
    config::Qos,
    ingest::{
        Installed,
        msgdef::{Lookup as _, Plan},
    },
    machine::Machine,
};

/// Publishes `/diagnostics`.
pub(super) struct Reporter {
    publisher: Publisher,
    diagnostics: Diagnostics,
    every: Duration,
    due: Instant,
}

impl Reporter {
    pub(super) fn new(
        node: &Arc<Node>,
        installed: &Installed,
        machine: &Machine,
        every: Duration,
    ) -> Result<Self, String> {
        let message_type = MessageType::find(&TypeName::DIAGNOSTICS).map_err(|error| error.to_string())?;
        let name = TypeName::DIAGNOSTICS.to_string();
        let text = installed.find(&name).ok_or_else(|| format!("no definition of {name} is installed"))?;
        let plan = Plan::compile(&name, &text, installed).map_err(|error| error.to_string())?;
        let publisher = Publisher::new(node, "/diagnostics", &message_type, Qos::DEFAULT);
        let publisher = publisher.map_err(|error| error.to_string())?;
        let diagnostics = Diagnostics::new(plan, &node.full_name(), machine.did().to_string());
        Ok(Self { publisher, diagnostics, every, due: Instant::now() })
    }

    /// When [`Reporter::report`] has something to do.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Publishes, when it is time.
    pub(super) fn report(&mut self, machine: &Machine, shared: &Shared) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + self.every;
        let streams = match machine.report() {
            Ok(streams) => streams,
            Err(error) => {
                tracing::warn!(%error, "the counters cannot be read");
                return;
            }
        };
        let mut status = Ros2Status::default();
        shared.change_status(|own| status = own.clone());
        let published = self.diagnostics.message(&status, &streams, shared.now_ns(), now);
        let published = published.map_err(|error| error.to_string());
        if let Err(reason) = published.and_then(|cdr| self.publisher.publish(&cdr).map_err(|error| error.to_string())) {
            tracing::warn!(reason, "nothing is published on /diagnostics");
        }
    }
}
