//! Deliveries between peaq's software and ours: purchases, the official programs, and sellers that do not play by the rules.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{Multiaddr, Stream, StreamProtocol, Swarm, multiaddr::Protocol, noise, swarm::SwarmEvent, tcp, yamux};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};
use tributary_protocol::peaq::{frame::PROTOCOL, sealed_box::BoxSecretKey};

use crate::{
    peaq::{python, quiet},
    wait::soon,
};

/// Purchase, session and buyer of every delivery in the tests.
pub const PURCHASE: &str = "ord-1";
/// The session.
pub const SESSION: &str = "sess-1";
/// The buyer.
pub const BUYER: &str = "buyer-1";
/// The buyer's private key.
pub const BUYER_KEY: [u8; 32] = [7; 32];

/// The buyer's public key as hex.
#[must_use]
pub fn buyer_public() -> String {
    hex(BoxSecretKey::from_bytes(&BUYER_KEY).public_key())
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the buyer's key file.
///
/// # Panics
/// When it cannot be written.
#[must_use]
pub fn key_file(folder: &Path) -> PathBuf {
    let path = folder.join("buyer.key");
    std::fs::write(&path, hex(&BUYER_KEY)).unwrap();
    path
}

/// What the marketplace answers to GET `/purchases/:id/delivery`: this URL, and the keys in an access file.
///
/// # Panics
/// When there is no such file.
#[must_use]
pub fn purchase(url: &str, expires_at: &str, access: &Path) -> Value {
    let file: Value = serde_json::from_slice(&std::fs::read(access).unwrap()).unwrap();
    let mut entries = file["entries"].clone();
    for entry in entries.as_array_mut().unwrap() {
        entry["schemaVersion"] = file["schemaVersion"].clone();
    }
    json!({
        "purchaseId": PURCHASE,
        "delivery": {
            "status": "ready", "mode": "p2p", "transportId": "peaqos-p2p", "sessionId": SESSION,
            "protocols": [PROTOCOL], "encoding": "peaqos-json-frame-v1",
            "connect": { "type": "peaqos-p2p-url", "url": url, "expiresAt": expires_at },
        },
        "access": entries,
    })
}

fn tool(args: &[&str]) -> Command {
    let mut command = Command::from(quiet(python()));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/peaq_p2p.py")).args(args).kill_on_drop(true);
    command
}

async fn one_line(what: &str, args: &[&str]) -> Value {
    let output = soon(what, tool(args).stdin(Stdio::null()).output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line)
        .unwrap_or_else(|error| panic!("{what}: {error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Lets peaq's buyer receive a purchase, and returns what it says.
///
/// # Panics
/// When it says nothing.
pub async fn official_buyer(delivery: &Path, out: &Path) -> Value {
    let (delivery, out) = (delivery.to_str().unwrap(), out.to_str().unwrap());
    one_line("peaq's buyer", &["receive", delivery, &hex(&BUYER_KEY), BUYER, out]).await
}

/// Lets peaq's publisher make a folder of chunks, and returns what it says: the owner's private key, the signer's public key.
///
/// # Panics
/// When it does not.
pub async fn official_publisher(input: &Path, chunk_size: usize, folder: &Path) -> Value {
    let size = chunk_size.to_string();
    one_line("peaq's publisher", &["publish", input.to_str().unwrap(), &size, folder.to_str().unwrap()]).await
}

/// peaq's seller, which waits for its buyer.
pub struct OfficialSeller {
    _process: Child,
    _input: ChildStdin,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    /// What the marketplace tells the buyer.
    pub delivery: Value,
}

impl OfficialSeller {
    /// Publishes `input` in chunks of so many bytes and offers it to the buyer.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(input: &Path, chunk_size: usize) -> Self {
        let size = chunk_size.to_string();
        let mut process = tool(&["deliver", input.to_str().unwrap(), &size, BUYER, &buyer_public()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut lines = BufReader::new(output).lines();
        let line = soon("peaq's seller", lines.next_line()).await.unwrap().expect("peaq's seller ended");
        let delivery = serde_json::from_str(&line).unwrap();
        Self { _process: process, _input: input, lines, delivery }
    }

    /// What it says at its end.
    ///
    /// # Panics
    /// When it says nothing.
    pub async fn end(&mut self) -> Value {
        let line = soon("the end of peaq's seller", self.lines.next_line()).await.unwrap().expect("it ended");
        serde_json::from_str(&line).unwrap()
    }
}

/// What a [`FalseSeller`] says after the handshake.
#[derive(Clone)]
pub enum Said {
    /// These bytes, and then it closes its side.
    Once(Vec<u8>),
    /// These bytes, over and over, until nobody listens.
    Endless(Vec<u8>),
}

/// A seller that says what it likes to whoever comes.
pub struct FalseSeller {
    address: Multiaddr,
    task: JoinHandle<()>,
    heard: Arc<Mutex<Vec<String>>>,
    sent: Arc<Mutex<u64>>,
}

impl Drop for FalseSeller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FalseSeller {
    /// Listens on loopback.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn start(said: Said) -> Self {
        let mut swarm = lone_swarm();
        let mut control = swarm.behaviour().new_control();
        let mut incoming = control.accept(StreamProtocol::new(PROTOCOL)).unwrap();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = soon("an address", async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    return address;
                }
            }
        })
        .await
        .with(Protocol::P2p(*swarm.local_peer_id()));
        let (heard, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (hears, counts) = (Arc::clone(&heard), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = swarm.select_next_some() => {}
                    Some((_, stream)) = incoming.next() => {
                        let (said, hears, counts) = (said.clone(), Arc::clone(&hears), Arc::clone(&counts));
                        tokio::spawn(talk(stream, said, hears, counts));
                    }
                }
            }
        });
        Self { address, task, heard, sent }
    }

    /// Where it is; ends in its peer id.
    #[must_use]
    pub fn address(&self) -> &Multiaddr {
        &self.address
    }

    /// The first line of each buyer.
    ///
    /// # Panics
    /// Never, unless a task did.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Bytes that buyers took.
    ///
    /// # Panics
    /// Never, unless a task did.
    #[must_use]
    pub fn sent(&self) -> u64 {
        *self.sent.lock().unwrap()
    }
}

async fn talk(mut stream: Stream, said: Said, heard: Arc<Mutex<Vec<String>>>, sent: Arc<Mutex<u64>>) {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).await.unwrap_or(0) == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    heard.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
    let (bytes, endless) = match said {
        Said::Once(bytes) => (bytes, false),
        Said::Endless(bytes) => (bytes, true),
    };
    loop {
        for slice in bytes.chunks(16 << 10) {
            if stream.write_all(slice).await.is_err() {
                return;
            }
            *sent.lock().unwrap() += slice.len() as u64;
        }
        if !endless {
            break;
        }
    }
    if stream.close().await.is_ok() {
        // Until the buyer has closed too, or it might lose what it has not read.
        while stream.read(&mut byte).await.unwrap_or(0) > 0 {}
    }
}

/// A swarm that speaks as peaq's does: TCP, Noise, Yamux.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn lone_swarm() -> Swarm<libp2p_stream::Behaviour> {
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(crate::wait::PATIENCE))
        .build()
}
