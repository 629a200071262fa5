//! What the buyers buy when a testnet is brought up: what there is already, by a request; what comes, by their subscriptions, which stand in
//! their configurations and go on by themselves.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use serde::de::IgnoredAny;

use super::{
    Folder, NodeState, State, TestnetError,
    running::{status_of, step},
};
use crate::{
    control::api::{AccessRequestBody, AccessResult, PullReport, PullRequest, SelectionRequest},
    service::status::{NodeStatus, SubscriptionState},
};

/// How long the recording may take to have something on every topic. A topic that comes later is bought by its subscription alone.
const FIRST_DATA: Duration = Duration::from_secs(20);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How many buyers are dealt with at once.
const TOGETHER: usize = 4;

/// Waits until every stream of every machine has something to sell, and at least until one of each machine has.
pub(super) async fn wait_for_data(folder: &Folder, state: &State) -> Result<(), TestnetError> {
    let (soon, latest) = (Instant::now() + FIRST_DATA, Instant::now() + PATIENCE);
    for machine in state.machines() {
        let client = folder.client(&machine.name);
        until(
            latest,
            || format!("{} has published nothing", machine.name),
            async || {
                let streams = status_of(&machine.name, &client).await?.streams;
                let (all, any) =
                    (streams.iter().all(|stream| stream.entries > 0), streams.iter().any(|stream| stream.entries > 0));
                Ok((all || any && Instant::now() >= soon).then_some(()))
            },
        )
        .await?;
    }
    Ok(())
}

/// Waits until all subscriptions live, then buys and pulls what was there before.
pub(super) async fn buy(folder: &Folder, state: &State) -> Result<(), TestnetError> {
    let buyers = futures::stream::iter(state.buyers().filter(|buyer| !buyer.buys.is_empty()));
    buyers.map(Ok).try_for_each_concurrent(TOGETHER, |buyer| buy_one(folder, state, buyer)).await
}

async fn buy_one(folder: &Folder, state: &State, buyer: &NodeState) -> Result<(), TestnetError> {
    let Some(machine) = &buyer.follows else { return Ok(()) };
    let (machine, name) = (state.node(machine)?, buyer.name.as_str());
    let sold: Vec<String> = {
        let streams = status_of(&machine.name, &folder.client(&machine.name)).await?.streams;
        let sold = streams.into_iter().filter(|stream| stream.entries > 0 && buyer.buys.contains(&stream.name));
        sold.map(|stream| stream.name).collect()
    };
    let client = folder.client(name);
    until(
        Instant::now() + PATIENCE,
        || format!("{name} does not get the keys of what comes"),
        async || {
            let status = status_of(name, &client).await?;
            Ok(sold.iter().all(|stream| lives(&status, stream)).then_some(()))
        },
    )
    .await?;
    let selection = SelectionRequest { machine: Some(machine.did), streams: sold, ..SelectionRequest::default() };
    let body = AccessRequestBody { selection: selection.clone(), wait_ms: 60_000 };
    let granted = client.run::<IgnoredAny, AccessResult>("/v1/access/request", &body, |_| {}).await;
    let granted = step(name, "access request", granted)?;
    if granted.outcome != "granted" {
        return Err(TestnetError::Node { node: name.to_owned(), what: "was not granted what it buys".to_owned() });
    }
    let body = PullRequest { selection };
    let pulled = client.run::<IgnoredAny, PullReport>("/v1/pull", &body, |_| {}).await;
    step(name, "pull", pulled).map(drop)
}

fn lives(status: &NodeStatus, stream: &str) -> bool {
    let mut subscriptions = status.subscriptions.iter().filter(|subscription| subscription.stream == stream);
    subscriptions.any(|subscription| subscription.state == SubscriptionState::Live)
}

/// Looks again and again until there is something, or it is too late.
pub(super) async fn until<T>(
    deadline: Instant,
    missing: impl Fn() -> String,
    mut look: impl AsyncFnMut() -> Result<Option<T>, TestnetError>,
) -> Result<T, TestnetError> {
    let began = Instant::now();
    let mut wait = Duration::from_millis(20);
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(TestnetError::Late { what: missing(), seconds: began.elapsed().as_secs() });
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(500));
    }
}
