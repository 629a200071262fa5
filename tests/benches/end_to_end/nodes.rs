//! Real nodes: processes of the program, driven through their control sockets.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rand::Rng as _;
use serde_json::{Value, json};
use tributary::{
    control::ControlClient,
    home::{Home, InitOptions},
};

/// The stream that files are published on.
pub(crate) const STREAM: &str = "recordings";
const MACHINE: &str = "\
roles: [machine]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
streams:
  - topic: recordings
    mode: file
    access: { policy: free }
";
const BUYER: &str = "\
roles: [buyer]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
";
/// A step of a pull without the transfer itself.
const WAIT: Duration = Duration::from_millis(20);
const ATTEMPTS: usize = 1500;

/// The program: as told, or the one of the tests, which Cargo has built with this bench from the program's source.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("TRIBUTARY_BIN").map_or_else(|| env!("CARGO_BIN_EXE_tributary-under-test").into(), PathBuf::from)
}

/// Waits for a state.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..ATTEMPTS {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(WAIT).await;
    }
    panic!("still waiting: {what}")
}

/// A line of 2.7 KB that does not compress: two of its packages are more than the smallest chunk, so each has a chunk of its own.
pub(crate) fn drip_line(topic: &str, number: u64) -> Vec<u8> {
    let mut noise = vec![0; 1300];
    rand::rng().fill_bytes(&mut noise);
    let mut line = json!({ "topic": topic, "n": number, "noise": hex::encode(noise) }).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// A running node; killed when it is dropped.
pub(crate) struct Node {
    child: Child,
    client: ControlClient,
    home: PathBuf,
}

impl Node {
    pub(crate) async fn machine(program: &Path, home: &Path) -> Self {
        Self::start(program, home, MACHINE).await
    }

    pub(crate) async fn buyer(program: &Path, home: &Path) -> Self {
        Self::start(program, home, BUYER).await
    }

    pub(crate) async fn start(program: &Path, path: &Path, config: &str) -> Self {
        Self::start_by(Command::new(program), path, config).await
    }

    /// Starts the program that `command` begins with; its process must become the node's.
    pub(crate) async fn start_by(mut command: Command, path: &Path, config: &str) -> Self {
        let options = InitOptions { owner: None, identity: None, passphrase: None, config: config.to_owned() };
        let home = Home::init(path, options, &mut rand::rng()).unwrap();
        let log = File::create(path.join("node.log")).unwrap();
        let child = command
            .args(["run", "--home"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self { child, client: ControlClient::new(home.control_path()), home: path.to_owned() };
        for _ in 0..ATTEMPTS {
            if node.client.get::<Value>("/v1/status").await.is_ok() {
                return node;
            }
            if node.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(WAIT).await;
        }
        node.fail("does not answer")
    }

    fn fail(&self, what: &str) -> ! {
        let log = fs::read_to_string(self.home.join("node.log")).unwrap_or_default();
        panic!("the node in {} {what}; its log:\n{log}", self.home.display())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) async fn get(&self, route: &str) -> Value {
        self.client.get(route).await.unwrap_or_else(|error| self.fail(&format!("refuses {route}: {error}")))
    }

    pub(crate) async fn post(&self, route: &str, body: Value) -> Value {
        self.client.post(route, &body).await.unwrap_or_else(|error| self.fail(&format!("refuses {route}: {error}")))
    }

    /// Long work, to its end.
    pub(crate) async fn work(&self, route: &str, body: Value) -> Value {
        let result = self.client.run(route, &body, |_: Value| ()).await;
        result.unwrap_or_else(|error| self.fail(&format!("fails at {route}: {error:?}")))
    }

    /// How others find this node.
    pub(crate) async fn link(&self) -> String {
        self.eventually("listen", "/v1/status", |status| status["links"][0].as_str().map(str::to_owned)).await
    }

    /// The dataset that was published, once it is known here as a whole.
    pub(crate) async fn dataset(&self) -> String {
        let closed = |datasets: &Value| datasets[0]["closed"] == true;
        let id = |datasets: &Value| datasets[0]["dataset"].as_str().filter(|_| closed(datasets)).map(str::to_owned);
        self.eventually("hear of the dataset", "/v1/datasets", id).await
    }

    /// Asks until the answer has what is looked for.
    async fn eventually(&self, what: &str, route: &str, find: impl Fn(&Value) -> Option<String>) -> String {
        for _ in 0..ATTEMPTS {
            if let Some(found) = find(&self.get(route).await) {
                return found;
            }
            tokio::time::sleep(WAIT).await;
        }
        self.fail(&format!("does not {what}"))
    }

    /// Ends the node as its operator would.
    pub(crate) async fn stop(mut self) {
        self.post("/v1/shutdown", json!({})).await;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
