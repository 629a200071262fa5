//! What is published is what the buyer has.

use std::fs;

use serde_json::{Value, json};
use tributary_tests::ros2::{Publish, Published, assert_same};

use super::world::{Bought, World, fields, raw};

const ROS2: &str = "ros2: {}\n";

fn same(published: &[Published], bought: &Bought) {
    assert_eq!(bought.packages.len(), published.len());
    for (published, package) in published.iter().zip(&bought.packages) {
        assert_same(published.value.as_ref().unwrap(), &package.fields);
    }
}

/// The messages of the exported MCAP file, as they were over the wire.
fn recorded(bought: &Bought) -> Vec<Vec<u8>> {
    let file = fs::read(bought.folder.join("data.mcap")).unwrap();
    let messages = mcap::MessageStream::new(&file).unwrap().map(Result::unwrap);
    messages
        .map(|message| {
            assert_eq!(message.channel.message_encoding, "cdr", "{}", message.channel.topic);
            message.data.into_owned()
        })
        .collect()
}

/// Whether what arrived is what was serialized, as `alike` says of two bytes. Behind the last field, rclpy leaves what its memory
/// held, some ten bytes for each nested message: that is no part of the message, and must not be sold.
fn assert_bytes(kind: &str, published: &[Published], arrived: &[Vec<u8>], alike: fn(u8, u8) -> bool) {
    assert_eq!(published.len(), arrived.len(), "{kind}");
    for (published, arrived) in published.iter().zip(arrived) {
        let sent = published.cdr.as_ref().unwrap();
        assert!(arrived.len() <= sent.len(), "{kind}: {} bytes of {}", arrived.len(), sent.len());
        let other = sent.iter().zip(arrived).position(|(sent, arrived)| !alike(*sent, *arrived));
        assert_eq!(other, None, "{kind}: the first byte that is not as it was published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_every_type_arrives_as_it_was_published() {
    const EACH: u64 = 20;
    const TYPES: [&str; 16] = [
        "std_msgs/msg/String",
        "sensor_msgs/msg/Imu",
        "sensor_msgs/msg/NavSatFix",
        "sensor_msgs/msg/LaserScan",
        "sensor_msgs/msg/PointCloud2",
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/BatteryState",
        "diagnostic_msgs/msg/DiagnosticArray",
        "test_msgs/msg/BasicTypes",
        "test_msgs/msg/Arrays",
        "test_msgs/msg/BoundedSequences",
        "test_msgs/msg/UnboundedSequences",
        "test_msgs/msg/MultiNested",
        "test_msgs/msg/Strings",
        "test_msgs/msg/WStrings",
        "test_msgs/msg/Builtins",
    ];
    let topics: Vec<String> = (0..TYPES.len()).map(|n| format!("/topic_{n}")).collect();
    let streams: Vec<String> = topics.iter().map(|topic| fields(topic, "")).collect();
    let world = World::start(&streams, ROS2).await;
    let mut robot = world.rclpy("robot").await;
    for (topic, kind) in topics.iter().zip(TYPES) {
        robot.advertise(topic, kind, Value::Null).await;
    }
    let mut published = Vec::new();
    for (seed, topic) in (7..).zip(&topics) {
        world.meet(&mut robot, topic, 1).await;
        published.push(robot.publish(topic, EACH, Publish::random(seed).report(&["value", "cdr"])).await);
    }
    for topic in &topics {
        world.durable(topic, EACH).await;
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for ((published, bought), kind) in published.iter().zip(world.buy(&names).await).zip(TYPES) {
        assert!(bought.packages.iter().all(|package| package.kind == kind), "{kind}");
        let packages = bought.packages.iter().zip(published).map(|(package, published)| {
            // Byte arrays above 1 KiB are beside the line.
            let mut fields = package.fields.clone();
            inline(&mut fields, &bought);
            (published.value.clone().unwrap(), fields)
        });
        for (published, arrived) in packages {
            assert_same(&published, &arrived);
        }
        // No rule changed anything, so the recording is of the same messages. Between two fields, rclpy leaves what its memory held,
        // each time something else; where that is not zero, it is here.
        assert_bytes(kind, published, &recorded(&bought), |sent, arrived| sent == arrived || arrived == 0);
    }
}

/// Puts blobs into their places, as base64.
fn inline(value: &mut Value, bought: &Bought) {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    match value {
        Value::Object(fields) if fields.contains_key("@blob") => {
            *value = BASE64_STANDARD.encode(bought.blob(value)).into();
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| inline(value, bought)),
        Value::Array(items) => items.iter_mut().for_each(|value| inline(value, bought)),
        _ => {}
    }
}

/// A camera's image.
fn image() -> Publish {
    Publish::fields(json!({
        "header": { "frame_id": "camera" }, "height": 1080, "width": 1920, "encoding": "rgb8", "step": 5760,
        "data": { "$bytes": 1920 * 1080 * 3 },
    }))
}

fn cloud() -> Publish {
    let field = |name: &str, offset: u32| json!({ "name": name, "offset": offset, "datatype": 7, "count": 1 });
    Publish::fields(json!({
        "header": { "frame_id": "lidar" }, "height": 1, "width": 20_000, "point_step": 16, "row_step": 320_000,
        "fields": [field("x", 0), field("y", 4), field("z", 8)], "is_dense": true, "data": { "$bytes": 320_000 },
    }))
}

fn scan() -> Publish {
    Publish::fields(json!({
        "header": { "frame_id": "laser" }, "angle_min": -3.125, "angle_max": 3.125, "range_max": 30,
        "ranges": { "$floats": 1440 }, "intensities": { "$floats": 1440 },
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_point_clouds_are_signed_blobs_beside_their_fields() {
    let streams = ["/image", "/cloud", "/scan"].map(|topic| fields(topic, ""));
    let world = World::start(&streams, ROS2).await;
    let mut robot = world.rclpy("robot").await;
    let kinds = ["sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/LaserScan"];
    let mut all = Vec::new();
    for ((topic, kind), what) in ["/image", "/cloud", "/scan"].into_iter().zip(kinds).zip([image(), cloud(), scan()]) {
        robot.advertise(topic, kind, Value::Null).await;
        world.meet(&mut robot, topic, 1).await;
        all.push(robot.publish(topic, 5, what).await);
        world.durable(topic, 5).await;
    }
    let bought = world.buy(&["/image", "/cloud", "/scan"]).await;
    same(&all[2], &bought[2]);
    for (published, bought) in all.iter().zip(&bought[..2]) {
        for package in &bought.packages {
            assert!(package.fields["data"]["@blob"].is_string(), "{}", package.fields);
        }
        for (published, package) in published.iter().zip(&bought.packages) {
            let mut fields = package.fields.clone();
            inline(&mut fields, bought);
            assert_same(published.value.as_ref().unwrap(), &fields);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_messages_keep_their_bytes() {
    let streams = ["/image", "/cloud", "/basic"].map(|topic| raw(topic, ""));
    let world = World::start(&streams, ROS2).await;
    let mut robot = world.rclpy("robot").await;
    let kinds = ["sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2", "test_msgs/msg/BasicTypes"];
    // Serialized once: two times leave different bytes between the fields.
    let what = [image(), cloud(), Publish::random(3)].map(|what| what.report(&["cdr"]).raw());
    let mut all = Vec::new();
    for ((topic, kind), what) in ["/image", "/cloud", "/basic"].into_iter().zip(kinds).zip(what) {
        robot.advertise(topic, kind, Value::Null).await;
        world.meet(&mut robot, topic, 1).await;
        all.push(robot.publish(topic, 5, what).await);
        world.durable(topic, 5).await;
    }
    let bought = world.buy(&["/image", "/cloud", "/basic"]).await;
    for ((published, bought), kind) in all.iter().zip(&bought).zip(kinds) {
        assert_bytes(kind, published, &recorded(bought), |sent, arrived| sent == arrived);
        for package in &bought.packages {
            assert_eq!(package.kind, kind);
            assert_eq!(package.fields["schema"]["encoding"], "ros2msg");
            let text = package.fields["schema"]["text"].as_str().unwrap();
            assert!(
                text.contains(if kind.contains("Basic") { "float64_value" } else { "MSG: std_msgs/Header" }),
                "{text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imu_at_a_kilohertz_loses_nothing_and_the_rules_hold() {
    const COUNT: u64 = 4_000;
    let rules = ", rules: [{ path: orientation_covariance, action: exclude }, \
         { path: header.frame_id, action: anonymize, strategy: redact }, { path: angular_velocity.z, action: exclude }]";
    let world = World::start(&[fields("/imu", rules)], ROS2).await;
    let mut robot = world.publisher("/imu", "sensor_msgs/msg/Imu").await;
    let imu = json!({ "header": { "frame_id": "imu_link" }, "angular_velocity": { "x": 0.25, "z": "$n" },
                      "linear_acceleration": { "x": "$n", "z": 9.81 } });
    let published = robot.publish("/imu", COUNT, Publish::fields(imu).rate(1_000).report(&["value", "stamp"])).await;
    world.durable("/imu", COUNT).await;
    let bought = world.buy(&["/imu"]).await.remove(0);
    assert_eq!(bought.packages.len() as u64, COUNT);
    for (published, package) in published.into_iter().zip(&bought.packages) {
        let mut expected = published.value.unwrap();
        expected.as_object_mut().unwrap().remove("orientation_covariance");
        expected["header"]["frame_id"] = json!({ "__anonymized": true, "strategy": "redact", "value": "[REDACTED]" });
        expected["angular_velocity"].as_object_mut().unwrap().remove("z");
        assert_same(&expected, &package.fields);
    }
    let numbers: Vec<u64> = bought.packages.iter().map(|package| package.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "the numbers have no gap");
}
