//! Whether a testnet did its job: every buyer's logs are its machine's, every mirror's those of all machines, everything that was bought decrypts, and nothing else does.
//!
//! The machines' logs and closed datasets at one moment are what is checked; what comes later is not waited for. Hashes of entries are
//! compared, and an entry names the one before it, so equal hashes stand for equal logs. Datasets are verified by the buyers themselves,
//! from the DID down, and every store is read whole and compared with its sums.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use serde::{Serialize, de::IgnoredAny};
use tributary_protocol::ids::StreamId;

use super::{Folder, NodeRole, NodeState, State, TestnetError, running::step};
use crate::control::api::{
    AccessList, CheckRequest, DatasetSummary, EntryHash, EntryHashesRequest, LogPlace, Report, StoreCheck, Verdict,
    VerifyRequest,
};

/// How long buyers may take to catch up, when nothing else is said. Heads are a minute apart, and a lost peer is dialled after half of one.
pub const CATCH_UP: Duration = Duration::from_secs(120);
/// How many nodes are checked at once.
const TOGETHER: usize = 4;
/// Places that one request names.
const PLACES: usize = 1024;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The node.
    pub node: String,
    /// What is wrong.
    pub what: String,
}

/// What was checked at a buyer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BuyerCheck {
    /// The buyer.
    pub name: String,
    /// Logs that are the same as the machine's.
    pub logs: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bought datasets that are proven and open, every chunk of them.
    pub datasets_open: u64,
    /// Packages in these.
    pub packages: u64,
    /// Datasets that were not bought and do not open.
    pub datasets_closed: u64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// By buyer.
    pub buyers: Vec<BuyerCheck>,
    /// By mirror: its logs. It opens nothing.
    pub mirrors: Vec<BuyerCheck>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// What a machine has at the moment that is checked.
struct Truth {
    newest: Vec<EntryHash>,
    datasets: Vec<DatasetSummary>,
}

/// Checks the testnet in this folder. Buyers may take until `patience` is over to catch up.
///
/// # Errors
///
/// When there is none. What is wrong with its nodes, and nodes that cannot be asked, are findings.
pub async fn verify(folder: &Folder, patience: Duration) -> Result<Verified, TestnetError> {
    let state = folder.load()?;
    let mut findings = Vec::new();
    let mut truths = BTreeMap::new();
    for machine in state.machines() {
        match truth(folder, machine).await {
            Ok(truth) => drop(truths.insert(machine.name.as_str(), truth)),
            Err(error) => findings.push(finding(machine, &error)),
        }
    }
    let deadline = Instant::now() + patience;
    let (mut buyers, mut mirrors) = (Vec::new(), Vec::new());
    let state = &state;
    let truths = &truths;
    let checks = futures::stream::iter(&state.nodes).map(|node| async move {
        let mut found = Vec::new();
        if let Err(error) = check_store(folder, node, &mut found).await {
            found.push(finding(node, &error));
        }
        let mut done = None;
        if let Some(truth) = node.follows.as_deref().and_then(|machine| truths.get(machine)) {
            let mut buyer = BuyerCheck { name: node.name.clone(), ..BuyerCheck::default() };
            if let Err(error) = check_buyer(folder, state, node, truth, deadline, &mut buyer, &mut found).await {
                found.push(finding(node, &error));
            }
            done = Some(buyer);
        }
        if node.role == NodeRole::Mirror {
            let mut mirror = BuyerCheck { name: node.name.clone(), ..BuyerCheck::default() };
            for machine in state.machines() {
                let Some(truth) = truths.get(machine.name.as_str()) else { continue };
                let mut wrong = |what: String| found.push(Finding { node: node.name.clone(), what });
                let which = (machine, state.streams.as_slice());
                if let Err(error) = compare_logs(folder, which, node, truth, deadline, &mut mirror, &mut wrong).await {
                    found.push(finding(node, &error));
                }
            }
            done = Some(mirror);
        }
        (done, found)
    });
    let checked: Vec<_> = checks.buffered(TOGETHER).collect().await;
    for (node, (done, found)) in state.nodes.iter().zip(checked) {
        let of_role = if node.role == NodeRole::Mirror { &mut mirrors } else { &mut buyers };
        of_role.extend(done);
        findings.extend(found);
    }
    Ok(Verified { ok: findings.is_empty(), buyers, mirrors, findings })
}

fn finding(node: &NodeState, error: &TestnetError) -> Finding {
    Finding { node: node.name.clone(), what: error.to_string() }
}

async fn truth(folder: &Folder, machine: &NodeState) -> Result<Truth, TestnetError> {
    let client = folder.client(&machine.name);
    // Datasets first: their closing entries are in the logs that are read behind.
    let datasets: Vec<DatasetSummary> = step(&machine.name, "datasets", client.get("/v1/datasets").await)?;
    let request = EntryHashesRequest { machine: machine.did, places: Vec::new() };
    let newest = step(&machine.name, "log hashes", client.post("/v1/logs/hashes", &request).await)?;
    let closed = datasets.into_iter().filter(|dataset| dataset.machine == machine.did && dataset.closed);
    Ok(Truth { newest, datasets: closed.collect() })
}

/// Reads the whole store of a node.
async fn check_store(folder: &Folder, node: &NodeState, found: &mut Vec<Finding>) -> Result<(), TestnetError> {
    let check: Result<StoreCheck, _> =
        folder.client(&node.name).post("/v1/store/check", &CheckRequest { repair: false }).await;
    let check = step(&node.name, "store check", check)?;
    if !check.clean {
        let mut what = format!("its store is damaged: {} chunks are not what was stored", check.damaged_chunks.len());
        check.damage.iter().take(3).for_each(|damage| what.push_str(&format!("; {damage}")));
        found.push(Finding { node: node.name.clone(), what });
    }
    Ok(())
}

async fn check_buyer(
    folder: &Folder,
    state: &State,
    buyer: &NodeState,
    truth: &Truth,
    deadline: Instant,
    check: &mut BuyerCheck,
    found: &mut Vec<Finding>,
) -> Result<(), TestnetError> {
    let mut wrong = |what: String| found.push(Finding { node: buyer.name.clone(), what });
    let Some(machine) = &buyer.follows else { return Ok(()) };
    let machine = state.node(machine)?;
    compare_logs(folder, (machine, &state.streams), buyer, truth, deadline, check, &mut wrong).await?;
    for dataset in &truth.datasets {
        if buyer.buys.contains(&dataset.stream) {
            match opened(folder, buyer, dataset, deadline).await? {
                Ok(packages) => {
                    check.datasets_open += 1;
                    check.packages += packages;
                }
                Err(what) => {
                    wrong(format!("dataset {} of {}, which it bought, {what}", dataset.dataset, dataset.stream))
                }
            }
        } else {
            let report = verify_one(folder, buyer, dataset).await?;
            if report.chunks_opened > 0 {
                wrong(format!("dataset {} of {} opens, and was not bought", dataset.dataset, dataset.stream));
            } else if report.verdict == Verdict::Broken {
                wrong(format!("dataset {} of {} {}", dataset.dataset, dataset.stream, failure(&report)));
            } else {
                check.datasets_closed += 1;
            }
        }
    }
    let client = folder.client(&buyer.name);
    let list: AccessList = step(&buyer.name, "access", client.post("/v1/access/list", &serde_json::json!({})).await)?;
    let bought: BTreeSet<StreamId> = buyer.buys.iter().map(|name| StreamId::of(&machine.did, name)).collect();
    for grant in list.grants.iter().filter(|grant| !bought.contains(&grant.stream)) {
        wrong(format!("it holds a grant of stream {}, which it did not buy", grant.stream));
    }
    Ok(())
}

/// Waits until the buyer has the machine's entries, and compares them.
async fn compare_logs(
    folder: &Folder,
    (machine, streams): (&NodeState, &[String]),
    buyer: &NodeState,
    truth: &Truth,
    deadline: Instant,
    check: &mut BuyerCheck,
    wrong: &mut impl FnMut(String),
) -> Result<(), TestnetError> {
    let client = folder.client(&buyer.name);
    let places: Vec<LogPlace> = truth.newest.iter().map(|entry| entry.place).collect();
    let mut wait = Duration::from_millis(20);
    let held = loop {
        let mut held: BTreeMap<LogPlace, EntryHash> = BTreeMap::new();
        for some in places.chunks(PLACES) {
            let request = EntryHashesRequest { machine: machine.did, places: some.to_vec() };
            let part: Result<Vec<EntryHash>, _> = client.post("/v1/logs/hashes", &request).await;
            held.extend(step(&buyer.name, "log hashes", part)?.into_iter().map(|entry| (entry.place, entry)));
        }
        if held.len() == places.len() || Instant::now() >= deadline {
            break held;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(1));
    };
    for entry in &truth.newest {
        let LogPlace { log, incarnation, seq } = entry.place;
        let which = || match log.stream() {
            None => format!("the machine log of {}", machine.name),
            Some(stream) => {
                let name = streams.iter().find(|name| StreamId::of(&machine.did, name) == stream);
                format!("the log of {} of {}", name.map_or_else(|| stream.to_string(), Clone::clone), machine.name)
            }
        };
        match held.get(&entry.place) {
            Some(same) if same.hash == entry.hash => {
                check.logs += 1;
                check.entries += seq + 1;
            }
            Some(_) => wrong(format!("entry {seq} of {} (incarnation {incarnation}) is another one", which())),
            None => wrong(format!("entry {seq} of {} (incarnation {incarnation}) is missing", which())),
        }
    }
    Ok(())
}

async fn verify_one(folder: &Folder, buyer: &NodeState, dataset: &DatasetSummary) -> Result<Report, TestnetError> {
    let body = VerifyRequest { dataset: dataset.dataset.to_string() };
    let report = folder.client(&buyer.name).run::<IgnoredAny, Report>("/v1/verify", &body, |_| {}).await;
    step(&buyer.name, "verify", report)
}

/// The packages of a bought dataset; what is wrong with it, when it is not whole, proven and open in time.
async fn opened(
    folder: &Folder,
    buyer: &NodeState,
    dataset: &DatasetSummary,
    deadline: Instant,
) -> Result<Result<u64, String>, TestnetError> {
    let mut wait = Duration::from_millis(50);
    loop {
        let report = match verify_one(folder, buyer, dataset).await {
            Ok(report) => report,
            // What is not heard of yet may come.
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(1));
                continue;
            }
            Err(error) => return Err(error),
        };
        if report.verdict == Verdict::Broken {
            return Ok(Err(failure(&report)));
        }
        let is_open = report.complete
            && report.verdict == Verdict::Proven
            && report.chunks == report.chunks_opened
            && report.packages == report.packages_verified;
        if is_open {
            return Ok(Ok(report.packages));
        }
        if Instant::now() >= deadline {
            return Ok(Err(format!(
                "has {} chunks, of which {} are here and {} open",
                report.chunks, report.chunks_held, report.chunks_opened
            )));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}

fn failure(report: &Report) -> String {
    format!("is broken: {}", report.first_failure.as_deref().unwrap_or("the verdict says no more"))
}
