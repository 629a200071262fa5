//! Delivery over libp2p between peaq's own software and ours, and against those who do not play by the rules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stop at the first failure, as the tests do")]

#[path = "peaq_p2p/agents.rs"]
mod agents;
#[path = "peaq_p2p/crowds.rs"]
mod crowds;
#[path = "peaq_p2p/false_sellers.rs"]
mod false_sellers;
#[path = "peaq_p2p/official.rs"]
mod official;
#[path = "peaq_p2p/restarts.rs"]
mod restarts;
#[path = "peaq_p2p/strangers.rs"]
mod strangers;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tributary::control::api::{OfferRequest, Offered, Problem};
use tributary_tests::{
    delivery::{BUYER, PURCHASE, SESSION, buyer_public, key_file, purchase},
    home::{Sandbox, machine_config},
    node::{Ended, NodeProcess, command},
    trade,
    wait::soon,
};

/// A machine with a stream of files.
fn machine_home(sandbox: &Sandbox, chunk: &str) -> PathBuf {
    let stream = format!("  - {{ topic: rec, mode: file, access: {{ policy: free }}, chunk: {{ bytes: {chunk} }} }}\n");
    sandbox.home("machine", &machine_config(sandbox.port("machine"), &[stream]))
}

/// A file of so many bytes that are not all the same.
fn input(sandbox: &Sandbox, len: usize) -> PathBuf {
    let path = sandbox.path().join("input");
    let bytes: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8 ^ (at / 251 % 255) as u8).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A machine that has published a file and offers it to the buyer.
struct Shop {
    sandbox: Sandbox,
    node: NodeProcess,
    input: PathBuf,
    offered: Offered,
}

impl Shop {
    async fn open(len: usize) -> Self {
        let sandbox = Sandbox::new();
        let node = NodeProcess::start(&machine_home(&sandbox, "64KiB")).await;
        let input = input(&sandbox, len);
        let dataset = trade::publish(&node, "rec", &input).await.to_string();
        let request = OfferRequest {
            purchase: PURCHASE.into(),
            session: SESSION.into(),
            buyer: BUYER.into(),
            dataset: Some(dataset),
            buyer_key: Some(buyer_public()),
            access_out: Some(sandbox.path().join("access.json")),
            ..OfferRequest::default()
        };
        let offered = soon("an offer", node.client().post("/v1/peaq/offer", &request)).await.unwrap();
        Self { sandbox, node, input, offered }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    fn access(&self) -> PathBuf {
        self.path("access.json")
    }

    /// What the marketplace tells the buyer, as a file.
    fn purchase(&self) -> PathBuf {
        let path = self.path("delivery.json");
        let purchase = purchase(&self.offered.url, &self.offered.expires_at, &self.access());
        std::fs::write(&path, purchase.to_string()).unwrap();
        path
    }

    /// Our buyer, as a command without a home.
    async fn receive(&self, out: &Path, more: &[&str]) -> Ended {
        receive(self.sandbox.path(), &self.purchase(), out, more).await
    }

    /// How the delivery stands.
    async fn delivery(&self) -> Value {
        let all: Value = soon("deliveries", self.node.client().get("/v1/peaq/deliveries")).await.unwrap();
        all.as_array().unwrap().iter().find(|delivery| delivery["purchase"] == PURCHASE).unwrap().clone()
    }
}

/// `tributary peaq receive`, without a home.
async fn receive(folder: &Path, delivery: &Path, out: &Path, more: &[&str]) -> Ended {
    let (key, none) = (key_file(folder), folder.join("no-home"));
    let mut args = vec!["peaq", "receive", "--json", "--buyer-id", BUYER];
    args.extend(["--delivery", delivery.to_str().unwrap(), "--buyer-key-file", key.to_str().unwrap()]);
    args.extend(["--out", out.to_str().unwrap()]);
    args.extend(more);
    command(&none, &args).await
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

/// What the node refuses to offer.
async fn refused(node: &NodeProcess, request: &OfferRequest) -> Problem {
    let answer: Result<Offered, _> = soon("an offer", node.client().post("/v1/peaq/offer", request)).await;
    match answer.unwrap_err() {
        tributary::control::ClientError::Problem(problem) => problem,
        other => panic!("{other}"),
    }
}
