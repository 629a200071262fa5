//! More comes than the machine can take: what is lost is counted to the last message, by whom, and the others go on.

use serde_json::json;
use tributary::{control::api::LaneReport, machine::SourceReport};
use tributary_tests::{ros2::Publish, wait::until};

use super::world::{Bought, Package, World, fields, raw};

const ROS2: &str = "ros2: {}\n";
const SCAN: &str = "sensor_msgs/msg/LaserScan";
/// Messages of one burst.
const BURST: u64 = 2_000;
/// More bursts than it can take until something is lost.
const BURSTS: u64 = 30;

/// Numbered messages that cost the machine far more than sending them ready-made costs their publisher.
fn scan() -> Publish {
    Publish::fields(json!({
        "scan_time": "$n", "ranges": { "$floats": 2_000 }, "intensities": { "$floats": 2_000 },
    }))
    .report(&[])
    .raw()
}

struct Flooded {
    /// The buyer's files are there as long as this is.
    _world: World,
    published: u64,
    source: SourceReport,
    lane: LaneReport,
    bought: Bought,
}

/// Publishes at full speed until less than half of it has been taken and `enough` is lost, and beside it a calm topic, of which
/// nothing may be lost.
async fn flood(stream: &str, enough: impl Fn(&SourceReport, &LaneReport) -> bool) -> Flooded {
    let stream = stream.replace(super::world::DEEP, ", qos: { reliability: reliable, depth: 5 }");
    let world = World::start(&[stream, fields("/calm", "")], ROS2).await;
    let mut robot = world.publisher("/scan", SCAN).await;
    let mut calm = world.rclpy("calm").await;
    calm.advertise("/calm", "std_msgs/msg/String", json!({})).await;
    world.meet(&mut calm, "/calm", 1).await;
    // A publisher is counted from its first message on.
    robot.publish("/scan", 1, scan()).await;
    world.durable("/scan", 1).await;

    let mut published = 1;
    let mut calmly = 0;
    let (source, lane) = loop {
        assert!(published < BURST * BURSTS, "the machine takes whatever comes: this is no overload");
        let text = Publish::fields(json!({ "data": "$n" })).first(calmly);
        tokio::join!(robot.publish("/scan", BURST, scan().first(published)), calm.publish("/calm", 50, text.rate(200)));
        (published, calmly) = (published + BURST, calmly + 50);
        world.durable("/calm", calmly).await;
        let (source, lane) = settled(&world, published).await;
        if source.lost + lane.dropped > lane.packages && enough(&source, &lane) {
            break (source, lane);
        }
    };
    let bought = world.buy(&["/scan"]).await.remove(0);
    Flooded { _world: world, published, source, lane, bought }
}

/// The counters when all that was published is accounted for, and nothing is on its way.
async fn settled(world: &World, published: u64) -> (SourceReport, LaneReport) {
    until("everything to be accounted for", async || {
        let report = world.stream("/scan").await;
        let (source, lane) = (report.source.unwrap(), report.lane);
        assert!(source.received + source.lost <= published, "more than was published: {source:?}");
        let all = source.received + source.lost == published;
        let still = lane.durable_packages + lane.dropped == source.received;
        (all && still && lane.queued == 0).then_some((source, lane))
    })
    .await
}

impl Flooded {
    /// What the buyer has is what the machine says that it sealed: messages in order, each once. `scans` are their numbers.
    fn check(&self, scans: &[u64]) {
        let Self { published, source, lane, bought, .. } = self;
        assert_eq!(source.received + source.lost, *published);
        assert_eq!((source.refused, lane.refused, lane.stopped.as_ref()), (0, 0, None));
        assert_eq!(lane.packages + lane.dropped, source.received);
        assert_eq!(bought.packages.len() as u64, lane.packages);
        assert!(scans.windows(2).all(|pair| pair[1] > pair[0]), "each message once, in order");
    }

    /// Numbers that no package has.
    fn gap(&self) -> u64 {
        let numbers: Vec<u64> = self.bought.packages.iter().map(|package| package.number).collect();
        numbers.windows(2).map(|pair| pair[1] - pair[0] - 1).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_pause_the_middleware_loses_and_every_lost_message_is_counted() {
    let stream = fields("/scan", ", queue: { messages: 8, overflow: pause }");
    let flooded = flood(&stream, |source, _| source.lost > 0).await;
    flooded.check(&flooded.bought.numbers("/scan_time"));
    assert_eq!(flooded.lane.dropped, 0, "the queue drops nothing");
    assert_eq!(flooded.gap(), 0, "what never came has no number");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_drop_oldest_the_queue_loses_and_the_buyer_sees_each_gap() {
    // Raw messages come faster than they can be signed and sealed. Decoding, which is done before the queue, would hold them back.
    let stream = raw("/scan", ", queue: { messages: 8, overflow: drop_oldest }");
    let flooded = flood(&stream, |_, lane| lane.dropped > 0).await;
    let scans: Vec<u64> = flooded.bought.packages.iter().map(|package| scan_time(&flooded.bought, package)).collect();
    flooded.check(&scans);
    // The first message was durable before, and the newest is never dropped: all gaps lie between.
    assert_eq!(flooded.gap(), flooded.lane.dropped);
}

/// Messages that the machine has not taken when a burst ends, so many that a short history would have lost some.
const BEHIND: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn where_both_sides_keep_all_nothing_is_lost() {
    let stream = fields("/scan", ", queue: { messages: 8, overflow: pause }");
    let stream = stream.replace(super::world::DEEP, ", qos: { reliability: reliable, history: keep_all }");
    let world = World::start(&[stream], ROS2).await;
    let mut robot = world.rclpy("robot").await;
    robot.advertise("/scan", SCAN, json!({ "history": "keep_all" })).await;
    world.meet(&mut robot, "/scan", 1).await;
    robot.publish("/scan", 1, scan()).await;
    world.durable("/scan", 1).await;

    let mut published = 1;
    loop {
        assert!(published < BURST * BURSTS, "the machine takes whatever comes: this is no overload");
        robot.publish("/scan", BURST, scan().first(published)).await;
        published += BURST;
        let behind = published - world.stream("/scan").await.source.unwrap().received;
        let (source, lane) = settled(&world, published).await;
        assert_eq!((source.lost, source.refused, lane.dropped, lane.refused), (0, 0, 0, 0));
        if behind >= BEHIND {
            break;
        }
    }
    let bought = world.buy(&["/scan"]).await.remove(0);
    assert!(bought.numbers("/scan_time").into_iter().eq(0..published), "each message once, in order");
}

/// The field of that name in the bytes of a scan: behind the encapsulation header, the stamp, an empty `frame_id` and four floats.
fn scan_time(bought: &Bought, package: &Package) -> u64 {
    let cdr = bought.blob(&package.fields["cdr"]);
    f32::from_le_bytes(cdr[36..40].try_into().unwrap()) as u64
}
