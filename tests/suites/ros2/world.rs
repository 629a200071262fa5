//! A machine with live topics, and the buyer of what it sells.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tributary::{
    control::api::{CloseRequest, Closed, ExportFormat, ExportResult, SelectionRequest, StreamReport, Verdict},
    machine::{SourceReport, SourceState},
};
use tributary_protocol::ids::DatasetId;
use tributary_tests::{
    home::Sandbox,
    node::NodeProcess,
    ros2::{Network, Rclpy, program},
    trade,
    wait::{soon, until},
};

/// Small chunks that do not wait, so that what was received is soon durable.
pub(crate) const SOON: &str = ", chunk: { bytes: 64KiB, max_age: 100ms }";
/// Room for a burst in the middleware.
pub(crate) const DEEP: &str = ", qos: { reliability: reliable, depth: 10000 }";

/// A stream of this topic for everybody, whole unless `more` has rules.
pub(crate) fn fields(topic: &str, more: &str) -> String {
    format!(
        "  - {{ topic: '{topic}', mode: fields, default: include, access: {{ policy: free }}{SOON}{DEEP}{more} }}\n"
    )
}

/// A raw stream of this topic for everybody.
pub(crate) fn raw(topic: &str, more: &str) -> String {
    format!("  - {{ topic: '{topic}', mode: raw, access: {{ policy: free }}{SOON}{DEEP}{more} }}\n")
}

/// A message that the buyer has.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// Its number.
    pub(crate) number: u64,
    /// The time that it has.
    pub(crate) timestamp: String,
    /// Its type.
    pub(crate) kind: String,
    /// Its fields, without those that the node adds.
    pub(crate) fields: Value,
}

/// What the buyer has of one stream.
pub(crate) struct Bought {
    /// In the order of the machine's log.
    pub(crate) packages: Vec<Package>,
    /// Files of the export.
    pub(crate) folder: PathBuf,
}

impl Bought {
    /// The bytes that a marker in a package stands for.
    pub(crate) fn blob(&self, marker: &Value) -> Vec<u8> {
        let hash = marker["@blob"].as_str().unwrap_or_else(|| panic!("{marker} is no marker of a blob"));
        let bytes = fs::read(self.folder.join("blobs").join(hash)).unwrap();
        assert_eq!(marker["@bytes"].as_u64(), Some(bytes.len() as u64));
        bytes
    }

    /// A field of every message.
    pub(crate) fn column(&self, pointer: &str) -> Vec<Value> {
        self.packages.iter().map(|package| package.fields.pointer(pointer).unwrap().clone()).collect()
    }

    /// A whole number in every message, spelled as a number or as text.
    pub(crate) fn numbers(&self, pointer: &str) -> Vec<u64> {
        let number = |value: Value| match &value {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64().or_else(|| other.as_f64().map(|number| number as u64)),
        };
        self.column(pointer).into_iter().map(|value| number(value).unwrap()).collect()
    }
}

pub(crate) struct World {
    pub(crate) machine: NodeProcess,
    pub(crate) network: Network,
    pub(crate) sandbox: Sandbox,
}

impl World {
    /// Starts a machine with these streams; `more` goes into its configuration, where `ros2` has to stand.
    pub(crate) async fn start(streams: &[String], more: &str) -> Self {
        Self::start_with(streams, more, &[]).await
    }

    /// As [`World::start`], with further arguments.
    pub(crate) async fn start_with(streams: &[String], more: &str, arguments: &[&str]) -> Self {
        let list = if streams.is_empty() { "[]".to_owned() } else { format!("\n{}", streams.concat()) };
        let config = format!("roles: [machine]\nstore: {{ ballast: none }}\n{more}streams: {list}");
        Self::start_as(&config, arguments).await
    }

    /// Starts a machine with this configuration, whatever it is.
    pub(crate) async fn start_as(config: &str, arguments: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let network = Network::new(sandbox.path());
        let home = sandbox.home("machine", config);
        let listen = listen(&sandbox, "machine");
        let mut all = vec!["--set", listen.as_str()];
        all.extend(arguments);
        let machine = start(&network, &home, &all).await;
        Self { machine, network, sandbox }
    }

    /// Starts the machine again in its home; it must have ended.
    pub(crate) async fn restart(&mut self) {
        assert!(!self.machine.is_alive());
        let home = self.machine.home().to_owned();
        self.machine = start(&self.network, &home, &["--set", &listen(&self.sandbox, "machine")]).await;
    }

    /// A ROS node of this name.
    pub(crate) async fn rclpy(&self, name: &str) -> Rclpy {
        Rclpy::start(&self.network, name).await
    }

    /// A ROS node that publishes one topic, once the machine takes it.
    pub(crate) async fn publisher(&self, topic: &str, kind: &str) -> Rclpy {
        let mut publisher = self.rclpy("robot").await;
        publisher.advertise(topic, kind, Value::Null).await;
        self.meet(&mut publisher, topic, 1).await;
        publisher
    }

    /// Waits until both ends of a topic know each other, and the machine knows so many publishers of it.
    pub(crate) async fn meet(&self, publisher: &mut Rclpy, topic: &str, publishers: u64) {
        publisher.matched(topic, 1).await;
        self.source(topic, "the publisher at the machine", |source| {
            source.state == SourceState::Subscribed && source.publishers == publishers
        })
        .await;
    }

    /// What a stream counts, once it has begun.
    pub(crate) async fn stream(&self, name: &str) -> StreamReport {
        until("the stream", async || {
            let all: Vec<StreamReport> = soon("streams", self.machine.client().get("/v1/streams")).await.unwrap();
            all.into_iter().find(|stream| stream.name == name)
        })
        .await
    }

    /// How the source of a stream stands, once it stands as wanted.
    pub(crate) async fn source(&self, name: &str, what: &str, wanted: impl Fn(&SourceReport) -> bool) -> SourceReport {
        until(&format!("{name}: {what}"), async || self.stream(name).await.source.filter(&wanted)).await
    }

    /// Waits until exactly so many messages of a stream are durable, and nothing has got lost on the way.
    pub(crate) async fn durable(&self, name: &str, count: u64) {
        let report = until(&format!("{count} durable messages of {name}"), async || {
            Some(self.stream(name).await).filter(|report| report.lane.durable_packages >= count)
        })
        .await;
        let source = report.source.as_ref().unwrap();
        assert_eq!((source.received, source.lost, source.refused), (count, 0, 0), "{report:?}");
        assert_eq!(
            (report.lane.durable_packages, report.lane.dropped, report.lane.refused),
            (count, 0, 0),
            "{report:?}"
        );
    }

    /// Closes what is open, and buys all that there is of these streams.
    pub(crate) async fn buy(&self, names: &[&str]) -> Vec<Bought> {
        let closed: Closed =
            soon("close", self.machine.client().post("/v1/datasets/close", &CloseRequest::default())).await.unwrap();
        drop(closed);
        let home = self.sandbox.home("buyer", "roles: [buyer]\nstore: { ballast: none }\n");
        let buyer = start(&self.network, &home, &["--set", &listen(&self.sandbox, "buyer")]).await;
        trade::follow(&buyer, &self.machine).await;
        let mut all = Vec::new();
        for name in names {
            all.push(self.buy_one(&buyer, name).await);
        }
        buyer.stop().await;
        all
    }

    async fn buy_one(&self, buyer: &NodeProcess, name: &str) -> Bought {
        let own = self.machine.feeds().await.remove(0);
        let datasets: Vec<DatasetId> =
            own.datasets.iter().filter(|set| set.stream == name).map(|set| set.dataset).collect();
        for dataset in &datasets {
            trade::know(buyer, *dataset).await;
        }
        let selection = SelectionRequest { streams: vec![name.to_owned()], ..SelectionRequest::default() };
        trade::request(buyer, &selection).await;
        trade::pull(buyer, &selection).await;
        for dataset in datasets {
            let proof = trade::verify(buyer, dataset).await;
            assert_eq!(proof.verdict, Verdict::Proven, "{proof:?}");
        }
        let folder = self.sandbox.path().join(format!("out{}", name.replace('/', "-")));
        let formats = [ExportFormat::Ndjson, ExportFormat::Mcap];
        let exported: ExportResult = trade::export(buyer, &selection, &formats, &folder).await;
        let lines =
            exported.report.files.iter().map(|file| &file.path).filter(|path| path.extension().unwrap() == "ndjson");
        let packages =
            lines.flat_map(|path| fs::read_to_string(path).unwrap().lines().map(package).collect::<Vec<_>>());
        Bought { packages: packages.collect(), folder }
    }
}

/// Where the node `name` listens, for `--set`.
pub(crate) fn listen(sandbox: &Sandbox, name: &str) -> String {
    format!("network.listen=[/ip4/127.0.0.1/tcp/{}]", sandbox.port(name))
}

async fn start(network: &Network, home: &std::path::Path, arguments: &[&str]) -> NodeProcess {
    let mut command = network.command(program());
    command.args(["run", "-v"]).args(arguments);
    match NodeProcess::try_start_by(command, home).await {
        Ok(node) => node,
        Err(status) => panic!("the node ended ({status})"),
    }
}

fn package(line: &str) -> Package {
    let mut package: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let mut payload = package["payload"].take();
    let fields = payload.as_object_mut().unwrap();
    let kind = fields["@type"].as_str().unwrap().to_owned();
    fields.retain(|key, _| !key.starts_with('@'));
    Package {
        number: package["sequenceNumber"].as_u64().unwrap(),
        timestamp: package["timestamp"].as_str().unwrap().to_owned(),
        kind,
        fields: payload,
    }
}
