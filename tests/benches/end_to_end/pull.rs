//! A dataset between two nodes, into the buyer's store and out into a file, against a bare libp2p stream.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use rand::Rng;
use serde_json::json;

use crate::{
    Bench,
    bare::{Bare, Security},
    machine::{clock, cpu_of, peak_mib},
    measure::{median, warm_up},
    nodes::{Node, STREAM, program},
    table::Goal,
};

const GIB: u64 = 1 << 30;
/// What either process may have resident at most, MiB.
const MEMORY: f64 = 128.0;

/// A file of random bytes: nothing to compress.
fn make_file(path: &Path, bytes: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut block = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        rand::rng().fill_bytes(&mut block);
        file.write_all(&block).unwrap();
    }
    file.into_inner().unwrap().sync_data().unwrap();
}

/// A machine that has published a file.
struct Seller {
    node: Node,
    file: PathBuf,
    bytes: u64,
    publish_seconds: f64,
}

impl Seller {
    async fn start(program: &Path, dir: &Path, bytes: u64) -> Self {
        let node = Node::machine(program, &dir.join("machine")).await;
        let file = dir.join("file.bin");
        make_file(&file, bytes);
        let (publish_seconds, _) = clock(node.work("/v1/publish", json!({ "path": file, "stream": STREAM }))).await;
        Self { node, file, bytes, publish_seconds }
    }
}

/// What a buyer measured.
struct Bought {
    pull_seconds: f64,
    export_seconds: f64,
    buyer_mib: f64,
    machine_mib: f64,
    /// CPU seconds during the pull: of the machine and the buyer, each in the program and in the kernel.
    cpu: [(f64, f64); 2],
}

/// A new buyer gets the dataset and writes it into a file. With `check`, the file is compared with the original.
async fn buy(program: &Path, home: &Path, seller: &Seller, check: bool) -> Bought {
    let buyer = Node::buyer(program, home).await;
    buyer.post("/v1/subscribe", json!({ "link": seller.node.link().await, "streams": [] })).await;
    let dataset = buyer.dataset().await;
    let selection = json!({ "datasets": [dataset] });
    buyer.work("/v1/access/request", json!({ "selection": selection, "wait_ms": 10_000 })).await;

    let pids = [seller.node.pid(), buyer.pid()];
    let before = pids.map(cpu_of);
    let (pull_seconds, pulled) = clock(buyer.work("/v1/pull", json!({ "selection": selection }))).await;
    let after = pids.map(cpu_of);
    assert!(pulled["bytes"].as_u64().unwrap() > seller.bytes, "not all was pulled: {pulled}");
    let cpu = std::array::from_fn(|i| (after[i].0 - before[i].0, after[i].1 - before[i].1));

    let out = home.join("out");
    let request = json!({ "selection": selection, "out": out });
    let (export_seconds, _) = clock(buyer.work("/v1/export", request)).await;
    if check {
        let exported = find_file(&out, seller.bytes);
        assert!(hash_file(&exported) == hash_file(&seller.file), "the exported file is another one");
    }
    fs::remove_dir_all(&out).unwrap();
    let [machine_mib, buyer_mib] = pids.map(peak_mib);
    buyer.stop().await;
    Bought { pull_seconds, export_seconds, buyer_mib, machine_mib, cpu }
}

/// The only file of that size below a folder.
fn find_file(dir: &Path, bytes: u64) -> PathBuf {
    for entry in fs::read_dir(dir).unwrap() {
        let (path, found) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        if found.is_dir() {
            return find_file(&path, bytes);
        }
        if found.len() == bytes {
            return path;
        }
    }
    panic!("no file of {bytes} bytes in {}", dir.display())
}

fn hash_file(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).unwrap()).unwrap();
    hasher.finalize()
}

pub(crate) fn run(bench: &mut Bench) {
    let program = program();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(one_gib(bench, &program));
    if std::env::var_os("TRIBUTARY_BENCH_SKIP_4GIB").is_none() {
        runtime.block_on(four_gib(bench, &program));
    }
}

async fn one_gib(bench: &mut Bench, program: &Path) {
    let dir = bench.dir.join("pull");
    fs::create_dir_all(&dir).unwrap();
    warm_up(&dir, 6 * GIB);
    let seller = Seller::start(program, &dir, GIB).await;
    let mut noise = Bare::connect(Security::Noise).await;
    let mut tls = Bare::connect(Security::Tls).await;
    let (mut over_noise, mut over_tls, mut noise_cpu, mut tls_cpu) = (vec![], vec![], vec![], vec![]);
    let mut bought = vec![];
    for round in 0..bench.rounds {
        for (bare, rates, cpus) in
            [(&mut noise, &mut over_noise, &mut noise_cpu), (&mut tls, &mut over_tls, &mut tls_cpu)]
        {
            let received = bare.receive(GIB).await;
            rates.push(1024.0 / received.clock);
            cpus.push(received.cpu);
        }
        let home = dir.join("buyer");
        bought.push(buy(program, &home, &seller, round == 0).await);
        fs::remove_dir_all(home).unwrap();
    }
    let over = |value: fn(&Bought) -> f64| bought.iter().map(value).collect::<Vec<f64>>();
    let pulled = over(|bought| 1024.0 / bought.pull_seconds);
    let table = &mut bench.table;
    table.compare(
        "pull 1 GiB into the store",
        &pulled,
        ("bare stream, Noise", &over_noise),
        "MiB/s",
        Goal::AtLeast(0.7),
    );
    table.compare("pull 1 GiB into the store", &pulled, ("bare stream, TLS", &over_tls), "MiB/s", Goal::None);
    table.value("export it to a file", median(&over(|bought| 1024.0 / bought.export_seconds)), "MiB/s", Goal::None);
    table.value("publish the file", 1024.0 / seller.publish_seconds, "MiB/s", Goal::None);
    memory(bench, "1 GiB", &bought);

    let cpu = |of: usize, part: fn(&(f64, f64)) -> f64| {
        median(&bought.iter().map(|bought| part(&bought.cpu[of])).collect::<Vec<f64>>())
    };
    bench.table.note(format!(
        "CPU seconds for 1 GiB, in the program and in the kernel: machine {:.2} and {:.2}, buyer {:.2} and {:.2}; both ends of \
         the bare stream together {:.2} with Noise, {:.2} with TLS",
        cpu(0, |cpu| cpu.0),
        cpu(0, |cpu| cpu.1),
        cpu(1, |cpu| cpu.0),
        cpu(1, |cpu| cpu.1),
        median(&noise_cpu),
        median(&tls_cpu)
    ));
    seller.node.stop().await;
    fs::remove_dir_all(dir).unwrap();
}

async fn four_gib(bench: &mut Bench, program: &Path) {
    let dir = bench.dir.join("pull-4");
    fs::create_dir_all(&dir).unwrap();
    let seller = Seller::start(program, &dir, 4 * GIB).await;
    let bought = buy(program, &dir.join("buyer"), &seller, false).await;
    bench.table.value("pull 4 GiB into the store", 4096.0 / bought.pull_seconds, "MiB/s", Goal::None);
    memory(bench, "4 GiB", &[bought]);
    seller.node.stop().await;
    fs::remove_dir_all(dir).unwrap();
}

/// Peaks since the processes started: the machine's includes publishing, the buyer's exporting.
fn memory(bench: &mut Bench, what: &str, bought: &[Bought]) {
    let most = |value: fn(&Bought) -> f64| bought.iter().map(value).fold(0.0, f64::max);
    let goal = Goal::AtMost(MEMORY);
    bench.table.value(&format!("peak memory of the machine, {what}"), most(|bought| bought.machine_mib), "MiB", goal);
    bench.table.value(&format!("peak memory of the buyer, {what}"), most(|bought| bought.buyer_mib), "MiB", goal);
}
