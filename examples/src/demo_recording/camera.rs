//! What the robot's camera sees: a tiled floor to the horizon, a wall, a sky light.

use jpeg_encoder::{ColorType, Encoder, EncodingError};

use super::robot::{Pose, round};

const WIDTH: u16 = 320;
const HEIGHT: u16 = 240;
const HORIZON: u16 = 100;
/// Pixels; height of the camera above the floor is 1.
const FOCAL: f64 = 260.0;

/// One frame as a baseline JPEG.
pub(super) fn frame(pose: &Pose) -> Result<Vec<u8>, EncodingError> {
    let (sin, cos) = (round(pose.heading.sin()), round(pose.heading.cos()));
    let mut pixels = Vec::with_capacity(usize::from(WIDTH) * usize::from(HEIGHT) * 3);
    for row in 0..HEIGHT {
        for column in 0..WIDTH {
            pixels.extend_from_slice(&pixel(pose, sin, cos, row, column));
        }
    }
    let mut jpeg = Vec::new();
    Encoder::new(&mut jpeg, 60).encode(&pixels, WIDTH, HEIGHT, ColorType::Rgb)?;
    Ok(jpeg)
}

fn pixel(pose: &Pose, sin: f64, cos: f64, row: u16, column: u16) -> [u8; 3] {
    let sideways = f64::from(WIDTH / 2) - f64::from(column);
    if row <= HORIZON {
        // Panels on the far wall that turn by as the robot turns.
        let bearing = pose.heading + round((sideways / FOCAL).atan());
        let panel = (bearing * 12.0 / std::f64::consts::PI).floor().rem_euclid(2.0) < 1.0;
        let shade = 120 + (row / 2).to_le_bytes()[0];
        return if panel { [shade, shade, 200] } else { [shade, 190, shade] };
    }
    let distance = FOCAL / f64::from(row - HORIZON);
    let left = distance * sideways / FOCAL;
    let (x, y) = (pose.x + distance * cos - left * sin, pose.y + distance * sin + left * cos);
    let dark = (x.floor() + y.floor()).rem_euclid(2.0) < 1.0;
    let pillar = ((x - 2.0).powi(2) + y * y).min((x + 2.0).powi(2) + y * y) < 0.09;
    match (pillar, dark) {
        (true, _) => [190, 60, 40],
        (false, true) => [70, 74, 80],
        (false, false) => [205, 200, 190],
    }
}
