//! A purchase of 64 MiB in chunks of 256 KiB over peaq's frames: its own seller and buyer, ours, and each with the other's; and
//! our own pull of the same data.
//!
//! A transfer is timed where the buyer is: from before it dials until everything is in its hands. peaq's buyer holds the data in
//! memory, ours writes a file. Each round has new processes, as a purchase has.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    Bench,
    nodes::{Node, STREAM, program},
    table::Goal,
};

const MIB: usize = 64;
const CHUNK: usize = 256 << 10;
const BUYER: &str = "buyer-1";
const BUYER_KEY: [u8; 32] = [7; 32];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn buyer_public() -> String {
    hex(tributary_protocol::peaq::sealed_box::BoxSecretKey::from_bytes(&BUYER_KEY).public_key())
}

/// peaq's software, as the tests run it.
struct Official(PathBuf);

impl Official {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = tributary_tests::peaq::quiet(&self.0);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/peaq_p2p.py")).args(args);
        command
    }

    /// Its seller, which waits for the buyer, and what the marketplace says of it.
    fn seller(&self, input: &Path) -> (OfficialSeller, Value) {
        let size = CHUNK.to_string();
        let mut child = self
            .command(&["deliver", input.to_str().unwrap(), &size, BUYER, &buyer_public()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let hold = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let delivery = serde_json::from_str(&line).expect("peaq's seller says where it is");
        (OfficialSeller { child, hold }, delivery)
    }

    /// MiB per second into its buyer.
    fn buy(&self, delivery: &Path, out: &Path) -> f64 {
        let (delivery, key) = (delivery.to_str().unwrap(), hex(&BUYER_KEY));
        let output = self.command(&["receive", delivery, &key, BUYER, out.to_str().unwrap()]).output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).expect("peaq's buyer says how it went");
        assert_eq!(said["ok"], true, "{said}");
        MIB as f64 / said["seconds"].as_f64().unwrap()
    }
}

/// Ends with its standard input.
struct OfficialSeller {
    child: Child,
    hold: Option<ChildStdin>,
}

impl Drop for OfficialSeller {
    fn drop(&mut self) {
        self.hold.take();
        let _ = self.child.wait();
    }
}

/// A machine of ours that has published the file.
struct Seller {
    node: Node,
    dataset: String,
    access: PathBuf,
    sold: usize,
}

impl Seller {
    async fn start(program: &Path, dir: &Path, input: &Path) -> Self {
        let node = Node::machine(program, &dir.join("machine")).await;
        let published = node.work("/v1/publish", json!({ "path": input, "stream": STREAM })).await;
        let dataset = published["dataset"].as_str().unwrap().to_owned();
        Self { node, dataset, access: dir.join("access.json"), sold: 0 }
    }

    /// Opens a session and writes what the marketplace would tell the buyer.
    async fn offer(&mut self, delivery: &Path) {
        self.sold += 1;
        let purchase = format!("ord-{}", self.sold);
        let request = json!({
            "purchase": purchase, "session": "sess-1", "buyer": BUYER, "dataset": self.dataset,
            "buyer_key": buyer_public(), "access_out": self.access,
        });
        let offered = self.node.post("/v1/peaq/offer", request).await;
        let file: Value = serde_json::from_slice(&fs::read(&self.access).unwrap()).unwrap();
        let mut access = file["entries"].clone();
        for entry in access.as_array_mut().unwrap() {
            entry["schemaVersion"] = file["schemaVersion"].clone();
        }
        let answer = json!({
            "purchaseId": purchase,
            "delivery": {
                "status": "ready", "mode": "p2p", "transportId": "peaqos-p2p", "sessionId": "sess-1",
                "protocols": ["/peaqos/stream/chunk/1.0.0"], "encoding": "peaqos-json-frame-v1",
                "connect": {
                    "type": "peaqos-p2p-url", "url": offered["url"], "expiresAt": offered["expires_at"],
                },
            },
            "access": access,
        });
        fs::write(delivery, answer.to_string()).unwrap();
    }
}

/// MiB per second into our buyer, the start of its process included.
fn buy(program: &Path, dir: &Path, delivery: &Path, out: &Path) -> f64 {
    let key = dir.join("buyer.key");
    fs::write(&key, hex(&BUYER_KEY)).unwrap();
    let begun = Instant::now();
    let output = Command::new(program)
        .args(["peaq", "receive", "--json", "--buyer-id", BUYER, "--delivery"])
        .arg(delivery)
        .arg("--buyer-key-file")
        .arg(&key)
        .arg("--out")
        .arg(out)
        .output()
        .unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    MIB as f64 / seconds
}

/// MiB per second of our own pull, into a file.
async fn pull(program: &Path, home: &Path, seller: &Seller) -> f64 {
    let buyer = Node::buyer(program, home).await;
    buyer.post("/v1/subscribe", json!({ "link": seller.node.link().await, "streams": [] })).await;
    let selection = json!({ "datasets": [buyer.dataset().await] });
    buyer.work("/v1/access/request", json!({ "selection": selection, "wait_ms": 10_000 })).await;
    let begun = Instant::now();
    buyer.work("/v1/pull", json!({ "selection": selection })).await;
    buyer.work("/v1/export", json!({ "selection": selection, "out": home.join("out") })).await;
    let seconds = begun.elapsed().as_secs_f64();
    buyer.stop().await;
    MIB as f64 / seconds
}

pub(crate) fn run(bench: &mut Bench) {
    let program = program();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measured(bench, &program));
}

async fn measured(bench: &mut Bench, program: &Path) {
    let dir = bench.dir.join("frames");
    fs::create_dir_all(&dir).unwrap();
    let (input, delivery, out) = (dir.join("input"), dir.join("delivery.json"), dir.join("out"));
    let mut bytes = vec![0; MIB << 20];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    fs::write(&input, &bytes).unwrap();
    let whole = |out: &Path| assert!(fs::read(out).unwrap() == bytes, "what was received is something else");

    let official = std::env::var_os("TRIBUTARY_SDK_PYTHON").map(|python| Official(python.into()));
    let mut seller = Seller::start(program, &dir, &input).await;
    let (mut pair, mut to_official, mut from_official) = (vec![], vec![], vec![]);
    let (mut ours, mut native) = (vec![], vec![]);
    for round in 0..bench.rounds {
        if let Some(official) = &official {
            let (waiting, terms) = official.seller(&input);
            fs::write(&delivery, terms.to_string()).unwrap();
            pair.push(official.buy(&delivery, &out));
            drop(waiting);
            seller.offer(&delivery).await;
            to_official.push(official.buy(&delivery, &out));
            whole(&out);
            let (waiting, terms) = official.seller(&input);
            fs::write(&delivery, terms.to_string()).unwrap();
            from_official.push(buy(program, &dir, &delivery, &out));
            drop(waiting);
            whole(&out);
        }
        seller.offer(&delivery).await;
        ours.push(buy(program, &dir, &delivery, &out));
        whole(&out);
        let home = dir.join(format!("buyer-{round}"));
        native.push(pull(program, &home, &seller).await);
        fs::remove_dir_all(home).unwrap();
    }
    let table = &mut bench.table;
    if official.is_some() {
        let pair = ("SDK to SDK", pair.as_slice());
        table.compare("64 MiB over peaq's frames, node to SDK", &to_official, pair, "MiB/s", Goal::AtLeast(1.0));
        table.compare("64 MiB over peaq's frames, SDK to node", &from_official, pair, "MiB/s", Goal::AtLeast(1.0));
        table.compare("64 MiB over peaq's frames, node to node", &ours, pair, "MiB/s", Goal::AtLeast(10.0));
    } else {
        table.value("64 MiB over peaq's frames, node to node", crate::measure::median(&ours), "MiB/s", Goal::None);
    }
    table.compare(
        "64 MiB pulled and exported, node to node",
        &native,
        ("over peaq's frames", ours.as_slice()),
        "MiB/s",
        Goal::None,
    );
    seller.node.stop().await;
    fs::remove_dir_all(dir).unwrap();
}
