//! Pulls from several sources at once: the machine, and buyers that reseed. Sources vanish, lie, and lack what they are asked for.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{StreamProtocol, identity::Keypair, noise, tcp, yamux};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tributary::{
    control::{
        ClientError,
        api::{PullProgress, PullReport, PullRequest, Verdict},
    },
    net::{self, ChunkLookup, NetConfig, PullServer, PullServerConfig},
};
use tributary_protocol::{
    ids::{DatasetId, Did, Hash},
    wire::{self, PullHeader, PullStatus, topic_machine},
};
use tributary_store::Store;
use tributary_tests::{
    disk,
    home::{Sandbox, head},
    node::{NodeProcess, command},
    peer, trade,
    wait::{soon, until},
};

const FILE_BYTES: usize = 12 << 20;
const CHUNK: usize = 64 << 10;
const CHUNKS: u64 = (FILE_BYTES / CHUNK) as u64;
/// Slow enough that a pull is seen under way, and that no source can do it alone before the others are known.
const SLOW: &str = "pull_bytes_per_second: 1MB";
/// Chunks of one source that may be on their way when the puller dies: two streams with their windows, sockets and read-ahead.
const IN_FLIGHT: u64 = 64;

/// A machine with one file to sell, and who buys it.
struct Market {
    sandbox: Sandbox,
    home: PathBuf,
    machine: NodeProcess,
    did: Did,
    link: String,
    dataset: DatasetId,
}

fn machine_config(sandbox: &Sandbox, limits: &str) -> String {
    format!(
        "{}streams:\n  - {{ topic: files, mode: file, access: {{ policy: free }}, chunk: {{ bytes: 64KiB }} }}\n",
        head("machine", sandbox.port("machine"), limits)
    )
}

impl Market {
    async fn open() -> Self {
        let sandbox = Sandbox::new();
        let home = sandbox.home("machine", &machine_config(&sandbox, ""));
        let machine = NodeProcess::start(&home).await;
        let mut bytes = vec![0; FILE_BYTES];
        StdRng::seed_from_u64(5).fill_bytes(&mut bytes);
        let file = sandbox.path().join("recording.bin");
        std::fs::write(&file, &bytes).unwrap();
        let dataset = trade::publish(&machine, "files", &file).await;
        let (did, link) = (machine.status().await.did, machine.link().await);
        Self { sandbox, home, machine, did, link, dataset }
    }

    /// A buyer that has everything and serves it, slowly.
    async fn reseeder(&self, name: &str) -> NodeProcess {
        let config = format!("{}buyer: {{ reseed: true }}\n", head("buyer", self.sandbox.port(name), SLOW));
        let node = NodeProcess::start(&self.sandbox.home(name, &config)).await;
        self.enter(&node).await;
        let pulled = trade::pull(&node, &trade::datasets(&[self.dataset])).await;
        assert_eq!(pulled.chunks, CHUNKS);
        assert!(node.status().await.served.followed, "it says that it reseeds");
        node
    }

    /// A buyer with the keys that knows the addresses of these nodes, and is connected to them.
    async fn puller(&self, name: &str, others: &[&NodeProcess]) -> NodeProcess {
        let mut peers = Vec::new();
        for other in others {
            peers.push(other.status().await.listen.remove(0));
        }
        let node = self.start_puller(name, &peers).await;
        self.enter(&node).await;
        let connected = async || {
            let known = node.status().await.peers;
            peers.iter().all(|addr| known.iter().any(|peer| addr.ends_with(&peer.peer))).then_some(())
        };
        until("connections to the other sources", connected).await;
        node
    }

    async fn start_puller(&self, name: &str, peers: &[String]) -> NodeProcess {
        let config = head("buyer", self.sandbox.port(name), "")
            .replace("  limits:", &format!("  peers: [{}]\n  limits:", peers.join(", ")));
        NodeProcess::start(&self.sandbox.home(name, &config)).await
    }

    /// Follows, and gets the keys.
    async fn enter(&self, node: &NodeProcess) {
        trade::try_follow(node, &self.link).await.unwrap();
        trade::know(node, self.dataset).await;
        trade::request(node, &trade::datasets(&[self.dataset])).await;
    }

    /// The machine serves slowly from now on.
    async fn slow_down(mut self) -> Self {
        self.machine.stop().await;
        std::fs::write(self.home.join("config.yaml"), machine_config(&self.sandbox, SLOW)).unwrap();
        self.machine = NodeProcess::start(&self.home).await;
        self
    }

    async fn proven(&self, node: &NodeProcess) {
        let proof = trade::verify(node, self.dataset).await;
        assert_eq!((proof.verdict, proof.chunks_opened), (Verdict::Proven, CHUNKS), "{proof:?}");
    }

    fn pull(&self, node: &NodeProcess) -> Pull {
        let durable = Arc::new(AtomicU64::new(0));
        let (client, seen) = (node.client().clone(), Arc::clone(&durable));
        let body = PullRequest { selection: trade::datasets(&[self.dataset]) };
        let task = tokio::spawn(async move {
            let note = move |progress: PullProgress| seen.store(progress.chunks, Relaxed);
            client.run::<PullProgress, PullReport>("/v1/pull", &body, note).await
        });
        Pull { durable, task }
    }
}

/// A pull under way.
struct Pull {
    durable: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<PullReport, ClientError>>,
}

impl Pull {
    async fn durable(&self, chunks: u64) {
        let enough = async || (self.durable.load(Relaxed) >= chunks || self.task.is_finished()).then_some(());
        until("durable chunks", enough).await;
        assert!(!self.task.is_finished(), "the pull is under way");
    }

    async fn report(self) -> PullReport {
        soon("the end of the pull", self.task).await.unwrap().unwrap()
    }
}

fn brought(report: &PullReport, peer: &str) -> u64 {
    report.sources.iter().find(|source| source.peer == peer).map_or(0, |source| source.chunks)
}

fn said<'a>(report: &'a PullReport, peer: &str) -> &'a str {
    let source = report.sources.iter().find(|source| source.peer == peer);
    source.and_then(|source| source.said.as_deref()).unwrap_or_default()
}

async fn served(node: &NodeProcess) -> u64 {
    node.status().await.served.chunks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_comes_from_the_machine_and_from_buyers_that_reseed() {
    let market = Market::open().await;
    let (a, b) = (market.reseeder("a").await, market.reseeder("b").await);
    let market = market.slow_down().await;
    let puller = market.puller("puller", &[&a, &b]).await;
    let id = market.dataset.to_string();

    let pulled = command(puller.home(), &["pull", "--dataset", &id, "--json"]).await;
    let report: Value = pulled.json();
    assert_eq!((report["chunks"].as_u64(), report["not_granted"].as_u64()), (Some(CHUNKS), Some(0)), "{report}");
    let sources = report["sources"].as_array().unwrap();
    let mut all = 0;
    for node in [&market.machine, &a, &b] {
        let peer = node.status().await.peer;
        let of = sources.iter().find(|source| source["peer"] == *peer).unwrap_or_else(|| panic!("{peer}: {report}"));
        let chunks = of["chunks"].as_u64().unwrap();
        assert!(chunks > 0 && chunks < CHUNKS, "everybody did a part: {report}");
        assert!(served(node).await >= chunks);
        all += chunks;
    }
    assert_eq!(all, CHUNKS, "every chunk was kept once: {report}");
    market.proven(&puller).await;

    // The status says who brought what.
    let status = puller.status().await;
    let totals = &status.followed[0].sources;
    assert_eq!((totals.len(), totals.iter().map(|source| source.chunks).sum::<u64>()), (3, CHUNKS), "{totals:?}");
    let shown = command(puller.home(), &["status"]).await;
    assert!(shown.stdout.contains(&totals[0].peer), "{shown:?}");
    assert!(!status.served.followed && !shown.stdout.contains("served to others"), "this one does not reseed");
    assert!(command(a.home(), &["status"]).await.stdout.contains("served to others"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_in_the_middle_does_not_end_the_pull() {
    let market = Market::open().await;
    let a = market.reseeder("a").await;
    let mut market = market.slow_down().await;
    let puller = market.puller("puller", &[&a]).await;
    let peer = market.machine.status().await.peer;

    let pull = market.pull(&puller);
    pull.durable(20).await;
    until("chunks of the machine", async || (served(&market.machine).await > 0).then_some(())).await;
    let sent = served(&market.machine).await;
    assert!(sent > 0 && sent < CHUNKS, "it sent some and not all: {sent}");
    pull.durable(20).await;
    market.machine.kill();
    let report = pull.report().await;
    assert_eq!((report.chunks, report.complete), (CHUNKS, true), "{report:?}");
    let of_machine = brought(&report, &peer);
    assert!(of_machine < CHUNKS && brought(&report, &a.status().await.peer) == CHUNKS - of_machine, "{report:?}");
    market.proven(&puller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_machine_gone_a_buyer_that_reseeds_has_everything() {
    let mut market = Market::open().await;
    let a = market.reseeder("a").await;
    let silent = market.puller("silent", &[]).await;
    let pulled = trade::pull(&silent, &trade::datasets(&[market.dataset])).await;
    assert_eq!(pulled.chunks, CHUNKS);
    let puller = market.puller("puller", &[&a, &silent]).await;
    let peer = market.machine.status().await.peer;
    market.machine.kill();

    let report = market.pull(&puller).report().await;
    assert_eq!(report.chunks, CHUNKS, "{report:?}");
    assert_eq!(brought(&report, &a.status().await.peer), CHUNKS, "{report:?}");
    assert!(said(&report, &peer).contains("cannot be reached"), "{report:?}");
    // A buyer that does not reseed serves nothing, whatever it holds.
    let silent = silent.status().await;
    assert_eq!((silent.served.chunks, silent.served.followed, brought(&report, &silent.peer)), (0, false, 0));
    market.proven(&puller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_wrong_bytes_loses_its_work_and_is_remembered_for_it() {
    let market = Market::open().await;
    let a = market.reseeder("a").await;
    let home = a.home().to_owned();
    a.stop().await;
    let market = market.slow_down().await;
    // What a copy of a store holds that somebody changed: every chunk has its length, and one other byte.
    let store = disk::store(&home);
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let config = NetConfig { listen, ..NetConfig::default() };
    let (liar, _events, _) = net::start(Keypair::generate_ed25519(), config).await.unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let lies = move |hash: &Hash, into: &mut Vec<u8>| {
        let Some(mut body) = store.chunk(hash).unwrap() else { return ChunkLookup::Absent };
        body[9] ^= 1;
        into.extend_from_slice(&body);
        counted.fetch_add(1, Relaxed);
        ChunkLookup::Found
    };
    let _server = PullServer::start(&liar, Arc::new(lies), PullServerConfig::default()).unwrap();
    // Who follows a feed may have it.
    liar.subscribe(topic_machine(&market.did)).await.unwrap();
    let at = soon("an address", liar.listen_addrs()).await.unwrap().remove(0).to_string();
    let puller = market.start_puller("puller", &[at]).await;
    market.enter(&puller).await;
    let peer = liar.peer_id().to_string();
    let score = async || puller.status().await.peers.iter().find(|known| known.peer == peer).map(|known| known.score);
    let before = until("a connection to the liar", score).await;

    let report = market.pull(&puller).report().await;
    assert!(asked.load(Relaxed) > 0, "it was asked, and lied");
    assert_eq!((report.chunks, brought(&report, &peer)), (CHUNKS, 0), "{report:?}");
    assert!(said(&report, &peer).contains("wrong bytes"), "{report:?}");
    assert_eq!(brought(&report, &market.machine.status().await.peer), CHUNKS, "{report:?}");
    market.proven(&puller).await;
    until("a worse score", async || score().await.is_none_or(|now| now < before).then_some(())).await;

    // Nobody is left but the liar: the error says what it did.
    let mut market = market;
    let other = market.start_puller("other", &[liar.listen_addrs().await.unwrap().remove(0).to_string()]).await;
    market.enter(&other).await;
    until("a connection to the liar", async || {
        other.status().await.peers.iter().any(|known| known.peer == peer).then_some(())
    })
    .await;
    market.machine.kill();
    let ended = command(other.home(), &["pull", "--dataset", &market.dataset.to_string()]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for part in ["wrong bytes", &peer, "cannot be reached"] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_costs_what_was_under_way_at_every_source() {
    let market = Market::open().await;
    let a = market.reseeder("a").await;
    let market = market.slow_down().await;
    let mut puller = market.puller("puller", &[&a]).await;
    let before = served(&a).await + served(&market.machine).await;

    let pull = market.pull(&puller);
    pull.durable(40).await;
    until("chunks of both", async || (served(&a).await > 0 && served(&market.machine).await > 0).then_some(())).await;
    pull.durable(40).await;
    let home = puller.home().to_owned();
    puller.kill();
    let durable = pull.durable.load(Relaxed);
    assert!(soon("the end of the pull", pull.task).await.unwrap().is_err(), "the pull never came to its end");

    let puller = NodeProcess::start(&home).await;
    let report = market.pull(&puller).report().await;
    assert!(report.skipped >= durable && report.skipped < CHUNKS, "{report:?}");
    assert_eq!(report.chunks + report.skipped, CHUNKS, "what was held is not asked for again: {report:?}");
    let sent = until("the end of the transfers", async || {
        let sent = served(&a).await + served(&market.machine).await - before;
        (sent >= CHUNKS).then_some(sent)
    })
    .await;
    assert!(sent <= CHUNKS + 2 * IN_FLIGHT, "{sent} chunks were sent for {CHUNKS}");
    market.proven(&puller).await;
}

/// Answers pulls below our own server, the last chunk first, until the test ends. Returns how many it has answered.
fn backwards(key: Keypair, port: u16, store: Store) -> Arc<AtomicU64> {
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(tributary_tests::wait::PATIENCE))
        .build();
    let mut incoming = swarm.behaviour().new_control().accept(StreamProtocol::new("/tributary/pull/1")).unwrap();
    swarm.listen_on(format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()).unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&answered);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = swarm.select_next_some() => {}
                Some((_, mut stream)) = incoming.next() => {
                    let (store, counted) = (store.clone(), Arc::clone(&counted));
                    tokio::spawn(async move {
                        let mut request = Vec::new();
                        stream.read_to_end(&mut request).await.unwrap();
                        let request = wire::PullRequest::decode(&request[4..]).unwrap();
                        for hash in request.hashes.into_iter().rev() {
                            let body = store.chunk(&hash).unwrap().unwrap();
                            let status = PullStatus::Found { len: u32::try_from(body.len()).unwrap() };
                            let header = PullHeader { hash, status }.encode();
                            // The puller may have had it from somebody else meanwhile.
                            if stream.write_all(&[header.as_slice(), &body].concat()).await.is_err() {
                                return;
                            }
                            counted.fetch_add(1, Relaxed);
                        }
                        let _ = stream.close().await;
                    });
                }
            }
        }
    });
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_another_order_are_put_where_they_belong() {
    let mut market = Market::open().await;
    let puller = market.puller("puller", &[]).await;
    let peer = market.machine.status().await.peer;
    market.machine.kill();
    // Who stole the key of the machine's node, and nothing else.
    let (key, port) = (peer::stolen_node_key(&market.home), market.sandbox.port("machine"));
    let answered = backwards(key, port, disk::store(&market.home));

    let report = market.pull(&puller).report().await;
    assert_eq!((report.chunks, brought(&report, &peer)), (CHUNKS, CHUNKS), "{report:?}");
    assert!(answered.load(Relaxed) >= CHUNKS, "the impostor answered");
    market.proven(&puller).await;
}
