//! The demo recording: a robot drives a figure of eight for twenty seconds.
//!
//! Six topics with the message types of real robots, CDR with `ros2msg` schemas, zstd chunks. Everything is computed from a
//! fixed seed and rounded to six digits before it is written, so the file is the same to the last bit wherever it is made.

mod camera;
mod cdr;
mod robot;

use std::{collections::BTreeMap, error::Error, io::Cursor};

use mcap::{Compression, WriteOptions, Writer, records::MessageHeader};
use tributary::ingest::definitions::{Builtin, full_text};

use self::{cdr::Cdr, robot::Robot};

/// Length of the recording in nanoseconds.
const DURATION: u64 = 20_000_000_000;
/// 2026-01-02 09:00:00 UTC in nanoseconds since 1970.
const START: u64 = 1_767_344_400_000_000_000;

/// Builds one message from the robot's state at a time.
type Build = fn(&mut Robot, u64) -> Result<Vec<u8>, Box<dyn Error>>;

/// Topic, type, messages per second, builder.
const TOPICS: [(&str, &str, u64, Build); 6] = [
    ("/odom", "nav_msgs/msg/Odometry", 20, |robot, t| Ok(odometry(robot, t))),
    ("/imu", "sensor_msgs/msg/Imu", 100, |robot, t| Ok(imu(robot, t))),
    ("/fix", "sensor_msgs/msg/NavSatFix", 5, |robot, t| Ok(fix(robot, t))),
    ("/battery", "sensor_msgs/msg/BatteryState", 1, |robot, t| Ok(battery(robot, t))),
    ("/scan", "sensor_msgs/msg/LaserScan", 10, |robot, t| Ok(scan(robot, t))),
    ("/camera/compressed", "sensor_msgs/msg/CompressedImage", 5, image),
];

/// The bytes of the recording.
///
/// # Errors
/// The MCAP writer or the JPEG encoder failed; neither does on this input.
pub fn generate() -> Result<Vec<u8>, Box<dyn Error>> {
    let options = WriteOptions::new()
        .compression(Some(Compression::Zstd))
        .compression_level(9)
        // Threads would make the bytes depend on the machine.
        .compression_threads(0)
        .chunk_size(Some(512 << 10))
        .profile("ros2")
        .library("tributary demo");
    let mut writer: Writer<Cursor<Vec<u8>>> = Writer::with_options(Cursor::new(Vec::new()), options)?;
    let mut events = BTreeMap::new();
    for (index, (topic, type_name, rate, _)) in TOPICS.iter().enumerate() {
        let text = full_text(type_name, &Builtin).ok_or("the type is built in")?;
        let schema = writer.add_schema(type_name, "ros2msg", text.as_bytes())?;
        let channel = writer.add_channel(schema, topic, "cdr", &BTreeMap::new())?;
        let period = 1_000_000_000 / rate;
        for n in 0..DURATION / period {
            events.insert((n * period, index), channel);
        }
    }
    let mut robot = Robot::new();
    let mut sequences = [0u32; TOPICS.len()];
    for ((time, index), channel_id) in events {
        let data = TOPICS[index].3(&mut robot, time)?;
        let (log_time, sequence) = (START + time, sequences[index]);
        sequences[index] += 1;
        let header = MessageHeader { channel_id, sequence, log_time: log_time + 150_000, publish_time: log_time };
        writer.write_to_known_channel(&header, &data)?;
    }
    writer.finish()?;
    Ok(writer.into_inner().into_inner())
}

fn header(cdr: &mut Cdr, time: u64, frame: &str) {
    let absolute = START + time;
    let seconds = i32::try_from(absolute / 1_000_000_000).unwrap_or(i32::MAX);
    let nanos = u32::try_from(absolute % 1_000_000_000).unwrap_or(u32::MAX);
    cdr.i32(seconds).u32(nanos).text(frame);
}

/// A covariance matrix with only a diagonal.
fn diagonal<const N: usize>(cdr: &mut Cdr, values: [f64; N]) {
    for (row, value) in values.into_iter().enumerate() {
        for column in 0..N {
            cdr.f64(if row == column { value } else { 0.0 });
        }
    }
}

fn odometry(robot: &mut Robot, time: u64) -> Vec<u8> {
    let pose = robot.pose(time);
    let mut cdr = Cdr::new();
    header(&mut cdr, time, "odom");
    cdr.text("base_link");
    cdr.f64s(&[pose.x, pose.y, 0.0]).f64s(&pose.quaternion());
    diagonal(&mut cdr, [0.001, 0.001, 1e6, 1e6, 1e6, 0.03]);
    cdr.f64s(&[pose.speed, 0.0, 0.0]).f64s(&[0.0, 0.0, pose.turn]);
    diagonal(&mut cdr, [0.0001, 0.0001, 1e6, 1e6, 1e6, 0.003]);
    cdr.finish()
}

fn imu(robot: &mut Robot, time: u64) -> Vec<u8> {
    let pose = robot.pose(time);
    let mut cdr = Cdr::new();
    header(&mut cdr, time, "imu_link");
    cdr.f64s(&pose.quaternion());
    diagonal(&mut cdr, [0.0025, 0.0025, 0.0025]);
    let turn = [robot.noise(0.002), robot.noise(0.002), pose.turn + robot.noise(0.002)];
    cdr.f64s(&turn);
    diagonal(&mut cdr, [4e-6, 4e-6, 4e-6]);
    let pull = [robot.noise(0.05), pose.speed * pose.turn + robot.noise(0.05), 9.80665 + robot.noise(0.05)];
    cdr.f64s(&pull);
    diagonal(&mut cdr, [0.0025, 0.0025, 0.0025]);
    cdr.finish()
}

fn fix(robot: &mut Robot, time: u64) -> Vec<u8> {
    let (latitude, longitude, altitude) = robot.position_on_earth(time);
    let mut cdr = Cdr::new();
    header(&mut cdr, time, "gps_link");
    // A position without augmentation, from GPS satellites.
    cdr.u8(0).u16(1);
    cdr.f64s(&[latitude, longitude, altitude]);
    diagonal(&mut cdr, [1.2, 1.2, 4.0]);
    // COVARIANCE_TYPE_DIAGONAL_KNOWN
    cdr.u8(2);
    cdr.finish()
}

fn battery(robot: &mut Robot, time: u64) -> Vec<u8> {
    let charge = robot.charge(time);
    let cells = robot.cells(charge);
    let mut cdr = Cdr::new();
    header(&mut cdr, time, "battery");
    let voltage: f32 = cells.iter().sum();
    let percentage = charge / 20.0;
    // Voltage, temperature, current, charge, capacity, design capacity, percentage.
    cdr.f32s(&[voltage, 31.5, -4.2, charge, 20.0, 20.0, percentage]);
    // Discharging, healthy, lithium ion, present.
    cdr.u8(2).u8(1).u8(2).u8(1);
    cdr.sequence_f32(&cells);
    // Cell temperatures are not measured: NaN, as the message definition asks.
    cdr.sequence_f32(&[f32::NAN; 4]);
    cdr.text("base").text("BAT-000042");
    cdr.finish()
}

fn scan(robot: &mut Robot, time: u64) -> Vec<u8> {
    let ranges = robot.ranges(time);
    let step = std::f32::consts::TAU / 360.0;
    let mut cdr = Cdr::new();
    header(&mut cdr, time, "laser");
    cdr.f32s(&[-std::f32::consts::PI, std::f32::consts::PI - step, step, 0.0, 0.1, 0.15, 12.0]);
    cdr.sequence_f32(&ranges);
    cdr.sequence_f32(&[]);
    cdr.finish()
}

fn image(robot: &mut Robot, time: u64) -> Result<Vec<u8>, Box<dyn Error>> {
    let jpeg = camera::frame(&robot.pose(time))?;
    let mut cdr = Cdr::new();
    header(&mut cdr, time, "camera");
    cdr.text("jpeg").bytes(&jpeg)?;
    Ok(cdr.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_recording_is_what_the_program_writes() {
        let committed = include_bytes!("../recordings/robot.mcap");
        let made = generate().unwrap();
        assert!(made == committed, "run make_demo_recording again: {} and {} bytes", made.len(), committed.len());
        assert!(committed.len() < 4 << 20, "{}", committed.len());
    }
}
