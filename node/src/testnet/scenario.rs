//! A testnet by a file: brought up, broken as the file says, and judged.
//!
//! Everything that happens is an event, which is told as it happens: the report is the list of them. A fault that did not really happen fails the
//! scenario, whatever else was as expected: a node that was to be killed must have lived, a partition must have dropped packets.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;
use tributary_protocol::ids::DatasetId;

use super::{
    Feed, Folder, NodeRole, State, TestnetError, Topology, UpOptions, heal, kill, partition, restart,
    running::{dropped, step},
    status::{NetStatus, NodeLife, status},
    up,
    verify::{Verified, verify},
};
use crate::{
    config::{Expectations, FaultKind, Scenario, ScenarioFeed},
    control::api::{CloseRequest, Closed},
};

/// How often the testnet is looked at.
const SAMPLE: Duration = Duration::from_secs(5);

/// How a scenario ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was as expected.
    Passed,
    /// Something was not.
    Failed,
    /// What arrived is not what should have, or what must not be read can be.
    NotVerified,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// When, ms since everybody had bought; before that, since the start.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The scenario begins.
    Started {
        /// Its name.
        name: String,
        /// Machines.
        machines: u16,
        /// Buyers.
        buyers: u16,
    },
    /// Everybody has bought: the time counts from here.
    Up {
        /// Seconds it took.
        seconds: f64,
    },
    /// How it stands.
    Sample {
        /// Nodes that run.
        running: usize,
        /// Chunks that the machines sealed since they were started.
        chunks: u64,
        /// The fewest packages that a buyer has written.
        packages: u64,
        /// The most log entries that a buyer lacks.
        lag: u64,
    },
    /// A node was killed.
    Killed {
        /// The node.
        node: String,
        /// Its process.
        pid: i32,
    },
    /// A node runs again.
    Restarted {
        /// The node.
        node: String,
        /// Its new process.
        pid: i32,
    },
    /// Groups were cut off from each other.
    Cut {
        /// The groups.
        groups: Vec<Vec<String>>,
    },
    /// The partition has ended.
    Healed {
        /// Packets that were dropped at each node.
        dropped: BTreeMap<String, u64>,
    },
    /// A fault did not happen.
    FaultFailed {
        /// Which, and why.
        what: String,
    },
    /// What was verified.
    Verified(Verified),
    /// An expectation was looked at.
    Expected {
        /// What was expected.
        what: String,
        /// Whether it is so.
        met: bool,
        /// What was found.
        found: String,
    },
    /// The scenario has ended.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// A scenario that runs.
struct Run<'a> {
    folder: Folder,
    began: Instant,
    tell: &'a mut (dyn FnMut(&Line) + Send),
    failed: bool,
}

impl Run<'_> {
    fn tell(&mut self, event: Event) {
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        (self.tell)(&Line { at_ms, event });
    }

    fn fault_failed(&mut self, what: String) {
        self.failed = true;
        self.tell(Event::FaultFailed { what });
    }

    fn expected(&mut self, what: String, met: bool, found: String) {
        self.failed |= !met;
        self.tell(Event::Expected { what, met, found });
    }

    async fn sample(&mut self, before: Option<&NetStatus>) -> Result<NetStatus, TestnetError> {
        let status = status(&self.folder, before).await?;
        let of = |role| status.nodes.iter().filter(move |node| node.role == role && node.life == NodeLife::Running);
        let buyers = of(NodeRole::Buyer);
        let event = Event::Sample {
            running: status.nodes.iter().filter(|node| node.life == NodeLife::Running).count(),
            chunks: of(NodeRole::Machine).map(|node| node.chunks).sum(),
            packages: buyers.clone().map(|node| node.packages).min().unwrap_or(0),
            lag: buyers.filter_map(|node| node.lag).max().unwrap_or(0),
        };
        self.tell(event);
        Ok(status)
    }

    /// Does to the testnet what the file says. What cannot be done is told, and the rest goes on.
    async fn break_it(&mut self, fault: &FaultKind) {
        let dir = self.folder.path().to_owned();
        match fault {
            FaultKind::Kill(node) => match kill(&dir, node).await {
                Ok(process) => self.tell(Event::Killed { node: node.clone(), pid: process.pid }),
                Err(error) => self.fault_failed(format!("{node} was not killed: {error}")),
            },
            FaultKind::Restart(node) => match restart(&dir, node).await {
                Ok(process) => self.tell(Event::Restarted { node: node.clone(), pid: process.pid }),
                Err(error) => self.fault_failed(format!("{node} was not started again: {error}")),
            },
            FaultKind::Partition(groups) => {
                self.check_cut().await;
                match partition(&dir, groups.clone()).await {
                    Ok(()) => self.tell(Event::Cut { groups: groups.clone() }),
                    Err(error) => self.fault_failed(format!("nothing was cut: {error}")),
                }
            }
            FaultKind::Heal => match heal(&dir).await {
                Ok(healed) => {
                    let any = healed.dropped.values().any(|dropped| *dropped > 0);
                    self.tell(Event::Healed { dropped: healed.dropped });
                    if !any {
                        self.fault_failed("no packet was dropped by the partition".to_owned());
                    }
                }
                Err(error) => self.fault_failed(format!("the network was not healed: {error}")),
            },
        }
    }

    /// A partition that is over must have dropped something.
    async fn check_cut(&mut self) {
        let cut = async {
            let state = self.folder.load()?;
            Ok::<_, TestnetError>((state.partition.is_empty(), dropped(&state).await?))
        };
        match cut.await {
            Ok((true, _)) => {}
            Ok((false, dropped)) if dropped.values().any(|dropped| *dropped > 0) => {}
            Ok(_) => self.fault_failed("no packet was dropped by the partition".to_owned()),
            Err(error) => self.fault_failed(format!("what the partition dropped is not known: {error}")),
        }
    }

    async fn judge(&mut self, expect: &Expectations) -> Result<Outcome, TestnetError> {
        self.check_cut().await;
        let status = self.sample(None).await?;
        if let Some(least) = expect.packages {
            for node in status.nodes.iter().filter(|node| node.role == NodeRole::Buyer) {
                let what = format!("{} has written at least {least} packages", node.name);
                self.expected(what, node.packages >= least, format!("{} packages", node.packages));
            }
        }
        if !expect.verify {
            return Ok(if self.failed { Outcome::Failed } else { Outcome::Passed });
        }
        let state = self.folder.load()?;
        close_datasets(&self.folder, &state, &status).await?;
        let verified = verify(&self.folder, expect.catch_up).await?;
        let outcome = match (verified.ok, self.failed) {
            (false, _) => Outcome::NotVerified,
            (true, true) => Outcome::Failed,
            (true, false) => Outcome::Passed,
        };
        self.tell(Event::Verified(verified));
        Ok(outcome)
    }
}

/// Closes what is being written, so that everything that was published until now is verified.
async fn close_datasets(folder: &Folder, state: &State, status: &NetStatus) -> Result<Vec<DatasetId>, TestnetError> {
    let mut all = Vec::new();
    for machine in state.machines() {
        // One that does not run is a finding of what follows.
        if status.nodes.iter().any(|node| node.name == machine.name && node.life == NodeLife::Running) {
            let closed = folder.client(&machine.name).post("/v1/datasets/close", &CloseRequest::default()).await;
            let Closed { datasets } = step(&machine.name, "close datasets", closed)?;
            all.extend(datasets);
        }
    }
    Ok(all)
}

/// Runs a scenario in a folder that is empty or not there, and leaves the testnet up. `tell` hears every line of the report. Dropping the future
/// leaves what runs until then.
///
/// # Errors
///
/// When the testnet cannot be brought up or looked at. That it is not as expected is an [`Outcome`].
pub async fn run(
    scenario: &Scenario,
    dir: PathBuf,
    tell: &mut (dyn FnMut(&Line) + Send),
) -> Result<Outcome, TestnetError> {
    let Scenario { name, machines, buyers, mirrors, namespaces, feed, duration, faults, expect } = scenario;
    let feed = match feed.clone() {
        ScenarioFeed::Recording { path, speed } => Feed::Recording { path, speed },
        ScenarioFeed::Packages { bytes, every } => Feed::Packages { bytes, every },
    };
    let mut run = Run { folder: Folder::new(&dir)?, began: Instant::now(), tell, failed: false };
    run.tell(Event::Started { name: name.clone(), machines: *machines, buyers: *buyers });
    let topology = Topology { machines: *machines, buyers: *buyers, mirrors: *mirrors };
    let options = UpOptions { dir, program: None, topology, feed, namespaces: *namespaces };
    let brought = up(&options, &mut |step| tracing::info!("{step}")).await?;
    run.began = Instant::now();
    run.tell(Event::Up { seconds: brought.seconds });
    let (mut next, mut before, mut sampled) = (faults.iter().peekable(), None, Duration::ZERO);
    while run.began.elapsed() < *duration {
        let fault_at = next.peek().map_or(*duration, |fault| fault.at);
        let wake = fault_at.min(sampled + SAMPLE).min(*duration);
        tokio::time::sleep(wake.saturating_sub(run.began.elapsed())).await;
        let now = run.began.elapsed();
        if let Some(fault) = next.next_if(|fault| fault.at <= now) {
            run.break_it(&fault.what).await;
        } else if now >= sampled + SAMPLE {
            sampled = now;
            before = Some(run.sample(before.as_ref()).await?);
        }
    }
    // What was due while an earlier one took its time.
    for fault in next {
        run.break_it(&fault.what).await;
    }
    let outcome = run.judge(expect).await?;
    run.tell(Event::Ended { outcome });
    Ok(outcome)
}

impl Line {
    /// As people read it.
    #[must_use]
    pub fn shown(&self) -> String {
        // Tenths of a second are what a person wants of a run of minutes.
        let at = format!("{:>7.1} s  ", self.at_ms as f64 / 1000.0);
        let what = match &self.event {
            Event::Started { name, machines, buyers } => {
                return format!("{name}: {machines} machines, {buyers} buyers");
            }
            Event::Up { seconds } => format!("up in {seconds:.1} s; everybody has bought"),
            Event::Sample { running, chunks, packages, lag } => format!(
                "{running} nodes run, {chunks} chunks; every buyer has {packages} packages or more, and lacks {lag} entries or fewer"
            ),
            Event::Killed { node, pid } => format!("FAULT     {node} killed (process {pid})"),
            Event::Restarted { node, pid } => format!("FAULT     {node} started again (process {pid})"),
            Event::Cut { groups } => {
                let groups: Vec<String> = groups.iter().map(|group| group.join(",")).collect();
                format!("FAULT     cut: {}", groups.join(" | "))
            }
            Event::Healed { dropped } => {
                format!("FAULT     healed; {} packets had been dropped", dropped.values().sum::<u64>())
            }
            Event::FaultFailed { what } => format!("NOT DONE  {what}"),
            Event::Verified(found) => {
                let (open, packages): (u64, u64) = found
                    .buyers
                    .iter()
                    .fold((0, 0), |sum, buyer| (sum.0 + buyer.datasets_open, sum.1 + buyer.packages));
                let closed: u64 = found.buyers.iter().map(|buyer| buyer.datasets_closed).sum();
                let mut text = format!(
                    "{} {open} bought datasets open, {packages} packages proven; {closed} that were not bought stay sealed",
                    if found.ok { "verified " } else { "WRONG    " }
                );
                found.findings.iter().for_each(|finding| {
                    text.push_str(&format!("\n           {}: {}", finding.node, finding.what));
                });
                text
            }
            Event::Expected { what, met, found } => {
                format!("{} {what}: {found}", if *met { "met      " } else { "NOT MET  " })
            }
            Event::Ended { outcome } => match outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Failed => "FAILED".to_owned(),
                Outcome::NotVerified => "FAILED: not verified".to_owned(),
            },
        };
        format!("{at}{what}")
    }
}
