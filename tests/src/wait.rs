//! Waiting for a state instead of for a time.

use std::time::{Duration, Instant};

/// How long a test waits for anything at most. Generous: the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Polls `look` until it finds something, less often with time.
///
/// # Panics
///
/// With `what` when [`PATIENCE`] is over.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(what, PATIENCE, look).await
}

/// As [`until`], for what takes its time by itself.
///
/// # Panics
///
/// With `what` when `patience` is over.
pub async fn until_within<T>(what: &str, patience: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    let mut wait = Duration::from_millis(2);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "after {} s still waiting: {what}", patience.as_secs());
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(200));
    }
}

/// As [`until`], for work that moves between threads.
///
/// # Panics
///
/// With `what` when [`PATIENCE`] is over.
pub async fn again<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut wait = Duration::from_millis(10);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "after {} s still waiting: {what}", PATIENCE.as_secs());
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(500));
    }
}

/// The result of `work`, which must come in time.
///
/// # Panics
///
/// With `what` when [`PATIENCE`] is over.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("timed out: {what}"))
}
