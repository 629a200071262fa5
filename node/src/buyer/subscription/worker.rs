//! The task of one subscription: woken by what is announced, by the end of what is prepaid, and by what did not work.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::sync::broadcast::{self, error::RecvError};
use tributary_protocol::{access::Range, ids::LogId};

use super::{
    Shared,
    drain::{Drain, Drained},
    renew::Renewed,
};
use crate::{
    buyer::{Buyer, Inner},
    feeds::FeedEvent,
};

/// First and longest wait after something did not work.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The task looks around at least so often.
const TICK: Duration = Duration::from_secs(60);
/// Announcements come in bursts; this much of one is taken together.
const TOGETHER: Duration = Duration::from_millis(20);

/// When what did not work is tried again.
struct Again {
    at: Instant,
    wait: Duration,
    failed: Option<String>,
}

impl Again {
    fn new() -> Self {
        Self { at: Instant::now(), wait: AGAIN.0, failed: None }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.at
    }

    fn rests(&mut self, rest: Duration) {
        *self = Self { at: Instant::now() + rest, ..Self::new() };
    }

    fn fails(&mut self, problem: String) {
        (self.at, self.failed) = (Instant::now() + self.wait, Some(problem));
        self.wait = (self.wait * 2).min(AGAIN.1);
    }
}

/// What a task remembers.
struct Pace {
    drain: Drain,
    taking: Again,
    asking: Again,
}

/// Runs until the buyer is gone or the task is dropped.
pub(super) async fn run(inner: Weak<Inner>, shared: Arc<Shared>, mut events: broadcast::Receiver<FeedEvent>) {
    let mut pace = Pace { drain: Drain::default(), taking: Again::new(), asking: Again::new() };
    loop {
        {
            let Some(inner) = inner.upgrade() else { return };
            step(&Buyer { inner }, &shared, &mut pace).await;
        }
        shared.say(pace.taking.failed.clone().or_else(|| pace.asking.failed.clone()));
        let now = Instant::now();
        let failing = pace.taking.failed.is_some();
        let asks = shared.row().asks();
        let next = [(failing, pace.taking.at), (asks, pace.asking.at)];
        let wait = next.iter().filter(|(counts, _)| *counts).map(|(_, at)| at.saturating_duration_since(now)).min();
        tokio::select! {
            () = tokio::time::sleep(wait.unwrap_or(TICK).min(TICK)) => {}
            // What does not work is not tried again at every announcement.
            news = news(&mut events, &shared), if !failing => {
                if !news {
                    return;
                }
                tokio::time::sleep(TOGETHER).await;
            }
        }
    }
}

/// Waits until something of the stream is announced; `false` when nothing will be any more.
async fn news(events: &mut broadcast::Receiver<FeedEvent>, shared: &Shared) -> bool {
    loop {
        match events.recv().await {
            Ok(FeedEvent::Entries { did, log, .. }) if did == shared.did && log == LogId::from(shared.stream) => {
                return true;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

/// Does what is to be done now.
async fn step(buyer: &Buyer, shared: &Arc<Shared>, pace: &mut Pace) {
    // Once to take what can be opened, and once more when keys came for the rest.
    for _ in 0..2 {
        let gaps = if pace.taking.is_due() { take(buyer, shared, pace).await } else { Vec::new() };
        let (asks, waits) = {
            let row = shared.row();
            (row.asks(), row.request.is_some())
        };
        // A chunk without a key is no reason to ask again while the last question failed or is not decided.
        let missing = !gaps.is_empty();
        let locked = missing && !waits && pace.asking.failed.is_none();
        if !asks || !(locked || pace.asking.is_due()) {
            return;
        }
        match buyer.renew(shared, gaps).await {
            Renewed::Rests(rest) => pace.asking.rests(rest),
            Renewed::Failed(problem) => pace.asking.fails(problem),
            Renewed::Ended => pace.asking = Again::new(),
        }
        if !missing {
            return;
        }
    }
}

/// Takes what is announced. Returns the ranges whose keys are missing.
async fn take(buyer: &Buyer, shared: &Arc<Shared>, pace: &mut Pace) -> Vec<Range> {
    let new = shared.row().next.is_none();
    let begun = if new { buyer.begin(shared).await } else { Ok(()) };
    let drained = match begun {
        Ok(()) => pace.drain.take(buyer, shared).await,
        Err(problem) => Err(problem),
    };
    match drained {
        Ok(Drained::All) => pace.taking = Again::new(),
        Ok(Drained::Locked(gaps)) => {
            pace.taking = Again::new();
            return gaps;
        }
        Err(problem) => pace.taking.fails(problem),
    }
    Vec::new()
}
