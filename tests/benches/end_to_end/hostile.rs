//! What a pull loses while a hostile peer does what it can to the machine, on links of a known speed.
//!
//! Machine, buyer and attacker are hosts in namespaces of their own; everything that leaves the machine and everything that leaves
//! the attacker is held to the same rate. The attacker is this bench again, in its own process: connections without number,
//! handshakes that are none, frames that lie, streams that drip, subscriptions, gossip that is nothing.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use futures::AsyncWriteExt as _;
use libp2p::{Multiaddr, multiaddr::Protocol};
use rand::Rng as _;
use serde_json::json;
use tokio::net::TcpStream;
use tributary_protocol::{
    ids::{Did, Hash, StreamId},
    wire::{PullRequest, topic_stream},
};
use tributary_tests::{
    hostile::{Attacker, raw},
    netns::{Host, World},
};

use crate::{
    Bench,
    machine::{clock, peak_mib},
    measure::median,
    nodes::{Node, STREAM, program},
    table::Goal,
};

const CHILD: &str = "HOSTILE_CHILD";
/// What each link carries: fast for an uplink, slow for two cores.
const KBIT: u32 = 80_000;
/// What is pulled, MiB, when `TRIBUTARY_BENCH_HOSTILE_MIB` does not say.
const MIB: u64 = 48;
/// Of its throughput without the attack.
const KEPT: f64 = 0.8;
const MEMORY: f64 = 220.0;
const SOON: Duration = Duration::from_secs(2);

/// When this process is the attacker: attacks until its standard input is closed, and says how often it got through.
pub(crate) fn run_child() -> bool {
    let Ok(target) = std::env::var(CHILD) else { return false };
    let target: Multiaddr = target.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let attacks = runtime.block_on(async {
        let (tell, mut told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_line(&mut String::new());
            let _ = tell.send(());
        });
        let mut attacks = 0_u64;
        loop {
            tokio::select! {
                _ = &mut told => return attacks,
                done = attack(&target, attacks) => attacks += done,
            }
        }
    });
    println!("{attacks}");
    true
}

/// One round of everything; counts what reached the machine.
async fn attack(target: &Multiaddr, round: u64) -> u64 {
    let mut done = 0;
    let mut parts = target.iter();
    let (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else { panic!("{target}") };
    let mut silent = Vec::new();
    for _ in 0..50 {
        if let Ok(Ok(stream)) = tokio::time::timeout(SOON, TcpStream::connect((ip, port))).await {
            // What does not fit the socket's buffer at once is not worth waiting for.
            let _ = stream.try_write(b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff");
            silent.push(stream);
            done += 1;
        }
    }
    // Another one, who is banned for it.
    let key = libp2p::identity::Keypair::generate_ed25519();
    let Some(offender) = Attacker::connect_as(key, target.clone()).await else { return done };
    let nothing = PullRequest { hashes: vec![Hash::of(b"nothing of yours"); 1000] }.encode_frame().unwrap();
    for bytes in [nothing, raw::frame(u32::MAX, &[0x81; 5000])] {
        for _ in 0..8 {
            let Some(mut stream) = offender.open("/tributary/pull/1").await else { break };
            done += u64::from(raw::write(&mut stream, &bytes).await && stream.close().await.is_ok());
        }
    }
    let key = libp2p::identity::Keypair::generate_ed25519();
    let Some(attacker) = Attacker::connect_as(key, target.clone()).await else { return done };
    let mut held = Vec::new();
    for protocol in raw::PROTOCOLS {
        held.extend(raw::drips(&attacker, protocol, 8, &[0]).await);
    }
    done += held.len() as u64;
    if let Some(mut gossip) = attacker.open("/meshsub/1.1.0").await {
        let topics: Vec<String> = (0..300_u64)
            .map(|n| {
                let id = StreamId::from_bytes(*Hash::of(&[round, n].map(u64::to_be_bytes).concat()).as_bytes());
                topic_stream(&Did::from_bytes([7; 20]), &id)
            })
            .collect();
        for _ in 0..20 {
            done += u64::from(raw::write(&mut gossip, &raw::subscriptions(topics.iter().map(String::as_str))).await);
        }
    }
    done
}

struct Attack(Child);

impl Attack {
    /// Attacks from a host until it is ended.
    fn begin(host: &Host, target: &str) -> Self {
        let mut command = host.command(std::env::current_exe().unwrap());
        command.env(CHILD, target).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// How often it reached the machine.
    fn end(mut self) -> u64 {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.0.wait().unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        // It has ended, unless a round failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(role: &str, rest: &str) -> String {
    format!("roles: [{role}]\nnetwork: {{ listen: [/ip4/0.0.0.0/tcp/4600] }}\nstore: {{ ballast: none }}\n{rest}")
}

async fn start(program: &Path, host: &Host, home: &Path, config: &str) -> Node {
    let mut command = host.command(program);
    command.env_remove("TRIBUTARY_LOG");
    Node::start_by(command, home, config).await
}

/// A new buyer gets everything; returns MiB/s.
async fn pulled(program: &Path, host: &Host, home: &Path, link: &str, mib: u64) -> f64 {
    let buyer = start(program, host, home, &config("buyer", "")).await;
    buyer.post("/v1/subscribe", json!({ "link": link, "streams": [] })).await;
    let selection = json!({ "datasets": [buyer.dataset().await] });
    buyer.work("/v1/access/request", json!({ "selection": selection, "wait_ms": 10_000 })).await;
    let (seconds, pulled) = clock(buyer.work("/v1/pull", json!({ "selection": selection }))).await;
    assert!(pulled["bytes"].as_u64().unwrap() > mib << 20, "not all was pulled: {pulled}");
    buyer.stop().await;
    fs::remove_dir_all(home).unwrap();
    mib as f64 / seconds
}

pub(crate) fn run(bench: &mut Bench) {
    let Some(world) = World::new() else {
        bench.table.note("hostile: no network namespaces here".to_owned());
        return;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(measured(bench, &world, &program()));
}

async fn measured(bench: &mut Bench, world: &World, program: &Path) {
    let mib = std::env::var("TRIBUTARY_BENCH_HOSTILE_MIB").map_or(MIB, |mib| mib.parse().unwrap());
    let dir = bench.dir.join("hostile");
    fs::create_dir_all(&dir).unwrap();
    let (robot, office) = (world.public("robot", "198.51.100.20"), world.public("office", "198.51.100.30"));
    let crook = world.public("crook", "198.51.100.66");
    robot.shape(KBIT);
    crook.shape(KBIT);
    let streams = format!("streams:\n  - {{ topic: {STREAM}, mode: file, access: {{ policy: free }} }}\n");
    let machine = start(program, &robot, &dir.join("machine"), &config("machine", &streams)).await;
    let file = dir.join("file.bin");
    let mut block = vec![0; 1 << 20];
    let mut out = File::create(&file).unwrap();
    for _ in 0..mib {
        rand::rng().fill_bytes(&mut block);
        out.write_all(&block).unwrap();
    }
    machine.work("/v1/publish", json!({ "path": file, "stream": STREAM })).await;
    let peer = machine.get("/v1/status").await["peer"].as_str().unwrap().to_owned();
    let did = machine.get("/v1/status").await["did"].as_str().unwrap().to_owned();
    let target = format!("/ip4/198.51.100.20/tcp/4600/p2p/{peer}");
    let link = format!("tributary://{did}?addr={target}");

    let (mut quiet, mut attacked, mut attacks) = (vec![], vec![], 0);
    for _ in 0..bench.rounds {
        let home = dir.join("buyer");
        quiet.push(pulled(program, &office, &home, &link, mib).await);
        let attack = Attack::begin(&crook, &target);
        attacked.push(pulled(program, &office, &home, &link, mib).await);
        let reached = attack.end();
        assert!(reached > 0, "an attack that never reached the machine proves nothing");
        attacks += reached;
    }
    assert!(robot.shaped().0 > 0, "the machine's link was never full");
    let table = &mut bench.table;
    table.compare("pull beside a hostile peer", &attacked, ("without it", &quiet), "MiB/s", Goal::AtLeast(KEPT));
    table.value("peak memory of the machine meanwhile", peak_mib(machine.pid()), "MiB", Goal::AtMost(MEMORY));
    let status = machine.get("/v1/status").await;
    table.note(format!(
        "hostile: {attacks} attacks reached the machine in {} rounds on links of {} Mbit/s ({:.1} MiB/s quiet); it banned {} peers \
         and refused {} connections of one address",
        bench.rounds,
        KBIT / 1000,
        median(&quiet),
        status["traffic"]["bans"],
        status["inbound"]["refused_per_address"],
    ));
    machine.stop().await;
    fs::remove_dir_all(dir).unwrap();
}
