//! Where the robot is, and what its sensors feel.

use std::f64::consts::{PI, TAU};

/// Seconds for one figure of eight.
const LAP: f64 = 20.0;
/// Half the width of the room, in metres.
const ROOM: (f64, f64) = (6.0, 4.0);
/// Where the room stands: a made-up spot at sea.
const ORIGIN: (f64, f64, f64) = (54.25, 7.5, 3.0);
const METRES_PER_DEGREE: f64 = 111_320.0;

/// Position and motion in the plane; metres, radians, seconds.
pub(super) struct Pose {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) heading: f64,
    pub(super) speed: f64,
    pub(super) turn: f64,
}

impl Pose {
    pub(super) fn quaternion(&self) -> [f64; 4] {
        let half = self.heading / 2.0;
        [0.0, 0.0, round(half.sin()), round(half.cos())]
    }
}

/// Six digits: what differs between mathematics libraries is far below.
pub(super) fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[expect(clippy::cast_possible_truncation, reason = "the sensor's messages have single precision")]
fn single(value: f64) -> f32 {
    round(value) as f32
}

#[expect(clippy::cast_precision_loss, reason = "twenty seconds in nanoseconds are far below 2^53")]
fn seconds(time: u64) -> f64 {
    time as f64 / 1e9
}

pub(super) struct Robot {
    noise: u64,
}

impl Robot {
    pub(super) fn new() -> Self {
        Self { noise: 0x7269_7665_725f_3031 }
    }

    /// A number from -scale to scale (SplitMix64).
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(super) fn noise(&mut self, scale: f64) -> f64 {
        self.noise = self.noise.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.noise;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let unit = (z >> 11) as f64 / (1u64 << 53) as f64;
        round((2.0 * unit - 1.0) * scale)
    }

    /// On a curve of Gerono, 4 m wide and 2 m high.
    pub(super) fn pose(&self, time: u64) -> Pose {
        let rate = TAU / LAP;
        let a = seconds(time) * rate;
        let (x, y) = (4.0 * a.cos(), 2.0 * (2.0 * a).sin());
        let (vx, vy) = (-4.0 * rate * a.sin(), 4.0 * rate * (2.0 * a).cos());
        let (ax, ay) = (-4.0 * rate * rate * a.cos(), -8.0 * rate * rate * (2.0 * a).sin());
        let squared = vx * vx + vy * vy;
        Pose {
            x: round(x),
            y: round(y),
            heading: round(vy.atan2(vx)),
            speed: round(squared.sqrt()),
            turn: round((vx * ay - vy * ax) / squared),
        }
    }

    pub(super) fn position_on_earth(&mut self, time: u64) -> (f64, f64, f64) {
        let pose = self.pose(time);
        let north = pose.y + self.noise(0.4);
        let east = pose.x + self.noise(0.4);
        let latitude = ORIGIN.0 + north / METRES_PER_DEGREE;
        let longitude = ORIGIN.1 + east / (METRES_PER_DEGREE * (ORIGIN.0 * PI / 180.0).cos());
        // Seven digits are a centimetre.
        let digits = |value: f64| (value * 1e7).round() / 1e7;
        (digits(latitude), digits(longitude), round(ORIGIN.2 + self.noise(1.0)))
    }

    /// Ampere hours left.
    pub(super) fn charge(&self, time: u64) -> f32 {
        single(16.4 - seconds(time) * 4.2 / 3600.0)
    }

    pub(super) fn cells(&mut self, charge: f32) -> [f32; 4] {
        [0.0; 4].map(|_: f64| single(3.2 + f64::from(charge) * 0.05 + self.noise(0.005)))
    }

    /// Distances to the walls of the room and to two pillars, one per degree; infinite through the open door.
    pub(super) fn ranges(&mut self, time: u64) -> Vec<f32> {
        let pose = self.pose(time);
        (0..360).map(|degree| self.range(&pose, f64::from(degree))).collect()
    }

    fn range(&mut self, pose: &Pose, degree: f64) -> f32 {
        let angle = pose.heading - PI + degree * PI / 180.0;
        let (dx, dy) = (round(angle.cos()), round(angle.sin()));
        let to_wall = |from: f64, direction: f64, half: f64| {
            if direction > 0.0 {
                (half - from) / direction
            } else if direction < 0.0 {
                (-half - from) / direction
            } else {
                f64::INFINITY
            }
        };
        let (wall_x, wall_y) = (to_wall(pose.x, dx, ROOM.0), to_wall(pose.y, dy, ROOM.1));
        let mut nearest = wall_x.min(wall_y);
        let hits_end = wall_x < wall_y && dx > 0.0;
        let door = hits_end && (pose.y + wall_x * dy).abs() < 0.6;
        for (px, py) in [(2.0, 0.0), (-2.0, 0.0)] {
            let (along, across) = ((px - pose.x) * dx + (py - pose.y) * dy, (px - pose.x) * dy - (py - pose.y) * dx);
            let half = 0.3f64.powi(2) - across * across;
            if half > 0.0 && along > 0.0 {
                nearest = nearest.min(along - half.sqrt());
            }
        }
        if door && nearest >= wall_x {
            return f32::INFINITY;
        }
        // A range sensor reports millimetres.
        #[expect(clippy::cast_possible_truncation, reason = "the sensor's messages have single precision")]
        let range = (((nearest + self.noise(0.01)) * 1e3).round() / 1e3) as f32;
        range
    }
}
