//! The process that feeds the machines of a testnet, one task for each.
//!
//! It asks a machine to play the recording, or sends it made-up packages, and does so again when the machine was killed and is back. It
//! ends with a signal, or when its testnet is gone.

use std::{io, path::Path, sync::Arc, time::Duration};

use hyper::body::Bytes;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Feed, Folder, State, TestnetError, plan::LOAD, state::OWN_RECORDING};
use crate::{
    control::{ClientError, ControlClient, api::IngestRequest},
    ingest::Pace,
};

/// Between two tries to reach a machine.
const AGAIN: Duration = Duration::from_millis(300);
/// How often it is looked whether the testnet is still there.
const LOOK: Duration = Duration::from_secs(2);

/// Feeds the machines of the testnet in this folder until it is gone.
///
/// # Errors
///
/// When there is none.
pub async fn feed(dir: &Path) -> Result<(), TestnetError> {
    let folder = Folder::new(dir)?;
    let state = Arc::new(folder.load()?);
    let mut tasks = tokio::task::JoinSet::new();
    for (number, machine) in state.machines().enumerate() {
        let client = folder.client(&machine.name);
        let (state, folder) = (Arc::clone(&state), folder.clone());
        tasks.spawn(async move {
            loop {
                match feed_one(&state, &folder, number, &client).await {
                    // The recording is played for ever: its end is the machine's.
                    Ok(()) => {}
                    Err(error) => tracing::info!(number, %error, "a machine is not fed"),
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
    loop {
        tokio::time::sleep(LOOK).await;
        if !folder.load().is_ok_and(|now| now.id == state.id) {
            return Ok(());
        }
    }
}

async fn feed_one(state: &State, folder: &Folder, number: usize, client: &ControlClient) -> Result<(), ClientError> {
    match &state.feed {
        Feed::Recording { path, speed } => {
            let path = path.clone().unwrap_or_else(|| folder.path().join(OWN_RECORDING));
            let pace = Some(Pace { speed: *speed, repeat: true });
            let request = IngestRequest { path: Some(path), pace, ..IngestRequest::default() };
            client.run::<IgnoredAny, IgnoredAny>("/v1/ingest", &request, |_| {}).await.map(drop)
        }
        Feed::Packages { bytes, every } => {
            let request = IngestRequest { streams: vec![LOAD.to_owned()], ..IngestRequest::default() };
            let head =
                serde_json::to_vec(&request).map_err(|error| ClientError::Broken { reason: error.to_string() })?;
            let machines = u32::try_from(state.machines().count()).unwrap_or(u32::MAX).max(1);
            // Not all machines at the same moment.
            let first = *every / machines * u32::try_from(number).unwrap_or(0);
            let lines = packages(head, *bytes, *every, first);
            client.run_with_lines::<IgnoredAny, IgnoredAny>("/v1/ingest/lines", lines, |_| {}).await.map(drop)
        }
    }
}

/// The request, and then a line every so often, for ever.
fn packages(
    mut head: Vec<u8>,
    bytes: u32,
    every: Duration,
    first: Duration,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    head.push(b'\n');
    let mut timer = interval_at(Instant::now() + first, every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Burst);
    // The rest of the line is about 20 bytes; the signature and its names come on top.
    let filler = "0123456789abcdef".repeat(usize::try_from(bytes).unwrap_or(0) / 16);
    futures::stream::unfold((Some(head), timer, 0_u64), move |(head, mut timer, number)| {
        let filler = filler.clone();
        async move {
            if let Some(head) = head {
                return Some((Ok(Bytes::from(head)), (None, timer, number)));
            }
            timer.tick().await;
            let line = format!("{}\n", json!({ "n": number, "filler": filler }));
            Some((Ok(Bytes::from(line)), (None, timer, number + 1)))
        }
    })
}
