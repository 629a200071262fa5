//! `tests/tools/rclpy_node.py`: a ROS 2 node that does what a test says, and says what it did.

use std::{path::Path, process::Stdio};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout},
};

use super::{Network, python};
use crate::{cleanup, wait::soon};

/// A message that was published.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Its number.
    pub n: u64,
    /// When, nanoseconds since 1970.
    pub at_ns: u64,
    /// Its fields, if they were asked for.
    pub value: Option<Value>,
    /// Its bytes, if they were asked for.
    pub cdr: Option<Vec<u8>>,
    /// Their SHA-256, if that was asked for.
    pub sha256: Option<String>,
}

/// What is published. See the tool for what each means.
#[derive(Debug, Clone)]
pub struct Publish(Value);

impl Publish {
    /// All fields random, the same for the same seed.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        Self(json!({ "random": seed }))
    }

    /// These fields; `"$n"` in them is the message's number.
    #[must_use]
    pub fn fields(fields: Value) -> Self {
        Self(json!({ "messages": fields }))
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.0[key] = value;
        self
    }

    /// Numbered from here.
    #[must_use]
    pub fn first(self, first: u64) -> Self {
        self.with("first", first.into())
    }

    /// So many a second.
    #[must_use]
    pub fn rate(self, hz: u32) -> Self {
        self.with("rate", hz.into())
    }

    /// Serialized before, so that publishing costs little.
    #[must_use]
    pub fn raw(self) -> Self {
        self.with("raw", true.into())
    }

    /// What is said of each message: `value` (default), `cdr`, `digest`; `stamp` sets `header.stamp`.
    #[must_use]
    pub fn report(self, report: &[&str]) -> Self {
        self.with("report", report.into())
    }
}

/// The node. It is killed when this is dropped.
pub struct Rclpy {
    child: Child,
    pid: u32,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Rclpy {
    fn drop(&mut self) {
        // Killed by `kill_on_drop`, and waited for by the runtime.
        cleanup::ended(self.pid);
    }
}

impl Rclpy {
    /// Starts a node of this name, and waits until it takes orders.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn start(network: &Network, name: &str) -> Self {
        let mut command = network.command(python());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/rclpy_node.py")).arg(name);
        // It brings its own libpython.
        command.env_remove("LD_PRELOAD").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        cleanup::child(pid);
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut node = Self { child, pid, input, output };
        soon("the rclpy node to start", node.answer()).await.unwrap();
        node
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    async fn answer(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).await.unwrap();
        assert!(!line.is_empty(), "the rclpy node ended; what it says stands above");
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        match answer.get_mut("error") {
            Some(error) => Err(error.as_str().unwrap().to_owned()),
            None => Ok(answer["answer"].take()),
        }
    }

    async fn try_ask(&mut self, mut question: Value, what: &str) -> Result<Value, String> {
        question["do"] = what.into();
        let line = format!("{question}\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
        soon(what, self.answer()).await
    }

    async fn ask(&mut self, question: Value, what: &str) -> Value {
        self.try_ask(question.clone(), what).await.unwrap_or_else(|error| panic!("{what} {question}: {error}"))
    }

    /// Makes a publisher. `qos` has the tool's keys; what it lacks is reliable, volatile, the last 1000.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub async fn advertise(&mut self, topic: &str, kind: &str, qos: Value) {
        self.ask(json!({ "topic": topic, "type": kind, "qos": qos }), "advertise").await;
    }

    /// Ends a publisher.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub async fn retire(&mut self, topic: &str) {
        self.ask(json!({ "topic": topic }), "retire").await;
    }

    /// Waits until a publisher has exactly so many subscriptions.
    ///
    /// # Panics
    ///
    /// When it has another number for too long.
    pub async fn matched(&mut self, topic: &str, count: u64) {
        self.ask(json!({ "topic": topic, "count": count }), "matched").await;
    }

    /// Publishes so many messages.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub async fn publish(&mut self, topic: &str, count: u64, what: Publish) -> Vec<Published> {
        let question = what.with("topic", topic.into()).with("count", count.into()).0;
        published(self.ask(question, "publish").await)
    }

    /// Begins to publish in the background.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub async fn begin(&mut self, topic: &str, what: Publish) {
        self.ask(what.with("topic", topic.into()).0, "begin").await;
    }

    /// How many messages the background has published.
    ///
    /// # Panics
    ///
    /// When it has failed.
    pub async fn published(&mut self, topic: &str) -> u64 {
        self.ask(json!({ "topic": topic }), "published").await.as_u64().unwrap()
    }

    /// Ends the background, and gives all that it has published.
    ///
    /// # Panics
    ///
    /// When it has failed.
    pub async fn end(&mut self, topic: &str) -> Vec<Published> {
        published(self.ask(json!({ "topic": topic }), "end").await)
    }

    /// Calls a service, once it is there.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub async fn call(&mut self, service: &str, kind: &str, request: Value) -> Value {
        self.ask(json!({ "service": service, "type": kind, "request": request }), "call").await
    }

    /// Begins to listen.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub async fn subscribe(&mut self, topic: &str, kind: &str, qos: Value) {
        self.ask(json!({ "topic": topic, "type": kind, "qos": qos }), "subscribe").await;
    }

    /// The next message.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub async fn next(&mut self, topic: &str) -> Value {
        self.ask(json!({ "topic": topic }), "next").await
    }

    /// Waits until there is a node of this full name.
    ///
    /// # Panics
    ///
    /// When there is none for too long.
    pub async fn exists(&mut self, node: &str) {
        self.ask(json!({ "node": node }), "exists").await;
    }

    /// Waits until it knows exactly so many types of a topic.
    ///
    /// # Panics
    ///
    /// When it knows another number for too long.
    pub async fn types(&mut self, topic: &str, count: u64) {
        self.ask(json!({ "topic": topic, "count": count }), "types").await;
    }

    /// CPU seconds that it has used.
    ///
    /// # Panics
    ///
    /// When it does not say.
    pub async fn cpu(&mut self) -> f64 {
        self.ask(json!({}), "cpu").await.as_f64().unwrap()
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When it had ended before.
    pub async fn kill(mut self) {
        use std::os::unix::process::ExitStatusExt as _;
        self.child.start_kill().unwrap();
        let status = soon("the end of the rclpy node", self.child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(9), "the rclpy node had ended before it was killed: {status}");
    }
}

fn published(answer: Value) -> Vec<Published> {
    let Value::Array(all) = answer else { panic!("{answer} is no list") };
    all.into_iter()
        .map(|mut one| Published {
            n: one["n"].as_u64().unwrap(),
            at_ns: one["at_ns"].as_u64().unwrap(),
            value: one.get_mut("value").map(Value::take),
            cdr: one.get("cdr").map(|cdr| BASE64_STANDARD.decode(cdr.as_str().unwrap()).unwrap()),
            sha256: one.get("sha256").map(|hash| hash.as_str().unwrap().to_owned()),
        })
        .collect()
}
