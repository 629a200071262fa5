//! Live ROS 2 topics, from a publisher to the disk: an IMU under rules, and a camera's raw images.
//!
//! Publisher (`rclpy`, Python) and node share the machine, in a network namespace of their own. A message's way is timed from just
//! before it is published until the node's control socket says that it is durable, which is asked every 20 ms. Nothing is lost
//! silently: what was published is compared with what the node counts.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tributary_tests::ros2::{Network, Publish, Rclpy};

use crate::{
    Bench,
    machine::{cpu_of, peak_mib},
    nodes::{Node, program},
    table::Goal,
};

/// How often the node is asked what is durable: how exact a latency is.
const ASK_EVERY: Duration = Duration::from_millis(20);
const IMU_SECONDS: u64 = 20;
const IMU_HZ: u32 = 1_000;
const IMAGE_SECONDS: u64 = 30;
/// Rates that are tried until one holds.
const IMAGE_HZ: [u32; 6] = [30, 24, 20, 15, 10, 5];
const IMAGE_BYTES: usize = 1920 * 1080 * 3;

const IMU: &str = "\
roles: [machine]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
ros2: {}
streams:
  - topic: /imu
    mode: fields
    default: include
    qos: { reliability: reliable, depth: 1000 }
    chunk: { max_age: 100ms }
    rules:
      - { path: header.frame_id, action: anonymize, strategy: hash }
      - { path: orientation_covariance, action: exclude }
      - { path: linear_acceleration, action: encrypt, key_file: rule.key }
    access: { policy: free }
";
const CAMERA: &str = "\
roles: [machine]
network: { listen: [/ip4/127.0.0.1/tcp/0] }
store: { ballast: none }
ros2: {}
streams:
  - topic: /image
    mode: raw
    qos: { reliability: reliable, depth: 60 }
    chunk: { bytes: 1MiB, max_age: 100ms }
    queue: { messages: 16, overflow: pause }
    access: { policy: free }
";

/// What one run showed.
struct Measured {
    /// Messages published, and what became of those that are not durable.
    published: u64,
    lost: u64,
    dropped: u64,
    refused: u64,
    durable: u64,
    /// Seconds from the first published message until all were durable.
    seconds: f64,
    /// CPU seconds of the node, in the program and in the kernel.
    node_cpu: (f64, f64),
    /// CPU seconds of the publisher.
    publisher_cpu: f64,
    /// Bytes of ciphertext that became durable.
    sealed: u64,
    /// Seconds from publishing to durable, sorted; only where nothing was lost.
    latencies: Vec<f64>,
    peak_mib: f64,
}

impl Measured {
    fn missing(&self) -> u64 {
        self.published - self.durable
    }

    fn holds(&self) -> bool {
        self.missing() == 0
    }

    fn cpu(&self) -> f64 {
        self.node_cpu.0 + self.node_cpu.1
    }

    fn latency_ms(&self, quantile: f64) -> f64 {
        let at = (self.latencies.len() as f64 * quantile) as usize;
        self.latencies.get(at.min(self.latencies.len().saturating_sub(1))).map_or(f64::NAN, |seconds| seconds * 1000.0)
    }

    fn mib_per_second(&self) -> f64 {
        self.sealed as f64 / f64::from(1 << 20) / self.seconds
    }
}

fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// The only stream of the node, as `/v1/streams` tells it.
async fn stream(node: &Node) -> Value {
    node.get("/v1/streams").await[0].take()
}

fn count(stream: &Value, pointer: &str) -> u64 {
    stream.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {stream}"))
}

/// Publishes for `seconds` at `hz` to a new node.
async fn measure(dir: &Path, config: &str, kind: &str, what: Publish, (hz, seconds): (u32, u64)) -> Measured {
    let topic = if kind.ends_with("Imu") { "/imu" } else { "/image" };
    fs::create_dir_all(dir).unwrap();
    let network = Network::new(dir);
    let key = dir.join("rule.key");
    fs::write(&key, "07".repeat(32)).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = config.replace("rule.key", key.to_str().unwrap());
    let program = fs::canonicalize(program()).unwrap();
    let node = Node::start_by(network.command(program), &dir.join("machine"), &config).await;
    let mut robot = Rclpy::start(&network, "robot").await;
    robot.advertise(topic, kind, json!({ "depth": 1_000 })).await;
    robot.matched(topic, 1).await;
    // A publisher is counted from its first message on; this one is not measured.
    robot.publish(topic, 1, what.clone().report(&[])).await;
    let before = loop {
        let before = stream(&node).await;
        if count(&before, "/lane/durable_packages") == 1 {
            break before;
        }
        tokio::time::sleep(ASK_EVERY).await;
    };

    let (node_cpu, publisher_cpu) = (cpu_of(node.pid()), robot.cpu().await);
    let mut durable = Vec::new();
    robot.begin(topic, what.report(&[]).rate(hz)).await;
    let begun = Instant::now();
    let mut published = None;
    let (after, seconds) = loop {
        let now = stream(&node).await;
        durable.push((now_ns(), count(&now, "/lane/durable_packages") - 1));
        if published.is_none() && begun.elapsed().as_secs() >= seconds {
            published = Some(robot.end(topic).await);
        }
        if let Some(published) = &published {
            let all = count(&now, "/source/received") + count(&now, "/source/lost") == published.len() as u64 + 1;
            let done = ["durable_packages", "dropped", "refused"].map(|key| count(&now, &format!("/lane/{key}")));
            if all && done.iter().sum::<u64>() == count(&now, "/source/received") {
                break (now, begun.elapsed().as_secs_f64());
            }
            assert!(begun.elapsed().as_secs() < seconds + 120, "not all is accounted for: {now}");
        }
        tokio::time::sleep(ASK_EVERY).await;
    };
    let published = published.unwrap_or_default();
    let cpu = cpu_of(node.pid());
    let since = |pointer: &str| count(&after, pointer) - count(&before, pointer);
    let durable_count = since("/lane/durable_packages");
    let mut latencies = Vec::new();
    if durable_count == published.len() as u64 {
        let mut asked = durable.iter().peekable();
        for (position, message) in (1..).zip(&published) {
            while asked.next_if(|(_, durable)| *durable < position).is_some() {}
            latencies.push((asked.peek().unwrap().0 - message.at_ns) as f64 / 1e9);
        }
        latencies.sort_by(f64::total_cmp);
    }
    let measured = Measured {
        published: published.len() as u64,
        lost: since("/source/lost"),
        dropped: since("/lane/dropped"),
        refused: since("/lane/refused") + since("/source/refused"),
        durable: durable_count,
        seconds,
        node_cpu: (cpu.0 - node_cpu.0, cpu.1 - node_cpu.1),
        publisher_cpu: robot.cpu().await - publisher_cpu,
        sealed: since("/lane/bytes_sealed"),
        latencies,
        peak_mib: peak_mib(node.pid()),
    };
    node.stop().await;
    drop((robot, network));
    fs::remove_dir_all(dir).unwrap();
    measured
}

fn imu() -> Publish {
    Publish::fields(json!({
        "header": { "frame_id": "imu_link" },
        "orientation": { "x": 0.018, "y": -0.021, "z": 0.706, "w": 0.708 },
        "orientation_covariance": [0.0025, 0, 0, 0, 0.0025, 0, 0, 0, 0.0025],
        "angular_velocity": { "x": 0.0123, "y": -0.0456, "z": 0.789 },
        "angular_velocity_covariance": [0.0004, 0, 0, 0, 0.0004, 0, 0, 0, 0.0004],
        "linear_acceleration": { "x": "$n", "y": 0.4321, "z": 9.80665 },
        "linear_acceleration_covariance": [0.01, 0, 0, 0, 0.01, 0, 0, 0, 0.01],
    }))
}

fn image() -> Publish {
    Publish::fields(json!({
        "header": { "frame_id": "camera" }, "height": 1080, "width": 1920, "encoding": "rgb8", "step": 5760,
        "data": { "$bytes": IMAGE_BYTES },
    }))
    .raw()
}

pub(crate) fn run(bench: &mut Bench) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(imu_rows(bench));
    runtime.block_on(image_rows(bench));
}

async fn imu_rows(bench: &mut Bench) {
    let dir = bench.dir.join("ros2-imu");
    let run = measure(&dir, IMU, "sensor_msgs/msg/Imu", imu(), (IMU_HZ, IMU_SECONDS)).await;
    let table = &mut bench.table;
    let what = |row: &str| format!("ROS 2, IMU at 1 kHz with three rules: {row}");
    table.value(&what("durable"), run.durable as f64 / run.seconds, "messages/s", Goal::None);
    table.value(&what("lost"), run.missing() as f64, "messages", Goal::AtMost(0.0));
    table.value(&what("CPU of the node"), 100.0 * run.cpu() / run.seconds, "% of a core", Goal::AtMost(15.0));
    table.value(&what("published to durable, p50"), run.latency_ms(0.5), "ms", Goal::None);
    table.value(&what("published to durable, p99"), run.latency_ms(0.99), "ms", Goal::None);
    note(bench, &format!("IMU at {IMU_HZ} Hz"), &run);
}

async fn image_rows(bench: &mut Bench) {
    for hz in IMAGE_HZ {
        let dir = bench.dir.join("ros2-image");
        let run = measure(&dir, CAMERA, "sensor_msgs/msg/Image", image(), (hz, IMAGE_SECONDS)).await;
        note(bench, &format!("raw Image 1920x1080 rgb8 at {hz} Hz"), &run);
        let table = &mut bench.table;
        let what = |row: &str| format!("ROS 2, raw Image 1920x1080 rgb8 at {hz} Hz: {row}");
        table.value(&what("sealed and durable"), run.mib_per_second(), "MiB/s", Goal::None);
        table.value(&what("lost"), run.missing() as f64, "images", Goal::AtMost(0.0));
        if run.holds() {
            table.value(&what("CPU of the node"), run.cpu(), "s", Goal::None);
            table.value(&what("published to durable, p50"), run.latency_ms(0.5), "ms", Goal::None);
            table.value(&what("published to durable, p99"), run.latency_ms(0.99), "ms", Goal::None);
            break;
        }
    }
}

/// What a reader needs to judge the rows.
fn note(bench: &mut Bench, what: &str, run: &Measured) {
    bench.table.note(format!(
        "{what}, {:.1} s: {} published, {} durable, {} lost in the middleware, {} dropped by the queue, {} refused; {:.1} MiB/s \
         sealed; CPU seconds: node {:.2} in the program and {:.2} in the kernel, publisher (Python) {:.2}; peak memory of the node \
         {:.0} MiB",
        run.seconds,
        run.published,
        run.durable,
        run.lost,
        run.dropped,
        run.refused,
        run.mib_per_second(),
        run.node_cpu.0,
        run.node_cpu.1,
        run.publisher_cpu,
        run.peak_mib
    ));
}
