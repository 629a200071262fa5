//! What a service manager hears of the node: sd_notify(3). Without one, nothing is sent.

use sd_notify::NotifyState;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use crate::service::Node;

/// The node listens, and its streams take messages.
pub(super) fn ready() {
    // Nobody waits for a manager that does not listen.
    drop(tell(Some(NotifyState::Ready), "ready".to_owned()));
}

/// The node begins to stop.
pub(super) fn stopping() {
    drop(tell(Some(NotifyState::Stopping), "stopping: sealing and storing what was taken in".to_owned()));
}

/// Says that the node lives, as often as the manager asks for, as long as its parts answer; and how it is, for `systemctl status`.
/// Never ends: drop it.
pub(super) async fn watch(node: Node) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    // Three times in the time allowed: a look at the node's health may take some seconds itself.
    let mut timer = interval(limit / 3);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let health = node.health().await;
        let status = match health.problems.first() {
            None => "ready".to_owned(),
            Some(problem) => format!("not ready: {}: {}", problem.part.name(), problem.message),
        };
        if !health.alive {
            tracing::error!(%status, "parts of the node do not answer; the service manager is not told that it lives");
        }
        let said = tell(health.alive.then_some(NotifyState::Watchdog), status).await;
        if said.is_err() {
            // The runtime is going down.
            return;
        }
    }
}

/// Sends it where waiting is allowed: the manager's queue may be full.
fn tell(what: Option<NotifyState<'static>>, status: String) -> JoinHandle<()> {
    spawn_blocking(move || {
        let states: Vec<NotifyState<'_>> = what.into_iter().chain([NotifyState::Status(&status)]).collect();
        if let Err(error) = sd_notify::notify(&states) {
            tracing::warn!(%error, "the service manager cannot be told how the node stands");
        }
    })
}
